//! Carries out what a pass decided, in the order that a crash at any point leaves safe: a record
//! before the entry that waits for it, stored bytes before sent ones.
//!
//! It decides nothing but to stop: after a conflict, everything known is old.

mod ledger;
mod records;

use std::time::Instant;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tracing::{debug, info};

pub(super) use ledger::LedgerPass;
pub(super) use records::{retire, write_records};

use super::state::RegistryState;
use super::status::{self, Report};
use crate::api::IdentityRegistry;
use crate::api::condition::Observation;
use crate::cluster::Error as ClusterError;
use crate::leader::Leading;
use crate::metrics::RegistrationOutcome;
use crate::reconcile::{Context, Error};
use crate::telemetry::causes;

/// Writes what people are told, if it differs from what stands.
pub(super) async fn status(
    context: &Context,
    leading: &Leading,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
    report: Report,
) -> Result<(), Error> {
    count_freeze(context, registry, state, &report);
    let wanted = |registry: &IdentityRegistry| {
        let before = registry.status.clone().unwrap_or_default();
        let observation = Observation {
            generation: registry.metadata.generation,
            before: &before.conditions,
            now: Timestamp::now(),
        };
        (status::status(registry, &report, &observation), before)
    };
    let age = state.status_written.map(|written| written.elapsed());
    let (planned, standing) = wanted(registry);
    if !status::must_write(&standing, &planned, age) {
        return Ok(());
    }
    // The copy may be a moment old: what is written is decided again on what stands.
    let Some(mut fresh) = context
        .reader
        .cluster_wide::<IdentityRegistry>(&registry.name_any())
        .await?
    else {
        return Ok(());
    };
    let (planned, standing) = wanted(&fresh);
    state.status_written = Some(Instant::now());
    if standing == planned {
        return Ok(());
    }
    let notes = status::notes(&standing, &planned);
    fresh.status = Some(planned);
    match context
        .writer
        .replace_registry_status(leading, &fresh)
        .await
    {
        Ok(_) => {}
        // Somebody else tells the same, or the next pass does.
        Err(ClusterError::Conflict) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for note in notes {
        info!(reason = note.reason, "{}", note.message);
        if let Err(error) = context
            .writer
            .publish(leading, &fresh.object_ref(&()), &note)
            .await
        {
            debug!(error = %causes(&error), "the event was not published");
        }
    }
    Ok(())
}

/// Counts a freeze once, when it begins.
fn count_freeze(
    context: &Context,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
    report: &Report,
) {
    let reason = report.frozen.as_ref().map(crate::ledger::Freeze::reason);
    if reason.is_some() && reason != state.frozen {
        context
            .metrics
            .chain
            .registration(registry.spec.chain_id, RegistrationOutcome::Frozen);
    }
    state.frozen = reason;
}
