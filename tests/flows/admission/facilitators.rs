//! PaymentFacilitators: URLs, credentials and networks.

use serde_json::{Value, json};

use super::table::CaseTable;

const TOKEN: &str = "0x036cbd53842c5426634e7929541ec2318f3dcf7e";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

/// A facilitator that has every field.
pub fn complete_object() -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "PaymentFacilitator",
        "metadata": { "name": "specimen" },
        "spec": {
            "networks": ["eip155:8453", "eip155:84532"],
            "remote": {
                "url": "https://x402.example/v2",
                "auth": { "type": "Header", "header": "X-Api-Key", "secretRef": { "key": "base" } },
                "verifyTimeoutSeconds": 10,
                "settleTimeoutSeconds": 90,
            },
            "priority": 10,
            "allowedNamespaces": {
                "from": "Selector",
                "selector": {
                    "matchLabels": { "team": "agents" },
                    "matchExpressions": [{ "key": "stage", "operator": "In", "values": ["production"] }],
                },
            },
            "suspend": "Settling",
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Reconciled", "message": "Settles.",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1,
            }],
            "host": "x402.example",
            "kinds": [{ "x402Version": 2, "scheme": "exact", "network": "eip155:8453" }],
            "assets": [{
                "network": "eip155:84532", "address": TOKEN, "name": "USDC", "version": "2", "decimals": 6,
                "domainSeparator": HASH,
            }],
        },
    })
}

/// A facilitator with only the required fields.
fn minimal(name: &str) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "PaymentFacilitator",
        "metadata": { "name": name },
        "spec": {
            "networks": ["eip155:8453"],
            "remote": { "url": "https://x402.example" },
            "allowedNamespaces": { "from": "All" },
        },
    })
}

pub fn tables() -> Vec<CaseTable> {
    vec![
        networks(),
        urls(),
        credentials(),
        limits(),
        namespaces(),
        updates(),
        statuses(),
    ]
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn networks() -> CaseTable {
    let networks = |networks: Value| spec(json!({ "networks": networks }));
    let many = |count: usize| -> Vec<String> {
        (1..=count).map(|chain| format!("eip155:{chain}")).collect()
    };
    CaseTable::create(minimal("networks"))
        .accepts("one network", json!({}))
        .accepts("sixteen networks", networks(json!(many(16))))
        .rejects(
            "seventeen networks",
            networks(json!(many(17))),
            "spec.networks: Too many: 17: must have at most 16 items",
        )
        .rejects(
            "no network",
            networks(json!([])),
            "spec.networks in body should have at least 1 items",
        )
        .rejects(
            "a network twice",
            networks(json!(["eip155:1", "eip155:1"])),
            "spec.networks[1]: Duplicate value",
        )
        .for_each(
            [
                "",
                "base",
                "eip155:",
                "eip155:01",
                "eip155:*",
                "solana:mainnet",
            ],
            |table, network| {
                table.rejects(
                    format!("network {network:?}"),
                    networks(json!([network])),
                    "spec.networks[0] in body should match",
                )
            },
        )
}

fn urls() -> CaseTable {
    let url = |url: &str| spec(json!({ "remote": { "url": url } }));
    CaseTable::create(minimal("urls"))
        .for_each(
            [
                "https://x402.example/platform/v2/x402/",
                "https://x402.example:8443",
                "http://facilitator.x402.svc",
                "http://facilitator.x402.svc:8080/v2",
            ],
            |table, address| table.accepts(format!("URL {address}"), url(address)),
        )
        .for_each(
            [
                "http://x402.example",
                "http://facilitator.svc",
                "http://facilitator.x402.svc.example",
                "http://a.b.c.svc",
                "http://10.0.0.1/facilitator.x402.svc",
            ],
            |table, address| {
                table.rejects(
                    format!("plain URL {address}"),
                    url(address),
                    "url must start with https:// unless its host is <service>.<namespace>.svc",
                )
            },
        )
        .for_each(
            [
                "https://me:secret@x402.example",
                "https://x402.example?key=1",
                "https://x402.example/v2#x",
                "https://x402 .example",
                "https://",
            ],
            |table, address| {
                table.rejects(
                    format!("URL {address:?}"),
                    url(address),
                    "spec.remote.url in body should match",
                )
            },
        )
        .rejects_with(
            "a URL of another scheme",
            url("ftp://x402.example"),
            &[
                "spec.remote.url in body should match",
                "url must start with https://",
            ],
        )
        .rejects(
            "no URL",
            spec(json!({ "remote": { "url": null } })),
            "spec.remote.url: Required value",
        )
        .rejects(
            "no form",
            spec(json!({ "remote": null })),
            "spec.remote: Required value",
        )
}

fn credentials() -> CaseTable {
    let auth = |auth: Value| spec(json!({ "remote": { "auth": auth } }));
    let key = || json!({ "key": "base" });
    let needs_key = "secretRef is required when type is Header or CdpJwt, and forbidden otherwise";
    CaseTable::create(minimal("credentials"))
        .accepts("no authentication", auth(json!({ "type": "None" })))
        .accepts(
            "a header with the default name",
            auth(json!({ "type": "Header", "secretRef": key() })),
        )
        .accepts(
            "a key of the Coinbase Developer Platform",
            auth(json!({ "type": "CdpJwt", "secretRef": key() })),
        )
        .rejects(
            "a header without a Secret",
            auth(json!({ "type": "Header" })),
            needs_key,
        )
        .rejects(
            "a token without a Secret",
            auth(json!({ "type": "CdpJwt" })),
            needs_key,
        )
        .rejects(
            "a Secret without a type",
            auth(json!({ "secretRef": key() })),
            needs_key,
        )
        .rejects(
            "a header name for a token",
            auth(json!({ "type": "CdpJwt", "header": "X-Key", "secretRef": key() })),
            "header is forbidden unless type is Header",
        )
        .for_each(
            ["Host", "content-type", "Transfer-Encoding"],
            |table, header| {
                table.rejects(
                    format!("header {header}"),
                    auth(json!({ "type": "Header", "header": header, "secretRef": key() })),
                    "header must not be one that describes the connection or the body",
                )
            },
        )
        .rejects(
            "a header name with a colon",
            auth(json!({ "type": "Header", "header": "X-Key:", "secretRef": key() })),
            "spec.remote.auth.header in body should match",
        )
        .for_each(["..data", "a/b", ".hidden"], |table, name| {
            table.rejects(
                format!("Secret key {name:?}"),
                auth(json!({ "type": "Header", "secretRef": { "key": name } })),
                "spec.remote.auth.secretRef.key in body should match",
            )
        })
        .rejects(
            "an unknown type",
            auth(json!({ "type": "Basic", "secretRef": key() })),
            "spec.remote.auth.type: Unsupported value",
        )
}

fn limits() -> CaseTable {
    let remote = |remote: Value| spec(json!({ "remote": remote }));
    CaseTable::create(minimal("limits"))
        .accepts(
            "the shortest limits",
            remote(json!({ "verifyTimeoutSeconds": 1, "settleTimeoutSeconds": 10 })),
        )
        .accepts(
            "the longest limits",
            remote(json!({ "verifyTimeoutSeconds": 30, "settleTimeoutSeconds": 120 })),
        )
        .rejects(
            "a verification of a minute",
            remote(json!({ "verifyTimeoutSeconds": 60 })),
            "spec.remote.verifyTimeoutSeconds in body should be less than or equal to 30",
        )
        .rejects(
            "a settlement that cannot be included",
            remote(json!({ "settleTimeoutSeconds": 5 })),
            "spec.remote.settleTimeoutSeconds in body should be greater than or equal to 10",
        )
        .accepts("priority 0", spec(json!({ "priority": 0 })))
        .rejects(
            "a negative priority",
            spec(json!({ "priority": -1 })),
            "spec.priority in body should be greater than or equal to 0",
        )
        .accepts("suspended settling", spec(json!({ "suspend": "Settling" })))
        .rejects(
            "an unknown switch",
            spec(json!({ "suspend": "All" })),
            "spec.suspend: Unsupported value",
        )
}

fn namespaces() -> CaseTable {
    let allowed = |allowed: Value| spec(json!({ "allowedNamespaces": allowed }));
    let selector = |selector: Value| allowed(json!({ "from": "Selector", "selector": selector }));
    let labels = || json!({ "matchLabels": { "team": "agents" } });
    let expression = |expression: Value| selector(json!({ "matchExpressions": [expression] }));
    CaseTable::create(minimal("namespaces"))
        .accepts("namespaces by label", selector(labels()))
        .rejects(
            "no namespaces",
            allowed(Value::Null),
            "spec.allowedNamespaces: Required value",
        )
        .rejects(
            "a selector beside All",
            allowed(json!({ "from": "All", "selector": labels() })),
            "selector is required when from is Selector, and forbidden otherwise",
        )
        .rejects(
            "Selector without a selector",
            allowed(json!({ "from": "Selector" })),
            "selector is required when from is Selector, and forbidden otherwise",
        )
        .rejects(
            "an empty selector",
            selector(json!({})),
            "an empty selector would select every namespace: use from: All instead",
        )
        .rejects(
            "In without values",
            expression(json!({ "key": "stage", "operator": "In" })),
            "values are required for In and NotIn, and forbidden otherwise",
        )
}

fn updates() -> CaseTable {
    CaseTable::update(minimal("updates"))
        .accepts(
            "another facilitator",
            spec(json!({ "remote": { "url": "https://other.example" } })),
        )
        .accepts("other networks", spec(json!({ "networks": ["eip155:1"] })))
}

fn statuses() -> CaseTable {
    let status = |status: Value| json!({ "status": status });
    let asset = |address: &str| json!({ "network": "eip155:1", "address": address, "name": "USD Coin", "decimals": 6 });
    CaseTable::status_update(minimal("statuses"))
        .accepts(
            "a token without a domain",
            status(json!({ "assets": [asset(TOKEN)] })),
        )
        .rejects(
            "a token twice",
            status(json!({ "assets": [asset(TOKEN), asset(TOKEN)] })),
            "status.assets[1]: Duplicate value",
        )
        .rejects(
            "an address in upper case",
            status(json!({ "assets": [asset("0x036CbD53842c5426634e7929541eC2318f3dCF7e")] })),
            "assets[0].address in body should match",
        )
}
