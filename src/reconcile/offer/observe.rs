//! Gathers what an offer's status depends on, from the cache, from issues, and from
//! what is known of the gate.
//!
//! It sends no request and decides nothing; [`super::plan`] decides.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::plan::{ObservedOffer, OfferSnapshot, OfferSubject};
use crate::api::ServiceOffer;
use crate::cluster::{MaybeDecoded, SaleEdit};
use crate::reconcile::Context;
use crate::registration::view::OfferView;

pub(super) async fn snapshot(
    context: &Context,
    offer: &MaybeDecoded<ServiceOffer>,
) -> OfferSnapshot {
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
        Ok(offer) => subject(context, offer, now).await,
    };
    let uid = object.uid.as_deref().unwrap_or_default();
    let mut state = context.offer_states.get(uid);
    if let (Some(_), OfferSubject::Offer(observed)) = (&context.gate, &subject) {
        let offer = &observed.view.offer;
        let status = offer.status.clone().unwrap_or_default();
        let edit = SaleEdit::last(offer);
        state.other_gate = state.other_gate.seen(&status, edit, now);
    }
    OfferSnapshot {
        object,
        generation,
        now,
        applied: state.applied,
        other_gate: state.other_gate,
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
    let record = records.into_iter().max_by_key(|record| record.edition);
    OfferSubject::Undecodable { error, record }
}

async fn subject(context: &Context, offer: &Arc<ServiceOffer>, now: Timestamp) -> OfferSubject {
    let view = OfferView::load(&context.cache, offer, now);
    let gate = match &context.gate {
        Some(gate) => Some(gate.view(&context.cache, &view.name).await),
        None => None,
    };
    let agent = view.agent();
    OfferSubject::Offer(Box::new(ObservedOffer {
        issue: agent.and_then(|agent| context.issues.get(&agent.registry.name_any(), &view.name)),
        owner: agent.and_then(|agent| context.adopted_owners.get(agent.key)),
        gate,
        view,
    }))
}
