//! Numbers for real objects, transactions and scripts, so that a state is small.
//!
//! It must not change what a decision reads. A ledger's `historyHash` is kept only where replicas
//! remember ledgers; a record's `provenAbsent` never, since nothing reads it.

use std::collections::HashMap;
use std::hash::Hash;

use alloy::primitives::B256;
use rustc_hash::FxHashMap;
use serde::Serialize;
use serviceoffer::api::{AgentRegistrationSpec, Attempt, Phase, SignerLedgerSpec};

use crate::ledger::cast::{Cast, KEYS};

/// A transaction that a replica signed.
#[derive(Clone, Debug)]
pub struct Signed {
    pub account: u8,
    pub nonce: u8,
    pub key: u8,
    /// `None` of a filler.
    pub uri: Option<String>,
    pub attempt: Attempt,
}

/// What an invariant needs of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordFacts {
    /// Transaction, block and agent of its result.
    pub result: Option<(B256, u64, u64)>,
    /// Transaction and block of its revert.
    pub reverted: Option<(B256, u64)>,
    pub attempts: u8,
    pub is_reverted: bool,
    pub is_retired: bool,
    pub account: u8,
}

/// One request of a replica, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Record {
        key: u8,
        to: u16,
    },
    Store {
        key: u8,
        to: u16,
        transaction: u8,
    },
    Send {
        transaction: u8,
    },
    Ledger {
        account: u8,
        to: u16,
    },
    /// Replace a former signer's ledger.
    Touch {
        account: u8,
        to: u16,
    },
    Create {
        to: u16,
    },
    WriteMarker,
    TakeOver {
        former: u8,
        records: [u16; KEYS],
    },
    Quarantine {
        key: Option<u8>,
    },
}

/// What a replica does, and what it tells people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Script {
    pub ops: Vec<Op>,
    pub stopped: Option<&'static str>,
}

/// Values and their numbers, from 1 on.
#[derive(Debug)]
struct Numbered<K, V> {
    numbers: HashMap<K, u16>,
    values: Vec<V>,
}

impl<K: Eq + Hash, V> Numbered<K, V> {
    fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }

    fn number(&mut self, key: K, value: impl FnOnce() -> V) -> u16 {
        let next = u16::try_from(self.values.len() + 1).unwrap_or(u16::MAX);
        let Self { numbers, values } = self;
        *numbers.entry(key).or_insert_with(|| {
            values.push(value());
            next
        })
    }

    fn get(&self, number: u16) -> Option<&V> {
        self.values.get(usize::from(number).checked_sub(1)?)
    }
}

/// All numbers of one search.
#[derive(Debug)]
pub struct Pool {
    keeps_history: bool,
    ledgers: Numbered<Vec<u8>, SignerLedgerSpec>,
    records: Numbered<Vec<u8>, (AgentRegistrationSpec, RecordFacts)>,
    signed: Numbered<B256, Signed>,
    scripts: Numbered<Script, Script>,
    pub decisions: FxHashMap<super::DecisionKey, u16>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(keeps_history: bool) -> Self {
        Self {
            keeps_history,
            ledgers: Numbered::new(),
            records: Numbered::new(),
            signed: Numbered::new(),
            scripts: Numbered::new(),
            decisions: FxHashMap::default(),
        }
    }

    /// Number of a ledger.
    pub fn ledger_number(&mut self, mut spec: SignerLedgerSpec) -> u16 {
        if !self.keeps_history {
            spec.history_hash = B256::ZERO;
        }
        self.ledgers.number(bytes(&spec), || spec.clone())
    }

    /// The ledger of a number.
    #[must_use]
    pub fn ledger(&self, number: u16) -> Option<&SignerLedgerSpec> {
        self.ledgers.get(number)
    }

    /// Number of a record.
    pub fn record_number(&mut self, cast: &Cast, mut spec: AgentRegistrationSpec) -> u16 {
        spec.proven_absent = None;
        let facts = facts(cast, &spec);
        self.records.number(bytes(&spec), || (spec.clone(), facts))
    }

    /// The record of a number.
    #[must_use]
    pub fn record(&self, number: u16) -> Option<&AgentRegistrationSpec> {
        self.records.get(number).map(|(spec, _)| spec)
    }

    /// What invariants need of the record of a number.
    #[must_use]
    pub fn facts(&self, number: u16) -> Option<RecordFacts> {
        self.records.get(number).map(|(_, facts)| *facts)
    }

    /// Number of a transaction.
    pub fn signed_number(&mut self, signed: Signed) -> u8 {
        let number = self.signed.number(signed.attempt.hash, || signed);
        u8::try_from(number).unwrap_or(u8::MAX)
    }

    /// The transaction of a number.
    #[must_use]
    pub fn signed(&self, number: u8) -> Option<&Signed> {
        self.signed.get(number.into())
    }

    /// Number of a transaction by its hash.
    #[must_use]
    pub fn signed_by_hash(&self, hash: B256) -> Option<u8> {
        let number = self.signed.numbers.get(&hash)?;
        u8::try_from(*number).ok()
    }

    /// How many transactions were signed.
    #[must_use]
    pub fn signed_count(&self) -> u8 {
        u8::try_from(self.signed.values.len()).unwrap_or(u8::MAX)
    }

    /// Number of a script.
    pub fn script_number(&mut self, script: Script) -> u16 {
        self.scripts.number(script.clone(), || script)
    }

    /// The script of a number.
    #[must_use]
    pub fn script(&self, number: u16) -> Option<&Script> {
        self.scripts.get(number)
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn facts(cast: &Cast, spec: &AgentRegistrationSpec) -> RecordFacts {
    let account = spec.signer.and_then(|signer| cast.account(signer));
    RecordFacts {
        result: spec.result.as_ref().map(|result| {
            let agent = result.agent_id.parse().unwrap_or(u64::MAX);
            (result.transaction.unwrap_or_default(), result.block, agent)
        }),
        reverted: spec
            .reverted
            .as_ref()
            .map(|reverted| (reverted.transaction, reverted.block)),
        attempts: u8::try_from(spec.attempts.len()).unwrap_or(u8::MAX),
        is_reverted: spec.phase == Phase::Reverted || spec.reverted.is_some(),
        is_retired: spec.tombstone.unwrap_or_default(),
        account: u8::try_from(account.unwrap_or_default()).unwrap_or_default(),
    }
}
