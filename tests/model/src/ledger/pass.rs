//! One pass over the ledger of one account, as `reconcile/registry/ledger` carries it out: what it
//! gathers for the core, and in which order it carries out what the core decides.
//!
//! Each core of [`crate::ledger::cores`] has its own copy of this module, compiled against its own
//! functions. It must not decide anything that the core decides, and it knows nothing of the world
//! but a [`View`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::Address;
use serviceoffer::api::{
    AgentRegistration, AgentRegistrationSpec, Attempt, Key, Nonce, SignerLedger, SignerLedgerSpec,
};
use serviceoffer::decisions::evidence::{
    LedgerHistory, LedgerIdentity, LedgerSnapshot, Premises, UnknownPremise,
};
use serviceoffer::decisions::foreign::beyond_foreign_use;
use serviceoffer::decisions::index::{IndexStart, OwnerIndex};
use serviceoffer::decisions::money::{Consumption, Limits, fees_for};
use serviceoffer::decisions::questions::{self, Questions, SendAge};
use serviceoffer::decisions::rollback::{LedgerMark, unaccounted_nonce};
use serviceoffer::decisions::sweep::Orphans;
use serviceoffer::decisions::unreadable::OtherLedgers;
use serviceoffer::decisions::{Fees, Freeze, Lenient, ReadLedger, filler, sender};

use super::plan::{self, Commitments, SpendStep};
use super::protocol::{
    self, AllocationBounds, AllocationRequest, Begun, EntryCosts, LedgerStep, MoveStep,
    PendingStep, allocate, begun, entry_step, ledger_step, move_step, nonce_ahead, payer,
    pending_step, with_attempt, without_entries,
};
use super::registrants::{
    NamedAccounts, OtherIndex, RegistrantIndexes, other_registrants, uids_of, unclaimed_agents,
    unsettled_ledgers,
};
use crate::ledger::cast::{CHAIN_ID, CLUSTER_UID, CONTRACT, GENESIS};
use crate::ledger::flaws::Flaw;
use crate::ledger::view::{Decision, Request, View};

/// What one registration takes.
const TAKES: Consumption = Consumption {
    gas: 100,
    rollup_fee: 0,
};
/// Balance of every account: money is never short.
const BALANCE: u128 = 1 << 100;
/// Limits that nothing reaches.
const LIMITS: Limits = Limits {
    max_fee_per_gas: None,
    per_registration: 1 << 60,
    per_day: 1 << 90,
    per_namespace_per_day: None,
};
/// Maximum number of entries that no block uses.
const WINDOW: usize = 16;

fn stopped(reason: &'static str) -> Decision {
    Decision {
        stopped: Some(reason),
        ..Decision::default()
    }
}

fn requested(request: Request) -> Decision {
    Decision {
        requests: vec![request],
        stopped: None,
    }
}

/// Decides what a replica does after it has read everything.
#[must_use]
pub fn decide(view: &View<'_>, flaw: Option<Flaw>) -> Decision {
    let signer = view.signer.address();
    let mark = view.ledger.as_ref().map(LedgerMark::of);
    let is_active = view
        .ledger
        .as_ref()
        .is_some_and(|ledger| ledger.spec.quarantine.is_none());
    let needs_census = view.is_first || !is_active;
    let by_key = records(view, needs_census);
    let identity = LedgerIdentity {
        chain_id: CHAIN_ID,
        genesis_hash: GENESIS,
        signer,
        cluster_uid: CLUSTER_UID.into(),
    };
    let unaccounted = view.ledger.as_ref().and_then(|ledger| {
        by_key.values().find_map(|record| {
            let nonce = unaccounted_nonce(&ledger.spec, &record.spec)?;
            let has_entry = ledger.spec.registering.contains_key(&record.spec.key);
            let is_hidden = flaw == Some(Flaw::EntryAtAnyNonce) && has_entry;
            Some((record.spec.key, nonce)).filter(|_| !is_hidden)
        })
    });
    let name = format!("{signer:#x}");
    let marker = view.markers.iter().find(|marker| marker.signer == name);
    let has_attempts = by_key
        .values()
        .any(|record| identity.has_attempt(&record.spec));
    let history = LedgerHistory {
        markers: uids_of(&view.all_markers, signer)
            .filter(|_| needs_census)
            .map(str::to_owned)
            .collect(),
        marker: marker.map(|marker| marker.uid.clone()),
        has_attempts: has_attempts && flaw != Some(Flaw::AttemptsUnread),
        unreadable_record: None,
        bootstrap_nonce: view.bootstrap.map(|(nonce, _)| nonce),
        bootstrap_from_block: view.bootstrap.map(|(_, block)| block),
        remembered: view.remembered.clone(),
        unaccounted: unaccounted.filter(|_| flaw != Some(Flaw::AttemptsUnread)),
    };
    let account = if is_active { view.account } else { view.birth };
    let ledger = view.ledger.as_ref().zip(mark.as_ref());
    let step = ledger_step(
        &identity,
        ledger.map(|(ledger, mark)| (&ledger.spec, mark)),
        &history,
        &account,
    );
    let ledger = match (step, &view.ledger) {
        (Err(freeze), _) => {
            let suspicion = freeze.suspicion(SignerLedger::name_of(CHAIN_ID, signer));
            let suspicion = suspicion.filter(|_| flaw != Some(Flaw::QuarantineUnwritten));
            return Decision {
                requests: suspicion.map(Request::Quarantine).into_iter().collect(),
                ..stopped(freeze.reason())
            };
        }
        (Ok(LedgerStep::Ready), Some(ledger)) => ledger,
        (Ok(LedgerStep::Create(spec)), _) => return requested(Request::Create(spec)),
        (Ok(LedgerStep::Activate(spec) | LedgerStep::LowerFromBlock(spec)), _) => {
            return requested(Request::Ledger(spec));
        }
        (Ok(LedgerStep::WriteMarker), _) => return requested(Request::WriteMarker),
        (Ok(LedgerStep::AwaitPremise(premise)), _) => return stopped(premise.reason()),
        (Ok(LedgerStep::Wait | LedgerStep::Ready), _) => return Decision::default(),
    };
    Pass {
        view,
        flaw,
        ledger,
        by_key,
    }
    .work(needs_census)
}

/// The records that a pass reads: all, or those of the ledger's entries.
fn records(view: &View<'_>, needs_census: bool) -> BTreeMap<Key, AgentRegistration> {
    let entries = view
        .ledger
        .iter()
        .flat_map(|held| held.spec.entries.values());
    let keys: BTreeSet<Key> = entries.filter_map(|entry| entry.key).collect();
    let read = view
        .records
        .iter()
        .filter(|record| needs_census || keys.contains(&record.spec.key));
    read.map(|record| (record.spec.key, record.clone()))
        .collect()
}

/// Record, entry and key do not belong together.
struct Mismatch;

/// A pass with a ledger that may be used.
struct Pass<'a> {
    view: &'a View<'a>,
    flaw: Option<Flaw>,
    ledger: &'a SignerLedger,
    by_key: BTreeMap<Key, AgentRegistration>,
}

impl Pass<'_> {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn work(&self, needs_census: bool) -> Decision {
        let view = self.view;
        let own_name = SignerLedger::name_of(CHAIN_ID, self.ledger.spec.signer);
        let others = OtherLedgers::of(CHAIN_ID, &own_name, &view.ledgers);
        let signed = self.by_key.values().map(|record| &record.spec);
        let signed = signed.filter(|record| !record.attempts.is_empty());
        let used = signed.filter_map(|record| record.signer).collect();
        let named = needs_census.then_some(NamedAccounts {
            signers: &view.signers,
            own_markers: &view.markers,
            markers: &view.all_markers,
            used: &used,
            others: &others,
            unreadable_records: &[],
        });
        let specs = || self.by_key.values().map(|record| &record.spec);
        let mut unknown = named.map_or_else(Vec::new, |named| {
            let unsettled = unsettled_ledgers(&self.ledger.spec, named, &view.other_counts);
            let is_ignored = self.has(Flaw::UnsettledIgnored);
            unsettled.into_iter().filter(|_| !is_ignored).collect()
        });
        let indexes = self.indexes(named, &others);
        unknown.extend(named.and_then(|named| {
            let unclaimed = unclaimed_agents(&indexes, named, specs(), None);
            unclaimed.filter(|_| !self.has(Flaw::AgentsWithoutKeyIgnored))
        }));
        let snapshot = LedgerSnapshot {
            ledger: &self.ledger.spec,
            index: indexes.own(),
            account: &view.account,
        };
        let pending: Vec<Key> = specs()
            .filter(|record| record.is_open())
            .map(|record| record.key)
            .filter(|key| !snapshot.ledger.registering.contains_key(key))
            .collect();
        let mut asked = Questions::default();
        asked.about_entries(snapshot, &self.by_key, |_| true);
        for key in &pending {
            asked.about_registrations(indexes.registrations(*key).map(|(_, event)| event));
        }
        let answers = view.chain.answer(&asked);
        let sent = |hash| SendAge {
            recent: view.chain.was_sent(hash),
            overdue: false,
        };
        let mut evidence = questions::evidence(snapshot, &self.by_key, |_| true, &answers, sent);
        self.explain(snapshot, &mut evidence);
        let steps = plan::entries(snapshot, &self.by_key, &evidence, |_| true, true);
        let mut requests = Vec::new();
        let prune = |nonces: &BTreeSet<Nonce>, blocks: &[u64]| {
            let after = without_entries(snapshot.ledger, nonces, blocks, &view.account);
            Request::Ledger(after)
        };
        if self.has(Flaw::PruneBeforeResult) && !steps.finish.is_empty() {
            let finished = steps.finish.iter();
            let nonces = finished.filter_map(|(key, _)| snapshot.ledger.registering.get(key));
            requests.push(prune(&nonces.copied().collect(), &[]));
        }
        let recorded = steps.finish.iter().chain(&steps.note);
        requests.extend(recorded.map(|(_, spec)| Request::Record(spec.clone())));
        let (settled, allocatable, refused) = self.settle(&indexes, &answers, snapshot);
        requests.extend(settled);
        requests.extend(self.take_over());
        let freeze = steps.freeze.as_ref().or(refused.as_ref());
        let mut stopped = freeze.map(Freeze::reason);
        if self.view.is_first {
            stopped = stopped.or_else(|| specs().find_map(|record| self.signer_change(record)));
        }
        if !steps.prune.is_empty() {
            let (nonces, blocks) = plan::pruned_nonces(&steps);
            requests.push(prune(&nonces, &blocks));
            return Decision { requests, stopped };
        }
        if let Some(raised) = self.raised(snapshot) {
            requests.push(Request::Ledger(raised));
            return Decision { requests, stopped };
        }
        let held = ReadLedger::from(self.ledger.clone());
        for (nonce, spend) in &steps.spend {
            match self.spend(&held, *nonce, spend) {
                Ok(spent) => requests.extend(spent),
                Err(Mismatch) => stopped = stopped.or(Some("StoredTransactionMismatch")),
            }
        }
        unknown.extend(others.unknown.iter().cloned());
        if snapshot.ledger.draining {
            let account = snapshot.ledger.signer;
            unknown.push(UnknownPremise::SignerRetired { account });
        }
        unknown.extend(nonce_ahead(snapshot));
        if steps.freeze.is_none() && !allocatable.is_empty() {
            if let Some(premise) = unknown.first() {
                stopped = stopped.or(Some(premise.reason()));
                return Decision { requests, stopped };
            }
            let premises = Premises { unknown };
            let elsewhere = if self.has(Flaw::OtherLedgersUnread) {
                BTreeSet::new()
            } else {
                others.registering
            };
            requests.extend(self.allocate(snapshot, &allocatable, &premises, &elsewhere, &indexes));
        }
        Decision { requests, stopped }
    }

    /// What offers are told of a record that another signer has begun and cannot finish.
    fn signer_change(&self, record: &AgentRegistrationSpec) -> Option<&'static str> {
        let own = self.ledger.spec.signer;
        let signer = record.signer.filter(|signer| *signer != own)?;
        if !record.is_open() || !self.view.allocatable.contains(&record.key) {
            return None;
        }
        let mut ledgers = self.view.ledgers.iter().filter_map(|ledger| match ledger {
            Lenient::Decoded(ledger) if ledger.spec.signer == signer => Some(&ledger.spec),
            _ => None,
        });
        let is_registering = ledgers.any(|ledger| ledger.registering.contains_key(&record.key));
        match begun(record, is_registering)? {
            Begun::InFlight if self.view.signers.contains(&signer) => None,
            Begun::InFlight => Some("SignerChanged"),
            Begun::Displaced => Some("SignerNotFirst"),
        }
    }

    /// Adds what used the nonces of entries that nothing else explains (R6).
    fn explain(&self, snapshot: LedgerSnapshot<'_>, evidence: &mut plan::EvidenceByNonce) {
        for (nonce, shown) in evidence {
            let Ok(shown) = shown else { continue };
            let key = snapshot
                .ledger
                .entries
                .get(nonce)
                .and_then(|entry| entry.key);
            let record = key.and_then(|key| self.by_key.get(&key));
            let record = record.map(|record| &record.spec);
            let step = entry_step(snapshot, *nonce, record, shown);
            if matches!(step, Err(Freeze::KeyUsedElsewhere { .. })) {
                shown.used_by = self.view.chain.used_by(snapshot.ledger.signer, *nonce);
            }
        }
    }

    /// The ledger above what something else has sent (R9).
    fn raised(&self, snapshot: LedgerSnapshot<'_>) -> Option<SignerLedgerSpec> {
        if !self.view.has_agreed && !self.has(Flaw::AgreementAssumed) {
            return None;
        }
        let finalized = snapshot.account.counts.finalized;
        let nonces = (snapshot.ledger.next.0..finalized.0).map(Nonce);
        let uses = nonces.filter_map(|nonce| {
            let used = self.view.chain.used_by(snapshot.ledger.signer, nonce)?;
            Some((nonce, used))
        });
        beyond_foreign_use(snapshot.ledger, finalized, &uses.collect())
    }

    fn indexes(
        &self,
        named: Option<NamedAccounts<'_>>,
        ledgers: &OtherLedgers,
    ) -> RegistrantIndexes {
        let owner = self.ledger.spec.signer;
        let own = self.index(owner, Some(&self.ledger.spec));
        let specs = self.by_key.values().map(|record| &record.spec);
        let others = named.filter(|_| own.is_some()).map(|named| {
            let required = other_registrants(&self.ledger.spec, named, specs);
            let accounts = required
                .into_iter()
                .filter(|_| !self.has(Flaw::OwnLogsOnly));
            let read = accounts.map(|(account, required)| OtherIndex {
                account,
                required,
                index: self.index(account, ledger_of(ledgers, account)),
            });
            read.collect()
        });
        let own = own.unwrap_or_else(|| Arc::new(OwnerIndex::new(owner, 0, Default::default())));
        // No account registers with this registry's URIs that nothing names.
        RegistrantIndexes::new(own, others, Some(Orphans::default()))
    }

    fn index(
        &self,
        account: Address,
        ledger: Option<&SignerLedgerSpec>,
    ) -> Option<Arc<OwnerIndex>> {
        let chain = self.view.chain;
        let bootstrap = self.view.bootstrap.map(|(_, block)| block);
        let start = match ledger {
            Some(_) => IndexStart::of(ledger, bootstrap, CONTRACT),
            None => chain
                .unused(account)
                .unwrap_or_else(|| IndexStart::of(None, bootstrap, CONTRACT)),
        };
        chain.index(account, start)
    }

    /// What records without entry and without outcome need, which of them may get a nonce, and why
    /// one must not.
    fn settle(
        &self,
        indexes: &RegistrantIndexes,
        answers: &questions::Answers,
        snapshot: LedgerSnapshot<'_>,
    ) -> (Vec<Request>, Vec<&AgentRegistration>, Option<Freeze>) {
        let (mut requests, mut allocatable, mut refused) = (Vec::new(), Vec::new(), None);
        for record in self.by_key.values() {
            let spec = &record.spec;
            let registrations = if spec.is_open() {
                let found = indexes.registrations(spec.key);
                questions::final_registrations(found, answers).unwrap_or_default()
            } else {
                Vec::new()
            };
            let step = pending_step(
                Some(snapshot.ledger),
                spec,
                Some(indexes),
                &registrations,
                None,
            );
            match step {
                PendingStep::Allocate | PendingStep::Refuse(Freeze::EntryMissing { .. })
                    if spec.signer != Some(snapshot.ledger.signer) => {}
                // One whose nonce was filled is held back.
                PendingStep::Allocate if self.is_refused(spec) && spec.displaced.is_some() => {}
                PendingStep::Allocate if self.view.allocatable.contains(&spec.key) => {
                    allocatable.push(record);
                }
                PendingStep::Adopt(adopted) => requests.push(Request::Record(*adopted)),
                PendingStep::Refuse(freeze) => refused = refused.or(Some(freeze)),
                _ => {}
            }
        }
        (requests, allocatable, refused)
    }

    fn take_over(&self) -> Vec<Request> {
        let own = self.ledger.spec.signer;
        let mut by_former: BTreeMap<Address, Vec<Key>> = BTreeMap::new();
        let moving = self.by_key.values().map(|record| &record.spec);
        for record in moving.filter(|record| self.view.allocatable.contains(&record.key)) {
            if let Some(former) = protocol::former_signer(record, own) {
                by_former.entry(former).or_default().push(record.key);
            }
        }
        let moves = by_former.into_iter();
        moves
            .map(|(former, keys)| Request::TakeOver(former, keys))
            .collect()
    }

    fn spend(
        &self,
        held: &ReadLedger,
        nonce: Nonce,
        spend: &SpendStep,
    ) -> Result<Vec<Request>, Mismatch> {
        let Some(record) = self.record_at(held, nonce) else {
            return Ok(Vec::new());
        };
        let key = record.spec.key;
        match spend {
            SpendStep::Sign if self.is_refused(&record.spec) => self.fill(held, nonce),
            SpendStep::Sign => self.sign(held, nonce, record, None),
            // As the sender does before it sends.
            SpendStep::Send(_) if record.spec.signer != Some(held.spec().signer) => Err(Mismatch),
            SpendStep::Send(attempt) => Ok(vec![Request::Send(key, attempt.clone())]),
            SpendStep::Replace {
                attempt,
                sent_recently,
            } => {
                let mut signed = self.sign(held, nonce, record, Some(attempt))?;
                if signed.is_empty() && !sent_recently {
                    signed.push(Request::Send(key, attempt.clone()));
                }
                Ok(signed)
            }
        }
    }

    fn is_refused(&self, record: &AgentRegistrationSpec) -> bool {
        self.view.refused.contains(&record.key)
    }

    /// Uses up a nonce for which nothing can be signed (R8).
    fn fill(&self, held: &ReadLedger, nonce: Nonce) -> Result<Vec<Request>, Mismatch> {
        let Some(bound) = held.bound_nonce(nonce) else {
            return Ok(Vec::new());
        };
        let key = bound.key();
        let open = self.by_key.values().filter(|record| record.spec.is_open());
        let others_wait = open.into_iter().any(|record| record.spec.key != key);
        if !filler::is_due(filler::FILL_AFTER, others_wait) || self.has(Flaw::GapsUnfilled) {
            return Ok(Vec::new());
        }
        let Ok(Some(fees)) = fees_for(None, self.view.market, &LIMITS, TAKES) else {
            return Ok(Vec::new());
        };
        let signed = sender::sign_filler(self.view.signer, &bound, TAKES.gas, fees);
        let filler = signed.map_err(|_| Mismatch)?;
        let mut requests = vec![Request::Fill(key, filler)];
        if self.has(Flaw::FilledEntryPruned) {
            let nonces = BTreeSet::from([nonce]);
            let pruned = without_entries(held.spec(), &nonces, &[], &self.view.account);
            requests.push(Request::Ledger(pruned));
        }
        Ok(requests)
    }

    fn record_at(&self, held: &ReadLedger, nonce: Nonce) -> Option<&AgentRegistration> {
        self.by_key.get(&held.bound_nonce(nonce)?.key())
    }

    fn sign(
        &self,
        held: &ReadLedger,
        nonce: Nonce,
        record: &AgentRegistration,
        replaced: Option<&Attempt>,
    ) -> Result<Vec<Request>, Mismatch> {
        let Some(bound) = held.bound_nonce(nonce) else {
            return Ok(Vec::new());
        };
        let market = self.view.market;
        let before = replaced.map(|attempt| Fees::Dynamic {
            max_fee: attempt.max_fee_per_gas.0,
            tip: attempt.max_priority_fee_per_gas.0,
        });
        let fees = fees_for(before, market, &LIMITS, TAKES);
        let spec = &record.spec;
        let frozen = spec.agent_uri.clone();
        let frozen = frozen.filter(|_| spec.calldata_hash.is_some());
        let base_url = self.view.base_url;
        let uri = frozen.unwrap_or_else(|| format!("{base_url}/agents/{}.json", bound.key()));
        let Ok(Some(fees)) = fees else {
            return Ok(Vec::new());
        };
        if self.is_refused(spec) {
            return Ok(Vec::new());
        }
        let signed = sender::sign(self.view.signer, &bound, spec, &uri, TAKES.gas, fees);
        let signed = signed.map_err(|_| Mismatch)?;
        let attempt = signed.attempt;
        let stored = with_attempt(spec, attempt.clone(), signed.calldata_hash, &uri, None);
        let store = Request::Store(stored, attempt.clone());
        let send = Request::Send(bound.key(), attempt);
        if self.has(Flaw::SendBeforeStore) {
            Ok(vec![send, store])
        } else {
            Ok(vec![store, send])
        }
    }

    fn allocate(
        &self,
        snapshot: LedgerSnapshot<'_>,
        pending: &[&AgentRegistration],
        premises: &Premises,
        elsewhere: &BTreeSet<Key>,
        indexes: &RegistrantIndexes,
    ) -> Vec<Request> {
        let latest = (snapshot.account.counts.latest, BALANCE);
        let costs = EntryCosts {
            rollup_fee: TAKES.rollup_fee,
            unsigned: Some(LIMITS.per_registration),
        };
        let commitments =
            Commitments::new(snapshot.ledger, latest, Vec::new(), &self.by_key, costs);
        let requests: Vec<AllocationRequest<'_>> = pending
            .iter()
            .map(|record| AllocationRequest {
                record: &record.spec,
                namespace: payer(&record.spec),
                cost: 1,
            })
            .collect();
        let bounds = AllocationBounds {
            window: WINDOW,
            spending: &LIMITS,
            budget: commitments.budget(),
            premises,
            registering_elsewhere: elsewhere,
            indexes,
        };
        let allocation = allocate(snapshot, &requests, bounds);
        let Some(after) = allocation.ledger else {
            return Vec::new();
        };
        let written = SignerLedger {
            spec: after.clone(),
            ..self.ledger.clone()
        };
        let held = ReadLedger::from(written);
        let mut requests = vec![Request::Ledger(after)];
        for (nonce, _) in &allocation.allocated {
            requests.extend(
                self.spend(&held, *nonce, &SpendStep::Sign)
                    .unwrap_or_default(),
            );
        }
        requests
    }
}

fn ledger_of(ledgers: &OtherLedgers, account: Address) -> Option<&SignerLedgerSpec> {
    ledgers.by_account.get(&account)?.spec.as_deref()
}

/// What a replica does once it has read the ledger of a former signer.
#[must_use]
pub fn take_over(
    former: Option<&SignerLedgerSpec>,
    records: &[AgentRegistrationSpec],
    to: Address,
    flaw: Option<Flaw>,
) -> Vec<Request> {
    let (mut requests, mut moved) = (Vec::new(), Vec::new());
    for record in records {
        match move_step(former, record, to) {
            MoveStep::Keep => {}
            MoveStep::Write(spec) => requests.push(Request::Record(*spec)),
            MoveStep::Complete(spec) => moved.push(Request::Record(*spec)),
        }
    }
    let touched = former.filter(|_| !moved.is_empty() && flaw != Some(Flaw::MoveWithoutTouch));
    requests
        .extend(touched.map(|former| Request::Ledger(protocol::advance_history(former.clone()))));
    requests.extend(moved);
    requests
}

/// The record and the ledger of an agent that no offer uses any more.
#[must_use]
pub fn retire(
    ledger: Option<&SignerLedgerSpec>,
    record: &AgentRegistrationSpec,
    flaw: Option<Flaw>,
) -> Vec<Request> {
    let Some(spec) = protocol::retired(ledger, record) else {
        return Vec::new();
    };
    let unregistered = spec.result.is_none();
    let mut requests = vec![Request::Record(spec)];
    let touched = ledger.filter(|_| unregistered && flaw != Some(Flaw::RetireWithoutTouch));
    requests
        .extend(touched.map(|ledger| Request::Ledger(protocol::advance_history(ledger.clone()))));
    requests
}

/// The record of an agent that an offer uses again.
#[must_use]
pub fn revive(record: &AgentRegistrationSpec) -> AgentRegistrationSpec {
    protocol::revived(record)
}
