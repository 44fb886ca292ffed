//! The compact state of a world: small numbers that stand for real objects.
//!
//! Nothing is lost: a number of a [`super::pool::Pool`] stands for one whole spec, and a write is
//! conditional on a flag that any later write of the object clears, as a resourceVersion is.

use crate::ledger::bounds::FAULTS;
use crate::ledger::cast::{ACCOUNTS, KEYS, OFFERS, REGISTRIES};

/// Most blocks of a chain.
pub const HEIGHT: usize = 6;
/// Most replicas.
pub const REPLICAS: usize = 3;

/// A block with one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Block {
    /// There is no such block.
    #[default]
    None,
    /// A registration that a replica signed.
    Registration { transaction: u8, reverted: bool },
    /// A stranger gives an agent to this account.
    Gift(u8),
    /// Someone else uses the key of this account.
    Foreign(u8),
    /// A filler that a replica signed.
    Filler(u8),
    /// The account registered an agent before it had an operator.
    Legacy(u8),
}

/// The canonical chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    pub blocks: [Block; HEIGHT],
    pub height: u8,
    /// How many of its blocks are final.
    pub finalized: u8,
}

/// A stored ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerRef {
    /// Number of its spec; 0 if there is no ledger.
    pub spec: u16,
    pub uid: u8,
    /// Counted only where replicas remember ledgers.
    pub generation: u8,
}

/// Ledgers and records at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Objects {
    pub ledgers: [LedgerRef; ACCOUNTS],
    /// Numbers of the specs; 0 if there is no record.
    pub records: [u16; KEYS],
}

/// One offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// The IdentityRegistry that it resolves to; `None` if there is no offer.
    pub registry: Option<u8>,
    pub edition: u8,
}

/// How far a pass has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Progress {
    #[default]
    Idle,
    /// The chain was read.
    HasChain,
    /// The ledger was read.
    HasLedger,
    /// The records were read.
    HasRecords,
    /// Requests are carried out.
    Requests,
    /// The ledger was read to retire a record.
    Retiring,
}

/// Markers of each IdentityRegistry: the uid of each account's ledger, or 0.
pub type Markers = [[u8; ACCOUNTS]; REGISTRIES];

/// What a replica has read of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Snapshot {
    /// Number of final blocks.
    pub finalized: u8,
    /// Transactions of the account in final blocks, and in all.
    pub counts: (u8, u8),
    pub fee: u8,
}

/// One replica. All believe to lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    pub progress: Progress,
    pub registry: u8,
    pub account: u8,
    /// Version of the IdentityRegistry's spec that the pass began with.
    pub stage: u8,
    /// Keys that may get a nonce, as bits; or the key to retire.
    pub wanted: u8,
    pub snapshot: Snapshot,
    pub ledger: LedgerRef,
    pub records: [u16; KEYS],
    pub markers: Markers,
    /// Which of the ledgers and records that were read are still current, as bits.
    pub current: u8,
    /// Whether the former signer's ledger that was read is still current.
    pub former_is_current: bool,
    /// The key that is being retired, counted from 1; 0 if none is.
    pub retiring: u8,
    /// What is left to do.
    pub script: u16,
    pub at: u8,
    /// The ledger that it remembers.
    pub remembered: LedgerRef,
    /// Accounts whose ledger it has seen to agree with the chain, as bits.
    pub agreed: u8,
}

impl Replica {
    /// A replica that has only kept what it remembers.
    #[must_use]
    pub fn idle(self) -> Self {
        Self {
            remembered: self.remembered,
            agreed: self.agreed,
            ..Self::default()
        }
    }

    /// Whether it holds the current version of an account's ledger.
    #[must_use]
    pub fn holds_ledger(&self, account: usize) -> bool {
        self.current & (1 << account) != 0
    }

    /// Whether it holds the current version of a key's record.
    #[must_use]
    pub fn holds_record(&self, key: usize) -> bool {
        self.current & (1 << (ACCOUNTS + key)) != 0
    }

    /// Notes whether it holds the current version of a ledger.
    pub fn set_ledger(&mut self, account: usize, current: bool) {
        set(&mut self.current, account, current);
    }

    /// Notes whether it holds the current version of a record.
    pub fn set_record(&mut self, key: usize, current: bool) {
        set(&mut self.current, ACCOUNTS + key, current);
    }
}

fn set(bits: &mut u8, bit: usize, value: bool) {
    *bits = (*bits & !(1 << bit)) | (u8::from(value) << bit);
}

/// The whole world at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub chain: Chain,
    /// Transactions that were sent and may still be included, as bits.
    pub sent: u64,
    pub fee: u8,
    /// Keys for which nothing can be signed, as bits.
    pub refused: u8,
    pub objects: Objects,
    /// A backup of the objects.
    pub backup: Objects,
    pub markers: Markers,
    /// Uid of the ledger that was created last.
    pub uid: u8,
    /// Version of the first IdentityRegistry's spec.
    pub stage: u8,
    pub offers: [Offer; OFFERS],
    pub replicas: [Replica; REPLICAS],
    /// Keys whose retirement was completed, as bits.
    pub closed: u8,
    /// Whether a replica has noticed a rollback by what it remembers.
    pub noticed: bool,
    /// How often each fault may still happen.
    pub left: [u8; FAULTS],
    /// The invariant that is violated; 0 if none is.
    pub broken: u8,
}
