//! The registry loop: one turn of one IdentityRegistry. It is the only one that writes records and ledgers, signs, and
//! sends.
//!
//! A turn is these steps, in this order, since the proof in [`crate::ledger::protocol`] rests on it:
//! 1. [`observe::site`]: what the registry's spec stands for: address, endpoint, key, limits
//! 2. [`observe::chain`]: the chain as it is *before* any ledger is read
//! 3. [`enrol`] (pure): which records the offers ask for; [`apply::enrol`] writes them
//! 4. [`observe::ledger`]: the ledger, *then* the records
//! 5. [`plan`] (pure): what ledger, entries and records need
//! 6. [`apply`]: carries that out. Whatever it writes makes the ledger at hand old: a turn that prunes does not allocate
//! 7. [`status`] (pure): what people are told, from what was found and applied
//!
//! A turn waits for nothing on a chain; it comes again.

pub mod adoption;
mod apply;
pub mod enrol;
mod memory;
mod observe;
pub mod plan;
pub mod status;
pub mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

pub use memory::{Memories, Memory};

use self::status::Report;
use self::trouble::Trouble;
use super::{Context, Error};
use crate::api::{IdentityRegistry, Suspend};
use crate::cluster::MaybeDecoded;
use crate::leader::Leading;

/// Until the next turn while something is under way.
const BUSY: Duration = Duration::from_secs(1);
/// Until the next turn while nothing is. A chain that stops answering is told of within this and one question's limit.
const IDLE: Duration = Duration::from_secs(8);

/// What is left to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
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
    let memory = context.memories.of(&registry.name_any());
    let mut memory = memory.lock().await;
    let mut report = Report::default();
    let rest = turn(context, leading, registry, &mut memory, &mut report).await;
    apply::status(context, leading, registry, &mut memory, report).await?;
    Ok(Action::requeue(match rest? {
        Rest::Now => Duration::ZERO,
        Rest::Busy => BUSY,
        Rest::Idle => IDLE,
    }))
}

async fn turn(
    context: &Context,
    leading: &Leading,
    registry: &IdentityRegistry,
    memory: &mut Memory,
    report: &mut Report,
) -> Result<Rest, Error> {
    let site = match observe::site(context, registry).await? {
        Ok(site) => site,
        Err(trouble) => {
            report.trouble = Some(trouble);
            return Ok(Rest::Idle);
        }
    };
    report.site(&site);
    let chain = match observe::chain(&site, memory).await {
        Ok(Ok(chain)) => chain,
        Ok(Err(unverified)) => {
            report.trouble = Some(Trouble::Unverified(unverified));
            return Ok(Rest::Idle);
        }
        Err(error) => {
            report.trouble = Some(Trouble::Rpc {
                endpoint: site.endpoint.to_string(),
                error,
            });
            return Ok(Rest::Idle);
        }
    };
    report.chain(&site, &chain);
    if registry.spec.suspend == Suspend::All {
        return Ok(Rest::Idle);
    }
    let mut findings = BTreeMap::new();
    let applicants = observe::applicants(context, registry, Timestamp::now());
    let roll = enrol::roll(&site.ground(&chain), &applicants, |key| {
        context.cache.record(key)
    });
    let enrolled = apply::enrol(context, leading, &site, roll, memory, &mut findings).await?;
    let retired = apply::retire(context, leading, &site, memory).await?;

    let view = match observe::ledger(context, &site, &chain, &applicants, memory).await {
        Ok(view) => view,
        Err(observe::Failure::Kubernetes(error)) => return Err(error.into()),
        Err(observe::Failure::Rpc(error)) => {
            report.trouble = Some(Trouble::Rpc {
                endpoint: chain.endpoint.to_string(),
                error,
            });
            return Ok(Rest::Busy);
        }
    };
    let worked = match view {
        Ok(view) => {
            let wanted = enrol::wanted(&applicants, &findings);
            let settled = enrol::settled(&applicants, &wanted);
            let findings = &mut findings;
            let mut turn = apply::Turn {
                context,
                leading,
                registry,
                site: &site,
                chain: &chain,
                wanted: &wanted,
                settled: &settled,
                memory,
                report,
                findings,
            };
            turn.work(view).await?
        }
        Err(freeze) => {
            report.freeze(freeze);
            Rest::Busy
        }
    };
    context.findings.replace(&registry.name_any(), findings);
    Ok(if enrolled || retired {
        Rest::Now
    } else {
        worked
    })
}
