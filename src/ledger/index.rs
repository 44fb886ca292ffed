//! The owner-log index: every final registration that one account made on one registry (rule R11).
//! Pure.
//!
//! It proves that a key is *not* registered, so no log may be missing. It is built from pages of
//! logs, in order and without gaps, up to a finalized block. It counts as proven only if every mint
//! has its `Registered` log, and if the number of agents that its logs account for equals the
//! owner's `balanceOf` in the registry at that same block.
//!
//! Its position survives a restart in the IdentityRegistry's status, its logs do not. An index that
//! continues at a position knows which keys are registered below it, because the records name the
//! same keys; it never proves one of them absent, not even after its record was deleted.
//!
//! An agent whose URI names no key may be of any offer. The index lists those, see
//! [`super::registrants::unclaimed_agents`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::api::{
    AgentCount, AgentRegistrationSpec, AgentWithoutKey, IndexPosition, Key, SignerLedgerSpec,
};
use crate::chain::{LogPage, RegisteredEvent};

/// How many blocks reading advances before its position is worth a write, if nothing else changed.
const STORED_EVERY: u64 = 5_000;
/// Maximum positions in a registry's status; the limit of the schema.
const MAX_POSITIONS: usize = 8;

/// Maximum agents without a key in a position; the limit of the schema.
const MAX_WITHOUT_KEY: usize = 32;
/// Maximum characters of the URI of an agent without a key.
const SHOWN_URI: usize = 200;

/// Why a page of logs cannot be added to an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageRejected {
    /// It does not continue the index: a page was lost or repeated.
    #[error("the index expects blocks from {expected} on and got blocks {from} to {to}")]
    IndexGap { expected: u64, from: u64, to: u64 },
    /// The page shows the mint of an agent, and not its registration: a log is missing.
    #[error("agent {agent_id} was minted and its Registered log is missing")]
    MintWithoutRegistration {
        agent_id: U256,
        /// Agents that the owner holds, by the page's transfers.
        expected: U256,
        /// Agents of these whose logs are complete.
        found: U256,
    },
    /// The owner transferred more agents than it had received: a log is missing.
    #[error("the owner transferred {given} agents and had received {received}")]
    MoreGivenThanReceived { given: U256, received: U256 },
}

/// The contract and the account whose logs an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexOf {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Hash of the chain's first block: two chains may share one id.
    pub genesis_hash: B256,
    /// Address of the registry contract.
    pub registry: Address,
    /// The account that made the registrations.
    pub owner: Address,
}

/// Where reading starts: the account registered nothing before this block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStart {
    /// First block to read.
    pub block: u64,
    /// Agents that the account held before that block.
    pub held: U256,
    /// Whether an operator configured the block. Only the account's transaction count at it proves
    /// that the account registered nothing before.
    pub is_configured: bool,
}

impl IndexStart {
    /// Where the logs of a ledger's account start: at `fromBlock` of the ledger, else at
    /// `bootstrap.fromBlock`, else at block 0. Never at the current block: an account that has a
    /// ledger may have registered.
    #[must_use]
    pub fn of(
        ledger: Option<&SignerLedgerSpec>,
        bootstrap_from_block: Option<u64>,
        registry: Address,
    ) -> Self {
        let recorded = ledger.and_then(|ledger| Some((ledger, ledger.from_block?)));
        let Some((ledger, block)) = recorded else {
            return Self::configured(bootstrap_from_block.unwrap_or_default());
        };
        let lowered = bootstrap_from_block.filter(|configured| *configured < block);
        match (lowered, ledger.from_registry) {
            (Some(lower), _) => Self::configured(lower),
            (None, None) => Self::configured(block),
            // The account had sent no transaction up to and including that block, whose state the
            // balance is of. It counts agents of one contract only.
            (None, Some(counted)) => Self {
                block: block.saturating_add(1),
                held: ledger
                    .from_balance
                    .filter(|_| counted == registry)
                    .unwrap_or_default()
                    .0,
                is_configured: false,
            },
        }
    }

    fn configured(block: u64) -> Self {
        Self {
            block,
            held: U256::ZERO,
            is_configured: block > 0,
        }
    }
}

/// Every final registration of one owner on one registry, up to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerIndex {
    owner: Address,
    from_block: u64,
    next_block: u64,
    /// How many agents the owner holds by the logs so far.
    held: U256,
    /// How many agents the owner registered by the logs so far.
    registered: U256,
    /// Shared by copies until a page adds a registration.
    by_key: Arc<BTreeMap<Key, Vec<RegisteredEvent>>>,
    /// Keys that are registered below the position at which this index continues.
    below: Arc<BTreeSet<Key>>,
    /// Keys of agents whose URI is the one that this operator gives them; `None` once a URI
    /// contains a key elsewhere, which a record need not show.
    canonical: Option<Arc<BTreeSet<Key>>>,
    /// Agents that the owner registered and whose URI names no key as this operator does it.
    without_key: Arc<Vec<AgentWithoutKey>>,
    proven_to: Option<u64>,
}

impl OwnerIndex {
    /// An index of an owner that registered nothing before `from_block`. `held` is how many agents
    /// the owner held by then: an account that has never sent a transaction may still have received
    /// agents.
    #[must_use]
    pub fn new(owner: Address, from_block: u64, held: U256) -> Self {
        Self {
            owner,
            from_block,
            next_block: from_block,
            held,
            registered: U256::ZERO,
            by_key: Arc::default(),
            below: Arc::default(),
            canonical: Some(Arc::default()),
            without_key: Arc::default(),
            proven_to: None,
        }
    }

    /// An index that continues at a stored position. `None` if reading started elsewhere, or if the
    /// records do not show exactly the keys that were registered below the position: then only the
    /// logs show which ones are.
    ///
    /// It proves nothing until [`Self::verify_balance`].
    #[must_use]
    pub fn resume<'a>(
        of: &IndexOf,
        start: &IndexStart,
        position: &IndexPosition,
        records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
    ) -> Option<Self> {
        let without_key = position.without_key.clone()?;
        let keys = matching_keys(of, position, records)?;
        let continues = position.signer == format!("{:#x}", of.owner)
            && position.from_block == start.block
            && position.block >= start.block;
        let keys = Arc::new(keys);
        continues.then(|| Self {
            next_block: position.block,
            held: position.held.0,
            registered: U256::from(keys.len()) + U256::from(without_key.len()),
            below: Arc::clone(&keys),
            canonical: Some(keys),
            without_key: Arc::new(without_key),
            ..Self::new(of.owner, start.block, start.held)
        })
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

    /// How many agents the owner holds by the logs so far.
    #[must_use]
    pub fn held(&self) -> U256 {
        self.held
    }

    /// Whether the owner holds agents that it did not register: others transferred them to it.
    #[must_use]
    pub fn holds_transferred(&self) -> bool {
        self.held > self.registered
    }

    /// Adds the next page of logs.
    ///
    /// # Errors
    /// If the page does not start at [`Self::next_block`], or lacks a log. Then the index is
    /// unchanged.
    pub fn extend(&mut self, page: LogPage) -> Result<(), PageRejected> {
        if page.from != self.next_block || page.to < page.from {
            return Err(PageRejected::IndexGap {
                expected: self.next_block,
                from: page.from,
                to: page.to,
            });
        }
        let received = self
            .held
            .saturating_add(U256::from(page.mints.len()))
            .saturating_add(U256::from(page.received));
        let given = U256::from(page.given);
        // An owner cannot transfer more agents than it received: if the logs say so, some are
        // missing.
        let held = received
            .checked_sub(given)
            .ok_or(PageRejected::MoreGivenThanReceived { given, received })?;
        let registered: BTreeSet<U256> = page
            .registrations
            .iter()
            .map(|registration| registration.agent_id)
            .collect();
        let unregistered = page.mints.iter().filter(|mint| !registered.contains(*mint));
        if let Some(agent_id) = unregistered.clone().next() {
            return Err(PageRejected::MintWithoutRegistration {
                agent_id: *agent_id,
                expected: held,
                found: held.saturating_sub(U256::from(unregistered.count())),
            });
        }
        self.registered += U256::from(page.registrations.len());
        for registration in page.registrations {
            self.add(registration);
        }
        self.held = held;
        self.next_block = page.to.saturating_add(1);
        self.proven_to = None;
        Ok(())
    }

    fn add(&mut self, registration: RegisteredEvent) {
        let keys: Vec<Key> = keys_in(&registration.agent_uri).collect();
        let canonical_key = canonical_key(&registration.agent_uri);
        if canonical_key.is_none() {
            Arc::make_mut(&mut self.without_key).push(agent_without_key(&registration));
        }
        if keys.is_empty() {
            return;
        }
        match (&mut self.canonical, canonical_key) {
            (Some(canonical), Some(key)) => {
                Arc::make_mut(canonical).insert(key);
            }
            (canonical, _) => *canonical = None,
        }
        let by_key = Arc::make_mut(&mut self.by_key);
        for key in keys {
            by_key.entry(key).or_default().push(registration.clone());
        }
    }

    /// Compares the index with the owner's balance in the registry at the last block of the index,
    /// and returns whether they agree. If not, logs are missing and the index proves nothing.
    pub fn verify_balance(&mut self, balance: U256) -> bool {
        let complete = self.held == balance;
        self.proven_to = self.next_block.checked_sub(1).filter(|_| complete);
        complete
    }

    /// Last block up to which the index is proven complete.
    #[must_use]
    pub fn proven_to(&self) -> Option<u64> {
        self.proven_to
    }

    /// Registrations whose URI contains the key, in chain order. An index that continues at a
    /// position does not hold those below it, see [`Self::lacks_logs_of`].
    #[must_use]
    pub fn registrations(&self, key: Key) -> &[RegisteredEvent] {
        self.by_key.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Whether the key is registered below the position at which this index continues: it is
    /// registered, and only reading from the start shows how.
    #[must_use]
    pub fn lacks_logs_of(&self, key: Key) -> bool {
        self.below.contains(&key)
    }

    /// Whether a log shows, or a position says, that the key is registered.
    #[must_use]
    pub fn contains(&self, key: Key) -> bool {
        self.lacks_logs_of(key) || !self.registrations(key).is_empty()
    }

    /// Agents that the owner registered and whose URI names no key, in chain order.
    #[must_use]
    pub fn without_key(&self) -> &[AgentWithoutKey] {
        &self.without_key
    }

    /// What survives a restart of this index; `None` if no record could confirm it, or if more
    /// agents have no key than can be stored.
    #[must_use]
    pub fn position(&self) -> Option<IndexPosition> {
        let keys = self.canonical.as_ref()?;
        if self.without_key.len() > MAX_WITHOUT_KEY {
            return None;
        }
        let count = u32::try_from(keys.len()).ok();
        count.map(|count| IndexPosition {
            signer: format!("{:#x}", self.owner),
            from_block: self.from_block,
            block: self.next_block,
            held: AgentCount(self.held),
            keys: count,
            keys_hash: hash_of(keys),
            without_key: Some(self.without_key.to_vec()),
        })
    }
}

fn agent_without_key(registration: &RegisteredEvent) -> AgentWithoutKey {
    let shown = registration.agent_uri.chars();
    AgentWithoutKey {
        agent_id: registration.agent_id.to_string(),
        agent_uri: shown
            .filter(|letter| !letter.is_control())
            .take(SHOWN_URI)
            .collect(),
        block: registration.block,
    }
}

/// The positions of a registry's status, given the stored ones and where reading is. Those beyond the
/// limit of the schema are read again after a restart.
#[must_use]
pub fn updated_positions(
    stored: &[IndexPosition],
    current: &[IndexPosition],
) -> Vec<IndexPosition> {
    let is_current = |stored: &&IndexPosition| {
        current
            .iter()
            .any(|position| position.signer == stored.signer)
    };
    let others = stored.iter().filter(|stored| !is_current(stored));
    let positions = current.iter().chain(others);
    positions.take(MAX_POSITIONS).cloned().collect()
}

/// Whether one of the current positions differs from the stored one by more than a few blocks.
#[must_use]
pub fn is_worth_storing(stored: &[IndexPosition], current: &[IndexPosition]) -> bool {
    let is_close = |position: &IndexPosition| {
        stored.iter().any(|stored| {
            let advanced = position.block.checked_sub(stored.block);
            let moved = IndexPosition {
                block: position.block,
                ..stored.clone()
            };
            moved == *position && advanced.is_some_and(|blocks| blocks < STORED_EVERY)
        })
    };
    !current.iter().all(is_close)
}

/// The keys that records show to be registered below a position by transactions of its signer on
/// its contract; `None` if their number or hash differs from the position's.
///
/// Records may be read from a cache: whatever it shows, the hash says which keys the chain shows.
#[must_use]
pub fn matching_keys<'a>(
    of: &IndexOf,
    position: &IndexPosition,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
) -> Option<BTreeSet<Key>> {
    let is_below = |record: &&AgentRegistrationSpec| {
        record.is_of(of.chain_id, of.owner)
            && record.registry.address == of.registry
            && record
                .result
                .as_ref()
                .is_some_and(|result| result.transaction.is_some() && result.block < position.block)
    };
    let keys: BTreeSet<Key> = records
        .into_iter()
        .filter(is_below)
        .map(|record| record.key)
        .collect();
    let same =
        u32::try_from(keys.len()) == Ok(position.keys) && hash_of(&keys) == position.keys_hash;
    same.then_some(keys)
}

fn hash_of(keys: &BTreeSet<Key>) -> B256 {
    let text: String = keys.iter().map(Key::as_str).collect();
    keccak256(text)
}

/// Every key that a URI contains, at any position.
fn keys_in(uri: &str) -> impl Iterator<Item = Key> {
    let windows = uri
        .as_bytes()
        .windows(16)
        .filter_map(|window| std::str::from_utf8(window).ok()?.parse().ok());
    windows.collect::<BTreeSet<Key>>().into_iter()
}

/// Whether a URI may be one that this operator registers.
pub(super) fn names_key(uri: &str) -> bool {
    canonical_key(uri).is_some()
}

/// The key in the name of the document, as in every URI that this operator registers.
pub(super) fn canonical_key(uri: &str) -> Option<Key> {
    let (_, name) = uri.rsplit_once('/')?;
    name.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;
    use crate::api::{RegistrationResult, SignerLedgerSpec};
    use crate::ledger::fixtures::{self, SIGNER, hash, key, ledger, log_page};

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
        log_page(from, to, registrations)
    }

    fn empty() -> OwnerIndex {
        OwnerIndex::new(SIGNER, 0, U256::ZERO)
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
    fn empty_index_proves_nothing_at_block_zero() {
        let mut index = empty();
        assert!(index.verify_balance(U256::ZERO));
        assert_eq!(index.proven_to(), None);
    }

    #[test]
    fn unused_account_is_proven_up_to_its_start() {
        let mut index = OwnerIndex::new(SIGNER, 61, U256::from(2));
        assert!(!index.verify_balance(U256::ONE));
        assert!(index.verify_balance(U256::from(2)));
        assert_eq!(index.proven_to(), Some(60));
    }

    #[test]
    fn page_that_leaves_a_gap_is_rejected() {
        let mut index = OwnerIndex::new(Address::ZERO, 5, U256::ZERO);
        for (from, to) in [(4, 9), (6, 9), (5, 4)] {
            assert_eq!(
                index.extend(page(from, to, vec![])),
                Err(PageRejected::IndexGap {
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
    fn mint_without_its_registration_is_rejected() {
        let mut index = empty();
        let lacking = LogPage {
            mints: vec![U256::from(1), U256::from(2), U256::from(3)],
            given: 1,
            ..page(0, 9, vec![registration(2, key('a'))])
        };
        assert_eq!(
            index.extend(lacking),
            Err(PageRejected::MintWithoutRegistration {
                agent_id: U256::from(1),
                expected: U256::from(2),
                found: U256::ZERO,
            })
        );
        assert_eq!(index, empty(), "a rejected page changes nothing");
    }

    #[test]
    fn registration_without_its_mint_does_not_count() {
        let mut index = empty();
        let lacking = LogPage {
            mints: vec![],
            ..page(0, 9, vec![registration(2, key('a'))])
        };
        index.extend(lacking).unwrap();
        assert!(!index.verify_balance(U256::ONE), "logs are missing");
        assert!(index.contains(key('a')));
    }

    #[test]
    fn key_is_found_anywhere_in_the_uri() {
        let mut index = empty();
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
        assert!(!index.contains(key('d')));
    }

    #[test]
    fn key_is_found_between_characters_of_several_bytes() {
        let uri = format!("https://é.example/é{}é", key('a'));
        assert_eq!(keys_in(&uri).collect::<Vec<_>>(), [key('a')]);
    }

    #[test]
    fn index_keeps_all_registrations_of_a_key_in_order() {
        let mut index = empty();
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
        let mut index = empty();
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
        assert_eq!(index.held(), U256::ZERO);
    }

    #[test]
    fn more_agents_given_away_than_received_proves_missing_logs() {
        let mut index = empty();
        let given = LogPage {
            given: 2,
            received: 1,
            ..page(0, 1, vec![])
        };
        assert_eq!(
            index.extend(given),
            Err(PageRejected::MoreGivenThanReceived {
                given: U256::from(2),
                received: U256::ONE
            }),
            "the log of its mint is missing: the key may be on chain"
        );
        assert_eq!(index, empty());
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

    mod start {
        use super::*;

        const REGISTRY: Address = Address::ZERO;

        fn born_at(block: u64) -> SignerLedgerSpec {
            SignerLedgerSpec {
                from_block: Some(block),
                from_balance: Some(AgentCount(U256::from(2))),
                ..ledger()
            }
        }

        fn configured(block: u64) -> IndexStart {
            IndexStart {
                block,
                held: U256::ZERO,
                is_configured: true,
            }
        }

        #[test]
        fn logs_start_after_the_block_of_the_balance() {
            let start = IndexStart {
                block: 61,
                held: U256::from(2),
                is_configured: false,
            };
            let ledger = born_at(60);
            assert_eq!(IndexStart::of(Some(&ledger), None, REGISTRY), start);
            assert_eq!(
                IndexStart::of(Some(&ledger), Some(60), REGISTRY),
                start,
                "a configured block lowers the start, and never raises it"
            );
            let elsewhere = IndexStart {
                held: U256::ZERO,
                ..start
            };
            assert_eq!(
                IndexStart::of(Some(&ledger), None, SIGNER),
                elsewhere,
                "the balance is of another contract"
            );
        }

        #[test]
        fn earlier_configured_block_lowers_the_start() {
            let start = IndexStart::of(Some(&born_at(60)), Some(59), REGISTRY);
            assert_eq!(start, configured(59));
            let lowered = SignerLedgerSpec {
                from_block: Some(59),
                from_balance: Some(AgentCount::default()),
                from_registry: None,
                ..ledger()
            };
            let recorded = IndexStart::of(Some(&lowered), None, REGISTRY);
            assert_eq!(recorded, configured(59));
        }

        #[test]
        fn ledger_without_a_block_is_read_from_the_configured_one_or_zero() {
            let old = SignerLedgerSpec {
                from_block: None,
                from_balance: None,
                from_registry: None,
                ..ledger()
            };
            assert_eq!(IndexStart::of(Some(&old), Some(9), REGISTRY), configured(9));
            for (ledger, block) in [(Some(&old), None), (None, None), (None, Some(0))] {
                assert_eq!(
                    IndexStart::of(ledger, block, REGISTRY),
                    IndexStart::default(),
                    "block 0 needs no proof"
                );
            }
        }
    }

    mod position {
        use super::*;

        const OF: IndexOf = IndexOf {
            chain_id: 31337,
            genesis_hash: fixtures::GENESIS,
            registry: Address::ZERO,
            owner: SIGNER,
        };
        const START: IndexStart = IndexStart {
            block: 5,
            held: U256::ONE,
            is_configured: false,
        };

        /// An index of two keys, read up to block 9.
        fn read() -> OwnerIndex {
            let mut index = OwnerIndex::new(SIGNER, 5, U256::ONE);
            let both = vec![registration(6, key('a')), registration(7, key('b'))];
            index.extend(page(5, 9, both)).unwrap();
            index
        }

        fn registered(letter: char, block: u64) -> AgentRegistrationSpec {
            let result = RegistrationResult {
                block,
                ..fixtures::result(7)
            };
            AgentRegistrationSpec {
                result: Some(result),
                ..fixtures::record(letter)
            }
        }

        fn both() -> Vec<AgentRegistrationSpec> {
            vec![registered('a', 6), registered('b', 7)]
        }

        fn resume(
            position: &IndexPosition,
            records: &[AgentRegistrationSpec],
        ) -> Option<OwnerIndex> {
            OwnerIndex::resume(&OF, &START, position, records)
        }

        #[test]
        fn index_continues_where_the_records_show_the_same_keys() {
            let position = read().position().unwrap();
            assert_eq!((position.block, position.keys), (10, 2));
            let mut index = resume(&position, &both()).unwrap();
            assert_eq!(index.next_block(), 10);
            assert_eq!(index.proven_to(), None, "its balance was not compared yet");
            assert_eq!(index.position(), Some(position));
            index
                .extend(page(10, 12, vec![registration(11, key('c'))]))
                .unwrap();
            assert!(index.verify_balance(U256::from(4)));
            assert_eq!(index.position().unwrap().keys, 3);
        }

        #[test]
        fn key_below_a_position_is_never_absent() {
            let index = resume(&read().position().unwrap(), &both()).unwrap();
            assert!(index.contains(key('a')) && index.lacks_logs_of(key('a')));
            assert!(index.registrations(key('a')).is_empty());
            assert!(!index.contains(key('c')) && !index.lacks_logs_of(key('c')));
            assert!(!read().lacks_logs_of(key('a')));
        }

        #[test]
        fn records_that_differ_do_not_confirm_a_position() {
            let position = read().position().unwrap();
            let a = || registered('a', 6);
            let adopted = |letter, block| {
                let mut record = registered(letter, block);
                record.result.as_mut().unwrap().transaction = None;
                record
            };
            let differing = [
                vec![a()],
                vec![a(), fixtures::record('b')],
                vec![a(), registered('c', 7)],
                vec![a(), registered('b', 10)],
                vec![a(), adopted('b', 7)],
                vec![a(), registered('b', 7), registered('c', 8)],
                vec![
                    a(),
                    AgentRegistrationSpec {
                        chain_id: 1,
                        ..registered('b', 7)
                    },
                ],
                vec![
                    a(),
                    AgentRegistrationSpec {
                        signer: None,
                        ..registered('b', 7)
                    },
                ],
            ];
            for records in differing {
                assert_eq!(resume(&position, &records), None);
            }
            let mut other_contract = both();
            other_contract[1].registry.address = SIGNER;
            assert_eq!(resume(&position, &other_contract), None);
            let later = [both(), vec![registered('c', 10)]].concat();
            assert!(resume(&position, &later).is_some());
        }

        /// The index of two keys, and then as many agents whose URI names no key.
        fn read_without_key(count: u64, uri: &str) -> OwnerIndex {
            let mut index = read();
            let registrations = (0..count).map(|id| RegisteredEvent {
                agent_id: U256::from(100 + id),
                agent_uri: uri.to_owned(),
                ..registration(11, key('c'))
            });
            index.extend(page(10, 12, registrations.collect())).unwrap();
            index
        }

        #[test]
        fn agents_without_key_survive_a_restart() {
            let index = read_without_key(2, "https://old.example");
            let shown = AgentWithoutKey {
                agent_id: "101".into(),
                agent_uri: "https://old.example".into(),
                block: 11,
            };
            assert_eq!(
                (index.without_key().len(), &index.without_key()[1]),
                (2, &shown)
            );
            let position = index.position().unwrap();
            let resumed = resume(&position, &both()).unwrap();
            assert_eq!(resumed.without_key(), index.without_key());
            assert_eq!(resumed.position(), Some(position.clone()));
            let of_older_version = IndexPosition {
                without_key: None,
                ..position
            };
            assert_eq!(resume(&of_older_version, &both()), None);
        }

        #[test]
        fn transferred_agents_are_told_from_registered_ones_after_a_restart() {
            for held in [U256::ZERO, U256::ONE] {
                let mut index = OwnerIndex::new(SIGNER, START.block, held);
                let without_key = RegisteredEvent {
                    agent_uri: "https://old.example".to_owned(),
                    ..registration(8, key('c'))
                };
                let [first, second] = [registration(6, key('a')), registration(7, key('b'))];
                let registrations = vec![first, second, without_key];
                index.extend(page(5, 9, registrations)).unwrap();
                let start = IndexStart { held, ..START };
                let position = index.position().unwrap();
                let resumed = OwnerIndex::resume(&OF, &start, &position, &both()).unwrap();
                for index in [index, resumed] {
                    assert_eq!(index.holds_transferred(), !held.is_zero());
                }
            }
        }

        #[test]
        fn position_holds_a_limited_number_of_agents_without_key() {
            let index = |count| read_without_key(count, "https://old.example");
            assert!(index(32).position().is_some());
            let many = index(33);
            assert_eq!((many.position(), many.without_key().len()), (None, 33));
        }

        #[test]
        fn uri_of_an_agent_without_key_is_shown_in_part() {
            let long = format!("a\n\u{7f}é{}", "b".repeat(300));
            let shown = &read_without_key(1, &long).without_key()[0]
                .agent_uri
                .clone();
            assert!(
                shown.starts_with("aéb") && shown.chars().count() == 200,
                "{shown}"
            );
        }

        #[test]
        fn key_elsewhere_in_a_uri_names_no_agent() {
            let uri = format!("https://{}.example", key('c'));
            let index = read_without_key(1, &uri);
            assert_eq!(index.without_key().len(), 1, "its key may be a coincidence");
            assert!(index.contains(key('c')), "or not");
            assert_eq!(index.position(), None);
        }

        #[test]
        fn transferred_agents_are_held_and_not_registered() {
            let start = || OwnerIndex::new(SIGNER, 5, U256::ZERO);
            let mut own = start();
            let registered = vec![registration(6, key('a'))];
            own.extend(page(5, 9, registered.clone())).unwrap();
            assert!(!own.holds_transferred());
            own.extend(LogPage {
                received: 1,
                ..page(10, 12, vec![])
            })
            .unwrap();
            assert!(own.holds_transferred());
            let resumed = resume(&read().position().unwrap(), &both()).unwrap();
            assert!(resumed.holds_transferred(), "it held one at the start");
        }

        #[test]
        fn position_of_another_start_or_signer_is_dropped() {
            let position = read().position().unwrap();
            let other = [
                IndexPosition {
                    from_block: 4,
                    ..position.clone()
                },
                IndexPosition {
                    signer: format!("{:#x}", fixtures::STRANGER),
                    ..position.clone()
                },
            ];
            for position in other {
                assert_eq!(resume(&position, &both()), None);
            }
            let nothing = IndexPosition {
                block: 4,
                ..OwnerIndex::new(SIGNER, 5, U256::ONE).position().unwrap()
            };
            assert_eq!(resume(&nothing, &[]), None, "it ends before the start");
        }

        #[test]
        fn index_with_a_key_elsewhere_in_a_uri_has_no_position() {
            let mut index = read();
            let foreign = |agent_uri: &str| RegisteredEvent {
                agent_uri: agent_uri.into(),
                ..registration(10, key('c'))
            };
            let plain = foreign("ipfs://x");
            index.extend(page(10, 10, vec![plain])).unwrap();
            assert_eq!(index.position().unwrap().keys, 2, "no key could be in it");
            for uri in [
                format!("ipfs://bafy#{}", key('c')),
                format!("{}.json", key('c')),
                format!("https://agents.example/{}", key('c')),
            ] {
                let mut index = index.clone();
                index.extend(page(11, 11, vec![foreign(&uri)])).unwrap();
                assert_eq!(index.position(), None, "{uri}");
                index
                    .extend(page(12, 12, vec![registration(12, key('d'))]))
                    .unwrap();
                assert_eq!(index.position(), None, "{uri}");
            }
        }

        #[test]
        fn position_is_worth_storing_when_something_changed_or_after_many_blocks() {
            let position = read().position().unwrap();
            let at = |block| IndexPosition {
                block,
                ..position.clone()
            };
            let stored = vec![position.clone()];
            assert_eq!(updated_positions(&stored, &[]), stored);
            assert_eq!(updated_positions(&[], &stored), stored);
            assert_eq!(updated_positions(&stored, &[at(11)]), [at(11)]);
            assert!(!is_worth_storing(&stored, &[at(5_009)]));
            assert!(is_worth_storing(&[], &stored));
            for changed in [
                at(5_010),
                at(9),
                IndexPosition {
                    keys_hash: hash(9),
                    ..at(11)
                },
                IndexPosition {
                    held: AgentCount::default(),
                    ..at(11)
                },
            ] {
                assert!(is_worth_storing(&stored, &[changed]));
            }
        }

        #[test]
        fn positions_of_other_signers_are_kept_up_to_the_limit() {
            let position = read().position().unwrap();
            let of = |number: usize| IndexPosition {
                signer: number.to_string(),
                ..position.clone()
            };
            let stored: Vec<_> = (0..8).map(of).collect();
            let current = [position.clone()];
            let updated = updated_positions(&stored, &current);
            assert_eq!(updated, [&current, &stored[..7]].concat());
            let all: Vec<_> = (0..9).map(of).collect();
            assert_eq!(updated_positions(&[], &all), all[..8]);
            let again = updated_positions(&all[..8], &all);
            assert_eq!(again, all[..8], "nothing to write");
        }
    }
}
