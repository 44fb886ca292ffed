//! What the protocol decides on besides the stored objects: what a chain shows, and what is known of the past.
//!
//! Values only; [`crate::reconcile::registry`] gathers them, [`super::protocol`] judges them.

use alloy::primitives::{Address, B256};

use super::index::OwnerIndex;
use crate::api::{AgentRegistrationSpec, Key, Nonce, RegistrationResult, SignerLedgerSpec};
use crate::chain::{RegisteredEvent, TransactionCounts};

/// What a chain shows of one account at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// How often the account has sent.
    pub counts: TransactionCounts,
    /// Number of the last final block.
    pub finalized_block: u64,
    /// Base fee of the latest block, in wei per gas.
    pub base_fee: u128,
}

/// Where a ledger belongs: which chain, which cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerIdentity {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Hash of its first block.
    pub genesis_hash: B256,
    /// The account.
    pub signer: Address,
    /// Uid of the cluster's namespace kube-system.
    pub cluster_uid: String,
}

impl LedgerIdentity {
    /// Whether a record shows that this account has signed for this chain: a ledger must have been there.
    #[must_use]
    pub fn has_attempt(&self, record: &AgentRegistrationSpec) -> bool {
        record.is_of(self.chain_id, self.signer) && !record.attempts.is_empty()
    }
}

/// Everything that decisions about one ledger share: its version at hand, and the chain as seen *before* that version was
/// read. A chain seen later could show transactions that a later version allocated, and look like a stranger's.
#[derive(Clone, Copy, Debug)]
pub struct LedgerSnapshot<'a> {
    /// The ledger.
    pub ledger: &'a SignerLedgerSpec,
    /// Final registrations of its account on the registry at hand.
    pub index: &'a OwnerIndex,
    /// The account.
    pub account: &'a AccountState,
}

/// What there is of an account's past, read after the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerHistory {
    /// Uid of the ledger that the IdentityRegistry's marker names.
    pub marker: Option<String>,
    /// Whether a record has an attempt of this account on this chain.
    pub has_attempts: bool,
    /// Transaction count at which a used wallet may start.
    pub bootstrap_nonce: Option<Nonce>,
    /// Highest `next` that this process has seen.
    pub highest_next: Nonce,
}

/// A final registration with everything that proves whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalRegistration {
    /// The log.
    pub event: RegisteredEvent,
    /// Sender of the transaction.
    pub sender: Address,
    /// Nonce of the transaction.
    pub nonce: Nonce,
    /// Whether the transaction succeeded and the registry knows the agent at the last final block.
    pub confirmed: bool,
    /// What the transaction cost, in wei.
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
    /// Final registrations whose URI contains the key.
    pub registrations: Vec<FinalRegistration>,
    /// The attempt of the record at this nonce that a block includes.
    pub included: Option<Inclusion>,
    /// Whether the last attempt was sent so recently that it need not be sent again.
    pub sent_recently: bool,
}

/// A transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The transaction.
    pub transaction: B256,
    /// Whether the transaction succeeded.
    pub succeeded: bool,
}

/// What is known of an agent that is to be adopted by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptionTarget {
    /// Number and hash of the final block at which the registry knows the agent; `None` if it does not.
    pub exists_at: Option<(u64, B256)>,
    /// URI of the agent on chain at that block.
    pub agent_uri: String,
    /// Key of the record that the agent belongs to already, if it is another one.
    pub taken_by: Option<Key>,
}
