//! The facilitator loop: keeps the status of one PaymentFacilitator true.
//!
//! [`observe`] asks the facilitator what it supports and token contracts how they describe
//! themselves, [`plan`] decides what the status should say (pure), and [`apply`] writes what differs.
//! The loop spends nothing and pays nothing: payments are a matter of [`crate::gate`], which reads
//! the status. A facilitator that does not answer delays only itself, since each is reconciled on
//! its own.

mod apply;
mod observe;
pub(crate) mod plan;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

pub(crate) use observe::FacilitatorStates;

use super::{Context, Error};
use crate::api::PaymentFacilitator;
use crate::cluster::MaybeDecoded;
use crate::leader::Leading;

/// Reconciles one facilitator. One that does not answer is not an error: the status says so.
pub(crate) async fn reconcile(
    context: &Context,
    leading: &Leading,
    facilitator: &MaybeDecoded<PaymentFacilitator>,
) -> Result<Action, Error> {
    let facilitator = match &facilitator.0 {
        Ok(facilitator) if facilitator.metadata.deletion_timestamp.is_none() => facilitator,
        Ok(_) => return Ok(Action::await_change()),
        Err(error) => {
            warn!(
                error = error.error,
                "the stored PaymentFacilitator cannot be decoded; apply it again to see what admission rejects"
            );
            return Ok(Action::await_change());
        }
    };
    let exists = |name: &str| context.cache.facilitator(name).is_some();
    context.facilitator_states.retain(exists);
    context.metrics.facilitators.retain(exists);
    let state = context.facilitator_states.of(&facilitator.name_any());
    let mut state = state.lock().await;
    let snapshot = observe::snapshot(context, facilitator, &mut state).await;
    apply::apply(context, leading, &snapshot, plan::plan(&snapshot)).await?;
    Ok(Action::requeue(state.next_question()))
}
