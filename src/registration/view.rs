//! One view of an offer: which registry and key it resolves to, whether it may be listed there, and
//! the record of its agent.
//!
//! Both loops and the public documents look at offers through it, so a status and a document cannot
//! differ in which registry is meant or whether an offer is eligible. It reads the cache and
//! nothing else; the time is passed in.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::contract::Contract;
use super::eligibility::{Eligibility, EligibilityContext, eligibility};
use super::identity::{Unresolved, resolve};
use crate::api::{AgentRegistrationSpec, IdentityRegistry, Key, ServiceOffer};
use crate::cluster::Cache;

/// Namespace and name of an offer.
pub(crate) type OfferName = (String, String);

/// An offer, and what the cache knows of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfferView {
    pub name: OfferName,
    pub offer: Arc<ServiceOffer>,
    /// The registry and agent that it resolves to.
    pub agent: Result<OfferAgentView, Unresolved>,
    /// Records that list it. They may be of earlier editions or other registries.
    pub records: Vec<Arc<AgentRegistrationSpec>>,
    /// Whether the upstream's Service exists; true if the offer names none.
    pub upstream_exists: bool,
}

/// What an offer that resolves to a registry means there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfferAgentView {
    pub registry: Arc<IdentityRegistry>,
    /// The contract that the registry configures.
    pub contract: Contract,
    /// Identity of its agent.
    pub identity: String,
    /// Key of its agent.
    pub key: Key,
    /// Whether it may be listed.
    pub eligibility: Eligibility,
    /// The record of its agent, whichever offers it lists.
    pub record: Option<Arc<AgentRegistrationSpec>>,
}

impl OfferView {
    /// The view of an offer at a time.
    #[must_use]
    pub(crate) fn load(cache: &Cache, offer: &Arc<ServiceOffer>, now: Timestamp) -> Self {
        Self::among(&cache.registries(), cache, offer, now)
    }

    /// Like [`OfferView::load`], with the registries of the cache at hand: for views of many
    /// offers.
    #[must_use]
    pub(crate) fn among(
        registries: &[Arc<IdentityRegistry>],
        cache: &Cache,
        offer: &Arc<ServiceOffer>,
        now: Timestamp,
    ) -> Self {
        let name = (offer.namespace().unwrap_or_default(), offer.name_any());
        let records = cache.records_of(&name);
        let upstream = offer.spec.upstream.as_ref();
        let upstream_exists = upstream
            .is_none_or(|upstream| cache.service_exists(&upstream.namespace, &upstream.service));
        let labels = cache.namespace_labels(&name.0);
        let context = EligibilityContext {
            namespace_labels: labels.as_deref(),
            upstream_exists,
            now,
        };
        Self {
            agent: agent(offer, registries, &records, context, |key| {
                cache.record(key)
            }),
            name,
            offer: Arc::clone(offer),
            records,
            upstream_exists,
        }
    }

    /// What it means on its registry, if it resolves to one.
    #[must_use]
    pub(crate) fn agent(&self) -> Option<&OfferAgentView> {
        self.agent.as_ref().ok()
    }

    /// Agent id in its status. Until its record has a result, only the legacy controller can have
    /// written it.
    #[must_use]
    pub(crate) fn agent_id_in_status(&self) -> Option<&str> {
        self.offer.status.as_ref()?.agent_id.as_deref()
    }
}

fn agent(
    offer: &ServiceOffer,
    registries: &[Arc<IdentityRegistry>],
    records: &[Arc<AgentRegistrationSpec>],
    context: EligibilityContext<'_>,
    record_of: impl Fn(Key) -> Option<Arc<AgentRegistrationSpec>>,
) -> Result<OfferAgentView, Unresolved> {
    let resolution = resolve(offer, registries, records)?;
    Ok(OfferAgentView {
        eligibility: eligibility(offer, resolution.registry, context),
        record: record_of(resolution.key),
        registry: Arc::clone(resolution.registry),
        contract: resolution.contract,
        identity: resolution.identity,
        key: resolution.key,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::cache::fixtures::CachedObjects;
    use crate::registration::fixtures::{offer, record, registry};

    /// The view of an offer whose namespace and Service exist, besides these objects.
    fn view(over: Value, objects: CachedObjects) -> OfferView {
        let cache = Cache::holding(CachedObjects {
            namespaces: vec!["shop"],
            services: vec![("shop", "backend")],
            ..objects
        });
        let now = Timestamp::from_second(0).unwrap();
        OfferView::load(&cache, &Arc::new(offer(over)), now)
    }

    fn on_registry(over: Value) -> OfferView {
        let objects = CachedObjects {
            registries: vec![registry(json!({}))],
            ..CachedObjects::default()
        };
        view(over, objects)
    }

    fn eligibility_of(view: &OfferView) -> Option<&Eligibility> {
        view.agent().map(|agent| &agent.eligibility)
    }

    #[test]
    fn view_shows_the_agent_of_an_offer_and_its_record() {
        let own = record("shop/chat", 1, json!({}));
        let other = record("shop/other", 1, json!({ "spec": { "offers": [] } }));
        let registry = registry(json!({}));
        let objects = CachedObjects {
            registries: vec![registry.clone()],
            records: vec![own.clone(), other],
            ..CachedObjects::default()
        };
        let view = view(json!({ "status": { "agentId": "7" } }), objects);
        let listing = Arc::new(own.spec);
        assert_eq!(view.name, ("shop".to_owned(), "chat".to_owned()));
        assert_eq!(view.records, [Arc::clone(&listing)]);
        assert_eq!(view.agent_id_in_status(), Some("7"));
        let expected = OfferAgentView {
            contract: Contract::of(&registry).unwrap(),
            registry: Arc::new(registry),
            identity: "shop/chat".into(),
            key: listing.key,
            eligibility: Eligibility::Eligible,
            record: Some(listing),
        };
        assert_eq!(view.agent(), Some(&expected));
    }

    #[test]
    fn offer_without_a_registry_has_no_agent() {
        let view = view(json!({}), CachedObjects::default());
        assert_eq!(view.agent, Err(Unresolved::NoRegistry));
        assert_eq!(view.agent(), None);
    }

    #[test]
    fn offer_needs_the_service_that_it_names() {
        let view = on_registry(json!({}));
        assert!(view.upstream_exists);
        assert_eq!(eligibility_of(&view), Some(&Eligibility::Eligible));
        let missing = on_registry(json!({ "spec": { "upstream": { "service": "gone" } } }));
        assert!(!missing.upstream_exists);
        assert_eq!(
            eligibility_of(&missing),
            Some(&Eligibility::UpstreamMissing)
        );
        assert!(on_registry(json!({ "spec": { "upstream": null } })).upstream_exists);
    }
}
