//! The owner-log index: every final registration that one account made on one registry (rule R11).
//! Pure.
//!
//! It proves that a key is *not* registered, so no log may be missing. It is built from pages of
//! logs, in order and without gaps, up to a finalized block. It counts as proven only if the number
//! of agents that its logs account for equals the owner's `balanceOf` in the registry at that same
//! block.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};

use crate::api::Key;
use crate::chain::{LogPage, RegisteredEvent};

/// A page of logs does not continue the index: one was lost or repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index expects blocks from {expected} on and got blocks {from} to {to}")]
pub struct IndexGap {
    expected: u64,
    from: u64,
    to: u64,
}

/// Every final registration of one owner on one registry, up to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerIndex {
    owner: Address,
    next_block: u64,
    /// How many agents the owner holds by the logs so far; `None` once the logs contradict
    /// themselves.
    held: Option<U256>,
    by_key: BTreeMap<Key, Vec<RegisteredEvent>>,
    proven_to: Option<u64>,
}

impl OwnerIndex {
    /// An index of an owner that registered nothing before `first_block`. `held` is how many agents
    /// the owner held by then: an account that has never sent a transaction may still have received
    /// agents.
    #[must_use]
    pub fn new(owner: Address, first_block: u64, held: U256) -> Self {
        Self {
            owner,
            next_block: first_block,
            held: Some(held),
            by_key: BTreeMap::new(),
            proven_to: None,
        }
    }

    /// The account that made the registrations.
    #[must_use]
    pub fn owner(&self) -> Address {
        self.owner
    }

    /// First block that the index does not contain yet.
    #[must_use]
    pub fn next_block(&self) -> u64 {
        self.next_block
    }

    /// Adds the next page of logs.
    ///
    /// # Errors
    /// If the page does not start at [`Self::next_block`].
    pub fn extend(&mut self, page: LogPage) -> Result<(), IndexGap> {
        if page.from != self.next_block || page.to < page.from {
            return Err(IndexGap {
                expected: self.next_block,
                from: page.from,
                to: page.to,
            });
        }
        for registration in page.registrations {
            for key in keys_in(&registration.agent_uri) {
                self.by_key
                    .entry(key)
                    .or_default()
                    .push(registration.clone());
            }
        }
        // An owner cannot transfer more agents than it received: if the logs say so, some are
        // missing permanently.
        self.held = self.held.and_then(|held| {
            let received = U256::from(page.mints.len()) + U256::from(page.received);
            (held + received).checked_sub(U256::from(page.given))
        });
        self.next_block = page.to + 1;
        self.proven_to = None;
        Ok(())
    }

    /// Compares the index with the owner's balance in the registry at the last block of the index,
    /// and returns whether they agree. If not, logs are missing and the index proves nothing.
    pub fn verify_balance(&mut self, balance: U256) -> bool {
        let complete = self.held == Some(balance);
        self.proven_to = self.next_block.checked_sub(1).filter(|_| complete);
        complete
    }

    /// Last block up to which the index is proven complete.
    #[must_use]
    pub fn proven_to(&self) -> Option<u64> {
        self.proven_to
    }

    /// Registrations whose URI contains the key, in chain order.
    #[must_use]
    pub fn registrations(&self, key: Key) -> &[RegisteredEvent] {
        self.by_key.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// Every key that a URI contains, at any position.
fn keys_in(uri: &str) -> impl Iterator<Item = Key> {
    let windows = uri
        .as_bytes()
        .windows(16)
        .filter_map(|window| std::str::from_utf8(window).ok()?.parse().ok());
    windows
        .collect::<std::collections::BTreeSet<Key>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    fn key(letter: char) -> Key {
        letter.to_string().repeat(16).parse().unwrap()
    }

    fn registration(block: u64, key: Key) -> RegisteredEvent {
        RegisteredEvent {
            agent_id: U256::from(block),
            agent_uri: format!("https://agents.example/agents/{key}.json"),
            transaction: B256::repeat_byte(1),
            block,
            block_hash: B256::repeat_byte(2),
        }
    }

    fn page(from: u64, to: u64, registrations: Vec<RegisteredEvent>) -> LogPage {
        let received = registrations.len() as u64;
        LogPage {
            from,
            to,
            registrations,
            received,
            ..LogPage::default()
        }
    }

    #[test]
    fn index_proves_nothing_until_the_balance_agrees() {
        let mut index = OwnerIndex::new(Address::ZERO, 5, U256::ZERO);
        assert_eq!(
            (index.proven_to(), index.next_block(), index.owner()),
            (None, 5, Address::ZERO)
        );
        index
            .extend(page(5, 9, vec![registration(7, key('a'))]))
            .unwrap();
        assert_eq!(index.proven_to(), None);
        assert!(!index.verify_balance(U256::ZERO));
        assert_eq!(index.proven_to(), None);
        assert!(index.verify_balance(U256::ONE));
        assert_eq!(index.proven_to(), Some(9));
        index.extend(page(10, 10, vec![])).unwrap();
        assert_eq!(
            index.proven_to(),
            None,
            "a proof up to block 9 says nothing about block 10"
        );
        assert!(index.verify_balance(U256::ONE));
        assert_eq!((index.proven_to(), index.next_block()), (Some(10), 11));
    }

    #[test]
    fn empty_index_proves_nothing() {
        let mut index = OwnerIndex::new(Address::ZERO, 0, U256::ZERO);
        assert!(index.verify_balance(U256::ZERO));
        assert_eq!(index.proven_to(), None);
    }

    #[test]
    fn page_that_leaves_a_gap_is_rejected() {
        let mut index = OwnerIndex::new(Address::ZERO, 5, U256::ZERO);
        for (from, to) in [(4, 9), (6, 9), (5, 4)] {
            assert_eq!(
                index.extend(page(from, to, vec![])),
                Err(IndexGap {
                    expected: 5,
                    from,
                    to
                })
            );
        }
        assert_eq!(index.next_block(), 5);
        assert!(index.extend(page(5, 5, vec![])).is_ok());
    }

    #[test]
    fn key_is_found_anywhere_in_the_uri() {
        let mut index = OwnerIndex::new(Address::ZERO, 0, U256::ZERO);
        let elsewhere = RegisteredEvent {
            agent_uri: format!("ipfs://bafy#{}", key('b')),
            ..registration(2, key('x'))
        };
        let both = RegisteredEvent {
            agent_uri: format!("{}{}", key('c'), key('c')),
            ..registration(3, key('x'))
        };
        let first = registration(1, key('a'));
        index
            .extend(page(
                0,
                3,
                vec![first.clone(), elsewhere.clone(), both.clone()],
            ))
            .unwrap();
        assert_eq!(index.registrations(key('a')), [first]);
        assert_eq!(index.registrations(key('b')), [elsewhere]);
        assert_eq!(
            index.registrations(key('c')),
            [both],
            "once, even if the URI repeats the key"
        );
        assert!(index.registrations(key('d')).is_empty());
    }

    #[test]
    fn index_keeps_all_registrations_of_a_key_in_order() {
        let mut index = OwnerIndex::new(Address::ZERO, 0, U256::ZERO);
        index
            .extend(page(0, 1, vec![registration(1, key('a'))]))
            .unwrap();
        index
            .extend(page(2, 2, vec![registration(2, key('a'))]))
            .unwrap();
        let blocks: Vec<u64> = index
            .registrations(key('a'))
            .iter()
            .map(|registration| registration.block)
            .collect();
        assert_eq!(blocks, [1, 2]);
    }

    #[test]
    fn transferred_agents_count_in_the_balance() {
        let mut index = OwnerIndex::new(Address::ZERO, 0, U256::ZERO);
        index
            .extend(LogPage {
                received: 3,
                given: 1,
                ..page(0, 1, vec![])
            })
            .unwrap();
        assert!(!index.verify_balance(U256::from(3)));
        assert!(index.verify_balance(U256::from(2)));
        index
            .extend(LogPage {
                given: 2,
                ..page(2, 2, vec![])
            })
            .unwrap();
        assert!(index.verify_balance(U256::ZERO));
    }

    #[test]
    fn more_agents_given_away_than_received_proves_missing_logs() {
        let mut index = OwnerIndex::new(Address::ZERO, 0, U256::ZERO);
        index
            .extend(LogPage {
                given: 1,
                ..page(0, 1, vec![])
            })
            .unwrap();
        assert!(
            !index.verify_balance(U256::ZERO),
            "the log of its mint is missing: the key may be on chain"
        );
        index
            .extend(LogPage {
                received: 1,
                ..page(2, 2, vec![])
            })
            .unwrap();
        assert!(
            !index.verify_balance(U256::ZERO),
            "an agent received later does not replace the missing log"
        );
    }

    #[test]
    fn agents_held_before_the_first_block_count() {
        let mut index = OwnerIndex::new(Address::ZERO, 5, U256::from(2));
        index
            .extend(page(5, 9, vec![registration(7, key('a'))]))
            .unwrap();
        assert!(!index.verify_balance(U256::ONE));
        assert!(index.verify_balance(U256::from(3)));
    }
}
