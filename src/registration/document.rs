//! Registration files (ERC-8004, "Agent URI and agent registration file"): the JSON that an agent's
//! URI leads to.
//!
//! A document is a function of stored objects alone, so every replica serves the same bytes. It has
//! three forms: *pending* (no id yet, hence no `registrations`), *active*, and *inactive* (no offer
//! is eligible: no services, the id is kept). [`crate::http::documents`] serves it.

use std::collections::BTreeMap;

use alloy::primitives::keccak256;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::adoption::is_given_away;
use super::eligibility::Eligibility;
use crate::api::{AgentRegistrationSpec, IdentityRegistry, IdentityScope, Key, ServiceOffer};

/// Media type of every document.
pub(crate) const MEDIA_TYPE: &str = "application/json";
/// Path of the default image, below the base URL.
pub(crate) const ICON_PATH: &str = "/agents/icon.svg";

/// Value of `type` in a registration file of version 1.
const TYPE: &str = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1";
/// Version of the OASF taxonomy of skills and domains.
const OASF_VERSION: &str = "0.8";
/// The largest integer that every JSON reader holds, since many read numbers as doubles (RFC 8259,
/// section 6). Larger ids are strings.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// URI of an agent's document. It contains the key, which finds the agent in the chain's logs.
#[must_use]
pub(crate) fn agent_uri(registry: &IdentityRegistry, key: Key) -> String {
    format!("{}/agents/{key}.json", registry.spec.base_url)
}

/// An offer that uses an agent, and whether it may be listed.
#[derive(Clone, Debug)]
pub(crate) struct Listed<'a> {
    pub offer: &'a ServiceOffer,
    /// The registry that it resolves to.
    pub registry: &'a IdentityRegistry,
    pub eligibility: Eligibility,
}

impl Listed<'_> {
    fn is_eligible(&self) -> bool {
        self.eligibility == Eligibility::Eligible
    }
}

/// One registration file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(rename = "type")]
    type_: &'static str,
    name: String,
    description: String,
    image: String,
    services: Vec<DocumentService>,
    x402_support: bool,
    active: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    registrations: Vec<DocumentRegistration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    supported_trust: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    provenance: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct DocumentService {
    name: String,
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skills: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct DocumentRegistration {
    agent_id: Value,
    agent_registry: String,
}

impl Document {
    /// The document's bytes and their entity tag (RFC 9110). It cannot fail for objects from the
    /// API server: all keys are strings.
    pub(crate) fn render(&self) -> serde_json::Result<(Vec<u8>, String)> {
        serde_json::to_vec(self).map(|bytes| {
            let tag = format!(
                "\"{:x}\"",
                alloy::primitives::FixedBytes::<16>::from_slice(&keccak256(&bytes)[..16])
            );
            (bytes, tag)
        })
    }
}

/// The document of one agent. `offers` are those that use it; the oldest is listed first and
/// describes the agent, on the registry that it resolves to. Without one, `registry` speaks for the
/// contract.
#[must_use]
pub(crate) fn agent(
    record: &AgentRegistrationSpec,
    registry: &IdentityRegistry,
    mut offers: Vec<Listed<'_>>,
) -> Document {
    sort(&mut offers);
    let live: Vec<&Listed<'_>> = offers
        .iter()
        .filter(|listed| listed.is_eligible())
        .collect();
    let active = !live.is_empty();
    let first = live.first().copied().or_else(|| offers.first());
    let subject = first.map(|listed| listed.offer);
    let registry = first.map_or(registry, |listed| listed.registry);
    let mut document = Document {
        services: live
            .iter()
            .flat_map(|listed| services(listed.offer, listed.registry))
            .collect(),
        registrations: registration_of(record, registry).into_iter().collect(),
        ..describe(registry, subject, &record.identity, active)
    };
    for trust in live
        .iter()
        .filter_map(|listed| listed.offer.spec.registration.as_ref())
        .flat_map(|own| &own.supported_trust)
    {
        if !document.supported_trust.contains(trust) {
            document.supported_trust.push(trust.clone());
        }
    }
    document
}

/// The document that lists every agent below one base URL (ERC-8004, "Endpoint domain
/// verification").
#[must_use]
pub(crate) fn well_known<'a>(
    registries: &[&IdentityRegistry],
    records: impl IntoIterator<Item = (&'a AgentRegistrationSpec, &'a IdentityRegistry)>,
    mut offers: Vec<Listed<'_>>,
) -> Document {
    sort(&mut offers);
    let services: Vec<DocumentService> = offers
        .iter()
        .filter(|listed| listed.is_eligible())
        .flat_map(|listed| services(listed.offer, listed.registry))
        .collect();
    let mut registrations: Vec<DocumentRegistration> = records
        .into_iter()
        .filter_map(|(record, registry)| registration_of(record, registry))
        .collect();
    registrations.sort_by_key(|own| {
        (
            own.agent_registry.clone(),
            own.agent_id.as_u64(),
            own.agent_id.to_string(),
        )
    });
    let active = !services.is_empty();
    let shared = registries
        .iter()
        .find_map(|registry| registry.spec.agent.as_ref());
    let base_url = registries
        .first()
        .map(|registry| registry.spec.base_url.as_str())
        .unwrap_or_default();
    Document {
        type_: TYPE,
        name: shared.map_or_else(
            || "Agents of this domain".to_owned(),
            |agent| agent.name.clone(),
        ),
        description: shared
            .and_then(|agent| agent.description.clone())
            .unwrap_or_else(|| {
                "Every agent that is registered under this domain, with its services.".to_owned()
            }),
        image: shared
            .and_then(|agent| agent.image.clone())
            .unwrap_or_else(|| format!("{base_url}{ICON_PATH}")),
        services,
        x402_support: active,
        active,
        registrations,
        supported_trust: Vec::new(),
        metadata: BTreeMap::new(),
        provenance: BTreeMap::new(),
    }
}

/// The parts of a document that do not depend on other offers of the agent.
fn describe(
    registry: &IdentityRegistry,
    subject: Option<&ServiceOffer>,
    identity: &str,
    active: bool,
) -> Document {
    let own = subject.and_then(|offer| offer.spec.registration.as_ref());
    let shared = registry
        .spec
        .agent
        .as_ref()
        .filter(|_| registry.spec.identity_scope != IdentityScope::Offer);
    let name = match (shared, subject) {
        (Some(agent), _) => agent.name.clone(),
        (None, Some(offer)) => own
            .and_then(|own| own.name.clone())
            .unwrap_or_else(|| offer.name_any()),
        (None, None) => identity.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    let stated = match shared {
        Some(agent) => agent.description.clone(),
        None => own.and_then(|own| own.description.clone()),
    };
    let description = match (active, stated, subject) {
        (true, Some(stated), _) => stated,
        (true, None, Some(offer)) => default_description(offer),
        _ => format!("Agent {name} (deactivated)"),
    };
    let image = match shared {
        Some(agent) => agent.image.clone(),
        None => own.and_then(|own| own.image.clone()),
    };
    Document {
        type_: TYPE,
        description,
        image: image.unwrap_or_else(|| format!("{}{ICON_PATH}", registry.spec.base_url)),
        services: Vec::new(),
        x402_support: active,
        active,
        registrations: Vec::new(),
        supported_trust: Vec::new(),
        metadata: own
            .filter(|_| active)
            .map(|own| own.metadata.clone())
            .unwrap_or_default(),
        provenance: subject
            .filter(|_| active)
            .map(|offer| offer.spec.provenance.clone())
            .unwrap_or_default(),
        name,
    }
}

fn default_description(offer: &ServiceOffer) -> String {
    match &offer.spec.model {
        Some(model) => format!("{} inference via x402 micropayments", model.name),
        None => format!(
            "x402 payment-gated {} service: {}",
            offer.spec.type_.as_str(),
            offer.name_any()
        ),
    }
}

/// Services of one offer: its route, its OASF skills and domains, and what the seller adds.
fn services(offer: &ServiceOffer, registry: &IdentityRegistry) -> Vec<DocumentService> {
    let endpoint = public_url(offer, registry);
    let plain = |name: &str, endpoint: &str| DocumentService {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        version: None,
        skills: Vec::new(),
        domains: Vec::new(),
    };
    let mut services = vec![plain("web", &endpoint)];
    if let Some(own) = &offer.spec.registration {
        if !own.skills.is_empty() || !own.domains.is_empty() {
            services.push(DocumentService {
                version: Some(OASF_VERSION.to_owned()),
                skills: own.skills.clone(),
                domains: own.domains.clone(),
                ..plain("OASF", &endpoint)
            });
        }
        let added = own.services.iter();
        services.extend(added.map(|added| DocumentService {
            version: added.version.clone(),
            ..plain(&added.name, &added.endpoint)
        }));
    }
    services
}

/// Public path of an offer.
#[must_use]
pub(crate) fn public_path(offer: &ServiceOffer) -> String {
    offer
        .spec
        .path
        .clone()
        .unwrap_or_else(|| format!("/services/{}", offer.name_any()))
}

/// Public URL of an offer: below its own host name, or below the registry's base URL.
#[must_use]
pub(crate) fn public_url(offer: &ServiceOffer, registry: &IdentityRegistry) -> String {
    let base_url = &registry.spec.base_url;
    match &offer.spec.hostname {
        Some(hostname) => format!(
            "{}://{hostname}/",
            base_url.split("://").next().unwrap_or("https")
        ),
        None => format!("{base_url}{}", public_path(offer)),
    }
}

/// The registration of a record that has a result. An agent that an admin gave to another namespace
/// is not listed for this one.
fn registration_of(
    record: &AgentRegistrationSpec,
    registry: &IdentityRegistry,
) -> Option<DocumentRegistration> {
    if is_given_away(record, registry) {
        return None;
    }
    let agent_id = &record.result.as_ref()?.agent_id;
    Some(DocumentRegistration {
        agent_id: match agent_id.parse::<u64>() {
            Ok(number) if number <= MAX_SAFE_INTEGER => Value::from(number),
            _ => Value::from(agent_id.as_str()),
        },
        agent_registry: format!("eip155:{}:{}", record.chain_id, record.registry.address),
    })
}

fn sort(offers: &mut [Listed<'_>]) {
    offers.sort_by_key(|listed| age(listed.offer));
}

/// Sort key: oldest first, by name within one second.
fn age(offer: &ServiceOffer) -> impl Ord + use<> {
    let created = offer
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    (created, offer.namespace(), offer.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::AgentRegistration;
    use crate::registration::fixtures::{offer, record, registry, result};

    fn live<'a>(offer: &'a ServiceOffer, registry: &'a IdentityRegistry) -> Listed<'a> {
        Listed {
            offer,
            registry,
            eligibility: Eligibility::Eligible,
        }
    }

    /// The document of an agent on a registry, to which all its offers resolve.
    fn agent_of(
        record: &AgentRegistration,
        registry: &IdentityRegistry,
        offers: &[&ServiceOffer],
    ) -> Document {
        let listed = offers.iter().map(|offer| live(offer, registry));
        agent(&record.spec, registry, listed.collect())
    }

    fn json_of(document: &Document) -> Value {
        serde_json::from_slice(&document.render().unwrap().0).unwrap()
    }

    #[test]
    fn uri_contains_the_key() {
        let key: Key = "aaaaaaaaaaaaaaaa".parse().unwrap();
        assert_eq!(
            agent_uri(&registry(json!({})), key),
            "https://agents.example/agents/aaaaaaaaaaaaaaaa.json"
        );
    }

    #[test]
    fn pending_document_lacks_only_registrations() {
        let offer = offer(json!({}));
        let document = agent_of(
            &record("shop/chat", 1, json!({})),
            &registry(json!({})),
            &[&offer],
        );
        let expected = json!({
            "type": "https://eips.ethereum.org/EIPS/eip-8004#registration-v1",
            "name": "chat",
            "description": "x402 payment-gated http service: chat",
            "image": "https://agents.example/agents/icon.svg",
            "services": [{ "name": "web", "endpoint": "https://agents.example/services/chat" }],
            "x402Support": true,
            "active": true,
        });
        assert_eq!(json_of(&document), expected);
    }

    #[test]
    fn skills_or_domains_alone_make_an_oasf_service() {
        for (field, other) in [("skills", "domains"), ("domains", "skills")] {
            let offer = offer(json!({ "spec": { "registration": { field: ["chat"] } } }));
            let record = record("shop/chat", 1, json!({}));
            let document = json_of(&agent_of(&record, &registry(json!({})), &[&offer]));
            let oasf = &document["services"][1];
            assert_eq!(
                (&oasf["name"], &oasf[field]),
                (&json!("OASF"), &json!(["chat"]))
            );
            assert_eq!(oasf.get(other), None);
        }
    }

    #[test]
    fn active_document_shows_the_sellers_fields() {
        let offer = offer(json!({ "spec": {
            "type": "inference",
            "model": { "name": "llama", "runtime": "vllm" },
            "path": "/llama",
            "provenance": { "made": "by hand" },
            "registration": {
                "name": "Llama", "description": "A model.", "image": "https://img.example/l.png",
                "supportedTrust": ["reputation"], "skills": ["chat"], "domains": ["nlp"], "metadata": { "k": "v" },
                "services": [{ "name": "MCP", "endpoint": "https://mcp.example", "version": "2025-06-18" }],
            },
        } }));
        let record = record(
            "shop/chat",
            1,
            json!({ "spec": { "result": result("12") } }),
        );
        let document = json_of(&agent_of(&record, &registry(json!({})), &[&offer]));
        let endpoint = "https://agents.example/llama";
        assert_eq!(document["name"], "Llama");
        assert_eq!(document["description"], "A model.");
        assert_eq!(document["image"], "https://img.example/l.png");
        assert_eq!(
            document["services"],
            json!([
                { "name": "web", "endpoint": endpoint },
                { "name": "OASF", "endpoint": endpoint, "version": "0.8", "skills": ["chat"], "domains": ["nlp"] },
                { "name": "MCP", "endpoint": "https://mcp.example", "version": "2025-06-18" },
            ])
        );
        let registry = "eip155:84532:0x8004A818BFB912233c491871b3d84c89A494BD9e";
        assert_eq!(
            document["registrations"],
            json!([{ "agentId": 12, "agentRegistry": registry }])
        );
        assert_eq!(
            (&document["supportedTrust"], &document["metadata"]["k"]),
            (&json!(["reputation"]), &json!("v"))
        );
        assert_eq!(document["provenance"]["made"], "by hand");
    }

    #[test]
    fn model_has_a_description_and_hostname_replaces_the_base_url() {
        let offer = offer(
            json!({ "spec": { "model": { "name": "llama", "runtime": "tgi" }, "hostname": "chat.example.org" } }),
        );
        let document = json_of(&agent_of(
            &record("shop/chat", 1, json!({})),
            &registry(json!({})),
            &[&offer],
        ));
        assert_eq!(
            document["description"],
            "llama inference via x402 micropayments"
        );
        assert_eq!(
            document["services"][0]["endpoint"],
            "https://chat.example.org/"
        );
        let plain =
            registry(json!({ "spec": { "chainId": 31337, "baseUrl": "http://agents.local" } }));
        assert_eq!(public_url(&offer, &plain), "http://chat.example.org/");
    }

    #[test]
    fn offer_without_registration_offers_its_route_alone() {
        let plain = offer(json!({ "spec": { "registration": null } }));
        let services = services(&plain, &registry(json!({})));
        let named = services.iter().map(|service| service.name.as_str());
        assert_eq!(named.collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn inactive_document_keeps_the_id_and_has_no_services() {
        let offer = offer(
            json!({ "spec": { "registration": { "metadata": { "k": "v" } }, "provenance": { "a": "b" } } }),
        );
        let record = record("shop/chat", 1, json!({ "spec": { "result": result("0") } }));
        let registry = registry(json!({}));
        let disabled = Listed {
            eligibility: Eligibility::Disabled,
            ..live(&offer, &registry)
        };
        for offers in [vec![disabled], vec![]] {
            let document = json_of(&agent(&record.spec, &registry, offers));
            assert_eq!(document["name"], "chat");
            assert_eq!(document["description"], "Agent chat (deactivated)");
            assert_eq!(
                (&document["active"], &document["x402Support"]),
                (&json!(false), &json!(false))
            );
            assert_eq!(document["services"], json!([]));
            assert_eq!(document["registrations"][0]["agentId"], 0);
            assert!(document.get("metadata").is_none() && document.get("provenance").is_none());
        }
    }

    #[test]
    fn oldest_offer_comes_first_and_describes_a_shared_agent() {
        let young = offer(
            json!({ "metadata": { "name": "young", "creationTimestamp": "2026-02-01T00:00:00Z" },
            "spec": { "registration": { "supportedTrust": ["reputation", "tee-attestation"] } } }),
        );
        let old = offer(
            json!({ "metadata": { "name": "old" }, "spec": { "registration": { "supportedTrust": ["reputation"] } } }),
        );
        let document = json_of(&agent_of(
            &record("shop/chat", 1, json!({})),
            &registry(json!({})),
            &[&young, &old],
        ));
        assert_eq!(document["name"], "old");
        let endpoints: Vec<&Value> = document["services"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["endpoint"])
            .collect();
        assert_eq!(
            endpoints,
            [
                "https://agents.example/services/old",
                "https://agents.example/services/young"
            ]
        );
        assert_eq!(
            document["supportedTrust"],
            json!(["reputation", "tee-attestation"]),
            "each once"
        );
    }

    #[test]
    fn registry_describes_an_agent_of_wider_scope() {
        let shared = registry(json!({ "spec": {
            "identityScope": "Namespace",
            "agent": { "name": "The shop", "description": "All of it.", "image": "https://img.example/s.png" },
        } }));
        let offer = offer(json!({ "spec": { "registration": { "name": "ignored" } } }));
        let document = json_of(&agent_of(&record("shop", 1, json!({})), &shared, &[&offer]));
        assert_eq!(document["name"], "The shop");
        assert_eq!(document["description"], "All of it.");
        assert_eq!(document["image"], "https://img.example/s.png");
        let own = registry(json!({ "spec": { "agent": { "name": "The shop" } } }));
        let document = json_of(&agent_of(
            &record("shop/chat", 1, json!({})),
            &own,
            &[&offer],
        ));
        assert_eq!(
            document["name"], "ignored",
            "with a scope of Offer, an agent speaks for itself"
        );
    }

    #[test]
    fn well_known_document_lists_every_registered_agent() {
        let (a, b) = (
            offer(json!({})),
            offer(json!({ "metadata": { "name": "b" } })),
        );
        let records = [
            record(
                "shop/chat",
                1,
                json!({ "spec": { "result": result("10") } }),
            ),
            record("shop/b", 1, json!({ "spec": { "result": result("9") } })),
            record("shop/pending", 1, json!({})),
        ];
        let registry =
            registry(json!({ "spec": { "agent": { "name": "Us", "description": "We." } } }));
        let offers = vec![
            live(&b, &registry),
            Listed {
                eligibility: Eligibility::Disabled,
                ..live(&a, &registry)
            },
        ];
        let listed = records.iter().map(|record| (&record.spec, &registry));
        let document = json_of(&well_known(&[&registry], listed, offers));
        assert_eq!(
            (&document["name"], &document["description"]),
            (&json!("Us"), &json!("We."))
        );
        let ids: Vec<&Value> = document["registrations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["agentId"])
            .collect();
        assert_eq!(ids, [9, 10], "in the order of numbers");
        assert_eq!(
            document["services"],
            json!([{ "name": "web", "endpoint": "https://agents.example/services/b" }])
        );
        assert_eq!(document["active"], true);

        let empty = json_of(&well_known(&[], [], vec![]));
        assert_eq!(
            (&empty["active"], &empty["name"]),
            (&json!(false), &json!("Agents of this domain"))
        );
    }

    #[test]
    fn entity_tag_changes_with_the_bytes() {
        let offer = offer(json!({}));
        let (registry, record) = (registry(json!({})), record("shop/chat", 1, json!({})));
        let render =
            |registry: &IdentityRegistry| agent_of(&record, registry, &[&offer]).render().unwrap();
        assert_eq!(render(&registry), render(&registry));
        let moved = crate::registration::fixtures::registry(
            json!({ "spec": { "baseUrl": "https://new.example" } }),
        );
        let ((before, old), (after, new)) = (render(&registry), render(&moved));
        assert!(
            before != after && old != new && old.starts_with('"') && old.len() == 34,
            "{old}"
        );
    }

    #[test]
    fn id_that_a_double_does_not_hold_is_a_string() {
        let listed = |id: &str| {
            let record = record("shop/chat", 1, json!({ "spec": { "result": result(id) } }));
            let document = json_of(&agent_of(&record, &registry(json!({})), &[]));
            document["registrations"][0]["agentId"].clone()
        };
        assert_eq!(listed("9007199254740991"), json!(9_007_199_254_740_991_u64));
        for beyond in ["9007199254740993", &"9".repeat(30)] {
            assert_eq!(listed(beyond), json!(beyond));
        }
    }

    #[test]
    fn offer_is_described_by_the_registry_that_it_resolves_to() {
        let offer = offer(json!({}));
        let record = record("shop/chat", 1, json!({}));
        let other = registry(json!({ "spec": { "baseUrl": "https://other.example" } }));
        let speaks = registry(json!({}));
        let document = json_of(&agent(&record.spec, &speaks, vec![live(&offer, &other)]));
        let endpoint = &document["services"][0]["endpoint"];
        assert_eq!(endpoint, "https://other.example/services/chat");
        assert_eq!(document["image"], "https://other.example/agents/icon.svg");
        let without = json_of(&agent(&record.spec, &speaks, vec![]));
        assert_eq!(without["image"], "https://agents.example/agents/icon.svg");
    }

    #[test]
    fn agent_that_an_admin_gave_away_is_not_listed() {
        let adopted = json!({ "spec": { "adopt": "7", "result": result("7") } });
        let record = record("shop/chat", 1, adopted);
        let listed = |namespace: &str| {
            let adoptions = json!([{ "agentId": "7", "namespace": namespace }]);
            let registry = registry(json!({ "spec": { "adoptions": adoptions } }));
            json_of(&agent_of(&record, &registry, &[]))
                .get("registrations")
                .is_some()
        };
        assert!(listed("shop") && !listed("bank"));
    }
}
