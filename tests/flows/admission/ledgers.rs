//! SignerLedgers: a nonce has one owner, a key one registration, and neither is ever rewritten.

use serde_json::{Value, json};

use super::table::{Scene, merge};

const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const OTHER_HASH: &str = "0x2222222222222222222222222222222222222222222222222222222222222222";
const UID: &str = "4f1de0a6-6f0c-4b3c-9d67-53b8e4c1a111";
const A: &str = "aaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccc";

/// A ledger that has every field.
pub fn specimen() -> Value {
    let mut ledger = ledger(0);
    merge(
        &mut ledger,
        &spec(json!({
            "state": "Quarantine",
            "draining": true,
            "quarantine": { "reason": "Lost", "bound": 5 },
            "entries": { "3": { "key": A, "operation": "Register" } },
            "registering": { A: "3" },
        })),
    );
    ledger
}

/// An active ledger of the account with that number: five nonces given out, three of them finalized.
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

pub fn scenes() -> Vec<Scene> {
    vec![
        created(),
        entered(),
        active(),
        finalized(),
        draining(),
        quarantined(),
    ]
}

fn created() -> Scene {
    let named = |name: String| json!({ "metadata": { "name": name } });
    let name = "the name of a ledger is <chainId>-<signer>";
    let quarantine = "quarantine is set exactly while state is Quarantine";
    Scene::creation(ledger(1))
        .admits("an active ledger, as a backup has it", json!({}))
        .admits(
            "a ledger in quarantine",
            spec(json!({ "state": "Quarantine", "quarantine": { "reason": "New", "bound": 0 } })),
        )
        .refuses(
            "a name of another chain",
            named(format!("1-{}", address(1))),
            name,
        )
        .refuses(
            "a name of another signer",
            named(format!("84532-{}", address(2))),
            name,
        )
        .refuses(
            "a second spelling of its name",
            named(format!("084532-{}", address(1))),
            name,
        )
        .refuses(
            "a name that says more",
            named(format!("84532-x-{}", address(1))),
            name,
        )
        .refuses("a name of no chain", named(address(1)), name)
        .refuses_for(
            "a signer in a second spelling",
            spec(json!({ "signer": address(1).to_uppercase() })),
            &["spec.signer in body should match", name],
        )
        .refuses(
            "no reason for a quarantine",
            spec(json!({ "state": "Quarantine" })),
            quarantine,
        )
        .refuses(
            "a quarantine while active",
            spec(json!({ "quarantine": { "reason": "New", "bound": 0 } })),
            quarantine,
        )
        .refuses(
            "a quarantine without end",
            spec(json!({ "state": "Quarantine", "quarantine": { "reason": "New" } })),
            "spec.quarantine.bound: Required value",
        )
        .refuses(
            "a state that is none",
            spec(json!({ "state": "Frozen" })),
            "spec.state: Unsupported value",
        )
        .refuses(
            "no next nonce",
            spec(json!({ "next": null })),
            "spec.next: Required value",
        )
        .refuses(
            "a next nonce as text",
            spec(json!({ "next": "5" })),
            "spec.next in body must be of type integer",
        )
        .refuses(
            "a next nonce that JSON rounds",
            spec(json!({ "next": 9_007_199_254_740_992_u64 })),
            "spec.next in body should be less than or equal",
        )
        .refuses(
            "no entries at all",
            spec(json!({ "entries": null })),
            "spec.entries: Required value",
        )
}

fn entered() -> Scene {
    let entries = |entries: Value, registering: Value| {
        spec(json!({ "entries": entries, "registering": registering }))
    };
    let register = |key: &str| json!({ "key": key, "operation": "Register" });
    let update = |key: &str| json!({ "key": key, "operation": "Update" });
    let plain = "every entry is a plain decimal nonce below next";
    let points = "registering points at a Register entry of its key";
    let listed = "every Register entry is listed in registering, so a key has at most one";
    let full: Value = (0..1024)
        .map(|nonce| (format!("{nonce}"), json!({ "operation": "Filler" })))
        .collect();
    Scene::creation(ledger(1))
        .admits(
            "a registration",
            entries(json!({ "4": register(A) }), json!({ A: "4" })),
        )
        .admits(
            "an update and a filler",
            entries(
                json!({ "3": update(A), "4": { "operation": "Filler" } }),
                json!({}),
            ),
        )
        .admits(
            "nonce zero",
            entries(json!({ "0": register(A) }), json!({ A: "0" })),
        )
        .admits(
            "as many entries as fit",
            spec(json!({ "next": 1024, "entries": full })),
        )
        .for_each(
            ["03", "x", "-1", "+1", "1.0", " 1", "", "12345678901234567"],
            |scene, nonce| {
                let change = json!({ "spec": { "entries": { nonce: { "operation": "Filler" } } } });
                scene.refuses(format!("nonce {nonce:?}"), change, plain)
            },
        )
        .refuses(
            "a nonce that is not given out",
            entries(json!({ "5": update(A) }), json!({})),
            plain,
        )
        .refuses(
            "an owner of no key",
            entries(json!({ "4": { "operation": "Update" } }), json!({})),
            "key is required unless operation is Filler",
        )
        .refuses(
            "an owner of no purpose",
            entries(json!({ "4": { "key": A } }), json!({})),
            "spec.entries.4.operation: Required value",
        )
        .refuses(
            "a purpose that is none",
            entries(json!({ "4": { "key": A, "operation": "Send" } }), json!({})),
            "spec.entries.4.operation: Unsupported value",
        )
        .refuses(
            "a key that is none",
            entries(
                json!({ "4": { "key": "A", "operation": "Update" } }),
                json!({}),
            ),
            "spec.entries.4.key in body should match",
        )
        .refuses(
            "a key at a nonce nobody owns",
            entries(json!({}), json!({ A: "4" })),
            points,
        )
        .refuses(
            "a key at an update",
            entries(json!({ "4": update(A) }), json!({ A: "4" })),
            points,
        )
        .refuses_for(
            "a key at another's nonce",
            entries(json!({ "4": register(B) }), json!({ A: "4" })),
            &[points, listed],
        )
        .refuses(
            "a registration that is not listed",
            entries(json!({ "4": register(A) }), json!({})),
            listed,
        )
        .refuses(
            "two registrations of one key",
            entries(
                json!({ "3": register(A), "4": register(A) }),
                json!({ A: "4" }),
            ),
            listed,
        )
}

/// Nonces 3 and 4 are in use, by a registration and an update.
fn active() -> Scene {
    let mut base = ledger(2);
    let entries = json!({ "3": { "key": A, "operation": "Register" }, "4": { "key": B, "operation": "Update" } });
    merge(
        &mut base,
        &spec(json!({ "entries": entries, "registering": { A: "3" } })),
    );
    let fixed = "an entry is immutable";
    let pruned = "an entry is pruned only below finalizedNonce";
    let fresh = "an entry that is added takes a nonce at or above the next that stood before";
    Scene::update(base)
        .admits("an allocation", spec(json!({ "next": 6, "entries": { "5": { "key": C, "operation": "Register" } }, "registering": { C: "5" } })))
        .admits("a batch of allocations", spec(json!({ "next": 8, "entries": { "5": { "operation": "Filler" }, "6": { "key": B, "operation": "Update" }, "7": { "key": C, "operation": "Register" } }, "registering": { C: "7" } })))
        .admits("a registration that is done", spec(json!({ "finalizedNonce": 4, "finalizedBlock": 101, "entries": { "3": null }, "registering": { A: null } })))
        .admits("the start of draining", spec(json!({ "draining": true })))
        .refuses("a nonce given out a second time", spec(json!({ "entries": { "2": { "operation": "Filler" } } })), fresh)
        .refuses_for("a nonce of another account", spec(json!({ "entries": { "4": { "key": C } } })), &[fixed])
        .refuses("a nonce of another purpose", spec(json!({ "entries": { "4": { "operation": "Filler" } } })), fixed)
        .refuses("an entry that is not final", spec(json!({ "entries": { "4": null } })), pruned)
        .refuses("a registration that is not final", spec(json!({ "entries": { "3": null }, "registering": { A: null } })), pruned)
        .refuses(
            "a key that moves in one write",
            spec(json!({
                "next": 6, "finalizedNonce": 4,
                "entries": { "3": null, "5": { "key": A, "operation": "Register" } }, "registering": { A: "5" },
            })),
            "a key leaves the ledger in one write and comes back in another",
        )
        .refuses("a second registration of a key", spec(json!({ "next": 6, "entries": { "5": { "key": A, "operation": "Register" } } })), "every Register entry is listed in registering")
        .refuses_for("another chain", spec(json!({ "chainId": 1 })), &["chainId is immutable", "the name of a ledger is"])
        .refuses_for("another signer", spec(json!({ "signer": address(9) })), &["signer is immutable", "the name of a ledger is"])
        .refuses("another genesis", spec(json!({ "genesisHash": OTHER_HASH })), "genesisHash is immutable")
        .refuses("another cluster", spec(json!({ "clusterUid": "elsewhere" })), "clusterUid changes only in Quarantine")
        .refuses(
            "another cluster on the way into quarantine",
            spec(json!({ "clusterUid": "elsewhere", "state": "Quarantine", "quarantine": { "reason": "Clone", "bound": 5 } })),
            "clusterUid changes only in Quarantine",
        )
}

/// Nothing is in use.
fn finalized() -> Scene {
    let decrease = "finalizedNonce and finalizedBlock never decrease";
    Scene::update(ledger(3))
        .admits("a ledger as it was", json!({}))
        .admits("a nonce finalized", spec(json!({ "finalizedNonce": 4 })))
        .refuses(
            "a next nonce taken back",
            spec(json!({ "next": 4 })),
            "next never decreases",
        )
        .refuses(
            "a finalized nonce taken back",
            spec(json!({ "finalizedNonce": 2 })),
            decrease,
        )
        .refuses(
            "a finalized block taken back",
            spec(json!({ "finalizedBlock": 99 })),
            decrease,
        )
}

fn draining() -> Scene {
    let mut base = ledger(4);
    merge(&mut base, &spec(json!({ "draining": true })));
    Scene::update(base)
        .refuses(
            "an end of draining",
            spec(json!({ "draining": false })),
            "draining is permanent",
        )
        .refuses(
            "an end of draining by saying nothing",
            spec(json!({ "draining": null })),
            "draining is permanent",
        )
}

fn quarantined() -> Scene {
    let mut base = ledger(5);
    merge(
        &mut base,
        &spec(json!({ "state": "Quarantine", "quarantine": { "reason": "Clone", "bound": 5 } })),
    );
    Scene::update(base)
        .admits(
            "another cluster in quarantine",
            spec(json!({ "clusterUid": "elsewhere" })),
        )
        .admits(
            "the end of a quarantine",
            spec(json!({ "state": "Active", "quarantine": null })),
        )
        .refuses(
            "half an end of a quarantine",
            spec(json!({ "quarantine": null })),
            "quarantine is set exactly while state is Quarantine",
        )
}
