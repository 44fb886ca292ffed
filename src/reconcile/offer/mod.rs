//! The offer loop: keeps the status of one ServiceOffer true.
//!
//! [`observe`] gathers from the cache (no request leaves the process), [`plan`] decides what the
//! status should say (pure), and [`apply`] writes what differs. The loop spends nothing and writes
//! no record: that is the registry loop's job, whose issues it reports.

mod apply;
mod observe;
pub(crate) mod plan;
mod state;

use kube::runtime::controller::Action;

pub(crate) use state::OfferStates;

use super::{Context, Error};
use crate::api::ServiceOffer;
use crate::cluster::MaybeDecoded;
use crate::leader::Leading;

/// Reconciles one offer.
pub(crate) async fn reconcile(
    context: &Context,
    leading: &Leading,
    offer: &MaybeDecoded<ServiceOffer>,
) -> Result<Action, Error> {
    let snapshot = observe::snapshot(context, offer).await;
    if snapshot.is_suspended() {
        return Ok(Action::await_change());
    }
    let plan = plan::plan(&snapshot);
    let rests = apply::apply(context, leading, &snapshot, plan).await?;
    let wait = rests.into_iter().chain(snapshot.next_change()).min();
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}
