//! AgentRegistrations: which fields are written once and are immutable afterwards.

use serde_json::{Value, json};

use super::table::CaseTable;
use crate::objects::merge;

const CONTRACT: &str = "0x8004a818bfb912233c491871b3d84c89a494bd9e";
const SIGNER: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
const OTHER_SIGNER: &str = "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const OTHER_HASH: &str = "0x2222222222222222222222222222222222222222222222222222222222222222";
const URI: &str = "https://agents.example/agents/x.json";
const OTHER_URI: &str = "https://other.example/agents/x.json";

/// A record that has every field.
pub fn complete_object() -> Value {
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
            "agentUriHash": HASH,
            "reverted": { "transaction": HASH, "block": 10 },
            "displaced": { "nonce": 2, "transaction": HASH, "block": 9 },
            "provenAbsent": { "block": 11 },
            "movedFrom": SIGNER.to_lowercase(),
            "tombstone": true,
            "spentWei": "21000000000000",
        })),
    );
    record
}

/// A new record for this key.
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
        "hash": HASH, "raw": "0x02f8", "signedAt": "2026-01-02T03:04:05Z",
    })
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

pub fn tables() -> Vec<CaseTable> {
    vec![
        created(),
        pending(),
        adopting(),
        sent(),
        registered(),
        adopted(),
        reverted(),
        reverted_by_an_older_version(),
        displaced(),
    ]
}

fn created() -> CaseTable {
    let offer = |uid: &str| json!({ "namespace": "team", "name": "chat", "uid": uid });
    let first = |change: Value| {
        let mut attempt = attempt(0);
        merge(&mut attempt, &change);
        spec(json!({ "agentUri": URI, "calldataHash": HASH, "attempts": [attempt] }))
    };
    CaseTable::create(record("bbbbbbbbbbbbbbbb"))
        .for_each(
            ["", "team", "team/chat", "team/chat.v2"],
            |table, identity| {
                table.accepts(
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
            |table, identity| {
                let words = "spec.identity in body should match";
                table.rejects(
                    format!("identity {identity:?}"),
                    spec(json!({ "identity": identity })),
                    words,
                )
            },
        )
        .rejects(
            "a name of another key",
            json!({ "metadata": { "name": "r-cccccccccccccccc" } }),
            "the name of a record must be r-<key>",
        )
        .for_each(
            ["bbbb", "bbbbbbbbbbbbbbb1", "bbbbbbbbbbbbb-bb"],
            |table, key| {
                let change =
                    json!({ "metadata": { "name": format!("r-{key}") }, "spec": { "key": key } });
                table.rejects(
                    format!("key {key:?}"),
                    change,
                    "spec.key in body should match",
                )
            },
        )
        .rejects(
            "an upper-case registry address",
            spec(json!({ "registry": { "address": CONTRACT.to_uppercase() } })),
            "spec.registry.address in body should match",
        )
        .accepts(
            "a registry without a code hash",
            spec(json!({ "registry": { "codeHash": null } })),
        )
        .rejects(
            "edition 0",
            spec(json!({ "edition": 0 })),
            "spec.edition in body should be greater than or equal to 1",
        )
        .rejects(
            "a mixed-case signer",
            spec(json!({ "signer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8" })),
            "spec.signer in body should match",
        )
        .rejects(
            "an unknown phase",
            spec(json!({ "phase": "Done" })),
            "spec.phase: Unsupported value",
        )
        .rejects(
            "a duplicate offer",
            spec(json!({ "offers": [offer("1"), offer("2")] })),
            "spec.offers[1]: Duplicate value",
        )
        .accepts("a first attempt", first(json!({})))
        .accepts(
            "an attempt without raw bytes",
            first(json!({ "raw": null })),
        )
        .accepts(
            "the largest fee",
            first(json!({ "maxFeePerGas": "9".repeat(38) })),
        )
        .rejects(
            "a fee that is too long",
            first(json!({ "maxFeePerGas": "9".repeat(39) })),
            "spec.attempts[0].maxFeePerGas: Too long",
        )
        .rejects(
            "a fee in hex",
            first(json!({ "maxFeePerGas": "0x1" })),
            "spec.attempts[0].maxFeePerGas in body should match",
        )
        .rejects(
            "raw bytes with an odd number of digits",
            first(json!({ "raw": "0x02f" })),
            "spec.attempts[0].raw in body should match",
        )
        .rejects(
            "a negative nonce",
            first(json!({ "nonce": -1 })),
            "spec.attempts[0].nonce in body should be",
        )
        .rejects(
            "an unknown attempt kind",
            first(json!({ "kind": "Transfer" })),
            "spec.attempts[0].kind: Unsupported value",
        )
        .rejects(
            "an attempt without a hash",
            first(json!({ "hash": null })),
            "spec.attempts[0].hash: Required value",
        )
        .rejects(
            "an attempt without agentUri",
            spec(json!({ "attempts": [attempt(0)], "calldataHash": HASH })),
            "an attempt needs agentUri and calldataHash",
        )
        .rejects(
            "an attempt without calldataHash",
            spec(json!({ "attempts": [attempt(0)], "agentUri": URI })),
            "an attempt needs agentUri and calldataHash",
        )
        .rejects(
            "a result without a block hash",
            spec(json!({ "result": { "agentId": "0", "block": 1 } })),
            "spec.result.blockHash: Required value",
        )
        .rejects(
            "a result with an empty agent id",
            spec(json!({ "result": { "agentId": "", "block": 1, "blockHash": HASH } })),
            "spec.result.agentId in body should match",
        )
        .rejects(
            "a proof of absence without a block",
            spec(json!({ "provenAbsent": {} })),
            "spec.provenAbsent.block: Required value",
        )
        .accepts(
            "a result with only the hash of the URI",
            spec(json!({
                "agentUriHash": HASH, "result": { "agentId": "7", "block": 1, "blockHash": HASH },
            })),
        )
        .rejects(
            "a reverted transaction in phase Pending",
            spec(json!({ "reverted": { "transaction": HASH, "block": 1 } })),
            "reverted needs phase Reverted or a result",
        )
        .rejects(
            "a reverted transaction without a block",
            spec(json!({ "phase": "Reverted", "reverted": { "transaction": HASH } })),
            "spec.reverted.block: Required value",
        )
        .rejects(
            "an update without a URI",
            spec(json!({ "update": { "calldataHash": HASH } })),
            "spec.update.agentUri: Required value",
        )
}

/// A record before its first attempt: a wrong URI can still be corrected, but what the key
/// identifies is immutable.
fn pending() -> CaseTable {
    let mut base = record("dddddddddddddddd");
    merge(
        &mut base,
        &spec(json!({ "signer": SIGNER, "agentUri": URI, "calldataHash": HASH })),
    );
    CaseTable::update(base)
        .accepts(
            "URI corrected",
            spec(json!({ "agentUri": OTHER_URI, "calldataHash": OTHER_HASH })),
        )
        .accepts(
            "signer changed before a result",
            spec(json!({ "signer": OTHER_SIGNER })),
        )
        .accepts(
            "first attempt added",
            spec(json!({ "phase": "Sent", "attempts": [attempt(0)] })),
        )
        .accepts(
            "proof of absence added",
            spec(json!({ "provenAbsent": { "block": 9 } })),
        )
        .rejects_with(
            "key changed",
            spec(json!({ "key": "eeeeeeeeeeeeeeee" })),
            &[
                "spec.key: Invalid value: \"string\": key is immutable",
                "the name of a record must be r-<key>",
            ],
        )
        .rejects(
            "identity changed",
            spec(json!({ "identity": "team/else" })),
            "identity is immutable",
        )
        .rejects(
            "chain changed",
            spec(json!({ "chainId": 1 })),
            "chainId is immutable",
        )
        .rejects(
            "registry changed",
            spec(json!({ "registry": { "address": SIGNER } })),
            "registry is immutable",
        )
        .rejects(
            "code hash changed",
            spec(json!({ "registry": { "codeHash": OTHER_HASH } })),
            "registry is immutable",
        )
        .rejects(
            "edition changed",
            spec(json!({ "edition": 2 })),
            "edition is immutable",
        )
        .accepts(
            "adoption added before the first attempt",
            spec(json!({ "adopt": "7" })),
        )
}

fn adopting() -> CaseTable {
    let mut base = record("ffffffffffffffff");
    merge(&mut base, &spec(json!({ "adopt": "7" })));
    CaseTable::update(base)
        .accepts(
            "adoption completed",
            spec(json!({ "result": { "agentId": "7", "block": 1, "blockHash": HASH } })),
        )
        .rejects(
            "adopted agent changed",
            spec(json!({ "adopt": "8" })),
            "adopt can be set before the first attempt, and is immutable",
        )
        .rejects(
            "adoption removed, which would register a new agent",
            spec(json!({ "adopt": null })),
            "adopt can be set before the first attempt, and is immutable",
        )
}

/// A record with a transaction that may stay in flight indefinitely.
fn sent() -> CaseTable {
    let mut base = record("gggggggggggggggg");
    merge(
        &mut base,
        &spec(
            json!({ "signer": SIGNER, "agentUri": URI, "calldataHash": HASH, "phase": "Sent", "attempts": [attempt(3)] }),
        ),
    );
    let frozen = "agentUri and calldataHash are frozen by the first attempt";
    let needs = "an attempt needs agentUri and calldataHash";
    let emptied = "attempts cannot be emptied";
    CaseTable::update(base)
        .accepts("second attempt added", spec(json!({ "attempts": [attempt(3), attempt(3)] })))
        .accepts("attempts replaced by one of a later nonce", spec(json!({ "attempts": [attempt(4)] })))
        .accepts("signer changed before the result", spec(json!({ "signer": OTHER_SIGNER })))
        .accepts(
            "result added",
            spec(json!({ "result": { "agentId": "0", "transaction": HASH, "block": 1, "blockHash": HASH } })),
        )
        .accepts(
            "reverted transaction added",
            spec(json!({ "phase": "Reverted", "reverted": { "transaction": HASH, "block": 1 } })),
        )
        .rejects("URI changed", spec(json!({ "agentUri": OTHER_URI })), frozen)
        .rejects("calldata changed", spec(json!({ "calldataHash": OTHER_HASH })), frozen)
        .rejects_with("URI removed", spec(json!({ "agentUri": null })), &[frozen, needs])
        .rejects_with("calldata removed", spec(json!({ "calldataHash": null })), &[frozen, needs])
        .rejects(
            "adoption added after the first attempt",
            spec(json!({ "adopt": "7" })),
            "adopt can be set before the first attempt, and is immutable",
        )
        .rejects("attempts emptied", spec(json!({ "attempts": [] })), emptied)
        .rejects("attempts removed", spec(json!({ "attempts": null })), emptied)
        .rejects_with("attempts removed and URI changed", spec(json!({ "attempts": null, "agentUri": OTHER_URI })), &[emptied, frozen])
}

fn registered() -> CaseTable {
    let mut base = complete_object();
    merge(
        &mut base,
        &json!({ "metadata": { "name": "r-hhhhhhhhhhhhhhhh" }, "spec": { "key": "hhhhhhhhhhhhhhhh" } }),
    );
    let once = "result is written once";
    let signer = "signer is immutable once there is a result";
    CaseTable::update(base)
        .accepts(
            "tombstone added",
            spec(json!({ "tombstone": true, "phase": "Tombstoned", "offers": null })),
        )
        .accepts(
            "offer changed",
            spec(json!({ "offers": [{ "namespace": "team", "name": "else", "uid": "9" }] })),
        )
        .accepts("update removed", spec(json!({ "update": null })))
        .accepts(
            "spentWei increased",
            spec(json!({ "spentWei": "42000000000000" })),
        )
        .rejects(
            "agent changed",
            spec(json!({ "result": { "agentId": "8" } })),
            once,
        )
        .rejects(
            "block changed",
            spec(json!({ "result": { "block": 13 } })),
            once,
        )
        .rejects_with(
            "result removed",
            spec(json!({ "result": null })),
            &[once, "reverted needs phase Reverted or a result"],
        )
        .rejects(
            "signer changed after the result",
            spec(json!({ "signer": OTHER_SIGNER })),
            signer,
        )
        .rejects(
            "signer removed after the result",
            spec(json!({ "signer": null })),
            signer,
        )
}

/// An adopted agent in a registry without signers.
fn adopted() -> CaseTable {
    let mut base = record("iiiiiiiiiiiiiiii");
    merge(
        &mut base,
        &spec(json!({ "adopt": "7", "result": { "agentId": "7", "block": 1, "blockHash": HASH } })),
    );
    CaseTable::update(base).rejects(
        "signer added after the result",
        spec(json!({ "signer": SIGNER })),
        "signer is immutable once there is a result",
    )
}

/// A record whose nonce something else used: it may be displaced again, at a higher one. An older
/// version drops the field.
fn displaced() -> CaseTable {
    let displaced = |nonce: u64| {
        let displaced = json!({ "nonce": nonce, "transaction": HASH, "block": 9 });
        spec(json!({ "displaced": displaced }))
    };
    let mut base = record("llllllllllllllll");
    merge(
        &mut base,
        &spec(json!({
            "signer": SIGNER, "agentUri": URI, "calldataHash": HASH, "attempts": [attempt(3)],
        })),
    );
    merge(&mut base, &displaced(3));
    CaseTable::update(base)
        .accepts("displaced again", displaced(5))
        .accepts("displaced removed", spec(json!({ "displaced": null })))
        .rejects(
            "displaced at a lower nonce",
            displaced(2),
            "displaced can be removed or name a higher nonce",
        )
        .rejects(
            "displaced without a nonce",
            spec(json!({ "displaced": { "nonce": null } })),
            "spec.displaced.nonce: Required value",
        )
}

/// A record of a registration that was included and reverted.
fn reverted() -> CaseTable {
    let mut base = record("jjjjjjjjjjjjjjjj");
    merge(
        &mut base,
        &spec(json!({
            "signer": SIGNER, "agentUri": URI, "calldataHash": HASH, "phase": "Reverted",
            "attempts": [attempt(3)], "reverted": { "transaction": HASH, "block": 1 },
        })),
    );
    let changed = "reverted can be removed, not changed";
    let last = "phase Reverted is final unless a result is found";
    let needs = "reverted needs phase Reverted or a result";
    CaseTable::update(base)
        .accepts("tombstone added", spec(json!({ "tombstone": true })))
        .accepts(
            "result found",
            spec(json!({
                "phase": "Registered", "result": { "agentId": "0", "block": 1, "blockHash": HASH },
            })),
        )
        .accepts(
            "reverted transaction dropped by an older version",
            spec(json!({ "reverted": null })),
        )
        .rejects(
            "reverted transaction changed",
            spec(json!({ "reverted": { "block": 2 } })),
            changed,
        )
        .rejects_with(
            "phase reset",
            spec(json!({ "phase": "Pending" })),
            &[last, needs],
        )
        .rejects(
            "phase reset and transaction removed, which would register again",
            spec(json!({ "phase": "Pending", "reverted": null })),
            last,
        )
}

/// A reverted record whose transaction an older version has dropped.
fn reverted_by_an_older_version() -> CaseTable {
    let mut base = record("kkkkkkkkkkkkkkkk");
    merge(&mut base, &spec(json!({ "phase": "Reverted" })));
    CaseTable::update(base).accepts(
        "reverted transaction added again",
        spec(json!({ "reverted": { "transaction": HASH, "block": 1 } })),
    )
}
