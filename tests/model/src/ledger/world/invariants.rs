//! What must hold in every state, and what every state must be able to reach.

use alloy::primitives::B256;

use super::World;
use super::chain::BASE;
use super::pool::{Pool, RecordFacts};
use super::state::{Block, Chain, State};
use crate::ledger::cast::KEYS;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// L1: a key is registered at most once on the canonical chain.
    Once = 1,
    /// L2: a stored result or revert is what the final chain shows.
    TrueResult = 2,
    /// L3: the API server refuses no write of ours.
    Admitted = 3,
    /// L4: a reverted or retired key gets no other transaction.
    Ended = 4,
    /// L5: every state can reach one in which all that offers want is done, or a freeze says why
    /// not.
    Live = 5,
}

impl Invariant {
    /// All invariants.
    pub const ALL: [Self; 5] = [
        Self::Once,
        Self::TrueResult,
        Self::Admitted,
        Self::Ended,
        Self::Live,
    ];

    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Once => "L1",
            Self::TrueResult => "L2",
            Self::Admitted => "L3",
            Self::Ended => "L4",
            Self::Live => "L5",
        }
    }
}

impl World {
    /// The invariant that a state violates.
    pub(super) fn broken(&self, pool: &Pool, state: &State) -> Option<Invariant> {
        if !(0..KEYS).all(|key| self.registrations(pool, &state.chain, key) <= 1) {
            return Some(Invariant::Once);
        }
        let facts = state
            .objects
            .records
            .iter()
            .filter_map(|number| pool.facts(*number));
        let is_true = |facts: RecordFacts| {
            let result = facts
                .result
                .is_none_or(|result| is_registered(pool, &state.chain, result));
            let mut reverted = facts.reverted.into_iter();
            result && reverted.all(|reverted| is_reverted(pool, &state.chain, reverted))
        };
        (!facts.into_iter().all(is_true)).then_some(Invariant::TrueResult)
    }

    /// How often a key is registered on the canonical chain.
    fn registrations(&self, pool: &Pool, chain: &Chain, key: usize) -> usize {
        let blocks = chain.first(chain.height).iter();
        let of_key = blocks.filter(|block| match block {
            Block::Registration {
                transaction,
                reverted: false,
            } => {
                let signed = pool.signed(*transaction);
                signed.is_some_and(|signed| usize::from(signed.key) == key)
            }
            Block::Legacy(_) => key == 0,
            _ => false,
        });
        of_key.count()
    }

    /// Whether all that offers want and that can be signed is done: each key has its outcome, and no
    /// ledger an entry of another one.
    #[must_use]
    pub fn is_done(&self, state: &State) -> bool {
        let pool = self.pool.borrow();
        let wanted = Self::all_wanted(state);
        // Its offer says why, and a nonce that nothing else waits for is not filled.
        let is_refused = |key: usize| state.refused & (1 << key) != 0;
        let has_outcome =
            |facts: RecordFacts| facts.result.is_some() && !facts.is_retired || facts.is_reverted;
        let outcomes = (0..KEYS).filter(|key| wanted & (1 << key) != 0).all(|key| {
            is_refused(key)
                || pool
                    .facts(state.objects.records[key])
                    .is_some_and(has_outcome)
        });
        let ledgers = state.objects.ledgers.iter();
        let entries = ledgers
            .filter_map(|ledger| pool.ledger(ledger.spec))
            .flat_map(|ledger| ledger.entries.values());
        let mut keys = entries.map(|entry| entry.key.and_then(|key| self.cast.key(key)));
        outcomes && keys.all(|key| key.is_some_and(is_refused))
    }
}

/// Whether the final chain shows a revert.
fn is_reverted(pool: &Pool, chain: &Chain, (hash, block): (B256, u64)) -> bool {
    let found = pool
        .signed_by_hash(hash)
        .and_then(|signed| chain.find(signed));
    found.is_some_and(|(at, reverted)| {
        reverted && at < chain.finalized && block == BASE + 1 + u64::from(at)
    })
}

/// Whether the final chain shows a result.
fn is_registered(pool: &Pool, chain: &Chain, (hash, block, agent): (B256, u64, u64)) -> bool {
    let Some((at, false)) = pool
        .signed_by_hash(hash)
        .and_then(|signed| chain.find(signed))
    else {
        return false;
    };
    let before = chain.first(at).iter().filter(|block| {
        matches!(
            block,
            Block::Registration {
                reverted: false,
                ..
            } | Block::Gift(_)
                | Block::Legacy(_)
        )
    });
    at < chain.finalized && block == BASE + 1 + u64::from(at) && agent == before.count() as u64
}
