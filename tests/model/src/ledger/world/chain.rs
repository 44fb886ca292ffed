//! What the chain of a state answers to a replica, in the real types.
//!
//! One block holds one transaction. An answer about final blocks never changes; one about later
//! blocks is of the moment at which it is asked.

use std::sync::Arc;

use alloy::primitives::{Address, B256, U256};
use serviceoffer::api::Nonce;
use serviceoffer::decisions::evidence::{AccountState, OwnerBalance};
use serviceoffer::decisions::foreign::{Content, NonceUse};
use serviceoffer::decisions::index::{IndexStart, OwnerIndex};
use serviceoffer::decisions::questions::{Answers, Questions};
use serviceoffer::decisions::{LogPage, OnChainAgent, Receipt, RegisteredEvent, TransactionCounts};

use super::pool::Pool;
use super::state::{Block, Chain, HEIGHT};
use crate::ledger::cast::{CONTRACT, Cast};
use crate::ledger::flaws::Flaw;
use crate::ledger::view::ChainAnswers;

/// Number of the block before the first one of a world.
pub const BASE: u64 = 100;
/// Base fees by level.
pub const BASE_FEES: [u128; 2] = [10, 100];
/// Cost of every transaction.
const COST: u128 = 7;

/// Which logs an endpoint leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Logs {
    #[default]
    All,
    /// All `Registered` logs are missing, the transfers are there.
    WithoutRegistrations,
    None,
}

impl Chain {
    /// Adds a block.
    pub fn push(&mut self, block: Block) {
        self.blocks[usize::from(self.height)] = block;
        self.height += 1;
    }

    /// Removes the latest block, unless it is final.
    pub fn pop(&mut self) -> bool {
        let is_open = self.height > self.finalized;
        if is_open {
            self.height -= 1;
            self.blocks[usize::from(self.height)] = Block::None;
        }
        is_open
    }

    /// Whether there is room for another block.
    #[must_use]
    pub fn has_room(&self) -> bool {
        usize::from(self.height) < HEIGHT
    }

    /// The first blocks.
    #[must_use]
    pub fn first(&self, count: u8) -> &[Block] {
        &self.blocks[..usize::from(count)]
    }

    /// How many transactions an account has in the first blocks.
    #[must_use]
    pub fn count(&self, pool: &Pool, account: u8, blocks: u8) -> u8 {
        let own = self.first(blocks).iter().filter(|block| match block {
            Block::Registration { transaction, .. } | Block::Filler(transaction) => pool
                .signed(*transaction)
                .is_some_and(|signed| signed.account == account),
            Block::Foreign(by) | Block::Legacy(by) => *by == account,
            Block::Gift(_) | Block::None => false,
        });
        u8::try_from(own.count()).unwrap_or(u8::MAX)
    }

    /// Position of a transaction.
    #[must_use]
    pub fn find(&self, transaction: u8) -> Option<(u8, bool)> {
        let found =
            self.first(self.height)
                .iter()
                .enumerate()
                .find_map(|(at, block)| match block {
                    Block::Registration {
                        transaction: found,
                        reverted,
                    } if *found == transaction => Some((at, *reverted)),
                    _ => None,
                });
        found.and_then(|(at, reverted)| Some((u8::try_from(at).ok()?, reverted)))
    }
}

/// Hash of a block.
#[must_use]
pub fn block_hash(number: u64) -> B256 {
    U256::from(number).into()
}

fn number_of(at: usize) -> u64 {
    BASE + 1 + at as u64
}

/// The answers to one replica, which knows the chain up to a final block.
pub struct Answering<'a> {
    pub pool: &'a Pool,
    pub cast: &'a Cast,
    pub chain: Chain,
    pub sent: u64,
    /// Number of final blocks that the replica knows.
    pub finalized: u8,
    pub logs: Logs,
    pub flaw: Option<Flaw>,
}

/// One agent.
struct Agent {
    /// Block in which it came to be.
    block: u64,
    owner: usize,
    /// `None` if its owner did not register it.
    event: Option<RegisteredEvent>,
}

impl Answering<'_> {
    /// Agents in the first blocks, by their ids.
    fn agents(&self, blocks: u8) -> Vec<Agent> {
        let mut agents = Vec::new();
        for (at, block) in self.chain.first(blocks).iter().enumerate() {
            let (owner, registered) = match block {
                Block::Registration {
                    transaction,
                    reverted: false,
                } => {
                    let Some(signed) = self.pool.signed(*transaction) else {
                        continue;
                    };
                    let Some(uri) = signed.uri.clone() else {
                        continue;
                    };
                    let registered = (uri, signed.attempt.hash);
                    (usize::from(signed.account), Some(registered))
                }
                Block::Legacy(account) => {
                    let uri = "https://legacy.example/agent-registration.json".to_owned();
                    (usize::from(*account), Some((uri, B256::repeat_byte(0xee))))
                }
                Block::Gift(account) => (usize::from(*account), None),
                _ => continue,
            };
            let (number, agent_id) = (number_of(at), U256::from(agents.len()));
            let event = registered.map(|(agent_uri, transaction)| RegisteredEvent {
                agent_id,
                agent_uri,
                transaction,
                block: number,
                block_hash: block_hash(number),
            });
            agents.push(Agent {
                block: number,
                owner,
                event,
            });
        }
        agents
    }

    /// State of an account: its counts at the known final block and at the latest one.
    #[must_use]
    pub fn account(&self, account: usize, fee: u8, counts: Option<(u8, u8)>) -> AccountState {
        let by = u8::try_from(account).unwrap_or_default();
        let counted = |blocks| self.chain.count(self.pool, by, blocks);
        let (finalized, latest) =
            counts.unwrap_or_else(|| (counted(self.finalized), counted(self.chain.height)));
        let agents = self.agents(self.finalized);
        let held = agents.iter().filter(|agent| agent.owner == account).count();
        AccountState {
            counts: TransactionCounts {
                finalized: Nonce(finalized.into()),
                latest: Nonce(latest.into()),
                // A pool may forget everything.
                pending: Nonce(latest.into()),
            },
            finalized_block: BASE + u64::from(self.finalized),
            base_fee: BASE_FEES[usize::from(fee)],
            balance_of_owner: Some(OwnerBalance {
                registry: CONTRACT,
                held: U256::from(held),
            }),
        }
    }

    /// Transactions of an account in all blocks.
    #[must_use]
    pub fn latest_count(&self, account: u8) -> Nonce {
        let count = self.chain.count(self.pool, account, self.chain.height);
        Nonce(count.into())
    }

    fn page(&self, owner: usize, from: u64) -> LogPage {
        let agents = self.agents(self.finalized);
        let owned = agents
            .iter()
            .filter(|agent| agent.owner == owner && agent.block >= from);
        let mut page = LogPage {
            from,
            to: BASE + u64::from(self.finalized),
            ..LogPage::default()
        };
        for agent in owned.filter(|_| self.logs != Logs::None) {
            match &agent.event {
                None => page.received += 1,
                Some(event) if self.logs == Logs::All => {
                    page.mints.push(event.agent_id);
                    page.registrations.push(event.clone());
                }
                Some(_) if self.flaw == Some(Flaw::MintsUnchecked) => page.received += 1,
                Some(event) => page.mints.push(event.agent_id),
            }
        }
        page
    }
}

impl ChainAnswers for Answering<'_> {
    fn index(&self, account: Address, start: IndexStart) -> Option<Arc<OwnerIndex>> {
        let mut index = OwnerIndex::new(account, start.block, start.held);
        let owner = self.cast.account(account)?;
        let page = self.page(owner, start.block);
        if page.to >= page.from {
            index.extend(page).ok()?;
        }
        let agents = self.agents(self.finalized);
        let held = agents.iter().filter(|agent| agent.owner == owner).count();
        let balance = match self.flaw {
            Some(Flaw::BalanceUnchecked) => index.held(),
            _ => U256::from(held),
        };
        index.verify_balance(balance).then(|| Arc::new(index))
    }

    fn used_by(&self, account: Address, nonce: Nonce) -> Option<NonceUse> {
        let account = u8::try_from(self.cast.account(account)?).ok()?;
        let counted = |blocks| u64::from(self.chain.count(self.pool, account, blocks));
        let at = (0..self.finalized).find(|at| counted(at + 1) > nonce.0)?;
        let block = self.chain.first(self.finalized).get(usize::from(at))?;
        Some(NonceUse {
            transaction: B256::repeat_byte(0xfe),
            block: number_of(at.into()),
            content: match block {
                Block::Registration { .. } => Content::Agent,
                Block::Filler(transaction) => {
                    let signed = self.pool.signed(*transaction)?;
                    Content::Filler(self.cast.keys[usize::from(signed.key)])
                }
                _ => Content::Foreign,
            },
            cost: COST,
        })
    }

    fn unused(&self, account: Address) -> Option<IndexStart> {
        let account = self.cast.account(account)?;
        let by = u8::try_from(account).ok()?;
        let is_unused = self.chain.count(self.pool, by, self.finalized) == 0;
        let held = self.account(account, 0, None).balance_of_owner?.held;
        is_unused.then_some(IndexStart {
            block: BASE + u64::from(self.finalized) + 1,
            held,
            is_configured: false,
        })
    }

    fn answer(&self, questions: &Questions) -> Answers {
        let mut answers = Answers::default();
        for hash in &questions.receipts {
            let signed = self.pool.signed_by_hash(*hash);
            let found = signed.and_then(|signed| self.chain.find(signed));
            let receipt = found.map(|(at, reverted)| {
                let block = number_of(at.into());
                Receipt {
                    succeeded: !reverted,
                    block,
                    block_hash: Some(block_hash(block)),
                    cost: COST,
                }
            });
            answers.receipts.insert(*hash, Ok(receipt));
        }
        for hash in &questions.transactions {
            let signed = self
                .pool
                .signed_by_hash(*hash)
                .and_then(|signed| self.pool.signed(signed));
            let known = signed.map(|signed| {
                let sender = self.cast.address(signed.account.into());
                (sender, Nonce(signed.nonce.into()))
            });
            answers.transactions.insert(*hash, Ok(known));
        }
        let agents = self.agents(self.finalized);
        for id in &questions.agents {
            let at = usize::try_from(*id).ok();
            let known = at.and_then(|at| agents.get(at)).map(|agent| OnChainAgent {
                owner: self.cast.address(agent.owner),
                uri: agent
                    .event
                    .as_ref()
                    .map(|event| event.agent_uri.clone())
                    .unwrap_or_default(),
                uri_hash: B256::ZERO,
            });
            answers.agents.insert(*id, Ok(known));
        }
        answers
    }

    fn was_sent(&self, hash: B256) -> bool {
        let signed = self.pool.signed_by_hash(hash);
        signed.is_some_and(|signed| self.sent & (1 << signed) != 0)
    }
}
