//! Conditions about selling an offer: what the table says of it, and what the gate reports. Pure.
//!
//! They are planned only where there is a gate; without one they are another controller's.

use jiff::Timestamp;

use super::RegistrationState;
pub(super) use crate::api::SALE_CONDITIONS as CONDITIONS;
use crate::api::{Condition, ConditionStatus, OTHER_GATE, ServiceOffer, condition::Observation};
use crate::gate::health::{UpstreamHealth, UpstreamState};
use crate::gate::page::whole;
use crate::gate::table::{Access, Closed, Published};
use crate::reconcile::gate::GateView;
use crate::registration::view::OfferName;

/// What the status says of selling.
pub(super) struct SaleStatus {
    pub(super) conditions: Vec<Condition>,
    /// Why the offer does not sell.
    pub(super) blocking: Option<RegistrationState>,
    pub(super) url: Option<String>,
    pub(super) price: Option<String>,
}

/// What to say about selling an offer. `other` says why it is closed, if another controller sells it.
pub(super) fn sale(
    gate: &GateView,
    other: Option<&str>,
    name: &OfferName,
    offer: &ServiceOffer,
    observation: &Observation<'_>,
) -> SaleStatus {
    let published = gate.table.offer(name);
    let ready = match other {
        Some(why) => RegistrationState::stalled(OTHER_GATE, why),
        None => gate_ready(gate, name, offer, observation),
    };
    let healthy = upstream_healthy(gate, name);
    let (is_ready, is_healthy) = (
        ready.status == ConditionStatus::True,
        healthy.status == ConditionStatus::True,
    );
    let route = match is_ready {
        true => RegistrationState::done("Reconciled", "the gate serves the offer"),
        false => RegistrationState::waiting(
            "WaitingForPaymentGate",
            "the offer is not served: see PaymentGateReady",
        ),
    };
    let draining = draining(published.map(AsRef::as_ref), offer, observation.now);
    let states = [&ready, &healthy, &route, &draining];
    let conditions = CONDITIONS.iter().zip(states).map(|(type_, state)| {
        observation.condition(type_, state.status, state.reason, state.message.clone())
    });
    SaleStatus {
        conditions: conditions.collect(),
        url: published.and_then(|offer| offer.url.clone()),
        price: published.and_then(|published| price(published, offer)),
        blocking: match (is_ready, is_healthy) {
            (false, _) => Some(ready),
            (true, false) => Some(healthy),
            (true, true) => None,
        },
    }
}

/// Whether every request for the offer meets its terms.
fn gate_ready(
    gate: &GateView,
    name: &OfferName,
    offer: &ServiceOffer,
    observation: &Observation<'_>,
) -> RegistrationState {
    let waiting = |message| RegistrationState::waiting("WaitingForGate", message);
    if let Some(closed) = gate.table.closed(name) {
        if *closed == Closed::OtherGate {
            return waiting("the gate is about to open the offer");
        }
        return not_sold(closed, closed.to_string());
    }
    let Some(published) = gate.table.offer(name) else {
        return waiting("the offer is about to be added to the table");
    };
    if published.is_paused {
        return RegistrationState::stalled(
            "Paused",
            "the offer is off sale: remove its annotation obol.org/paused to sell it",
        );
    }
    if published.is_drained(observation.now) {
        return RegistrationState::stalled("Drained", "the offer has been drained");
    }
    if let Some((path, closed)) = published.closed_route() {
        return not_sold(closed, format!("route {path} is not sold: {closed}"));
    }
    let is_current = gate.report.as_ref().is_some_and(|report| {
        Some(&report.uid) == offer.metadata.uid.as_ref()
            && Some(report.generation) >= observation.generation
    });
    if !gate.is_reporting {
        return waiting("no gate reports that it serves offers");
    }
    if !is_current {
        return waiting("the gate does not serve this generation of the offer yet");
    }
    let mut message = "requests are answered with the terms of the offer".to_owned();
    for notice in &published.notices {
        message.push_str("; ");
        message.push_str(notice);
    }
    RegistrationState::done("Reconciled", message)
}

/// What to say of an offer that is closed, or has a route that is.
fn not_sold(closed: &Closed, message: String) -> RegistrationState {
    match is_waiting(closed) {
        true => RegistrationState::waiting(closed.reason(), message),
        false => RegistrationState::stalled(closed.reason(), message),
    }
}

/// Whether a closed offer opens without a change of its spec.
fn is_waiting(closed: &Closed) -> bool {
    matches!(
        closed,
        Closed::WaitingForFacilitator { .. }
            | Closed::WaitingForUpstream { .. }
            | Closed::Suspended { .. }
    )
}

/// Whether the upstream answers, as the gate sees it.
fn upstream_healthy(gate: &GateView, name: &OfferName) -> RegistrationState {
    let upstream = gate.table.offer(name).map(|offer| &offer.upstream);
    if let Some(Err(closed)) = upstream {
        let reason = match closed {
            Closed::WaitingForUpstream { .. } => "MissingService",
            closed => closed.reason(),
        };
        return RegistrationState::waiting(reason, closed.to_string());
    }
    let health = gate
        .report
        .as_ref()
        .and_then(|report| report.health.as_ref());
    match health {
        Some(UpstreamHealth { state, answer }) => match state {
            UpstreamState::Healthy => {
                RegistrationState::done("Healthy", format!("the upstream answered: {answer}"))
            }
            UpstreamState::NeedsCredentials => RegistrationState::stalled(
                "UpstreamNeedsCredentials",
                format!(
                    "the upstream wants its clients to sign in, and the gate has nothing to sign in with: {answer}. Let it answer requests of the gate without, for example through a proxy in front of it that adds the credentials; if only its health path wants them, set spec.upstream.healthPath"
                ),
            ),
            UpstreamState::Unhealthy => RegistrationState::waiting(
                "Unhealthy",
                format!("the upstream does not answer its health path: {answer}"),
            ),
        },
        None => RegistrationState {
            status: ConditionStatus::Unknown,
            ..RegistrationState::waiting(
                "WaitingForGate",
                "the gate has not probed the upstream yet",
            )
        },
    }
}

fn draining(
    published: Option<&Published>,
    offer: &ServiceOffer,
    now: Timestamp,
) -> RegistrationState {
    let begin = offer.spec.drain_at.as_ref();
    let begin = begin.and_then(|begin| begin.parse::<Timestamp>().ok());
    let end = published.and_then(|published| published.end);
    match (begin, end) {
        (_, Some(end)) if end <= now => {
            RegistrationState::waiting("Drained", format!("the offer was drained at {end}"))
        }
        (Some(begin), Some(end)) if begin <= now => {
            RegistrationState::done("Draining", format!("the offer sells until {end}"))
        }
        (Some(begin), Some(end)) => RegistrationState::waiting(
            "Active",
            format!("the offer begins to drain at {begin}, and sells until {end}"),
        ),
        _ => RegistrationState::waiting("Active", "the offer is not being drained"),
    }
}

/// What one request costs.
fn price(published: &Published, offer: &ServiceOffer) -> Option<String> {
    let terms = match &published.access {
        Access::Paid(Ok(paid)) => paid.terms.first(),
        _ => None,
    }?;
    let asset = offer.spec.payment.asset.as_ref();
    let symbol = asset.and_then(|asset| asset.symbol.as_deref());
    Some(format!(
        "{} {}/request",
        whole(terms),
        symbol.unwrap_or(&terms.token.name)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::gate::report::OfferReport;
    use crate::gate::table::tests::{name, sold, table};

    const NOW: &str = "2026-01-01T00:30:00Z";

    /// What the gate reports of `shop/chat`.
    fn report(generation: i64, state: Option<UpstreamState>) -> OfferReport {
        OfferReport {
            uid: "shop/chat".into(),
            generation,
            health: state.map(|state| UpstreamHealth {
                state,
                answer: "status 200".into(),
            }),
        }
    }

    fn seen(over: Value, report: Option<OfferReport>, is_reporting: bool) -> SaleStatus {
        let offer = sold("shop", "chat", over);
        let gate = GateView {
            table: Arc::new(table(vec![offer.clone()])),
            report,
            is_reporting,
        };
        let observation = Observation {
            generation: offer.metadata.generation,
            before: &[],
            now: NOW.parse().unwrap(),
        };
        sale(&gate, None, &name("shop", "chat"), &offer, &observation)
    }

    fn said(sale: &SaleStatus) -> Vec<(ConditionStatus, &str)> {
        let conditions = sale.conditions.iter();
        conditions
            .map(|condition| (condition.status, condition.reason.as_deref().unwrap()))
            .collect()
    }

    #[test]
    fn offer_that_the_gate_serves_is_ready() {
        use ConditionStatus::{False, True};
        let sale = seen(
            json!({}),
            Some(report(1, Some(UpstreamState::Healthy))),
            true,
        );
        let expected = [
            (True, "Reconciled"),
            (True, "Healthy"),
            (True, "Reconciled"),
            (False, "Active"),
        ];
        assert_eq!(said(&sale), expected);
        assert!(sale.blocking.is_none());
        assert_eq!(sale.price.as_deref(), Some("0.002 USDC/request"));
        let message = sale.conditions[0].message.clone().unwrap();
        assert!(message.contains("AssetUnverified"), "{message}");
        let types: Vec<_> = sale
            .conditions
            .iter()
            .map(|own| own.type_.as_str())
            .collect();
        assert_eq!(types, CONDITIONS);
    }

    #[test]
    fn offer_waits_until_the_gate_serves_its_generation() {
        use ConditionStatus::False;
        for (report, is_reporting) in [
            (None, false),
            (None, true),
            (Some(report(0, Some(UpstreamState::Healthy))), true),
        ] {
            let sale = seen(json!({}), report, is_reporting);
            assert_eq!(said(&sale)[0], (False, "WaitingForGate"));
            assert_eq!(said(&sale)[2], (False, "WaitingForPaymentGate"));
            assert!(!sale.blocking.unwrap().needs_action);
        }
        let other = OfferReport {
            uid: "other".into(),
            ..report(1, Some(UpstreamState::Healthy))
        };
        let sale = seen(json!({}), Some(other), true);
        assert_eq!(said(&sale)[0], (False, "WaitingForGate"));
    }

    #[test]
    fn offer_that_is_not_in_the_table_yet_waits() {
        let offer = sold("shop", "chat", json!({}));
        let gate = GateView {
            table: Arc::default(),
            report: None,
            is_reporting: true,
        };
        let observation = Observation {
            generation: Some(1),
            before: &[],
            now: NOW.parse().unwrap(),
        };
        let sale = sale(&gate, None, &name("shop", "chat"), &offer, &observation);
        assert_eq!(said(&sale)[0], (ConditionStatus::False, "WaitingForGate"));
        assert_eq!((sale.price, sale.url), (None, None));
    }

    #[test]
    fn closed_offer_says_why_and_whether_anyone_must_act() {
        for (over, reason, health, needs_action) in [
            (
                json!({ "payment": { "network": "eip155:1" } }),
                "NoFacilitator",
                "Healthy",
                true,
            ),
            (
                json!({ "upstream": { "service": "gone" } }),
                "WaitingForUpstream",
                "MissingService",
                false,
            ),
            (
                json!({ "upstream": { "port": 81 } }),
                "PortNotFound",
                "PortNotFound",
                true,
            ),
        ] {
            let sale = seen(
                json!({ "spec": over }),
                Some(report(1, Some(UpstreamState::Healthy))),
                true,
            );
            assert_eq!((said(&sale)[0].1, said(&sale)[1].1), (reason, health));
            let blocking = sale.blocking.unwrap();
            assert_eq!(
                (blocking.reason, blocking.needs_action),
                (reason, needs_action)
            );
        }
    }

    #[test]
    fn offer_that_no_other_controller_sells_any_more_waits_for_the_gate() {
        let stalled = json!({ "type": "Stalled", "status": "True", "reason": "OtherGate" });
        let over = json!({ "status": { "conditions": [stalled] } });
        let sale = seen(over, Some(report(1, Some(UpstreamState::Healthy))), true);
        assert_eq!(said(&sale)[0], (ConditionStatus::False, "WaitingForGate"));
    }

    #[test]
    fn route_that_is_not_sold_is_named_although_others_are() {
        let routes = json!([
            { "path": "/free", "gate": "free" },
            { "path": "/paid", "price": { "perRequest": "0.0000001" } },
        ]);
        let over = json!({ "spec": { "routes": routes } });
        let sale = seen(over, Some(report(1, Some(UpstreamState::Healthy))), true);
        assert_eq!(said(&sale)[0], (ConditionStatus::False, "PriceTooFine"));
        let message = sale.conditions[0].message.clone().unwrap();
        assert!(message.starts_with("route /paid is not sold"), "{message}");
    }

    #[test]
    fn upstream_that_does_not_answer_is_not_healthy() {
        use ConditionStatus::{False, Unknown};
        for (state, reason, needs_action) in [
            (UpstreamState::Unhealthy, "Unhealthy", false),
            (
                UpstreamState::NeedsCredentials,
                "UpstreamNeedsCredentials",
                true,
            ),
        ] {
            let sale = seen(json!({}), Some(report(1, Some(state))), true);
            assert_eq!(said(&sale)[1], (False, reason));
            let blocking = sale.blocking.unwrap();
            assert_eq!(
                (blocking.reason, blocking.needs_action),
                (reason, needs_action)
            );
        }
        let sale = seen(json!({}), Some(report(1, None)), true);
        assert_eq!(said(&sale)[1], (Unknown, "WaitingForGate"));
    }

    #[test]
    fn draining_offer_sells_until_its_end() {
        use ConditionStatus::{False, True};
        let drain = |begin: &str, grace: &str| {
            let spec = json!({ "drainAt": begin, "drainGracePeriod": grace });
            seen(
                json!({ "spec": spec }),
                Some(report(1, Some(UpstreamState::Healthy))),
                true,
            )
        };
        let begun = drain("2026-01-01T00:00:00Z", "1h");
        assert_eq!(
            (said(&begun)[0], said(&begun)[3]),
            ((True, "Reconciled"), (True, "Draining"))
        );
        let planned = drain("2026-02-01T00:00:00Z", "1h");
        assert_eq!(said(&planned)[3], (False, "Active"));
        let ended = drain("2026-01-01T00:00:00Z", "10m");
        assert_eq!(
            (said(&ended)[0], said(&ended)[3]),
            ((False, "Drained"), (False, "Drained"))
        );
    }

    #[test]
    fn paused_offer_is_off_sale() {
        let paused = json!({ "metadata": { "annotations": { "obol.org/paused": "true" } } });
        let sale = seen(paused, Some(report(1, Some(UpstreamState::Healthy))), true);
        assert_eq!(sale.blocking.unwrap().reason, "Paused");
    }

    #[test]
    fn price_has_the_symbol_that_the_offer_names() {
        let symbol = json!({ "spec": { "payment": { "asset": { "symbol": "usdc" } } } });
        let sale = seen(symbol, None, true);
        assert_eq!(sale.price.as_deref(), Some("0.002 usdc/request"));
    }
}
