//! Use of the signer's key by something else: a wallet, a script, another operator. Pure.
//!
//! It decides what a transaction is by its content, never by a list of hashes: another replica may
//! have signed it. [`crate::reconcile::registry`] finds the transactions; what follows is decided in
//! [`super::protocol`].

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};

use super::filler;
use super::index::names_key;
use super::protocol::advance_history;
use crate::api::{Key, Nonce, SignerLedgerSpec};
use crate::chain::{AccountTransaction, abi};

/// The transaction in a final block that has a nonce of the signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceUse {
    pub transaction: B256,
    /// Number of its block.
    pub block: u64,
    pub content: Content,
    /// Cost of a filler, in wei; 0 for what the registry does not pay.
    pub cost: u128,
}

/// What a transaction is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// This operator never signs such a transaction, whichever version or replica.
    Foreign,
    /// The filler for the nonce of this key.
    Filler(Key),
    /// Some version of this operator may have signed it for an agent: a registration whose URI names
    /// a key, or another URI for an agent.
    Agent,
}

impl NonceUse {
    /// What a transaction of the account in this block says.
    #[must_use]
    pub fn of(account: Address, block: u64, transaction: &AccountTransaction) -> Self {
        Self {
            transaction: transaction.hash,
            block,
            content: content_of(account, transaction),
            cost: 0,
        }
    }

    /// Whether this operator never signs such a transaction.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        matches!(self.content, Content::Foreign)
    }

    /// Whether nothing of this key can be included at the nonce any more, and nothing of another one
    /// was.
    #[must_use]
    pub fn displaces(&self, key: Key) -> bool {
        self.is_foreign() || self.content == Content::Filler(key)
    }
}

fn content_of(account: Address, transaction: &AccountTransaction) -> Content {
    if transaction.to == Some(account) {
        return filler::named_key(&transaction.input).map_or(Content::Foreign, Content::Filler);
    }
    match abi::registry_call(&transaction.input) {
        Some(abi::RegistryCall::Register { agent_uri }) if names_key(&agent_uri) => Content::Agent,
        Some(abi::RegistryCall::SetAgentUri) => Content::Agent,
        Some(abi::RegistryCall::Register { .. }) | None => Content::Foreign,
    }
}

/// Search for the block that includes the transaction with a nonce, by the transaction count after
/// each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSearch {
    nonce: Nonce,
    /// After this block, the account had sent no transaction with the nonce.
    before: u64,
    /// After this block, it had.
    after: u64,
    /// The block to ask about first.
    guess: Option<u64>,
}

/// The next step of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchStep {
    /// The transaction count after this block is needed.
    AskCount(u64),
    /// This block includes the transaction.
    Found(u64),
}

impl BlockSearch {
    /// A search among the blocks after `before`, up to `after`, at which the nonce was used. `guess` is
    /// a block after which it was probably still free.
    #[must_use]
    pub fn among(nonce: Nonce, (before, after): (u64, u64), guess: Option<u64>) -> Self {
        let before = before.min(after.saturating_sub(1));
        Self {
            nonce,
            before,
            after,
            guess: guess.filter(|guess| (before + 1..after).contains(guess)),
        }
    }

    /// Decides the next step.
    #[must_use]
    pub fn step(&self) -> SearchStep {
        if self.after - self.before <= 1 {
            return SearchStep::Found(self.after);
        }
        let middle = u64::midpoint(self.before, self.after);
        SearchStep::AskCount(self.guess.unwrap_or(middle))
    }

    /// The search after the count at a block is known.
    #[must_use]
    pub fn narrowed(self, block: u64, count: Nonce) -> Self {
        let (before, after) = if count > self.nonce {
            (self.before, block)
        } else {
            (block, self.after)
        };
        Self {
            before,
            after,
            guess: None,
            ..self
        }
    }
}

/// Rule R9: the ledger beyond the final transactions that the operator did not allocate; `None` if
/// one of them is not known to be foreign. That nothing was rolled back must be known besides: then
/// a transaction of a lost allocation may be in flight.
#[must_use]
pub fn beyond_foreign_use(
    ledger: &SignerLedgerSpec,
    finalized: Nonce,
    uses: &BTreeMap<Nonce, NonceUse>,
) -> Option<SignerLedgerSpec> {
    if finalized <= ledger.next {
        return None;
    }
    let mut last_block = ledger.finalized_block;
    for nonce in ledger.next.0..finalized.0 {
        let used = uses.get(&Nonce(nonce)).filter(|used| used.is_foreign())?;
        last_block = last_block.max(used.block);
    }
    Some(advance_history(SignerLedgerSpec {
        next: finalized,
        // An allocation after this write needs an index that contains these transactions.
        finalized_block: last_block,
        ..ledger.clone()
    }))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Bytes;

    use super::*;
    use crate::ledger::fixtures::{SIGNER, STRANGER, hash, key, ledger};

    fn transaction(to: Option<Address>, input: Bytes) -> AccountTransaction {
        AccountTransaction {
            hash: hash(9),
            nonce: Nonce(7),
            to,
            input,
        }
    }

    #[test]
    fn only_what_no_version_signs_is_foreign() {
        let of_key = format!("https://x/agents/{}.json", key('a'));
        let register = |uri: &str| abi::register(uri);
        let set_uri = Bytes::from_static(&[0x0a, 0xf2, 0x8b, 0xd3, 1]);
        let (foreign, agent) = (Content::Foreign, Content::Agent);
        let filler = filler::calldata(key('a'));
        for (to, input, content) in [
            (Some(STRANGER), Bytes::new(), foreign),
            (None, Bytes::from_static(&[0x60]), foreign),
            (Some(STRANGER), register("https://old.example"), foreign),
            (
                Some(STRANGER),
                Bytes::from_static(&[0xf2, 0xc2, 0x98, 0xbe]),
                foreign,
            ),
            (Some(STRANGER), register(&of_key), agent),
            (Some(STRANGER), set_uri, agent),
            // As wallets cancel a transaction.
            (Some(SIGNER), Bytes::new(), foreign),
            (Some(SIGNER), filler.clone(), Content::Filler(key('a'))),
            (Some(STRANGER), filler, foreign),
        ] {
            let label = format!("{to:?} {input}");
            let found = NonceUse::of(SIGNER, 8, &transaction(to, input));
            assert_eq!(found.content, content, "{label}");
            assert_eq!((found.block, found.transaction), (8, hash(9)));
        }
    }

    #[test]
    fn filler_displaces_its_own_key_alone() {
        let used = |content| NonceUse {
            transaction: hash(9),
            block: 8,
            content,
            cost: 0,
        };
        assert!(used(Content::Foreign).displaces(key('a')));
        let filler = used(Content::Filler(key('a')));
        assert!(filler.displaces(key('a')) && !filler.displaces(key('b')));
        assert!(!filler.is_foreign() && !used(Content::Agent).displaces(key('a')));
    }

    /// The block that a search finds if the nonce was used in this one, and the number of questions.
    fn found(mut search: BlockSearch, included: u64) -> (u64, usize) {
        let mut asked = 0;
        loop {
            match search.step() {
                SearchStep::Found(block) => return (block, asked),
                SearchStep::AskCount(block) => {
                    let count = if block >= included { 8 } else { 7 };
                    search = search.narrowed(block, Nonce(count));
                    asked += 1;
                }
            }
        }
    }

    #[test]
    fn search_ends_at_the_block_of_the_transaction() {
        for guess in [None, Some(0), Some(5), Some(19), Some(30)] {
            for included in 4..=20 {
                let search = BlockSearch::among(Nonce(7), (3, 20), guess);
                let (block, asked) = found(search, included);
                assert_eq!(block, included, "{guess:?}");
                assert!(asked <= 6, "{asked}");
            }
        }
        let near = BlockSearch::among(Nonce(7), (0, 1_000_000), Some(999_990));
        assert_eq!(found(near, 999_993), (999_993, 4), "as good as the guess");
        let reversed = BlockSearch::among(Nonce(0), (9, 0), None);
        assert_eq!(reversed.step(), SearchStep::Found(0));
    }

    #[test]
    fn ledger_continues_beyond_foreign_transactions_only() {
        let used = |block, content| NonceUse {
            transaction: hash(9),
            block,
            content,
            cost: 0,
        };
        let foreign = |block| used(block, Content::Foreign);
        let next = ledger().next.0;
        let (first, second) = (Nonce(next), Nonce(next + 1));
        let both = BTreeMap::from([(first, foreign(70)), (second, foreign(71))]);
        let raised = beyond_foreign_use(&ledger(), Nonce(next + 2), &both).unwrap();
        assert_eq!((raised.next, raised.finalized_block), (Nonce(next + 2), 71));
        assert_eq!(raised.entries, ledger().entries);
        assert_ne!(raised.history_hash, ledger().history_hash);

        let of = |finalized, uses| beyond_foreign_use(&ledger(), Nonce(finalized), uses);
        assert_eq!(of(next, &both), None, "nothing was used");
        assert_eq!(of(next + 3, &both), None, "one is not known");
        for ours in [Content::Agent, Content::Filler(key('a'))] {
            let uses = BTreeMap::from([(first, foreign(70)), (second, used(71, ours))]);
            let raised = beyond_foreign_use(&ledger(), Nonce(next + 2), &uses);
            assert_eq!(raised, None, "an allocation was forgotten");
        }
    }
}
