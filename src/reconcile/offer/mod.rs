//! The offer loop: keeps the status of one ServiceOffer true.
//!
//! Three steps: [`observe`] gathers from the cache (no request leaves the process), [`plan`] decides what the status should
//! say (pure), [`apply`] writes what differs. It spends nothing and touches no record: that is the registry loop's business,
//! whose issues it tells.

mod apply;
mod observe;
pub mod plan;

use kube::runtime::controller::Action;

pub use apply::Applied;
pub use observe::eligibility_of;

use super::{Context, Error};
use crate::api::ServiceOffer;
use crate::cluster::MaybeDecoded;
use crate::leader::Leading;

/// Reconciles one offer.
///
/// # Errors
/// If something could not be written.
pub async fn reconcile(
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
