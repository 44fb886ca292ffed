//! The registry loop: one pass over one IdentityRegistry. Only this loop writes records and
//! ledgers, signs, and sends.
//!
//! The order of the steps is part of the proof in [`crate::ledger::protocol`]:
//! 1. [`observe::target`]: resolve the spec: address, endpoints, key, limits
//! 2. [`observe::chain`]: read the chain *before* any ledger
//! 3. [`records`] (pure): plan the records that offers claim; [`apply::write_records`] writes them
//! 4. [`observe::ledger`]: read the ledger, *then* the records
//! 5. [`plan`] (pure): what ledger, entries and records need
//! 6. [`apply`]: carry it out. A write makes the ledger in memory stale: a pass that prunes does
//!    not allocate
//! 7. [`status`] (pure): conditions, numbers and Events, from what was found and applied
//!
//! A pass never waits for the chain. It ends, and [`Requeue`] says when the next one starts.

pub(crate) mod adoption;
mod apply;
pub(crate) mod blocked;
mod observe;
pub(crate) mod plan;
pub(crate) mod records;
mod state;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

pub(crate) use state::{RegistryState, RegistryStates};

use self::blocked::Blocked;
use self::status::Report;
use super::{Context, Error};
use crate::api::{IdentityRegistry, Suspend};
use crate::cluster::MaybeDecoded;
use crate::leader::Leading;

/// Delay of the next pass while transactions are in flight or the ledger is not ready.
const BUSY: Duration = Duration::from_secs(1);
/// Delay of the next pass otherwise. An unreachable chain is reported within this plus one request
/// timeout.
const IDLE: Duration = Duration::from_secs(8);

/// When the next pass is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requeue {
    /// Something was written: read again at once.
    Now,
    /// Transactions are in flight, or the ledger is not ready.
    Busy,
    /// There is nothing to do.
    Idle,
}

/// Reconciles one registry. Only failures of the API server are errors; those of a chain are
/// reported in the status.
pub(crate) async fn reconcile(
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
                "the stored IdentityRegistry cannot be decoded; apply it again to see what admission rejects"
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

/// One pass. It fills `report` step by step, so that the status also covers a pass that ends early.
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
            let allocatable = records::allocatable(&claims, &wanted);
            let issues = &mut issues;
            let mut pass = apply::LedgerPass {
                context,
                leading,
                registry,
                target: &target,
                chain: &chain,
                wanted: &wanted,
                allocatable: &allocatable,
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
