//! Applies the plan for one facilitator: writes the status if it differs, publishes Events.
//!
//! It decides nothing; [`super::plan`] does.

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{debug, info};

use super::plan::{FacilitatorPlan, FacilitatorSnapshot};
use crate::leader::Leading;
use crate::reconcile::{Context, Error};
use crate::telemetry::causes;

pub(super) async fn apply(
    context: &Context,
    leading: &Leading,
    snapshot: &FacilitatorSnapshot,
    plan: FacilitatorPlan,
) -> Result<(), Error> {
    if snapshot.facilitator.status.as_ref() == Some(&plan.status) {
        return Ok(());
    }
    context
        .writer
        .apply_facilitator_status(leading, &snapshot.object, &plan.status)
        .await?;
    // Without a resource version: Events about all versions of an object are grouped under one.
    let object = ObjectReference {
        resource_version: None,
        ..snapshot.object.clone()
    };
    for event in plan.events {
        info!(reason = event.reason, "{}", event.message);
        if let Err(error) = context.writer.publish(leading, &object, &event).await {
            debug!(error = %causes(&error), "failed to publish event");
        }
    }
    Ok(())
}
