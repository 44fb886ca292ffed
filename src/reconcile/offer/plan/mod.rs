//! Decides what an offer's status says, and whether to write it. Pure.
//!
//! A status covers acceptance, registration and, where there is a gate, selling ([`sale`]). Without
//! a gate it never changes the conditions of the controller that sells.

mod other_gate;
mod sale;

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;

pub(crate) use self::other_gate::OtherGate;
use crate::api::{
    AgentRegistrationSpec, Condition, ConditionStatus, IdentityRegistry, Phase, PriceTable,
    RegistrationStatus, ServiceOffer, ServiceOfferStatus, Suspend, condition,
};
use crate::cluster::EventDraft;
use crate::reconcile::gate::GateView;
use crate::reconcile::issues::OfferIssue;
use crate::registration::document::{agent_uri, public_path, public_url};
use crate::registration::eligibility::{self, Eligibility, Unacceptable};
use crate::registration::view::OfferView;

/// Types of the conditions that this operator owns on an offer.
pub(crate) const CONDITIONS: [&str; 5] =
    ["Accepted", "Registered", "Ready", "Reconciling", "Stalled"];

/// Message of `Ready` where there is no gate: what it means.
const COVERS: &str = "covers acceptance, the upstream Service and registration; the release has no gate, so routes and payment are not managed by it";
/// Message of `Ready` where there is a gate.
const SELLS: &str = "the offer is accepted, registered if it asks for it, and sold by the gate";

/// Everything that an offer's status depends on.
#[derive(Clone, Debug)]
pub(crate) struct OfferSnapshot {
    /// The offer, at the version that was observed.
    pub object: ObjectReference,
    pub generation: Option<i64>,
    pub now: Timestamp,
    /// The status that this process last applied. The cache may not show it yet.
    pub applied: Option<ServiceOfferStatus>,
    /// What is known of another controller that sells it.
    pub other_gate: OtherGate,
    pub subject: OfferSubject,
}

#[derive(Clone, Debug)]
pub(crate) enum OfferSubject {
    /// The object was stored under another schema and cannot be decoded.
    Undecodable {
        error: String,
        /// The latest record that lists it.
        record: Option<Arc<AgentRegistrationSpec>>,
    },
    Offer(Box<ObservedOffer>),
}

/// A decoded offer, and what the registry loop reported about it.
#[derive(Clone, Debug)]
pub(crate) struct ObservedOffer {
    pub view: OfferView,
    /// Why the registry loop cannot register it.
    pub issue: Option<OfferIssue>,
    /// Owner of its agent on chain, if this process adopted the agent.
    pub owner: Option<Address>,
    /// What is known of selling it; `None` if there is no gate.
    pub gate: Option<GateView>,
}

impl ObservedOffer {
    fn registry(&self) -> Option<&IdentityRegistry> {
        Some(&self.view.agent()?.registry)
    }

    /// The record of its agent.
    fn record(&self) -> Option<&AgentRegistrationSpec> {
        self.view.agent()?.record.as_deref()
    }

    /// Id of the offer's agent, once its registration is final.
    fn agent_id(&self) -> Option<&str> {
        Some(&self.record()?.result.as_ref()?.agent_id)
    }

    /// Owner of its agent when it was adopted: it is kept in the status.
    fn owner(&self) -> Option<String> {
        let record = self.record()?;
        if record.adopt.is_none() || record.result.is_none() {
            return None;
        }
        let kept = || {
            let status = self.view.offer.status.as_ref()?;
            let before = status.registration.as_ref()?;
            let is_same = before.key == Some(record.key);
            before.owner.clone().filter(|_| is_same)
        };
        self.owner.map(|owner| owner.to_string()).or_else(kept)
    }
}

impl OfferSnapshot {
    /// Whether nothing may be written, because the registry of the offer is suspended as a whole.
    #[must_use]
    pub(crate) fn is_suspended(&self) -> bool {
        let OfferSubject::Offer(observed) = &self.subject else {
            return false;
        };
        let agent = observed.view.agent();
        agent.is_some_and(|agent| agent.registry.spec.suspend == Suspend::All)
    }

    /// Time until the status changes without any event: when the offer is drained, or opens again.
    #[must_use]
    pub(crate) fn next_change(&self) -> Option<Duration> {
        let OfferSubject::Offer(observed) = &self.subject else {
            return None;
        };
        let offer = &observed.view.offer;
        let end = eligibility::accept(offer).ok().flatten();
        let begin = offer.spec.drain_at.as_ref().filter(|_| end.is_some());
        let begin = begin.and_then(|begin| begin.parse().ok());
        let drain = begin.into_iter().chain(end);
        let drain = drain.map(|at: Timestamp| at.duration_since(self.now));
        let drain = drain.filter(|wait| wait.is_positive());
        let waits = drain.map(|wait| wait.unsigned_abs());
        let wait = waits.chain(self.other_gate.opens_in(self.now)).min()?;
        Some(wait + Duration::from_secs(1))
    }

    /// The status in the cluster, as far as it is known.
    #[must_use]
    pub(crate) fn current(&self) -> ServiceOfferStatus {
        match &self.subject {
            // The stored status cannot be decoded either. What was last applied is the best that is
            // known.
            OfferSubject::Undecodable { .. } => self.applied.clone().unwrap_or_default(),
            OfferSubject::Offer(observed) => observed.view.offer.status.clone().unwrap_or_default(),
        }
    }
}

/// What to write about an offer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfferPlan {
    /// The fields of the status that this operator owns.
    pub status: ServiceOfferStatus,
    /// Whether to remove the legacy controller's finalizer.
    pub strip_finalizer: bool,
    pub events: Vec<EventDraft>,
}

/// State of an offer's registration: status, reason and message of `Registered`, and whether a
/// person has to act.
struct RegistrationState {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
    needs_action: bool,
}

impl RegistrationState {
    fn done(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: ConditionStatus::True,
            reason,
            message: message.into(),
            needs_action: false,
        }
    }

    fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: ConditionStatus::False,
            reason,
            message: message.into(),
            needs_action: false,
        }
    }

    fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            needs_action: true,
            ..Self::waiting(reason, message)
        }
    }
}

/// Decides what an offer's status should say.
#[must_use]
pub(crate) fn plan(snapshot: &OfferSnapshot) -> OfferPlan {
    let current = snapshot.current();
    let before = snapshot.applied.as_ref().unwrap_or(&current);
    let observation = condition::Observation {
        generation: snapshot.generation,
        before: &before.conditions,
        now: snapshot.now,
    };
    let (status, strip_finalizer) = match &snapshot.subject {
        OfferSubject::Undecodable { error, record } => {
            // The API server rejects a status that drops the key of an agent.
            let registration = registration(None, record.as_deref(), None, &current);
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
                .view
                .offer
                .finalizers()
                .iter()
                .any(|own| own == crate::api::LEGACY_FINALIZER);
            let other = snapshot.other_gate.closed();
            (decoded(observed, other, &current, &observation), strip)
        }
    };
    let events = events(before, &status);
    let status = ServiceOfferStatus {
        observed_generation: snapshot.generation,
        ..status
    };
    OfferPlan {
        status,
        strip_finalizer,
        events,
    }
}

/// Status of an offer that cannot be decoded. What it asks for is unknown, so the status says only
/// this.
fn undecodable(error: &str, observation: &condition::Observation<'_>) -> ServiceOfferStatus {
    let message = format!(
        "the stored object cannot be decoded: {error}. Apply it again to see what admission rejects"
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
    other: Option<&str>,
    current: &ServiceOfferStatus,
    observation: &condition::Observation<'_>,
) -> ServiceOfferStatus {
    let offer = &observed.view.offer;
    let (registry, record) = (observed.registry(), observed.record());
    let accepted = eligibility::accept(offer);
    let registered = registration_state(observed);
    let mut conditions = vec![
        accepted_condition(observed, accepted.as_ref().err(), observation),
        observation.condition(
            "Registered",
            registered.status,
            registered.reason,
            registered.message.clone(),
        ),
    ];
    let missing = match &offer.spec.upstream {
        Some(upstream) if !observed.view.upstream_exists => Some(format!(
            "Service {}/{} does not exist: create it, or correct spec.upstream",
            upstream.namespace, upstream.service
        )),
        _ => None,
    };
    let gate = observed.gate.as_ref();
    let sale = gate.map(|gate| sale::sale(gate, other, &observed.view.name, offer, observation));
    let (sold, sale_blocking, sale_url, sale_price) = match sale {
        Some(sale) => (sale.conditions, sale.blocking, sale.url, sale.price),
        None => (Vec::new(), None, None, None),
    };
    conditions.extend(sold);
    let blocking = match (accepted, missing) {
        (Err(unacceptable), _) => Some(RegistrationState::stalled(
            unacceptable.reason(),
            unacceptable.to_string(),
        )),
        (Ok(_), Some(message)) => Some(RegistrationState::waiting("MissingService", message)),
        (Ok(_), None) => inactive(observed)
            .or(sale_blocking)
            .or(Some(registered).filter(|state| state.status != ConditionStatus::True)),
    };
    let ready = match gate {
        Some(_) => SELLS,
        None => COVERS,
    };
    conditions.extend(summary(blocking, ready, observation));
    let transaction = record.and_then(|record| record.result.as_ref()?.transaction);
    ServiceOfferStatus {
        conditions,
        endpoint: Some(public_path(offer)),
        url: sale_url.or_else(|| registry.map(|registry| public_url(offer, registry))),
        price: sale_price.or_else(|| price(&offer.spec.payment.price, offer)),
        agent_id: observed.agent_id().map(str::to_owned),
        registration_tx_hash: transaction.map(|hash| hash.to_string()),
        registration: registration(registry, record, observed.owner(), current),
        ..ServiceOfferStatus::default()
    }
}

fn accepted_condition(
    observed: &ObservedOffer,
    unacceptable: Option<&Unacceptable>,
    observation: &condition::Observation<'_>,
) -> Condition {
    let spec = &observed.view.offer.spec;
    let ignored = eligibility::ignored_fields(spec, observed.gate.is_some());
    let (status, reason, message) = match (unacceptable, ignored.is_empty()) {
        (Some(unacceptable), _) => (
            ConditionStatus::False,
            unacceptable.reason(),
            unacceptable.to_string(),
        ),
        (None, true) => (
            ConditionStatus::True,
            "Accepted",
            "the spec is valid, and no field of it is ignored".to_owned(),
        ),
        (None, false) => (
            ConditionStatus::True,
            "PartlySupported",
            format!(
                "fields that are stored but have no effect in this version: {}",
                ignored.join(", ")
            ),
        ),
    };
    observation.condition("Accepted", status, reason, message)
}

/// `Ready`, and the kstatus conditions `Reconciling` or `Stalled`, which are present only while
/// True.
fn summary(
    blocking: Option<RegistrationState>,
    ready: &str,
    observation: &condition::Observation<'_>,
) -> Vec<Condition> {
    let Some(state) = blocking else {
        return vec![observation.condition("Ready", ConditionStatus::True, "Reconciled", ready)];
    };
    let abnormal = if state.needs_action {
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

fn registration_state(observed: &ObservedOffer) -> RegistrationState {
    let ObservedOffer { view, issue, .. } = observed;
    let offer = &view.offer;
    if !offer
        .spec
        .registration
        .as_ref()
        .is_some_and(|own| own.enabled)
    {
        let message = match observed.agent_id() {
            Some(id) => {
                format!(
                    "registration is disabled; agent {id} keeps its id and its document is inactive"
                )
            }
            None => "registration is disabled".to_owned(),
        };
        return RegistrationState::done("Disabled", message);
    }
    let agent = match &view.agent {
        Ok(agent) => agent,
        Err(unresolved) => {
            return RegistrationState::stalled(unresolved.reason(), unresolved.to_string());
        }
    };
    let (registry, record) = (&agent.registry, agent.record.as_deref());
    // Before the record, which may belong to another agent than the one the offer names.
    if let Some(issue) = issue
        && issue.outlasts_registration()
    {
        return RegistrationState::stalled(issue.reason(), issue.to_string());
    }
    if let (Some(id), Some(record)) = (observed.agent_id(), record) {
        let message = registered_message(id, record, registry, observed.owner().as_deref());
        return RegistrationState::done("Registered", message);
    }
    match &agent.eligibility {
        Eligibility::Unacceptable(unacceptable) => {
            return RegistrationState::stalled(unacceptable.reason(), unacceptable.to_string());
        }
        Eligibility::NamespaceNotAllowed => return not_allowed(offer, registry),
        Eligibility::UpstreamMissing => {
            return RegistrationState::waiting(
                "WaitingForUpstream",
                "the upstream Service does not exist",
            );
        }
        Eligibility::Drained => {
            return RegistrationState::stalled(
                "Drained",
                "the offer has been drained: it will not be registered",
            );
        }
        Eligibility::Deleted => {
            return RegistrationState::waiting("Pending", "the offer is being deleted");
        }
        Eligibility::Eligible | Eligibility::Disabled => {}
    }
    match (issue, record) {
        (Some(issue), _) if issue.needs_action() => {
            RegistrationState::stalled(issue.reason(), issue.to_string())
        }
        (Some(issue), _) => RegistrationState::waiting(issue.reason(), issue.to_string()),
        (None, Some(record)) => progress(record, registry),
        (None, None) => registry_blocks(registry).unwrap_or_else(|| {
            RegistrationState::waiting(
                "Pending",
                "waiting for the operator to create the record of the agent",
            )
        }),
    }
}

fn registered_message(
    id: &str,
    record: &AgentRegistrationSpec,
    registry: &IdentityRegistry,
    owner: Option<&str>,
) -> String {
    let agent = format!(
        "agent {id} of registry {} on chain {}",
        record.registry.address, record.chain_id
    );
    let wanted = agent_uri(registry, record.key);
    if record.adopt.is_some() {
        let uri = record.agent_uri.as_deref().unwrap_or_default();
        return format!(
            "{agent}, {}",
            adopted(record, registry, owner, uri, &wanted)
        );
    }
    match &record.agent_uri {
        Some(uri) if *uri != wanted => {
            format!(
                "{agent}; its URI on chain is {uri} but its document is at {wanted}: this version cannot change the URI on chain"
            )
        }
        _ => agent,
    }
}

/// Whose agent was adopted, and whether the chain points to the document here.
fn adopted(
    record: &AgentRegistrationSpec,
    registry: &IdentityRegistry,
    owner: Option<&str>,
    uri: &str,
    wanted: &str,
) -> String {
    let block = record.result.as_ref().map_or(0, |result| result.block);
    let is_signer = |owner: &str| {
        let mut signers = registry.spec.signers.iter();
        signers.any(|signer| signer.address.eq_ignore_ascii_case(owner))
    };
    let owned = match owner {
        Some(owner) if is_signer(owner) => format!("owned by signer {owner}"),
        Some(owner) => {
            let name = registry.name_any();
            format!("owned by {owner}, which is no signer of IdentityRegistry {name}")
        }
        None => "owned by an account that a block explorer shows".to_owned(),
    };
    let points = if uri == wanted {
        "its URI on chain is the document here".to_owned()
    } else if uri.is_empty() {
        format!(
            "its URI on chain is empty or too long to be kept, and not the document here, {wanted}"
        )
    } else {
        format!(
            "its URI on chain is {} and not the document here, {wanted}",
            shortened(uri)
        )
    };
    format!("adopted at block {block}: {owned}; {points}")
}

/// The beginning of a long text: a URI may hold a whole document.
fn shortened(text: &str) -> String {
    const MOST: usize = 128;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Progress of a registration that is not final.
fn progress(record: &AgentRegistrationSpec, registry: &IdentityRegistry) -> RegistrationState {
    let last = record.attempts.last();
    let signer = record
        .signer
        .map(|signer| format!(" of signer {signer:#x}"));
    let signer = signer.unwrap_or_default();
    match (record.phase, last) {
        (Phase::Included, Some(attempt)) => RegistrationState::waiting(
            "AwaitingFinality",
            format!(
                "transaction {}{signer} is included in a block, waiting for finality",
                attempt.hash
            ),
        ),
        (Phase::Sent, Some(attempt)) => registry_blocks(registry).unwrap_or_else(|| {
            RegistrationState::waiting(
                "Registering",
                format!(
                    "transaction {}{signer} sent, waiting for a block",
                    attempt.hash
                ),
            )
        }),
        (Phase::Reverted, _) => {
            let issue = OfferIssue::RegistrationReverted;
            RegistrationState::stalled(issue.reason(), issue.to_string())
        }
        _ => registry_blocks(registry).unwrap_or_else(|| {
            let is_watch_only = registry.spec.signers.is_empty() && record.adopt.is_none();
            if is_watch_only {
                let name = registry.name_any();
                return RegistrationState::waiting(
                    "WatchOnly",
                    format!(
                        "IdentityRegistry {name} has no signers and registers nothing: list one in spec.signers, or set registration.agentId to adopt an agent"
                    ),
                );
            }
            RegistrationState::waiting("Pending", format!("waiting for a nonce{signer}"))
        }),
    }
}

/// Why the registry as a whole does not register anything now.
fn registry_blocks(registry: &IdentityRegistry) -> Option<RegistrationState> {
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
            "IdentityRegistry {} does not admit offers of namespace {}: its spec.allowedNamespaces must select the namespace",
            registry.name_any(),
            offer.namespace().unwrap_or_default()
        ),
    )
}

/// Why an offer is not listed although its agent is registered.
fn inactive(observed: &ObservedOffer) -> Option<RegistrationState> {
    let agent = observed.view.agent()?;
    match &agent.eligibility {
        Eligibility::NamespaceNotAllowed => {
            Some(not_allowed(&observed.view.offer, &agent.registry))
        }
        Eligibility::Drained => Some(RegistrationState::stalled(
            "Drained",
            "the offer has been drained; its document is inactive",
        )),
        _ => None,
    }
}

fn registration(
    registry: Option<&IdentityRegistry>,
    record: Option<&AgentRegistrationSpec>,
    owner: Option<String>,
    current: &ServiceOfferStatus,
) -> Option<RegistrationStatus> {
    // Never removed once written: it freezes the identity.
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
        owner,
        transaction: result
            .and_then(|result| result.transaction)
            .or(record.attempts.last().map(|last| last.hash))
            .map(|hash| hash.to_string()),
        block: result.map(|result| result.block),
        final_: Some(result.is_some()),
    })
}

/// The price for people: the amount, the token if it is named, and the unit.
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
    let token = symbol
        .or(currency)
        .map(|token| format!(" {token}"))
        .unwrap_or_default();
    Some(format!("{amount}{token}/{unit}"))
}

/// Events to publish: a registration that became final, and a new reason to be stalled.
fn events(current: &ServiceOfferStatus, planned: &ServiceOfferStatus) -> Vec<EventDraft> {
    let mut events = Vec::new();
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
        events.push(EventDraft {
            warning: false,
            reason: "Registered".into(),
            message: message("Registered"),
            action: "Register",
        });
    }
    if let Some(stalled) = reason(planned, "Stalled")
        .filter(|stalled| reason(current, "Stalled").as_ref() != Some(stalled))
    {
        events.push(EventDraft {
            warning: true,
            reason: stalled,
            message: message("Stalled"),
            action: "Reconcile",
        });
    }
    events
}

/// Whether a status has to be written.
///
/// It has to if a planned field is missing or differs. A field that is present but not planned may
/// belong to another controller, and then stays whatever is applied: it causes a write only if this
/// plan has not been applied before.
#[must_use]
pub(crate) fn must_write(
    current: &ServiceOfferStatus,
    applied: Option<&ServiceOfferStatus>,
    planned: &ServiceOfferStatus,
) -> bool {
    let is_current = own(&overlay(current, planned), planned) == own(current, planned);
    !is_current || (!is_own(current, planned) && applied != Some(planned))
}

/// Whether a status is the planned one, as far as this operator owns it.
#[must_use]
pub(crate) fn is_own(current: &ServiceOfferStatus, planned: &ServiceOfferStatus) -> bool {
    own(current, planned) == own(planned, planned)
}

/// The part of a status that this operator owns: conditions about selling only if it plans them.
fn own(status: &ServiceOfferStatus, planned: &ServiceOfferStatus) -> ServiceOfferStatus {
    let sells = condition::find(&planned.conditions, "PaymentGateReady").is_some();
    let ours = status.conditions.iter().filter(|condition| {
        let type_ = condition.type_.as_str();
        CONDITIONS.contains(&type_) || (sells && sale::CONDITIONS.contains(&type_))
    });
    let mut conditions: Vec<Condition> = ours.cloned().collect();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    ServiceOfferStatus {
        conditions,
        agent_resolution: None,
        ..status.clone()
    }
}

/// The status after the planned one is applied over it, as far as this operator owns the fields.
fn overlay(current: &ServiceOfferStatus, planned: &ServiceOfferStatus) -> ServiceOfferStatus {
    let not_planned =
        |condition: &&Condition| condition::find(&planned.conditions, &condition.type_).is_none();
    let kept = current.conditions.iter().filter(not_planned).cloned();
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
