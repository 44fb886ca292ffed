//! Carries out what was planned for an offer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{debug, info};

use super::plan::{OfferPlan, OfferSubject, OfferView, must_write};
use crate::api::ServiceOfferStatus;
use crate::leader::Leading;
use crate::reconcile::{Context, Error};
use crate::telemetry::causes;

/// What was last applied to each offer, by uid.
///
/// A field that another controller owns stands whatever is applied: without this memory it would look like a difference for
/// ever, and cause a write at every turn. And the cache may be a moment behind the last write.
#[derive(Clone, Debug, Default)]
pub struct Applied(Arc<Mutex<BTreeMap<String, ServiceOfferStatus>>>);

impl Applied {
    pub(super) fn get(&self, uid: &str) -> Option<ServiceOfferStatus> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }

    /// Forgets offers that are gone.
    pub fn retain(&self, is_alive: impl Fn(&str) -> bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|uid, _| is_alive(uid));
    }

    fn remember(&self, uid: &str, status: ServiceOfferStatus) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned(), status);
    }
}

/// Writes what differs, in an order in which a crash between two writes loses nothing: the finalizer first, since an offer
/// that is being deleted may be gone after it; then the status; then what is told about it.
pub(super) async fn apply(
    context: &Context,
    leading: &Leading,
    view: &OfferView,
    plan: OfferPlan,
) -> Result<(), Error> {
    let OfferPlan {
        status,
        strip_finalizer,
        notes,
    } = plan;
    if let (OfferSubject::Offer(observed), true) = (&view.subject, strip_finalizer) {
        info!("removing the finalizer of the former controller");
        context
            .writer
            .strip_finalizer(leading, &observed.offer)
            .await?;
        // The change comes back as an event, and with it the version that a status can be applied to.
        return Ok(());
    }
    let uid = view.object.uid.clone().unwrap_or_default();
    if !must_write(&view.current(), view.applied.as_ref(), &status) {
        return Ok(());
    }
    context
        .writer
        .apply_offer_status(leading, &view.object, &status)
        .await?;
    context.applied.remember(&uid, status);
    // Events of all versions of an offer are events of one offer.
    let offer = ObjectReference {
        resource_version: None,
        ..view.object.clone()
    };
    for note in notes {
        info!(reason = note.reason, "{}", note.message);
        if let Err(error) = context.writer.publish(leading, &offer, &note).await {
            debug!(error = %causes(&error), "the event was not published");
        }
    }
    Ok(())
}
