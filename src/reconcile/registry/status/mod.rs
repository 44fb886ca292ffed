//! What people are told about a registry. Pure.
//!
//! A report is filled during a pass with what was found and applied; conditions follow from it.
//! Conditions are written when they change; the numbers beside them at most once a minute.

use std::time::Duration;

use alloy::primitives::Address;

use super::blocked::Blocked;
use super::observe::{ChainSnapshot, RegistryTarget};
use crate::api::{
    Condition, ConditionStatus, IdentityRegistry, IdentityRegistryStatus, SignerStatus, Suspend,
    condition::{self, Observation},
};
use crate::cluster::EventDraft;
use crate::ledger::Freeze;
use crate::ledger::money::{Shortage, format_native};

/// How old the numbers of a status may be.
const NUMBERS_EVERY: Duration = Duration::from_secs(60);

/// Everything a pass found out that people should know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Why the registry cannot be used.
    pub blocked: Option<Blocked>,
    /// Why nothing may be spent.
    pub frozen: Option<Freeze>,
    /// What there is too little of, for everybody.
    pub shortage: Option<Shortage>,
    /// What the ledger waits for.
    pub waiting: Option<&'static str>,
    /// The endpoint that was asked.
    pub endpoint: Option<String>,
    /// Version that the contract names.
    pub version: Option<String>,
    /// The signer, its balance in wei, and what of that nothing may take any more.
    pub signer: Option<(Address, u128)>,
    /// Whether there is a signer at all.
    pub watch_only: bool,
    /// Agents registered, registrations under way.
    pub agents: Option<(usize, usize)>,
    /// Registrations that balance and limits still allow.
    pub left: Option<u32>,
    /// Spent in the last 24 hours, in wei.
    pub spent: Option<u128>,
}

impl Report {
    pub(super) fn target(&mut self, target: &RegistryTarget) {
        self.watch_only = target.signer.is_none();
    }

    pub(super) fn chain(&mut self, target: &RegistryTarget, chain: &ChainSnapshot) {
        self.endpoint = Some(chain.endpoint.to_string());
        self.version = Some(chain.version.clone());
        self.signer = target
            .signer
            .as_ref()
            .zip(chain.account.as_ref())
            .map(|(signer, account)| (signer.address(), account.balance));
    }

    /// Nothing may be spent.
    pub(super) fn freeze(&mut self, freeze: Freeze) {
        self.frozen = Some(freeze);
    }
}

/// The status that a report stands for. The ledgers' markers are not part of it: they are written
/// on their own.
#[must_use]
pub(crate) fn status(
    registry: &IdentityRegistry,
    report: &Report,
    observation: &Observation<'_>,
) -> IdentityRegistryStatus {
    let before = registry.status.clone().unwrap_or_default();
    let signers = match report.signer {
        Some((address, balance)) => vec![SignerStatus {
            address: address.to_string(),
            balance: Some(format_native(balance)),
        }],
        None if report.watch_only => Vec::new(),
        None => before.signers,
    };
    let count = |number: usize| {
        u32::try_from(number)
            .unwrap_or(u32::MAX)
            .min(i32::MAX as u32)
    };
    IdentityRegistryStatus {
        observed_generation: observation.generation,
        conditions: conditions(registry, report, observation),
        ledgers: before.ledgers,
        signers,
        agents: report
            .agents
            .map(|(agents, _)| count(agents))
            .or(before.agents),
        pending: report
            .agents
            .map(|(_, pending)| count(pending))
            .or(before.pending),
        registrations_left: report.left.or(before.registrations_left),
        spent_last_24h: report.spent.map(format_native).or(before.spent_last_24h),
    }
}

fn conditions(
    registry: &IdentityRegistry,
    report: &Report,
    observation: &Observation<'_>,
) -> Vec<Condition> {
    let suspended = match registry.spec.suspend {
        Suspend::None => None,
        Suspend::Spending => Some(("Spending", "nothing is signed or sent; documents stay up")),
        Suspend::All => Some((
            "All",
            "nothing is signed, sent or written; documents stay up",
        )),
    };
    let mut conditions = vec![
        facet(report, observation, "RpcHealthy", "Answering", || {
            format!("{} answers", named(&report.endpoint))
        }),
        facet(report, observation, "RegistryVerified", "Verified", || {
            format!("contract version {}", named(&report.version))
        }),
        facet(
            report,
            observation,
            "SignersReady",
            if report.watch_only {
                "WatchOnly"
            } else {
                "KeysMatch"
            },
            || {
                if report.watch_only {
                    "no signers: agents are adopted by id, and nothing is ever minted"
                } else {
                    "every key is its signer's"
                }
                .to_owned()
            },
        ),
        funded(report, observation),
        match suspended {
            Some((reason, message)) => {
                observation.condition("Suspended", ConditionStatus::True, reason, message)
            }
            None => observation.condition(
                "Suspended",
                ConditionStatus::False,
                "Running",
                "spec.suspend is None",
            ),
        },
    ];
    let blocking = blocking(report, suspended);
    match blocking {
        None => conditions.push(observation.condition(
            "Ready",
            ConditionStatus::True,
            "Reconciled",
            ready_message(report),
        )),
        Some((reason, message, abnormal)) => {
            conditions.push(observation.condition(
                "Ready",
                ConditionStatus::False,
                reason,
                message.clone(),
            ));
            conditions.push(observation.condition(
                abnormal,
                ConditionStatus::True,
                reason,
                message,
            ));
        }
    }
    conditions
}

/// What keeps the registry from registering, the weightiest first: reason, message, and the kstatus
/// condition it is.
fn blocking(
    report: &Report,
    suspended: Option<(&'static str, &'static str)>,
) -> Option<(&'static str, String, &'static str)> {
    if let Some(blocked) = &report.blocked {
        let abnormal = if blocked.is_transient() {
            "Reconciling"
        } else {
            "Stalled"
        };
        return Some((blocked.condition().1, blocked.to_string(), abnormal));
    }
    if let Some(freeze) = &report.frozen {
        return Some((freeze.reason(), freeze.to_string(), "Stalled"));
    }
    if let Some((_, message)) = suspended {
        return Some(("Suspended", message.to_owned(), "Stalled"));
    }
    if let Some(shortage) = &report.shortage {
        return Some((shortage.reason(), shortage.to_string(), "Stalled"));
    }
    report
        .waiting
        .map(|message| ("Settling", message.to_owned(), "Reconciling"))
}

/// One side of a registry: it fails by its own obstacle, and is unknown while another one keeps
/// it from being looked at.
fn facet(
    report: &Report,
    observation: &Observation<'_>,
    type_: &str,
    reason: &str,
    message: impl FnOnce() -> String,
) -> Condition {
    // Sides are looked at in this order; what comes after an obstacle was not looked at.
    const ORDER: [&str; 3] = ["SignersReady", "RpcHealthy", "RegistryVerified"];
    let rank = |name: &str| ORDER.iter().position(|side| *side == name);
    match &report.blocked {
        Some(blocked) if blocked.condition().0 == type_ => observation.condition(
            type_,
            ConditionStatus::False,
            blocked.condition().1,
            blocked.to_string(),
        ),
        Some(blocked) if rank(blocked.condition().0) < rank(type_) => {
            let (side, reason) = blocked.condition();
            observation.condition(
                type_,
                ConditionStatus::Unknown,
                reason,
                format!("not known while {side} is False"),
            )
        }
        _ => observation.condition(type_, ConditionStatus::True, reason, message()),
    }
}

fn funded(report: &Report, observation: &Observation<'_>) -> Condition {
    match (&report.shortage, report.signer, report.watch_only) {
        (_, _, true) => observation.condition(
            "Funded",
            ConditionStatus::True,
            "WatchOnly",
            "nothing is spent",
        ),
        (Some(shortage @ Shortage::InsufficientFunds { .. }), ..) => observation.condition(
            "Funded",
            ConditionStatus::False,
            shortage.reason(),
            shortage.to_string(),
        ),
        (_, Some((address, 0)), _) => observation.condition(
            "Funded",
            ConditionStatus::False,
            "InsufficientFunds",
            format!("signer {address} has no balance: fund it"),
        ),
        // Balances are numbers of the status, and not repeated here: a message that changes is a
        // write.
        (_, Some(_), _) => observation.condition(
            "Funded",
            ConditionStatus::True,
            "Funded",
            "the signer can pay",
        ),
        (_, None, _) => observation.condition(
            "Funded",
            ConditionStatus::Unknown,
            "NotKnown",
            "the balance is not known",
        ),
    }
}

fn ready_message(report: &Report) -> &'static str {
    match report.watch_only {
        true => "watching: agents are adopted by id",
        false => "offers are registered",
    }
}

fn named(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// Whether a status has to be written, given how old the one that stands is. A number that was not
/// known before is not made to wait: a registry that has just become ready would show blanks for a
/// minute.
#[must_use]
pub(crate) fn must_write(
    current: &IdentityRegistryStatus,
    wanted: &IdentityRegistryStatus,
    age: Option<Duration>,
) -> bool {
    let said =
        |status: &IdentityRegistryStatus| (status.observed_generation, status.conditions.clone());
    let known = |status: &IdentityRegistryStatus| {
        [
            status.agents.is_some(),
            status.pending.is_some(),
            status.registrations_left.is_some(),
        ]
    };
    let old = age.is_none_or(|age| age >= NUMBERS_EVERY);
    said(current) != said(wanted) || known(current) != known(wanted) || (old && current != wanted)
}

/// What is worth telling: that a registry has become ready, that it no longer is, or that it is not
/// for another reason.
#[must_use]
pub(crate) fn notes(
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
    let found = condition::find(&wanted.conditions, "Ready");
    let message = found
        .and_then(|ready| ready.message.clone())
        .unwrap_or_default();
    let reason = found
        .and_then(|ready| ready.reason.clone())
        .unwrap_or_default();
    let warning = found.is_some_and(|ready| !ready.is_true());
    vec![EventDraft {
        warning,
        reason,
        message,
        action: "Reconcile",
    }]
}

#[cfg(test)]
mod tests;
