//! IdentityRegistries: how money may be spent, and under whose name.

use serde_json::{Value, json};

use super::table::{Scene, merge};

const CONTRACT: &str = "0x8004A818BFB912233c491871b3d84c89A494BD9e";
const SIGNER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const UID: &str = "4f1de0a6-6f0c-4b3c-9d67-53b8e4c1a111";

/// A registry that has every field.
pub fn specimen() -> Value {
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
            "signers": [{ "address": SIGNER, "secretRef": { "name": "signer", "key": "key" } }],
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
            "bootstrap": { "atNonce": 17 },
            "recovery": { "approvedFor": UID },
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Reconciled", "message": "Registers.",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1,
            }],
            "ledgers": [{ "signer": SIGNER.to_lowercase(), "uid": UID }],
            "signers": [{ "address": SIGNER, "balance": "1.5" }],
            "agents": 3,
            "pending": 1,
            "registrationsLeft": 40,
            "spentLast24h": "0.02",
        },
    })
}

/// The least that an admin writes.
fn plain(name: &str) -> Value {
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

pub fn scenes() -> Vec<Scene> {
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
        statuses(),
    ]
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn chains() -> Scene {
    Scene::creation(plain("chains"))
        .admits("a chain of the table, watched only", json!({}))
        .admits(
            "a chain of one's own",
            spec(json!({ "chainId": 31337, "address": CONTRACT })),
        )
        .admits(
            "the largest chain id that JSON holds",
            spec(json!({ "chainId": 9_007_199_254_740_991_u64, "address": CONTRACT })),
        )
        .refuses(
            "a chain of one's own without its registry",
            spec(json!({ "chainId": 31337 })),
            "address is required: no registry is known for this chain id",
        )
        .refuses(
            "a mainnet without a listed registry",
            spec(json!({ "chainId": 295 })),
            "address is required: no registry is known for this chain id",
        )
        .refuses(
            "no chain",
            spec(json!({ "chainId": null })),
            "spec.chainId: Required value",
        )
        .refuses(
            "chain 0",
            spec(json!({ "chainId": 0, "address": CONTRACT })),
            "spec.chainId in body should be greater than or equal to 1",
        )
        .refuses(
            "a chain by name",
            spec(json!({ "chainId": "base" })),
            "spec.chainId in body must be of type integer",
        )
        .refuses(
            "a registry by half an address",
            spec(json!({ "address": "0x8004" })),
            "spec.address in body should match",
        )
}

fn endpoints() -> Scene {
    let rpc = |rpc: Value| spec(json!({ "rpc": rpc }));
    let many = |count: usize| {
        (0..count)
            .map(|index| json!({ "url": format!("https://rpc-{index}.example") }))
            .collect()
    };
    let secret = json!({ "secretKeyRef": { "name": "rpc", "key": "url" } });
    Scene::creation(plain("endpoints"))
        .admits(
            "an endpoint with credentials",
            rpc(json!([{ "urlFrom": secret }])),
        )
        .admits(
            "two endpoints that must agree",
            spec(json!({ "rpc": many(2), "quorum": 2 })),
        )
        .admits("eight endpoints", rpc(many(8)))
        .refuses(
            "nine endpoints",
            rpc(many(9)),
            "spec.rpc: Too many: 9: must have at most 8 items",
        )
        .refuses_for(
            "no endpoint",
            rpc(json!([])),
            &[
                "spec.rpc in body should have at least 1 items",
                "quorum is larger than",
            ],
        )
        .refuses(
            "an endpoint of nothing",
            rpc(json!([{}])),
            "exactly one of url and urlFrom is required",
        )
        .refuses(
            "an endpoint of two minds",
            rpc(json!([{ "url": "https://rpc.example", "urlFrom": secret }])),
            "exactly one of url and urlFrom is required",
        )
        .refuses(
            "one endpoint twice",
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
            |scene, url| {
                scene.refuses(
                    format!("endpoint {url:?}"),
                    rpc(json!([{ "url": url }])),
                    "spec.rpc[0].url in body should match",
                )
            },
        )
        .refuses(
            "more agreement than endpoints",
            spec(json!({ "quorum": 2 })),
            "quorum is larger than the number of rpc endpoints",
        )
        .refuses(
            "no agreement",
            spec(json!({ "quorum": 0 })),
            "spec.quorum in body should be greater than or equal to 1",
        )
        .refuses(
            "a secret without its key",
            rpc(json!([{ "urlFrom": { "secretKeyRef": { "name": "rpc" } } }])),
            "spec.rpc[0].urlFrom.secretKeyRef.key: Required",
        )
}

fn signers() -> Scene {
    let signer = |address: &str| json!({ "address": address, "secretRef": { "name": "signer", "key": "key" } });
    let signers = |signers: Value| spec(json!({ "signers": signers }));
    let many = |count: usize| {
        (0..count)
            .map(|index| signer(&format!("0x{index:040}")))
            .collect()
    };
    Scene::creation(plain("signers"))
        .admits("one signer", signers(json!([signer(SIGNER)])))
        .admits("eight signers", signers(many(8)))
        .refuses(
            "nine signers",
            signers(many(9)),
            "spec.signers: Too many: 9: must have at most 8 items",
        )
        .refuses_for(
            "one signer twice",
            signers(json!([signer(SIGNER), signer(SIGNER)])),
            &[
                "spec.signers[1]: Duplicate value",
                "a signer is listed twice",
            ],
        )
        .refuses(
            "one signer in two spellings",
            signers(json!([signer(SIGNER), signer(&SIGNER.to_lowercase())])),
            "a signer is listed twice",
        )
        .refuses(
            "a signer without a key",
            signers(json!([{ "address": SIGNER }])),
            "spec.signers[0].secretRef: Required value",
        )
        .refuses(
            "a key without its signer",
            signers(json!([{ "secretRef": { "name": "signer", "key": "key" } }])),
            "spec.signers[0].address: Required value",
        )
        .refuses(
            "a signer by name",
            signers(json!([signer("vitalik.eth")])),
            "spec.signers[0].address in body should match",
        )
        .refuses(
            "a key for everyone to read",
            signers(
                json!([{ "address": SIGNER, "secretRef": { "name": "signer", "key": "a/b" } }]),
            ),
            "spec.signers[0].secretRef.key in body should match",
        )
}

fn urls() -> Scene {
    let on_mainnet = |chain: u64, url: &str| {
        spec(json!({ "chainId": chain, "address": CONTRACT, "baseUrl": url }))
    };
    Scene::creation(plain("urls"))
        .for_each(
            [
                "https://a.example",
                "https://a.example:8443/x/y",
                "http://localhost:8080",
            ],
            |scene, url| scene.admits(format!("base {url}"), spec(json!({ "baseUrl": url }))),
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
            |scene, url| {
                scene.refuses(
                    format!("base {url:?}"),
                    spec(json!({ "baseUrl": url })),
                    "spec.baseUrl in body should match",
                )
            },
        )
        .refuses(
            "no base",
            spec(json!({ "baseUrl": null })),
            "spec.baseUrl: Required value",
        )
        .admits(
            "a safe base on a mainnet",
            on_mainnet(8453, "https://a.example"),
        )
        .for_each([1, 8453, 295, 360], |scene, chain| {
            let change = on_mainnet(chain, "http://a.example");
            scene.refuses(
                format!("an unsafe base on mainnet {chain}"),
                change,
                "baseUrl must start with https:// on a mainnet chain",
            )
        })
}

fn namespaces() -> Scene {
    let selector = |selector: Value| {
        spec(json!({ "allowedNamespaces": { "from": "Selector", "selector": selector } }))
    };
    let expression = |expression: Value| selector(json!({ "matchExpressions": [expression] }));
    Scene::creation(plain("namespaces"))
        .admits(
            "namespaces by label",
            selector(json!({ "matchLabels": { "team": "agents" } })),
        )
        .admits(
            "namespaces by expression",
            expression(json!({ "key": "team", "operator": "NotIn", "values": ["x", "y"] })),
        )
        .admits(
            "namespaces that have a label",
            expression(json!({ "key": "team", "operator": "Exists" })),
        )
        .refuses(
            "nobody said who",
            spec(json!({ "allowedNamespaces": null })),
            "spec.allowedNamespaces: Required value",
        )
        .refuses(
            "nobody said where from",
            spec(json!({ "allowedNamespaces": { "from": null } })),
            "spec.allowedNamespaces.from: Required value",
        )
        .refuses(
            "namespaces of another kind",
            spec(json!({ "allowedNamespaces": { "from": "Same" } })),
            "spec.allowedNamespaces.from: Unsupported value",
        )
        .refuses(
            "a selector that is missing",
            spec(json!({ "allowedNamespaces": { "from": "Selector" } })),
            "selector is required when from is Selector, and forbidden otherwise",
        )
        .refuses(
            "a selector that is ignored",
            spec(json!({ "allowedNamespaces": { "selector": { "matchLabels": { "a": "b" } } } })),
            "selector is required when from is Selector, and forbidden otherwise",
        )
        .refuses(
            "a selector that picks everyone",
            selector(json!({})),
            "an empty selector picks every namespace: write from: All if that is meant",
        )
        .refuses(
            "labels that pick everyone",
            selector(json!({ "matchLabels": {} })),
            "spec.allowedNamespaces.selector.matchLabels in body should have at least 1 properties",
        )
        .refuses(
            "expressions that pick everyone",
            selector(json!({ "matchExpressions": [] })),
            "spec.allowedNamespaces.selector.matchExpressions in body should have at least 1 items",
        )
        .refuses(
            "in nothing",
            expression(json!({ "key": "team", "operator": "In" })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
        .refuses(
            "in no value",
            expression(json!({ "key": "team", "operator": "NotIn", "values": [] })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
        .refuses(
            "exists with a value",
            expression(json!({ "key": "team", "operator": "Exists", "values": ["x"] })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
        .refuses(
            "an operator that Kubernetes lacks",
            expression(json!({ "key": "team", "operator": "Like", "values": ["x"] })),
            "operator: Unsupported value",
        )
}

fn limits() -> Scene {
    let limit = |name: &str, amount: &str| spec(json!({ "limits": { name: amount } }));
    let coins = ["perRegistration", "perDay", "perNamespacePerDay"];
    let wrong = ["", "0", "0.0", "-1", "1e3", "01", ".5", "1.", "1,5", "none"];
    Scene::creation(plain("limits"))
        .for_each(coins, |scene, name| {
            scene
                .for_each(
                    ["0.000000000000000001", "1", "99999999999999999.5"],
                    |scene, amount| {
                        scene.admits(format!("{name} of {amount}"), limit(name, amount))
                    },
                )
                .for_each(wrong, |scene, amount| {
                    scene.refuses(
                        format!("{name} of {amount:?}"),
                        limit(name, amount),
                        &format!("spec.limits.{name}: "),
                    )
                })
                .for_each(
                    ["0.0000000000000000001", "100000000000000000"],
                    |scene, amount| {
                        let words =
                            "an amount has at most 17 digits before and 18 after the decimal point";
                        scene.refuses(format!("{name} of {amount}"), limit(name, amount), words)
                    },
                )
        })
        .admits(
            "a fee in parts of a gwei",
            limit("maxFeePerGasGwei", "0.000000001"),
        )
        .refuses(
            "a fee in parts of a wei",
            limit("maxFeePerGasGwei", "0.0000000001"),
            "an amount of gwei has at most 17 digits before and 9 after the decimal point",
        )
        .refuses(
            "a fee of nothing",
            limit("maxFeePerGasGwei", "0"),
            "spec.limits.maxFeePerGasGwei in body should match",
        )
        .refuses(
            "a limit as a number",
            spec(json!({ "limits": { "perDay": 1 } })),
            "spec.limits.perDay in body must be of type string",
        )
}

fn switches() -> Scene {
    let agent = json!({ "name": "Agent" });
    Scene::creation(plain("switches"))
        .for_each(["Namespace", "Registry"], |scene, scope| {
            scene
                .admits(
                    format!("one agent for a {scope}"),
                    spec(json!({ "identityScope": scope, "agent": agent })),
                )
                .refuses(
                    format!("one agent of no name for a {scope}"),
                    spec(json!({ "identityScope": scope })),
                    "agent is required unless identityScope is Offer: give agent.name",
                )
        })
        .refuses(
            "a scope of another kind",
            spec(json!({ "identityScope": "Cluster" })),
            "spec.identityScope: Unsupported value",
        )
        .refuses(
            "an agent without a name",
            spec(json!({ "agent": { "description": "?" } })),
            "spec.agent.name: Required value",
        )
        .refuses(
            "an agent of no letters",
            spec(json!({ "agent": { "name": "" } })),
            "spec.agent.name in body should be at least 1 chars long",
        )
        .for_each(["None", "Spending", "All"], |scene, suspend| {
            scene.admits(
                format!("suspend {suspend}"),
                spec(json!({ "suspend": suspend })),
            )
        })
        .refuses(
            "suspend by yes",
            spec(json!({ "suspend": "yes" })),
            "spec.suspend: Unsupported value",
        )
        .refuses(
            "updates by chance",
            spec(json!({ "uriUpdates": "Sometimes" })),
            "spec.uriUpdates: Unsupported value",
        )
        .refuses(
            "a start below none",
            spec(json!({ "bootstrap": { "atNonce": -1 } })),
            "spec.bootstrap.atNonce in body should be",
        )
        .refuses(
            "a start of nothing",
            spec(json!({ "bootstrap": {} })),
            "spec.bootstrap.atNonce: Required value",
        )
        .refuses(
            "a recovery of nothing",
            spec(json!({ "recovery": { "approvedFor": "" } })),
            "spec.recovery.approvedFor in body should be at least 1 chars long",
        )
}

/// A registry in use: what its agents are known by stays, everything else may change.
fn stored() -> Scene {
    let mut base = plain("stored");
    merge(&mut base, &spec(json!({ "address": CONTRACT })));
    Scene::update(base)
        .admits(
            "another endpoint",
            spec(json!({ "rpc": [{ "url": "https://b.example" }] })),
        )
        .admits(
            "another base",
            spec(json!({ "baseUrl": "https://b.example" })),
        )
        .admits("a suspension", spec(json!({ "suspend": "All" })))
        .admits("other limits", spec(json!({ "limits": { "perDay": "3" } })))
        .refuses(
            "another chain",
            spec(json!({ "chainId": 11_155_111 })),
            "chainId is immutable: make another IdentityRegistry",
        )
        .refuses(
            "another contract",
            spec(json!({ "address": SIGNER })),
            "address is immutable: make another IdentityRegistry",
        )
        .refuses(
            "no contract any more",
            spec(json!({ "address": null })),
            "address is immutable: make another IdentityRegistry",
        )
        .refuses(
            "another scope",
            spec(json!({ "identityScope": "Registry", "agent": { "name": "A" } })),
            "identityScope is immutable: make another IdentityRegistry",
        )
}

/// A registry that leaves its contract to the table and shares an agent.
fn scoped() -> Scene {
    let mut base = plain("scoped");
    merge(
        &mut base,
        &spec(json!({ "identityScope": "Registry", "agent": { "name": "Agent" } })),
    );
    Scene::update(base)
        .admits(
            "another name of the agent",
            spec(json!({ "agent": { "name": "Smith" } })),
        )
        .refuses(
            "a contract set later",
            spec(json!({ "address": CONTRACT })),
            "address is immutable: make another IdentityRegistry",
        )
        .refuses(
            "a scope left to its default",
            spec(json!({ "identityScope": null })),
            "identityScope is immutable: make another IdentityRegistry",
        )
        .refuses(
            "an agent taken back",
            spec(json!({ "agent": null })),
            "agent is required unless identityScope is Offer: give agent.name",
        )
}

fn statuses() -> Scene {
    let ledger = |uid: &str| json!({ "signer": SIGNER.to_lowercase(), "uid": uid });
    let ledgers = |ledgers: Value| json!({ "status": { "ledgers": ledgers } });
    Scene::status_update(plain("observed"))
        .admits("a ledger in use", ledgers(json!([ledger(UID)])))
        .refuses(
            "two ledgers of one signer",
            ledgers(json!([ledger(UID), ledger("other")])),
            "status.ledgers[1]: Duplicate value",
        )
        .refuses(
            "a ledger of no uid",
            ledgers(json!([ledger("")])),
            "ledgers[0].uid in body should be at least 1 chars long",
        )
        .refuses(
            "a ledger in a second spelling",
            ledgers(json!([{ "signer": SIGNER, "uid": UID }])),
            "ledgers[0].signer in body should match",
        )
}
