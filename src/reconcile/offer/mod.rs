//! The offer loop: keeps the status of one ServiceOffer true.
//!
//! [`observe`] gathers from the cache (no request leaves the process), [`plan`] decides what the
//! status should say (pure), and [`apply`] writes what differs. The loop spends nothing and writes
//! no record: that is the registry loop's job, whose issues it reports.

mod apply;
mod observe;
pub(crate) mod plan;

use kube::runtime::controller::Action;

pub(crate) use apply::Applied;
pub(crate) use observe::eligibility_of;

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
    let view = observe::view(context, offer);
    let plan = plan::plan(&view);
    apply::apply(context, leading, &view, plan).await?;
    Ok(match view.next_change() {
        Some(wait) => Action::requeue(wait),
        None => Action::await_change(),
    })
}
