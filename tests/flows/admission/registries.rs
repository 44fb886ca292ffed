//! IdentityRegistries: spending limits, signers and identities.

use serde_json::{Value, json};

use super::table::CaseTable;
use crate::objects::merge;

const CONTRACT: &str = "0x8004A818BFB912233c491871b3d84c89A494BD9e";
const SIGNER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const UID: &str = "4f1de0a6-6f0c-4b3c-9d67-53b8e4c1a111";

/// A registry that has every field.
pub fn complete_object() -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "IdentityRegistry",
        "metadata": { "name": "specimen" },
        "spec": {
            "chainId": 84532,
            "address": CONTRACT,
            "rpc": [
                { "url": "https://rpc.example" },
                { "urlFrom": { "secretKeyRef": { "name": "rpc", "key": "url" } } },
            ],
            "quorum": 2,
            "signers": [{ "address": SIGNER, "passwordSecretRef": { "name": "password", "key": "password" }, "secretRef": { "name": "signer", "key": "key" } }],
            "baseUrl": "https://agents.example/base",
            "identityScope": "Namespace",
            "agent": { "name": "Agent", "description": "Shared.", "image": "https://agents.example/icon.png" },
            "allowedNamespaces": {
                "from": "Selector",
                "selector": {
                    "matchLabels": { "team": "agents" },
                    "matchExpressions": [{ "key": "stage", "operator": "In", "values": ["production"] }],
                },
            },
            "limits": {
                "maxFeePerGasGwei": "30", "perRegistration": "0.01", "perDay": "0.5", "perNamespacePerDay": "0.1",
            },
            "uriUpdates": "Automatic",
            "suspend": "Spending",
            "bootstrap": { "atNonce": 17, "fromBlock": 90, "ignoreAgents": { "ids": ["0", "7"], "upToBlock": 95 } },
            "recovery": { "approvedFor": UID },
            "adoptions": [{ "agentId": "7", "namespace": "team" }],
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Reconciled", "message": "Registers.",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1,
            }],
            "ledgers": [{ "signer": SIGNER.to_lowercase(), "uid": UID }],
            "orphansFrom": 100,
            "indexes": [{
                "signer": SIGNER.to_lowercase(), "fromBlock": 90, "block": 120, "held": "4", "keys": 3,
                "keysHash": HASH, "withoutKey": [{ "agentId": "7", "agentUri": "https://old.example", "block": 93 }],
            }],
            "signers": [{ "address": SIGNER, "balance": "1.5" }],
            "agents": 3,
            "pending": 1,
            "registrationsLeft": 40,
            "spentLast24h": "0.02",
        },
    })
}

/// A registry with only the required fields.
fn minimal(name: &str) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "IdentityRegistry",
        "metadata": { "name": name },
        "spec": {
            "chainId": 84532,
            "rpc": [{ "url": "https://rpc.example" }],
            "baseUrl": "https://agents.example",
            "allowedNamespaces": { "from": "All" },
        },
    })
}

pub fn tables() -> Vec<CaseTable> {
    vec![
        chains(),
        endpoints(),
        signers(),
        urls(),
        namespaces(),
        limits(),
        switches(),
        stored(),
        scoped(),
        adoptions(),
        statuses(),
    ]
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn chains() -> CaseTable {
    CaseTable::create(minimal("chains"))
        .accepts("a known chain without signers", json!({}))
        .accepts(
            "a custom chain",
            spec(json!({ "chainId": 31337, "address": CONTRACT })),
        )
        .accepts(
            "the largest chain id that a JSON number holds",
            spec(json!({ "chainId": 9_007_199_254_740_991_u64, "address": CONTRACT })),
        )
        .rejects(
            "a custom chain without a contract address",
            spec(json!({ "chainId": 31337 })),
            "address is required: no registry is known for this chain id",
        )
        .rejects(
            "a mainnet without a known contract",
            spec(json!({ "chainId": 295 })),
            "address is required: no registry is known for this chain id",
        )
        .rejects(
            "no chain",
            spec(json!({ "chainId": null })),
            "spec.chainId: Required value",
        )
        .rejects(
            "chain id 0",
            spec(json!({ "chainId": 0, "address": CONTRACT })),
            "spec.chainId in body should be greater than or equal to 1",
        )
        .rejects(
            "a chain name",
            spec(json!({ "chainId": "base" })),
            "spec.chainId in body must be of type integer",
        )
        .rejects(
            "a truncated address",
            spec(json!({ "address": "0x8004" })),
            "spec.address in body should match",
        )
}

fn endpoints() -> CaseTable {
    let rpc = |rpc: Value| spec(json!({ "rpc": rpc }));
    let many = |count: usize| {
        (0..count)
            .map(|index| json!({ "url": format!("https://rpc-{index}.example") }))
            .collect()
    };
    let secret = json!({ "secretKeyRef": { "name": "rpc", "key": "url" } });
    CaseTable::create(minimal("endpoints"))
        .accepts(
            "an endpoint URL from a Secret",
            rpc(json!([{ "urlFrom": secret }])),
        )
        .accepts(
            "two endpoints and quorum 2",
            spec(json!({ "rpc": many(2), "quorum": 2 })),
        )
        .accepts("eight endpoints", rpc(many(8)))
        .rejects(
            "nine endpoints",
            rpc(many(9)),
            "spec.rpc: Too many: 9: must have at most 8 items",
        )
        .rejects_with(
            "no endpoint",
            rpc(json!([])),
            &[
                "spec.rpc in body should have at least 1 items",
                "quorum is larger than",
            ],
        )
        .rejects(
            "an endpoint without a URL",
            rpc(json!([{}])),
            "exactly one of url and urlFrom is required",
        )
        .rejects(
            "an endpoint with url and urlFrom",
            rpc(json!([{ "url": "https://rpc.example", "urlFrom": secret }])),
            "exactly one of url and urlFrom is required",
        )
        .rejects(
            "a duplicate endpoint",
            rpc(json!([{ "url": "https://a.example" }, { "url": "https://a.example" }])),
            "an rpc endpoint is listed twice",
        )
        .for_each(
            [
                "",
                "rpc.example",
                "ws://rpc.example",
                "https://",
                "https://me:secret@rpc.example",
                "https://rpc.example?key=1",
                "https://a b",
            ],
            |table, url| {
                table.rejects(
                    format!("endpoint {url:?}"),
                    rpc(json!([{ "url": url }])),
                    "spec.rpc[0].url in body should match",
                )
            },
        )
        .rejects(
            "a quorum larger than the number of endpoints",
            spec(json!({ "quorum": 2 })),
            "quorum is larger than the number of rpc endpoints",
        )
        .rejects(
            "quorum 0",
            spec(json!({ "quorum": 0 })),
            "spec.quorum in body should be greater than or equal to 1",
        )
        .rejects(
            "a Secret reference without a key",
            rpc(json!([{ "urlFrom": { "secretKeyRef": { "name": "rpc" } } }])),
            "spec.rpc[0].urlFrom.secretKeyRef.key: Required",
        )
}

fn signers() -> CaseTable {
    let signer = |address: &str| json!({ "address": address, "secretRef": { "name": "signer", "key": "key" } });
    let signers = |signers: Value| spec(json!({ "signers": signers }));
    let many = |count: usize| {
        (0..count)
            .map(|index| signer(&format!("0x{index:040}")))
            .collect()
    };
    CaseTable::create(minimal("signers"))
        .accepts("one signer", signers(json!([signer(SIGNER)])))
        .accepts("eight signers", signers(many(8)))
        .rejects(
            "nine signers",
            signers(many(9)),
            "spec.signers: Too many: 9: must have at most 8 items",
        )
        .rejects_with(
            "a duplicate signer",
            signers(json!([signer(SIGNER), signer(SIGNER)])),
            &[
                "spec.signers[1]: Duplicate value",
                "a signer is listed twice",
            ],
        )
        .rejects(
            "a duplicate signer in another case",
            signers(json!([signer(SIGNER), signer(&SIGNER.to_lowercase())])),
            "a signer is listed twice",
        )
        .rejects(
            "a signer without a Secret",
            signers(json!([{ "address": SIGNER }])),
            "spec.signers[0].secretRef: Required value",
        )
        .rejects(
            "a Secret without a signer address",
            signers(json!([{ "secretRef": { "name": "signer", "key": "key" } }])),
            "spec.signers[0].address: Required value",
        )
        .rejects(
            "a signer by ENS name",
            signers(json!([signer("vitalik.eth")])),
            "spec.signers[0].address in body should match",
        )
        .rejects(
            "an invalid Secret key name",
            signers(
                json!([{ "address": SIGNER, "secretRef": { "name": "signer", "key": "a/b" } }]),
            ),
            "spec.signers[0].secretRef.key in body should match",
        )
}

fn urls() -> CaseTable {
    let on_mainnet = |chain: u64, url: &str| {
        spec(json!({ "chainId": chain, "address": CONTRACT, "baseUrl": url }))
    };
    CaseTable::create(minimal("urls"))
        .for_each(
            [
                "https://a.example",
                "https://a.example:8443/x/y",
                "http://localhost:8080",
            ],
            |table, url| table.accepts(format!("base URL {url}"), spec(json!({ "baseUrl": url }))),
        )
        .for_each(
            [
                "",
                "a.example",
                "/agents",
                "ftp://a.example",
                "https://",
                "https://a.example/",
                "https://a.example/x/",
                "https://a.example?x=1",
                "https://a.example#x",
                "https://me@a.example",
                "https://a .example",
            ],
            |table, url| {
                table.rejects(
                    format!("base URL {url:?}"),
                    spec(json!({ "baseUrl": url })),
                    "spec.baseUrl in body should match",
                )
            },
        )
        .rejects(
            "no base URL",
            spec(json!({ "baseUrl": null })),
            "spec.baseUrl: Required value",
        )
        .accepts(
            "an https base URL on a mainnet",
            on_mainnet(8453, "https://a.example"),
        )
        .for_each([1, 8453, 295, 360], |table, chain| {
            let change = on_mainnet(chain, "http://a.example");
            table.rejects(
                format!("an http base URL on mainnet {chain}"),
                change,
                "baseUrl must start with https:// on a mainnet chain",
            )
        })
}

fn namespaces() -> CaseTable {
    let selector = |selector: Value| {
        spec(json!({ "allowedNamespaces": { "from": "Selector", "selector": selector } }))
    };
    let expression = |expression: Value| selector(json!({ "matchExpressions": [expression] }));
    CaseTable::create(minimal("namespaces"))
        .accepts(
            "namespaces by label",
            selector(json!({ "matchLabels": { "team": "agents" } })),
        )
        .accepts(
            "namespaces by expression",
            expression(json!({ "key": "team", "operator": "NotIn", "values": ["x", "y"] })),
        )
        .accepts(
            "namespaces that have a label key",
            expression(json!({ "key": "team", "operator": "Exists" })),
        )
        .rejects(
            "no allowedNamespaces",
            spec(json!({ "allowedNamespaces": null })),
            "spec.allowedNamespaces: Required value",
        )
        .rejects(
            "allowedNamespaces without from",
            spec(json!({ "allowedNamespaces": { "from": null } })),
            "spec.allowedNamespaces.from: Required value",
        )
        .rejects(
            "an unknown from",
            spec(json!({ "allowedNamespaces": { "from": "Same" } })),
            "spec.allowedNamespaces.from: Unsupported value",
        )
        .rejects(
            "from Selector without a selector",
            spec(json!({ "allowedNamespaces": { "from": "Selector" } })),
            "selector is required when from is Selector, and forbidden otherwise",
        )
        .rejects(
            "a selector without from Selector",
            spec(json!({ "allowedNamespaces": { "selector": { "matchLabels": { "a": "b" } } } })),
            "selector is required when from is Selector, and forbidden otherwise",
        )
        .rejects(
            "an empty selector",
            selector(json!({})),
            "an empty selector would select every namespace: use from: All instead",
        )
        .rejects(
            "empty matchLabels",
            selector(json!({ "matchLabels": {} })),
            "spec.allowedNamespaces.selector.matchLabels in body should have at least 1 properties",
        )
        .rejects(
            "empty matchExpressions",
            selector(json!({ "matchExpressions": [] })),
            "spec.allowedNamespaces.selector.matchExpressions in body should have at least 1 items",
        )
        .rejects(
            "In without values",
            expression(json!({ "key": "team", "operator": "In" })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
        .rejects(
            "NotIn with empty values",
            expression(json!({ "key": "team", "operator": "NotIn", "values": [] })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
        .rejects(
            "Exists with a value",
            expression(json!({ "key": "team", "operator": "Exists", "values": ["x"] })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
        .rejects(
            "an unknown operator",
            expression(json!({ "key": "team", "operator": "Like", "values": ["x"] })),
            "operator: Unsupported value",
        )
}

fn limits() -> CaseTable {
    let limit = |name: &str, amount: &str| spec(json!({ "limits": { name: amount } }));
    let amounts = ["perRegistration", "perDay", "perNamespacePerDay"];
    let wrong = ["", "0", "0.0", "-1", "1e3", "01", ".5", "1.", "1,5", "none"];
    CaseTable::create(minimal("limits"))
        .for_each(amounts, |table, name| {
            table
                .for_each(
                    ["0.000000000000000001", "1", "99999999999999999.5"],
                    |table, amount| table.accepts(format!("{name} {amount}"), limit(name, amount)),
                )
                .for_each(wrong, |table, amount| {
                    table.rejects(
                        format!("{name} {amount:?}"),
                        limit(name, amount),
                        &format!("spec.limits.{name}: "),
                    )
                })
                .for_each(
                    ["0.0000000000000000001", "100000000000000000"],
                    |table, amount| {
                        let words =
                            "an amount has at most 17 digits before and 18 after the decimal point";
                        table.rejects(format!("{name} {amount}"), limit(name, amount), words)
                    },
                )
        })
        .accepts("a fee of 1 wei", limit("maxFeePerGasGwei", "0.000000001"))
        .rejects(
            "a fee below 1 wei",
            limit("maxFeePerGasGwei", "0.0000000001"),
            "an amount of gwei has at most 17 digits before and 9 after the decimal point",
        )
        .rejects(
            "a fee of 0",
            limit("maxFeePerGasGwei", "0"),
            "spec.limits.maxFeePerGasGwei in body should match",
        )
        .rejects(
            "a limit as a number",
            spec(json!({ "limits": { "perDay": 1 } })),
            "spec.limits.perDay in body must be of type string",
        )
}

fn switches() -> CaseTable {
    let agent = json!({ "name": "Agent" });
    CaseTable::create(minimal("switches"))
        .for_each(["Namespace", "Registry"], |table, scope| {
            table
                .accepts(
                    format!("identity scope {scope} with an agent"),
                    spec(json!({ "identityScope": scope, "agent": agent })),
                )
                .rejects(
                    format!("identity scope {scope} without an agent"),
                    spec(json!({ "identityScope": scope })),
                    "agent is required unless identityScope is Offer: set agent.name",
                )
        })
        .rejects(
            "an unknown identity scope",
            spec(json!({ "identityScope": "Cluster" })),
            "spec.identityScope: Unsupported value",
        )
        .rejects(
            "an agent without a name",
            spec(json!({ "agent": { "description": "?" } })),
            "spec.agent.name: Required value",
        )
        .rejects(
            "an empty agent name",
            spec(json!({ "agent": { "name": "" } })),
            "spec.agent.name in body should be at least 1 chars long",
        )
        .for_each(["None", "Spending", "All"], |table, suspend| {
            table.accepts(
                format!("suspend {suspend}"),
                spec(json!({ "suspend": suspend })),
            )
        })
        .rejects(
            "an unknown suspend",
            spec(json!({ "suspend": "yes" })),
            "spec.suspend: Unsupported value",
        )
        .rejects(
            "an unknown uriUpdates",
            spec(json!({ "uriUpdates": "Sometimes" })),
            "spec.uriUpdates: Unsupported value",
        )
        .rejects(
            "a negative bootstrap nonce",
            spec(json!({ "bootstrap": { "atNonce": -1 } })),
            "spec.bootstrap.atNonce in body should be",
        )
        .rejects(
            "a bootstrap without a nonce",
            spec(json!({ "bootstrap": {} })),
            "spec.bootstrap.atNonce: Required value",
        )
        .accepts(
            "an unused wallet without a block",
            spec(json!({ "bootstrap": { "atNonce": 0 } })),
        )
        .accepts(
            "a used wallet with a block",
            spec(json!({ "bootstrap": { "atNonce": 17, "fromBlock": 0 } })),
        )
        .rejects(
            "a used wallet without a block",
            spec(json!({ "bootstrap": { "atNonce": 17 } })),
            "fromBlock is required when atNonce is above 0: set a block before the signer's first transaction",
        )
        .accepts(
            "agents that belong to no offer",
            spec(json!({ "bootstrap": { "atNonce": 0, "ignoreAgents": { "ids": ["0", "7"], "upToBlock": 9 } } })),
        )
        .rejects(
            "an agent id that is no number",
            spec(json!({ "bootstrap": { "atNonce": 0, "ignoreAgents": { "ids": ["seven"] } } })),
            "spec.bootstrap.ignoreAgents.ids[0] in body should match",
        )
        .rejects(
            "a negative block",
            spec(json!({ "bootstrap": { "atNonce": 0, "fromBlock": -1 } })),
            "spec.bootstrap.fromBlock in body should be",
        )
        .rejects(
            "a recovery with an empty approval",
            spec(json!({ "recovery": { "approvedFor": "" } })),
            "spec.recovery.approvedFor in body should be at least 1 chars long",
        )
}

/// A registry in use: chain, contract and scope are immutable, everything else may change.
fn stored() -> CaseTable {
    let mut base = minimal("stored");
    merge(&mut base, &spec(json!({ "address": CONTRACT })));
    CaseTable::update(base)
        .accepts(
            "endpoint changed",
            spec(json!({ "rpc": [{ "url": "https://b.example" }] })),
        )
        .accepts(
            "base URL changed",
            spec(json!({ "baseUrl": "https://b.example" })),
        )
        .accepts("suspended", spec(json!({ "suspend": "All" })))
        .accepts(
            "limits changed",
            spec(json!({ "limits": { "perDay": "3" } })),
        )
        .rejects(
            "chain changed",
            spec(json!({ "chainId": 11_155_111 })),
            "chainId is immutable: create another IdentityRegistry",
        )
        .accepts(
            "contract in lower case",
            spec(json!({ "address": CONTRACT.to_lowercase() })),
        )
        .rejects(
            "contract changed",
            spec(json!({ "address": SIGNER })),
            "address is immutable: create another IdentityRegistry",
        )
        .rejects(
            "contract removed",
            spec(json!({ "address": null })),
            "address is immutable: create another IdentityRegistry",
        )
        .rejects(
            "identity scope changed",
            spec(json!({ "identityScope": "Registry", "agent": { "name": "A" } })),
            "identityScope is immutable: create another IdentityRegistry",
        )
}

/// A registry without an explicit contract, with one shared agent.
fn scoped() -> CaseTable {
    let mut base = minimal("scoped");
    merge(
        &mut base,
        &spec(json!({ "identityScope": "Registry", "agent": { "name": "Agent" } })),
    );
    CaseTable::update(base)
        .accepts(
            "agent name changed",
            spec(json!({ "agent": { "name": "Smith" } })),
        )
        .rejects(
            "contract set later",
            spec(json!({ "address": CONTRACT })),
            "address is immutable: create another IdentityRegistry",
        )
        .rejects(
            "identity scope removed",
            spec(json!({ "identityScope": null })),
            "identityScope is immutable: create another IdentityRegistry",
        )
        .rejects(
            "agent removed",
            spec(json!({ "agent": null })),
            "agent is required unless identityScope is Offer: set agent.name",
        )
}

fn adoptions() -> CaseTable {
    let adoption =
        |agent: &str, namespace: &str| json!({ "agentId": agent, "namespace": namespace });
    let adoptions = |adoptions: Value| spec(json!({ "adoptions": adoptions }));
    let many = |count: usize| {
        (0..count)
            .map(|index| adoption(&index.to_string(), "team"))
            .collect()
    };
    CaseTable::create(minimal("adoptions"))
        .accepts(
            "two agents of one namespace",
            adoptions(json!([adoption("0", "team"), adoption("7", "team")])),
        )
        .accepts("256 adoptions", adoptions(many(256)))
        .rejects(
            "257 adoptions",
            adoptions(many(257)),
            "spec.adoptions: Too many: 257: must have at most 256 items",
        )
        .rejects(
            "one agent for two namespaces",
            adoptions(json!([adoption("7", "team"), adoption("7", "other")])),
            "spec.adoptions[1]: Duplicate value",
        )
        .rejects(
            "an agent id in hex",
            adoptions(json!([adoption("0x7", "team")])),
            "spec.adoptions[0].agentId in body should match",
        )
        .rejects(
            "an empty namespace",
            adoptions(json!([adoption("7", "")])),
            "spec.adoptions[0].namespace in body should match",
        )
}

fn statuses() -> CaseTable {
    let ledger = |uid: &str| json!({ "signer": SIGNER.to_lowercase(), "uid": uid });
    let ledgers = |ledgers: Value| json!({ "status": { "ledgers": ledgers } });
    let position = |block: u64| {
        json!({
            "signer": SIGNER.to_lowercase(), "fromBlock": 90, "block": block, "held": "4", "keys": 3,
            "keysHash": HASH,
        })
    };
    CaseTable::status_update(minimal("observed"))
        .rejects(
            "two positions for one signer",
            json!({ "status": { "indexes": [position(120), position(121)] } }),
            "status.indexes[1]: Duplicate value",
        )
        .accepts("a ledger in use", ledgers(json!([ledger(UID)])))
        .rejects(
            "two ledgers for one signer",
            ledgers(json!([ledger(UID), ledger("other")])),
            "status.ledgers[1]: Duplicate value",
        )
        .rejects(
            "a ledger without a uid",
            ledgers(json!([ledger("")])),
            "ledgers[0].uid in body should be at least 1 chars long",
        )
        .rejects(
            "a ledger with a mixed-case signer",
            ledgers(json!([{ "signer": SIGNER, "uid": UID }])),
            "ledgers[0].signer in body should match",
        )
}
