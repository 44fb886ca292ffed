//! Carries out what the ledger, its entries and the records need.
//!
//! Within a pass, records come first, then either pruning or spending: a ledger that has been
//! pruned is newer than the records at hand, and nothing may be allocated from it before they have
//! been read again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Attempt, IdentityRegistry, Key, LedgerMarker, Nonce,
    Suspend,
};
use crate::chain::rpc::SendOutcome;
use crate::chain::{RpcError, abi};
use crate::cluster::Error as ClusterError;
use crate::leader::Leading;
use crate::ledger::evidence::LedgerSnapshot;
use crate::ledger::money::{choose_fees, format_native};
use crate::ledger::protocol::{
    Allocation, AllocationBounds, AllocationRequest, LedgerStep, PendingStep, allocate, payer,
    pending_step, with_attempt, without_entries,
};
use crate::ledger::{BoundNonce, ReadLedger, sender};
use crate::metrics::{ChainReading, RegistrationOutcome};
use crate::reconcile::issues::{OfferIssue, OfferName};
use crate::reconcile::registry::Requeue;
use crate::reconcile::registry::blocked::Blocked;
use crate::reconcile::registry::observe::{
    ChainSnapshot, LedgerView, Ready, RegistryTarget, SignerAccount,
};
use crate::reconcile::registry::plan::{self, EntrySteps, SpendStep};
use crate::reconcile::registry::state::RegistryState;
use crate::reconcile::registry::status::Report;
use crate::reconcile::{Context, Error};
use crate::registration::document::agent_uri;

/// Most markers that a registry's status holds; the schema's limit.
const MOST_MARKERS: usize = 64;
/// How old the numbers of a registry's status may be.
const NUMBERS_EVERY: Duration = Duration::from_secs(60);

/// What the ledger's part of a pass works with.
pub(in crate::reconcile::registry) struct LedgerPass<'a> {
    pub(in crate::reconcile::registry) context: &'a Context,
    pub(in crate::reconcile::registry) leading: &'a Leading,
    pub(in crate::reconcile::registry) registry: &'a IdentityRegistry,
    pub(in crate::reconcile::registry) target: &'a RegistryTarget,
    pub(in crate::reconcile::registry) chain: &'a ChainSnapshot,
    /// Keys that an offer wants registered, and who wants them.
    pub(in crate::reconcile::registry) wanted: &'a BTreeMap<Key, Vec<OfferName>>,
    /// Those of them that may get a nonce.
    pub(in crate::reconcile::registry) allocatable: &'a BTreeSet<Key>,
    pub(in crate::reconcile::registry) state: &'a mut RegistryState,
    pub(in crate::reconcile::registry) report: &'a mut Report,
    pub(in crate::reconcile::registry) issues: &'a mut BTreeMap<OfferName, OfferIssue>,
}

/// What a registration takes at the moment.
#[derive(Clone, Copy)]
struct Quote {
    gas: u64,
    fees: crate::chain::Fees,
}

impl LedgerPass<'_> {
    /// Does what the view asks for.
    pub(in crate::reconcile::registry) async fn run(
        &mut self,
        view: LedgerView,
    ) -> Result<Requeue, Error> {
        match view {
            LedgerView::Watching {
                records,
                adoption_targets,
            } => {
                let mut wrote = false;
                for record in records
                    .iter()
                    .filter(|record| self.target.has(&record.spec))
                {
                    let step = pending_step(
                        None,
                        &record.spec,
                        None,
                        &[],
                        adoption_targets.get(&record.spec.key),
                    );
                    wrote |= self.settle(record, step).await?;
                }
                self.report_numbers(0, None);
                Ok(if wrote { Requeue::Now } else { Requeue::Idle })
            }
            LedgerView::Unready(unready) => self.prepare(*unready).await,
            LedgerView::Ready(ready) => self.ready(*ready).await,
        }
    }

    /// Does what a ledger as a whole needs.
    async fn prepare(
        &mut self,
        unready: (LedgerStep, Option<ReadLedger>),
    ) -> Result<Requeue, Error> {
        let store = &self.context.store;
        match unready {
            (LedgerStep::Create(spec), _) => {
                info!(chain = spec.chain_id, signer = %spec.signer, "creating the signer's ledger");
                match store.create_ledger(self.leading, spec).await {
                    Ok(_) | Err(ClusterError::Exists) => Ok(Requeue::Now),
                    Err(error) => Err(error.into()),
                }
            }
            (LedgerStep::WriteMarker, Some(held)) => {
                self.mark(&held).await?;
                Ok(Requeue::Now)
            }
            (LedgerStep::Activate(spec), Some(held)) => {
                info!(chain = spec.chain_id, signer = %spec.signer, next = %spec.next, "the signer's ledger is active");
                store.replace_ledger(self.leading, held, spec).await?;
                Ok(Requeue::Now)
            }
            (
                LedgerStep::Wait
                | LedgerStep::Ready
                | LedgerStep::WriteMarker
                | LedgerStep::Activate(_),
                _,
            ) => {
                self.report.waiting = Some(
                    "earlier transactions of the signer become final, or the chain's logs are being read",
                );
                Ok(Requeue::Busy)
            }
        }
    }

    /// Writes the ledger's uid to the registry's status, unless another one stands there.
    async fn mark(&self, held: &ReadLedger) -> Result<(), Error> {
        let Some(mut registry) = self
            .context
            .reader
            .cluster_wide::<IdentityRegistry>(&self.target.name)
            .await?
        else {
            return Ok(());
        };
        let signer = format!("{:#x}", held.spec().signer);
        let status = registry.status.get_or_insert_default();
        if status.ledgers.iter().any(|marker| marker.signer == signer)
            || status.ledgers.len() >= MOST_MARKERS
        {
            return Ok(());
        }
        status.ledgers.push(LedgerMarker {
            signer,
            uid: held.uid().to_owned(),
        });
        self.context
            .writer
            .replace_registry_status(self.leading, &registry)
            .await?;
        Ok(())
    }

    async fn ready(&mut self, ready: Ready) -> Result<Requeue, Error> {
        let snapshot = LedgerSnapshot {
            ledger: ready.held.spec(),
            index: &ready.index,
            account: &ready.account_state,
        };
        let target = self.target;
        let steps = plan::entries(
            snapshot,
            &ready.records,
            &ready.evidence,
            |record| target.has(record),
            !self.is_suspended(),
        );
        let under_way = snapshot.ledger.entries.len();
        if let Some(freeze) = &steps.freeze {
            self.report.freeze(freeze.clone());
        }
        self.record(&steps, &ready).await?;
        let (pending, settled) = self.settle_all(snapshot, &ready).await?;
        if !steps.prune.is_empty() {
            let (nonces, blocks) = plan::pruned_nonces(&steps);
            let after = without_entries(snapshot.ledger, &nonces, &blocks, snapshot.account);
            self.report_numbers(under_way - nonces.len(), None);
            self.context
                .store
                .replace_ledger(self.leading, ready.held, after)
                .await?;
            return Ok(Requeue::Now);
        }
        let recorded = settled || !steps.finish.is_empty();
        let may_spend = steps.freeze.is_none() && !self.is_suspended();
        if may_spend
            && !self
                .spend(&ready.held, &steps.spend, &ready.records)
                .await?
        {
            return Ok(Requeue::Busy);
        }
        let bound = self.allocate(ready, pending, may_spend).await?;
        Ok(match (recorded || bound > 0, under_way + bound) {
            (true, _) => Requeue::Now,
            (false, 0) => Requeue::Idle,
            (false, _) => Requeue::Busy,
        })
    }

    /// Writes what became of entries to their records.
    async fn record(&mut self, steps: &EntrySteps, ready: &Ready) -> Result<(), Error> {
        for (key, spec) in &steps.finish {
            let Some(record) = ready.records.get(key) else {
                continue;
            };
            self.context
                .store
                .replace_record(self.leading, record, spec.clone())
                .await?;
            let agent = spec
                .result
                .as_ref()
                .map(|result| result.agent_id.as_str())
                .unwrap_or_default();
            info!(%key, agent, spent = format_native(spec.spent_wei.unwrap_or_default().0), "registered, final");
            self.count(RegistrationOutcome::Registered);
            if let Some(since) = self.state.first_sent.remove(key) {
                self.context
                    .metrics
                    .chain
                    .confirmed(since.elapsed().unwrap_or_default());
            }
        }
        for (key, spec) in &steps.note {
            let Some(record) = ready.records.get(key) else {
                continue;
            };
            self.context
                .store
                .replace_record(self.leading, record, spec.clone())
                .await?;
        }
        Ok(())
    }

    /// Settles every record of this registry that has neither result nor entry. Answers with those
    /// that may get a nonce, the oldest first, and whether anything was written.
    async fn settle_all(
        &mut self,
        snapshot: LedgerSnapshot<'_>,
        ready: &Ready,
    ) -> Result<(Vec<AgentRegistration>, bool), Error> {
        let (mut pending, mut wrote) = (Vec::new(), false);
        for record in ready
            .records
            .values()
            .filter(|record| self.target.has(&record.spec))
        {
            let key = record.spec.key;
            let registrations = ready
                .registrations
                .get(&key)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let step = pending_step(
                Some(snapshot.ledger),
                &record.spec,
                Some(snapshot.index),
                registrations,
                ready.adoption_targets.get(&key),
            );
            match step {
                PendingStep::Allocate if self.allocatable.contains(&key) => {
                    pending.push(record.clone())
                }
                step => wrote |= self.settle(record, step).await?,
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
        Ok((pending, wrote))
    }

    async fn settle(
        &mut self,
        record: &AgentRegistration,
        step: PendingStep,
    ) -> Result<bool, Error> {
        match step {
            PendingStep::Adopt(spec) => {
                let agent = spec
                    .result
                    .as_ref()
                    .map(|result| result.agent_id.as_str())
                    .unwrap_or_default();
                info!(key = %spec.key, agent, "adopting an agent that exists");
                self.context
                    .store
                    .replace_record(self.leading, record, *spec)
                    .await?;
                self.count(RegistrationOutcome::Adopted);
                Ok(true)
            }
            PendingStep::RefuseAdoption(refused) => {
                self.add_issue(record.spec.key, &OfferIssue::AdoptionRefused(refused));
                Ok(false)
            }
            PendingStep::AwaitIndex => {
                self.report.waiting = Some("the chain's logs are being read");
                Ok(false)
            }
            PendingStep::Allocate | PendingStep::Wait => Ok(false),
        }
    }

    /// Signs and sends what entries need, in the order of their nonces. Says whether the endpoint
    /// kept answering.
    async fn spend(
        &mut self,
        held: &ReadLedger,
        spends: &BTreeMap<Nonce, SpendStep>,
        records: &BTreeMap<Key, AgentRegistration>,
    ) -> Result<bool, Error> {
        for (nonce, spend) in spends {
            let Some(bound) = held.bound_nonce(*nonce) else {
                continue;
            };
            let Some(record) = records.get(&bound.key()) else {
                continue;
            };
            // The switch may have been thrown since the pass began.
            if self.is_suspended() {
                return Ok(true);
            }
            let answered = match spend {
                SpendStep::Send(attempt) => self.send(&bound, &record.spec, attempt).await?,
                SpendStep::Sign => self.sign(&bound, record).await?,
            };
            if !answered {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives nonces to those who want one, and signs and sends for them. Answers with how many.
    async fn allocate(
        &mut self,
        ready: Ready,
        pending: Vec<AgentRegistration>,
        may_spend: bool,
    ) -> Result<usize, Error> {
        let snapshot = LedgerSnapshot {
            ledger: ready.held.spec(),
            index: &ready.index,
            account: &ready.account_state,
        };
        let Some(account) = &self.chain.account else {
            return Ok(0);
        };
        let wants = may_spend && !pending.is_empty();
        let numbers_due = self
            .state
            .status_written
            .is_none_or(|written| written.elapsed() >= NUMBERS_EVERY);
        if !wants && !numbers_due {
            self.report_numbers(snapshot.ledger.entries.len(), None);
            return Ok(0);
        }
        let quote = match self.quote(account, &pending).await {
            Ok(quote) => quote,
            Err(error) => {
                self.unanswered(error);
                self.report_numbers(snapshot.ledger.entries.len(), None);
                return Ok(0);
            }
        };
        let cached = self.context.cache.records();
        let spent = match ready.census {
            true => plan::spent(snapshot, ready.records.values(), ready.day),
            false => plan::spent(snapshot, cached.iter().map(AsRef::as_ref), ready.day),
        };
        let limits = &self.target.limits;
        let reservations = plan::reservations(snapshot, &ready.records, limits.per_registration);
        let budget = plan::budget(snapshot, account.balance, &spent, &reservations);
        self.report.spent = Some(
            spent
                .iter()
                .map(|(_, amount)| *amount)
                .fold(0, u128::saturating_add),
        );
        let quote = match quote {
            Ok(quote) => quote,
            Err(issue) => {
                pending
                    .iter()
                    .for_each(|record| self.add_issue(record.spec.key, &issue));
                if let OfferIssue::Shortage(shortage) = issue {
                    self.report.shortage = Some(shortage).filter(|_| wants);
                    self.report.left = Some(0);
                }
                self.report_numbers(snapshot.ledger.entries.len(), self.report.spent);
                return Ok(0);
            }
        };
        let cost = quote.fees.worst_cost(quote.gas);
        self.report.left = Some(budget.registrations_left(limits, cost));
        if !wants {
            self.report_numbers(snapshot.ledger.entries.len(), self.report.spent);
            return Ok(0);
        }
        let requests: Vec<AllocationRequest<'_>> = pending
            .iter()
            .map(|record| AllocationRequest {
                record: &record.spec,
                namespace: payer(&record.spec.identity),
                cost,
            })
            .collect();
        let bounds = AllocationBounds {
            window: self.context.settings.max_in_flight,
            spending: limits,
            budget,
        };
        let allocation = allocate(snapshot, &requests, bounds);
        self.report_numbers(
            snapshot.ledger.entries.len() + allocation.allocated.len(),
            self.report.spent,
        );
        self.bind(ready.held, &ready.records, allocation).await
    }

    /// Writes an allocation, and signs and sends for everyone who got a nonce.
    async fn bind(
        &mut self,
        held: ReadLedger,
        records: &BTreeMap<Key, AgentRegistration>,
        allocation: Allocation,
    ) -> Result<usize, Error> {
        let Allocation {
            ledger,
            allocated,
            shortages,
        } = allocation;
        for (key, shortage) in shortages {
            self.add_issue(key, &OfferIssue::Shortage(shortage));
            if shortage.affects_every_namespace() {
                self.report.shortage = Some(shortage);
            }
        }
        let Some(ledger) = ledger else { return Ok(0) };
        let held = self
            .context
            .store
            .replace_ledger(self.leading, held, ledger)
            .await?;
        let first = allocated.first().map(|(nonce, _)| nonce.0);
        info!(count = allocated.len(), first, "gave out nonces");
        let spends = allocated
            .iter()
            .map(|(nonce, _)| (*nonce, SpendStep::Sign))
            .collect();
        self.spend(&held, &spends, records).await?;
        Ok(allocated.len())
    }

    /// What one more registration takes at the moment.
    async fn quote(
        &self,
        account: &SignerAccount,
        pending: &[AgentRegistration],
    ) -> Result<Result<Quote, OfferIssue>, RpcError> {
        // Keys are of one length, and gas follows from the length of the URI: one estimate serves
        // all.
        let key = pending.first().map_or_else(
            || Key::derive("", 0, self.target.address, 0),
            |record| record.spec.key,
        );
        self.quote_for(account, &agent_uri(self.registry, key))
            .await
    }

    async fn quote_for(
        &self,
        account: &SignerAccount,
        uri: &str,
    ) -> Result<Result<Quote, OfferIssue>, RpcError> {
        let signer = self
            .target
            .signer
            .as_ref()
            .map(crate::chain::TransactionSigner::address)
            .unwrap_or_default();
        let estimate = self
            .chain
            .endpoint
            .estimate_gas(signer, self.target.address, abi::register(uri))
            .await;
        let gas = match estimate {
            // Room for what changes between the estimate and the block: a transaction that runs out
            // of gas costs all of it.
            Ok(gas) => gas.saturating_add(gas / 5),
            Err(RpcError::RpcRefused { message, .. }) => {
                return Ok(Err(OfferIssue::RegistrationWouldRevert { words: message }));
            }
            Err(error) => return Err(error),
        };
        let fees = choose_fees(account.market, &self.target.limits, gas);
        Ok(fees
            .map(|fees| Quote { gas, fees })
            .map_err(OfferIssue::from))
    }

    /// Signs for an entry, stores what was signed, and sends it. Says whether the nonces after it
    /// are worth a try.
    async fn sign(
        &mut self,
        bound: &BoundNonce,
        record: &AgentRegistration,
    ) -> Result<bool, Error> {
        let (Some(signer), Some(account)) = (&self.target.signer, &self.chain.account) else {
            return Ok(true);
        };
        let frozen = record
            .spec
            .agent_uri
            .clone()
            .filter(|_| record.spec.calldata_hash.is_some());
        let uri = frozen.unwrap_or_else(|| agent_uri(self.registry, bound.key()));
        let quote = match self.quote_for(account, &uri).await {
            Ok(Ok(quote)) => quote,
            Ok(Err(issue)) => {
                self.add_issue(bound.key(), &issue);
                return Ok(!matches!(issue, OfferIssue::RegistrationWouldRevert { .. }));
            }
            Err(error) => {
                self.unanswered(error);
                return Ok(false);
            }
        };
        let signed = match sender::sign(signer, bound, &record.spec, &uri, quote.gas, quote.fees) {
            Ok(signed) => signed,
            Err(error) => {
                self.stop(bound, &error);
                return Ok(true);
            }
        };
        let covered = self
            .state
            .index
            .as_ref()
            .and_then(|(_, index, _)| index.proven_to());
        let spec = with_attempt(
            &record.spec,
            signed.attempt.clone(),
            signed.calldata_hash,
            &uri,
            covered,
        );
        let stored = self
            .context
            .store
            .replace_record(self.leading, record, spec)
            .await?;
        self.count(RegistrationOutcome::Signed);
        self.send(bound, &stored.spec, &signed.attempt).await
    }

    /// Sends stored bytes. Says whether the endpoint answered.
    async fn send(
        &mut self,
        bound: &BoundNonce,
        record: &AgentRegistrationSpec,
        attempt: &Attempt,
    ) -> Result<bool, Error> {
        let sent =
            match sender::send(&self.chain.endpoint, self.leading, bound, record, attempt).await {
                Ok(sent) => sent,
                Err(sender::Error::NotLeading(error)) => {
                    return Err(ClusterError::NotLeading(error).into());
                }
                Err(error) => {
                    self.stop(bound, &error);
                    return Ok(true);
                }
            };
        let key = bound.key();
        self.state
            .first_sent
            .entry(key)
            .or_insert_with(SystemTime::now);
        if matches!(sent, SendOutcome::Unanswered(_)) {
            return Ok(false);
        }
        // Once a block is often enough, whatever the endpoint said.
        self.state
            .sent
            .insert(attempt.hash, self.chain.latest.number);
        match sent {
            SendOutcome::Accepted => {
                info!(%key, nonce = %bound.nonce(), transaction = %attempt.hash, "sent");
                self.count(RegistrationOutcome::Sent);
            }
            SendOutcome::Refused { message, .. } => {
                warn!(%key, nonce = %bound.nonce(), words = message, "the endpoint does not take the transaction yet")
            }
            SendOutcome::NonceUsed | SendOutcome::Unanswered(_) => {}
        }
        Ok(true)
    }

    /// The endpoint has stopped answering in the middle of the pass.
    fn unanswered(&mut self, error: RpcError) {
        self.report.blocked = Some(Blocked::Rpc {
            endpoint: self.chain.endpoint.to_string(),
            error,
        });
    }

    /// What is stored contradicts itself: a person has to look.
    fn stop(&mut self, bound: &BoundNonce, error: &sender::Error) {
        let (key, nonce) = (bound.key(), bound.nonce());
        self.report.blocked = Some(Blocked::StoredTransactionMismatch {
            key,
            nonce,
            why: error.to_string(),
        });
    }

    /// Whether the incident switch has been thrown, as far as the cache knows at this moment.
    fn is_suspended(&self) -> bool {
        let current = self.context.cache.registry(&self.target.name);
        current.map_or(self.registry.spec.suspend, |registry| registry.spec.suspend)
            != Suspend::None
    }

    fn add_issue(&mut self, key: Key, issue: &OfferIssue) {
        for offer in self.wanted.get(&key).into_iter().flatten() {
            self.issues.insert(offer.clone(), issue.clone());
        }
    }

    fn count(&self, outcome: RegistrationOutcome) {
        self.context
            .metrics
            .chain
            .registration(self.target.chain_id, outcome);
    }

    /// Tells numbers: to people by the report, and to Prometheus.
    fn report_numbers(&mut self, under_way: usize, spent: Option<u128>) {
        let records = self.context.cache.records();
        let ours: Vec<_> = records
            .iter()
            .filter(|record| self.target.has(&record.spec))
            .collect();
        let agents = ours
            .iter()
            .filter(|record| record.spec.result.is_some())
            .count();
        let pending = ours
            .iter()
            .filter(|record| record.spec.result.is_none() && record.spec.tombstone.is_none())
            .count();
        self.report.agents = Some((agents, pending));
        let keys: BTreeSet<Key> = ours
            .iter()
            .filter(|record| record.spec.result.is_none())
            .map(|record| record.spec.key)
            .collect();
        self.state.first_sent.retain(|key, _| keys.contains(key));
        let oldest = self.state.first_sent.values().min();
        self.context.metrics.chain.observe(
            self.target.chain_id,
            ChainReading {
                head_timestamp: self.chain.latest.timestamp,
                balance: format_native(
                    self.chain
                        .account
                        .as_ref()
                        .map_or(0, |account| account.balance),
                )
                .parse()
                .unwrap_or_default(),
                spent: spent
                    .or(self.report.spent)
                    .map(|wei| format_native(wei).parse().unwrap_or_default()),
                pending: under_way,
                oldest_pending: oldest
                    .and_then(|since| Some(since.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())),
            },
        );
    }
}
