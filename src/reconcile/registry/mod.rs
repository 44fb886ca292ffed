//! The registry loop: one pass of one IdentityRegistry. It is the only one that writes records and ledgers, signs, and
//! sends.
//!
//! A pass is these steps, in this order, since the proof in [`crate::ledger::protocol`] rests on it:
//! 1. [`observe::target`]: what the registry's spec stands for: address, endpoint, key, limits
//! 2. [`observe::chain`]: the chain as it is *before* any ledger is read
//! 3. [`records`] (pure): which records the offers ask for; [`apply::write_records`] writes them
//! 4. [`observe::ledger`]: the ledger, *then* the records
//! 5. [`plan`] (pure): what ledger, entries and records need
//! 6. [`apply`]: carries that out. Whatever it writes makes the ledger at hand old: a pass that prunes does not allocate
//! 7. [`status`] (pure): what people are told, from what was found and applied
//!
//! A pass waits for nothing on a chain; it comes again.

pub mod adoption;
mod apply;
pub mod blocked;
mod observe;
pub mod plan;
pub mod records;
mod state;
pub mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

pub use state::{RegistryState, RegistryStates};

use self::blocked::Blocked;
use self::status::Report;
use super::{Context, Error};
use crate::api::{IdentityRegistry, Suspend};
use crate::cluster::MaybeDecoded;
use crate::leader::Leading;

/// Until the next pass while something is under way.
const BUSY: Duration = Duration::from_secs(1);
/// Until the next pass while nothing is. A chain that stops answering is told of within this and one question's limit.
const IDLE: Duration = Duration::from_secs(8);

/// What is left to do after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requeue {
    /// The ledger has just changed: look again at once.
    Now,
    /// Something is under way.
    Busy,
    /// Nothing.
    Idle,
}

/// Reconciles one registry.
///
/// # Errors
/// If the API server does not do as asked. What a chain does or does not do is reported, and is no error.
pub async fn reconcile(
    context: &Context,
    leading: &Leading,
    registry: &MaybeDecoded<IdentityRegistry>,
) -> Result<Action, Error> {
    let registry = match &registry.0 {
        Ok(registry) if registry.metadata.deletion_timestamp.is_none() => registry,
        Ok(_) => return Ok(Action::await_change()),
        Err(error) => {
            warn!(
                error = error.error,
                "the registry cannot be read: apply it again to see what admission refuses"
            );
            return Ok(Action::await_change());
        }
    };
    let state = context.registry_states.of(&registry.name_any());
    let mut state = state.lock().await;
    let mut report = Report::default();
    let requeue = pass(context, leading, registry, &mut state, &mut report).await;
    apply::status(context, leading, registry, &mut state, report).await?;
    Ok(Action::requeue(match requeue? {
        Requeue::Now => Duration::ZERO,
        Requeue::Busy => BUSY,
        Requeue::Idle => IDLE,
    }))
}

async fn pass(
    context: &Context,
    leading: &Leading,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
    report: &mut Report,
) -> Result<Requeue, Error> {
    let target = match observe::target(context, registry).await? {
        Ok(target) => target,
        Err(blocked) => {
            report.blocked = Some(blocked);
            return Ok(Requeue::Idle);
        }
    };
    report.target(&target);
    let chain = match observe::chain(&target, state).await {
        Ok(Ok(chain)) => chain,
        Ok(Err(unverified)) => {
            report.blocked = Some(Blocked::Unverified(unverified));
            return Ok(Requeue::Idle);
        }
        Err(error) => {
            report.blocked = Some(Blocked::Rpc {
                endpoint: target.endpoint.to_string(),
                error,
            });
            return Ok(Requeue::Idle);
        }
    };
    report.chain(&target, &chain);
    if registry.spec.suspend == Suspend::All {
        return Ok(Requeue::Idle);
    }
    let mut issues = BTreeMap::new();
    let claims = observe::claims(context, registry, Timestamp::now());
    let plan = records::plan(&target.record_defaults(&chain), &claims, |key| {
        context.cache.record(key)
    });
    let records_written =
        apply::write_records(context, leading, &target, plan, state, &mut issues).await?;
    let retired = apply::retire(context, leading, &target, state).await?;

    let view = match observe::ledger(context, &target, &chain, &claims, state).await {
        Ok(view) => view,
        Err(observe::Failure::Kubernetes(error)) => return Err(error.into()),
        Err(observe::Failure::Rpc(error)) => {
            report.blocked = Some(Blocked::Rpc {
                endpoint: chain.endpoint.to_string(),
                error,
            });
            return Ok(Requeue::Busy);
        }
    };
    let worked = match view {
        Ok(view) => {
            let wanted = records::wanted(&claims, &issues);
            let settled = records::settled(&claims, &wanted);
            let issues = &mut issues;
            let mut pass = apply::LedgerPass {
                context,
                leading,
                registry,
                target: &target,
                chain: &chain,
                wanted: &wanted,
                settled: &settled,
                state,
                report,
                issues,
            };
            pass.run(view).await?
        }
        Err(freeze) => {
            report.freeze(freeze);
            Requeue::Busy
        }
    };
    context.issues.replace(&registry.name_any(), issues);
    Ok(if records_written || retired {
        Requeue::Now
    } else {
        worked
    })
}
