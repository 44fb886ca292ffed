//! Agents of accounts that nothing in the cluster names. Pure.
//!
//! A rollback can take back everything that names an account: its place in the spec, its ledger, its
//! marker and its records. What it has registered since then is in the chain's logs only, and
//! [`super::registrants`] looks at the logs of the accounts that are known. So before a process
//! gives a first nonce, it reads the `Registered` logs of all accounts once: from the last final
//! block that the ledgers knew when the process first saw them, since what is older is explained by
//! what is stored. An agent that it found is not forgotten with the process: the status of the
//! IdentityRegistry keeps the block from which the next one reads.
//!
//! Anyone can register any URI. So an orphan holds back one record and nothing else, and
//! `spec.bootstrap.ignoreAgents` ends that.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, U256};

use super::index::canonical_key;
use crate::api::{IgnoredAgents, Key, QuarantineReason, SignerLedgerSpec};
use crate::chain::RegisteredEvent;

/// An agent with the URI of a document of this operator, whose account nothing in the cluster names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrphanAgent {
    /// Id that the registry assigned. Zero is a valid id.
    pub agent_id: U256,
    /// The account that registered it.
    pub owner: Address,
    /// Block of the registration.
    pub block: u64,
}

/// The orphans of a registry by the key that their URI names, the first of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans(BTreeMap<Key, OrphanAgent>);

impl Orphans {
    /// The agent that keeps a key from getting a nonce.
    #[must_use]
    pub fn of(&self, key: Key) -> Option<&OrphanAgent> {
        self.0.get(&key)
    }

    /// Each with its key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &OrphanAgent)> {
        self.0.iter()
    }

    /// Block of the first one: the next process has to read from there, to find all of them again.
    #[must_use]
    pub fn first_block(&self) -> Option<u64> {
        self.0.values().map(|orphan| orphan.block).min()
    }
}

/// One reading of the `Registered` logs of all accounts on a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    next_block: u64,
    is_complete: bool,
    /// Agents with the URI of a document, of any account, in chain order.
    agents: Vec<(Key, OrphanAgent)>,
}

impl Sweep {
    /// A sweep of which nothing is read. `known` is the last final block that the ledgers knew,
    /// `orphans_from` the block that the status keeps.
    #[must_use]
    pub fn new(known: u64, orphans_from: Option<u64>) -> Self {
        Self {
            next_block: orphans_from.map_or(known, |block| block.min(known)),
            is_complete: false,
            agents: Vec::new(),
        }
    }

    /// First block whose logs are not read.
    #[must_use]
    pub fn next_block(&self) -> u64 {
        self.next_block
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Adds the registrations up to a block, each with its account. `uri_of` is the URI of a key's
    /// document.
    pub fn extend(
        &mut self,
        to: u64,
        registrations: impl IntoIterator<Item = (Address, RegisteredEvent)>,
        uri_of: impl Fn(Key) -> String,
    ) {
        let of_documents = registrations.into_iter().filter_map(|(owner, event)| {
            let key = canonical_key(&event.agent_uri)?;
            let agent = OrphanAgent {
                agent_id: event.agent_id,
                owner,
                block: event.block,
            };
            (uri_of(key) == event.agent_uri).then_some((key, agent))
        });
        self.agents.extend(of_documents);
        self.next_block = to.saturating_add(1);
    }

    /// Ends the sweep at a block, if it was read up to there.
    pub fn end_at(&mut self, last: u64) {
        self.is_complete |= self.next_block == last.saturating_add(1);
    }

    /// What a complete sweep shows; `None` before. Agents of registrants are in their logs, and a
    /// key that has its agent asks for no other.
    #[must_use]
    pub fn orphans(
        &self,
        registrants: &BTreeSet<Address>,
        registered: &BTreeSet<Key>,
        ignored: Option<&IgnoredAgents>,
    ) -> Option<Orphans> {
        let is_ignored = |agent: &OrphanAgent| {
            let mut ids = ignored.iter().flat_map(|ignored| &ignored.ids);
            ids.any(|id| U256::from_str_radix(id, 10) == Ok(agent.agent_id))
        };
        let is_orphan = |(key, agent): &&(Key, OrphanAgent)| {
            !registrants.contains(&agent.owner) && !registered.contains(key) && !is_ignored(agent)
        };
        let mut orphans = Orphans::default();
        for (key, agent) in self.agents.iter().filter(is_orphan) {
            orphans.0.entry(*key).or_insert_with(|| agent.clone());
        }
        self.is_complete.then_some(orphans)
    }
}

/// The last final block that the ledgers of each chain knew when this process first saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstFinalized(BTreeMap<u64, u64>);

impl FirstFinalized {
    /// Takes note of ledgers that are shown together. What is known of a chain does not change: a
    /// later block would hide what was registered before it.
    pub fn note<'a>(&mut self, ledgers: impl IntoIterator<Item = &'a SignerLedgerSpec>) {
        let mut shown: BTreeMap<u64, u64> = BTreeMap::new();
        for ledger in ledgers {
            let quarantine = ledger.quarantine.as_ref();
            // It knows no block yet.
            if quarantine.is_some_and(|found| found.reason == QuarantineReason::New) {
                continue;
            }
            let known = shown.entry(ledger.chain_id).or_default();
            *known = ledger.finalized_block.max(*known);
        }
        for (chain, block) in shown {
            self.0.entry(chain).or_insert(block);
        }
    }

    #[must_use]
    pub fn of(&self, chain_id: u64) -> Option<u64> {
        self.0.get(&chain_id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LedgerState, Nonce, Quarantine};
    use crate::ledger::fixtures::{SIGNER, STRANGER, key, ledger, registered_event};

    fn uri_of(key: Key) -> String {
        format!("https://agents.example/agents/{key}.json")
    }

    fn registration(owner: Address, id: u64, letter: char) -> (Address, RegisteredEvent) {
        let event = RegisteredEvent {
            agent_id: U256::from(id),
            block: 60 + id,
            ..registered_event(letter)
        };
        (owner, event)
    }

    /// A complete sweep that found these registrations.
    fn swept(registrations: Vec<(Address, RegisteredEvent)>) -> Sweep {
        let mut sweep = Sweep::new(50, None);
        sweep.extend(90, registrations, uri_of);
        sweep.end_at(90);
        sweep
    }

    fn orphans(sweep: &Sweep) -> Orphans {
        let registrants = BTreeSet::from([SIGNER]);
        let found = sweep.orphans(&registrants, &BTreeSet::new(), None);
        found.unwrap()
    }

    #[test]
    fn first_agent_of_an_account_that_nothing_names_is_the_orphan_of_its_key() {
        let sweep = swept(vec![
            registration(SIGNER, 1, 'a'),
            registration(STRANGER, 3, 'b'),
            registration(Address::ZERO, 4, 'b'),
            registration(STRANGER, 2, 'c'),
        ]);
        let orphan = |agent_id, block| OrphanAgent {
            agent_id: U256::from(agent_id),
            owner: STRANGER,
            block,
        };
        let found = orphans(&sweep);
        assert_eq!(found.of(key('a')), None, "it is in the logs of its account");
        assert_eq!(found.of(key('b')), Some(&orphan(3, 63)));
        assert_eq!(found.of(key('c')), Some(&orphan(2, 62)));
        assert_eq!(found.first_block(), Some(62));
        assert_eq!(orphans(&swept(vec![])).first_block(), None);
    }

    #[test]
    fn only_the_exact_uri_of_a_document_makes_an_orphan() {
        let uris = [
            format!("https://other.example/agents/{}.json", key('b')),
            format!("https://agents.example/agents/x/{}.json", key('b')),
            format!("https://agents.example/agents/{}.json#", key('b')),
            "https://agents.example/agents/card.json".to_owned(),
            String::new(),
        ];
        let registrations = uris.into_iter().map(|agent_uri| {
            let event = RegisteredEvent {
                agent_uri,
                ..registered_event('b')
            };
            (STRANGER, event)
        });
        assert_eq!(orphans(&swept(registrations.collect())), Orphans::default());
    }

    #[test]
    fn ignored_agent_and_one_whose_key_is_registered_are_no_orphans() {
        let sweep = swept(vec![
            registration(STRANGER, 7, 'b'),
            registration(STRANGER, 8, 'c'),
        ]);
        let found = |registered: &[char], ignored: Option<&[&str]>| {
            let registered = registered.iter().map(|letter| key(*letter)).collect();
            let ignored = ignored.map(|ids| IgnoredAgents {
                ids: ids.iter().map(|id| (*id).to_owned()).collect(),
                // Agents without a key up to a block, and these have one.
                up_to_block: Some(90),
            });
            let found = sweep.orphans(&BTreeSet::new(), &registered, ignored.as_ref());
            found.unwrap()
        };
        let all = found(&[], None);
        let keys: Vec<Key> = all.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [key('b'), key('c')]);
        assert_eq!(found(&['b', 'c'], None).0.len(), 0);
        let left = found(&[], Some(&["x", "07"]));
        assert!(left.of(key('b')).is_none() && left.of(key('c')).is_some());
        assert_eq!(found(&[], Some(&[])).0.len(), 2);
    }

    #[test]
    fn sweep_shows_nothing_before_it_is_complete() {
        let mut sweep = Sweep::new(50, None);
        let shown = |sweep: &Sweep| sweep.orphans(&BTreeSet::new(), &BTreeSet::new(), None);
        // The endpoint is behind the block from which to read.
        sweep.end_at(40);
        assert_eq!((sweep.next_block(), shown(&sweep)), (50, None));
        sweep.extend(70, vec![registration(STRANGER, 1, 'b')], uri_of);
        sweep.end_at(90);
        assert_eq!((sweep.next_block(), shown(&sweep)), (71, None));
        sweep.extend(90, vec![], uri_of);
        sweep.end_at(90);
        assert!(sweep.is_complete() && shown(&sweep).is_some());
        sweep.end_at(99);
        assert!(sweep.is_complete(), "it is made once");
    }

    #[test]
    fn sweep_begins_where_the_ledgers_or_the_status_say() {
        let begins = |status| Sweep::new(50, status).next_block();
        assert_eq!([None, Some(40), Some(60)].map(begins), [50, 40, 50]);
    }

    #[test]
    fn first_ledgers_of_a_chain_say_which_block_was_known() {
        let of = |chain_id, finalized_block| SignerLedgerSpec {
            chain_id,
            finalized_block,
            ..ledger()
        };
        let new = SignerLedgerSpec {
            state: LedgerState::Quarantine,
            quarantine: Some(Quarantine {
                reason: QuarantineReason::New,
                bound: Nonce(0),
            }),
            ..of(3, 0)
        };
        let rolled_back = SignerLedgerSpec {
            quarantine: Some(Quarantine {
                reason: QuarantineReason::Rollback,
                bound: Nonce(0),
            }),
            ..of(1, 70)
        };
        let mut first = FirstFinalized::default();
        first.note([&rolled_back, &of(1, 50), &of(2, 9), &new]);
        assert_eq!(
            [1, 2, 3].map(|chain| first.of(chain)),
            [Some(70), Some(9), None]
        );
        first.note([&of(1, 90), &of(3, 80)]);
        assert_eq!([1, 3].map(|chain| first.of(chain)), [Some(70), Some(80)]);
    }
}
