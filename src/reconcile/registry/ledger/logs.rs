//! Reads the logs of every account that may have registered on the contract, and once those of all
//! accounts. It writes nothing.
//!
//! Who that is, and what the logs prove, is decided in [`crate::ledger::registrants`] and
//! [`crate::ledger::sweep`]; how one account's logs are read, in
//! [`crate::reconcile::registry::index`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, U256};
use tracing::warn;

use super::LedgerInput;
use crate::api::{IdentityRegistry, IndexPosition, Key, Nonce, SignerLedgerSpec};
use crate::chain::RpcError;
use crate::chain::scan::ScanStep;
use crate::ledger::ReadLedger;
use crate::ledger::index::{IndexOf, IndexStart, OwnerIndex};
use crate::ledger::registrants::{OtherIndex, RegistrantIndexes};
use crate::ledger::sweep::{Orphans, Sweep};
use crate::ledger::unreadable::OtherLedgers;
use crate::reconcile::registry::index::{self, IndexProblem, IndexQuery, IndexReading, LAG};
use crate::reconcile::registry::state::RegistryState;
use crate::registration::document::agent_uri;

/// How long a pass may read logs; the rest is read in the next one.
const SCAN_BUDGET: Duration = Duration::from_secs(10);

/// The logs of a contract's registrants, as far as this pass read them.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) indexes: RegistrantIndexes,
    /// The ledger's account first.
    readings: Vec<IndexReading>,
}

impl Logs {
    fn new(
        own: IndexReading,
        owner: Address,
        others: Option<Vec<(OtherIndex, IndexReading)>>,
        (orphans, swept): (Option<Orphans>, Option<IndexReading>),
    ) -> Self {
        let index = own.index.clone();
        let index = index.unwrap_or_else(|| Arc::new(OwnerIndex::new(owner, 0, U256::ZERO)));
        let mut readings = vec![own];
        let others = others.map(|others| {
            let others = others.into_iter().map(|(other, reading)| {
                readings.push(reading);
                other
            });
            others.collect()
        });
        readings.extend(swept);
        Self {
            indexes: RegistrantIndexes::new(index, others, orphans),
            readings,
        }
    }

    /// The first reading that is not complete.
    pub(super) fn incomplete(&self) -> Option<&IndexReading> {
        let mut readings = self.readings.iter();
        readings.find(|reading| !reading.is_complete())
    }

    /// Whether more logs can be read at once.
    pub(super) fn are_behind(&self) -> bool {
        self.readings.iter().any(IndexReading::is_behind)
    }

    /// Whether logs were incomplete, and may be complete in the next pass.
    pub(super) fn are_retried_soon(&self) -> bool {
        self.readings.iter().any(|reading| reading.is_retried_soon)
    }

    /// Whether a configured block is accepted without proof.
    pub(super) fn is_start_unverified(&self) -> bool {
        self.readings
            .iter()
            .any(|reading| reading.is_start_unverified)
    }

    /// Where another replica can continue.
    pub(super) fn positions(&self) -> Vec<IndexPosition> {
        let positions = self.readings.iter();
        positions
            .filter_map(|reading| reading.position.clone())
            .collect()
    }
}

/// What earlier passes read of the ledger's account.
pub(super) fn kept(owner: Address, state: &RegistryState) -> Logs {
    let kept = IndexReading::kept(state.indexes.by_account.get(&owner));
    Logs::new(kept, owner, None, (None, None))
}

/// Who besides the ledger's account may have registered, and what is known of their ledgers.
pub(super) struct OtherRegistrants<'a> {
    /// To each account, the block up to which its logs must be proven.
    pub(super) required: BTreeMap<Address, u64>,
    pub(super) ledgers: &'a OtherLedgers,
    /// Whether a record asks for a nonce, so that the logs of all accounts are needed.
    pub(super) must_sweep: bool,
    /// Keys of this registry that have their agents.
    pub(super) registered: BTreeSet<Key>,
}

/// Continues to read the logs of the ledger's account, and of all others if they are known. Those
/// are needed only once its own are complete, and what keeps one reading from ending is likely to
/// keep the next one.
pub(super) async fn read(
    input: &LedgerInput<'_>,
    held: &ReadLedger,
    registry: Option<&IdentityRegistry>,
    others: Option<OtherRegistrants<'_>>,
    state: &mut RegistryState,
) -> Logs {
    let begun = Instant::now();
    let owner = held.spec().signer;
    let of_account = AccountLogs {
        input,
        registry,
        signer: owner,
    };
    let own = of_account
        .read(owner, Some(held.spec()), SCAN_BUDGET, state)
        .await;
    let Some(others) = others.filter(|_| own.is_complete()) else {
        return Logs::new(own, owner, None, (None, None));
    };
    state
        .indexes
        .by_account
        .retain(|account, _| *account == owner || others.required.contains_key(account));
    let (mut read, mut is_complete) = (Vec::new(), true);
    for (&account, &required) in &others.required {
        let ledger = others.ledgers.by_account.get(&account);
        let ledger = ledger.and_then(|ledger| ledger.spec.as_deref());
        let budget = SCAN_BUDGET.saturating_sub(begun.elapsed());
        let reading = if is_complete {
            of_account.read(account, ledger, budget, state).await
        } else {
            IndexReading::kept(state.indexes.by_account.get(&account))
        };
        is_complete &= reading.is_complete();
        let other = OtherIndex {
            account,
            required,
            index: reading.index.clone(),
        };
        read.push((other, reading));
    }
    let swept = if others.must_sweep && is_complete {
        let budget = SCAN_BUDGET.saturating_sub(begun.elapsed());
        Some(sweep(input, held.spec(), registry, budget, state).await)
    } else {
        None
    };
    let orphans = orphans(input, owner, &others, state);
    Logs::new(own, owner, Some(read), (orphans, swept))
}

/// What was read of the logs of all accounts.
#[derive(Debug)]
pub(in crate::reconcile::registry) struct SweepState {
    /// The contract, by the account of the ledger: another chain or account begins a new sweep.
    of: IndexOf,
    sweep: Sweep,
    step: ScanStep,
    /// Whether orphans were logged.
    is_reported: bool,
}

/// Continues to read the logs of all accounts, unless that is done. The last blocks are left out: some
/// nodes behind a load balancer may lack them.
async fn sweep(
    input: &LedgerInput<'_>,
    ledger: &SignerLedgerSpec,
    registry: Option<&IdentityRegistry>,
    budget: Duration,
    state: &mut RegistryState,
) -> IndexReading {
    let chain = input.chain;
    let contract = input.target.contract;
    let of = index_of(input, ledger.signer);
    let known = input
        .context
        .store
        .first_finalized_of(contract.chain_id)
        .unwrap_or(ledger.finalized_block);
    let step = state.indexes.step;
    let swept = state.sweep.take().filter(|swept| swept.of == of);
    let swept = state.sweep.insert(swept.unwrap_or_else(|| {
        let status = registry.and_then(|registry| registry.status.as_ref());
        let orphans_from = status.and_then(|status| status.orphans_from);
        SweepState {
            of,
            sweep: Sweep::new(known, orphans_from),
            step,
            is_reported: false,
        }
    }));
    let last = chain
        .latest
        .number
        .saturating_sub(LAG)
        .max(chain.finalized.number);
    let begun = Instant::now();
    while !swept.sweep.is_complete() {
        let next = swept.sweep.next_block();
        let progress = Some((next, last));
        let Some((from, to)) = swept.step.range(next, last) else {
            swept.sweep.end_at(last);
            break;
        };
        if begun.elapsed() > budget {
            return IndexReading {
                progress,
                ..IndexReading::default()
            };
        }
        let page = chain.endpoint.registrations(contract.address, from, to);
        let failed = match page.await {
            Ok(registrations) => {
                swept.step = swept.step.grown();
                let uri_of = |key| agent_uri(input.registry, key);
                swept.sweep.extend(to, registrations, uri_of);
                continue;
            }
            Err(error) => index::narrowed(swept.step, (from, to), error),
        };
        match failed {
            Ok(narrower) => swept.step = narrower,
            // What was read is kept.
            Err(error) => {
                return IndexReading {
                    progress,
                    problem: Some(error.into()),
                    is_retried_soon: true,
                    ..IndexReading::default()
                };
            }
        }
    }
    // An endpoint that is behind has nothing to read, and catches up.
    IndexReading {
        is_retried_soon: !swept.sweep.is_complete(),
        ..IndexReading::default()
    }
}

/// The agents that keep keys from getting a nonce; `None` if the logs of all accounts are not read.
fn orphans(
    input: &LedgerInput<'_>,
    owner: Address,
    others: &OtherRegistrants<'_>,
    state: &mut RegistryState,
) -> Option<Orphans> {
    let swept = state.sweep.as_mut()?;
    let swept = Some(swept).filter(|swept| swept.of == index_of(input, owner))?;
    let registrants = others.required.keys().copied().chain([owner]).collect();
    let bootstrap = input.target.bootstrap.as_ref();
    let ignored = bootstrap.and_then(|bootstrap| bootstrap.ignore_agents.as_ref());
    let orphans = swept
        .sweep
        .orphans(&registrants, &others.registered, ignored)?;
    if !std::mem::replace(&mut swept.is_reported, true) {
        for (key, orphan) in orphans.iter() {
            warn!(%key, agent = %orphan.agent_id, account = %orphan.owner, "an account that nothing names has registered an agent with the URI of a document of this registry: list it in spec.signers, or the agent in spec.bootstrap.ignoreAgents");
        }
    }
    Some(orphans)
}

fn index_of(input: &LedgerInput<'_>, owner: Address) -> IndexOf {
    IndexOf {
        chain_id: input.target.contract.chain_id,
        genesis_hash: input.chain.genesis_hash(),
        registry: input.target.contract.address,
        owner,
    }
}

/// Reads the logs of single accounts.
#[derive(Clone, Copy)]
struct AccountLogs<'a> {
    input: &'a LedgerInput<'a>,
    registry: Option<&'a IdentityRegistry>,
    /// The ledger's account.
    signer: Address,
}

impl AccountLogs<'_> {
    async fn read(
        self,
        owner: Address,
        ledger: Option<&SignerLedgerSpec>,
        budget: Duration,
        state: &mut RegistryState,
    ) -> IndexReading {
        let chain = self.input.chain;
        let of = index_of(self.input, owner);
        let start = match self.start(&of, ledger, state).await {
            Ok(start) => start,
            Err(error) => {
                return IndexReading {
                    problem: Some(IndexProblem::Rpc(error)),
                    ..IndexReading::default()
                };
            }
        };
        let signer = format!("{owner:#x}");
        let status = self.registry.and_then(|registry| registry.status.as_ref());
        let position = status.and_then(|status| {
            let mut positions = status.indexes.iter();
            positions.find(|position| position.signer == signer)
        });
        let query = IndexQuery {
            of,
            start,
            last: chain.finalized.number,
            position,
            records: &self.input.context.cache.records(),
            budget,
        };
        index::read_index(&chain.endpoint, query, &mut state.indexes).await
    }

    /// Where an account's logs start. One that has no ledger and has sent nothing up to the last
    /// final block has registered nothing before the next one.
    async fn start(
        self,
        of: &IndexOf,
        ledger: Option<&SignerLedgerSpec>,
        state: &RegistryState,
    ) -> Result<IndexStart, RpcError> {
        let bootstrap = self.input.target.bootstrap.as_ref();
        let configured = bootstrap.and_then(|bootstrap| bootstrap.from_block);
        if let Some(ledger) = ledger {
            // The configured block is one of the own signer. Another account that had sent nothing
            // when its ledger was born needs none.
            let is_own = of.owner == self.signer;
            let configured = configured.filter(|_| is_own || ledger.from_registry.is_none());
            return Ok(IndexStart::of(Some(ledger), configured, of.registry));
        }
        let known = state.indexes.by_account.get(&of.owner);
        if let Some(start) = known.and_then(|known| known.start_of(of)) {
            return Ok(start);
        }
        let chain = self.input.chain;
        let block = chain.finalized.number;
        let count = chain
            .endpoint
            .transaction_count_at(of.owner, BlockNumberOrTag::Number(block));
        if count.await? != Nonce(0) {
            return Ok(IndexStart::of(None, configured, of.registry));
        }
        let held = chain
            .endpoint
            .balance_of(of.registry, of.owner, block)
            .await?;
        Ok(IndexStart {
            block: block.saturating_add(1),
            held,
            is_configured: false,
        })
    }
}
