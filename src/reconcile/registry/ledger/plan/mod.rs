//! What the entries of a ledger need, and what may be spent. Pure.
//!
//! It applies [`protocol`] to everything that was gathered and sorts the steps by kind. Each entry
//! is decided on its own: an unanswered question about one delays that one. A freeze or a
//! suspension holds back what would spend and nothing else; evidence is always recorded.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::Address;
use jiff::Timestamp;

use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Attempt, Key, Nonce, Phase, SignerLedgerSpec,
};
use crate::chain::RpcError;
use crate::ledger::Freeze;
use crate::ledger::evidence::{Evidence, LedgerSnapshot};
use crate::ledger::money::Budget;
use crate::ledger::protocol::{
    self, EntryCosts, EntryStep, Reservation, entry_step, payer, worst_cost,
};

/// What was gathered about each entry: an answer, or why there is none.
pub type EvidenceByNonce = BTreeMap<Nonce, Result<Evidence, RpcError>>;

/// What the entries of a ledger need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntrySteps {
    /// Records to replace, since what became of the nonce is final: the registration succeeded or
    /// reverted, or something else used it.
    pub finish: Vec<(Key, AgentRegistrationSpec)>,
    /// Records to replace, since the phase of their transaction changed.
    pub note: Vec<(Key, AgentRegistrationSpec)>,
    /// Entries to remove, and the blocks of their transactions.
    pub prune: BTreeMap<Nonce, Option<u64>>,
    /// Entries to sign and send, and stored attempts to send, in the order of their nonces.
    pub spend: BTreeMap<Nonce, SpendStep>,
    /// Why nothing may be allocated or signed. The first one by nonce: later ones may be its
    /// consequence.
    pub freeze: Option<Freeze>,
    /// Entries about which a question was not answered.
    pub unanswered: BTreeMap<Nonce, (Key, RpcError)>,
    /// The lowest entry that no transaction was signed for and that belongs to another contract.
    pub foreign_unsigned: Option<(Nonce, Key)>,
}

impl EntrySteps {
    /// Whether a nonce waits for a transaction of another contract: nothing above it would be
    /// included.
    #[must_use]
    pub const fn has_foreign_gap(&self) -> bool {
        self.foreign_unsigned.is_some()
    }

    /// Without notes of inclusion: where finality follows soon, the result is recorded next, and one
    /// write of the record and of its offers' status is saved.
    #[must_use]
    pub(crate) fn without_inclusions(mut self) -> Self {
        self.note.retain(|(_, spec)| spec.phase != Phase::Included);
        self
    }
}

/// What costs money if it is done.
#[derive(Clone, Debug, PartialEq)]
pub enum SpendStep {
    /// Sign, store and send.
    Sign,
    /// Send again.
    Send(Attempt),
    /// Sign a replacement, store and send it. If the limits do not allow it, send again what was
    /// not sent recently.
    Replace {
        attempt: Attempt,
        sent_recently: bool,
    },
}

impl SpendStep {
    /// Whether something is signed.
    #[must_use]
    pub const fn signs(&self) -> bool {
        matches!(self, Self::Sign | Self::Replace { .. })
    }

    /// What is left of it if nothing may be signed: sending stored bytes again is always safe.
    fn without_signature(self) -> Option<Self> {
        match self {
            Self::Sign => None,
            Self::Send(attempt) => Some(Self::Send(attempt)),
            Self::Replace {
                attempt,
                sent_recently,
            } => (!sent_recently).then_some(Self::Send(attempt)),
        }
    }
}

/// Decides what the entries of a ledger need.
///
/// Entries whose record belongs to another registry contract are not judged by this contract's
/// logs. What is stored for them is still sent, since one missing nonce blocks all after it.
#[must_use]
pub fn entries(
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    evidence: &EvidenceByNonce,
    is_ours: impl Fn(&AgentRegistrationSpec) -> bool,
    may_spend: bool,
) -> EntrySteps {
    let mut steps = EntrySteps::default();
    let nothing = Evidence::default();
    for (nonce, entry) in &snapshot.ledger.entries {
        let record = entry
            .key
            .and_then(|key| records.get(&key))
            .map(|record| &record.spec);
        let foreign = record.is_some_and(|record| !is_ours(record));
        if foreign && *nonce < snapshot.account.counts.latest {
            continue;
        }
        let evidence = match evidence.get(nonce) {
            Some(Ok(evidence)) => evidence,
            Some(Err(error)) => {
                let unanswered = entry.key.map(|key| (*nonce, (key, error.clone())));
                steps.unanswered.extend(unanswered);
                continue;
            }
            None => &nothing,
        };
        match entry_step(snapshot, *nonce, record, evidence) {
            Err(freeze) => {
                steps.freeze.get_or_insert(freeze);
            }
            Ok(EntryStep::Wait) => {}
            Ok(EntryStep::Prune) => {
                let block = record.and_then(|record| {
                    let result = record.result.as_ref().map(|result| result.block);
                    let displaced = record.displaced.as_ref().map(|displaced| displaced.block);
                    result.or(displaced)
                });
                steps.prune.insert(*nonce, block);
            }
            Ok(
                EntryStep::RecordResult(spec)
                | EntryStep::RecordReverted(spec)
                | EntryStep::RecordDisplaced(spec),
            ) => steps.finish.push((spec.key, spec)),
            Ok(EntryStep::RecordPhase(spec)) => steps.note.push((spec.key, spec)),
            Ok(EntryStep::Sign) if foreign => {
                let key = record.map(|record| record.key);
                steps.foreign_unsigned = steps
                    .foreign_unsigned
                    .or_else(|| key.map(|key| (*nonce, key)));
            }
            Ok(EntryStep::Sign) => {
                steps.spend.insert(*nonce, SpendStep::Sign);
            }
            Ok(EntryStep::Send(attempt)) => {
                steps.spend.insert(*nonce, SpendStep::Send(attempt));
            }
            Ok(EntryStep::Replace {
                attempt,
                sent_recently,
            }) => {
                let replace = SpendStep::Replace {
                    attempt,
                    sent_recently,
                };
                // Its own registry replaces it, within its own limits.
                let step = if foreign {
                    replace.without_signature()
                } else {
                    Some(replace)
                };
                steps.spend.extend(step.map(|step| (*nonce, step)));
            }
        }
    }
    if !may_spend {
        hold_back(&mut steps, snapshot, records, |_| None);
    } else if steps.freeze.is_some() {
        // What is sent again lets lower nonces be included.
        hold_back(&mut steps, snapshot, records, SpendStep::without_signature);
    }
    steps
}

/// Replaces steps that would spend by what is allowed, and notes which records own a nonce that no transaction was signed
/// for yet.
fn hold_back(
    steps: &mut EntrySteps,
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    allowed: impl Fn(SpendStep) -> Option<SpendStep>,
) {
    let spends = std::mem::take(&mut steps.spend);
    let unsigned: Vec<Nonce> = spends
        .iter()
        .filter(|(_, spend)| **spend == SpendStep::Sign)
        .map(|(nonce, _)| *nonce)
        .collect();
    let rest = spends.into_iter();
    steps.spend = rest
        .filter_map(|(nonce, step)| Some((nonce, allowed(step)?)))
        .collect();
    let entries = unsigned
        .iter()
        .filter_map(|nonce| snapshot.ledger.entries.get(nonce));
    let keys = entries.filter_map(|entry| entry.key);
    let pending = keys
        .filter_map(|key| records.get(&key))
        .filter(|record| record.spec.phase == Phase::Pending);
    steps.note.extend(pending.map(|record| {
        (
            record.spec.key,
            AgentRegistrationSpec {
                phase: Phase::Bound,
                ..record.spec.clone()
            },
        )
    }));
}

/// When the oldest transaction of the entries was signed. It is read from the records, so that it
/// survives a change of the leader.
#[must_use]
pub fn oldest_signed(
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
) -> Option<Timestamp> {
    let entries = snapshot.ledger.entries.iter();
    let signed = entries.filter_map(|(nonce, entry)| {
        let attempts = &records.get(&entry.key?)?.spec.attempts;
        let first = attempts.iter().find(|attempt| attempt.nonce == *nonce)?;
        first.signed_at.as_deref()?.parse().ok()
    });
    signed.min()
}

/// Entries below the finalized count that were not decided because a question was not answered:
/// what they would show is a premise of every allocation.
#[must_use]
pub fn unchecked_finalized(snapshot: LedgerSnapshot<'_>, steps: &EntrySteps) -> usize {
    steps
        .unanswered
        .range(..snapshot.account.counts.finalized)
        .count()
}

/// Blocks of final transactions of these accounts, ascending and without repetition: those from which
/// the spending of the last 24 hours is summed.
#[must_use]
pub fn spending_blocks<'a>(
    snapshot: LedgerSnapshot<'_>,
    accounts: &BTreeSet<Address>,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
) -> BTreeSet<u64> {
    of_accounts(snapshot, accounts, records)
        .filter_map(AgentRegistrationSpec::final_block)
        .collect()
}

/// Records of the ledger's account, and of the others that share its limits.
fn of_accounts<'a>(
    snapshot: LedgerSnapshot<'_>,
    accounts: &BTreeSet<Address>,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
) -> impl Iterator<Item = &'a AgentRegistrationSpec> {
    let (chain_id, own) = (snapshot.ledger.chain_id, snapshot.ledger.signer);
    records.into_iter().filter(move |record| {
        let shares = |signer| signer == own || accounts.contains(&signer);
        record.chain_id == chain_id && record.signer.is_some_and(shares)
    })
}

/// What the records of these accounts say was spent from a block on, and who paid.
#[must_use]
pub fn spent<'a>(
    snapshot: LedgerSnapshot<'_>,
    accounts: &BTreeSet<Address>,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
    from_block: u64,
) -> Vec<(Option<String>, u128)> {
    of_accounts(snapshot, accounts, records)
        .filter(|record| {
            record
                .final_block()
                .is_some_and(|block| block >= from_block)
        })
        .map(|record| {
            (
                payer(record).map(str::to_owned),
                record.spent_wei.unwrap_or_default().0,
            )
        })
        .collect()
}

/// What transactions in flight of the other accounts may cost, and who pays. The limits are those of
/// the IdentityRegistry, whichever of its signers spends.
#[must_use]
pub fn reserved_by_others<'a>(
    snapshot: LedgerSnapshot<'_>,
    accounts: &BTreeSet<Address>,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
) -> Vec<(Option<String>, u128)> {
    let of_others = of_accounts(snapshot, accounts, records)
        .filter(|record| record.signer != Some(snapshot.ledger.signer) && record.is_open());
    let reserved = of_others.filter_map(|record| {
        let amount = record.attempts.iter().map(worst_cost).max()?;
        Some((payer(record).map(str::to_owned), amount))
    });
    reserved.collect()
}

/// What an account and those that share its limits have spent in the last 24 hours, and what they may
/// still have to pay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commitments {
    /// In wei.
    pub balance: u128,
    /// First nonce that no block uses.
    pub latest: Nonce,
    /// Spent in the last 24 hours, or reserved by other accounts, and by which namespace.
    pub spent: Vec<(Option<String>, u128)>,
    /// What each entry may still cost.
    pub reserved: BTreeMap<Nonce, Reservation>,
}

impl Commitments {
    /// Those of a ledger.
    #[must_use]
    pub fn new(
        ledger: &SignerLedgerSpec,
        (latest, balance): (Nonce, u128),
        spent: Vec<(Option<String>, u128)>,
        records: &BTreeMap<Key, AgentRegistration>,
        costs: EntryCosts,
    ) -> Self {
        let record_of = |key| records.get(&key).map(|record| record.spec.clone());
        let reserved = protocol::reservations(ledger, record_of, costs);
        Self {
            balance,
            latest,
            spent,
            reserved: reserved
                .into_iter()
                .map(|reservation| (reservation.nonce, reservation))
                .collect(),
        }
    }

    /// What may be spent: the balance without what unmined transactions may cost, and the day
    /// without what was spent in it or is reserved.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget_without(None)
    }

    /// What the transaction of one entry may cost: what is reserved for it is its own.
    #[must_use]
    pub fn budget_of(&self, nonce: Nonce) -> Budget {
        self.budget_without(Some(nonce))
    }

    fn budget_without(&self, own: Option<Nonce>) -> Budget {
        let others = || {
            let reserved = self.reserved.values();
            reserved.filter(|reservation| Some(reservation.nonce) != own)
        };
        let unmined = others().filter(|reservation| reservation.nonce >= self.latest);
        let taken = unmined
            .map(|reservation| reservation.amount)
            .fold(0, u128::saturating_add);
        let mut budget = Budget {
            balance: self.balance.saturating_sub(taken),
            ..Budget::default()
        };
        for (namespace, amount) in &self.spent {
            budget.add_used(namespace.as_deref(), *amount);
        }
        for reservation in others() {
            budget.add_used(reservation.namespace.as_deref(), reservation.amount);
        }
        budget
    }
}

/// Block of the last 24 hours from which spending counts: found among the blocks in which something
/// was spent, since times between them decide nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DayStart {
    /// Everything from this block on was spent within the day.
    From(u64),
    /// The time of this block is needed.
    AskTimeOf(u64),
}

/// Finds the first spending block whose time is `since` (Unix seconds) or later. `times` are the
/// block times known so far; block times ascend with block numbers.
#[must_use]
pub fn day_start(blocks: &BTreeSet<u64>, times: &BTreeMap<u64, u64>, since: u64) -> DayStart {
    let blocks: Vec<u64> = blocks.iter().copied().collect();
    let (mut before, mut within) = (0, blocks.len());
    while before < within {
        let middle = usize::midpoint(before, within);
        match times.get(&blocks[middle]) {
            Some(time) if *time < since => before = middle + 1,
            Some(_) => within = middle,
            None => return DayStart::AskTimeOf(blocks[middle]),
        }
    }
    DayStart::From(blocks.get(within).copied().unwrap_or(u64::MAX))
}

/// Nonces of [`EntrySteps::prune`], and the blocks that are known of them.
#[must_use]
pub fn pruned_nonces(steps: &EntrySteps) -> (BTreeSet<Nonce>, Vec<u64>) {
    (
        steps.prune.keys().copied().collect(),
        steps.prune.values().copied().flatten().collect(),
    )
}

#[cfg(test)]
mod tests;
