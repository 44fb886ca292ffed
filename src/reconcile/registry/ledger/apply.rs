//! Carries out what ledger, entries and records need, in an order that a crash at any point leaves
//! safe: a record before the entry that waits for it.
//!
//! It decides nothing but what to report. Each item's failure is its own, except that a lost
//! compare-and-swap on the ledger makes everything that was read stale.

use tracing::{info, warn};

use super::plan::{self, EntrySteps};
use super::read::ReadyLedger;
use super::{Done, LedgerInput};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, LedgerMarker, Phase,
    SignerLedgerSpec,
};
use crate::chain::RpcError;
use crate::cluster;
use crate::ledger::ReadLedger;
use crate::ledger::evidence::AdoptionTarget;
use crate::ledger::money::format_native;
use crate::ledger::protocol::{AdoptionRefused, LedgerStep, PendingStep, without_entries};
use crate::metrics::RegistrationOutcome;
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::outcome::Obstacle;
use crate::reconcile::registry::state::RegistryState;

/// Maximum number of markers in a registry's status; the schema's limit.
const MAX_MARKERS: usize = 64;

/// Does what a ledger as a whole needs.
pub(super) async fn prepare(
    input: &LedgerInput<'_>,
    (step, held): (LedgerStep, Option<ReadLedger>),
) -> Done {
    let store = &input.context.store;
    let written = match (step, held) {
        (LedgerStep::Create(spec), _) => {
            info!(chain = spec.chain_id, signer = %spec.signer, "creating the signer's ledger");
            match store.create_ledger(input.leading, spec).await {
                Ok(_) | Err(cluster::Error::Exists) => Ok(()),
                Err(error) => Err(error),
            }
        }
        (LedgerStep::WriteMarker, Some(held)) => write_marker(input, &held).await,
        (LedgerStep::LowerFromBlock(spec), Some(held)) => {
            info!(signer = %spec.signer, from_block = spec.from_block, "reading logs from an earlier block");
            store
                .replace_ledger(input.leading, held, spec)
                .await
                .map(|_| ())
        }
        (LedgerStep::AwaitPremise(premise), _) => return Done::obstacle(premise),
        (LedgerStep::Activate(spec), Some(held)) => {
            info!(chain = spec.chain_id, signer = %spec.signer, next = %spec.next, "activating the signer's ledger");
            store
                .replace_ledger(input.leading, held, spec)
                .await
                .map(|_| ())
        }
        (
            LedgerStep::Wait
            | LedgerStep::Ready
            | LedgerStep::WriteMarker
            | LedgerStep::LowerFromBlock(_)
            | LedgerStep::Activate(_),
            _,
        ) => {
            let waiting = "waiting until earlier transactions of the signer are final";
            return Done::obstacle(Obstacle::Settling(waiting.to_owned()));
        }
    };
    match written {
        Ok(()) => Done {
            wrote: true,
            ..Done::obstacle(Obstacle::Settling(
                "the signer's ledger is being created".to_owned(),
            ))
        },
        Err(error) => Done::ended(error),
    }
}

/// Writes the ledger's uid to the registry's status, unless it names another one.
async fn write_marker(input: &LedgerInput<'_>, held: &ReadLedger) -> Result<(), cluster::Error> {
    let reader = &input.context.reader;
    let Some(mut registry) = reader
        .cluster_wide::<IdentityRegistry>(&input.target.name)
        .await?
    else {
        return Ok(());
    };
    let signer = format!("{:#x}", held.spec().signer);
    let status = registry.status.get_or_insert_default();
    if status.ledgers.iter().any(|marker| marker.signer == signer)
        || status.ledgers.len() >= MAX_MARKERS
    {
        return Ok(());
    }
    status.ledgers.push(LedgerMarker {
        signer,
        uid: held.uid().to_owned(),
    });
    input
        .context
        .writer
        .replace_registry_status(input.leading, &registry)
        .await?;
    Ok(())
}

/// Writes what became of entries to their records.
pub(super) async fn record(
    input: &LedgerInput<'_>,
    steps: &EntrySteps,
    ready: &ReadyLedger,
    state: &mut RegistryState,
) -> Done {
    let mut done = Done::default();
    let finished = steps.finish.iter().map(|step| (step, true));
    // No decision waits for a phase that was noted, so it is no reason for another pass.
    let noted = steps.note.iter().map(|step| (step, false));
    for ((key, spec), is_awaited) in finished.chain(noted) {
        if done.end.is_some() {
            return done;
        }
        let Some(record) = ready.records.by_key.get(key) else {
            continue;
        };
        let (written, mut one) = replace_record(input, record, spec.clone()).await;
        one.wrote &= is_awaited;
        done = done.and(one);
        if written.is_some() {
            report_outcome(input, spec, state);
        }
    }
    done
}

/// Logs and counts the outcome of a registration, once it is in the record.
fn report_outcome(
    input: &LedgerInput<'_>,
    spec: &AgentRegistrationSpec,
    state: &mut RegistryState,
) {
    let key = spec.key;
    let spent = format_native(spec.spent_wei.unwrap_or_default().0);
    match (&spec.result, spec.phase) {
        (Some(result), _) => {
            info!(%key, agent = result.agent_id, spent, "registration finalized");
            count(input, RegistrationOutcome::Registered);
            state.uncounted.insert(key);
            if let Some(since) = state.first_sent.remove(&key) {
                let duration = since.elapsed().unwrap_or_default();
                input.context.metrics.chain.confirmed(duration);
            }
        }
        (None, Phase::Reverted) => warn!(%key, spent, "registration reverted"),
        (None, _) => {}
    }
}

/// Replaces a record. A refused write is the record's own problem; only a lost lease or an API
/// server that does not answer ends the pass.
pub(super) async fn replace_record(
    input: &LedgerInput<'_>,
    record: &AgentRegistration,
    spec: AgentRegistrationSpec,
) -> (Option<AgentRegistration>, Done) {
    let key = spec.key;
    match input
        .context
        .store
        .replace_record(input.leading, record, spec)
        .await
    {
        Ok(stored) => {
            let done = Done {
                wrote: true,
                ..Done::default()
            };
            (Some(stored), done)
        }
        Err(error) => (None, refused_write(input, key, error)),
    }
}

/// What a failed write of one record means.
pub(super) fn refused_write(input: &LedgerInput<'_>, key: Key, error: cluster::Error) -> Done {
    match error {
        cluster::Error::Conflict => Done {
            unfinished: true,
            ..Done::default()
        },
        error if error.is_rejection() => {
            let why = error.message();
            warn!(%key, why, "the API server rejected the record");
            Done {
                issues: input.issues_of(key, &OfferIssue::RecordRefused { why }),
                ..Done::default()
            }
        }
        error => Done::ended(error),
    }
}

/// A question about one key was not answered.
pub(super) fn unanswered(input: &LedgerInput<'_>, key: Key, error: &RpcError) -> Done {
    let issue = OfferIssue::RpcFailed {
        why: format!("{}: {error}", input.chain.endpoint),
    };
    Done {
        issues: input.issues_of(key, &issue),
        unfinished: error.is_endpoint_fault(),
        ..Done::default()
    }
}

/// A question that spending depends on was not answered.
pub(super) fn rpc_obstacle(input: &LedgerInput<'_>, error: RpcError) -> Done {
    Done {
        unfinished: true,
        ..Done::obstacle(Obstacle::Rpc {
            endpoint: input.chain.endpoint.to_string(),
            error,
        })
    }
}

/// Settles one record that has neither outcome nor entry.
pub(super) async fn settle(
    input: &LedgerInput<'_>,
    record: &AgentRegistration,
    step: PendingStep,
    target: Option<&AdoptionTarget>,
) -> Done {
    match step {
        PendingStep::Adopt(spec) => {
            if let Some(owner) = target.and_then(|target| target.owner) {
                input.context.adopted_owners.insert(spec.key, owner);
            }
            let result = spec.result.as_ref();
            let agent = result.map(|result| result.agent_id.clone());
            info!(key = %spec.key, agent, "adopting an existing agent");
            let (written, done) = replace_record(input, record, *spec).await;
            if written.is_some() {
                count(input, RegistrationOutcome::Adopted);
            }
            done
        }
        PendingStep::RefuseAdoption(refused) => {
            let is_unknown = matches!(refused, AdoptionRefused::AgentNotFound { .. });
            Done {
                issues: input.issues_of(record.spec.key, &OfferIssue::AdoptionRefused(refused)),
                awaited_block: (is_unknown && is_newer_than_final(input, record))
                    .then_some(input.chain.latest.number),
                ..Done::default()
            }
        }
        PendingStep::Refuse(freeze) => Done::obstacle(freeze),
        PendingStep::HoldBack(orphan) => {
            let issue = OfferIssue::RegisteredByOtherAccount {
                agent_id: orphan.agent_id,
                account: orphan.owner,
            };
            Done {
                issues: input.issues_of(record.spec.key, &issue),
                ..Done::default()
            }
        }
        PendingStep::AwaitIndex | PendingStep::Allocate | PendingStep::Wait => Done::default(),
    }
}

/// Whether the record is newer than the last final block: an agent that it adopts may be in a block
/// that is not final yet.
fn is_newer_than_final(input: &LedgerInput<'_>, record: &AgentRegistration) -> bool {
    let created = record.metadata.creation_timestamp.as_ref();
    let finalized = i64::try_from(input.chain.finalized.timestamp).unwrap_or(i64::MAX);
    created.is_some_and(|created| created.0.as_second() >= finalized)
}

/// Removes entries whose records have their outcome.
pub(super) async fn prune(input: &LedgerInput<'_>, steps: &EntrySteps, ready: ReadyLedger) -> Done {
    let (nonces, blocks) = plan::pruned_nonces(steps);
    let after = without_entries(ready.held.spec(), &nonces, &blocks, &ready.account_state);
    replace_ledger(input, ready.held, after).await
}

async fn replace_ledger(
    input: &LedgerInput<'_>,
    held: ReadLedger,
    after: SignerLedgerSpec,
) -> Done {
    let store = &input.context.store;
    match store.replace_ledger(input.leading, held, after).await {
        Ok(_) => Done {
            wrote: true,
            ..Done::default()
        },
        Err(error) => Done::ended(error),
    }
}

/// Continues above the nonces that something else has used.
pub(super) async fn raise_next(
    input: &LedgerInput<'_>,
    ready: ReadyLedger,
    raised: SignerLedgerSpec,
) -> Done {
    let (signer, from, to) = (raised.signer, ready.held.spec().next, raised.next);
    warn!(%signer, %from, %to, "something else has used these nonces of the signer: continuing above them");
    replace_ledger(input, ready.held, raised).await
}

pub(super) fn count(input: &LedgerInput<'_>, outcome: RegistrationOutcome) {
    input
        .context
        .metrics
        .chain
        .registration(input.target.contract.chain_id, outcome);
}
