//! Reads the logs of every account that may have registered on the contract. It writes nothing.
//!
//! Who that is, and what the logs prove, is decided in [`crate::ledger::registrants`]; how one
//! account's logs are read, in [`crate::reconcile::registry::index`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, U256};

use super::LedgerInput;
use crate::api::{IdentityRegistry, IndexPosition, Nonce, SignerLedgerSpec};
use crate::chain::RpcError;
use crate::ledger::ReadLedger;
use crate::ledger::index::{IndexOf, IndexStart, OwnerIndex};
use crate::ledger::registrants::{OtherIndex, RegistrantIndexes};
use crate::ledger::unreadable::OtherLedgers;
use crate::reconcile::registry::index::{self, IndexProblem, IndexQuery, IndexReading};
use crate::reconcile::registry::state::RegistryState;

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
        Self {
            indexes: RegistrantIndexes::new(index, others),
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
    Logs::new(kept, owner, None)
}

/// Who besides the ledger's account may have registered, and what is known of their ledgers.
pub(super) struct OtherRegistrants<'a> {
    /// To each account, the block up to which its logs must be proven.
    pub(super) required: BTreeMap<Address, u64>,
    pub(super) ledgers: &'a OtherLedgers,
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
        return Logs::new(own, owner, None);
    };
    state
        .indexes
        .by_account
        .retain(|account, _| *account == owner || others.required.contains_key(account));
    let (mut read, mut is_complete) = (Vec::new(), true);
    for (account, required) in others.required {
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
    Logs::new(own, owner, Some(read))
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
        let of = IndexOf {
            chain_id: self.input.target.contract.chain_id,
            genesis_hash: chain.genesis_hash(),
            registry: self.input.target.contract.address,
            owner,
        };
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
