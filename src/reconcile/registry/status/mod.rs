//! What people read about a registry. Pure.
//!
//! A condition is written only from an answer: [`Check::Passed`] carries the generation that was
//! checked, [`Check::Skipped`] keeps the stored condition unchanged. `Ready` is True only if every
//! side is True and the ledger was reached without an obstacle. Conditions are written when they
//! change; the numbers beside them at most once a minute.

use std::time::Duration;

use super::outcome::{Check, Checks, LedgerOutcome, Numbers, Obstacle};
use crate::api::{
    Condition, ConditionStatus, IdentityRegistry, IdentityRegistryStatus, SignerStatus, Suspend,
    condition::{self, Observation},
};
use crate::cluster::EventDraft;
use crate::ledger::index::{is_worth_storing, updated_positions};
use crate::ledger::money::{Shortage, format_native};

/// How old the numbers of a status may be.
pub(super) const NUMBERS_EVERY: Duration = Duration::from_secs(60);
/// How old the stored position may be while logs are read: the next leader continues there.
const POSITION_EVERY: Duration = Duration::from_secs(10);

/// Conditions of the sides of a registry.
const SIDES: [&str; 3] = ["SignersReady", "RpcHealthy", "RegistryVerified"];

/// Everything of a pass that its status is derived from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub checks: Checks,
    pub ledger: LedgerOutcome,
    pub numbers: Numbers,
}

/// The status after a pass. The ledgers' markers are not part of it: they are written on their own.
#[must_use]
pub(crate) fn status(
    registry: &IdentityRegistry,
    findings: &Findings,
    observation: &Observation<'_>,
) -> IdentityRegistryStatus {
    let before = registry.status.clone().unwrap_or_default();
    let conditions = conditions(registry, findings, observation);
    let decisive = match registry.spec.suspend {
        Suspend::All => "Suspended",
        Suspend::None | Suspend::Spending => "Ready",
    };
    let decisive = condition::find(&conditions, decisive);
    let observed_generation = decisive.and_then(|decisive| decisive.observed_generation);
    let numbers = &findings.numbers;
    let signers = match numbers.balance {
        Some((address, balance)) => vec![SignerStatus {
            address: address.to_string(),
            balance: Some(format_native(balance)),
        }],
        None if registry.spec.signers.is_empty() => Vec::new(),
        None => before.signers.clone(),
    };
    IdentityRegistryStatus {
        // A reader compares it with the generation before it believes `Ready`.
        observed_generation,
        conditions,
        signers,
        agents: numbers.agents.map(bounded).or(before.agents),
        pending: numbers.pending.map(bounded).or(before.pending),
        registrations_left: numbers.left.or(before.registrations_left),
        spent_last_24h: numbers
            .spent
            .map(format_native)
            .or_else(|| before.spent_last_24h.clone()),
        indexes: updated_positions(&before.indexes, &numbers.indexes),
        orphans_from: match &numbers.orphans {
            Some(orphans) => orphans.first_block(),
            None => before.orphans_from,
        },
        ..before
    }
}

/// Whether the stored status says that a side failed: then a pass looks at everything, since what
/// follows from the side is to be reported as soon as it is in order.
#[must_use]
pub(crate) fn has_failed_side(registry: &IdentityRegistry) -> bool {
    let status = registry.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice());
    SIDES.iter().any(|side| {
        condition::find(conditions.unwrap_or_default(), side)
            .is_some_and(|condition| condition.status != ConditionStatus::True)
    })
}

/// A count, within the range of the schema.
fn bounded(count: usize) -> u32 {
    u32::try_from(count)
        .unwrap_or(u32::MAX)
        .min(i32::MAX as u32)
}

fn conditions(
    registry: &IdentityRegistry,
    findings: &Findings,
    observation: &Observation<'_>,
) -> Vec<Condition> {
    let suspended = suspended(registry.spec.suspend, observation);
    if registry.spec.suspend == Suspend::All {
        // Nothing was checked, and nothing but this is written.
        let others = observation.before.iter();
        let others = others.filter(|other| other.type_ != suspended.type_);
        return others.cloned().chain([suspended.clone()]).collect();
    }
    let checks = &findings.checks;
    let sides = [
        side(SIDES[0], &checks.signers, observation),
        side(SIDES[1], &checks.rpc, observation),
        side(SIDES[2], &checks.contract, observation),
    ];
    let mut conditions = sides.to_vec();
    conditions.push(funded(registry, findings, observation));
    conditions.push(suspended);
    conditions.extend(ready(registry, findings, &sides, observation));
    conditions
}

/// The condition of one side.
fn side(type_: &str, check: &Check, observation: &Observation<'_>) -> Condition {
    match check {
        Check::Passed { reason, message } => {
            observation.condition(type_, ConditionStatus::True, reason, message)
        }
        Check::Failed(blocked) => observation.condition(
            type_,
            ConditionStatus::False,
            blocked.reason(),
            blocked.to_string(),
        ),
        Check::Unmade { reason, why } => {
            observation.condition(type_, ConditionStatus::Unknown, reason, why)
        }
        Check::Skipped => condition::find(observation.before, type_)
            .cloned()
            .unwrap_or_else(|| {
                observation.condition(
                    type_,
                    ConditionStatus::Unknown,
                    "NotChecked",
                    "not checked yet",
                )
            }),
    }
}

fn suspended(suspend: Suspend, observation: &Observation<'_>) -> Condition {
    match suspension(suspend) {
        Some((reason, message)) => {
            observation.condition("Suspended", ConditionStatus::True, reason, message)
        }
        None => observation.condition(
            "Suspended",
            ConditionStatus::False,
            "Running",
            "spec.suspend is None",
        ),
    }
}

/// Reason and message of a suspension.
const fn suspension(suspend: Suspend) -> Option<(&'static str, &'static str)> {
    match suspend {
        Suspend::None => None,
        Suspend::Spending => Some(("Spending", "nothing is signed or sent; documents stay up")),
        Suspend::All => Some((
            "All",
            "nothing is signed, sent or written, and no condition but this one is current; documents \
             stay up",
        )),
    }
}

/// `Ready`, and the kstatus condition `Reconciling` or `Stalled` that goes with it.
fn ready(
    registry: &IdentityRegistry,
    findings: &Findings,
    sides: &[Condition],
    observation: &Observation<'_>,
) -> Vec<Condition> {
    if let Some(failed) = sides
        .iter()
        .find(|side| side.status == ConditionStatus::False)
    {
        let reason = failed.reason.as_deref().unwrap_or_default();
        let message = failed.message.clone().unwrap_or_default();
        let transient = match failure(&findings.checks) {
            Some(blocked) => blocked.is_transient(),
            None => condition::find(observation.before, "Stalled").is_none(),
        };
        return not_ready(reason, message, transient, observation);
    }
    match &findings.ledger {
        LedgerOutcome::NotReached => kept(observation),
        LedgerOutcome::Unmade { why } => unknown("KubernetesRequestFailed", why, observation),
        LedgerOutcome::Reached(Some(obstacle)) => blocked_by(obstacle, observation),
        LedgerOutcome::Reached(None) => {
            match sides
                .iter()
                .find(|side| side.status == ConditionStatus::Unknown)
            {
                Some(side) => {
                    let reason = side.reason.as_deref().unwrap_or_default();
                    unknown(
                        reason,
                        &format!("condition {} is Unknown", side.type_),
                        observation,
                    )
                }
                None => vec![observation.condition(
                    "Ready",
                    ConditionStatus::True,
                    "Reconciled",
                    ready_message(registry, &findings.numbers),
                )],
            }
        }
    }
}

fn failure(checks: &Checks) -> Option<&super::blocked::Blocked> {
    [&checks.signers, &checks.rpc, &checks.contract]
        .into_iter()
        .find_map(|check| match check {
            Check::Failed(blocked) => Some(blocked),
            _ => None,
        })
}

fn blocked_by(obstacle: &Obstacle, observation: &Observation<'_>) -> Vec<Condition> {
    not_ready(
        obstacle.reason(),
        obstacle.to_string(),
        obstacle.is_transient(),
        observation,
    )
}

fn not_ready(
    reason: &str,
    message: String,
    transient: bool,
    observation: &Observation<'_>,
) -> Vec<Condition> {
    let abnormal = if transient { "Reconciling" } else { "Stalled" };
    vec![
        observation.condition("Ready", ConditionStatus::False, reason, message.clone()),
        observation.condition(abnormal, ConditionStatus::True, reason, message),
    ]
}

fn unknown(reason: &str, message: &str, observation: &Observation<'_>) -> Vec<Condition> {
    vec![
        observation.condition("Ready", ConditionStatus::Unknown, reason, message),
        observation.condition("Reconciling", ConditionStatus::True, reason, message),
    ]
}

/// What is stored, unchanged: the ledger was not looked at.
fn kept(observation: &Observation<'_>) -> Vec<Condition> {
    let stored: Vec<Condition> = ["Ready", "Reconciling", "Stalled"]
        .into_iter()
        .filter_map(|type_| condition::find(observation.before, type_).cloned())
        .collect();
    if stored.is_empty() {
        return unknown("NotChecked", "not checked yet", observation);
    }
    stored
}

fn funded(
    registry: &IdentityRegistry,
    findings: &Findings,
    observation: &Observation<'_>,
) -> Condition {
    const TYPE: &str = "Funded";
    if registry.spec.signers.is_empty() {
        return observation.condition(TYPE, ConditionStatus::True, "WatchOnly", "nothing is spent");
    }
    let stored = condition::find(observation.before, TYPE);
    match (&findings.ledger, findings.numbers.balance) {
        (LedgerOutcome::Reached(Some(refused @ Obstacle::InsufficientFunds { .. })), _) => {
            observation.condition(
                TYPE,
                ConditionStatus::False,
                refused.reason(),
                refused.to_string(),
            )
        }
        (
            LedgerOutcome::Reached(Some(Obstacle::Shortage(
                shortage @ Shortage::InsufficientFunds { .. },
            ))),
            _,
        ) => observation.condition(
            TYPE,
            ConditionStatus::False,
            shortage.reason(),
            shortage.to_string(),
        ),
        (_, Some((address, 0))) => observation.condition(
            TYPE,
            ConditionStatus::False,
            "InsufficientFunds",
            format!("signer {address} has no balance: fund it"),
        ),
        // Balances are numbers of the status, and not repeated here: a message that changes is a
        // write.
        (LedgerOutcome::Reached(_), Some(_)) => {
            observation.condition(TYPE, ConditionStatus::True, "Funded", "the signer can pay")
        }
        _ => stored.cloned().unwrap_or_else(|| {
            observation.condition(
                TYPE,
                ConditionStatus::Unknown,
                "NotKnown",
                "the balance is not known",
            )
        }),
    }
}

fn ready_message(registry: &IdentityRegistry, numbers: &Numbers) -> String {
    if let Some(transaction) = numbers.foreign_use {
        return format!(
            "offers are registered; transaction {transaction} has used the nonce of a registration: \
             stop what else uses the signer's key"
        );
    }
    let message = if registry.spec.signers.is_empty() {
        "watching: agents are adopted by id"
    } else if matches!(registry.spec.suspend, Suspend::Spending) {
        "offers can be registered as soon as spending is no longer suspended"
    } else if numbers.is_start_unverified {
        "offers are registered; spec.bootstrap.fromBlock is accepted without proof, because the \
         endpoint no longer has the state of that block"
    } else if numbers.holds_transferred {
        "offers are registered; the signer also holds agents that other accounts transferred to it, \
         and they belong to no offer unless one adopts them"
    } else {
        "offers are registered"
    };
    message.to_owned()
}

/// Whether a status has to be written, given how old the one in the cluster is. A number that was
/// not known before does not wait: a registry that has just become ready would show blanks for a
/// minute.
#[must_use]
pub(crate) fn must_write(
    current: &IdentityRegistryStatus,
    wanted: &IdentityRegistryStatus,
    age: Option<Duration>,
) -> bool {
    let said = |status: &IdentityRegistryStatus| {
        (
            status.observed_generation,
            status.conditions.clone(),
            status.orphans_from,
        )
    };
    let known = |status: &IdentityRegistryStatus| {
        [
            status.agents.is_some(),
            status.pending.is_some(),
            status.registrations_left.is_some(),
        ]
    };
    let numbers = |status: &IdentityRegistryStatus| IdentityRegistryStatus {
        indexes: Vec::new(),
        ..status.clone()
    };
    let is_older = |limit| age.is_none_or(|age| age >= limit);
    said(current) != said(wanted)
        || known(current) != known(wanted)
        || (is_older(POSITION_EVERY) && is_worth_storing(&current.indexes, &wanted.indexes))
        || (is_older(NUMBERS_EVERY) && numbers(current) != numbers(wanted))
}

/// Events to publish: the registry became ready, is no longer ready, or is not ready for another
/// reason.
#[must_use]
pub(crate) fn events(
    current: &IdentityRegistryStatus,
    wanted: &IdentityRegistryStatus,
) -> Vec<EventDraft> {
    let ready = |status: &IdentityRegistryStatus| {
        condition::find(&status.conditions, "Ready")
            .map(|ready| (ready.is_true(), ready.reason.clone()))
    };
    let (before, after) = (ready(current), ready(wanted));
    if before == after {
        return Vec::new();
    }
    let Some(found) = condition::find(&wanted.conditions, "Ready") else {
        return Vec::new();
    };
    vec![EventDraft {
        warning: !found.is_true(),
        reason: found.reason.clone().unwrap_or_default(),
        message: found.message.clone().unwrap_or_default(),
        action: "Reconcile",
    }]
}

#[cfg(test)]
mod tests;
