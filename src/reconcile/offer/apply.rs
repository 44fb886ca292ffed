//! Applies the plan for one offer: removes the legacy finalizer, writes the status, publishes
//! Events.
//!
//! It decides nothing; [`super::plan`] does.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{debug, info};

use super::plan::{OfferPlan, OfferSnapshot, OfferSubject, is_own, must_write};
use super::state::OfferState;
use crate::leader::Leading;
use crate::reconcile::{Context, Error};
use crate::telemetry::causes;

/// Writes what differs, in an order in which a crash between two writes loses nothing: the
/// finalizer first, because an offer that is being deleted may be gone after that; then the status;
/// then its Events. Returns when to look again, if it left the status as it is for a while.
pub(super) async fn apply(
    context: &Context,
    leading: &Leading,
    snapshot: &OfferSnapshot,
    plan: OfferPlan,
) -> Result<Option<Duration>, Error> {
    let OfferPlan {
        status,
        strip_finalizer,
        events,
    } = plan;
    if strip_finalizer && let OfferSubject::Offer(observed) = &snapshot.subject {
        info!("removing the finalizer of the legacy controller");
        context
            .writer
            .strip_finalizer(leading, &observed.view.offer)
            .await?;
        // The watch delivers the new resource version, which the status is then applied to.
        return Ok(None);
    }
    let uid = snapshot.object.uid.clone().unwrap_or_default();
    let current = snapshot.current();
    let (applied, other_gate) = (snapshot.applied.clone(), snapshot.other_gate.clone());
    let keep = |applied, other_gate| {
        let state = OfferState {
            applied,
            other_gate,
        };
        context.offer_states.set(&uid, state);
    };
    if !must_write(&current, applied.as_ref(), &status) {
        let applied = applied.filter(|_| !is_own(&current, &status));
        keep(applied, other_gate.confirmed(&status));
        return Ok(None);
    }
    if let Some(rest) = other_gate.rests(&current, snapshot.now) {
        keep(applied, other_gate);
        return Ok(Some(rest));
    }
    context
        .writer
        .apply_offer_status(leading, &snapshot.object, &status)
        .await?;
    let other_gate = other_gate.written(&status, snapshot.now);
    keep(Some(status), other_gate);
    // Without a resource version: Events about all versions of an offer are grouped under one
    // offer.
    let offer = ObjectReference {
        resource_version: None,
        ..snapshot.object.clone()
    };
    for event in events {
        info!(reason = event.reason, "{}", event.message);
        if let Err(error) = context.writer.publish(leading, &offer, &event).await {
            debug!(error = %causes(&error), "failed to publish event");
        }
    }
    Ok(None)
}
