//! A ledger with two entries, records, and evidence about them, for unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, B256, U256};

use super::evidence::{AccountState, Evidence, FinalRegistration, Inclusion, LedgerIdentity};
use super::index::OwnerIndex;
use super::registrants::RegistrantIndexes;
use super::sweep::{Orphans, Sweep};
use super::unreadable::OtherLedger;
use crate::api::{
    AgentCount, AgentRegistrationSpec, Attempt, DisplacingTransaction, Entry, Key, LedgerState,
    Nonce, OfferRef, Operation, Phase, RegistrationResult, RegistryContract, SignerLedgerSpec, Wei,
};
use crate::chain::{LogPage, RegisteredEvent, TransactionCounts};

pub(crate) const SIGNER: Address = Address::repeat_byte(0x51);
pub(crate) const STRANGER: Address = Address::repeat_byte(0x99);
pub(crate) const GENESIS: B256 = B256::repeat_byte(0x6e);

pub(crate) fn key(letter: char) -> Key {
    letter.to_string().repeat(16).parse().unwrap()
}

pub(crate) fn hash(number: u8) -> B256 {
    B256::repeat_byte(number)
}

pub(crate) fn identity() -> LedgerIdentity {
    LedgerIdentity {
        chain_id: 31337,
        genesis_hash: GENESIS,
        signer: SIGNER,
        cluster_uid: "cluster".into(),
    }
}

/// An active ledger that has allocated nonces 5 and 6 and records that those below 5 are final, as
/// of block 50.
pub(crate) fn ledger() -> SignerLedgerSpec {
    SignerLedgerSpec {
        chain_id: 31337,
        genesis_hash: GENESIS,
        signer: SIGNER,
        cluster_uid: "cluster".into(),
        state: LedgerState::Active,
        draining: false,
        quarantine: None,
        next: Nonce(7),
        finalized_nonce: Nonce(5),
        finalized_block: 50,
        entries: BTreeMap::from([(Nonce(5), register('a')), (Nonce(6), register('b'))]),
        registering: BTreeMap::from([(key('a'), Nonce(5)), (key('b'), Nonce(6))]),
        from_block: Some(0),
        from_balance: Some(AgentCount::default()),
        from_registry: Some(Address::ZERO),
        epoch: 0,
        history_hash: B256::ZERO,
    }
}

pub(crate) fn register(letter: char) -> Entry {
    Entry {
        key: Some(key(letter)),
        operation: Operation::Register,
    }
}

pub(crate) fn record(letter: char) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        key: key(letter),
        identity: format!("shop/{letter}"),
        chain_id: 31337,
        registry: RegistryContract {
            address: Address::ZERO,
            code_hash: hash(1),
        },
        edition: 1,
        signer: Some(SIGNER),
        agent_uri: None,
        agent_uri_hash: None,
        calldata_hash: None,
        adopt: None,
        phase: Phase::Pending,
        offers: vec![OfferRef {
            namespace: "shop".into(),
            name: letter.into(),
            uid: "uid".into(),
        }],
        attempts: vec![],
        update: None,
        result: None,
        reverted: None,
        displaced: None,
        proven_absent: None,
        moved_from: None,
        tombstone: None,
        spent_wei: None,
    }
}

pub(crate) fn attempt(nonce: u64, number: u8) -> Attempt {
    Attempt {
        nonce: Nonce(nonce),
        kind: Operation::Register,
        max_fee_per_gas: Wei(10),
        max_priority_fee_per_gas: Wei(1),
        gas: 30,
        hash: hash(number),
        signed_at: None,
        raw: Some(vec![number].into()),
    }
}

/// The record of 'a' once its transaction with hash 7 was signed for nonce 5.
pub(crate) fn sent() -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        phase: Phase::Sent,
        attempts: vec![attempt(5, 7)],
        ..record('a')
    }
}

pub(crate) fn result(transaction: u8) -> RegistrationResult {
    RegistrationResult {
        agent_id: "0".into(),
        transaction: Some(hash(transaction)),
        block: 60,
        block_hash: hash(60),
    }
}

pub(crate) fn account(finalized: u64, latest: u64) -> AccountState {
    let counts = TransactionCounts {
        finalized: Nonce(finalized),
        latest: Nonce(latest),
        pending: Nonce(latest),
    };
    AccountState {
        counts,
        finalized_block: 60,
        base_fee: 10,
        balance_of_owner: None,
    }
}

/// An index that is proven up to a block and holds one registration of each given key.
pub(crate) fn index(covered: u64, keys: &[char]) -> OwnerIndex {
    index_of(SIGNER, covered, keys)
}

/// The logs of an account if no other account may have registered.
pub(crate) fn alone(own: OwnerIndex) -> RegistrantIndexes {
    RegistrantIndexes::new(Arc::new(own), Some(vec![]), Some(orphans(&[])))
}

/// What a sweep shows that found an agent of a stranger for each key.
pub(crate) fn orphans(keys: &[char]) -> Orphans {
    let mut sweep = Sweep::new(0, None);
    let found = keys
        .iter()
        .map(|letter| (STRANGER, registered_event(*letter)));
    sweep.extend(60, found, |key| {
        format!("https://agents.example/agents/{key}.json")
    });
    sweep.end_at(60);
    let orphans = sweep.orphans(&BTreeSet::new(), &BTreeSet::new(), None);
    orphans.unwrap()
}

pub(crate) fn other_ledger(uid: &str, finalized_block: u64) -> OtherLedger {
    OtherLedger {
        uid: uid.into(),
        finalized_block,
        is_quarantined: false,
        spec: None,
    }
}

pub(crate) fn index_of(account: Address, covered: u64, keys: &[char]) -> OwnerIndex {
    let mut index = OwnerIndex::new(account, 0, U256::ZERO);
    let registrations: Vec<_> = keys
        .iter()
        .map(|letter| registered_event(*letter))
        .collect();
    let held = U256::from(registrations.len());
    index.extend(log_page(0, covered, registrations)).unwrap();
    assert!(index.verify_balance(held));
    index
}

/// Logs in which each registration has its mint.
pub(crate) fn log_page(from: u64, to: u64, registrations: Vec<RegisteredEvent>) -> LogPage {
    let mints = registrations.iter().map(|event| event.agent_id).collect();
    LogPage {
        from,
        to,
        registrations,
        mints,
        ..LogPage::default()
    }
}

pub(crate) fn registered_event(letter: char) -> RegisteredEvent {
    RegisteredEvent {
        agent_id: U256::ZERO,
        agent_uri: format!("https://agents.example/agents/{}.json", key(letter)),
        transaction: hash(7),
        block: 60,
        block_hash: hash(60),
    }
}

pub(crate) fn final_registration(letter: char, nonce: u64) -> FinalRegistration {
    FinalRegistration {
        registrant: SIGNER,
        event: registered_event(letter),
        sender: Some(SIGNER),
        nonce: Some(Nonce(nonce)),
        confirmed: true,
        cost: Some(250),
    }
}

pub(crate) fn evidence(registrations: &[FinalRegistration]) -> Evidence {
    Evidence {
        registrations: registrations.to_vec(),
        ..Evidence::default()
    }
}

pub(crate) fn included(transaction: u8, succeeded: bool) -> Evidence {
    Evidence {
        included: Some(Inclusion {
            transaction: hash(transaction),
            succeeded,
            block: 60,
            cost: 250,
        }),
        ..Evidence::default()
    }
}

/// A record whose only attempt, at this nonce, was displaced.
pub(crate) fn displaced_at(letter: char, nonce: u64) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        attempts: vec![attempt(nonce, 7)],
        displaced: Some(DisplacingTransaction {
            nonce: Nonce(nonce),
            transaction: hash(9),
            block: 58,
        }),
        ..record(letter)
    }
}
