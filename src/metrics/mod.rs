//! Prometheus metrics: one registry, typed recorders, labels with closed sets of values.
//!
//! - [`election`], [`reconcile`], [`kube`], [`chain`], [`facilitator`], [`gate`] and [`self::http`] hold
//!   the recorders of one subsystem each, with their labels
//! - [`offers`] and [`runtime`] are computed when Prometheus scrapes
//! - [`family`] and [`label`] are the typed families of series that all of them are made of
//!
//! Only this room uses the `prometheus` crate. Every series exists from the start, so that an alert
//! sees zero and not "no data": the values of a label are an enum, or the ids of the chains that
//! IdentityRegistries name. A label is never the name of an object, an error text, an address or a
//! URL. Recorders are cheap to clone; there are no statics.

mod chain;
mod election;
mod facilitator;
mod family;
mod gate;
mod http;
mod kube;
mod label;
mod offers;
mod reconcile;
mod runtime;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{PullingGauge, Registry, TextEncoder};

pub use self::chain::{ChainMetrics, ChainReading, RegistrationOutcome, RpcMethod, RpcResult};
pub use self::election::{ElectionMetrics, RenewError, Takeover};
pub use self::facilitator::{FacilitatorMetrics, SupportedResult};
pub use self::gate::{
    ClaimState, FacilitatorCall, GateMetrics, GateOutcome, GateReading, SettlementOutcome,
};
pub use self::http::{HttpMetrics, Route};
pub use self::kube::{KubeMetrics, WatchMetrics, WatchedKind};
pub use self::label::Label;
pub use self::offers::{OfferCondition, OfferCounts};
pub use self::reconcile::{FailureReason, Loop, ReconcileMetrics};

/// Media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets in seconds for work inside the cluster and for single requests.
const WORK: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// Two metrics have the same name.
#[derive(Debug, thiserror::Error)]
#[error("failed to register metrics")]
pub struct Error(#[from] prometheus::Error);

/// All metrics of one process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    pub election: ElectionMetrics,
    pub reconcile: ReconcileMetrics,
    pub watch: WatchMetrics,
    pub kube: KubeMetrics,
    pub chain: ChainMetrics,
    pub facilitators: FacilitatorMetrics,
    pub gate: GateMetrics,
    pub http: HttpMetrics,
}

impl Metrics {
    /// Metrics of a candidate for the named Lease.
    pub fn new(lease: &str) -> Result<Self, Error> {
        let registry = Registry::new();
        for collector in runtime::collectors()? {
            registry.register(collector)?;
        }
        Ok(Self {
            election: ElectionMetrics::new(&registry, lease)?,
            reconcile: ReconcileMetrics::new(&registry)?,
            watch: WatchMetrics::new(&registry)?,
            kube: KubeMetrics::new(&registry)?,
            chain: ChainMetrics::new(&registry)?,
            facilitators: FacilitatorMetrics::new(&registry)?,
            gate: GateMetrics::new(&registry)?,
            http: HttpMetrics::new(&registry)?,
            registry,
        })
    }

    /// Adds the number of offers by condition. `count` runs at every scrape, so that the numbers
    /// never go stale.
    pub fn count_offers(
        &self,
        count: impl Fn() -> OfferCounts + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let collector = offers::OfferCollector::new(count)?;
        Ok(self.registry.register(Box::new(collector))?)
    }

    /// Adds the time until this replica's fence closes. `remaining` runs at every scrape.
    pub fn report_fence(
        &self,
        remaining: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let gauge = PullingGauge::new(
            "serviceoffer_leader_fence_remaining_seconds",
            "Time until this replica's term ends if no renewal succeeds; 0 if it is not the leader.",
            Box::new(move || remaining().as_secs_f64()),
        )?;
        Ok(self.registry.register(Box::new(gauge))?)
    }

    /// Adds what the gate holds and which facilitators it reaches. `read` runs at every scrape.
    pub fn report_gate(
        &self,
        read: impl Fn() -> GateReading + Send + Sync + 'static,
    ) -> Result<(), Error> {
        gate::add_reading(&self.registry, read)
    }

    /// All series, in the text format of Prometheus.
    pub fn render(&self) -> Result<String, Error> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
