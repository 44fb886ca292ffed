//! Flaws of the shell around the core: the order of its requests, and what it reads.
//!
//! Data only. [`super::variants`] lists them beside the flaws of the core.

/// One flaw of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The records are read before the ledger.
    RecordsBeforeLedger,
    /// The chain is read after the ledger.
    ChainAfterLedger,
    /// An entry is pruned before its record has the result.
    PruneBeforeResult,
    /// A transaction is sent before it is stored.
    SendBeforeStore,
    /// A conflict on the ledger is retried with a fresh resourceVersion.
    ConflictRetried,
    /// Records are written without a resourceVersion.
    RecordUnconditional,
    /// A transaction is signed for an entry whose write failed.
    SignWithoutEntry,
    /// Only the logs of the first signer are read.
    OwnLogsOnly,
    /// Entries of other ledgers of the chain are not looked at.
    OtherLedgersUnread,
    /// Attempts that the ledger lacks are not looked for.
    AttemptsUnread,
    /// Ledgers that replicas remember do not count.
    MemoryUnread,
    /// A rollback is noticed and not written to the ledger.
    QuarantineUnwritten,
    /// A completed move does not write the former signer's ledger.
    MoveWithoutTouch,
    /// A retired record does not write the ledger.
    RetireWithoutTouch,
    /// Logs whose number does not agree with the balance count as complete.
    BalanceUnchecked,
    /// A mint without its `Registered` log counts as no log.
    MintsUnchecked,
    /// Agents without a key are no obstacle.
    AgentsWithoutKeyIgnored,
    /// Missing or replaced ledgers of other signers are no obstacle.
    UnsettledIgnored,
    /// The ledger continues above foreign transactions although nothing shows that it was not rolled
    /// back.
    AgreementAssumed,
    /// A nonce for which nothing can be signed is not filled.
    GapsUnfilled,
    /// An entry is pruned as soon as its filler is sent.
    FilledEntryPruned,
    /// Any entry of a key counts as that of its attempt.
    EntryAtAnyNonce,
}
