//! Which accounts may have registered agents on a chain, and whether the logs of all of them prove
//! a key absent (rule R11). Pure.
//!
//! An agent outlives the spec that made it: its signer is removed from the spec, its record or its
//! ledger is deleted, and the agent stands. So everything that still names an account counts: the
//! signers of the IdentityRegistry, ledgers, ledger markers and records. A key is absent only if
//! the logs of each of them are proven and contain no registration of it, and if it has no orphan
//! ([`super::sweep`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, U256};

use super::evidence::UnknownPremise;
use super::index::OwnerIndex;
use super::sweep::{OrphanAgent, Orphans};
use super::unreadable::{OtherLedgers, UnreadableRecord};
use crate::api::{
    AgentRegistrationSpec, AgentWithoutKey, IgnoredAgents, Key, LedgerMarker, Nonce, SignerLedger,
    SignerLedgerSpec,
};
use crate::chain::RegisteredEvent;

/// Everything besides a ledger that names accounts of its chain. Read after the ledger.
#[derive(Clone, Copy, Debug)]
pub struct NamedAccounts<'a> {
    /// Accounts in `spec.signers` of the IdentityRegistry.
    pub signers: &'a [Address],
    /// Ledger markers of the IdentityRegistry.
    pub own_markers: &'a [LedgerMarker],
    /// Ledger markers of all IdentityRegistries of the chain.
    pub markers: &'a [LedgerMarker],
    /// Accounts that have signed for an agent, by the records.
    pub used: &'a BTreeSet<Address>,
    /// The other ledgers of the chain.
    pub others: &'a OtherLedgers,
    /// Records that cannot be decoded.
    pub unreadable_records: &'a [UnreadableRecord],
}

/// Accounts that an IdentityRegistry with these signers and ledger markers uses or has used.
#[must_use]
pub fn own_accounts(signers: &[Address], markers: &[LedgerMarker]) -> BTreeSet<Address> {
    signers.iter().copied().chain(marked(markers)).collect()
}

/// Accounts that ledger markers name.
fn marked(markers: &[LedgerMarker]) -> impl Iterator<Item = Address> {
    let signers = markers.iter().map(|marker| marker.signer.parse());
    signers.filter_map(Result::ok)
}

/// Uids of the ledger of an account that markers name.
pub fn uids_of<'a>(
    markers: impl IntoIterator<Item = &'a LedgerMarker>,
    account: Address,
) -> impl Iterator<Item = &'a str> {
    let own = markers.into_iter();
    let own = own.filter(move |marker| marker.signer.parse() == Ok(account));
    own.map(|marker| marker.uid.as_str())
}

/// The accounts besides the ledger's own that may have registered agents on its chain. To each, the
/// block up to which its logs must be proven: the last final one that any of the two ledgers knows.
#[must_use]
pub fn other_registrants<'a>(
    ledger: &SignerLedgerSpec,
    named: NamedAccounts<'_>,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
) -> BTreeMap<Address, u64> {
    let of_chain = records
        .into_iter()
        .filter(|record| record.chain_id == ledger.chain_id);
    let signers = of_chain.filter_map(|record| record.signer);
    let unreadable = named.unreadable_records.iter();
    let unreadable = unreadable
        .filter(|record| record.chain_id.is_none_or(|chain| chain == ledger.chain_id))
        .filter_map(|record| record.signer);
    let ledgers = named.others.by_account.iter();
    let finalized = ledgers.map(|(account, other)| (*account, other.finalized_block));
    let mut registrants: BTreeMap<Address, u64> = named
        .signers
        .iter()
        .copied()
        .chain(marked(named.markers))
        .chain(signers)
        .chain(unreadable)
        .map(|account| (account, 0))
        .collect();
    registrants.extend(finalized);
    registrants.remove(&ledger.signer);
    for required in registrants.values_mut() {
        *required = (*required).max(ledger.finalized_block);
    }
    registrants
}

/// Ledgers of the IdentityRegistry's other accounts that must be dealt with before this one gives a
/// key its first nonce: what they had in flight is not known. `counts` are the transaction counts of
/// these accounts, with what is pending, read *before* their ledgers.
#[must_use]
pub fn unsettled_ledgers(
    ledger: &SignerLedgerSpec,
    named: NamedAccounts<'_>,
    counts: &BTreeMap<Address, Nonce>,
) -> Vec<UnknownPremise> {
    let markers = || named.own_markers.iter().chain(named.markers);
    let accounts = own_accounts(named.signers, named.own_markers).into_iter();
    let unsettled = accounts.filter_map(|account| {
        if account == ledger.signer {
            return None;
        }
        let name = SignerLedger::name_of(ledger.chain_id, account);
        let mut uids = uids_of(markers(), account);
        match named.others.by_account.get(&account) {
            None if uids.next().is_some() || named.used.contains(&account) => {
                Some(UnknownPremise::OtherLedgerLost { name })
            }
            None => None,
            Some(other) if uids.any(|uid| uid != other.uid) => {
                Some(UnknownPremise::OtherLedgerLost { name })
            }
            Some(other) if other.is_quarantined => {
                Some(UnknownPremise::OtherLedgerQuarantined { name })
            }
            Some(other) => {
                let next = other.spec.as_ref()?.next;
                match counts.get(&account) {
                    None => Some(UnknownPremise::OtherLedgerUnchecked { name }),
                    Some(count) if *count > next => {
                        let count = *count;
                        Some(UnknownPremise::OtherNonceAhead { name, count, next })
                    }
                    Some(_) => None,
                }
            }
        }
    });
    unsettled.collect()
}

/// The logs of every account that may have registered on a contract.
#[derive(Clone, Debug)]
pub struct RegistrantIndexes {
    own: Arc<OwnerIndex>,
    /// `None` while it is not known who else may have registered.
    others: Option<Vec<OtherIndex>>,
    /// `None` before the logs of all accounts were read.
    orphans: Option<Orphans>,
}

/// The logs of another registrant.
#[derive(Clone, Debug)]
pub struct OtherIndex {
    pub account: Address,
    /// Block up to which they must be proven.
    pub required: u64,
    /// The last index that was proven; `None` if none was.
    pub index: Option<Arc<OwnerIndex>>,
}

impl OtherIndex {
    fn proves_absent(&self, key: Key) -> bool {
        self.index
            .as_ref()
            .is_some_and(|index| proves_absent(index, self.account, self.required, key))
    }
}

/// Whether an account's logs are proven up to a block and contain no registration of the key.
fn proves_absent(index: &OwnerIndex, account: Address, required: u64, key: Key) -> bool {
    let reaches = index.proven_to().is_some_and(|block| block >= required);
    reaches && index.owner() == account && !index.contains(key)
}

impl RegistrantIndexes {
    /// The logs of a ledger's account, and of everyone else who may have registered.
    #[must_use]
    pub fn new(
        own: Arc<OwnerIndex>,
        others: Option<Vec<OtherIndex>>,
        orphans: Option<Orphans>,
    ) -> Self {
        Self {
            own,
            others,
            orphans,
        }
    }

    /// The index of the ledger's account.
    #[must_use]
    pub fn own(&self) -> &OwnerIndex {
        &self.own
    }

    /// Registrations of a key by any registrant, and who made them.
    pub fn registrations(&self, key: Key) -> impl Iterator<Item = (Address, &RegisteredEvent)> {
        let others = self.others.iter().flatten();
        let others = others.filter_map(|other| other.index.as_deref());
        std::iter::once(self.own())
            .chain(others)
            .flat_map(move |index| {
                let registrations = index.registrations(key).iter();
                registrations.map(|registration| (index.owner(), registration))
            })
    }

    /// The agents that keep keys from getting a nonce; `None` before all logs were read.
    #[must_use]
    pub fn orphans(&self) -> Option<&Orphans> {
        self.orphans.as_ref()
    }

    /// The agent that keeps a key from getting a nonce.
    #[must_use]
    pub fn orphan_of(&self, key: Key) -> Option<&OrphanAgent> {
        self.orphans.as_ref()?.of(key)
    }

    /// Rule R11: whether the final logs of every registrant are proven to contain no registration
    /// of the key, up to the last finalized block of the ledgers, and no other account has
    /// registered an agent with its URI since then.
    #[must_use]
    pub fn proves_absent(&self, ledger: &SignerLedgerSpec, key: Key) -> bool {
        let (Some(others), Some(orphans)) = (&self.others, &self.orphans) else {
            return false;
        };
        proves_absent(&self.own, ledger.signer, ledger.finalized_block, key)
            && others.iter().all(|other| other.proves_absent(key))
            && orphans.of(key).is_none()
    }
}

/// What must be resolved before a key gets its first nonce: agents that an account of the
/// IdentityRegistry has registered and whose URI names no key. Each may be the agent of an offer that
/// waits. An agent is resolved once a record has it, or if configuration says that it is of no
/// offer.
#[must_use]
pub fn unclaimed_agents<'a>(
    indexes: &RegistrantIndexes,
    named: NamedAccounts<'_>,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
    ignored: Option<&IgnoredAgents>,
) -> Option<UnknownPremise> {
    let accounts = own_accounts(named.signers, named.own_markers);
    let others = indexes.others.iter().flatten();
    let others = others
        .filter_map(|other| other.index.as_deref())
        .filter(|index| accounts.contains(&index.owner()));
    let candidates: Vec<(Address, &AgentWithoutKey)> = std::iter::once(indexes.own())
        .chain(others)
        .flat_map(|index| {
            index
                .without_key()
                .iter()
                .map(|agent| (index.owner(), agent))
        })
        .filter(|(_, agent)| !is_ignored(agent, ignored))
        .collect();
    // Most signers have none, and then no record needs to be looked at.
    if candidates.is_empty() {
        return None;
    }
    let claimed: BTreeSet<U256> = records
        .into_iter()
        .filter_map(|record| number(&record.result.as_ref()?.agent_id))
        .collect();
    let is_claimed = |agent: &AgentWithoutKey| {
        number(&agent.agent_id).is_some_and(|agent| claimed.contains(&agent))
    };
    let mut unclaimed = candidates.iter().filter(|(_, agent)| !is_claimed(agent));
    let (account, agent) = unclaimed.next()?;
    Some(UnknownPremise::AgentWithoutKey {
        account: *account,
        agent_id: agent.agent_id.clone(),
        agent_uri: agent.agent_uri.clone(),
        more: unclaimed.count(),
    })
}

fn is_ignored(agent: &AgentWithoutKey, ignored: Option<&IgnoredAgents>) -> bool {
    ignored.is_some_and(|ignored| {
        let mut ids = ignored.ids.iter();
        ids.any(|id| number(id) == number(&agent.agent_id))
            || ignored
                .up_to_block
                .is_some_and(|block| agent.block <= block)
    })
}

/// An agent id, which is compared as a number.
fn number(agent_id: &str) -> Option<U256> {
    U256::from_str_radix(agent_id, 10).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RegistrationResult;
    use crate::ledger::fixtures::{
        SIGNER, STRANGER, alone, index, index_of, key, ledger, log_page, orphans, other_ledger,
        record, registered_event, result,
    };

    const REMOVED: Address = Address::repeat_byte(0xaa);
    const MARKED: Address = Address::repeat_byte(0xbb);
    const LEDGERED: Address = Address::repeat_byte(0xcc);
    static NONE: BTreeSet<Address> = BTreeSet::new();

    fn others() -> OtherLedgers {
        OtherLedgers {
            by_account: BTreeMap::from([(LEDGERED, other_ledger("uid", 70))]),
            ..OtherLedgers::default()
        }
    }

    fn marker(signer: Address, uid: &str) -> LedgerMarker {
        LedgerMarker {
            signer: format!("{signer:#x}"),
            uid: uid.into(),
        }
    }

    fn named(others: &OtherLedgers) -> NamedAccounts<'_> {
        NamedAccounts {
            signers: &[],
            own_markers: &[],
            markers: &[],
            used: &NONE,
            others,
            unreadable_records: &[],
        }
    }

    #[test]
    fn everything_that_names_an_account_of_the_chain_makes_it_a_registrant() {
        let (none, some) = (OtherLedgers::default(), others());
        let elsewhere = AgentRegistrationSpec {
            chain_id: 1,
            signer: Some(Address::repeat_byte(0xdd)),
            ..record('d')
        };
        let removed = AgentRegistrationSpec {
            signer: Some(REMOVED),
            ..record('c')
        };
        let watched = AgentRegistrationSpec {
            signer: None,
            ..record('e')
        };
        let records = [elsewhere, removed, watched, record('a')];
        let unreadable = |chain_id, signer| UnreadableRecord {
            name: "r-x".into(),
            chain_id,
            signer,
        };
        let (unread, unplaced) = (Address::repeat_byte(0xe1), Address::repeat_byte(0xe2));
        let unreadable_records = [
            unreadable(Some(31337), Some(unread)),
            unreadable(None, Some(unplaced)),
            unreadable(Some(1), Some(Address::repeat_byte(0xe3))),
            unreadable(None, None),
        ];
        let all = NamedAccounts {
            signers: &[SIGNER, STRANGER],
            markers: &[MARKED, SIGNER].map(|signer| marker(signer, "uid")),
            unreadable_records: &unreadable_records,
            ..named(&some)
        };
        let accounts = [STRANGER, REMOVED, MARKED, unread, unplaced];
        let mut expected = BTreeMap::from(accounts.map(|account| (account, 50)));
        expected.insert(LEDGERED, 70);
        assert_eq!(other_registrants(&ledger(), all, &records), expected);
        assert!(other_registrants(&ledger(), named(&none), &[record('a')]).is_empty());
    }

    #[test]
    fn missing_replaced_or_quarantined_ledger_of_the_registry_is_unsettled() {
        let name = SignerLedger::name_of(31337, LEDGERED);
        let unsettled = |others: &OtherLedgers,
                         signers: &[Address],
                         markers: &[(Address, &str)]| {
            let markers = markers.iter();
            let own_markers: Vec<_> = markers.map(|(signer, uid)| marker(*signer, uid)).collect();
            unsettled_ledgers(
                &ledger(),
                NamedAccounts {
                    signers,
                    own_markers: &own_markers,
                    ..named(others)
                },
                &BTreeMap::new(),
            )
        };
        let lost = [UnknownPremise::OtherLedgerLost { name: name.clone() }];
        let quarantined = [UnknownPremise::OtherLedgerQuarantined { name }];
        let (none, present) = (OtherLedgers::default(), others());
        let mut frozen = others();
        frozen
            .by_account
            .values_mut()
            .for_each(|other| other.is_quarantined = true);

        assert_eq!(
            unsettled(&none, &[LEDGERED, SIGNER], &[]),
            [],
            "it was never used"
        );
        assert_eq!(unsettled(&none, &[LEDGERED], &[(LEDGERED, "uid")]), lost);
        assert_eq!(
            unsettled(&none, &[], &[(LEDGERED, "uid"), (SIGNER, "own")]),
            lost
        );
        assert_eq!(unsettled(&present, &[], &[(LEDGERED, "other")]), lost);
        assert_eq!(unsettled(&present, &[LEDGERED], &[(LEDGERED, "uid")]), []);
        assert_eq!(unsettled(&frozen, &[LEDGERED], &[]), quarantined);
        assert_eq!(unsettled(&frozen, &[], &[(LEDGERED, "uid")]), quarantined);
        assert_eq!(
            unsettled(&frozen, &[], &[]),
            [],
            "another registry's account"
        );
    }

    #[test]
    fn ledger_that_anything_shows_to_have_existed_is_unsettled_without_it() {
        let name = SignerLedger::name_of(31337, LEDGERED);
        let lost = [UnknownPremise::OtherLedgerLost { name }];
        let (none, present) = (OtherLedgers::default(), others());
        let unsettled = |named| unsettled_ledgers(&ledger(), named, &BTreeMap::new());
        let (used, of_another) = ([LEDGERED].into(), [marker(LEDGERED, "former")]);
        let listed = |others| NamedAccounts {
            signers: &[SIGNER, LEDGERED],
            ..named(others)
        };
        let signed = NamedAccounts {
            used: &used,
            ..listed(&none)
        };
        assert_eq!(unsettled(signed), lost, "a record has an attempt");
        let marked = |others| NamedAccounts {
            markers: &of_another,
            ..listed(others)
        };
        assert_eq!(unsettled(marked(&none)), lost);
        assert_eq!(unsettled(marked(&present)), lost, "it was replaced");
        let elsewhere = NamedAccounts {
            signers: &[SIGNER],
            ..marked(&none)
        };
        assert_eq!(unsettled(elsewhere), [], "another registry's account");
    }

    #[test]
    fn account_that_has_sent_more_than_its_ledger_knows_is_unsettled() {
        let mut others = others();
        let spec = SignerLedgerSpec {
            next: Nonce(4),
            ..ledger()
        };
        let other = others.by_account.get_mut(&LEDGERED).unwrap();
        other.spec = Some(Box::new(spec));
        let signers = &[SIGNER, LEDGERED, STRANGER];
        let of = |counts: &[(Address, u64)]| {
            let counts = counts
                .iter()
                .map(|(account, count)| (*account, Nonce(*count)));
            let named = NamedAccounts {
                signers,
                ..named(&others)
            };
            unsettled_ledgers(&ledger(), named, &counts.collect())
        };
        let name = SignerLedger::name_of(31337, LEDGERED);
        let ahead = UnknownPremise::OtherNonceAhead {
            name: name.clone(),
            count: Nonce(5),
            next: Nonce(4),
        };
        assert_eq!(of(&[(LEDGERED, 5), (STRANGER, 9)]), [ahead]);
        assert_eq!(of(&[(LEDGERED, 4)]), []);
        assert_eq!(of(&[]), [UnknownPremise::OtherLedgerUnchecked { name }]);
        let markers = [marker(MARKED, "uid")];
        let accounts = BTreeSet::from([SIGNER, MARKED]);
        assert_eq!(own_accounts(&[SIGNER], &markers), accounts);
    }

    /// An account's index with one agent of each given URI, numbered from 0, in block 10.
    fn index_with_uris(account: Address, uris: &[&str]) -> OwnerIndex {
        let agents = uris.iter().enumerate().map(|(id, uri)| RegisteredEvent {
            agent_id: U256::from(id),
            agent_uri: (*uri).to_owned(),
            block: 10,
            ..registered_event('a')
        });
        let mut index = OwnerIndex::new(account, 0, U256::ZERO);
        index.extend(log_page(0, 70, agents.collect())).unwrap();
        index
    }

    fn adopted(agent_id: &str) -> AgentRegistrationSpec {
        AgentRegistrationSpec {
            result: Some(RegistrationResult {
                agent_id: agent_id.into(),
                ..result(1)
            }),
            ..record('e')
        }
    }

    #[test]
    fn agent_without_key_is_unclaimed_until_an_offer_has_it_or_it_is_ignored() {
        let none = OtherLedgers::default();
        let uris = [
            "https://old.example",
            "https://x/agents/aaaaaaaaaaaaaaaa.json",
        ];
        let own = alone(index_with_uris(SIGNER, &[uris[1], uris[0], uris[0]]));
        let of = |records: &[AgentRegistrationSpec], ignored: Option<IgnoredAgents>| {
            unclaimed_agents(&own, named(&none), records, ignored.as_ref())
        };
        let unclaimed = |agent_id: &str, more| {
            Some(UnknownPremise::AgentWithoutKey {
                account: SIGNER,
                agent_id: agent_id.into(),
                agent_uri: uris[0].into(),
                more,
            })
        };
        let listing = |ids: &[&str]| IgnoredAgents {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            up_to_block: None,
        };
        let up_to = |block| IgnoredAgents {
            up_to_block: Some(block),
            ..IgnoredAgents::default()
        };
        assert_eq!(of(&[], None), unclaimed("1", 1));
        assert_eq!(of(&[record('d'), adopted("1")], None), unclaimed("2", 0));
        assert_eq!(of(&[adopted("1"), adopted("02")], None), None);
        assert_eq!(of(&[], Some(listing(&["0", "2"]))), unclaimed("1", 0));
        assert_eq!(of(&[adopted("1")], Some(listing(&["2"]))), None);
        assert_eq!(of(&[], Some(up_to(9))), unclaimed("1", 1));
        assert_eq!(of(&[], Some(up_to(10))), None);
        let keyed = alone(index_with_uris(SIGNER, &uris[1..]));
        assert_eq!(unclaimed_agents(&keyed, named(&none), &[], None), None);
    }

    #[test]
    fn agents_without_key_of_other_registries_accounts_stop_nothing() {
        let none = OtherLedgers::default();
        let indexes = with(Some(index_with_uris(STRANGER, &["https://old.example"])));
        let marker = |signer: String| LedgerMarker {
            signer,
            uid: "uid".into(),
        };
        let used = [marker(format!("{STRANGER:#x}"))];
        let odd = [marker("0x1".into())];
        let found = |signers, own_markers| {
            let named = NamedAccounts {
                signers,
                own_markers,
                ..named(&none)
            };
            unclaimed_agents(&indexes, named, &[], None).is_some()
        };
        assert!(found(&[STRANGER], &[]));
        assert!(found(&[], &used));
        assert!(!found(&[], &[]) && !found(&[], &odd), "it names no account");
    }

    fn with(other: Option<OwnerIndex>) -> RegistrantIndexes {
        let other = OtherIndex {
            account: STRANGER,
            required: 70,
            index: other.map(Arc::new),
        };
        RegistrantIndexes::new(
            Arc::new(index(50, &[])),
            Some(vec![other]),
            Some(orphans(&[])),
        )
    }

    #[test]
    fn key_is_absent_only_if_the_logs_of_every_registrant_prove_it() {
        let proves = |indexes: &RegistrantIndexes| indexes.proves_absent(&ledger(), key('c'));
        assert!(proves(&alone(index(50, &[]))));
        assert!(!proves(&alone(index(49, &[]))));
        assert!(!proves(&alone(index(50, &['c']))));
        assert!(!proves(&alone(index_of(STRANGER, 50, &[]))));
        let own = || Arc::new(index(50, &[]));
        let unknown = RegistrantIndexes::new(own(), None, Some(orphans(&[])));
        assert!(!proves(&unknown), "others may have registered it");
        let unread = RegistrantIndexes::new(own(), Some(vec![]), None);
        assert!(!proves(&unread), "any account may have");
        assert_eq!((unread.orphans(), unread.orphan_of(key('c'))), (None, None));
        let found = RegistrantIndexes::new(own(), Some(vec![]), Some(orphans(&['c'])));
        assert!(!proves(&found) && found.proves_absent(&ledger(), key('d')));
        assert_eq!(found.orphans(), Some(&orphans(&['c'])));

        assert!(proves(&with(Some(index_of(STRANGER, 70, &[])))));
        assert!(!proves(&with(Some(index_of(STRANGER, 69, &[])))));
        assert!(
            !proves(&with(Some(index_of(SIGNER, 70, &[])))),
            "logs of another account"
        );
        assert!(!proves(&with(None)));
    }

    #[test]
    fn registration_by_another_registrant_is_found_with_its_account() {
        let indexes = with(Some(index_of(STRANGER, 70, &['c'])));
        assert!(!indexes.proves_absent(&ledger(), key('c')));
        assert!(indexes.proves_absent(&ledger(), key('d')));
        let accounts: Vec<Address> = indexes
            .registrations(key('c'))
            .map(|(account, _)| account)
            .collect();
        assert_eq!(accounts, [STRANGER]);
    }
}
