//! Gathers what an offer's status depends on, from the cache and from issues.
//!
//! It sends no request and decides nothing; [`super::plan`] decides.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::plan::{ObservedOffer, OfferSubject, OfferView};
use crate::api::{IdentityRegistry, ServiceOffer};
use crate::cluster::{Cache, MaybeDecoded};
use crate::reconcile::Context;
use crate::registration::eligibility::{self, Eligibility, EligibilityContext};
use crate::registration::identity;

pub(super) fn view(context: &Context, offer: &MaybeDecoded<ServiceOffer>) -> OfferView {
    let now = Timestamp::now();
    // With the resource version: the status that is planned applies to this version only.
    let object = ObjectReference {
        resource_version: offer.resource_version(),
        ..offer.object_ref(&())
    };
    let metadata: &ObjectMeta = offer.meta();
    let generation = metadata.generation;
    let subject = match &offer.0 {
        Err(error) => undecodable(context, metadata, error.error.clone()),
        Ok(offer) => subject(context, offer, now),
    };
    let applied = object
        .uid
        .as_deref()
        .and_then(|uid| context.applied.get(uid));
    OfferView {
        object,
        generation,
        now,
        applied,
        subject,
    }
}

/// An offer that cannot be decoded has no known registry or identity. Its records list it by name.
fn undecodable(context: &Context, metadata: &ObjectMeta, error: String) -> OfferSubject {
    let name = (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    );
    let records = context.cache.records_of(&name);
    let latest = records.iter().max_by_key(|record| record.spec.edition);
    OfferSubject::Undecodable {
        error,
        record: latest.map(|record| Box::new(record.spec.clone())),
    }
}

fn subject(context: &Context, offer: &ServiceOffer, now: Timestamp) -> OfferSubject {
    let cache = &context.cache;
    let name = (offer.namespace().unwrap_or_default(), offer.name_any());
    let registries = cache.registries();
    let records = cache.records_of(&name);
    let resolution = identity::resolve(offer, &registries, &records);
    let registry = resolution
        .as_ref()
        .ok()
        .map(|resolution| resolution.registry.clone());
    let key = resolution.as_ref().ok().map(|resolution| resolution.key);
    OfferSubject::Offer(Box::new(ObservedOffer {
        eligibility: registry
            .as_ref()
            .map(|registry| eligibility_of(cache, offer, registry, now)),
        unresolved: resolution.err(),
        record: key
            .and_then(|key| cache.record(key))
            .map(|record| record.spec.clone()),
        issue: registry
            .as_ref()
            .and_then(|registry| context.issues.get(&registry.name_any(), &name)),
        upstream_exists: upstream_exists(cache, offer),
        registry,
        offer: offer.clone(),
    }))
}

/// Whether an offer may be listed, according to the cache.
#[must_use]
pub(crate) fn eligibility_of(
    cache: &Cache,
    offer: &ServiceOffer,
    registry: &IdentityRegistry,
    now: Timestamp,
) -> Eligibility {
    let labels: Option<BTreeMap<String, String>> =
        cache.namespace_labels(&offer.namespace().unwrap_or_default());
    let context = EligibilityContext {
        namespace_labels: labels.as_ref(),
        upstream_exists: upstream_exists(cache, offer),
        now,
    };
    eligibility::eligibility(offer, registry, context)
}

fn upstream_exists(cache: &Cache, offer: &ServiceOffer) -> bool {
    let upstream = offer.spec.upstream.as_ref();
    upstream.is_none_or(|upstream| cache.service_exists(&upstream.namespace, &upstream.service))
}
