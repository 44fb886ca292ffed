//! What an offer's status says. Pure.
//!
//! A status covers what this version does: acceptance, the upstream's Service, registration. It has no condition for what is
//! not there yet (routes, payment gate, health), and none of another controller's is touched.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;

use crate::api::{
    AgentRegistrationSpec, Condition, ConditionStatus, IdentityRegistry, Phase, PriceTable,
    RegistrationStatus, ServiceOffer, ServiceOfferStatus, Suspend, condition,
};
use crate::cluster::EventDraft;
use crate::reconcile::issues::OfferIssue;
use crate::registration::document::{agent_uri, public_path, public_url};
use crate::registration::eligibility::{self, Eligibility, Unacceptable};
use crate::registration::identity::Unresolved;

/// Types of the conditions that are this operator's on an offer.
pub const CONDITIONS: [&str; 6] = [
    "Accepted",
    "UpstreamHealthy",
    "Registered",
    "Ready",
    "Reconciling",
    "Stalled",
];

/// What `Ready` stands for in this version.
const COVERS: &str = "covers acceptance, the upstream Service and registration; routes and payment are not managed by this version";

/// Everything that decides what an offer's status says.
#[derive(Clone, Debug)]
pub struct OfferView {
    /// The offer, as others refer to it.
    pub object: ObjectReference,
    /// Its generation.
    pub generation: Option<i64>,
    /// The time.
    pub now: Timestamp,
    /// What this process applied last to its status. The cache may not have observed it yet.
    pub applied: Option<ServiceOfferStatus>,
    /// What it is.
    pub subject: OfferSubject,
}

/// An offer and its circumstances.
#[derive(Clone, Debug)]
pub enum OfferSubject {
    /// It cannot be decoded: it was stored under another schema.
    Undecodable {
        /// Why.
        error: String,
        /// The latest record that lists it.
        record: Option<Box<AgentRegistrationSpec>>,
    },
    /// It can.
    Offer(Box<ObservedOffer>),
}

/// An offer that can be read, and what was observed of its circumstances.
#[derive(Clone, Debug)]
pub struct ObservedOffer {
    /// The offer.
    pub offer: ServiceOffer,
    /// Its registry, if it is known.
    pub registry: Option<IdentityRegistry>,
    /// Why its registry or its agent is not known.
    pub unresolved: Option<Unresolved>,
    /// Whether it may be listed there.
    pub eligibility: Option<Eligibility>,
    /// The record of its agent.
    pub record: Option<AgentRegistrationSpec>,
    /// What the registry loop found out about it.
    pub issue: Option<OfferIssue>,
    /// Whether its upstream's Service exists, if it names one.
    pub upstream_exists: bool,
}

impl ObservedOffer {
    /// Id of the offer's agent, once it is registered.
    fn agent_id(&self) -> Option<&str> {
        Some(&self.record.as_ref()?.result.as_ref()?.agent_id)
    }
}

impl OfferView {
    /// When time alone will change the status, if it will.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        let OfferSubject::Offer(observed) = &self.subject else {
            return None;
        };
        let end = eligibility::accept(&observed.offer).ok()??;
        let wait = end.duration_since(self.now);
        wait.is_positive()
            .then(|| wait.unsigned_abs() + Duration::from_secs(1))
    }

    /// The status that stands.
    #[must_use]
    pub fn current(&self) -> ServiceOfferStatus {
        match &self.subject {
            // What stands cannot be read either; what was applied last is the best that is known.
            OfferSubject::Undecodable { .. } => self.applied.clone().unwrap_or_default(),
            OfferSubject::Offer(observed) => observed.offer.status.clone().unwrap_or_default(),
        }
    }
}

/// What is to be done about an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferPlan {
    /// What is ours of its status.
    pub status: ServiceOfferStatus,
    /// Whether the old controller's finalizer has to go.
    pub strip_finalizer: bool,
    /// What to tell whoever describes it.
    pub notes: Vec<EventDraft>,
}

/// Where an offer's registration stands: the status of `Registered`, why, and whether a person has to act.
struct RegistrationState {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
    needs_a_person: bool,
}

impl RegistrationState {
    fn done(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: ConditionStatus::True,
            reason,
            message: message.into(),
            needs_a_person: false,
        }
    }

    fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: ConditionStatus::False,
            reason,
            message: message.into(),
            needs_a_person: false,
        }
    }

    fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            needs_a_person: true,
            ..Self::waiting(reason, message)
        }
    }
}

/// Decides what an offer's status should say.
#[must_use]
pub fn plan(view: &OfferView) -> OfferPlan {
    let current = view.current();
    let before = view.applied.as_ref().unwrap_or(&current);
    let observation = condition::Observation {
        generation: view.generation,
        before: &before.conditions,
        now: view.now,
    };
    let (status, strip_finalizer) = match &view.subject {
        OfferSubject::Undecodable { error, record } => {
            // The API server refuses a status that drops the key of an agent.
            let registration = registration(None, record.as_deref(), &current);
            (
                ServiceOfferStatus {
                    registration,
                    ..undecodable(error, &observation)
                },
                false,
            )
        }
        OfferSubject::Offer(observed) => {
            let strip = observed
                .offer
                .finalizers()
                .iter()
                .any(|own| own == crate::api::LEGACY_FINALIZER);
            (decoded(observed, &current, &observation), strip)
        }
    };
    let notes = notes(before, &status);
    let status = ServiceOfferStatus {
        observed_generation: view.generation,
        ..status
    };
    OfferPlan {
        status,
        strip_finalizer,
        notes,
    }
}

/// What is said of an offer that cannot be decoded: what it means is unknown, so nothing but that.
fn undecodable(error: &str, observation: &condition::Observation<'_>) -> ServiceOfferStatus {
    let message = format!(
        "the stored object cannot be read: {error}. Apply it again to see what admission refuses"
    );
    let conditions = ["Accepted", "Ready"]
        .map(|type_| {
            observation.condition(
                type_,
                ConditionStatus::False,
                "Undecodable",
                message.clone(),
            )
        })
        .into_iter()
        .chain([observation.condition(
            "Stalled",
            ConditionStatus::True,
            "Undecodable",
            message.clone(),
        )])
        .collect();
    ServiceOfferStatus {
        conditions,
        ..ServiceOfferStatus::default()
    }
}

fn decoded(
    observed: &ObservedOffer,
    current: &ServiceOfferStatus,
    observation: &condition::Observation<'_>,
) -> ServiceOfferStatus {
    let ObservedOffer {
        offer,
        registry,
        record,
        ..
    } = observed;
    let accepted = eligibility::accept(offer);
    let registered = registration_state(observed);
    let mut conditions = vec![
        accepted_condition(offer, accepted.as_ref().err(), observation),
        observation.condition(
            "Registered",
            registered.status,
            registered.reason,
            registered.message.clone(),
        ),
    ];
    let missing = offer
        .spec
        .upstream
        .as_ref()
        .filter(|_| !observed.upstream_exists)
        .map(|upstream| {
            format!(
                "Service {}/{} does not exist: create it, or correct spec.upstream",
                upstream.namespace, upstream.service
            )
        });
    if let Some(message) = &missing {
        conditions.push(observation.condition(
            "UpstreamHealthy",
            ConditionStatus::False,
            "MissingService",
            message,
        ));
    }
    let blocking = match (accepted, missing) {
        (Err(unacceptable), _) => Some(RegistrationState::stalled(
            unacceptable.reason(),
            unacceptable.to_string(),
        )),
        (Ok(_), Some(message)) => Some(RegistrationState::waiting("MissingService", message)),
        (Ok(_), None) => inactive(observed)
            .or(Some(registered).filter(|state| state.status != ConditionStatus::True)),
    };
    conditions.extend(summary(blocking, observation));
    let transaction = record
        .as_ref()
        .and_then(|record| record.result.as_ref()?.transaction);
    ServiceOfferStatus {
        conditions,
        endpoint: Some(public_path(offer)),
        url: registry
            .as_ref()
            .map(|registry| public_url(offer, registry)),
        price: price(&offer.spec.payment.price, offer),
        agent_id: observed.agent_id().map(str::to_owned),
        registration_tx_hash: transaction.map(|hash| hash.to_string()),
        registration: registration(registry.as_ref(), record.as_ref(), current),
        ..ServiceOfferStatus::default()
    }
}

fn accepted_condition(
    offer: &ServiceOffer,
    unacceptable: Option<&Unacceptable>,
    observation: &condition::Observation<'_>,
) -> Condition {
    let ignored = eligibility::ignored_fields(&offer.spec);
    let (status, reason, message) = match (unacceptable, ignored.is_empty()) {
        (Some(unacceptable), _) => (
            ConditionStatus::False,
            unacceptable.reason(),
            unacceptable.to_string(),
        ),
        (None, true) => (
            ConditionStatus::True,
            "Accepted",
            "every field is acted on or kept".to_owned(),
        ),
        (None, false) => (
            ConditionStatus::True,
            "PartlySupported",
            format!(
                "kept, but not acted on by this version: {}",
                ignored.join(", ")
            ),
        ),
    };
    observation.condition("Accepted", status, reason, message)
}

/// `Ready`, and in the sense of kstatus `Reconciling` and `Stalled`, of which each is there only while it is True.
fn summary(
    blocking: Option<RegistrationState>,
    observation: &condition::Observation<'_>,
) -> Vec<Condition> {
    let Some(state) = blocking else {
        return vec![observation.condition("Ready", ConditionStatus::True, "Reconciled", COVERS)];
    };
    let abnormal = if state.needs_a_person {
        "Stalled"
    } else {
        "Reconciling"
    };
    vec![
        observation.condition(
            "Ready",
            ConditionStatus::False,
            state.reason,
            state.message.clone(),
        ),
        observation.condition(abnormal, ConditionStatus::True, state.reason, state.message),
    ]
}

/// Where the offer's registration stands.
fn registration_state(observed: &ObservedOffer) -> RegistrationState {
    let ObservedOffer {
        offer,
        registry,
        unresolved,
        eligibility,
        record,
        issue,
        ..
    } = observed;
    if !offer
        .spec
        .registration
        .as_ref()
        .is_some_and(|own| own.enabled)
    {
        let message = match observed.agent_id() {
            Some(id) => {
                format!("registration is off; agent {id} keeps its id and its document is inactive")
            }
            None => "registration is off".to_owned(),
        };
        return RegistrationState::done("Disabled", message);
    }
    let Some(registry) = registry else {
        return match unresolved {
            Some(unresolved) => {
                RegistrationState::stalled(unresolved.reason(), unresolved.to_string())
            }
            None => RegistrationState::waiting("Pending", "the registry is not known yet"),
        };
    };
    // Before what the record says, which may be another agent's than the offer means.
    if let Some(issue) = issue.as_ref().filter(|issue| issue.needs_a_person()) {
        return RegistrationState::stalled(issue.reason(), issue.to_string());
    }
    if let (Some(id), Some(record)) = (observed.agent_id(), record) {
        return RegistrationState::done("Registered", registered_message(id, record, registry));
    }
    match eligibility {
        Some(Eligibility::Unacceptable(unacceptable)) => {
            return RegistrationState::stalled(unacceptable.reason(), unacceptable.to_string());
        }
        Some(Eligibility::NamespaceNotAllowed) => return not_allowed(offer, registry),
        Some(Eligibility::UpstreamMissing) => {
            return RegistrationState::waiting(
                "WaitingForUpstream",
                "the upstream's Service does not exist",
            );
        }
        Some(Eligibility::Drained) => {
            return RegistrationState::stalled(
                "Drained",
                "the offer has been drained: it is not registered any more",
            );
        }
        Some(Eligibility::Deleted) => {
            return RegistrationState::waiting("Pending", "the offer is being deleted");
        }
        Some(Eligibility::Eligible | Eligibility::Disabled) | None => {}
    }
    match (issue, record) {
        (Some(issue), _) => RegistrationState::waiting(issue.reason(), issue.to_string()),
        (None, Some(record)) => progress(record, registry),
        (None, None) => held_up(registry)
            .unwrap_or_else(|| RegistrationState::waiting("Pending", "waits for its turn")),
    }
}

fn registered_message(
    id: &str,
    record: &AgentRegistrationSpec,
    registry: &IdentityRegistry,
) -> String {
    let place = format!(
        "agent {id} of registry {} on chain {}",
        record.registry.address, record.chain_id
    );
    let wanted = agent_uri(registry, record.key);
    match &record.agent_uri {
        Some(uri) if *uri != wanted && record.adopt.is_none() => {
            format!(
                "{place}; its URI on chain is {uri} and its document is at {wanted}: changing it on chain is not part of this version"
            )
        }
        _ => place,
    }
}

/// How far a registration has come that is under way.
fn progress(record: &AgentRegistrationSpec, registry: &IdentityRegistry) -> RegistrationState {
    let last = record.attempts.last();
    match (record.phase, last) {
        (Phase::Included, Some(attempt)) => RegistrationState::waiting(
            "AwaitingFinality",
            format!(
                "transaction {} is in a block and waits for finality",
                attempt.hash
            ),
        ),
        (Phase::Sent, Some(attempt)) => held_up(registry).unwrap_or_else(|| {
            RegistrationState::waiting(
                "Registering",
                format!("transaction {} has been sent", attempt.hash),
            )
        }),
        (Phase::Reverted, _) => RegistrationState::stalled(
            "RegistrationReverted",
            "the transaction was included and reverted: raise registration.edition to ask for a new registration",
        ),
        _ => held_up(registry)
            .unwrap_or_else(|| RegistrationState::waiting("Pending", "waits for a nonce")),
    }
}

/// What keeps the registry itself from registering anything.
fn held_up(registry: &IdentityRegistry) -> Option<RegistrationState> {
    if registry.spec.suspend != Suspend::None {
        return Some(RegistrationState::waiting(
            "Suspended",
            format!("IdentityRegistry {} is suspended", registry.name_any()),
        ));
    }
    let ready = condition::find(&registry.status.as_ref()?.conditions, "Ready")?;
    if ready.is_true() {
        return None;
    }
    let why = ready.message.as_deref().unwrap_or_default();
    Some(RegistrationState::waiting(
        "RegistryNotReady",
        format!(
            "IdentityRegistry {} is not ready: {why}",
            registry.name_any()
        ),
    ))
}

fn not_allowed(offer: &ServiceOffer, registry: &IdentityRegistry) -> RegistrationState {
    RegistrationState::stalled(
        "NamespaceNotAllowed",
        format!(
            "IdentityRegistry {} does not admit offers of namespace {}: its spec.allowedNamespaces decides",
            registry.name_any(),
            offer.namespace().unwrap_or_default()
        ),
    )
}

/// Why an offer whose agent is registered is not listed all the same.
fn inactive(observed: &ObservedOffer) -> Option<RegistrationState> {
    let ObservedOffer {
        offer,
        registry: Some(registry),
        eligibility,
        ..
    } = observed
    else {
        return None;
    };
    match eligibility {
        Some(Eligibility::NamespaceNotAllowed) => Some(not_allowed(offer, registry)),
        Some(Eligibility::Drained) => Some(RegistrationState::stalled(
            "Drained",
            "the offer has been drained; its document is inactive",
        )),
        _ => None,
    }
}

fn registration(
    registry: Option<&IdentityRegistry>,
    record: Option<&AgentRegistrationSpec>,
    current: &ServiceOfferStatus,
) -> Option<RegistrationStatus> {
    // What was said once is never taken back: it is what freezes the identity.
    let before = current.registration.clone();
    let Some(record) = record else { return before };
    let result = record.result.as_ref();
    Some(RegistrationStatus {
        registry: registry
            .map(ResourceExt::name_any)
            .or_else(|| before.and_then(|before| before.registry)),
        key: Some(record.key),
        agent_id: result.map(|result| result.agent_id.clone()),
        agent_uri: record.agent_uri.clone().filter(|_| result.is_some()),
        transaction: result
            .and_then(|result| result.transaction)
            .or(record.attempts.last().map(|last| last.hash))
            .map(|hash| hash.to_string()),
        block: result.map(|result| result.block),
        final_: Some(result.is_some()),
    })
}

/// The price as people read it: the amount, the token if it is named, and what it is for.
fn price(price: &PriceTable, offer: &ServiceOffer) -> Option<String> {
    let payment = &offer.spec.payment;
    let symbol = payment
        .asset
        .as_ref()
        .and_then(|asset| asset.symbol.as_deref());
    let currency = payment
        .card
        .as_ref()
        .and_then(|card| card.currency.as_deref());
    let units = [
        (&price.per_request, "request"),
        (&price.per_mtok, "MTok"),
        (&price.per_hour, "hour"),
        (&price.per_epoch, "epoch"),
        (&price.per_mb, "MB"),
    ];
    let (amount, unit) = units
        .into_iter()
        .find_map(|(amount, unit)| amount.as_ref().map(|amount| (amount, unit)))?;
    let coin = symbol
        .or(currency)
        .map(|coin| format!(" {coin}"))
        .unwrap_or_default();
    Some(format!("{amount}{coin}/{unit}"))
}

/// What is worth telling: a registration that is done, and a stall that was not there before.
fn notes(current: &ServiceOfferStatus, planned: &ServiceOfferStatus) -> Vec<EventDraft> {
    let mut notes = Vec::new();
    let reason = |status: &ServiceOfferStatus, type_: &str| {
        condition::find(&status.conditions, type_)
            .filter(|found| found.is_true())
            .and_then(|found| found.reason.clone())
    };
    let message = |type_: &str| {
        condition::find(&planned.conditions, type_)
            .and_then(|found| found.message.clone())
            .unwrap_or_default()
    };
    if planned.agent_id.is_some() && current.agent_id != planned.agent_id {
        notes.push(EventDraft {
            warning: false,
            reason: "Registered".into(),
            message: message("Registered"),
            action: "Register",
        });
    }
    if let Some(stalled) = reason(planned, "Stalled")
        .filter(|stalled| reason(current, "Stalled").as_ref() != Some(stalled))
    {
        notes.push(EventDraft {
            warning: true,
            reason: stalled,
            message: message("Stalled"),
            action: "Reconcile",
        });
    }
    notes
}

/// Whether a status has to be written.
///
/// It has to if something planned does not state. Something that stands and is not planned may be another controller's, and
/// then stands whatever is applied: so it is a reason to write only what has not been applied before.
#[must_use]
pub fn must_write(
    current: &ServiceOfferStatus,
    applied: Option<&ServiceOfferStatus>,
    planned: &ServiceOfferStatus,
) -> bool {
    let own = |status: &ServiceOfferStatus| {
        let ours = status
            .conditions
            .iter()
            .filter(|condition| CONDITIONS.contains(&condition.type_.as_str()));
        let mut conditions: Vec<Condition> = ours.cloned().collect();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        ServiceOfferStatus {
            conditions,
            agent_resolution: None,
            ..status.clone()
        }
    };
    let stands = own(&overlay(current, planned)) == own(current);
    !stands || (own(current) != own(planned) && applied != Some(planned))
}

/// The status that stands once another has been applied over it, as far as both are ours.
fn overlay(current: &ServiceOfferStatus, planned: &ServiceOfferStatus) -> ServiceOfferStatus {
    let planned_too =
        |condition: &&Condition| condition::find(&planned.conditions, &condition.type_).is_none();
    let kept = current.conditions.iter().filter(planned_too).cloned();
    ServiceOfferStatus {
        observed_generation: planned.observed_generation.or(current.observed_generation),
        conditions: kept.chain(planned.conditions.iter().cloned()).collect(),
        endpoint: planned
            .endpoint
            .clone()
            .or_else(|| current.endpoint.clone()),
        url: planned.url.clone().or_else(|| current.url.clone()),
        price: planned.price.clone().or_else(|| current.price.clone()),
        agent_id: planned
            .agent_id
            .clone()
            .or_else(|| current.agent_id.clone()),
        registration_tx_hash: planned
            .registration_tx_hash
            .clone()
            .or_else(|| current.registration_tx_hash.clone()),
        agent_resolution: current.agent_resolution.clone(),
        registration: planned
            .registration
            .clone()
            .or_else(|| current.registration.clone()),
    }
}

#[cfg(test)]
mod tests;
