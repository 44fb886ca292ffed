//! Registration files (ERC-8004, "Agent URI and agent registration file"): what an agent's URI leads to.
//!
//! A document is a function of stored objects alone, so every replica serves the same bytes. It has three forms: *pending*
//! (no id yet, hence no `registrations`), *active*, and *inactive* (no offer stands: no services, the id is kept).

use std::collections::BTreeMap;

use alloy::primitives::keccak256;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::standing::Standing;
use crate::api::{AgentRegistration, IdentityRegistry, IdentityScope, Key, ServiceOffer};

/// Media type of every document.
pub const MEDIA_TYPE: &str = "application/json";
/// Path below the base URL of the picture that agents without one of their own show.
pub const ICON_PATH: &str = "/agents/icon.svg";
/// Path of the document that lists all agents of a domain (ERC-8004, "Endpoint domain verification").
pub const WELL_KNOWN_PATH: &str = "/.well-known/agent-registration.json";

/// What `type` must be for a registration file of the version that the registry is for.
const TYPE: &str = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1";
/// Version of the OASF taxonomy that skills and domains are taken from.
const OASF_VERSION: &str = "0.8";

/// URI of an agent's document. It contains the key, by which the agent is found on chain.
#[must_use]
pub fn agent_uri(registry: &IdentityRegistry, key: Key) -> String {
    format!("{}/agents/{key}.json", registry.spec.base_url)
}

/// An offer that uses an agent, and whether it may be listed.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// The offer.
    pub offer: &'a ServiceOffer,
    /// Whether it may be listed.
    pub standing: Standing,
}

impl Listed<'_> {
    fn is_live(&self) -> bool {
        self.standing == Standing::Live
    }
}

/// One registration file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    #[serde(rename = "type")]
    type_: &'static str,
    name: String,
    description: String,
    image: String,
    services: Vec<Service>,
    x402_support: bool,
    active: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    registrations: Vec<Registration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    supported_trust: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    provenance: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Service {
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
struct Registration {
    agent_id: Value,
    agent_registry: String,
}

impl Document {
    /// The document's bytes, and the entity tag that stands for them (RFC 9110).
    ///
    /// # Errors
    /// Never for values that came from the API server: all of their keys are strings.
    pub fn render(&self) -> serde_json::Result<(Vec<u8>, String)> {
        let bytes = serde_json::to_vec(self)?;
        let tag = format!("\"{:x}\"", alloy::primitives::FixedBytes::<16>::from_slice(&keccak256(&bytes)[..16]));
        Ok((bytes, tag))
    }
}

/// The document of one agent. `offers` are those that use it; they are listed in the order in which they were created.
#[must_use]
pub fn agent(record: &AgentRegistration, registry: &IdentityRegistry, mut offers: Vec<Listed<'_>>) -> Document {
    sort(&mut offers);
    let live: Vec<&ServiceOffer> = offers.iter().filter(|listed| listed.is_live()).map(|listed| listed.offer).collect();
    let active = !live.is_empty();
    let subject = live.first().copied().or_else(|| offers.first().map(|listed| listed.offer));
    let mut document = Document {
        services: live.iter().flat_map(|offer| services(offer, registry)).collect(),
        registrations: registration_of(record).into_iter().collect(),
        ..describe(registry, subject, &record.spec.identity, active)
    };
    for trust in live.iter().filter_map(|offer| offer.spec.registration.as_ref()).flat_map(|own| &own.supported_trust) {
        if !document.supported_trust.contains(trust) {
            document.supported_trust.push(trust.clone());
        }
    }
    document
}

/// The document that lists every agent below one base URL.
#[must_use]
pub fn well_known<'a>(
    registries: &[&IdentityRegistry],
    records: impl IntoIterator<Item = &'a AgentRegistration>,
    mut offers: Vec<(&IdentityRegistry, Listed<'_>)>,
) -> Document {
    offers.sort_by_key(|(_, listed)| age(listed.offer));
    let services: Vec<Service> = offers
        .iter()
        .filter(|(_, listed)| listed.is_live())
        .flat_map(|(registry, listed)| services(listed.offer, registry))
        .collect();
    let mut registrations: Vec<Registration> = records.into_iter().filter_map(registration_of).collect();
    registrations.sort_by_key(|own| (own.agent_registry.clone(), own.agent_id.as_u64(), own.agent_id.to_string()));
    let active = !services.is_empty();
    let shared = registries.iter().find_map(|registry| registry.spec.agent.as_ref());
    let base_url = registries.first().map(|registry| registry.spec.base_url.as_str()).unwrap_or_default();
    Document {
        type_: TYPE,
        name: shared.map_or_else(|| "Agents of this domain".to_owned(), |agent| agent.name.clone()),
        description: shared
            .and_then(|agent| agent.description.clone())
            .unwrap_or_else(|| "Every agent that is registered under this domain, with its services.".to_owned()),
        image: shared.and_then(|agent| agent.image.clone()).unwrap_or_else(|| format!("{base_url}{ICON_PATH}")),
        services,
        x402_support: active,
        active,
        registrations,
        supported_trust: Vec::new(),
        metadata: BTreeMap::new(),
        provenance: BTreeMap::new(),
    }
}

/// Everything of a document that does not depend on who else uses the agent.
fn describe(registry: &IdentityRegistry, subject: Option<&ServiceOffer>, identity: &str, active: bool) -> Document {
    let own = subject.and_then(|offer| offer.spec.registration.as_ref());
    let shared = registry.spec.agent.as_ref().filter(|_| registry.spec.identity_scope != IdentityScope::Offer);
    let name = match (shared, subject) {
        (Some(agent), _) => agent.name.clone(),
        (None, Some(offer)) => own.and_then(|own| own.name.clone()).unwrap_or_else(|| offer.name_any()),
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
        metadata: own.filter(|_| active).map(|own| own.metadata.clone()).unwrap_or_default(),
        provenance: subject.filter(|_| active).map(|offer| offer.spec.provenance.clone()).unwrap_or_default(),
        name,
    }
}

fn default_description(offer: &ServiceOffer) -> String {
    match &offer.spec.model {
        Some(model) => format!("{} inference via x402 micropayments", model.name),
        None => format!("x402 payment-gated {} service: {}", offer.spec.type_.as_str(), offer.name_any()),
    }
}

/// Services of one offer: its own route, its place in the OASF taxonomy, and what the seller adds.
fn services(offer: &ServiceOffer, registry: &IdentityRegistry) -> Vec<Service> {
    let endpoint = public_url(offer, registry);
    let plain = |name: &str, endpoint: &str| Service {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        version: None,
        skills: Vec::new(),
        domains: Vec::new(),
    };
    let mut services = vec![plain("web", &endpoint)];
    if let Some(own) = &offer.spec.registration {
        if !own.skills.is_empty() || !own.domains.is_empty() {
            services.push(Service {
                version: Some(OASF_VERSION.to_owned()),
                skills: own.skills.clone(),
                domains: own.domains.clone(),
                ..plain("OASF", &endpoint)
            });
        }
        let added = own.services.iter();
        services.extend(
            added.map(|added| Service { version: added.version.clone(), ..plain(&added.name, &added.endpoint) }),
        );
    }
    services
}

/// Public path of an offer.
#[must_use]
pub fn public_path(offer: &ServiceOffer) -> String {
    offer.spec.path.clone().unwrap_or_else(|| format!("/services/{}", offer.name_any()))
}

/// Public URL of an offer: below its own host name, or below the registry's base URL.
#[must_use]
pub fn public_url(offer: &ServiceOffer, registry: &IdentityRegistry) -> String {
    let base_url = &registry.spec.base_url;
    match &offer.spec.hostname {
        Some(hostname) => format!("{}://{hostname}/", base_url.split("://").next().unwrap_or("https")),
        None => format!("{base_url}{}", public_path(offer)),
    }
}

fn registration_of(record: &AgentRegistration) -> Option<Registration> {
    let agent_id = &record.spec.result.as_ref()?.agent_id;
    Some(Registration {
        // A JSON number as long as every reader can hold it; no id on any chain is near that.
        agent_id: agent_id.parse::<u64>().map_or_else(|_| Value::from(agent_id.as_str()), Value::from),
        agent_registry: format!("eip155:{}:{}", record.spec.chain_id, record.spec.registry.address),
    })
}

fn sort(offers: &mut [Listed<'_>]) {
    offers.sort_by_key(|listed| age(listed.offer));
}

/// Orders offers by age, and those of one second by name.
fn age(offer: &ServiceOffer) -> impl Ord + use<> {
    let created = offer.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created, offer.namespace(), offer.name_any())
}
