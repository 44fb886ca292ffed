//! ServiceOffers: what sells, and what would cost money or identity.

use serde_json::{Value, json};

use super::submission::NAMESPACE;
use super::table::{Scene, merge};
use crate::objects;

const WALLET: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const KEY: &str = "mfrggzdfmztwq2lk";
/// Of every rule that freezes what an agent is known by.
const FROZEN: &str = "frozen once the agent has a record (status.registration.key)";

/// An offer that has every field.
pub fn specimen() -> Value {
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

pub fn scenes() -> Vec<Scene> {
    let in_payment: Within = |payment| json!({ "spec": { "payment": payment } });
    let in_payments: Within = |change| {
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

/// How a change of a payment is written at one of the two places that have payments.
type Within = fn(Value) -> Value;

fn services() -> Scene {
    let spec = |spec: Value| json!({ "spec": spec });
    Scene::creation(objects::offer(NAMESPACE, "offer"))
        .admits("a service for sale", json!({}))
        .admits("nothing but a payment", spec(json!({ "upstream": null, "registration": null })))
        .admits("a service of another namespace", spec(json!({ "upstream": { "namespace": "elsewhere" } })))
        .admits("a model", spec(json!({ "type": "inference", "model": { "name": "llama", "runtime": "vllm" } })))
        .admits("an agent", spec(json!({ "type": "agent", "agent": { "ref": { "name": "a", "namespace": "b" } } })))
        .admits("fine-tuning", spec(json!({ "type": "fine-tuning", "payment": { "price": { "perEpoch": "4" } } })))
        .admits("a dataset", spec(json!({ "type": "dataset", "dataset": { "version": "1", "sizeBytes": 0 } })))
        .admits("a skill", spec(json!({ "type": "skill", "skill": specimen()["spec"]["skill"] })))
        .refuses(
            "a type that nobody serves",
            spec(json!({ "type": "video" })),
            "spec.type: Unsupported value: \"video\"",
        )
        .refuses("inference without a model", spec(json!({ "type": "inference" })), "give model.name and model.runtime")
        .refuses("a skill without a bundle", spec(json!({ "type": "skill" })), "skill is required when type is skill")
        .refuses(
            "a model without a runtime",
            spec(json!({ "model": { "name": "llama" } })),
            "spec.model.runtime: Required",
        )
        .refuses(
            "an agent of no namespace",
            spec(json!({ "agent": { "ref": { "name": "a" } } })),
            "spec.agent.ref.namespace",
        )
        .refuses(
            "a skill without its hash",
            spec(json!({ "skill": { "name": "a", "version": "1", "bundleConfigMap": "b" } })),
            "spec.skill.sha256: Required",
        )
        .refuses("no payment", spec(json!({ "payment": null })), "spec.payment: Required value")
        .refuses(
            "no service",
            spec(json!({ "upstream": { "service": null } })),
            "spec.upstream.service: Required value",
        )
        .for_each([0, 65_536, -1], |scene, port| {
            scene.refuses(
                format!("port {port}"),
                json!({ "spec": { "upstream": { "port": port } } }),
                "spec.upstream.port",
            )
        })
        .for_each(["/", "/chat", "/a/b_c-d.e"], |scene, path| {
            scene.admits(format!("path {path:?}"), json!({ "spec": { "path": path } }))
        })
        .for_each(["", "chat", "/a b", "/a?b", "/%2e", "/a#b"], |scene, path| {
            scene.refuses(
                format!("path {path:?}"),
                json!({ "spec": { "path": path } }),
                "spec.path in body should match",
            )
        })
        .for_each(["example.org", "a-1.b.example.org"], |scene, name| {
            scene.admits(format!("host {name:?}"), json!({ "spec": { "hostname": name } }))
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
            |scene, name| {
                let words = "spec.hostname in body should match";
                scene.refuses(format!("host {name:?}"), json!({ "spec": { "hostname": name } }), words)
            },
        )
        .for_each(["0", "0s", "90m", "1h30m", "1.5h"], |scene, grace| {
            scene.admits(format!("grace of {grace}"), json!({ "spec": { "drainGracePeriod": grace } }))
        })
        .for_each(["", "1", "1 hour", "-5m", "P1D"], |scene, grace| {
            let words = "spec.drainGracePeriod in body should match";
            scene.refuses(format!("grace of {grace:?}"), json!({ "spec": { "drainGracePeriod": grace } }), words)
        })
        .for_each(["tomorrow", "2030-01-02", "1893553445"], |scene, time| {
            scene.refuses(
                format!("drained at {time}"),
                json!({ "spec": { "drainAt": time } }),
                "must be of type date-time",
            )
        })
        .refuses(
            "a drain at a number",
            spec(json!({ "drainAt": 1_893_553_445 })),
            "spec.drainAt in body must be of type date-time",
        )
        .refuses("a colour by name", spec(json!({ "branding": { "accentColor": "red" } })), "spec.branding.accentColor")
        .refuses(
            "results for everyone",
            spec(json!({ "async": { "resultVisibility": "all" } })),
            "spec.async.resultVisibility",
        )
        .refuses("a load below none", spec(json!({ "limits": { "rps": -1 } })), "spec.limits.rps")
        .refuses(
            "a skill without letters",
            spec(
                json!({ "skill": { "name": "-", "version": "1", "bundleConfigMap": "b", "sha256": "ab".repeat(32) } }),
            ),
            "spec.skill.name in body should match",
        )
}

fn payments(place: &str, within: Within) -> Scene {
    let words = |field: &str, words: &str| format!("{place}.{field}: {words}");
    let price = |price: &str| within(json!({ "price": { "perRequest": price } }));
    let card = |card: Value| {
        within(json!({ "method": "card", "network": null, "payTo": null, "card": card }))
    };
    Scene::creation(objects::offer(NAMESPACE, "offer"))
        .for_each(
            [
                "1",
                "10",
                "0.002",
                "1.50",
                "0.000000000000000001",
                "12345678.9",
            ],
            |scene, amount| scene.admits(format!("{place}: a price of {amount}"), price(amount)),
        )
        .for_each(
            [
                "", "0", "0.0", "-1", "+1", "1e3", "01", ".5", "1.", "1,5", " 1", "1 ", "$1",
                "free", "0x1", "NaN", "1/2",
            ],
            |scene, amount| {
                let words = words("price.perRequest", "Invalid value");
                scene.refuses(
                    format!("{place}: a price of {amount:?}"),
                    price(amount),
                    &words,
                )
            },
        )
        .refuses(
            format!("{place}: a price of more digits than any coin has"),
            price(&"1".repeat(37)),
            &words(
                "price.perRequest",
                "Too long: may not be more than 36 bytes",
            ),
        )
        .refuses(
            format!("{place}: a price as a number"),
            within(json!({ "price": { "perRequest": 0.002 } })),
            &format!("{place}.price.perRequest in body must be of type string"),
        )
        .refuses(
            format!("{place}: no price"),
            within(json!({ "price": null })),
            &words("price", "Required value"),
        )
        .refuses(
            format!("{place}: a price of nothing"),
            within(json!({ "price": { "perRequest": null } })),
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
            |scene, network| {
                scene.admits(
                    format!("{place}: on {network}"),
                    within(json!({ "network": network })),
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
            |scene, network| {
                let change = within(json!({ "network": network }));
                scene.refuses(
                    format!("{place}: on {network:?}"),
                    change,
                    "network must be a CAIP-2 id like eip155:8453, or one of base, ",
                )
            },
        )
        .refuses(
            format!("{place}: no network"),
            within(json!({ "network": null })),
            &format!(
                "{place}: Invalid value: \"object\": network is required unless method is card"
            ),
        )
        .refuses(
            format!("{place}: no wallet"),
            within(json!({ "payTo": null })),
            &format!("{place}: Invalid value: \"object\": payTo is required unless method is card"),
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
            |scene, wallet| {
                let change = within(json!({ "payTo": wallet }));
                scene.refuses(
                    format!("{place}: paid to {wallet:?}"),
                    change,
                    &format!("{place}.payTo in body should match"),
                )
            },
        )
        .admits(
            format!("{place}: a card"),
            card(json!({ "account": "acct_1A2b", "currency": "eur" })),
        )
        .refuses(
            format!("{place}: a card of no account"),
            card(json!({ "currency": "eur" })),
            "card.account is required when method is card",
        )
        .refuses(
            format!("{place}: a card of no terms"),
            card(Value::Null),
            "card.account is required when method is card",
        )
        .refuses(
            format!("{place}: a card of an account by another name"),
            card(json!({ "account": "cus_1A2b" })),
            &format!("{place}.card.account in body should match"),
        )
        .refuses(
            format!("{place}: a currency in capitals"),
            card(json!({ "account": "acct_1", "currency": "EUR" })),
            &format!("{place}.card.currency in body should match"),
        )
        .refuses(
            format!("{place}: cash"),
            within(json!({ "method": "cash" })),
            &words("method", "Unsupported value"),
        )
        .refuses(
            format!("{place}: up to"),
            within(json!({ "scheme": "upto" })),
            &words("scheme", "Unsupported value"),
        )
        .refuses(
            format!("{place}: a payment that was valid yesterday"),
            within(json!({ "maxTimeoutSeconds": -1 })),
            &words("maxTimeoutSeconds", "Invalid value"),
        )
        .refuses(
            format!("{place}: a token of more decimals than its contract can say"),
            within(json!({ "asset": { "decimals": 256 } })),
            &words("asset.decimals", "Invalid value"),
        )
}

fn routes() -> Scene {
    let route = |route: Value| json!({ "spec": { "routes": [route] } });
    Scene::creation(objects::offer(NAMESPACE, "offer"))
        .admits(
            "a free route",
            route(json!({ "path": "/healthz", "gate": "free", "methods": ["GET", "HEAD"] })),
        )
        .admits(
            "a route at the offer's price",
            route(json!({ "path": "/*", "price": {} })),
        )
        .refuses(
            "a route to nowhere",
            route(json!({ "gate": "free" })),
            "spec.routes[0].path: Required value",
        )
        .refuses(
            "a route below no path",
            route(json!({ "path": "v1" })),
            "spec.routes[0].path in body should match",
        )
        .refuses(
            "a method that HTTP lacks",
            route(json!({ "path": "/", "methods": ["FETCH"] })),
            "spec.routes[0].methods[0]",
        )
        .refuses(
            "a gate that nobody keeps",
            route(json!({ "path": "/", "gate": "open" })),
            "spec.routes[0].gate",
        )
        .refuses(
            "a route for nothing",
            route(json!({ "path": "/", "price": { "perMB": "0" } })),
            "spec.routes[0].price.perMB",
        )
}

fn registrations() -> Scene {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    Scene::creation(objects::offer(NAMESPACE, "offer"))
        .admits(
            "an identity of its own",
            registration(json!({ "identity": "chat-2" })),
        )
        .admits(
            "the first agent of a registry",
            registration(json!({ "agentId": "0" })),
        )
        .admits(
            "the last agent that fits a uint256",
            registration(json!({ "agentId": "9".repeat(78) })),
        )
        .admits("a later edition", registration(json!({ "edition": 7 })))
        .for_each(
            ["Chat", "-chat", "chat-", "a.b", "other/chat", "a_b"],
            |scene, name| {
                let words = "spec.registration.identity in body should match";
                scene.refuses(
                    format!("identity {name:?}"),
                    registration(json!({ "identity": name })),
                    words,
                )
            },
        )
        .refuses(
            "an identity of no letters",
            registration(json!({ "identity": "" })),
            "spec.registration.identity",
        )
        .refuses(
            "an identity longer than a label",
            registration(json!({ "identity": "a".repeat(64) })),
            "may not be more than 63 bytes",
        )
        .for_each(["", "-1", "01", "0x1", "1.0", "seven"], |scene, id| {
            scene.refuses(
                format!("agent {id:?}"),
                registration(json!({ "agentId": id })),
                "spec.registration.agentId",
            )
        })
        .refuses(
            "an agent as a number",
            registration(json!({ "agentId": 7 })),
            "spec.registration.agentId in body must be of type string",
        )
        .for_each([0, -1, 2_147_483_648_i64], |scene, edition| {
            scene.refuses(
                format!("edition {edition}"),
                registration(json!({ "edition": edition })),
                "spec.registration.edition",
            )
        })
        .refuses(
            "a registry without a name",
            registration(json!({ "registryRef": {} })),
            "spec.registration.registryRef.name: Required",
        )
        .refuses(
            "a registry in capitals",
            registration(json!({ "registryRef": { "name": "Main" } })),
            "spec.registration.registryRef.name in body should match",
        )
        .refuses(
            "a service without an endpoint",
            registration(json!({ "services": [{ "name": "A2A" }] })),
            "spec.registration.services[0].endpoint",
        )
}

/// An offer whose agent has no record yet: everything is still open, but an edition never shrinks.
fn unregistered() -> Scene {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    let mut base = objects::offer(NAMESPACE, "unregistered");
    merge(
        &mut base,
        &registration(
            json!({ "edition": 2, "identity": "one", "agentId": "1", "registryRef": { "name": "a" } }),
        ),
    );
    Scene::update(base)
        .admits(
            "another identity before there is a record",
            registration(json!({ "identity": "two" })),
        )
        .admits(
            "no identity before there is a record",
            registration(json!({ "identity": null })),
        )
        .admits(
            "another agent before there is a record",
            registration(json!({ "agentId": "2" })),
        )
        .admits(
            "another registry before there is a record",
            registration(json!({ "registryRef": { "name": "b" } })),
        )
        .admits("a raised edition", registration(json!({ "edition": 3 })))
        .refuses(
            "a lowered edition",
            registration(json!({ "edition": 1 })),
            "registration.edition may only grow",
        )
        .refuses(
            "an edition taken back",
            registration(json!({ "edition": null })),
            "registration.edition may only grow",
        )
        .refuses(
            "a registration taken back with its edition",
            registration(Value::Null),
            "registration.edition may only grow",
        )
}

/// An offer that says nothing about who its agent is, and whose agent has a record.
fn registered_by_default() -> Scene {
    let registration = |registration: Value| json!({ "spec": { "registration": registration } });
    let mut base = objects::offer(NAMESPACE, "registered");
    merge(
        &mut base,
        &json!({ "status": { "registration": { "registry": "main", "key": KEY } } }),
    );
    Scene::update(base)
        .admits(
            "the default identity spelled out",
            registration(json!({ "identity": "registered" })),
        )
        .admits(
            "the registry in use spelled out",
            registration(json!({ "registryRef": { "name": "main" } })),
        )
        .admits(
            "a registration turned off",
            registration(json!({ "enabled": false })),
        )
        .admits("no registration any more", registration(Value::Null))
        .admits(
            "a raised edition of a recorded agent",
            registration(json!({ "edition": 2 })),
        )
        .admits(
            "another price",
            json!({ "spec": { "payment": { "price": { "perRequest": "3" } } } }),
        )
        .refuses(
            "an identity after the record",
            registration(json!({ "identity": "else" })),
            &at("identity"),
        )
        .refuses(
            "a registry after the record",
            registration(json!({ "registryRef": { "name": "else" } })),
            &at("registryRef"),
        )
        .refuses(
            "an adoption after the record",
            registration(json!({ "agentId": "7" })),
            &at("agentId"),
        )
}

/// An offer that says all about who its agent is, and whose agent has a record.
fn registered_by_name() -> Scene {
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
    Scene::update(base)
        .admits(
            "the registry in use left to be found",
            registration(json!({ "registryRef": null })),
        )
        .refuses(
            "an identity taken back",
            registration(json!({ "identity": null })),
            &at("identity"),
        )
        .refuses(
            "an identity changed",
            registration(json!({ "identity": "else" })),
            &at("identity"),
        )
        .refuses(
            "an identity changed together with the edition",
            registration(json!({ "identity": "else", "edition": 2 })),
            &at("identity"),
        )
        .refuses(
            "a registry changed",
            registration(json!({ "registryRef": { "name": "else" } })),
            &at("registryRef"),
        )
        .refuses(
            "an adoption taken back",
            registration(json!({ "agentId": null })),
            &at("agentId"),
        )
        .refuses(
            "an adoption changed",
            registration(json!({ "agentId": "8" })),
            &at("agentId"),
        )
        .refuses_for(
            "all of it taken back",
            registration(Value::Null),
            &[&at("identity"), &at("agentId")],
        )
}

/// What the API server says of a frozen field.
fn at(field: &str) -> String {
    format!("spec.registration.{field}: Forbidden: {FROZEN}")
}

fn statuses() -> Scene {
    let mut base = objects::offer(NAMESPACE, "observed");
    let ready = json!({ "type": "Ready", "status": "False" });
    merge(
        &mut base,
        &json!({ "status": { "conditions": [ready], "registration": { "registry": "main", "key": KEY } } }),
    );
    let conditions = |conditions: Value| json!({ "status": { "conditions": conditions } });
    let kept = "status.registration: Forbidden: status.registration.key is never removed";
    Scene::status_update(base)
        .admits(
            "a condition of another controller",
            conditions(json!([ready, { "type": "RoutePublished", "status": "True" }])),
        )
        .admits("no conditions", conditions(json!(null)))
        .admits(
            "the key of a later edition",
            json!({ "status": { "registration": { "key": "aaaaaaaaaaaaaaaa" } } }),
        )
        .refuses(
            "one condition twice",
            conditions(json!([ready, ready])),
            "status.conditions[1]: Duplicate value",
        )
        .refuses(
            "a condition in doubt",
            conditions(json!([{ "type": "Ready", "status": "Maybe" }])),
            "status.conditions[0].status",
        )
        .refuses(
            "a condition since noon",
            conditions(
                json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "noon" }]),
            ),
            "must be of type date-time",
        )
        .refuses(
            "a key that is none",
            json!({ "status": { "registration": { "key": "MFRGG" } } }),
            "registration.key in body should match",
        )
        .refuses(
            "a key taken back",
            json!({ "status": { "registration": { "key": null } } }),
            kept,
        )
        .refuses(
            "a registration taken back",
            json!({ "status": { "registration": null } }),
            kept,
        )
        .refuses("a status taken back", json!({ "status": null }), kept)
}
