//! Collects what the offers of the cache ask of a registry.

use jiff::Timestamp;
use kube::ResourceExt;

use super::{KnownRecord, OfferClaim};
use crate::api::{IdentityRegistry, Key, ServiceOffer};
use crate::cluster::Cache;
use crate::reconcile::registry::adoption::AgentReservation;
use crate::registration::contract::Contract;
use crate::registration::eligibility::Eligibility;
use crate::registration::view::OfferView;

/// What the offers ask of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::reconcile::registry) struct Claims {
    /// Offers that resolve to the registry, the oldest first.
    pub(in crate::reconcile::registry) offers: Vec<OfferClaim>,
    /// Agents that offers reserve on its contract, whichever object they resolve to.
    pub(in crate::reconcile::registry) reservations: Vec<AgentReservation>,
}

/// Collects the claims on a registry.
pub(in crate::reconcile::registry) fn claims(
    cache: &Cache,
    registry: &IdentityRegistry,
    now: Timestamp,
) -> Claims {
    let registries = cache.registries();
    let contract = Contract::of(registry);
    let name = registry.name_any();
    let mut offers = cache.offers();
    offers.retain(|offer| may_claim(offer));
    offers.sort_by_cached_key(|offer| (created(offer), offer.namespace(), offer.name_any()));
    let mut claims = Claims::default();
    for offer in &offers {
        let view = OfferView::among(&registries, cache, offer, now);
        claims.offers.extend(claim(&view, &name));
        let reserved = contract.and_then(|contract| AgentReservation::of(&view, contract));
        claims.reservations.extend(reserved);
    }
    claims
}

fn may_claim(offer: &ServiceOffer) -> bool {
    let names_agent = || offer.status.as_ref()?.agent_id.as_ref();
    offer.metadata.deletion_timestamp.is_none()
        && (offer.spec.registration.is_some() || names_agent().is_some())
}

fn created(offer: &ServiceOffer) -> Option<Timestamp> {
    let created = offer.metadata.creation_timestamp.as_ref();
    created.map(|time| time.0)
}

/// The claim of an offer on the registry of this name; `None` if it makes none.
fn claim(view: &OfferView, registry: &str) -> Option<OfferClaim> {
    let own = view.offer.spec.registration.as_ref()?;
    let agent = view.agent()?;
    if agent.registry.name_any() != registry {
        return None;
    }
    let status = view.offer.status.as_ref();
    let recorded_key = status.and_then(|status| status.registration.as_ref()?.key);
    // An id beside a key is this operator's own mirror, and not a legacy one.
    let legacy_agent_id = if recorded_key.is_none() {
        view.agent_id_in_status().map(str::to_owned)
    } else {
        None
    };
    Some(OfferClaim {
        name: view.name.clone(),
        uid: view.offer.uid().unwrap_or_default(),
        generation: view.offer.metadata.generation,
        created: created(&view.offer),
        identity: agent.identity.clone(),
        key: agent.key,
        edition: own.edition,
        adopt: own.agent_id.clone(),
        legacy_agent_id,
        eligible: agent.eligibility == Eligibility::Eligible,
        key_in_status: recorded_key == Some(agent.key),
    })
}

impl KnownRecord {
    /// The record of a key in the cache.
    pub(in crate::reconcile::registry) fn cached(cache: &Cache, key: Key) -> Self {
        match cache.record(key) {
            Some(record) => Self::Decoded(record),
            None if cache.record_is_undecodable(key) => Self::Undecodable,
            None => Self::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::cache::fixtures::CachedObjects;
    use crate::registration::fixtures::{self, merge, offer, record, registry};

    fn view(over: Value) -> OfferView {
        fixtures::view(over, Eligibility::Eligible, None)
    }

    #[test]
    fn offer_claims_its_agent_on_the_registry_that_it_resolves_to() {
        let found = claim(&view(json!({})), "sepolia").unwrap();
        assert_eq!(found.key, record("shop/chat", 1, json!({})).spec.key);
        assert_eq!((found.edition, found.eligible), (1, true));
        assert_eq!(found.created, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(claim(&view(json!({})), "other"), None);
    }

    #[test]
    fn claims_of_the_cache_come_the_oldest_first() {
        let named = |name: &str, over: Value| {
            let mut metadata = json!({ "metadata": { "name": name } });
            merge(&mut metadata, over);
            offer(metadata)
        };
        let at = |registry: &str| json!({ "spec": { "registration": { "registryRef": { "name": registry } } } });
        let of_day = |day: u8| {
            let created = format!("2026-01-0{day}T00:00:00Z");
            json!({ "metadata": { "creationTimestamp": created } })
        };
        let unregistered =
            |status: Value| json!({ "spec": { "registration": null }, "status": status });
        let sepolia = registry(json!({}));
        let other = json!({
            "metadata": { "name": "other", "annotations": null }, "spec": { "chainId": 8453 },
        });
        let cache = Cache::holding(CachedObjects {
            offers: vec![
                named("younger", of_day(3)),
                named("older", of_day(2)),
                named("elsewhere", at("other")),
                named("nowhere", at("gone")),
                named("plain", unregistered(json!({}))),
                named("legacy", unregistered(json!({ "agentId": "7" }))),
            ],
            registries: vec![sepolia.clone(), registry(other)],
            ..CachedObjects::default()
        });
        let found = claims(&cache, &sepolia, Timestamp::from_second(0).unwrap());
        let names = |names: &[&str]| -> Vec<_> {
            let names = names.iter();
            names
                .map(|name| ("shop".to_owned(), (*name).to_owned()))
                .collect()
        };
        let offers: Vec<_> = found.offers.into_iter().map(|own| own.name).collect();
        assert_eq!(offers, names(&["older", "younger"]));
        let reserving: Vec<_> = found
            .reservations
            .into_iter()
            .map(|own| own.offer)
            .collect();
        assert_eq!(reserving, names(&["legacy"]));
    }

    #[test]
    fn record_of_a_key_is_read_from_the_cache() {
        let known = record("shop/chat", 1, json!({}));
        let key_of = |edition| record("shop/chat", edition, json!({})).spec.key;
        let cache = Cache::holding(CachedObjects {
            records: vec![known.clone()],
            undecodable: vec![key_of(2)],
            ..CachedObjects::default()
        });
        let decoded = KnownRecord::Decoded(Arc::new(known.spec));
        for (edition, expected) in [
            (1, decoded),
            (2, KnownRecord::Undecodable),
            (3, KnownRecord::Missing),
        ] {
            assert_eq!(KnownRecord::cached(&cache, key_of(edition)), expected);
        }
    }

    #[test]
    fn agent_id_without_a_key_is_a_legacy_one() {
        let key = record("shop/chat", 1, json!({})).spec.key;
        let of = |status: Value| claim(&view(json!({ "status": status })), "sepolia").unwrap();
        let legacy = of(json!({ "agentId": "7" }));
        assert_eq!(legacy.legacy_agent_id.as_deref(), Some("7"));
        assert!(!legacy.key_in_status);
        let own = of(json!({ "agentId": "7", "registration": { "key": key } }));
        assert_eq!(own.legacy_agent_id, None);
        assert!(own.key_in_status);
    }

    #[test]
    fn offer_without_registration_may_reserve_an_agent_only() {
        let mut plain = serde_json::to_value(offer(json!({}))).unwrap();
        plain["spec"]
            .as_object_mut()
            .unwrap()
            .remove("registration");
        let offer = |status: Value| {
            let mut offer = plain.clone();
            offer["status"] = status;
            serde_json::from_value::<ServiceOffer>(offer).unwrap()
        };
        for status in [json!(null), json!({})] {
            assert!(!may_claim(&offer(status)));
        }
        assert!(may_claim(&offer(json!({ "agentId": "7" }))));
    }
}
