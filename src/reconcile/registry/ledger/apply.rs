//! Carries out what ledger, entries and records need, in an order that a crash at any point leaves
//! safe: a record before the entry that waits for it, stored bytes before sent ones.
//!
//! It decides nothing but what to report. Each item's failure is its own, except that a lost
//! compare-and-swap on the ledger makes everything that was read stale.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tracing::{info, warn};

use super::filler::sign_or_fill;
use super::plan::{self, Commitments, EntrySteps, SpendStep};
use super::prices::{NoQuote, Prices, Quote};
use super::read::{self, ReadyLedger};
use super::{Done, LedgerInput, for_everyone};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Attempt, IdentityRegistry, Key, LedgerMarker, Nonce,
    Phase, SignerLedgerSpec,
};
use crate::chain::RpcError;
use crate::chain::refusal::Refusal;
use crate::chain::rpc::SendOutcome;
use crate::cluster;
use crate::ledger::evidence::{AdoptionTarget, LedgerSnapshot, Premises, UnknownPremise};
use crate::ledger::money::format_native;
use crate::ledger::protocol::{
    AdoptionRefused, Allocation, AllocationBounds, AllocationRequest, EntryCosts, LedgerStep,
    PendingStep, Reservation, allocate as allocate_nonces, check_attempts, payer, with_attempt,
    without_entries,
};
use crate::ledger::{BoundNonce, ReadLedger, sender};
use crate::metrics::RegistrationOutcome;
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::index::IndexState;
use crate::reconcile::registry::outcome::Obstacle;
use crate::reconcile::registry::records::first_nonce_obstacle;
use crate::reconcile::registry::state::{RegistryState, SendAnswer};
use crate::registration::document::agent_uri;

/// Maximum number of markers in a registry's status; the schema's limit.
const MAX_MARKERS: usize = 64;
/// Blocks after which a transaction that was sent and is in no block is reported.
const INCLUSION_BLOCKS: u64 = 20;

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
fn refused_write(input: &LedgerInput<'_>, key: Key, error: cluster::Error) -> Done {
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

/// Signs and sends what entries need, in the order of their nonces. Without `spent`, nothing is
/// signed: the limits cannot be checked. Nothing is signed above a nonce that nothing could be signed
/// for, and no filler: it would not be included, and its price would be out of date once it could be.
pub(super) async fn spend(
    input: &LedgerInput<'_>,
    held: &ReadLedger,
    spends: &BTreeMap<Nonce, SpendStep>,
    records: &BTreeMap<Key, AgentRegistration>,
    (spent, prices): (Option<&SpentToday>, &mut Prices),
    state: &mut RegistryState,
) -> Done {
    let mut signing = Signing {
        held,
        records,
        spent,
        prices,
        commitments: None,
    };
    state.fillers.retain(held);
    let mut done = Done::default();
    // The lowest nonce that nothing could be signed for: nothing above it is included.
    let mut unsigned: Option<(Nonce, Key)> = None;
    for (nonce, spend) in spends {
        let Some(bound) = held.bound_nonce(*nonce) else {
            continue;
        };
        let Some(record) = records.get(&bound.key()) else {
            continue;
        };
        // The switch may have been turned on since the pass began.
        if input.is_suspended() || done.end.is_some() {
            return done;
        }
        // An endpoint that has become unhealthy ends the sending; the next pass chooses another.
        if !input.chain.endpoint.health().is_healthy() && done.unfinished {
            return done;
        }
        done = done.and(match spend {
            SpendStep::Send(attempt) => send(input, &bound, &record.spec, attempt, state).await,
            SpendStep::Sign => match unsigned {
                Some((nonce, key)) => Done {
                    issues: input.issues_of(bound.key(), &OfferIssue::NonceUnsigned { nonce, key }),
                    ..Done::default()
                },
                None => {
                    let (done, is_sent) =
                        sign_or_fill(input, &bound, record, &mut signing, state).await;
                    if is_sent || done.end.is_some() {
                        done
                    } else {
                        let (nonce, key) = (*nonce, bound.key());
                        unsigned = Some((nonce, key));
                        done.and(Done::obstacle(Obstacle::NonceUnsigned { nonce, key }))
                    }
                }
            },
            SpendStep::Replace {
                attempt,
                sent_recently,
            } => {
                let (replaced, signed) =
                    sign(input, &bound, record, Some(attempt), &mut signing, state).await;
                if signed == Signed::Stored || *sent_recently || replaced.end.is_some() {
                    replaced
                } else {
                    replaced.and(send(input, &bound, &record.spec, attempt, state).await)
                }
            }
        });
    }
    done
}

/// What signing needs to know, and keeps while one transaction after the other is signed.
pub(super) struct Signing<'a> {
    held: &'a ReadLedger,
    records: &'a BTreeMap<Key, AgentRegistration>,
    spent: Option<&'a SpentToday>,
    prices: &'a mut Prices,
    /// What the account has to pay, once a price is known.
    commitments: Option<Commitments>,
}

impl Signing<'_> {
    /// What the account has to pay; `None` if that is not known.
    pub(super) fn commitments(
        &mut self,
        input: &LedgerInput<'_>,
        quote: &Quote,
    ) -> Option<&mut Commitments> {
        if self.commitments.is_none() {
            let (account, spent) = (input.chain.account.as_ref()?, self.spent?);
            let latest = (account.account_state.counts.latest, account.balance);
            // What is not signed costs nothing yet: the lower nonce comes first.
            let costs = EntryCosts {
                rollup_fee: quote.takes.rollup_fee,
                unsigned: None,
            };
            let ledger = self.held.spec();
            let commitments = Commitments::new(ledger, latest, spent.all(), self.records, costs);
            self.commitments = Some(commitments);
        }
        self.commitments.as_mut()
    }
}

/// What became of signing for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    Stored,
    Nothing,
    /// Nothing, because of this agent alone.
    Refused(OfferIssue),
}

impl From<OfferIssue> for Signed {
    fn from(issue: OfferIssue) -> Self {
        if issue.concerns_one_agent() {
            Self::Refused(issue)
        } else {
            Self::Nothing
        }
    }
}

/// Signs for an entry, stores what was signed, and sends it. `replaced` is the attempt that the
/// transaction replaces.
pub(super) async fn sign(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    record: &AgentRegistration,
    replaced: Option<&Attempt>,
    signing: &mut Signing<'_>,
    state: &mut RegistryState,
) -> (Done, Signed) {
    let (Some(signer), Some(_)) = (&input.target.signer, signing.spent) else {
        return (Done::default(), Signed::Nothing);
    };
    let frozen = record
        .spec
        .agent_uri
        .clone()
        .filter(|_| record.spec.calldata_hash.is_some());
    let uri = frozen.unwrap_or_else(|| agent_uri(input.registry, bound.key()));
    let quote = match signing.prices.quote(input, &uri, replaced).await {
        Ok(Some(quote)) => quote,
        Ok(None) => return (Done::default(), Signed::Nothing),
        Err(NoQuote::Issue(issue)) => {
            let done = short(input, bound, issue.clone(), replaced.is_some());
            return (done, issue.into());
        }
        Err(NoQuote::Rpc(error)) => {
            return (unanswered(input, bound.key(), &error), Signed::Nothing);
        }
    };
    if let Err(shortage) = check_attempts(&record.spec) {
        let issue = OfferIssue::from(shortage);
        let done = short(input, bound, issue.clone(), replaced.is_some());
        return (done, issue.into());
    }
    let Some(commitments) = signing.commitments(input, &quote) else {
        return (Done::default(), Signed::Nothing);
    };
    // Limits and prices may have changed since the nonce was allocated.
    let reservation = Reservation {
        nonce: bound.nonce(),
        amount: quote.takes.worst_cost(quote.fees),
        namespace: payer(&record.spec).map(str::to_owned),
    };
    let mut budget = commitments.budget_of(bound.nonce());
    let (limits, namespace) = (&input.target.limits, reservation.namespace.as_deref());
    if let Err(shortage) = budget.reserve(limits, namespace, reservation.amount) {
        let issue = OfferIssue::from(shortage);
        let done = short(input, bound, issue.clone(), replaced.is_some());
        return (done, issue.into());
    }
    let signed = match sender::sign(
        signer,
        bound,
        &record.spec,
        &uri,
        quote.takes.gas,
        quote.fees,
    ) {
        Ok(signed) => signed,
        Err(error) => return (mismatch(input, bound, &error), Signed::Nothing),
    };
    commitments.reserved.insert(bound.nonce(), reservation);
    let attempt = Attempt {
        signed_at: Some(Timestamp::now().to_string()),
        ..signed.attempt
    };
    let spec = with_attempt(
        &record.spec,
        attempt.clone(),
        signed.calldata_hash,
        &uri,
        state
            .indexes
            .by_account
            .get(&bound.signer())
            .and_then(IndexState::proven_to),
    );
    let store = &input.context.store;
    let stored = match store.replace_record(input.leading, record, spec).await {
        Ok(stored) => stored,
        Err(error) => {
            let why = error.message();
            let signed = if error.is_rejection() {
                OfferIssue::RecordRefused { why }.into()
            } else {
                Signed::Nothing
            };
            return (refused_write(input, bound.key(), error), signed);
        }
    };
    let done = Done {
        wrote: true,
        ..Done::default()
    };
    if let Some(replaced) = replaced {
        let (key, nonce) = (bound.key(), bound.nonce());
        info!(%key, %nonce, replaced = %replaced.hash, transaction = %attempt.hash, "replacing the transaction with higher fees");
    }
    count(input, RegistrationOutcome::Signed);
    let sent = send(input, bound, &stored.spec, &attempt, state).await;
    (done.and(sent), Signed::Stored)
}

/// A registration cannot be paid for, or would revert. If it was signed before, it keeps its nonce from
/// being used.
fn short(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    issue: OfferIssue,
    is_replacement: bool,
) -> Done {
    let (key, nonce) = (bound.key(), bound.nonce());
    // Nothing above the nonce is included before it.
    let (concerned, obstacle) = match issue {
        OfferIssue::Shortage(shortage) if shortage.affects_every_namespace() => {
            let concerned = if is_replacement {
                waiting_keys(input)
            } else {
                vec![key]
            };
            (concerned, Some(Obstacle::Shortage(shortage)))
        }
        OfferIssue::Shortage(_) if is_replacement => {
            (vec![key], Some(Obstacle::NonceUnsigned { nonce, key }))
        }
        _ => (vec![key], None),
    };
    let issues = concerned
        .into_iter()
        .flat_map(|key| input.issues_of(key, &issue));
    Done {
        issues: issues.collect(),
        obstacles: obstacle.into_iter().collect(),
        ..Done::default()
    }
}

/// Keys of this registry that wait for their registration by the signer, as far as the cache knows.
pub(super) fn waiting_keys(input: &LedgerInput<'_>) -> Vec<Key> {
    let own = input.target.signer.as_ref().map(|signer| signer.address());
    let records = input.context.cache.records();
    let open = records.iter().filter(|record| {
        let is_own = record.signer.is_some() && record.signer == own;
        is_own && input.target.has(record) && record.is_open() && record.adopt.is_none()
    });
    open.map(|record| record.key).collect()
}

/// Sends stored bytes, and reports what the endpoint said.
async fn send(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
    attempt: &Attempt,
    state: &mut RegistryState,
) -> Done {
    let chain = input.chain;
    let sent = match sender::send(&chain.endpoint, input.leading, bound, record, attempt).await {
        Ok(sent) => sent,
        Err(sender::Error::NotLeading(error)) => return Done::ended(error.into()),
        Err(error) => return mismatch(input, bound, &error),
    };
    let (key, nonce) = (bound.key(), bound.nonce());
    let answer = match sent {
        SendOutcome::Accepted => {
            info!(%key, %nonce, transaction = %attempt.hash, "transaction sent");
            count(input, RegistrationOutcome::Sent);
            SendAnswer::Accepted
        }
        // The chain's evidence says what used the nonce.
        SendOutcome::NonceUsed => SendAnswer::Accepted,
        SendOutcome::Refused { refusal, message } => {
            warn!(%key, %nonce, message, "the endpoint refuses the transaction");
            match refusal {
                Refusal::InsufficientFunds => SendAnswer::Underfunded(message),
                _ => SendAnswer::Refused(message),
            }
        }
        SendOutcome::Unanswered(error) => {
            warn!(%key, %nonce, %error, "the endpoint did not answer whether it accepts the transaction");
            SendAnswer::Unanswered(error.to_string())
        }
    };
    let unfinished = matches!(answer, SendAnswer::Unanswered(_));
    state.record_send(key, attempt.hash, chain.latest.number, answer);
    Done {
        unfinished,
        ..Done::default()
    }
}

/// What the last sends of unmined entries say: a transaction that the endpoint refuses, or that no
/// block includes.
pub(super) fn send_obstacles(
    input: &LedgerInput<'_>,
    ready: &ReadyLedger,
    state: &RegistryState,
) -> Done {
    let mut done = Done::default();
    let chain = input.chain;
    let endpoint = chain.endpoint.to_string();
    let latest = ready.account_state.counts.latest;
    for (nonce, entry) in ready.held.spec().entries.range(latest..) {
        let Some(record) = entry.key.and_then(|key| ready.records.by_key.get(&key)) else {
            continue;
        };
        let attempt = record
            .spec
            .attempts
            .iter()
            .rfind(|attempt| attempt.nonce == *nonce);
        let Some(send) = attempt.and_then(|attempt| state.sends.get(&attempt.hash)) else {
            continue;
        };
        let (key, nonce, endpoint) = (record.spec.key, *nonce, endpoint.clone());
        let blocks = chain.latest.number.saturating_sub(send.first_block);
        let (issue, obstacle) = match &send.answer {
            SendAnswer::Refused(message) => (
                OfferIssue::SendRefused {
                    words: message.clone(),
                },
                Obstacle::SendRefused {
                    endpoint,
                    key,
                    nonce,
                    message: message.clone(),
                },
            ),
            SendAnswer::Underfunded(message) => (
                OfferIssue::InsufficientFunds {
                    words: message.clone(),
                },
                Obstacle::InsufficientFunds {
                    endpoint,
                    key,
                    nonce,
                    message: message.clone(),
                },
            ),
            SendAnswer::Unanswered(message) => (
                OfferIssue::SendUnanswered {
                    words: message.clone(),
                },
                Obstacle::SendUnanswered {
                    endpoint,
                    key,
                    nonce,
                    message: message.clone(),
                },
            ),
            SendAnswer::Accepted if blocks >= INCLUSION_BLOCKS => (
                OfferIssue::NotIncluded {
                    blocks: INCLUSION_BLOCKS,
                },
                Obstacle::NotIncluded {
                    key,
                    nonce,
                    blocks: INCLUSION_BLOCKS,
                },
            ),
            SendAnswer::Accepted => continue,
        };
        done.issues.extend(input.issues_of(key, &issue));
        done.obstacles.push(obstacle);
    }
    done
}

/// What is stored contradicts itself: a person has to look.
fn mismatch(input: &LedgerInput<'_>, bound: &BoundNonce, error: &sender::Error) -> Done {
    let (key, nonce, why) = (bound.key(), bound.nonce(), error.to_string());
    let issue = OfferIssue::StoredTransactionMismatch {
        nonce,
        why: why.clone(),
    };
    Done {
        issues: input.issues_of(key, &issue),
        ..Done::obstacle(Obstacle::StoredTransactionMismatch { key, nonce, why })
    }
}

/// What counts against the limits of a day besides the ledger's own entries, and for which namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct SpentToday {
    /// Spent in the last 24 hours.
    spent: Vec<(Option<String>, u128)>,
    /// In flight from other signers of the registry.
    reserved: Vec<(Option<String>, u128)>,
}

impl SpentToday {
    fn total(&self) -> u128 {
        let amounts = self.spent.iter().map(|(_, amount)| *amount);
        amounts.fold(0, u128::saturating_add)
    }

    fn all(&self) -> Vec<(Option<String>, u128)> {
        [self.spent.clone(), self.reserved.clone()].concat()
    }
}

/// What allocation found out about money.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spending {
    pub(super) left: Option<u32>,
    pub(super) spent: Option<u128>,
}

/// Reads what was spent in the last 24 hours.
pub(super) async fn spent_today(
    input: &LedgerInput<'_>,
    ready: &ReadyLedger,
    state: &mut RegistryState,
) -> Result<SpentToday, Done> {
    let snapshot = ready.snapshot();
    let cached = input.context.cache.records();
    let records: Vec<&AgentRegistrationSpec> = match &ready.records.census {
        Some(_) => {
            let records = ready.records.by_key.values();
            records.map(|record| &record.spec).collect()
        }
        None => cached.iter().map(AsRef::as_ref).collect(),
    };
    let day = read::day_start(
        &input.chain.endpoint,
        (snapshot, &ready.accounts),
        input.chain.latest.timestamp,
        records.iter().copied(),
        &mut state.block_times,
    )
    .await
    .map_err(|error| rpc_obstacle(input, error))?;
    state.counted(records.iter().copied());
    let reserved = plan::reserved_by_others(snapshot, &ready.accounts, records.iter().copied());
    let mut spent = plan::spent(snapshot, &ready.accounts, records, day);
    // A record that cannot be read may be of this account, and of today.
    let unreadable = ready
        .records
        .census
        .as_ref()
        .map_or(0, |census| census.unreadable.len());
    let per_registration = input.target.limits.per_registration;
    spent.extend((0..unreadable).map(|_| (None, per_registration)));
    Ok(SpentToday { spent, reserved })
}

/// Allocates nonces to records that may get one, and signs and sends for them.
pub(super) async fn allocate(
    input: &LedgerInput<'_>,
    ready: ReadyLedger,
    pending: Vec<AgentRegistration>,
    unknown: Vec<UnknownPremise>,
    (spent, prices): (Option<&SpentToday>, &mut Prices),
    state: &mut RegistryState,
) -> (Done, Spending) {
    let (Some(account), Some(spent)) = (&input.chain.account, spent) else {
        return (Done::default(), Spending::default());
    };
    let spending = Spending {
        left: None,
        spent: Some(spent.total()),
    };
    let snapshot = ready.snapshot();
    let limits = &input.target.limits;
    if let Some(premise) = unknown.first().filter(|_| !pending.is_empty()) {
        return (Done::obstacle(premise.clone()), spending);
    }
    let quote = match quote_next(input, &pending, prices, state).await {
        Ok(quote) => quote,
        Err((done, left)) => return (done, Spending { left, ..spending }),
    };
    let latest = (snapshot.account.counts.latest, account.balance);
    let costs = EntryCosts {
        rollup_fee: quote.takes.rollup_fee,
        unsigned: Some(limits.per_registration),
    };
    let records = &ready.records.by_key;
    let budget = Commitments::new(snapshot.ledger, latest, spent.all(), records, costs).budget();
    let cost = quote.takes.worst_cost(quote.fees);
    let left = budget.registrations_left(limits, cost);
    let requests: Vec<AllocationRequest<'_>> = pending
        .iter()
        .map(|record| AllocationRequest {
            record: &record.spec,
            namespace: payer(&record.spec),
            cost,
        })
        .collect();
    let elsewhere = ready
        .records
        .census
        .as_ref()
        .map(|census| census.others.registering.clone())
        .unwrap_or_default();
    let bounds = AllocationBounds {
        window: input.context.settings.max_in_flight,
        spending: limits,
        budget,
        premises: &Premises { unknown },
        registering_elsewhere: &elsewhere,
        indexes: &ready.logs.indexes,
    };
    let (legacy, allocation) = allocate_unclaimed(input, snapshot, requests, &bounds, state).await;
    let allocated = u32::try_from(allocation.allocated.len()).unwrap_or(u32::MAX);
    let spending = Spending {
        left: Some(left.saturating_sub(allocated)),
        ..spending
    };
    if legacy.end.is_some() {
        return (legacy, spending);
    }
    let records = &ready.records.by_key;
    let bound = bind(
        input,
        ready.held,
        records,
        allocation,
        (spent, prices),
        state,
    )
    .await;
    (legacy.and(bound), spending)
}

/// What the next registration takes. If none waits, what the last one would have taken is good enough.
/// An error comes with the number of registrations that are left, if it is known.
async fn quote_next(
    input: &LedgerInput<'_>,
    pending: &[AgentRegistration],
    prices: &mut Prices,
    state: &mut RegistryState,
) -> Result<Quote, (Done, Option<u32>)> {
    if let Some(quote) = state.quoted.filter(|_| pending.is_empty()) {
        return Ok(quote);
    }
    let uri = typical_uri(input);
    match prices.quote(input, &uri, None).await {
        Ok(Some(quote)) => Ok(*state.quoted.insert(quote)),
        Ok(None) => Err((Done::default(), None)),
        Err(NoQuote::Rpc(_)) if pending.is_empty() => Err((Done::default(), None)),
        Err(NoQuote::Rpc(error)) => Err((rpc_obstacle(input, error), None)),
        Err(NoQuote::Issue(_)) if pending.is_empty() => Err((Done::default(), Some(0))),
        Err(NoQuote::Issue(issue)) => {
            let issues = pending
                .iter()
                .flat_map(|record| input.issues_of(record.spec.key, &issue))
                .collect();
            let obstacles = match issue {
                OfferIssue::Shortage(shortage) => for_everyone(shortage).into_iter().collect(),
                _ => Vec::new(),
            };
            let done = Done {
                issues,
                obstacles,
                ..Done::default()
            };
            Err((done, Some(0)))
        }
    }
}

/// The URI of an agent of the registry. Keys are of one length, and gas follows from the length of the
/// URI: one quote serves all.
fn typical_uri(input: &LedgerInput<'_>) -> String {
    let contract = input.target.contract.address;
    agent_uri(input.registry, Key::derive("", 0, contract, 0))
}

/// An allocation to records of which no object of the legacy controller says that they may be
/// registered already. Those objects are read for what would get a nonce, and for nothing else.
async fn allocate_unclaimed(
    input: &LedgerInput<'_>,
    snapshot: LedgerSnapshot<'_>,
    mut requests: Vec<AllocationRequest<'_>>,
    bounds: &AllocationBounds<'_>,
    state: &mut RegistryState,
) -> (Done, Allocation) {
    let (mut done, mut unclaimed) = (Done::default(), BTreeSet::new());
    loop {
        let allocation = allocate_nonces(snapshot, &requests, bounds.clone());
        let mut claimed = BTreeSet::new();
        for (_, key) in &allocation.allocated {
            let request = requests.iter().find(|request| request.record.key == *key);
            let Some(request) = request.filter(|_| !unclaimed.contains(key)) else {
                continue;
            };
            let found = first_nonce_obstacle(
                &input.context.reader,
                input.target.contract.chain_id,
                request.record,
                input.claims,
                &mut state.legacy,
            );
            match found.await {
                Ok(None) => {
                    unclaimed.insert(*key);
                }
                Ok(Some(issue)) => {
                    done.issues.extend(input.issues_of(*key, &issue));
                    claimed.insert(*key);
                }
                Err(error) => return (done.and(Done::ended(error)), Allocation::default()),
            }
        }
        if claimed.is_empty() {
            return (done, allocation);
        }
        requests.retain(|request| !claimed.contains(&request.record.key));
    }
}

fn rpc_obstacle(input: &LedgerInput<'_>, error: RpcError) -> Done {
    Done {
        unfinished: true,
        ..Done::obstacle(Obstacle::Rpc {
            endpoint: input.chain.endpoint.to_string(),
            error,
        })
    }
}

/// Writes an allocation, and signs and sends for each key that got a nonce.
async fn bind(
    input: &LedgerInput<'_>,
    held: ReadLedger,
    records: &BTreeMap<Key, AgentRegistration>,
    allocation: Allocation,
    (spent, prices): (&SpentToday, &mut Prices),
    state: &mut RegistryState,
) -> Done {
    let Allocation {
        ledger,
        allocated,
        shortages,
    } = allocation;
    let mut done = Done::default();
    for (key, shortage) in shortages {
        done.issues
            .extend(input.issues_of(key, &OfferIssue::Shortage(shortage)));
        done.obstacles.extend(for_everyone(shortage));
    }
    let Some(ledger) = ledger else { return done };
    let held = match input
        .context
        .store
        .replace_ledger(input.leading, held, ledger)
        .await
    {
        Ok(held) => held,
        Err(error) => return done.and(Done::ended(error)),
    };
    done.wrote = true;
    let first = allocated.first().map(|(nonce, _)| nonce.0);
    info!(count = allocated.len(), first, "allocated nonces");
    let spends = allocated
        .iter()
        .map(|(nonce, _)| (*nonce, SpendStep::Sign))
        .collect();
    let money = (Some(spent), prices);
    done.and(spend(input, &held, &spends, records, money, state).await)
}

fn count(input: &LedgerInput<'_>, outcome: RegistrationOutcome) {
    input
        .context
        .metrics
        .chain
        .registration(input.target.contract.chain_id, outcome);
}
