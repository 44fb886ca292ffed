//! The ledger's part of a pass: from the ledger that was read to transactions that were sent.
//!
//! - [`read`] reads ledger, records and evidence, in the order that the proof needs, and [`logs`]
//!   the logs of everyone who may have registered
//! - [`foreign`] finds what used nonces that ledger and records do not explain
//! - [`questions`] (pure) says what to ask of the chain, and what the answers show of each item
//! - [`plan`] (pure) decides what entries need and what may be spent
//! - [`former`] does the same for the other signers, and takes over what they have not begun
//! - [`prices`] asks what a registration takes and what gas costs
//! - [`apply`] carries it out: a record before the entry that waits for it
//! - [`spend`] signs and sends, stored bytes before sent ones, and uses up a nonce that nothing can be
//!   signed for; [`filler`] keeps what was sent for that
//! - [`allocate`] gives nonces to those who wait for one
//!
//! A write makes the ledger in memory stale: a pass that prunes does not allocate. A problem with
//! one entry or record is its own outcome. Only a lost lease, a lost compare-and-swap on the
//! ledger, or an API server that does not answer ends the work early.

mod allocate;
mod apply;
pub(super) mod filler;
mod foreign;
mod former;
pub(super) mod logs;
pub mod plan;
pub(super) mod prices;
pub mod questions;
mod read;
mod spend;

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::Address;

use self::plan::{EntrySteps, SpendStep};
use self::prices::Prices;
use self::read::{LedgerView, ReadyLedger};
use super::adoption::Adoptions;
use super::chain::ChainSnapshot;
use super::index::{IndexProblem, IndexReading};
use super::outcome::{Issues, LedgerOutcome, Numbers, Obstacle, most_urgent};
use super::records::OfferClaim;
use super::schedule::{Activity, is_final_soon};
use super::state::RegistryState;
use super::target::RegistryTarget;
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, SignerLedger, Suspend,
};
use crate::cluster;
use crate::leader::Leading;
use crate::ledger::evidence::UnknownPremise;
use crate::ledger::foreign::beyond_foreign_use;
use crate::ledger::money::Shortage;
use crate::ledger::protocol::{Begun, PendingStep, begun, nonce_ahead, pending_step};
use crate::ledger::{Freeze, monitor};
use crate::reconcile::Context;
use crate::reconcile::issues::{OfferIssue, OfferName};

/// What the ledger's part of a pass works with.
pub(super) struct LedgerInput<'a> {
    pub(super) context: &'a Context,
    pub(super) leading: &'a Leading,
    pub(super) registry: &'a IdentityRegistry,
    pub(super) target: &'a RegistryTarget,
    pub(super) chain: &'a ChainSnapshot,
    /// Offers that resolve to the registry.
    pub(super) claims: &'a [OfferClaim],
    /// Who may adopt which agent.
    pub(super) adoptions: &'a Adoptions<'a>,
    /// Keys that offers want registered, and which offers.
    pub(super) wanted: &'a BTreeMap<Key, Vec<OfferName>>,
    /// Those of them that may get a nonce.
    pub(super) allocatable: &'a BTreeSet<Key>,
    /// Whether something may be allocated or adopted, so that all records are needed.
    pub(super) needs_census: bool,
}

impl LedgerInput<'_> {
    /// Whether the incident switch is on, as far as the cache knows at this moment.
    fn is_suspended(&self) -> bool {
        let current = self.context.cache.registry(&self.target.name);
        current.map_or(self.registry.spec.suspend, |registry| registry.spec.suspend)
            != Suspend::None
    }

    /// The same issue for every offer that wants a key.
    fn issues_of(&self, key: Key, issue: &OfferIssue) -> Issues {
        let offers = self.wanted.get(&key).into_iter().flatten();
        offers.map(|offer| (offer.clone(), issue.clone())).collect()
    }
}

/// What the ledger's part of a pass did and found.
#[derive(Debug, Default)]
pub(super) struct LedgerWork {
    pub(super) outcome: LedgerOutcome,
    pub(super) issues: Issues,
    pub(super) numbers: Numbers,
    pub(super) activity: Activity,
    pub(super) wrote: bool,
    /// Why it ended early.
    pub(super) failure: Option<cluster::Error>,
}

/// What one step did and found.
#[derive(Debug, Default)]
struct Done {
    issues: Issues,
    obstacles: Vec<Obstacle>,
    wrote: bool,
    /// Items that have to be tried again.
    unfinished: bool,
    /// The block whose finality shows more about an item.
    awaited_block: Option<u64>,
    /// Why no further step may follow.
    end: Option<cluster::Error>,
}

impl Done {
    fn obstacle(obstacle: impl Into<Obstacle>) -> Self {
        Self {
            obstacles: vec![obstacle.into()],
            ..Self::default()
        }
    }

    fn ended(error: cluster::Error) -> Self {
        Self {
            end: Some(error),
            ..Self::default()
        }
    }

    fn and(mut self, later: Self) -> Self {
        self.issues.extend(later.issues);
        self.obstacles.extend(later.obstacles);
        self.wrote |= later.wrote;
        self.unfinished |= later.unfinished;
        self.awaited_block = self.awaited_block.or(later.awaited_block);
        self.end = self.end.or(later.end);
        self
    }
}

impl LedgerWork {
    /// With what another signer's ledger needed. The first signer's obstacle and numbers count.
    fn and(mut self, other: Self) -> Self {
        self.outcome = match (self.outcome, other.outcome) {
            (LedgerOutcome::Reached(None), outcome @ LedgerOutcome::Reached(_)) => outcome,
            (outcome, _) => outcome,
        };
        self.numbers.in_flight = self
            .numbers
            .in_flight
            .map(|count| count + other.numbers.in_flight.unwrap_or_default());
        self.issues.extend(other.issues);
        self.activity = self.activity.busier(other.activity);
        self.wrote |= other.wrote;
        self.failure = self.failure.or(other.failure);
        self
    }
}

/// Does everything that the ledgers of a registry need.
pub(super) async fn work(input: &LedgerInput<'_>, state: &mut RegistryState) -> LedgerWork {
    let mut worked = use_account(input, state).await;
    worked.issues.extend(signer_changes(input));
    worked.issues.extend(registering_elsewhere(input));
    if worked.failure.is_none() {
        for other in former::finish(input, state).await {
            worked = worked.and(other);
        }
    }
    state.forget_rest();
    if input.chain.endpoint.health().is_healthy() {
        return worked;
    }
    // The endpoint proves itself by good answers over some seconds, so it has to be asked.
    LedgerWork {
        activity: Activity::Unresolved,
        ..worked
    }
}

async fn use_account(input: &LedgerInput<'_>, state: &mut RegistryState) -> LedgerWork {
    let Some(signer) = &input.target.signer else {
        return watch(input, state).await;
    };
    match read::ledger(input, signer.address(), state).await {
        Err(error) => ended(Done::ended(error), Numbers::default(), Activity::Active),
        Ok(LedgerView::Frozen(freeze)) => {
            let ledger = input.target.ledger_name();
            if let Some(suspicion) = ledger.and_then(|ledger| freeze.suspicion(ledger)) {
                monitor::quarantine(&input.context.store, &suspicion).await;
            }
            let done = Done::obstacle(freeze);
            ended(done, numbers(input), Activity::Held)
        }
        Ok(LedgerView::Unreadable(premise)) => {
            let done = Done::obstacle(premise);
            ended(done, numbers(input), Activity::Short)
        }
        Ok(LedgerView::Unready(unready)) => {
            let done = apply::prepare(input, *unready).await;
            ended(done, numbers(input), Activity::Active)
        }
        Ok(LedgerView::Ready(ready)) => use_ledger(input, *ready, state).await,
    }
}

/// Adopts agents for a registry that sends nothing.
async fn watch(input: &LedgerInput<'_>, state: &mut RegistryState) -> LedgerWork {
    let (records, targets) = match read::adoptions(input, state).await {
        Ok(found) => found,
        Err(error) => {
            return ended(Done::ended(error), Numbers::default(), Activity::Active);
        }
    };
    let mut done = Done::default();
    for record in &records {
        if let Some(conflict) = conflict(input, record, &records) {
            done = done.and(conflict);
            continue;
        }
        if let Some(holder) = &input.target.signer_held_by
            && record.spec.is_open()
            && record.spec.adopt.is_none()
        {
            let issue = OfferIssue::SignerInUse {
                holder: holder.clone(),
            };
            done.issues.extend(input.issues_of(record.spec.key, &issue));
        }
        done = done.and(match targets.get(&record.spec.key) {
            Some(Err(error)) => apply::unanswered(input, record.spec.key, error),
            target => {
                let target = target.and_then(|target| target.as_ref().ok());
                let step = pending_step(None, &record.spec, None, &[], target);
                apply::settle(input, record, step, target).await
            }
        });
    }
    ended(done, numbers(input), Activity::Idle)
}

/// What it means if other offers claim the agent that a record asks for; `None` if none does.
fn conflict<'r>(
    input: &LedgerInput<'_>,
    record: &AgentRegistration,
    records: impl IntoIterator<Item = &'r AgentRegistration>,
) -> Option<Done> {
    let conflict = input.adoptions.conflict_of_record(record, records)?;
    let issue = OfferIssue::AdoptionConflict(Box::new(conflict));
    Some(Done {
        issues: input.issues_of(record.spec.key, &issue),
        ..Done::default()
    })
}

/// Uses a ledger that is ready: records outcomes, prunes, signs, sends, allocates.
async fn use_ledger(
    input: &LedgerInput<'_>,
    ready: ReadyLedger,
    state: &mut RegistryState,
) -> LedgerWork {
    let may_spend = !input.is_suspended();
    let steps = plan::entries(
        ready.snapshot(),
        &ready.records.by_key,
        &ready.evidence,
        |record| input.target.has(record),
        may_spend,
    );
    let (latest, finalized) = (&input.chain.latest, &input.chain.finalized);
    let steps = if is_final_soon(latest.timestamp, finalized.timestamp) {
        steps.without_inclusions()
    } else {
        steps
    };
    let numbers = Numbers {
        in_flight: Some(ready.held.spec().entries.len()),
        indexes: ready.logs.positions(),
        orphans: ready.logs.indexes.orphans().cloned(),
        is_start_unverified: ready.logs.is_start_unverified(),
        holds_transferred: ready.logs.indexes.own().holds_transferred(),
        oldest_signed: plan::oldest_signed(ready.snapshot(), &ready.records.by_key),
        ..numbers(input)
    };
    let recorded = apply::record(input, &steps, &ready, state).await;
    let (
        settled,
        Waiting {
            pending,
            has_orphan,
        },
    ) = settle_pending(input, &ready, state).await;
    let mut done = recorded.and(settled).and(found_by(input, &steps, &ready));
    if done.end.is_none() {
        done = done.and(former::take_over(input, &ready).await);
    }
    if done.end.is_some() {
        return ended(done, numbers, Activity::Active);
    }
    if !steps.prune.is_empty() {
        done = done.and(apply::prune(input, &steps, ready).await);
        return ended(done, numbers, Activity::Active);
    }
    let finalized = ready.account_state.counts.finalized;
    if let Some(raised) = beyond_foreign_use(ready.held.spec(), finalized, &ready.uses_beyond_next)
    {
        done = done.and(apply::raise_next(input, ready, raised).await);
        return ended(done, numbers, Activity::Active);
    }
    let may_allocate = may_spend && steps.freeze.is_none() && !steps.has_foreign_gap();
    let unknown = unknown_premises(&ready, &steps);
    // The allocation below says which premise it lacks, if it comes to one.
    if has_orphan || input.is_suspended() && !pending.is_empty() {
        let premise = unknown.first().cloned();
        done.obstacles.extend(premise.map(Obstacle::from));
    }
    let pending = if may_allocate { pending } else { Vec::new() };
    let signs = steps.spend.values().any(SpendStep::signs);
    let has_price = state.quoted.is_some();
    let is_asked = signs
        || !pending.is_empty()
        || !has_price
        || state.numbers_are_due(input.registry.metadata.generation);
    let spent = if is_asked {
        match spend::spent_today(input, &ready, state).await {
            Ok(spent) => Some(spent),
            Err(failed) => {
                done = done.and(failed);
                None
            }
        }
    } else {
        None
    };
    let mut prices = Prices::default();
    done = done.and(
        spend::spend(
            input,
            &ready.held,
            &steps.spend,
            &ready.records.by_key,
            (spent.as_ref(), &mut prices),
            state,
        )
        .await,
    );
    if done.end.is_some() {
        return ended(done, numbers, Activity::Active);
    }
    // Then the endpoint may refuse what is sent again, and no other price is within the limits.
    // Nothing is included above a nonce that nothing could be signed for, or that is priced too low.
    let is_capped = done.obstacles.iter().any(|obstacle| {
        matches!(
            obstacle,
            Obstacle::Shortage(_) | Obstacle::NonceUnsigned { .. }
        )
    });
    let pending = if is_capped {
        Vec::new()
    } else {
        done = done.and(spend::send_obstacles(input, &ready, state));
        pending
    };
    let activity = activity_of(input, &ready, &steps);
    let (allocated, spending) = allocate::allocate(
        input,
        ready,
        pending,
        unknown,
        (spent.as_ref(), &mut prices),
        state,
    )
    .await;
    let numbers = Numbers {
        left: spending.left,
        spent: spending.spent,
        ..numbers
    };
    ended(done.and(allocated), numbers, activity)
}

/// Records of this registry that ask for their first nonce.
struct Waiting {
    /// Those that may get one, the oldest first.
    pending: Vec<AgentRegistration>,
    /// Whether one may not, because of an orphan.
    has_orphan: bool,
}

/// Settles every record of this registry that has neither outcome nor entry. Returns those that wait
/// for a nonce.
async fn settle_pending(
    input: &LedgerInput<'_>,
    ready: &ReadyLedger,
    state: &RegistryState,
) -> (Done, Waiting) {
    let (mut done, mut pending, mut has_orphan) = (Done::default(), Vec::new(), false);
    let snapshot = ready.snapshot();
    let ours = ready
        .records
        .by_key
        .values()
        .filter(|record| input.target.has(&record.spec));
    for record in ours {
        let key = record.spec.key;
        if let Some(conflict) = conflict(input, record, ready.records.by_key.values()) {
            done = done.and(conflict);
            continue;
        }
        let registrations = ready.registrations.get(&key);
        let target = ready.adoption_targets.get(&key);
        let error = registrations
            .and_then(|found| found.as_ref().err())
            .or_else(|| target.and_then(|target| target.as_ref().err()));
        if let Some(error) = error {
            done = done.and(apply::unanswered(input, key, error));
            continue;
        }
        let target = target.and_then(|target| target.as_ref().ok());
        let step = pending_step(
            Some(snapshot.ledger),
            &record.spec,
            Some(&ready.logs.indexes),
            registrations
                .and_then(|found| found.as_deref().ok())
                .unwrap_or_default(),
            target,
        );
        match step {
            // See `former` and `signer_changes`.
            PendingStep::Allocate | PendingStep::Refuse(Freeze::EntryMissing { .. })
                if record.spec.signer != Some(snapshot.ledger.signer) => {}
            PendingStep::Allocate if input.allocatable.contains(&key) => {
                match state.fillers.held_back(key) {
                    Some(issue) => done.issues.extend(input.issues_of(key, &issue)),
                    None => pending.push(record.clone()),
                }
            }
            step => {
                has_orphan |= matches!(step, PendingStep::HoldBack(_));
                done = done.and(apply::settle(input, record, step, target).await);
            }
        }
    }
    pending.sort_by_key(|record| {
        (
            record
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            record.spec.key,
        )
    });
    (
        done,
        Waiting {
            pending,
            has_orphan,
        },
    )
}

/// Registrations that another signer has begun and cannot finish, because the spec does not list
/// it, or because they need another nonce. The cache shows them: a pass reads only records that it may write.
fn signer_changes(input: &LedgerInput<'_>) -> Issues {
    let current = input.target.signer.as_ref().map(|signer| signer.address());
    let (cache, chain_id) = (&input.context.cache, input.target.contract.chain_id);
    let is_listed = |signer: Address| {
        let mut listed = input.registry.spec.signers.iter();
        listed.any(|listed| listed.address.parse() == Ok(signer))
    };
    let is_registering = |record: &AgentRegistrationSpec, signer| {
        let ledger = cache.ledger(&SignerLedger::name_of(chain_id, signer));
        ledger.is_some_and(|ledger| ledger.spec.registering.contains_key(&record.key))
    };
    let records = cache.records();
    let open = records
        .iter()
        .filter(|record| input.target.has(record) && record.is_open());
    let changed = open.filter_map(|record| {
        let signer = record.signer.filter(|signer| Some(*signer) != current)?;
        let name = record.key.record_name();
        let issue = match begun(record, is_registering(record, signer))? {
            Begun::InFlight if is_listed(signer) => return None,
            Begun::InFlight => OfferIssue::SignerChanged {
                record: name,
                signer,
            },
            Begun::Displaced => OfferIssue::SignerNotFirst {
                record: name,
                signer,
            },
        };
        Some(input.issues_of(record.key, &issue))
    });
    changed.flatten().collect()
}

/// Registrations for which the ledger of another account has a nonce, although their records name
/// the first signer: the records are not those that the nonces were given to.
fn registering_elsewhere(input: &LedgerInput<'_>) -> Issues {
    let Some(signer) = &input.target.signer else {
        return Issues::new();
    };
    let (own, chain_id) = (signer.address(), input.target.contract.chain_id);
    let cache = &input.context.cache;
    let ledgers = cache.ledgers();
    let others = ledgers
        .iter()
        .filter(|ledger| ledger.spec.chain_id == chain_id && ledger.spec.signer != own);
    let mut issues = Issues::new();
    for ledger in others {
        for key in ledger.spec.registering.keys() {
            let record = cache.record(*key);
            let is_own = record.is_some_and(|record| {
                input.target.has(&record) && record.is_open() && record.signer == Some(own)
            });
            if is_own {
                let issue = OfferIssue::OtherLedgerRegistering {
                    ledger: SignerLedger::name_of(chain_id, ledger.spec.signer),
                    signer: ledger.spec.signer,
                };
                issues.extend(input.issues_of(*key, &issue));
            }
        }
    }
    issues
}

/// What the steps and the index show that people should know.
fn found_by(input: &LedgerInput<'_>, steps: &EntrySteps, ready: &ReadyLedger) -> Done {
    let mut done = Done::default();
    if let Some(freeze) = &steps.freeze {
        done.obstacles.push(freeze.clone().into());
    }
    // Said even while no offer waits: the ledger may have been restored.
    let ahead = nonce_ahead(ready.snapshot());
    done.obstacles.extend(ahead.map(Obstacle::from));
    if let Some((nonce, key)) = steps.foreign_unsigned {
        done.obstacles.push(Obstacle::StoredTransactionMismatch {
            key,
            nonce,
            why: "it is allocated to an agent of another registry contract, and nothing was signed"
                .to_owned(),
        });
    }
    for (key, error) in steps.unanswered.values() {
        done = done.and(apply::unanswered(input, *key, error));
    }
    done.obstacles.extend(
        ready
            .logs
            .incomplete()
            .and_then(|reading| log_obstacle(reading, input)),
    );
    done.unfinished |= ready.logs.are_retried_soon();
    done
}

/// What keeps the logs from being proven.
fn log_obstacle(reading: &IndexReading, input: &LedgerInput<'_>) -> Option<Obstacle> {
    match (&reading.problem, reading.progress) {
        (Some(IndexProblem::Rpc(error)), _) => Some(Obstacle::Rpc {
            endpoint: input.chain.endpoint.to_string(),
            error: error.clone(),
        }),
        (Some(problem), _) => Some(Obstacle::Logs(problem.clone())),
        (None, Some((next, last))) if next <= last => Some(Obstacle::Settling(format!(
            "reading the chain's logs: block {next} of {last}"
        ))),
        (None, _) => None,
    }
}

/// Premises of every allocation that are not known.
fn unknown_premises(ready: &ReadyLedger, steps: &EntrySteps) -> Vec<UnknownPremise> {
    let mut unknown = Vec::new();
    if let Some(census) = &ready.records.census {
        unknown.extend(census.others.unknown.iter().cloned());
    }
    unknown.extend(ready.unsettled.iter().cloned());
    let ledger = ready.held.spec();
    if ledger.draining {
        unknown.push(UnknownPremise::SignerRetired {
            account: ledger.signer,
        });
    }
    unknown.extend(nonce_ahead(ready.snapshot()));
    let unchecked = plan::unchecked_finalized(ready.snapshot(), steps);
    if unchecked > 0 {
        unknown.push(UnknownPremise::EntriesUnchecked { count: unchecked });
    }
    unknown
}

/// What the registry waits for, if nothing was written.
fn activity_of(input: &LedgerInput<'_>, ready: &ReadyLedger, steps: &EntrySteps) -> Activity {
    if steps.freeze.is_some() || input.is_suspended() {
        return Activity::Held;
    }
    if ready.logs.are_behind() {
        return Activity::Active;
    }
    let entries = &ready.held.spec().entries;
    if entries.is_empty() {
        return Activity::Idle;
    }
    let included = |nonce| {
        let evidence = ready.evidence.get(nonce)?.as_ref().ok()?;
        Some(evidence.included?.block)
    };
    let blocks: Option<Vec<u64>> = entries.keys().map(included).collect();
    let finalized = ready.account_state.finalized_block;
    match blocks.and_then(|blocks| blocks.into_iter().min()) {
        Some(block) if block > finalized => Activity::Settling { block },
        _ => Activity::Active,
    }
}

/// Numbers of the status that records and account show.
fn numbers(input: &LedgerInput<'_>) -> Numbers {
    let records = input.context.cache.records();
    let ours: Vec<_> = records
        .iter()
        .filter(|record| input.target.has(record))
        .collect();
    let registered = ours.iter().filter(|record| record.result.is_some()).count();
    let pending = ours
        .iter()
        .filter(|record| record.is_open() && record.tombstone.is_none())
        .count();
    let account = input.chain.account.as_ref();
    let signer = input.target.signer.as_ref();
    let displaced = ours.iter().filter_map(|record| record.displaced.as_ref());
    let foreign_use = displaced.max_by_key(|displaced| displaced.block);
    Numbers {
        foreign_use: foreign_use.map(|displaced| displaced.transaction),
        balance: signer
            .zip(account)
            .map(|(signer, account)| (signer.address(), account.balance)),
        agents: Some(registered),
        pending: Some(pending),
        ..Numbers::default()
    }
}

/// The work of a pass whose last step is done.
fn ended(done: Done, numbers: Numbers, activity: Activity) -> LedgerWork {
    let obstacle = done.obstacles.iter().min_by_key(|found| found.rank());
    let activity = match (activity, done.awaited_block) {
        (Activity::Idle, Some(block)) => Activity::Settling { block },
        (activity, _) => activity,
    };
    let activity = match activity {
        _ if done.wrote => Activity::Active,
        _ if done.unfinished => Activity::Failing { passes: 1 },
        Activity::Settling { .. } => activity,
        activity => obstacle.and_then(Obstacle::activity).unwrap_or(activity),
    };
    let outcome = match &done.end {
        Some(error) => LedgerOutcome::after(error),
        None => LedgerOutcome::Reached(most_urgent(done.obstacles)),
    };
    LedgerWork {
        outcome,
        issues: done.issues,
        numbers,
        activity,
        wrote: done.wrote,
        failure: done.end,
    }
}

/// Whether a shortage holds back every namespace, and not just one.
fn for_everyone(shortage: Shortage) -> Option<Obstacle> {
    shortage
        .affects_every_namespace()
        .then_some(Obstacle::Shortage(shortage))
}
