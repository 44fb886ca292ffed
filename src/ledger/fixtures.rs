//! A ledger with two entries, records, and evidence about them, for unit tests.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};

use super::evidence::{Evidence, Inclusion, Place, Sight, Witness};
use super::index::OwnerIndex;
use crate::api::{
    AgentRegistrationSpec, Attempt, Entry, Key, LedgerState, Nonce, OfferRef, Operation, Phase,
    RegistrationResult, RegistryContract, SignerLedgerSpec, Wei,
};
use crate::chain::{Counts, Page, Registration};

pub(crate) const SIGNER: Address = Address::repeat_byte(0x51);
pub(crate) const STRANGER: Address = Address::repeat_byte(0x99);
pub(crate) const GENESIS: B256 = B256::repeat_byte(0x6e);

pub(crate) fn key(letter: char) -> Key {
    letter.to_string().repeat(16).parse().unwrap()
}

pub(crate) fn hash(number: u8) -> B256 {
    B256::repeat_byte(number)
}

pub(crate) fn place() -> Place {
    Place {
        chain_id: 31337,
        genesis_hash: GENESIS,
        signer: SIGNER,
        cluster_uid: "cluster".into(),
    }
}

/// An active ledger that has given away nonces 5 and 6 and knows that those below 5 are final, as of block 50.
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
        proven_absent: None,
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

pub(crate) fn sight(finalized: u64, latest: u64) -> Sight {
    let counts = Counts {
        finalized: Nonce(finalized),
        latest: Nonce(latest),
        pending: Nonce(latest),
    };
    Sight {
        counts,
        finalized_block: 60,
        base_fee: 10,
    }
}

/// An index that is proven up to a block and holds one registration of each key that is given.
pub(crate) fn index(covered: u64, keys: &[char]) -> OwnerIndex {
    let mut index = OwnerIndex::new(SIGNER, 0, U256::ZERO);
    let registrations: Vec<_> = keys.iter().map(|letter| registration(*letter)).collect();
    let received = registrations.len() as u64;
    index
        .extend(Page {
            from: 0,
            to: covered,
            registrations,
            received,
            given: 0,
        })
        .unwrap();
    assert!(index.vouch(U256::from(received)));
    index
}

pub(crate) fn registration(letter: char) -> Registration {
    Registration {
        agent_id: U256::ZERO,
        agent_uri: format!("https://agents.example/agents/{}.json", key(letter)),
        transaction: hash(7),
        block: 60,
        block_hash: hash(60),
    }
}

pub(crate) fn witness(letter: char, nonce: u64) -> Witness {
    Witness {
        registration: registration(letter),
        sender: SIGNER,
        nonce: Nonce(nonce),
        stands: true,
        cost: 250,
    }
}

pub(crate) fn evidence(witnesses: &[Witness]) -> Evidence {
    Evidence {
        witnesses: witnesses.to_vec(),
        ..Evidence::default()
    }
}

pub(crate) fn included(transaction: u8, succeeded: bool) -> Evidence {
    Evidence {
        included: Some(Inclusion {
            transaction: hash(transaction),
            succeeded,
        }),
        ..Evidence::default()
    }
}
