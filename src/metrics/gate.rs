//! Metrics of the gate.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge, Registry};

use super::family::{Counters, Timers};
use super::label::label;
use super::{Error, WORK, register};

label!(
    /// How the gate answered a request.
    GateOutcome, "outcome" {
        /// A free route.
        Free = "free",
        /// 402 to a request without payment.
        Unpaid = "unpaid",
        /// Paid, and the answer is being delivered.
        Paid = "paid",
        /// The answer that an identified request has bought before.
        Repeated = "repeated",
        /// 402 to a payment.
        Refused = "refused",
        /// 400.
        Malformed = "malformed",
        /// 409.
        Conflict = "conflict",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        Limited = "limited",
        /// 410.
        Drained = "drained",
        /// 503 of an offer that is not sold.
        Closed = "closed",
        /// Paid for, and answered by the upstream with something that is not charged.
        NotCharged = "not_charged",
        UpstreamFailed = "upstream_failed",
        FacilitatorUnavailable = "facilitator_unavailable",
        /// 503: the outcome of the settlement is not known yet.
        Pending = "pending",
        /// Pages and documents of the gate itself.
        Page = "page",
        Preflight = "preflight",
    }
);

label!(
    /// What a settlement came to.
    SettlementOutcome, "outcome" {
        Success = "success",
        Refused = "refused",
        /// The facilitator's answer does not tell.
        Unknown = "unknown",
        /// An unknown one that turned out to be a success.
        Recovered = "recovered",
        /// `/settle` did not reach the facilitator.
        NotSent = "not_sent",
    }
);

label!(
    /// A call of a facilitator.
    FacilitatorCall, "call" {
        Verify = "verify",
        Settle = "settle",
    }
);

/// Recorder of the gate.
#[derive(Clone, Debug)]
pub struct GateMetrics {
    requests: Counters<GateOutcome, ()>,
    settlements: Counters<SettlementOutcome, ()>,
    calls: Timers<FacilitatorCall>,
    delivered_unsettled: IntCounter,
    executed_again: IntCounter,
    undelivered: IntCounter,
    claims: IntGauge,
    unknown: IntGauge,
    table_build: Timers<()>,
}

impl GateMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        Ok(Self {
            requests: Counters::new(
                registry,
                "serviceoffer_gate_requests_total",
                "Requests that the gate answered, by outcome.",
            )?,
            settlements: Counters::new(
                registry,
                "serviceoffer_gate_settlements_total",
                "Settlements that were asked of facilitators, by outcome.",
            )?,
            calls: Timers::new(
                registry,
                "serviceoffer_gate_facilitator_seconds",
                "Time that facilitators took to answer, by call.",
                WORK,
            )?,
            delivered_unsettled: counter(
                "serviceoffer_gate_delivered_unsettled_total",
                "Answers that began to leave before their payment was settled. Must stay 0.",
            )?,
            executed_again: counter(
                "serviceoffer_gate_executed_again_total",
                "Upstream calls for a payment whose answer was cut off before.",
            )?,
            undelivered: counter(
                "serviceoffer_gate_settled_undelivered_total",
                "Answers to settled payments that did not reach the buyer completely.",
            )?,
            claims: gauge(
                "serviceoffer_gate_claims",
                "Payments that the gate remembers.",
            )?,
            unknown: gauge(
                "serviceoffer_gate_settlements_unknown",
                "Settlements whose outcome is not known.",
            )?,
            table_build: Timers::new(
                registry,
                "serviceoffer_gate_table_build_seconds",
                "Time that compiling the table took.",
                WORK,
            )?,
        })
    }

    pub fn answered(&self, outcome: GateOutcome) {
        self.requests.increment(outcome, ());
    }

    pub fn settled(&self, outcome: SettlementOutcome) {
        self.settlements.increment(outcome, ());
    }

    pub fn called(&self, call: FacilitatorCall, duration: Duration) {
        self.calls.observe(call, duration);
    }

    /// The first byte of an answer is about to leave.
    pub fn delivering(&self, is_settled: bool) {
        if !is_settled {
            self.delivered_unsettled.inc();
        }
    }

    pub fn executed_again(&self) {
        self.executed_again.inc();
    }

    pub fn undelivered(&self) {
        self.undelivered.inc();
    }

    pub fn claims(&self, count: usize) {
        self.claims.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A settlement is open, until the guard is dropped.
    pub fn unknown(&self) -> UnknownSettlement {
        self.unknown.inc();
        UnknownSettlement(self.unknown.clone())
    }

    pub fn table_built(&self, duration: Duration) {
        self.table_build.observe((), duration);
    }
}

/// Counts a settlement whose outcome is not known while it lives.
#[derive(Debug)]
pub struct UnknownSettlement(IntGauge);

impl Drop for UnknownSettlement {
    fn drop(&mut self) {
        self.0.dec();
    }
}
