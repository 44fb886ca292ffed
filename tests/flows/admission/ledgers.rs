//! SignerLedgers: a nonce has one owner, a key has one registration, and neither is ever rewritten.

use serde_json::{Value, json};

use super::table::CaseTable;
use crate::objects::merge;

const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const OTHER_HASH: &str = "0x2222222222222222222222222222222222222222222222222222222222222222";
const UID: &str = "4f1de0a6-6f0c-4b3c-9d67-53b8e4c1a111";
const CONTRACT: &str = "0x8004a818bfb912233c491871b3d84c89a494bd9e";
const A: &str = "aaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccc";
const TOGETHER: &str = "fromBlock and fromBalance must be set together";
const SET_WHILE_NEW: &str =
    "fromBlock is set while the ledger is new; later it can be lowered or removed";
const REGISTRY_WHILE_NEW: &str =
    "fromRegistry is set while the ledger is new; later it can be removed";
const REGISTRY_KEPT: &str =
    "fromRegistry needs fromBlock, and is removed when fromBlock is lowered";
const BALANCE_KEPT: &str = "fromBalance changes only when fromBlock is lowered, to 0";

/// A ledger that has every field.
pub fn complete_object() -> Value {
    let mut ledger = ledger(0);
    merge(
        &mut ledger,
        &spec(json!({
            "state": "Quarantine",
            "draining": true,
            "quarantine": { "reason": "Lost", "bound": 5 },
            "entries": { "3": { "key": A, "operation": "Register" } },
            "registering": { A: "3" },
            "fromBlock": 90,
            "fromBalance": "2",
            "fromRegistry": CONTRACT,
        })),
    );
    ledger
}

/// An active ledger of the account with this number: five nonces are allocated, three of them are
/// finalized.
fn ledger(account: u64) -> Value {
    let signer = address(account);
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "SignerLedger",
        "metadata": { "name": format!("84532-{signer}") },
        "spec": {
            "chainId": 84532,
            "genesisHash": HASH,
            "signer": signer,
            "clusterUid": UID,
            "state": "Active",
            "next": 5,
            "finalizedNonce": 3,
            "finalizedBlock": 100,
            "entries": {},
            "registering": {},
            "epoch": 1,
            "historyHash": HASH,
        },
    })
}

fn address(account: u64) -> String {
    format!("0xa{account:039x}")
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

pub fn tables() -> Vec<CaseTable> {
    vec![
        created(),
        entered(),
        active(),
        finalized(),
        draining(),
        quarantined(),
        born(),
        read_from_block(),
        configured(),
    ]
}

fn created() -> CaseTable {
    let named = |name: String| json!({ "metadata": { "name": name } });
    let name = "the name of a ledger must be <chainId>-<signer>";
    let quarantine = "quarantine must be set if and only if state is Quarantine";
    CaseTable::create(ledger(1))
        .accepts("an active ledger, as restored from a backup", json!({}))
        .accepts(
            "a ledger in quarantine",
            spec(json!({ "state": "Quarantine", "quarantine": { "reason": "New", "bound": 0 } })),
        )
        .rejects(
            "a name with another chain",
            named(format!("1-{}", address(1))),
            name,
        )
        .rejects(
            "a name with another signer",
            named(format!("84532-{}", address(2))),
            name,
        )
        .rejects(
            "a name with a leading zero",
            named(format!("084532-{}", address(1))),
            name,
        )
        .rejects(
            "a name with an extra part",
            named(format!("84532-x-{}", address(1))),
            name,
        )
        .rejects("a name without a chain", named(address(1)), name)
        .rejects_with(
            "an upper-case signer",
            spec(json!({ "signer": address(1).to_uppercase() })),
            &["spec.signer in body should match", name],
        )
        .rejects(
            "state Quarantine without a quarantine",
            spec(json!({ "state": "Quarantine" })),
            quarantine,
        )
        .rejects(
            "a quarantine in state Active",
            spec(json!({ "quarantine": { "reason": "New", "bound": 0 } })),
            quarantine,
        )
        .rejects(
            "a quarantine without a bound",
            spec(json!({ "state": "Quarantine", "quarantine": { "reason": "New" } })),
            "spec.quarantine.bound: Required value",
        )
        .rejects(
            "an unknown state",
            spec(json!({ "state": "Frozen" })),
            "spec.state: Unsupported value",
        )
        .rejects(
            "no next",
            spec(json!({ "next": null })),
            "spec.next: Required value",
        )
        .rejects(
            "next as a string",
            spec(json!({ "next": "5" })),
            "spec.next in body must be of type integer",
        )
        .rejects(
            "next larger than a JSON number holds",
            spec(json!({ "next": 9_007_199_254_740_992_u64 })),
            "spec.next in body should be less than or equal",
        )
        .accepts(
            "a start of the logs, as restored from a backup",
            spec(json!({ "fromBlock": 90, "fromBalance": "2", "fromRegistry": CONTRACT })),
        )
        .accepts(
            "the largest balance",
            spec(json!({ "fromBlock": 90, "fromBalance": "9".repeat(77) })),
        )
        .rejects(
            "fromBlock without fromBalance",
            spec(json!({ "fromBlock": 90 })),
            TOGETHER,
        )
        .rejects(
            "fromBalance without fromBlock",
            spec(json!({ "fromBalance": "2" })),
            TOGETHER,
        )
        .rejects(
            "fromBalance as a number",
            spec(json!({ "fromBlock": 90, "fromBalance": 2 })),
            "spec.fromBalance in body must be of type string",
        )
        .rejects(
            "fromBalance in hex",
            spec(json!({ "fromBlock": 90, "fromBalance": "0x2" })),
            "spec.fromBalance in body should match",
        )
        .rejects(
            "no entries",
            spec(json!({ "entries": null })),
            "spec.entries: Required value",
        )
}

fn entered() -> CaseTable {
    let entries = |entries: Value, registering: Value| {
        spec(json!({ "entries": entries, "registering": registering }))
    };
    let register = |key: &str| json!({ "key": key, "operation": "Register" });
    let update = |key: &str| json!({ "key": key, "operation": "Update" });
    let plain = "every entry must be a decimal nonce below next";
    let points = "registering must point at a Register entry of its key";
    let listed = "every Register entry must be listed in registering: a key has at most one";
    let full: Value = (0..1024)
        .map(|nonce| (format!("{nonce}"), json!({ "operation": "Filler" })))
        .collect();
    CaseTable::create(ledger(1))
        .accepts(
            "a registration",
            entries(json!({ "4": register(A) }), json!({ A: "4" })),
        )
        .accepts(
            "an update and a filler",
            entries(
                json!({ "3": update(A), "4": { "operation": "Filler" } }),
                json!({}),
            ),
        )
        .accepts(
            "nonce zero",
            entries(json!({ "0": register(A) }), json!({ A: "0" })),
        )
        .accepts(
            "the maximum number of entries",
            spec(json!({ "next": 1024, "entries": full })),
        )
        .for_each(
            ["03", "x", "-1", "+1", "1.0", " 1", "", "12345678901234567"],
            |table, nonce| {
                let change = json!({ "spec": { "entries": { nonce: { "operation": "Filler" } } } });
                table.rejects(format!("nonce {nonce:?}"), change, plain)
            },
        )
        .rejects(
            "a nonce that is not allocated",
            entries(json!({ "5": update(A) }), json!({})),
            plain,
        )
        .rejects(
            "an entry without a key",
            entries(json!({ "4": { "operation": "Update" } }), json!({})),
            "key is required unless operation is Filler",
        )
        .rejects(
            "an entry without an operation",
            entries(json!({ "4": { "key": A } }), json!({})),
            "spec.entries.4.operation: Required value",
        )
        .rejects(
            "an unknown operation",
            entries(json!({ "4": { "key": A, "operation": "Send" } }), json!({})),
            "spec.entries.4.operation: Unsupported value",
        )
        .rejects(
            "an invalid key",
            entries(
                json!({ "4": { "key": "A", "operation": "Update" } }),
                json!({}),
            ),
            "spec.entries.4.key in body should match",
        )
        .rejects(
            "registering points at a nonce without an entry",
            entries(json!({}), json!({ A: "4" })),
            points,
        )
        .rejects(
            "registering points at an Update entry",
            entries(json!({ "4": update(A) }), json!({ A: "4" })),
            points,
        )
        .rejects_with(
            "registering points at the entry of another key",
            entries(json!({ "4": register(B) }), json!({ A: "4" })),
            &[points, listed],
        )
        .rejects(
            "a Register entry that is not in registering",
            entries(json!({ "4": register(A) }), json!({})),
            listed,
        )
        .rejects(
            "two Register entries for one key",
            entries(
                json!({ "3": register(A), "4": register(A) }),
                json!({ A: "4" }),
            ),
            listed,
        )
}

/// Nonces 3 and 4 belong to a registration and an update.
fn active() -> CaseTable {
    let mut base = ledger(2);
    let entries = json!({ "3": { "key": A, "operation": "Register" }, "4": { "key": B, "operation": "Update" } });
    merge(
        &mut base,
        &spec(json!({ "entries": entries, "registering": { A: "3" } })),
    );
    let fixed = "an entry is immutable";
    let pruned = "an entry can be pruned only below finalizedNonce";
    let fresh = "a new entry needs a nonce at or above the previous next";
    CaseTable::update(base)
        .accepts("an allocation", spec(json!({ "next": 6, "entries": { "5": { "key": C, "operation": "Register" } }, "registering": { C: "5" } })))
        .accepts("a batch of allocations", spec(json!({ "next": 8, "entries": { "5": { "operation": "Filler" }, "6": { "key": B, "operation": "Update" }, "7": { "key": C, "operation": "Register" } }, "registering": { C: "7" } })))
        .accepts("a finalized registration removed", spec(json!({ "finalizedNonce": 4, "finalizedBlock": 101, "entries": { "3": null }, "registering": { A: null } })))
        .accepts("draining started", spec(json!({ "draining": true })))
        .rejects("a nonce allocated twice", spec(json!({ "entries": { "2": { "operation": "Filler" } } })), fresh)
        .rejects_with("the key of an entry changed", spec(json!({ "entries": { "4": { "key": C } } })), &[fixed])
        .rejects("the operation of an entry changed", spec(json!({ "entries": { "4": { "operation": "Filler" } } })), fixed)
        .rejects("an entry removed before finality", spec(json!({ "entries": { "4": null } })), pruned)
        .rejects("a registration removed before finality", spec(json!({ "entries": { "3": null }, "registering": { A: null } })), pruned)
        .rejects(
            "a key moved to another nonce in one write",
            spec(json!({
                "next": 6, "finalizedNonce": 4,
                "entries": { "3": null, "5": { "key": A, "operation": "Register" } }, "registering": { A: "5" },
            })),
            "a key cannot leave the ledger and return to it in one write",
        )
        .rejects("a second registration for a key", spec(json!({ "next": 6, "entries": { "5": { "key": A, "operation": "Register" } } })), "every Register entry must be listed in registering")
        .rejects_with("chain changed", spec(json!({ "chainId": 1 })), &["chainId is immutable", "the name of a ledger must be"])
        .rejects_with("signer changed", spec(json!({ "signer": address(9) })), &["signer is immutable", "the name of a ledger must be"])
        .rejects("genesis changed", spec(json!({ "genesisHash": OTHER_HASH })), "genesisHash is immutable")
        .rejects("cluster changed", spec(json!({ "clusterUid": "elsewhere" })), "clusterUid can change only in Quarantine")
        .rejects(
            "cluster changed while entering quarantine",
            spec(json!({ "clusterUid": "elsewhere", "state": "Quarantine", "quarantine": { "reason": "Clone", "bound": 5 } })),
            "clusterUid can change only in Quarantine",
        )
}

/// No entries.
fn finalized() -> CaseTable {
    let decrease = "finalizedNonce and finalizedBlock never decrease";
    CaseTable::update(ledger(3))
        .accepts("no change", json!({}))
        .accepts(
            "finalizedNonce increased",
            spec(json!({ "finalizedNonce": 4 })),
        )
        .rejects(
            "next decreased",
            spec(json!({ "next": 4 })),
            "next never decreases",
        )
        .rejects(
            "finalizedNonce decreased",
            spec(json!({ "finalizedNonce": 2 })),
            decrease,
        )
        .rejects(
            "finalizedBlock decreased",
            spec(json!({ "finalizedBlock": 99 })),
            decrease,
        )
}

fn draining() -> CaseTable {
    let mut base = ledger(4);
    merge(&mut base, &spec(json!({ "draining": true })));
    CaseTable::update(base)
        .rejects(
            "draining set to false",
            spec(json!({ "draining": false })),
            "draining is permanent",
        )
        .rejects(
            "draining removed",
            spec(json!({ "draining": null })),
            "draining is permanent",
        )
}

fn quarantined() -> CaseTable {
    let mut base = ledger(5);
    merge(
        &mut base,
        &spec(json!({ "state": "Quarantine", "quarantine": { "reason": "Clone", "bound": 5 } })),
    );
    CaseTable::update(base)
        .accepts(
            "cluster changed in quarantine",
            spec(json!({ "clusterUid": "elsewhere" })),
        )
        .accepts(
            "quarantine ended",
            spec(json!({ "state": "Active", "quarantine": null })),
        )
        .rejects(
            "quarantine removed in state Quarantine",
            spec(json!({ "quarantine": null })),
            "quarantine must be set if and only if state is Quarantine",
        )
}

/// A new ledger, without a start of the logs.
fn born() -> CaseTable {
    let mut base = ledger(6);
    merge(
        &mut base,
        &spec(json!({ "state": "Quarantine", "quarantine": { "reason": "New", "bound": 0 } })),
    );
    let activated = |start: Value| {
        let mut change = spec(json!({ "state": "Active", "quarantine": null }));
        merge(&mut change, &spec(start));
        change
    };
    CaseTable::update(base)
        .accepts(
            "activated with the balance at its birth",
            activated(json!({ "fromBlock": 100, "fromBalance": "2", "fromRegistry": CONTRACT })),
        )
        .accepts(
            "activated with a configured block",
            activated(json!({ "fromBlock": 90, "fromBalance": "0" })),
        )
        .accepts("activated by an older version", activated(json!({})))
        .rejects_with(
            "fromRegistry without fromBlock",
            activated(json!({ "fromRegistry": CONTRACT })),
            &[REGISTRY_KEPT],
        )
}

/// An active ledger with the balance at its birth.
fn read_from_block() -> CaseTable {
    let mut base = ledger(7);
    merge(
        &mut base,
        &spec(json!({ "fromBlock": 90, "fromBalance": "2", "fromRegistry": CONTRACT })),
    );
    CaseTable::update(base)
        .accepts("no change", json!({}))
        .accepts(
            "fromBlock lowered",
            spec(json!({ "fromBlock": 89, "fromBalance": "0", "fromRegistry": null })),
        )
        .accepts(
            "the start dropped by an older version",
            spec(json!({ "fromBlock": null, "fromBalance": null, "fromRegistry": null })),
        )
        .accepts(
            "fromRegistry removed",
            spec(json!({ "fromRegistry": null })),
        )
        .rejects_with(
            "fromBlock raised",
            spec(json!({ "fromBlock": 91 })),
            &[SET_WHILE_NEW, REGISTRY_KEPT],
        )
        .rejects(
            "fromBlock lowered with its balance",
            spec(json!({ "fromBlock": 89, "fromRegistry": null })),
            BALANCE_KEPT,
        )
        .rejects(
            "fromBlock lowered with its registry",
            spec(json!({ "fromBlock": 89, "fromBalance": "0" })),
            REGISTRY_KEPT,
        )
        .rejects(
            "fromBalance changed",
            spec(json!({ "fromBalance": "1" })),
            BALANCE_KEPT,
        )
        .rejects(
            "fromRegistry changed",
            spec(json!({ "fromRegistry": address(9) })),
            REGISTRY_WHILE_NEW,
        )
        .rejects_with(
            "only fromBlock removed",
            spec(json!({ "fromBlock": null })),
            &[TOGETHER, REGISTRY_KEPT],
        )
}

/// An active ledger without a start of the logs, as an older version writes it.
fn configured() -> CaseTable {
    CaseTable::update(ledger(8))
        .rejects(
            "fromBlock set later",
            spec(json!({ "fromBlock": 90, "fromBalance": "0" })),
            SET_WHILE_NEW,
        )
        .rejects_with(
            "fromBlock and fromRegistry set later",
            spec(json!({ "fromBlock": 90, "fromBalance": "0", "fromRegistry": CONTRACT })),
            &[SET_WHILE_NEW, REGISTRY_WHILE_NEW],
        )
}
