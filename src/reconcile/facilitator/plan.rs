//! Decides what the status of a facilitator says, which tokens are asked for their facts, and when
//! the facilitator is asked again. Pure.
//!
//! While a facilitator is down, what it supported last stays in the status: offers keep showing
//! their terms, and payments go through as soon as it answers. That holds for as long as the host is
//! the same; what another facilitator supported says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::api::condition::{self, Observation};
use crate::api::{
    Condition, ConditionStatus, PaymentFacilitator, PaymentFacilitatorStatus, ServiceOffer,
    SupportedKind, TokenFacts, network,
};
use crate::chain::TokenReading;
use crate::cluster::EventDraft;
use crate::gate::FacilitatorError;
use crate::gate::terms::token_of;

/// How often a facilitator is asked what it supports.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// Delay after the first answer that was none; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Longest of these delays.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// The protocol version and the scheme that the gate sells with.
const SOLD: (u8, &str) = (2, "exact");
/// Most tokens in a status.
const ASSETS: usize = 128;
/// Most bytes of a token's name and version, as the schema has them.
const NAME_LENGTH: usize = 128;
const VERSION_LENGTH: usize = 32;

/// Everything that a facilitator's status depends on.
#[derive(Clone, Debug)]
pub(crate) struct FacilitatorSnapshot {
    pub facilitator: Arc<PaymentFacilitator>,
    /// The facilitator, at the version that was observed.
    pub object: ObjectReference,
    pub now: Timestamp,
    /// Host of its URL; `None` if the URL cannot be used.
    pub host: Option<String>,
    /// What it supports on the networks of the spec.
    pub answer: Result<Vec<SupportedKind>, FacilitatorError>,
    /// Tokens that offers on these networks name.
    pub tokens: Vec<TokenAddress>,
    /// Facts of tokens that were not in the status.
    pub learned: Vec<TokenFacts>,
}

/// A token that an offer is paid with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenAddress {
    pub chain_id: u64,
    /// In lower-case hex.
    pub address: String,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FacilitatorPlan {
    pub status: PaymentFacilitatorStatus,
    pub events: Vec<EventDraft>,
}

/// Why no payment can be made.
struct Problem {
    reason: &'static str,
    message: String,
    /// Whether it may pass without a change by a person.
    is_transient: bool,
}

impl TokenAddress {
    /// Whether facts are those of this token.
    pub(crate) fn is(&self, facts: &TokenFacts) -> bool {
        facts.network == self.network() && facts.address == self.address
    }

    fn network(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }
}

/// Tokens that offers are paid in on these networks.
pub(crate) fn tokens<'a>(
    offers: impl Iterator<Item = &'a ServiceOffer>,
    networks: &[String],
) -> Vec<TokenAddress> {
    let chains: BTreeSet<u64> = networks
        .iter()
        .filter_map(|own| network::chain_id(own))
        .collect();
    let tokens: BTreeSet<TokenAddress> = offers
        .flat_map(tokens_of)
        .filter(|token| chains.contains(&token.chain_id))
        .collect();
    tokens.into_iter().take(ASSETS).collect()
}

/// Tokens that an offer is paid in.
pub(crate) fn tokens_of(offer: &ServiceOffer) -> Vec<TokenAddress> {
    let spec = &offer.spec;
    let payments = [&spec.payment].into_iter().chain(&spec.payments);
    let tokens = payments
        .filter_map(token_of)
        .map(|(chain_id, address)| TokenAddress {
            chain_id,
            address: format!("{address:#x}"),
        });
    tokens.collect()
}

/// Whether a facilitator's status lacks a token of its networks.
pub(crate) fn lacks(facilitator: &PaymentFacilitator, token: &TokenAddress) -> bool {
    let status = facilitator.status.as_ref();
    let assets = status.map(|status| &*status.assets).unwrap_or_default();
    let mut networks = facilitator.spec.networks.iter();
    networks.any(|own| *own == token.network()) && !assets.iter().any(|facts| token.is(facts))
}

/// The facts of a token as its contract stated them. Without a name and decimals it is none; and an
/// endpoint of another chain speaks of another contract.
pub(crate) fn facts(token: &TokenAddress, reading: TokenReading) -> Option<TokenFacts> {
    let name = reading.name.filter(|name| name.len() <= NAME_LENGTH)?;
    let version = reading.version;
    Some(TokenFacts {
        network: token.network(),
        address: token.address.clone(),
        name,
        version: version.filter(|version| version.len() <= VERSION_LENGTH),
        decimals: reading.decimals?,
        domain_separator: reading.domain_separator,
    })
    .filter(|_| reading.chain_id == token.chain_id)
}

/// Delay until a facilitator is asked again, after so many answers in a row that were none.
/// `jitter` is between 0 and 1, and spreads what replicas and facilitators ask.
pub(crate) fn delay(failures: u32, jitter: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return ASK_EVERY.mul_f64(0.9 + 0.2 * jitter);
    };
    let delay = FIRST_RETRY.saturating_mul(1 << doublings.min(8));
    delay.min(LAST_RETRY).mul_f64(0.5 + 0.5 * jitter)
}

/// The status, and the Events that go with its change.
pub(crate) fn plan(snapshot: &FacilitatorSnapshot) -> FacilitatorPlan {
    let facilitator = &*snapshot.facilitator;
    let before = facilitator.status.clone().unwrap_or_default();
    let observation = Observation {
        generation: facilitator.metadata.generation,
        before: &before.conditions,
        now: snapshot.now,
    };
    let status = PaymentFacilitatorStatus {
        observed_generation: facilitator.metadata.generation,
        conditions: conditions(snapshot, &observation),
        host: snapshot.host.clone(),
        kinds: kinds(snapshot, &before),
        assets: assets(snapshot, &before),
    };
    FacilitatorPlan {
        events: events(&before, &status),
        status,
    }
}

/// What the facilitator supports, or supported last while it is down.
fn kinds(snapshot: &FacilitatorSnapshot, before: &PaymentFacilitatorStatus) -> Vec<SupportedKind> {
    let networks = &snapshot.facilitator.spec.networks;
    match &snapshot.answer {
        Ok(kinds) => kinds.clone(),
        Err(error) if error.is_down() && before.host == snapshot.host => {
            let kept = before.kinds.iter();
            kept.filter(|kind| networks.contains(&kind.network))
                .cloned()
                .collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Facts of the tokens that offers name.
fn assets(snapshot: &FacilitatorSnapshot, before: &PaymentFacilitatorStatus) -> Vec<TokenFacts> {
    let known = before.assets.iter().chain(&snapshot.learned);
    let is_named = |facts: &&TokenFacts| snapshot.tokens.iter().any(|token| token.is(facts));
    known.filter(is_named).cloned().collect()
}

fn conditions(snapshot: &FacilitatorSnapshot, observation: &Observation<'_>) -> Vec<Condition> {
    let mut conditions = match problem(snapshot) {
        None => {
            let message = ready_message(snapshot);
            vec![observation.condition("Ready", ConditionStatus::True, "Reconciled", message)]
        }
        Some(Problem {
            reason,
            message,
            is_transient,
        }) => {
            let abnormal = if is_transient {
                "Reconciling"
            } else {
                "Stalled"
            };
            vec![
                observation.condition("Ready", ConditionStatus::False, reason, message.clone()),
                observation.condition(abnormal, ConditionStatus::True, reason, message),
            ]
        }
    };
    let (status, reason, message) = if snapshot.facilitator.spec.is_suspended() {
        let message = "nothing is verified or settled; free routes continue";
        (ConditionStatus::True, "Settling", message)
    } else {
        (ConditionStatus::False, "Running", "spec.suspend is None")
    };
    conditions.push(observation.condition("Suspended", status, reason, message));
    conditions
}

fn problem(snapshot: &FacilitatorSnapshot) -> Option<Problem> {
    let kinds = match &snapshot.answer {
        Ok(kinds) => kinds,
        Err(error) => {
            return Some(Problem {
                reason: error.reason(),
                message: error.to_string(),
                is_transient: error.is_down(),
            });
        }
    };
    let networks = &snapshot.facilitator.spec.networks;
    (sold(kinds, networks).next().is_none()).then(|| Problem {
        reason: "NetworkNotSupported",
        message: format!(
            "the facilitator does not support exact payments of x402 version 2 on {}: correct \
             spec.networks, or use another facilitator",
            networks.join(", ")
        ),
        is_transient: false,
    })
}

/// Networks on which the gate can sell through the facilitator.
fn sold<'a>(kinds: &[SupportedKind], networks: &'a [String]) -> impl Iterator<Item = &'a String> {
    networks.iter().filter(|own| {
        let mut kinds = kinds.iter();
        kinds.any(|kind| (kind.x402_version, &*kind.scheme) == SOLD && kind.network == **own)
    })
}

fn ready_message(snapshot: &FacilitatorSnapshot) -> String {
    let networks = &snapshot.facilitator.spec.networks;
    let kinds = snapshot.answer.as_deref().unwrap_or_default();
    let sold: Vec<&str> = sold(kinds, networks).map(String::as_str).collect();
    let others = networks.iter().map(String::as_str);
    let others: Vec<&str> = others.filter(|own| !sold.contains(own)).collect();
    let message = format!("verifies and settles payments on {}", sold.join(", "));
    if others.is_empty() {
        return message;
    }
    format!(
        "{message}; it does not support {}, which is not used",
        others.join(", ")
    )
}

/// An Event when the facilitator became ready, is no longer ready, or is not ready for another
/// reason.
fn events(before: &PaymentFacilitatorStatus, after: &PaymentFacilitatorStatus) -> Vec<EventDraft> {
    let ready = |status: &PaymentFacilitatorStatus| {
        let ready = condition::find(&status.conditions, "Ready").cloned();
        ready.map(|ready| (ready.is_true(), ready.reason, ready.message))
    };
    let (old, new) = (ready(before), ready(after));
    let said = |ready: &Option<(bool, Option<String>, Option<String>)>| {
        ready
            .as_ref()
            .map(|(status, reason, _)| (*status, reason.clone()))
    };
    if said(&old) == said(&new) {
        return Vec::new();
    }
    let event = new.map(|(is_ready, reason, message)| EventDraft {
        warning: !is_ready,
        reason: reason.unwrap_or_default(),
        message: message.unwrap_or_default(),
        action: "Reconcile",
    });
    event.into_iter().collect()
}

#[cfg(test)]
mod tests;
