//! What one replica has read when it decides, and what it then wants to do, in the real types.
//!
//! Values only. [`super::world`] fills a [`View`] from its compact state and compresses a
//! [`Decision`] again; `pass.rs` decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, B256};
use serviceoffer::api::{
    AgentRegistration, AgentRegistrationSpec, Attempt, Key, LedgerMarker, Nonce, SignerLedger,
    SignerLedgerSpec,
};
use serviceoffer::decisions::evidence::AccountState;
use serviceoffer::decisions::foreign::NonceUse;
use serviceoffer::decisions::index::{IndexStart, OwnerIndex};
use serviceoffer::decisions::questions::{Answers, Questions};
use serviceoffer::decisions::rollback::{LedgerMark, Suspicion};
use serviceoffer::decisions::{FeeMarket, Lenient, TransactionSigner};

/// What a chain answers to a replica.
pub trait ChainAnswers {
    /// The index of an account's logs up to the last finalized block that the replica knows;
    /// `None` if the endpoint left logs out and the index noticed.
    fn index(&self, account: Address, start: IndexStart) -> Option<Arc<OwnerIndex>>;
    /// Whether an account had sent nothing at that block, and how many agents it held.
    fn unused(&self, account: Address) -> Option<IndexStart>;
    /// Receipts, transactions and agents.
    fn answer(&self, questions: &Questions) -> Answers;
    /// What has a nonce of an account in a final block.
    fn used_by(&self, account: Address, nonce: Nonce) -> Option<NonceUse>;
    /// Whether an endpoint has accepted a transaction.
    fn was_sent(&self, hash: B256) -> bool;
}

/// What one pass over the ledger of one account has read.
pub struct View<'a> {
    /// Accounts in `spec.signers` of the IdentityRegistry.
    pub signers: Vec<Address>,
    /// Ledger markers in its status.
    pub markers: Vec<LedgerMarker>,
    /// Ledger markers of all IdentityRegistries.
    pub all_markers: Vec<LedgerMarker>,
    /// First part of the URIs that it registers.
    pub base_url: &'static str,
    /// Signs for the account of the pass.
    pub signer: &'a TransactionSigner,
    /// Whether it is the account that registers; the others finish what they began.
    pub is_first: bool,
    /// The ledger of the account.
    pub ledger: Option<SignerLedger>,
    /// All records, read after the ledger.
    pub records: Vec<AgentRegistration>,
    /// All ledgers, read after the records.
    pub ledgers: Vec<Lenient<SignerLedger>>,
    /// The account as read before the ledger.
    pub account: AccountState,
    /// The account as read after everything else.
    pub birth: AccountState,
    /// Transaction counts of the other accounts that the IdentityRegistry uses or has used.
    pub other_counts: BTreeMap<Address, Nonce>,
    /// Whether the replica has seen ledger and chain agree before.
    pub has_agreed: bool,
    /// Fees of the chain.
    pub market: FeeMarket,
    /// `bootstrap.atNonce` and `bootstrap.fromBlock`.
    pub bootstrap: Option<(Nonce, u64)>,
    /// Keys that offers want and that may get a nonce.
    pub allocatable: BTreeSet<Key>,
    /// Keys for which nothing can be signed.
    pub refused: BTreeSet<Key>,
    /// What the replica remembers of the ledger.
    pub remembered: Vec<LedgerMark>,
    /// The chain.
    pub chain: &'a dyn ChainAnswers,
}

/// One request of a replica to the API server or to an endpoint.
#[derive(Clone, Debug)]
pub enum Request {
    /// Replace a record, on the condition of the version that was read.
    Record(AgentRegistrationSpec),
    /// The same with one more attempt; if it fails, the attempt is not sent.
    Store(AgentRegistrationSpec, Attempt),
    /// Send an attempt of a key.
    Send(Key, Attempt),
    /// Send the filler for the nonce of a key.
    Fill(Key, Attempt),
    /// Replace the ledger, on the condition of the version that was read. If it fails, nothing
    /// follows.
    Ledger(SignerLedgerSpec),
    /// Create the ledger.
    Create(SignerLedgerSpec),
    /// Write the ledger's uid to the marker of the IdentityRegistry, if there is none.
    WriteMarker,
    /// Read a former signer's ledger, and take over the records of these keys.
    TakeOver(Address, Vec<Key>),
    /// Put a ledger in quarantine, if the API server confirms the suspicion.
    Quarantine(Suspicion),
}

/// What a replica does after it has read a [`View`].
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Its requests, in order.
    pub requests: Vec<Request>,
    /// The condition that tells people why nothing is registered.
    pub stopped: Option<&'static str>,
}
