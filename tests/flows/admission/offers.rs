//! ServiceOffers: valid offers, and mistakes that would cost money or change an identity.

use serde_json::{Value, json};

use super::client::NAMESPACE;
use super::table::CaseTable;
use crate::objects;
use crate::objects::merge;

const WALLET: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const KEY: &str = "mfrggzdfmztwq2lk";
/// The message of every rule that freezes a part of an agent's identity.
const FROZEN: &str = "frozen once the agent has a record (status.registration.key)";

/// An offer that has every field.
pub fn complete_object() -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "ServiceOffer",
        "metadata": { "name": "specimen", "namespace": NAMESPACE },
        "spec": {
            "type": "inference",
            "agent": { "ref": { "name": "agent", "namespace": NAMESPACE } },
            "model": { "name": "llama", "runtime": "ollama" },
            "upstream": { "service": "backend", "namespace": NAMESPACE, "port": 80, "healthPath": "/healthz" },
            "payment": payment(),
            "payments": [payment()],
            "routes": [{
                "path": "/v1/*", "methods": ["GET"], "gate": "paid", "price": prices(), "summary": "Chat", "freeQuota": 3,
            }],
            "path": "/services/chat",
            "hostname": "chat.example.org",
            "branding": {
                "displayName": "Chat", "tagline": "Talks", "description": "It talks.", "logoUrl": "/logo.png",
                "faviconUrl": "/favicon.ico", "ogImageUrl": "/og.png", "accentColor": "#00ff88", "theme": "dark",
            },
            "listing": { "weight": 5, "category": "chat" },
            "async": { "enabled": true, "resultVisibility": "public", "ttl": "24h" },
            "limits": { "maxInFlight": 8, "rps": 2 },
            "provenance": { "framework": "autoresearch" },
            "registration": {
                "enabled": true,
                "registryRef": { "name": "main" },
                "identity": "chat",
                "agentId": "7",
                "edition": 2,
                "name": "Chat",
                "description": "It talks.",
                "image": "https://chat.example.org/icon.png",
                "supportedTrust": ["reputation"],
                "skills": ["nlp/chat"],
                "domains": ["technology"],
                "metadata": { "region": "eu" },
                "services": [{ "name": "A2A", "endpoint": "https://chat.example.org/card.json", "version": "0.3.0" }],
            },
            "drainAt": "2030-01-02T03:04:05Z",
            "drainGracePeriod": "1h30m",
            "skill": {
                "name": "buy", "version": "1.2.0", "displayName": "Buy", "description": "Buys.",
                "bundleConfigMap": "buy-bundle", "sha256": "ab".repeat(32),
            },
            "dataset": { "version": "3", "manifestHash": "cd", "fileHash": "ef", "sizeBytes": 1024 },
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Reconciled", "message": "Takes payments.",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1,
            }],
            "endpoint": "/services/chat",
            "url": "https://chat.example.org/services/chat",
            "price": "0.002 USDC per request",
            "agentId": "7",
            "registrationTxHash": HASH,
            "agentResolution": {
                "model": "llama", "runtime": "ollama", "endpoint": "http://agent.default", "skills": ["chat"],
            },
            "registration": {
                "registry": "main", "key": KEY, "agentId": "7", "agentUri": "https://agents.example/agents/x.json",
                "owner": WALLET,
                "transaction": HASH, "block": 12, "final": true,
            },
        },
    })
}

fn payment() -> Value {
    json!({
        "method": "crypto",
        "network": "base-sepolia",
        "payTo": WALLET,
        "scheme": "exact",
        "maxTimeoutSeconds": 300,
        "flow": "upfront",
        "asset": {
            "address": WALLET, "symbol": "USDC", "decimals": 6, "transferMethod": "eip3009", "eip712Name": "USDC",
            "eip712Version": "2",
        },
        "card": {
            "account": "acct_1A2b", "currency": "eur", "provider": "stripe", "networkId": "profile_1",
            "paymentMethodTypes": ["card"],
        },
        "price": prices(),
    })
}

fn prices() -> Value {
    json!({ "perRequest": "0.002", "perMTok": "1.25", "perHour": "3", "perEpoch": "40", "perMB": "0.1" })
}

pub fn tables() -> Vec<CaseTable> {
    let in_payment: WrapPayment = |payment| json!({ "spec": { "payment": payment } });
    let in_payments: WrapPayment = |change| {
        let mut payment =
            json!({ "network": "base", "payTo": WALLET, "price": { "perRequest": "0.002" } });
        merge(&mut payment, &change);
        json!({ "spec": { "payments": [payment] } })
    };
    vec![
        services(),
        payments("spec.payment", in_payment),
        payments("spec.payments[0]", in_payments),
        routes(),
        registrations(),
        unregistered(),
        registered_by_default(),
        registered_by_name(),
        statuses(),
    ]
}

/// Wraps a payment for one of the two fields that hold payments.
type WrapPayment = fn(Value) -> Value;

fn services() -> CaseTable {
    let spec = |spec: Value| json!({ "spec": spec });
    CaseTable::create(objects::offer(NAMESPACE, "offer"))
        .accepts("a paid service", json!({}))
        .accepts("only a payment", spec(json!({ "upstream": null, "registration": null })))
        .accepts("a service in another namespace", spec(json!({ "upstream": { "namespace": "elsewhere" } })))
        .accepts("a model", spec(json!({ "type": "inference", "model": { "name": "llama", "runtime": "vllm" } })))
        .accepts("an agent", spec(json!({ "type": "agent", "agent": { "ref": { "name": "a", "namespace": "b" } } })))
        .accepts("fine-tuning", spec(json!({ "type": "fine-tuning", "payment": { "price": { "perEpoch": "4" } } })))
        .accepts("a dataset", spec(json!({ "type": "dataset", "dataset": { "version": "1", "sizeBytes": 0 } })))
        .accepts("a skill", spec(json!({ "type": "skill", "skill": complete_object()["spec"]["skill"] })))
        .rejects(
            "an unknown type",
            spec(json!({ "type": "video" })),
            "spec.type: Unsupported value: \"video\"",
        )
        .rejects("inference without a model", spec(json!({ "type": "inference" })), "set model.name and model.runtime")
        .rejects("a skill without a bundle", spec(json!({ "type": "skill" })), "skill is required when type is skill")
        .rejects(
            "a model without a runtime",
            spec(json!({ "model": { "name": "llama" } })),
            "spec.model.runtime: Required",
        )
        .rejects(
            "an agent without a namespace",
            spec(json!({ "agent": { "ref": { "name": "a" } } })),
            "spec.agent.ref.namespace",
        )
        .rejects(
            "a skill without its hash",
            spec(json!({ "skill": { "name": "a", "version": "1", "bundleConfigMap": "b" } })),
            "spec.skill.sha256: Required",
        )
        .rejects("no payment", spec(json!({ "payment": null })), "spec.payment: Required value")
        .rejects(
            "an upstream without a service",
            spec(json!({ "upstream": { "service": null } })),
            "spec.upstream.service: Required value",
        )
        .for_each([0, 65_536, -1], |table, port| {
            table.rejects(
                format!("port {port}"),
                json!({ "spec": { "upstream": { "port": port } } }),
                "spec.upstream.port",
            )
        })
        .for_each(["/", "/chat", "/a/b_c-d.e"], |table, path| {
            table.accepts(format!("path {path:?}"), json!({ "spec": { "path": path } }))
        })
        .for_each(["", "chat", "/a b", "/a?b", "/%2e", "/a#b"], |table, path| {
            table.rejects(
                format!("path {path:?}"),
                json!({ "spec": { "path": path } }),
                "spec.path in body should match",
            )
        })
        .for_each(["example.org", "a-1.b.example.org"], |table, name| {
            table.accepts(format!("host {name:?}"), json!({ "spec": { "hostname": name } }))
        })
        .for_each(
            [
                "",
                "localhost",
                "Chat.example.org",
                "https://example.org",
                "example.org:80",
                "-a.example.org",
                "a..b",
                "*.a.b",
            ],
            |table, name| {
                let words = "spec.hostname in body should match";
                table.rejects(format!("host {name:?}"), json!({ "spec": { "hostname": name } }), words)
            },
        )
        .for_each(["0", "0s", "90m", "1h30m", "1.5h"], |table, grace| {
            table.accepts(format!("grace period {grace}"), json!({ "spec": { "drainGracePeriod": grace } }))
        })
        .for_each(["", "1", "1 hour", "-5m", "P1D"], |table, grace| {
            let words = "spec.drainGracePeriod in body should match";
            table.rejects(format!("grace period {grace:?}"), json!({ "spec": { "drainGracePeriod": grace } }), words)
        })
        .for_each(["tomorrow", "2030-01-02", "1893553445"], |table, time| {
            table.rejects(
                format!("drain at {time}"),
                json!({ "spec": { "drainAt": time } }),
                "must be of type date-time",
            )
        })
        .rejects(
            "a drain at a number",
            spec(json!({ "drainAt": 1_893_553_445 })),
            "spec.drainAt in body must be of type date-time",
        )
        .rejects("a color name", spec(json!({ "branding": { "accentColor": "red" } })), "spec.branding.accentColor")
        .rejects(
            "an unknown result visibility",
            spec(json!({ "async": { "resultVisibility": "all" } })),
            "spec.async.resultVisibility",
        )
        .rejects("a negative rate limit", spec(json!({ "limits": { "rps": -1 } })), "spec.limits.rps")
        .rejects(
            "a skill name without letters",
            spec(
                json!({ "skill": { "name": "-", "version": "1", "bundleConfigMap": "b", "sha256": "ab".repeat(32) } }),
            ),
            "spec.skill.name in body should match",
        )
}

fn payments(path: &str, wrap: WrapPayment) -> CaseTable {
    let words = |field: &str, words: &str| format!("{path}.{field}: {words}");
    let price = |price: &str| wrap(json!({ "price": { "perRequest": price } }));
    let card = |card: Value| {
        wrap(json!({ "method": "card", "network": null, "payTo": null, "card": card }))
    };
    CaseTable::create(objects::offer(NAMESPACE, "offer"))
        .for_each(
            [
                "1",
                "10",
                "0.002",
                "1.50",
                "0.000000000000000001",
                "12345678.9",
            ],
            |table, amount| table.accepts(format!("{path}: price {amount}"), price(amount)),
        )
        .for_each(
            [
                "", "0", "0.0", "-1", "+1", "1e3", "01", ".5", "1.", "1,5", " 1", "1 ", "$1",
                "free", "0x1", "NaN", "1/2",
            ],
            |table, amount| {
                let words = words("price.perRequest", "Invalid value");
                table.rejects(format!("{path}: price {amount:?}"), price(amount), &words)
            },
        )
        .rejects(
            format!("{path}: a price with more digits than any token has"),
            price(&"1".repeat(37)),
            &words(
                "price.perRequest",
                "Too long: may not be more than 36 bytes",
            ),
        )
        .rejects(
            format!("{path}: a number as the price"),
            wrap(json!({ "price": { "perRequest": 0.002 } })),
            &format!("{path}.price.perRequest in body must be of type string"),
        )
        .rejects(
            format!("{path}: no price"),
            wrap(json!({ "price": null })),
            &words("price", "Required value"),
        )
        .rejects(
            format!("{path}: an empty price"),
            wrap(json!({ "price": { "perRequest": null } })),
            "at least one price is required: perRequest, perMTok, perHour, perEpoch or perMB",
        )
        .for_each(
            [
                "base",
                "base-sepolia",
                "mainnet",
                "arbitrum-one",
                "sepolia",
                "eip155:1",
                "eip155:84532",
                "eip155:31337",
            ],
            |table, network| {
                table.accepts(
                    format!("{path}: network {network}"),
                    wrap(json!({ "network": network })),
                )
            },
        )
        .for_each(
            [
                "",
                "solana",
                "84532",
                "eip155:",
                "eip155:0",
                "eip155:01",
                "eip155:x",
                "EIP155:1",
                " base",
                "base-goerli",
            ],
            |table, network| {
                let change = wrap(json!({ "network": network }));
                table.rejects(
                    format!("{path}: network {network:?}"),
                    change,
                    "network must be a CAIP-2 id like eip155:8453, or one of base, ",
                )
            },
        )
        .rejects(
            format!("{path}: no network"),
            wrap(json!({ "network": null })),
            &format!(
                "{path}: Invalid value: \"object\": network is required unless method is card"
            ),
        )
        .rejects(
            format!("{path}: no wallet"),
            wrap(json!({ "payTo": null })),
            &format!("{path}: Invalid value: \"object\": payTo is required unless method is card"),
        )
        .for_each(
            [
                "",
                "0x",
                "vitalik.eth",
                &WALLET[2..],
                &WALLET[..41],
                "0X70997970C51812dc3A010C7d01b50e0d17dc79C8",
            ],
            |table, wallet| {
                let change = wrap(json!({ "payTo": wallet }));
                table.rejects(
                    format!("{path}: wallet {wallet:?}"),
                    change,
                    &format!("{path}.payTo in body should match"),
                )
            },
        )
        .accepts(
            format!("{path}: a card"),
            card(json!({ "account": "acct_1A2b", "currency": "eur" })),
        )
        .rejects(
            format!("{path}: a card without an account"),
            card(json!({ "currency": "eur" })),
            "card.account is required when method is card",
        )
        .rejects(
            format!("{path}: method card without a card"),
            card(Value::Null),
            "card.account is required when method is card",
        )
        .rejects(
            format!("{path}: a card with another kind of account id"),
            card(json!({ "account": "cus_1A2b" })),
            &format!("{path}.card.account in body should match"),
        )
        .rejects(
            format!("{path}: an upper-case currency"),
            card(json!({ "account": "acct_1", "currency": "EUR" })),
            &format!("{path}.card.currency in body should match"),
        )
        .rejects(
            format!("{path}: method cash"),
            wrap(json!({ "method": "cash" })),
            &words("method", "Unsupported value"),
        )
        .rejects(
            format!("{path}: scheme upto"),
            wrap(json!({ "scheme": "upto" })),
            &words("scheme", "Unsupported value"),
        )
        .rejects(
            format!("{path}: a negative timeout"),
            wrap(json!({ "maxTimeoutSeconds": -1 })),
            &words("maxTimeoutSeconds", "Invalid value"),
        )
        .rejects(
            format!("{path}: a token with more decimals than a uint8 holds"),
            wrap(json!({ "asset": { "decimals": 256 } })),
            &words("asset.decimals", "Invalid value"),
        )
}

fn routes() -> CaseTable {
    let route = |route: Value| json!({ "spec": { "routes": [route] } });
    CaseTable::create(objects::offer(NAMESPACE, "offer"))
        .accepts(
            "a free route",
            route(json!({ "path": "/healthz", "gate": "free", "methods": ["GET", "HEAD"] })),
        )
        .accepts(
            "a route at the offer's price",
            route(json!({ "path": "/*", "price": {} })),
        )
        .rejects(
            "a route without a path",
            route(json!({ "gate": "free" })),
            "spec.routes[0].path: Required value",
        )
        .rejects(
            "a relative path",
            route(json!({ "path": "v1" })),
            "spec.routes[0].path in body should match",
        )
        .rejects(
            "an unknown HTTP method",
            route(json!({ "path": "/", "methods": ["FETCH"] })),
            "spec.routes[0].methods[0]",
        )
        .rejects(
            "an unknown gate",
            route(json!({ "path": "/", "gate": "open" })),
            "spec.routes[0].gate",
        )
        .rejects(
            "a route with price 0",
            route(json!({ "path": "/", "price": { "perMB": "0" } })),
            "spec.routes[0].price.perMB",
        )
}

fn registrations() -> CaseTable {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    CaseTable::create(objects::offer(NAMESPACE, "offer"))
        .accepts(
            "an explicit identity",
            registration(json!({ "identity": "chat-2" })),
        )
        .accepts("agent id 0", registration(json!({ "agentId": "0" })))
        .accepts(
            "an agent id of 78 digits",
            registration(json!({ "agentId": "9".repeat(78) })),
        )
        .accepts("a later edition", registration(json!({ "edition": 7 })))
        .for_each(
            ["Chat", "-chat", "chat-", "a.b", "other/chat", "a_b"],
            |table, name| {
                let words = "spec.registration.identity in body should match";
                table.rejects(
                    format!("identity {name:?}"),
                    registration(json!({ "identity": name })),
                    words,
                )
            },
        )
        .rejects(
            "an empty identity",
            registration(json!({ "identity": "" })),
            "spec.registration.identity",
        )
        .rejects(
            "an identity longer than a label",
            registration(json!({ "identity": "a".repeat(64) })),
            "may not be more than 63 bytes",
        )
        .for_each(["", "-1", "01", "0x1", "1.0", "seven"], |table, id| {
            table.rejects(
                format!("agent id {id:?}"),
                registration(json!({ "agentId": id })),
                "spec.registration.agentId",
            )
        })
        .rejects(
            "an agent id as a number",
            registration(json!({ "agentId": 7 })),
            "spec.registration.agentId in body must be of type string",
        )
        .for_each([0, -1, 2_147_483_648_i64], |table, edition| {
            table.rejects(
                format!("edition {edition}"),
                registration(json!({ "edition": edition })),
                "spec.registration.edition",
            )
        })
        .rejects(
            "a registry reference without a name",
            registration(json!({ "registryRef": {} })),
            "spec.registration.registryRef.name: Required",
        )
        .rejects(
            "an upper-case registry name",
            registration(json!({ "registryRef": { "name": "Main" } })),
            "spec.registration.registryRef.name in body should match",
        )
        .rejects(
            "a service without an endpoint",
            registration(json!({ "services": [{ "name": "A2A" }] })),
            "spec.registration.services[0].endpoint",
        )
}

/// An offer whose agent has no record yet: everything may change, but an edition never decreases.
fn unregistered() -> CaseTable {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    let mut base = objects::offer(NAMESPACE, "unregistered");
    merge(
        &mut base,
        &registration(
            json!({ "edition": 2, "identity": "one", "agentId": "1", "registryRef": { "name": "a" } }),
        ),
    );
    CaseTable::update(base)
        .accepts(
            "identity changed before there is a record",
            registration(json!({ "identity": "two" })),
        )
        .accepts(
            "identity removed before there is a record",
            registration(json!({ "identity": null })),
        )
        .accepts(
            "agent id changed before there is a record",
            registration(json!({ "agentId": "2" })),
        )
        .accepts(
            "registry changed before there is a record",
            registration(json!({ "registryRef": { "name": "b" } })),
        )
        .accepts("edition raised", registration(json!({ "edition": 3 })))
        .rejects(
            "edition lowered",
            registration(json!({ "edition": 1 })),
            "registration.edition can only be raised",
        )
        .rejects(
            "edition removed",
            registration(json!({ "edition": null })),
            "registration.edition can only be raised",
        )
        .rejects(
            "registration removed with its edition",
            registration(Value::Null),
            "registration.edition can only be raised",
        )
}

/// An offer with the default identity, whose agent has a record.
fn registered_by_default() -> CaseTable {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    let mut base = objects::offer(NAMESPACE, "registered");
    merge(
        &mut base,
        &json!({ "status": { "registration": { "registry": "main", "key": KEY } } }),
    );
    CaseTable::update(base)
        .accepts(
            "the default identity made explicit",
            registration(json!({ "identity": "registered" })),
        )
        .accepts(
            "the registry in use made explicit",
            registration(json!({ "registryRef": { "name": "main" } })),
        )
        .accepts(
            "registration disabled",
            registration(json!({ "enabled": false })),
        )
        .accepts("registration removed", registration(Value::Null))
        .accepts(
            "edition raised after the record",
            registration(json!({ "edition": 2 })),
        )
        .accepts(
            "price changed",
            json!({ "spec": { "payment": { "price": { "perRequest": "3" } } } }),
        )
        .rejects(
            "identity set after the record",
            registration(json!({ "identity": "else" })),
            &frozen("identity"),
        )
        .rejects(
            "registry set after the record",
            registration(json!({ "registryRef": { "name": "else" } })),
            &frozen("registryRef"),
        )
        .rejects(
            "agent id set after the record",
            registration(json!({ "agentId": "7" })),
            &frozen("agentId"),
        )
}

/// An offer with an explicit identity, whose agent has a record.
fn registered_by_name() -> CaseTable {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    let mut base = objects::offer(NAMESPACE, "named");
    merge(
        &mut base,
        &registration(
            json!({ "identity": "chat", "agentId": "7", "registryRef": { "name": "main" } }),
        ),
    );
    merge(
        &mut base,
        &json!({ "status": { "registration": { "registry": "main", "key": KEY } } }),
    );
    CaseTable::update(base)
        .accepts(
            "explicit registry in use removed",
            registration(json!({ "registryRef": null })),
        )
        .rejects(
            "identity removed",
            registration(json!({ "identity": null })),
            &frozen("identity"),
        )
        .rejects(
            "identity changed",
            registration(json!({ "identity": "else" })),
            &frozen("identity"),
        )
        .rejects(
            "identity and edition changed",
            registration(json!({ "identity": "else", "edition": 2 })),
            &frozen("identity"),
        )
        .rejects(
            "registry changed",
            registration(json!({ "registryRef": { "name": "else" } })),
            &frozen("registryRef"),
        )
        .rejects(
            "agent id removed",
            registration(json!({ "agentId": null })),
            &frozen("agentId"),
        )
        .rejects(
            "agent id changed",
            registration(json!({ "agentId": "8" })),
            &frozen("agentId"),
        )
        .rejects_with(
            "registration with an explicit identity removed",
            registration(Value::Null),
            &[&frozen("identity"), &frozen("agentId")],
        )
}

/// The message for a frozen field.
fn frozen(field: &str) -> String {
    format!("spec.registration.{field}: Forbidden: {FROZEN}")
}

fn statuses() -> CaseTable {
    let mut base = objects::offer(NAMESPACE, "observed");
    let ready = json!({ "type": "Ready", "status": "False" });
    merge(
        &mut base,
        &json!({ "status": { "conditions": [ready], "registration": { "registry": "main", "key": KEY } } }),
    );
    let conditions = |conditions: Value| json!({ "status": { "conditions": conditions } });
    let kept = "status.registration: Forbidden: status.registration.key is never removed";
    CaseTable::status_update(base)
        .accepts(
            "a condition of another controller",
            conditions(json!([ready, { "type": "RoutePublished", "status": "True" }])),
        )
        .accepts("no conditions", conditions(json!(null)))
        .accepts(
            "the key of a later edition",
            json!({ "status": { "registration": { "key": "aaaaaaaaaaaaaaaa" } } }),
        )
        .rejects(
            "a duplicate condition",
            conditions(json!([ready, ready])),
            "status.conditions[1]: Duplicate value",
        )
        .rejects(
            "an unknown condition status",
            conditions(json!([{ "type": "Ready", "status": "Maybe" }])),
            "status.conditions[0].status",
        )
        .rejects(
            "an invalid transition time",
            conditions(
                json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "noon" }]),
            ),
            "must be of type date-time",
        )
        .rejects(
            "an invalid key",
            json!({ "status": { "registration": { "key": "MFRGG" } } }),
            "registration.key in body should match",
        )
        .rejects(
            "key removed",
            json!({ "status": { "registration": { "key": null } } }),
            kept,
        )
        .rejects(
            "status.registration removed",
            json!({ "status": { "registration": null } }),
            kept,
        )
        .rejects("status removed", json!({ "status": null }), kept)
}
