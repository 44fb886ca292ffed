//! Broken variants: each has one known flaw in the core or in the shell around it, and each must be
//! refuted.
//!
//! Data only. An edit that no longer matches the core fails the build, so that no variant silently
//! equals the shipped core.

use super::flaws::Flaw;

/// One flawed operator.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name, and that of its module if the core is flawed.
    pub name: &'static str,
    /// The flaw in words.
    pub about: &'static str,
    /// What is changed.
    pub change: Change,
    /// The invariant that it violates; `None` if nothing does, and `about` says why.
    pub breaks: Option<&'static str>,
    /// Name of the bounds within which a search must find that.
    pub within: &'static str,
}

/// What a variant changes.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// The text of the core.
    Core(&'static [Edit]),
    /// The shell around it.
    Shell(Flaw),
    /// Both: the flaw of one is masked by the other.
    Both(&'static [Edit], Flaw),
}

/// One change to one file of the core.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// `protocol`, `registrants` or `plan`.
    pub module: &'static str,
    /// A text that occurs exactly once in it.
    pub find: &'static str,
    /// What it becomes.
    pub replacement: &'static str,
}

const fn edit(module: &'static str, find: &'static str, replacement: &'static str) -> Edit {
    Edit {
        module,
        find,
        replacement,
    }
}

/// All variants.
pub const VARIANTS: &[Variant] = &[
    Variant {
        name: "nonce_from_the_chain",
        about: "a nonce is taken from the chain, not from the ledger",
        change: Change::Core(&[edit(
            "protocol",
            "let nonce = after.next;",
            "let nonce = Nonce(snapshot.account.counts.latest.0 + allocation.allocated.len() as u64);",
        )]),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "next_not_raised",
        about: "an allocation does not raise next",
        change: Change::Core(&[edit("protocol", "        after.next = nonce.next();\n", "")]),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "second_entry",
        about: "a key that has an entry gets another one",
        change: Change::Core(&[edit(
            "protocol",
            "        || ledger.is_some_and(|ledger| ledger.registering.contains_key(&record.key))\n    {\n        return PendingStep::Wait;",
            "        || ledger.is_none() && record.result.is_some()\n    {\n        return PendingStep::Wait;",
        )]),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "absence_assumed",
        about: "a key gets a nonce without proof that it is not registered (R11)",
        change: Change::Core(&[edit(
            "protocol",
            "    if indexes.proves_absent(ledger, record.key) {",
            "    if ledger.chain_id > 0 {",
        )]),
        breaks: Some("L1"),
        within: "omitted-logs",
    },
    Variant {
        name: "coverage_unchecked",
        about: "logs prove absence up to any block (R11)",
        change: Change::Core(&[edit(
            "registrants",
            "let reaches = index.proven_to().is_some_and(|block| block >= required);",
            "let reaches = index.proven_to().is_some() || required == 0;",
        )]),
        breaks: Some("L1"),
        within: "omitted-logs",
    },
    Variant {
        name: "prune_hides_its_block",
        about: "a prune does not raise finalizedBlock (R5, R11)",
        change: Change::Core(&[edit(
            "protocol",
            "blocks.iter().copied().fold(after.finalized_block, u64::max)",
            "blocks.first().map_or(after.finalized_block, |_| after.finalized_block)",
        )]),
        breaks: Some("L1"),
        within: "omitted-logs",
    },
    Variant {
        name: "result_pruned_early",
        about: "an entry is pruned before its nonce is final",
        change: Change::Core(&[edit(
            "protocol",
            "            (false, true) => Ok(EntryStep::Wait),\n            (false, false) =>",
            "            (false, true) => Ok(EntryStep::Prune),\n            (false, false) =>",
        )]),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "reverted_on_latest",
        about: "a revert counts before it is final",
        change: Change::Core(&[
            edit(
                "protocol",
                "    let is_final = nonce < counts.finalized;",
                "    let is_final = nonce < counts.latest;",
            ),
            edit(
                "protocol",
                "let is_final = inclusion.block <= snapshot.account.finalized_block.min(proven_to);",
                "let is_final = proven_to > 0;",
            ),
        ]),
        breaks: Some("L2"),
        within: "reverted",
    },
    Variant {
        name: "reverted_registers_again",
        about: "a reverted key gets another nonce",
        change: Change::Core(&[
            edit(
                "protocol",
                "record.tombstone.unwrap_or_default() || record.phase == Phase::Reverted {",
                "record.tombstone.unwrap_or_default() {",
            ),
            edit(
                "protocol",
                "    if let Some(attempt) = record.live_attempt() {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
                "    if let Some(attempt) = record.live_attempt().filter(|_| false) {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
            ),
        ]),
        breaks: Some("L4"),
        within: "reverted",
    },
    Variant {
        name: "retired_registers",
        about: "a retired key gets a nonce",
        change: Change::Core(&[edit(
            "protocol",
            "record.tombstone.unwrap_or_default() || record.phase == Phase::Reverted {",
            "record.phase == Phase::Reverted {",
        )]),
        breaks: Some("L4"),
        within: "tombstone",
    },
    Variant {
        name: "revived_after_revert",
        about: "a reverted agent that is used again is pending again",
        change: Change::Core(&[edit(
            "protocol",
            "        (None, Phase::Reverted) => Phase::Reverted,\n        (None, _) => Phase::Pending,",
            "        (None, _) => Phase::Pending,",
        )]),
        breaks: Some("L3"),
        within: "reverted+tombstone",
    },
    Variant {
        name: "attempts_not_compared",
        about: "a record with an attempt and no entry gets a nonce (6a)",
        change: Change::Both(
            &[edit(
                "protocol",
                "    if let Some(attempt) = record.live_attempt() {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
                "    if let Some(attempt) = record.live_attempt().filter(|_| false) {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
            )],
            Flaw::AttemptsUnread,
        ),
        breaks: Some("L1"),
        within: "older-ledger",
    },
    Variant {
        name: "entry_at_any_nonce",
        about: "any entry of a key hides an attempt that its ledger has lost",
        change: Change::Shell(Flaw::EntryAtAnyNonce),
        breaks: Some("L1"),
        within: "online-restore",
    },
    Variant {
        name: "displaced_on_latest",
        about: "what uses a nonce in a block that is not final displaces the registration (R5, R6)",
        change: Change::Core(&[edit(
            "protocol",
            "    let is_final = nonce < counts.finalized;\n    let is_own",
            "    let is_final = nonce < counts.latest;\n    let is_own",
        )]),
        breaks: Some("L3"),
        within: "foreign-use",
    },
    Variant {
        name: "agreement_assumed",
        about: "a ledger continues above foreign transactions although it may be rolled back (R9)",
        change: Change::Shell(Flaw::AgreementAssumed),
        breaks: Some("L1"),
        within: "foreign-use-restored",
    },
    Variant {
        name: "gaps_unfilled",
        about: "a nonce for which nothing can be signed is not filled (R8)",
        change: Change::Shell(Flaw::GapsUnfilled),
        breaks: Some("L5"),
        within: "filler",
    },
    Variant {
        name: "filled_entry_pruned",
        about: "an entry is pruned as soon as its filler is sent (R6, R8)",
        change: Change::Shell(Flaw::FilledEntryPruned),
        breaks: Some("L3"),
        within: "filler",
    },
    Variant {
        name: "retired_while_moving",
        about: "a record is retired in the middle of its move to another signer",
        change: Change::Core(&[edit(
            "protocol",
            "(!in_flight && !done && !is_moving).then",
            "(!in_flight && !done && (is_moving || !is_moving)).then",
        )]),
        breaks: Some("L4"),
        within: "tombstone+rotation",
    },
    Variant {
        name: "move_unmarked",
        about: "a record is moved to another signer without a mark",
        change: Change::Core(&[edit(
            "protocol",
            "            moved_from: record.signer,\n",
            "            moved_from: None,\n",
        )]),
        breaks: Some("L1"),
        within: "rotation+lost-record",
    },
    Variant {
        name: "mark_ignored",
        about: "a marked record gets a nonce before its move is complete",
        change: Change::Core(&[edit(
            "protocol",
            "    if record.moved_from.is_some() {\n        return PendingStep::Wait;\n    }\n",
            "",
        )]),
        breaks: Some("L1"),
        within: "rotation+lost-record",
    },
    Variant {
        name: "ledger_forgotten",
        about: "a lost ledger is replaced although records have attempts, which are not compared",
        change: Change::Both(
            &[
                edit(
                    "protocol",
                    "if marked.is_some() || history.has_attempts || used.next().is_some() {",
                    "if marked.is_some() || used.next().is_some() {",
                ),
                edit(
                    "protocol",
                    "    if let Some(attempt) = record.live_attempt() {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
                    "    if let Some(attempt) = record.live_attempt().filter(|_| false) {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
                ),
            ],
            Flaw::AttemptsUnread,
        ),
        breaks: Some("L1"),
        within: "lost-ledger",
    },
    Variant {
        name: "replacement_unnoticed",
        about: "a ledger is used although the marker names another one: attempts show that as well",
        change: Change::Core(&[edit(
            "protocol",
            "marked.find(|uid| **uid != mark.uid).or(replaced)",
            "marked.find(|uid| uid.is_empty()).or(replaced)",
        )]),
        breaks: None,
        within: "lost-ledger",
    },
    Variant {
        name: "records_before_ledger",
        about: "records are read before the ledger (R1), and logs prove absence up to any block: the attempt is still not stored (R3)",
        change: Change::Both(
            &[edit(
                "registrants",
                "let reaches = index.proven_to().is_some_and(|block| block >= required);",
                "let reaches = index.proven_to().is_some() || required == 0;",
            )],
            Flaw::RecordsBeforeLedger,
        ),
        breaks: None,
        within: "base",
    },
    Variant {
        name: "records_first_with_proof",
        about: "records are read before the ledger: the logs are still proven after it (R11)",
        change: Change::Shell(Flaw::RecordsBeforeLedger),
        breaks: None,
        within: "base",
    },
    Variant {
        name: "prune_before_result",
        about: "an entry is pruned before its record has the result (R5)",
        change: Change::Shell(Flaw::PruneBeforeResult),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "send_before_store",
        about: "a transaction is sent before it is stored (R3)",
        change: Change::Shell(Flaw::SendBeforeStore),
        breaks: Some("L1"),
        within: "older-ledger",
    },
    Variant {
        name: "conflict_retried",
        about: "a conflict on the ledger is retried with a fresh version",
        change: Change::Shell(Flaw::ConflictRetried),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "sign_without_entry",
        about: "a transaction is signed although the entry was not written (R2): it is stored before it is sent (R3), and an attempt that the ledger lacks stops it",
        change: Change::Shell(Flaw::SignWithoutEntry),
        breaks: None,
        within: "base",
    },
    Variant {
        name: "attempt_without_entry",
        about: "the same, and attempts are not compared",
        change: Change::Both(
            &[
                edit(
                    "protocol",
                    "            if let Some((key, nonce)) = history.unaccounted {",
                    "            if let Some((key, nonce)) = history.unaccounted.filter(|_| false) {",
                ),
                edit(
                    "protocol",
                    "    if let Some(attempt) = record.live_attempt() {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
                    "    if let Some(attempt) = record.live_attempt().filter(|_| false) {\n        return PendingStep::Refuse(Freeze::EntryMissing {",
                ),
            ],
            Flaw::SignWithoutEntry,
        ),
        breaks: Some("L1"),
        within: "base",
    },
    Variant {
        name: "record_unconditional",
        about: "records are written without a resourceVersion",
        change: Change::Shell(Flaw::RecordUnconditional),
        breaks: Some("L3"),
        within: "base",
    },
    Variant {
        name: "own_logs_only",
        about: "only the logs of the first signer are read (finding 1)",
        change: Change::Shell(Flaw::OwnLogsOnly),
        breaks: Some("L1"),
        within: "rotation+lost-record",
    },
    Variant {
        name: "other_ledgers_unread",
        about: "entries of other ledgers are not looked at",
        change: Change::Shell(Flaw::OtherLedgersUnread),
        breaks: Some("L1"),
        within: "rotation+lost-record",
    },
    Variant {
        name: "unsettled_ignored",
        about: "a lost ledger of another signer is no obstacle",
        change: Change::Shell(Flaw::UnsettledIgnored),
        breaks: Some("L1"),
        within: "rotation+lost-ledger",
    },
    Variant {
        name: "move_without_touch",
        about: "a move does not write the former ledger",
        change: Change::Shell(Flaw::MoveWithoutTouch),
        breaks: Some("L1"),
        within: "rotation+lost-record",
    },
    Variant {
        name: "retire_without_touch",
        about: "retiring a record does not write the ledger",
        change: Change::Shell(Flaw::RetireWithoutTouch),
        breaks: Some("L4"),
        within: "tombstone",
    },
    Variant {
        name: "mints_unchecked",
        about: "a mint without its Registered log counts as no log (finding 4)",
        change: Change::Shell(Flaw::MintsUnchecked),
        breaks: Some("L1"),
        within: "omitted-logs",
    },
    Variant {
        name: "balance_unchecked",
        about: "logs that do not account for the balance count as complete",
        change: Change::Shell(Flaw::BalanceUnchecked),
        breaks: Some("L1"),
        within: "omitted-logs",
    },
    Variant {
        name: "agents_without_key_ignored",
        about: "an agent without a key is no obstacle (C06)",
        change: Change::Shell(Flaw::AgentsWithoutKeyIgnored),
        breaks: Some("L1"),
        within: "used-wallet",
    },
    Variant {
        name: "memory_unread",
        about: "a replica does not compare the ledger with what it remembers",
        change: Change::Shell(Flaw::MemoryUnread),
        breaks: Some("L1"),
        within: "memory",
    },
    Variant {
        name: "quarantine_unwritten",
        about: "a rollback is noticed and not written to the ledger (6b)",
        change: Change::Shell(Flaw::QuarantineUnwritten),
        breaks: Some("L1"),
        within: "memory",
    },
    Variant {
        name: "chain_after_ledger",
        about: "the chain is read after the ledger: only freezes that pass by themselves",
        change: Change::Shell(Flaw::ChainAfterLedger),
        breaks: None,
        within: "base",
    },
    Variant {
        name: "attempts_unread",
        about: "attempts that the ledger lacks are not looked for: the pending record still refuses",
        change: Change::Shell(Flaw::AttemptsUnread),
        breaks: None,
        within: "lost-ledger",
    },
];
