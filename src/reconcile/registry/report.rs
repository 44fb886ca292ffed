//! Writes the status of a registry, if it differs from what is stored, and publishes Events.

use std::time::Instant;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tracing::{debug, info};

use super::outcome::{Check, Checks, LedgerOutcome, Numbers, Obstacle};
use super::state::RegistryState;
use super::status::{self, Findings};
use crate::api::condition::{self, Observation};
use crate::api::{ConditionStatus, IdentityRegistry};
use crate::cluster::Error as ClusterError;
use crate::leader::Leading;
use crate::ledger::money::format_native;
use crate::metrics::{ChainReading, RegistrationOutcome};
use crate::reconcile::{Context, Error};
use crate::telemetry::causes;

/// Writes the status that follows from a pass over `registry`.
pub(super) async fn write(
    context: &Context,
    leading: &Leading,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
    findings: &Findings,
) -> Result<(), Error> {
    count_freeze(context, registry, state, findings);
    let planned = |current: &IdentityRegistry| {
        let before = current.status.clone().unwrap_or_default();
        let observation = Observation {
            // The spec that was checked, which an edit may have replaced since.
            generation: registry.metadata.generation,
            before: &before.conditions,
            now: Timestamp::now(),
        };
        (status::status(current, findings, &observation), before)
    };
    let age = state.status_written.map(|written| written.elapsed());
    let (wanted, stored) = planned(registry);
    if !status::must_write(&stored, &wanted, age) {
        return Ok(());
    }
    // The copy may be a moment old: what is written is decided on what is stored.
    let Some(mut fresh) = context
        .reader
        .cluster_wide::<IdentityRegistry>(&registry.name_any())
        .await?
    else {
        return Ok(());
    };
    let (wanted, stored) = planned(&fresh);
    state.status_written = Some(Instant::now());
    state.status_generation = registry.metadata.generation;
    if stored == wanted {
        return Ok(());
    }
    let events = status::events(&stored, &wanted);
    fresh.status = Some(wanted);
    match context
        .writer
        .replace_registry_status(leading, &fresh)
        .await
    {
        Ok(_) => {}
        // Another replica reports the same, or the next pass does.
        Err(ClusterError::Conflict) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for event in events {
        info!(reason = event.reason, "{}", event.message);
        if let Err(error) = context
            .writer
            .publish(leading, &fresh.object_ref(&()), &event)
            .await
        {
            debug!(error = %causes(&error), "failed to publish event");
        }
    }
    Ok(())
}

/// Keeps RpcHealthy as it is stored if it would change too soon after it last did.
pub(super) fn damp(registry: &IdentityRegistry, state: &mut RegistryState, checks: &mut Checks) {
    let stored = registry
        .status
        .as_ref()
        .and_then(|status| condition::find(&status.conditions, "RpcHealthy"));
    let to_healthy = match (&checks.rpc, stored.map(|stored| stored.status)) {
        (Check::Passed { .. }, Some(ConditionStatus::False)) => true,
        (Check::Failed(_), Some(ConditionStatus::True)) => false,
        _ => return,
    };
    if !state.may_flip(to_healthy) {
        checks.rpc = Check::Skipped;
    }
}

/// Exports what a pass counted.
pub(super) fn observe(
    context: &Context,
    registry: &IdentityRegistry,
    state: &RegistryState,
    numbers: &Numbers,
) {
    let (Some(head_timestamp), Some(pending)) = (state.head_timestamp(), numbers.in_flight) else {
        return;
    };
    let native = |wei| format_native(wei).parse().unwrap_or_default();
    let reading = ChainReading {
        head_timestamp,
        balance: numbers.balance.map_or(0.0, |(_, balance)| native(balance)),
        spent: numbers.spent.map(native),
        pending,
        oldest_pending: numbers
            .oldest_signed
            .map(|signed| signed.as_second() as f64),
    };
    let chain_id = registry.spec.chain_id;
    context.metrics.chain.observe(chain_id, reading);
}

/// Counts a freeze once, when it begins.
fn count_freeze(
    context: &Context,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
    findings: &Findings,
) {
    let reason = match &findings.ledger {
        LedgerOutcome::Reached(Some(Obstacle::Freeze(freeze))) => Some(freeze.reason()),
        LedgerOutcome::Reached(_) => None,
        LedgerOutcome::NotReached | LedgerOutcome::Unmade { .. } => return,
    };
    if reason.is_some() && reason != state.frozen {
        context
            .metrics
            .chain
            .registration(registry.spec.chain_id, RegistrationOutcome::Frozen);
    }
    state.frozen = reason;
}
