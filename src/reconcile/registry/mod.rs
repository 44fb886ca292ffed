//! The registry loop: one pass over one IdentityRegistry. Only this loop writes records and
//! ledgers, signs, and sends.
//!
//! Read [`pass`] first. The order of its steps is part of the proof in [`crate::ledger::protocol`]:
//! 1. [`target`]: what the spec refers to: contract, endpoints, key, limits
//! 2. [`chain`]: the chain, through one endpoint, *before* any ledger
//! 3. [`records`]: the records that offers claim
//! 4. [`ledger`]: the ledger, *then* the records, then what both need
//! 5. [`status`]: conditions, numbers and Events, from what the steps found
//!
//! Each step returns what it found ([`outcome`]). A problem with one record, entry or offer is an
//! issue of that offer, and the pass continues. A pass never waits for the chain: it ends, and
//! [`schedule`] says when the next one starts and how much it reads.

pub(crate) mod adoption;
pub(crate) mod blocked;
mod chain;
mod endpoints;
mod index;
pub(crate) mod ledger;
pub(crate) mod outcome;
pub(crate) mod records;
mod report;
pub(crate) mod schedule;
mod state;
pub(crate) mod status;
mod target;

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tracing::warn;

pub(crate) use state::{RegistryState, RegistryStates};

use self::adoption::Adoptions;
use self::ledger::{LedgerInput, LedgerWork};
use self::outcome::{Checks, Issues, LedgerOutcome};
use self::records::{
    KnownRecord, OfferClaim, RecordDefaults, RecordInputs, RecordPlan, RecordWork,
};
use self::schedule::{Activity, Depth};
use self::status::Findings;
use self::target::RegistryTarget;
use super::{Context, Error};
use crate::api::{IdentityRegistry, Key, Suspend};
use crate::cluster::{self, MaybeDecoded};
use crate::leader::Leading;

/// Everything that one pass found.
#[derive(Debug, Default)]
struct Pass {
    findings: Findings,
    /// Issues of single offers; `None` if the pass ended before it looked at offers.
    issues: Option<Issues>,
    activity: Activity,
    wrote: bool,
    failure: Option<cluster::Error>,
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
    let exists = |name: &str| context.cache.registry(name).is_some();
    context.registry_states.retain(exists);
    let state = context.registry_states.of(&registry.name_any());
    let mut state = state.lock().await;
    let mut pass = pass(context, leading, registry, &mut state).await;
    report::damp(registry, &mut state, &mut pass.findings.checks);
    if let Some(issues) = pass.issues {
        context.issues.replace(&registry.name_any(), issues);
    }
    report::observe(context, registry, &state, &pass.findings.numbers);
    report::write(context, leading, registry, &mut state, &pass.findings).await?;
    state.activity = state.after(pass.activity);
    if let Some(error) = pass.failure {
        return Err(error.into());
    }
    let retry_after = state.retry_after.take();
    Ok(Action::requeue(schedule::delay(
        state.activity,
        pass.wrote,
        state.block_time(),
        retry_after,
    )))
}

/// One pass.
async fn pass(
    context: &Context,
    leading: &Leading,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
) -> Pass {
    let (checks, target) = target::read(context, registry, state).await;
    let Some(target) = target else {
        return Pass::ended(checks, Activity::Unresolved);
    };
    let claims = records::claims(&context.cache, registry, Timestamp::now());
    let depth = depth(context, registry, &target, &claims.offers, state);
    let (checks, answer) = chain::read(&target, checks, state, depth).await;
    let Some(contract) = answer.contract else {
        return Pass::ended(checks, Activity::Failing { passes: 1 });
    };
    if target.suspend == Suspend::All {
        return Pass::ended(checks, Activity::Idle);
    }
    let adoptions = Adoptions {
        registry,
        reservations: claims.reservations.clone(),
    };
    let defaults = target.record_defaults(contract.code_hash);
    let plan = plan_records(context, defaults, &adoptions, &claims.offers);
    let written = records::write(context, leading, &target, &defaults, plan, state).await;
    let (Some(chain), None) = (answer.snapshot, &written.failure) else {
        return Pass::without_ledger(checks, written, state, answer.failed);
    };
    let wanted = records::wanted(&claims.offers, &written.issues);
    let allocatable = records::allocatable(&claims.offers, &wanted);
    let waiting = waiting(context, &target, &allocatable);
    let is_stopped = target.is_stopped(&context.cache);
    let input = LedgerInput {
        context,
        leading,
        registry,
        target: &target,
        chain: &chain,
        claims: &claims.offers,
        adoptions: &adoptions,
        wanted: &wanted,
        allocatable: &allocatable,
        needs_census: !waiting.is_empty(),
    };
    let worked = ledger::work(&input, state).await;
    state.is_stopped = is_stopped;
    state.ledger_worked(target.generation, waiting, worked.issues.clone());
    let checks = endpoints::after(checks, &chain.endpoint);
    Pass::worked(checks, written, worked)
}

fn plan_records(
    context: &Context,
    defaults: RecordDefaults,
    adoptions: &Adoptions<'_>,
    claims: &[OfferClaim],
) -> RecordPlan {
    let inputs = RecordInputs {
        defaults,
        adoptions,
        records: &context.cache.records(),
    };
    records::plan(inputs, claims, |key| {
        KnownRecord::cached(&context.cache, key)
    })
}

/// How much of the chain this pass reads.
fn depth(
    context: &Context,
    registry: &IdentityRegistry,
    target: &RegistryTarget,
    claims: &[OfferClaim],
    state: &RegistryState,
) -> Depth {
    let wanted = records::wanted(claims, &Issues::new());
    let allocatable = records::allocatable(claims, &wanted);
    let changed = state.generation != target.generation
        || target.is_stopped(&context.cache) != state.is_stopped
        || status::has_failed_side(registry)
        || (state.activity == Activity::Idle && !state.uncounted.is_empty())
        || waiting(context, target, &allocatable) != state.waiting;
    let activity = if changed {
        Activity::Active
    } else {
        state.activity
    };
    schedule::depth(activity, state.reading_ages())
}

/// Keys that wait for a nonce, an adoption or another signer, as far as the cache knows.
fn waiting(
    context: &Context,
    target: &RegistryTarget,
    allocatable: &BTreeSet<Key>,
) -> BTreeSet<Key> {
    let records = context.cache.records();
    let open = records
        .iter()
        .filter(|record| target.has(record) && record.is_open());
    open.filter(|record| {
        record.adopt.is_some()
            || record.moved_from.is_some()
            || (allocatable.contains(&record.key) && record.live_attempt().is_none())
    })
    .map(|record| record.key)
    .collect()
}

impl Pass {
    /// A pass that ended before it looked at offers.
    fn ended(checks: Checks, activity: Activity) -> Self {
        let findings = Findings {
            checks,
            ..Findings::default()
        };
        Self {
            findings,
            activity,
            ..Self::default()
        }
    }

    /// A pass that had no reason to look at the ledger, or could not.
    fn without_ledger(
        checks: Checks,
        written: RecordWork,
        state: &RegistryState,
        failed: bool,
    ) -> Self {
        let activity = if failed {
            Activity::Failing { passes: 1 }
        } else {
            state.activity
        };
        let mut issues = state.ledger_issues.clone();
        issues.extend(written.issues);
        let ledger = written
            .failure
            .as_ref()
            .map_or(LedgerOutcome::NotReached, LedgerOutcome::after);
        Self {
            findings: Findings {
                checks,
                ledger,
                ..Findings::default()
            },
            issues: Some(issues),
            activity: if written.wrote {
                Activity::Active
            } else {
                activity
            },
            wrote: written.wrote,
            failure: written.failure,
        }
    }

    fn worked(checks: Checks, written: RecordWork, worked: LedgerWork) -> Self {
        let mut issues = written.issues;
        issues.extend(worked.issues);
        Self {
            findings: Findings {
                checks,
                ledger: worked.outcome,
                numbers: worked.numbers,
            },
            issues: Some(issues),
            activity: worked.activity,
            wrote: written.wrote || worked.wrote,
            failure: worked.failure,
        }
    }
}
