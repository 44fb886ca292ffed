//! AgentRegistrations: what is written once, and stays.

use serde_json::{Value, json};

use super::table::{Scene, merge};

const CONTRACT: &str = "0x8004a818bfb912233c491871b3d84c89a494bd9e";
const SIGNER: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
const OTHER_SIGNER: &str = "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const OTHER_HASH: &str = "0x2222222222222222222222222222222222222222222222222222222222222222";
const URI: &str = "https://agents.example/agents/x.json";
const OTHER_URI: &str = "https://other.example/agents/x.json";

/// A record that has every field.
pub fn specimen() -> Value {
    let mut record = record("aaaaaaaaaaaaaaaa");
    merge(
        &mut record,
        &spec(json!({
            "signer": SIGNER,
            "agentUri": URI,
            "calldataHash": HASH,
            "adopt": "7",
            "phase": "Registered",
            "offers": [{ "namespace": "team", "name": "chat", "uid": "1" }],
            "attempts": [attempt(3)],
            "update": { "agentUri": OTHER_URI, "calldataHash": OTHER_HASH },
            "result": { "agentId": "7", "transaction": HASH, "block": 12, "blockHash": HASH },
            "provenAbsent": { "block": 11 },
            "tombstone": true,
            "spentWei": "21000000000000",
        })),
    );
    record
}

/// A record of that key, before anything has happened.
fn record(key: &str) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "AgentRegistration",
        "metadata": { "name": format!("r-{key}") },
        "spec": {
            "key": key,
            "identity": "team/chat",
            "chainId": 84532,
            "registry": { "address": CONTRACT, "codeHash": HASH },
            "edition": 1,
        },
    })
}

fn attempt(nonce: u64) -> Value {
    json!({
        "nonce": nonce, "kind": "Register", "maxFeePerGas": "30000000000", "maxPriorityFeePerGas": "1", "gas": 300_000,
        "hash": HASH, "raw": "0x02f8",
    })
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

pub fn scenes() -> Vec<Scene> {
    vec![
        created(),
        pending(),
        adopting(),
        sent(),
        registered(),
        adopted(),
    ]
}

fn created() -> Scene {
    let offer = |uid: &str| json!({ "namespace": "team", "name": "chat", "uid": uid });
    let first = |change: Value| {
        let mut attempt = attempt(0);
        merge(&mut attempt, &change);
        spec(json!({ "agentUri": URI, "calldataHash": HASH, "attempts": [attempt] }))
    };
    Scene::creation(record("bbbbbbbbbbbbbbbb"))
        .for_each(
            ["", "team", "team/chat", "team/chat.v2"],
            |scene, identity| {
                scene.admits(
                    format!("identity {identity:?}"),
                    spec(json!({ "identity": identity })),
                )
            },
        )
        .for_each(
            [
                "Team/chat",
                "team/",
                "/chat",
                "a/b/c",
                "team/-chat",
                "te am",
            ],
            |scene, identity| {
                let words = "spec.identity in body should match";
                scene.refuses(
                    format!("identity {identity:?}"),
                    spec(json!({ "identity": identity })),
                    words,
                )
            },
        )
        .refuses(
            "a name that is not its key's",
            json!({ "metadata": { "name": "r-cccccccccccccccc" } }),
            "the name of a record is r-<key>",
        )
        .for_each(
            ["bbbb", "bbbbbbbbbbbbbbb1", "bbbbbbbbbbbbb-bb"],
            |scene, key| {
                let change =
                    json!({ "metadata": { "name": format!("r-{key}") }, "spec": { "key": key } });
                scene.refuses(
                    format!("key {key:?}"),
                    change,
                    "spec.key in body should match",
                )
            },
        )
        .refuses(
            "a registry in a second spelling",
            spec(json!({ "registry": { "address": CONTRACT.to_uppercase() } })),
            "spec.registry.address in body should match",
        )
        .refuses(
            "a registry of unknown code",
            spec(json!({ "registry": { "codeHash": null } })),
            "spec.registry.codeHash: Required value",
        )
        .refuses(
            "edition 0",
            spec(json!({ "edition": 0 })),
            "spec.edition in body should be greater than or equal to 1",
        )
        .refuses(
            "a signer in a second spelling",
            spec(json!({ "signer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8" })),
            "spec.signer in body should match",
        )
        .refuses(
            "a phase that is none",
            spec(json!({ "phase": "Done" })),
            "spec.phase: Unsupported value",
        )
        .refuses(
            "one offer twice",
            spec(json!({ "offers": [offer("1"), offer("2")] })),
            "spec.offers[1]: Duplicate value",
        )
        .admits("a first attempt", first(json!({})))
        .admits(
            "an attempt whose bytes are no longer kept",
            first(json!({ "raw": null })),
        )
        .admits(
            "the dearest fee that fits",
            first(json!({ "maxFeePerGas": "9".repeat(38) })),
        )
        .refuses(
            "a fee that does not fit",
            first(json!({ "maxFeePerGas": "9".repeat(39) })),
            "spec.attempts[0].maxFeePerGas: Too long",
        )
        .refuses(
            "a fee in hex",
            first(json!({ "maxFeePerGas": "0x1" })),
            "spec.attempts[0].maxFeePerGas in body should match",
        )
        .refuses(
            "half a byte",
            first(json!({ "raw": "0x02f" })),
            "spec.attempts[0].raw in body should match",
        )
        .refuses(
            "a nonce below none",
            first(json!({ "nonce": -1 })),
            "spec.attempts[0].nonce in body should be",
        )
        .refuses(
            "an attempt at something else",
            first(json!({ "kind": "Transfer" })),
            "spec.attempts[0].kind: Unsupported value",
        )
        .refuses(
            "an attempt that nobody can find",
            first(json!({ "hash": null })),
            "spec.attempts[0].hash: Required value",
        )
        .refuses(
            "an attempt at an unknown URI",
            spec(json!({ "attempts": [attempt(0)], "calldataHash": HASH })),
            "an attempt needs agentUri and calldataHash",
        )
        .refuses(
            "an attempt at unknown calldata",
            spec(json!({ "attempts": [attempt(0)], "agentUri": URI })),
            "an attempt needs agentUri and calldataHash",
        )
        .refuses(
            "a result without evidence",
            spec(json!({ "result": { "agentId": "0", "block": 1 } })),
            "spec.result.blockHash: Required value",
        )
        .refuses(
            "a result of no agent",
            spec(json!({ "result": { "agentId": "", "block": 1, "blockHash": HASH } })),
            "spec.result.agentId in body should match",
        )
        .refuses(
            "a proof of nothing",
            spec(json!({ "provenAbsent": {} })),
            "spec.provenAbsent.block: Required value",
        )
        .refuses(
            "an update to nowhere",
            spec(json!({ "update": { "calldataHash": HASH } })),
            "spec.update.agentUri: Required value",
        )
}

/// A record before its first attempt: a wrong URI can still be mended, but what the key stands for cannot change.
fn pending() -> Scene {
    let mut base = record("dddddddddddddddd");
    merge(
        &mut base,
        &spec(json!({ "signer": SIGNER, "agentUri": URI, "calldataHash": HASH })),
    );
    Scene::update(base)
        .admits(
            "a URI mended",
            spec(json!({ "agentUri": OTHER_URI, "calldataHash": OTHER_HASH })),
        )
        .admits(
            "another signer before a result",
            spec(json!({ "signer": OTHER_SIGNER })),
        )
        .admits(
            "a first attempt added",
            spec(json!({ "phase": "Sent", "attempts": [attempt(0)] })),
        )
        .admits(
            "a proof of absence",
            spec(json!({ "provenAbsent": { "block": 9 } })),
        )
        .refuses_for(
            "another key",
            spec(json!({ "key": "eeeeeeeeeeeeeeee" })),
            &[
                "spec.key: Invalid value: \"string\": key is immutable",
                "the name of a record is r-<key>",
            ],
        )
        .refuses(
            "another identity",
            spec(json!({ "identity": "team/else" })),
            "identity is immutable",
        )
        .refuses(
            "another chain",
            spec(json!({ "chainId": 1 })),
            "chainId is immutable",
        )
        .refuses(
            "another registry",
            spec(json!({ "registry": { "address": SIGNER } })),
            "registry is immutable",
        )
        .refuses(
            "other code at the registry",
            spec(json!({ "registry": { "codeHash": OTHER_HASH } })),
            "registry is immutable",
        )
        .refuses(
            "another edition",
            spec(json!({ "edition": 2 })),
            "edition is immutable",
        )
        .refuses(
            "an adoption later",
            spec(json!({ "adopt": "7" })),
            "adopt is immutable",
        )
}

fn adopting() -> Scene {
    let mut base = record("ffffffffffffffff");
    merge(&mut base, &spec(json!({ "adopt": "7" })));
    Scene::update(base)
        .admits(
            "an adoption that succeeds",
            spec(json!({ "result": { "agentId": "7", "block": 1, "blockHash": HASH } })),
        )
        .refuses(
            "an adoption of another",
            spec(json!({ "adopt": "8" })),
            "adopt is immutable",
        )
        .refuses(
            "an adoption taken back, so that it would mint",
            spec(json!({ "adopt": null })),
            "adopt is immutable",
        )
}

/// A record with a transaction that may be on its way for ever.
fn sent() -> Scene {
    let mut base = record("gggggggggggggggg");
    merge(
        &mut base,
        &spec(
            json!({ "signer": SIGNER, "agentUri": URI, "calldataHash": HASH, "phase": "Sent", "attempts": [attempt(3)] }),
        ),
    );
    let frozen = "agentUri and calldataHash are frozen by the first attempt";
    let needs = "an attempt needs agentUri and calldataHash";
    let emptied = "attempts never become empty again";
    Scene::update(base)
        .admits("a second attempt", spec(json!({ "attempts": [attempt(3), attempt(3)] })))
        .admits("attempts of a later nonce instead", spec(json!({ "attempts": [attempt(4)] })))
        .admits("another signer before a result was seen", spec(json!({ "signer": OTHER_SIGNER })))
        .admits(
            "a result",
            spec(json!({ "result": { "agentId": "0", "transaction": HASH, "block": 1, "blockHash": HASH } })),
        )
        .refuses("another URI", spec(json!({ "agentUri": OTHER_URI })), frozen)
        .refuses("other calldata", spec(json!({ "calldataHash": OTHER_HASH })), frozen)
        .refuses_for("no URI any more", spec(json!({ "agentUri": null })), &[frozen, needs])
        .refuses_for("no calldata any more", spec(json!({ "calldataHash": null })), &[frozen, needs])
        .refuses("attempts emptied", spec(json!({ "attempts": [] })), emptied)
        .refuses("attempts taken back", spec(json!({ "attempts": null })), emptied)
        .refuses_for("a fresh start", spec(json!({ "attempts": null, "agentUri": OTHER_URI })), &[emptied, frozen])
}

fn registered() -> Scene {
    let mut base = specimen();
    merge(
        &mut base,
        &json!({ "metadata": { "name": "r-hhhhhhhhhhhhhhhh" }, "spec": { "key": "hhhhhhhhhhhhhhhh" } }),
    );
    let once = "result is written once";
    let signer = "signer is immutable once there is a result";
    Scene::update(base)
        .admits(
            "a tombstone",
            spec(json!({ "tombstone": true, "phase": "Tombstoned", "offers": null })),
        )
        .admits(
            "another offer",
            spec(json!({ "offers": [{ "namespace": "team", "name": "else", "uid": "9" }] })),
        )
        .admits("an update done", spec(json!({ "update": null })))
        .admits("more spent", spec(json!({ "spentWei": "42000000000000" })))
        .refuses(
            "another agent",
            spec(json!({ "result": { "agentId": "8" } })),
            once,
        )
        .refuses(
            "another block",
            spec(json!({ "result": { "block": 13 } })),
            once,
        )
        .refuses("a result taken back", spec(json!({ "result": null })), once)
        .refuses(
            "another signer after the result",
            spec(json!({ "signer": OTHER_SIGNER })),
            signer,
        )
        .refuses(
            "no signer any more",
            spec(json!({ "signer": null })),
            signer,
        )
}

/// A record of a registry without signers.
fn adopted() -> Scene {
    let mut base = record("iiiiiiiiiiiiiiii");
    merge(
        &mut base,
        &spec(json!({ "adopt": "7", "result": { "agentId": "7", "block": 1, "blockHash": HASH } })),
    );
    Scene::update(base).refuses(
        "a signer after the result",
        spec(json!({ "signer": SIGNER })),
        "signer is immutable once there is a result",
    )
}
