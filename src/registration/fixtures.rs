//! Objects for unit tests, in the JSON that people apply.

use std::sync::Arc;

use serde_json::{Value, json};

use super::eligibility::Eligibility;
use super::identity::resolve;
use super::view::{OfferAgentView, OfferView};
use crate::api::{AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, ServiceOffer};

/// Address of the registry contract in every fixture.
pub(crate) const REGISTRY: &str = "0x8004A818BFB912233c491871b3d84c89A494BD9e";

/// Overrides fields of `base` with those of `over`, recursively.
pub(crate) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// An offer `shop/chat` with registration enabled; `over` overrides its fields.
pub(crate) fn offer(over: Value) -> ServiceOffer {
    let mut offer = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "ServiceOffer",
        "metadata": {
            "name": "chat", "namespace": "shop", "uid": "uid-chat", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "upstream": { "service": "backend", "namespace": "shop" },
            "payment": { "network": "base-sepolia", "price": { "perRequest": "0.002" } },
            "registration": { "enabled": true },
        },
    });
    merge(&mut offer, over);
    serde_json::from_value(offer).unwrap()
}

/// A registry `sepolia` on Base Sepolia, the default, open to all namespaces; `over` overrides its
/// fields.
pub(crate) fn registry(over: Value) -> IdentityRegistry {
    let mut registry = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "IdentityRegistry",
        "metadata": { "name": "sepolia", "annotations": { "obol.org/is-default-registry": "true" } },
        "spec": {
            "chainId": 84532,
            "rpc": [{ "url": "https://rpc.example" }],
            "baseUrl": "https://agents.example",
            "allowedNamespaces": { "from": "All" },
        },
    });
    merge(&mut registry, over);
    serde_json::from_value(registry).unwrap()
}

/// The record of an identity on that registry, listing `shop/chat`; `over` overrides its fields.
pub(crate) fn record(identity: &str, edition: u32, over: Value) -> AgentRegistration {
    let key = Key::derive(identity, 84532, REGISTRY.parse().unwrap(), edition);
    let mut record = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "AgentRegistration",
        "metadata": { "name": key.record_name() },
        "spec": {
            "key": key,
            "identity": identity,
            "chainId": 84532,
            "registry": { "address": REGISTRY.to_lowercase(), "codeHash": format!("0x{}", "11".repeat(32)) },
            "edition": edition,
            "offers": [{ "namespace": "shop", "name": "chat", "uid": "uid-chat" }],
        },
    });
    merge(&mut record, over);
    serde_json::from_value(record).unwrap()
}

/// The final result of a registration, as a record stores it.
pub(crate) fn result(agent_id: &str) -> Value {
    let hash = format!("0x{}", "22".repeat(32));
    json!({ "agentId": agent_id, "transaction": hash, "block": 7, "blockHash": hash })
}

/// The view of an offer that resolves to [`registry`], with the record of its agent.
pub(crate) fn view(
    over: Value,
    eligibility: Eligibility,
    record: Option<AgentRegistrationSpec>,
) -> OfferView {
    let offer = Arc::new(offer(over));
    let registries = [Arc::new(registry(json!({})))];
    let record = record.map(Arc::new);
    let records: Vec<_> = record.iter().cloned().collect();
    let found = resolve(&offer, &registries, &records).unwrap();
    OfferView {
        name: ("shop".into(), "chat".into()),
        agent: Ok(OfferAgentView {
            registry: Arc::clone(found.registry),
            contract: found.contract,
            identity: found.identity,
            key: found.key,
            eligibility,
            record,
        }),
        offer,
        records,
        upstream_exists: true,
    }
}
