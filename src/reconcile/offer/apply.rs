//! Applies the plan for one offer: removes the legacy finalizer, writes the status, publishes
//! Events.
//!
//! It decides nothing; [`super::plan`] does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{debug, info};

use super::plan::{OfferPlan, OfferSnapshot, OfferSubject, is_own, must_write};
use crate::api::ServiceOfferStatus;
use crate::leader::Leading;
use crate::reconcile::{Context, Error};
use crate::telemetry::causes;

/// The status last applied to each offer, by uid.
///
/// A field that another controller owns keeps its value whatever is applied. Without this, it would
/// look like a difference indefinitely and cause a write in every reconcile. The cache may also lag
/// behind the last write. Once the cache shows what was applied, nothing is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied(Arc<Mutex<BTreeMap<String, ServiceOfferStatus>>>);

impl Applied {
    pub(super) fn get(&self, uid: &str) -> Option<ServiceOfferStatus> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }

    /// Drops offers that no longer exist.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|uid, _| exists(uid));
    }

    fn remove(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }

    fn insert(&self, uid: &str, status: ServiceOfferStatus) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned(), status);
    }
}

/// Writes what differs, in an order in which a crash between two writes loses nothing: the
/// finalizer first, because an offer that is being deleted may be gone after that; then the status;
/// then its Events.
pub(super) async fn apply(
    context: &Context,
    leading: &Leading,
    snapshot: &OfferSnapshot,
    plan: OfferPlan,
) -> Result<(), Error> {
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
        return Ok(());
    }
    let uid = snapshot.object.uid.clone().unwrap_or_default();
    let current = snapshot.current();
    if !must_write(&current, snapshot.applied.as_ref(), &status) {
        if is_own(&current, &status) {
            context.applied.remove(&uid);
        }
        return Ok(());
    }
    context
        .writer
        .apply_offer_status(leading, &snapshot.object, &status)
        .await?;
    context.applied.insert(&uid, status);
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
    Ok(())
}
