//! Evidence for the protocol besides the stored objects: what a chain shows, and what is known of
//! an account's history.
//!
//! It holds values and decides nothing: [`crate::reconcile::registry`] gathers them,
//! [`super::protocol`] judges them.

use alloy::primitives::{Address, B256};

use super::index::OwnerIndex;
use crate::api::{AgentRegistrationSpec, Key, Nonce, RegistrationResult, SignerLedgerSpec};
use crate::chain::{RegisteredEvent, TransactionCounts};

/// What one read of a chain shows of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Transaction counts of the account.
    pub counts: TransactionCounts,
    /// Number of the last finalized block.
    pub finalized_block: u64,
    /// Base fee of the latest block, in wei per gas.
    pub base_fee: u128,
}

/// The account, chain and cluster that a ledger belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerIdentity {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Hash of the chain's first block: two chains may share one id.
    pub genesis_hash: B256,
    pub signer: Address,
    /// Uid of the cluster's namespace kube-system.
    pub cluster_uid: String,
}

impl LedgerIdentity {
    /// Whether a record shows that this account has signed for this chain. If so, a ledger must
    /// have existed.
    #[must_use]
    pub fn has_attempt(&self, record: &AgentRegistrationSpec) -> bool {
        record.is_of(self.chain_id, self.signer) && !record.attempts.is_empty()
    }
}

/// What all decisions about one ledger share: one version of it, and the chain as read *before*
/// that version. If the chain were read later, it could show transactions that a newer version
/// allocated, and they would look like someone else's.
#[derive(Clone, Copy, Debug)]
pub struct LedgerSnapshot<'a> {
    pub ledger: &'a SignerLedgerSpec,
    /// Final registrations by its account on this registry.
    pub index: &'a OwnerIndex,
    /// State of its account.
    pub account: &'a AccountState,
}

/// What is known of an account's history, read after the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerHistory {
    /// Uid of the ledger that the marker in the IdentityRegistry's status names.
    pub marker: Option<String>,
    /// Whether any record has an attempt by this account on this chain.
    pub has_attempts: bool,
    /// Transaction count at which a used wallet may start.
    pub bootstrap_nonce: Option<Nonce>,
    /// Highest `next` that this process has read.
    pub highest_next: Nonce,
}

/// A registration in a finalized block, with the proof of which account made it at which nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalRegistration {
    /// The `Registered` event.
    pub event: RegisteredEvent,
    /// Sender of the transaction.
    pub sender: Address,
    /// Nonce of the transaction.
    pub nonce: Nonce,
    /// Whether the transaction succeeded and the registry knows the agent at the last finalized
    /// block.
    pub confirmed: bool,
    /// Cost of the transaction, in wei.
    pub cost: u128,
}

impl FinalRegistration {
    pub(super) fn result(&self) -> RegistrationResult {
        let RegisteredEvent {
            agent_id,
            transaction,
            block,
            block_hash,
            ..
        } = &self.event;
        RegistrationResult {
            agent_id: agent_id.to_string(),
            transaction: Some(*transaction),
            block: *block,
            block_hash: *block_hash,
        }
    }
}

/// What the chain shows of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Final registrations whose URI contains the entry's key.
    pub registrations: Vec<FinalRegistration>,
    /// The record's attempt at this nonce that is in a block.
    pub included: Option<Inclusion>,
    /// Whether the last attempt was sent so recently that it need not be sent again.
    pub sent_recently: bool,
}

/// A transaction that is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inclusion {
    pub transaction: B256,
    pub succeeded: bool,
}

/// An existing agent that a record asks to adopt by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptionTarget {
    /// Number and hash of the finalized block at which the registry knows the agent; `None` if it
    /// does not.
    pub exists_at: Option<(u64, B256)>,
    /// URI of the agent on chain at that block.
    pub agent_uri: String,
    /// Key of another record that already has the agent.
    pub taken_by: Option<Key>,
}
