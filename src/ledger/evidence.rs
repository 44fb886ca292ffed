//! Evidence for the protocol besides the stored objects: what a chain shows, and what is known of
//! an account's history.
//!
//! It holds values and decides nothing: [`crate::reconcile::registry`] gathers them,
//! [`super::protocol`] judges them.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256};

use super::foreign::NonceUse;
use super::index::OwnerIndex;
use super::rollback::LedgerMark;
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
    /// How many agents the account holds at the last finalized block. Read only for a ledger that
    /// is to become active.
    pub balance_of_owner: Option<OwnerBalance>,
}

/// How many agents an account holds in one registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerBalance {
    /// Address of the registry contract.
    pub registry: Address,
    pub held: U256,
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
    /// Uids of the account's ledger that markers of any IdentityRegistry of the chain name. A marker
    /// that another one has written outlives the ledger as well.
    pub markers: BTreeSet<String>,
    /// Whether any record has an attempt by this account on this chain.
    pub has_attempts: bool,
    /// Name of a record that cannot be read. It may have an attempt.
    pub unreadable_record: Option<String>,
    /// Transaction count at which a used wallet may start.
    pub bootstrap_nonce: Option<Nonce>,
    /// Block from which logs are read for a used wallet.
    pub bootstrap_from_block: Option<u64>,
    /// What this process remembers of the ledgers that the account had, from before the ledger was
    /// read.
    pub remembered: Vec<LedgerMark>,
    /// The agent and the nonce of an attempt that the ledger should know and does not.
    pub unaccounted: Option<(Key, Nonce)>,
}

/// A registration in a finalized block, with what the endpoint knows of its transaction.
///
/// The final log alone proves whose agent it is: it names the owner and the URI. Sender and nonce
/// are needed to finish a ledger entry; an endpoint whose transaction index does not reach back to
/// the block does not know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalRegistration {
    /// The account whose logs show it.
    pub registrant: Address,
    /// The `Registered` event.
    pub event: RegisteredEvent,
    /// Sender of the transaction, if the endpoint knows the transaction.
    pub sender: Option<Address>,
    /// Nonce of the transaction, if the endpoint knows the transaction.
    pub nonce: Option<Nonce>,
    /// Whether the registry knows the agent at the last finalized block, and no receipt says that
    /// the transaction failed.
    pub confirmed: bool,
    /// Cost of the transaction, in wei, if the endpoint has its receipt.
    pub cost: Option<u128>,
}

impl FinalRegistration {
    /// What the record keeps of it.
    #[must_use]
    pub fn result(&self) -> RegistrationResult {
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
    /// The record's attempt at this nonce that is in a block, by its receipt.
    pub included: Option<Inclusion>,
    /// The final transaction that has the entry's nonce, if it was looked for and found.
    pub used_by: Option<NonceUse>,
    /// Whether the last attempt was sent so recently that it need not be sent again.
    pub sent_recently: bool,
    /// Whether the last attempt was sent so long ago that its fee is probably too low.
    pub is_overdue: bool,
}

/// A transaction that is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inclusion {
    pub transaction: B256,
    pub succeeded: bool,
    /// Number of the block. The inclusion is final once the last finalized block has this number
    /// or a higher one.
    pub block: u64,
    /// Cost of the transaction, in wei.
    pub cost: u128,
}

/// What must be known before a new nonce is allocated. What is unknown stops new nonces, and
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Premises {
    pub unknown: Vec<UnknownPremise>,
}

/// Something that must be known before a new nonce is allocated. The name of a variant is the
/// reason of the condition that reports it.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum UnknownPremise {
    /// A SignerLedger cannot be read, not even the keys that it registers.
    #[error(
        "SignerLedger {name} cannot be read, so a key may be in flight there: restore it from a \
         backup, or run the version that wrote it"
    )]
    LedgerUnreadable { name: String },
    /// A record cannot be read, so the signer may have been used.
    #[error(
        "AgentRegistration {name} cannot be read, so the signer may have been used before: restore \
         it from a backup, or run the version that wrote it"
    )]
    RecordUnreadable { name: String },
    /// The ledger of another account that the IdentityRegistry uses or has used is gone.
    #[error(
        "SignerLedger {name} of this IdentityRegistry is missing or was replaced, so what its \
         account had in flight is not known: restore it from a backup"
    )]
    OtherLedgerLost { name: String },
    /// The ledger of another account that the IdentityRegistry uses or has used is in quarantine.
    #[error(
        "SignerLedger {name} of this IdentityRegistry is in quarantine, so what its account had in \
         flight is not known: put its account first in spec.signers to see what to do"
    )]
    OtherLedgerQuarantined { name: String },
    /// Another account that the IdentityRegistry uses or has used has sent more transactions than its
    /// ledger allocated.
    #[error(
        "the account of SignerLedger {name} has sent {count} transactions and that ledger allocated \
         nonces below {next}, so a registration may be in flight that it does not know: put the \
         account first in spec.signers to see what to do"
    )]
    OtherNonceAhead {
        name: String,
        count: Nonce,
        /// First nonce that the ledger has not allocated.
        next: Nonce,
    },
    /// The transaction count of another account could not be read.
    #[error(
        "the endpoint does not say how many transactions the account of SignerLedger {name} has sent: \
         check the endpoint; the operator retries automatically"
    )]
    OtherLedgerUnchecked { name: String },
    /// The ledger accepts no further keys.
    #[error(
        "the ledger of signer {account} is draining, so it registers nothing new: put another signer \
         first in spec.signers"
    )]
    SignerRetired { account: Address },
    /// An agent may be the one that an offer waits for, and nothing says whose it is.
    #[error(
        "agent {agent_id} was registered by {account} with the URI {agent_uri:?}, which names no \
         key, so it may be the agent of an offer{}: delete that offer and create it again with \
         registration.agentId; if there is none, list the agent in spec.bootstrap.ignoreAgents",
        and_more(*more)
    )]
    AgentWithoutKey {
        account: Address,
        agent_id: String,
        /// Beginning of its URI.
        agent_uri: String,
        /// How many agents besides it have no key.
        more: usize,
    },
    /// The account has sent more transactions than the ledger allocated.
    #[error(
        "the signer has sent {count} transactions and the ledger allocated nonces below {next}: its \
         key is used elsewhere, or the ledger was restored from a backup. Stop what else uses the \
         key, or restore the newest state; registration resumes by itself if the transactions are \
         final and prove to be of something else, and this replica has led since before them"
    )]
    NonceAhead {
        count: Nonce,
        /// First nonce that the ledger has not allocated.
        next: Nonce,
    },
    /// The logs are not proven complete up to the ledger's last finalized block.
    #[error(
        "the chain's logs are not proven complete up to the last finalized block: wait until they \
         are read"
    )]
    IndexNotProven,
    /// Entries whose nonce is used in a finalized block were not checked.
    #[error(
        "{count} finalized ledger entries could not be checked: check the endpoint; the operator \
         retries automatically"
    )]
    EntriesUnchecked { count: usize },
}

fn and_more(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    }
}

impl UnknownPremise {
    /// Reason for conditions: the name of the variant.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.into_str()
    }
}

/// An existing agent that a record asks to adopt by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptionTarget {
    /// Number and hash of the finalized block at which the registry knows the agent; `None` if it
    /// does not.
    pub exists_at: Option<(u64, B256)>,
    /// Owner of the agent at that block.
    pub owner: Option<Address>,
    /// URI of the agent on chain at that block.
    pub agent_uri: String,
    /// Key of another record that already has the agent.
    pub taken_by: Option<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_without_key_are_counted() {
        let message = |more| {
            let premise = UnknownPremise::AgentWithoutKey {
                account: Address::ZERO,
                agent_id: "7".into(),
                agent_uri: "https://a".into(),
                more,
            };
            premise.to_string()
        };
        assert!(message(0).contains("of an offer: delete"), "{}", message(0));
        assert!(
            message(2).contains("(and 2 more): delete"),
            "{}",
            message(2)
        );
    }

    #[test]
    fn every_unknown_premise_has_a_reason_and_a_remedy() {
        let name = String::from("31337-0x51");
        let all = [
            UnknownPremise::LedgerUnreadable { name: name.clone() },
            UnknownPremise::RecordUnreadable { name: name.clone() },
            UnknownPremise::OtherLedgerLost { name: name.clone() },
            UnknownPremise::OtherLedgerQuarantined { name: name.clone() },
            UnknownPremise::OtherNonceAhead {
                name: name.clone(),
                count: Nonce(8),
                next: Nonce(7),
            },
            UnknownPremise::OtherLedgerUnchecked { name },
            UnknownPremise::SignerRetired {
                account: Address::ZERO,
            },
            UnknownPremise::AgentWithoutKey {
                account: Address::ZERO,
                agent_id: "0".into(),
                agent_uri: "https://a".into(),
                more: 0,
            },
            UnknownPremise::NonceAhead {
                count: Nonce(8),
                next: Nonce(7),
            },
            UnknownPremise::IndexNotProven,
            UnknownPremise::EntriesUnchecked { count: 3 },
        ];
        let reasons: std::collections::BTreeSet<_> =
            all.iter().map(UnknownPremise::reason).collect();
        assert_eq!(reasons.len(), all.len());
        assert!(all.iter().all(|premise| premise.to_string().contains(": ")));
    }
}
