//! Metrics of the gate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, PullingGauge, Registry};

use super::family::{Counters, Gauges, Timers};
use super::label::{Label, label};
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
    /// What a request took, as far as its cost for the gate depends on it.
    RequestKind, "kind" {
        Free = "free",
        /// Without a payment, and answered 402.
        Unpaid = "unpaid",
        /// Paid, and delivered.
        Paid = "paid",
        /// Any other, and those that failed.
        Other = "other",
    }
);

impl RequestKind {
    fn of(outcome: GateOutcome) -> Self {
        match outcome {
            GateOutcome::Free => Self::Free,
            GateOutcome::Unpaid => Self::Unpaid,
            GateOutcome::Paid => Self::Paid,
            _ => Self::Other,
        }
    }
}

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

label!(
    /// Whether any of an offer is sold.
    SaleState, "state" {
        Open = "open",
        Closed = "closed",
    }
);

label!(
    /// Where a payment is in its life.
    ClaimState, "state" {
        Claimed = "claimed",
        Executing = "executing",
        Settling = "settling",
        Settled = "settled",
        Delivering = "delivering",
        Delivered = "delivered",
        Refused = "refused",
    }
);

/// What the gate is asked at every scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct GateReading {
    /// Memory for the beginnings of answers that are not paid for yet.
    pub hold_bytes: usize,
    /// Whether no facilitator that offers use is left alone because it failed.
    pub are_facilitators_up: bool,
}

/// Buckets in seconds for what the gate itself does.
const OVERHEAD: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// Recorder of the gate.
#[derive(Clone, Debug)]
pub struct GateMetrics {
    requests: Counters<GateOutcome, ()>,
    overhead: Timers<RequestKind>,
    settlements: Counters<SettlementOutcome, ()>,
    calls: Timers<FacilitatorCall>,
    delivered_unsettled: IntCounter,
    executed_again: IntCounter,
    delivered_again: IntCounter,
    undelivered: IntCounter,
    refused_paths: IntCounterVec,
    in_flight: IntGauge,
    upstream: Timers<()>,
    claims: Gauges<ClaimState>,
    unknown: IntGauge,
    offers: Gauges<SaleState>,
    table_build: Timers<()>,
    /// When the table was compiled last.
    compiled: Arc<Mutex<Option<Instant>>>,
}

impl GateMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        let compiled: Arc<Mutex<Option<Instant>>> = Arc::default();
        let age = {
            let compiled = Arc::clone(&compiled);
            move || {
                let compiled = *compiled.lock().unwrap_or_else(PoisonError::into_inner);
                compiled.map_or(0.0, |compiled| compiled.elapsed().as_secs_f64())
            }
        };
        registry.register(Box::new(PullingGauge::new(
            "serviceoffer_gate_table_age_seconds",
            "Time since this replica compiled its table; 0 before.",
            Box::new(age),
        )?))?;
        Ok(Self {
            requests: Counters::new(
                registry,
                "serviceoffer_gate_requests_total",
                "Requests that the gate answered, by outcome.",
            )?,
            overhead: Timers::new(
                registry,
                "serviceoffer_gate_request_overhead_seconds",
                "Time until the gate began to respond, without waiting for clients, upstreams, facilitators and chains.",
                OVERHEAD,
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
            delivered_again: counter(
                "serviceoffer_gate_delivered_again_total",
                "Kept answers that were delivered without a call of the upstream.",
            )?,
            undelivered: counter(
                "serviceoffer_gate_settled_undelivered_total",
                "Answers to settled payments that did not reach the buyer completely.",
            )?,
            refused_paths: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "serviceoffer_gate_path_refused_total",
                        "Requests whose target breaks a rule, by rule.",
                    ),
                    &["rule"],
                )?,
            )?,
            in_flight: gauge(
                "serviceoffer_gate_in_flight",
                "Requests whose response has not ended.",
            )?,
            upstream: Timers::new(
                registry,
                "serviceoffer_gate_upstream_seconds",
                "Time until upstreams began to respond.",
                WORK,
            )?,
            claims: Gauges::new(
                registry,
                "serviceoffer_gate_claims",
                "Payments that the gate remembers, by state.",
            )?,
            offers: Gauges::new(
                registry,
                "serviceoffer_gate_offers",
                "Offers with a path or hostname of their own, by whether any of it is sold.",
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
            compiled,
        })
    }

    /// A request is answered. `overhead` is the time that the gate itself took.
    pub fn answered(&self, outcome: GateOutcome, overhead: Duration) {
        self.requests.increment(outcome, ());
        self.overhead.observe(RequestKind::of(outcome), overhead);
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

    pub fn delivered_again(&self) {
        self.delivered_again.inc();
    }

    /// Shows these rules before any of them was broken.
    pub fn track_paths<R: Label>(&self) {
        for rule in R::ALL {
            self.refused_paths.with_label_values(&[rule.as_str()]);
        }
    }

    pub fn refused_path(&self, rule: impl Label) {
        let refused = self.refused_paths.with_label_values(&[rule.as_str()]);
        refused.inc();
    }

    /// A request is in flight, until the guard is dropped.
    pub fn in_flight(&self) -> Counted {
        Counted::of(&self.in_flight)
    }

    /// An upstream began to respond, or failed.
    pub fn responded(&self, duration: Duration) {
        self.upstream.observe((), duration);
    }

    pub fn undelivered(&self) {
        self.undelivered.inc();
    }

    /// Sets how many payments are in each state.
    pub fn claims(&self, states: impl IntoIterator<Item = ClaimState>) {
        let mut counts = [0.0; ClaimState::ALL.len()];
        for state in states {
            counts[state as usize] += 1.0;
        }
        for (state, count) in ClaimState::ALL.iter().zip(counts) {
            self.claims.set(*state, count);
        }
    }

    /// A settlement is open, until the guard is dropped.
    pub fn unknown(&self) -> Counted {
        Counted::of(&self.unknown)
    }

    /// Sets how many offers are sold, and how many are not.
    pub fn offers(&self, open: usize, closed: usize) {
        for (state, count) in [(SaleState::Open, open), (SaleState::Closed, closed)] {
            self.offers
                .set(state, f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }

    pub fn table_built(&self, duration: Duration) {
        self.table_build.observe((), duration);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        *compiled = Some(Instant::now());
    }
}

/// Adds what `read` says at every scrape.
pub(super) fn add_reading(
    registry: &Registry,
    read: impl Fn() -> GateReading + Send + Sync + 'static,
) -> Result<(), Error> {
    let read = Arc::new(read);
    let held = Arc::clone(&read);
    let gauges = [
        PullingGauge::new(
            "serviceoffer_gate_hold_bytes",
            "Memory that is reserved for the beginnings of answers until they are paid for.",
            Box::new(move || f64::from(u32::try_from(held().hold_bytes).unwrap_or(u32::MAX))),
        )?,
        PullingGauge::new(
            "serviceoffer_gate_facilitator_up",
            "1 unless a facilitator that offers use has failed several times in a row at this replica.",
            Box::new(move || f64::from(u8::from(read().are_facilitators_up))),
        )?,
    ];
    for gauge in gauges {
        registry.register(Box::new(gauge))?;
    }
    Ok(())
}

/// Counts in a gauge while it lives.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
