//! What the entries of a ledger need, and what there is to spend. Pure.
//!
//! It applies [`protocol`] to everything that was gathered and sorts the outcome by what may be
//! done in which order. A freeze or a suspension drops what would spend, and nothing else: evidence
//! is recorded whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{AgentRegistration, AgentRegistrationSpec, Attempt, Key, Nonce, Phase};
use crate::ledger::Freeze;
use crate::ledger::evidence::{Evidence, LedgerSnapshot};
use crate::ledger::money::Budget;
use crate::ledger::protocol::{self, EntryStep, Reservation, entry_step, payer};

/// What the entries of a ledger need.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EntrySteps {
    /// Records to replace: the registration is final.
    pub finish: Vec<(Key, AgentRegistrationSpec)>,
    /// Records to replace: where a transaction stands has changed.
    pub note: Vec<(Key, AgentRegistrationSpec)>,
    /// Entries to remove, and the blocks of their transactions.
    pub prune: BTreeMap<Nonce, Option<u64>>,
    /// Entries to sign and send, and stored attempts to send, in the order of their nonces.
    pub spend: BTreeMap<Nonce, SpendStep>,
    /// Why nothing may be spent. The first one by nonce: what comes after may be its consequence.
    pub freeze: Option<Freeze>,
}

/// What costs money if it is done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SpendStep {
    /// Sign, store and send.
    Sign,
    /// Send again.
    Send(Attempt),
}

/// Decides what the entries of a ledger need. Entries whose record belongs to another registry
/// contract are not judged by this one's logs; what is stored for them is sent all the same, since
/// a nonce that stands still blocks all after it.
#[must_use]
pub(crate) fn entries(
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    evidence: &BTreeMap<Nonce, Evidence>,
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
        match entry_step(
            snapshot,
            *nonce,
            record,
            evidence.get(nonce).unwrap_or(&nothing),
        ) {
            Err(freeze) => {
                steps.freeze.get_or_insert(freeze);
            }
            Ok(EntryStep::Wait) => {}
            Ok(EntryStep::Prune) => {
                let block = record.and_then(|record| Some(record.result.as_ref()?.block));
                steps.prune.insert(*nonce, block);
            }
            Ok(EntryStep::RecordResult(spec)) => steps.finish.push((spec.key, spec)),
            Ok(EntryStep::RecordPhase(spec)) => steps.note.push((spec.key, spec)),
            Ok(EntryStep::Sign) if foreign => {}
            Ok(EntryStep::Sign) => {
                steps.spend.insert(*nonce, SpendStep::Sign);
            }
            Ok(EntryStep::Send(attempt)) => {
                steps.spend.insert(*nonce, SpendStep::Send(attempt));
            }
        }
    }
    if steps.freeze.is_some() || !may_spend {
        hold_back(&mut steps, snapshot, records);
    }
    steps
}

/// Drops what would spend, and notes which records own a nonce that nothing was signed for yet.
fn hold_back(
    steps: &mut EntrySteps,
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
) {
    let held_back = std::mem::take(&mut steps.spend);
    let unsigned = held_back
        .iter()
        .filter(|(_, spend)| **spend == SpendStep::Sign)
        .map(|(nonce, _)| nonce);
    let keys = unsigned.filter_map(|nonce| snapshot.ledger.entries.get(nonce)?.key);
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

/// What the records of an account say was spent from a block on, and who paid.
#[must_use]
pub(crate) fn spent<'a>(
    snapshot: LedgerSnapshot<'_>,
    records: impl IntoIterator<Item = &'a AgentRegistration>,
    from_block: u64,
) -> Vec<(Option<&'a str>, u128)> {
    let of_account = records
        .into_iter()
        .map(|record| &record.spec)
        .filter(|record| record.is_of(snapshot.ledger.chain_id, snapshot.ledger.signer));
    let recent = of_account.filter(|record| {
        record
            .result
            .as_ref()
            .is_some_and(|result| result.block >= from_block)
    });
    recent
        .map(|record| {
            (
                payer(&record.identity),
                record.spent_wei.unwrap_or_default().0,
            )
        })
        .collect()
}

/// What there is to spend: the balance without what unmined transactions may take, and the day
/// without what was spent in it or is reserved.
#[must_use]
pub(crate) fn budget(
    snapshot: LedgerSnapshot<'_>,
    balance: u128,
    spent: &[(Option<&str>, u128)],
    reservations: &[Reservation],
) -> Budget {
    let unmined = reservations
        .iter()
        .filter(|reservation| reservation.nonce >= snapshot.account.counts.latest);
    let taken = unmined
        .map(|reservation| reservation.amount)
        .fold(0, u128::saturating_add);
    let mut budget = Budget {
        balance: balance.saturating_sub(taken),
        ..Budget::default()
    };
    spent
        .iter()
        .for_each(|(namespace, amount)| budget.add_used(*namespace, *amount));
    for reservation in reservations {
        budget.add_used(reservation.namespace.as_deref(), reservation.amount);
    }
    budget
}

/// What each entry may still cost, by the records at hand.
#[must_use]
pub(crate) fn reservations(
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    per_registration: u128,
) -> Vec<Reservation> {
    protocol::reservations(
        snapshot.ledger,
        |key| records.get(&key).map(|record| record.spec.clone()),
        per_registration,
    )
}

/// Nonces of [`EntrySteps::prune`].
#[must_use]
pub(crate) fn pruned_nonces(steps: &EntrySteps) -> (BTreeSet<Nonce>, Vec<u64>) {
    (
        steps.prune.keys().copied().collect(),
        steps.prune.values().copied().flatten().collect(),
    )
}

#[cfg(test)]
mod tests;
