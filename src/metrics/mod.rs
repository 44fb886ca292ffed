//! What the process tells of itself to Prometheus: one registry, typed recorders, closed labels.
//!
//! It owns names, help texts and label values; nothing outside speaks of the `prometheus` crate. Every series exists from
//! the start, so that an alert sees zero and not "no data": a label is an enum whose values are all known, or the id of a
//! chain, which an IdentityRegistry names. A label is never the name of an object, a text of an error, an address or a
//! URL.
//!
//! Recorders are cheap to clone and are handed to whoever has something to tell; there are no statics.

mod family;
mod label;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use label::*;
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntGauge, Registry, TextEncoder};

use self::family::{ChainCounters, ChainGauges, Counters, Gauges, Timers, collectors};

/// Media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Durations of work inside the cluster, in seconds.
const WORK: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
/// Durations of a registration from its first sending to its finality, in seconds.
const CONFIRMATION: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// The metrics could not be set up: two of them have one name.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up")]
pub struct Error(#[from] prometheus::Error);

/// All metrics of one process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The election of a leader.
    pub election: ElectionMetrics,
    /// The reconcile loops.
    pub reconcile: ReconcileMetrics,
    /// The watches behind the cache.
    pub watch: WatchMetrics,
    /// Requests to the API server.
    pub kube: KubeMetrics,
    /// What happens on chains.
    pub chain: ChainMetrics,
    /// Requests that are served.
    pub http: HttpMetrics,
}

impl Metrics {
    /// Metrics of a candidate for the named Lease.
    ///
    /// # Errors
    /// If two metrics have one name.
    pub fn new(lease: &str) -> Result<Self, Error> {
        let registry = Registry::new();
        let metrics = Self {
            election: ElectionMetrics::new(&registry, lease)?,
            reconcile: ReconcileMetrics::new(&registry)?,
            watch: WatchMetrics::new(&registry)?,
            kube: KubeMetrics::new(&registry)?,
            chain: ChainMetrics::new(&registry)?,
            http: HttpMetrics::new(&registry)?,
            registry,
        };
        metrics.add(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let build = prometheus::Opts::new(
            "serviceoffer_build_info",
            "Always 1; the labels say what runs.",
        )
        .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        metrics.add(Box::new(build))?;
        for collector in collectors::runtime() {
            metrics.add(collector)?;
        }
        Ok(metrics)
    }

    /// Adds something that is computed when it is asked for.
    ///
    /// # Errors
    /// If one of its names is taken.
    pub fn add(&self, collector: Box<dyn Collector>) -> Result<(), Error> {
        Ok(self.registry.register(collector)?)
    }

    /// Counts offers by condition whenever it is asked for, so that the numbers never go stale.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn count_offers(
        &self,
        count: impl Fn() -> OfferCounts + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.add(Box::new(collectors::Offers::new(count)?))
    }

    /// Tells how much of this replica's term is left whenever it is asked for.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn report_fence(
        &self,
        remaining: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let gauge = prometheus::PullingGauge::new(
            "serviceoffer_leader_fence_remaining_seconds",
            "How much of this replica's term is left if no renewal succeeds; 0 if it does not lead.",
            Box::new(move || remaining().as_secs_f64()),
        )?;
        self.add(Box::new(gauge))
    }

    /// All series, in the text format of Prometheus.
    ///
    /// # Errors
    /// If a collector yields something that has no name.
    pub fn render(&self) -> Result<String, Error> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// Number of offers by condition and status, in the order of [`OfferCondition::ALL`] and [`Status::ALL`].
pub type OfferCounts = [[u64; Status::ALL.len()]; OfferCondition::ALL.len()];

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What the elector tells.
#[derive(Clone, Debug)]
pub struct ElectionMetrics {
    master: IntGauge,
    transitions: IntCounter,
    slow_path: IntCounter,
    acquisition: Timers<Takeover>,
    renewal: Timers<()>,
    errors: Counters<RenewError, ()>,
    renewed: Gauge,
    epoch: Gauge,
    watch_restarts: IntCounter,
}

impl ElectionMetrics {
    fn new(registry: &Registry, lease: &str) -> Result<Self, Error> {
        // The names and the label of client-go and controller-runtime, so that ready-made dashboards work.
        let named =
            |name: &str, help: &str| prometheus::Opts::new(name, help).const_label("name", lease);
        let master = named(
            "leader_election_master_status",
            "1 if this replica leads, 0 if it does not.",
        );
        let slow_path = named(
            "leader_election_slowpath_total",
            "Renewals that had to read the Lease first, because it was not what it was thought to be.",
        );
        Ok(Self {
            master: register(registry, IntGauge::with_opts(master)?)?,
            slow_path: register(registry, IntCounter::with_opts(slow_path)?)?,
            transitions: register(
                registry,
                IntCounter::new(
                    "serviceoffer_leader_transitions_total",
                    "Terms of leadership that this replica has seen begin, those of one holder included.",
                )?,
            )?,
            acquisition: Timers::new(
                registry,
                "serviceoffer_leader_acquire_latency_seconds",
                "From knowing that the Lease is free to leading.",
                WORK,
            )?,
            renewal: Timers::new(
                registry,
                "serviceoffer_leader_renew_duration_seconds",
                "How long a successful write to the Lease takes.",
                WORK,
            )?,
            errors: Counters::new(
                registry,
                "serviceoffer_leader_renew_errors_total",
                "Writes to the Lease that did not succeed.",
            )?,
            renewed: register(
                registry,
                Gauge::new(
                    "serviceoffer_leader_renewed_timestamp_seconds",
                    "When this replica last wrote the Lease; 0 if never.",
                )?,
            )?,
            epoch: register(
                registry,
                Gauge::new(
                    "serviceoffer_leader_epoch",
                    "Version of the write that began the last term of this replica; grows from term to term; 0 if none.",
                )?,
            )?,
            watch_restarts: register(
                registry,
                IntCounter::new(
                    "serviceoffer_leader_watch_restarts_total",
                    "Watches of the Lease that ended and were begun anew.",
                )?,
            )?,
        })
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.master.set(leads.into());
    }

    /// A term of this replica began with the write of that version.
    pub fn epoch(&self, version: &str) {
        // A gauge cannot hold more digits than those; the order of terms is kept all the same.
        self.epoch.set(version.parse().unwrap_or_default());
    }

    /// A term began, whoever's.
    pub fn transition(&self) {
        self.transitions.inc();
    }

    /// This replica began to lead, so long after it knew that it might.
    pub fn acquired(&self, by: Takeover, after: Duration) {
        self.acquisition.observe(by, after);
    }

    /// The Lease was written.
    pub fn renewed(&self, took: Duration) {
        self.renewal.observe((), took);
        self.renewed.set(unix_seconds());
    }

    /// The Lease was not written.
    pub fn renewal_failed(&self, error: RenewError) {
        self.errors.increment(error, ());
    }

    /// A leader had to read the Lease.
    pub fn slow_path(&self) {
        self.slow_path.inc();
    }

    /// The watch of the Lease was begun anew.
    pub fn watch_restarted(&self) {
        self.watch_restarts.inc();
    }
}

/// What the reconcile loops tell.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    total: Counters<Loop, ReconcileResult>,
    errors: Counters<Loop, FailureReason>,
    duration: Timers<Loop>,
    active: Gauges<Loop>,
    last_success: Gauges<Loop>,
}

impl ReconcileMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            total: Counters::new(
                registry,
                "serviceoffer_reconcile_total",
                "Reconciliations by their result.",
            )?,
            errors: Counters::new(
                registry,
                "serviceoffer_reconcile_errors_total",
                "Failed reconciliations by their reason.",
            )?,
            duration: Timers::new(
                registry,
                "serviceoffer_reconcile_duration_seconds",
                "How long a reconciliation takes.",
                WORK,
            )?,
            active: Gauges::new(
                registry,
                "serviceoffer_reconcile_active",
                "Reconciliations under way.",
            )?,
            last_success: Gauges::new(
                registry,
                "serviceoffer_reconcile_last_success_timestamp_seconds",
                "When a reconciliation last succeeded; 0 if never.",
            )?,
        })
    }

    /// A reconciliation begins; the value that is returned tells of its end.
    #[must_use]
    pub fn begin(&self, of: Loop) -> Reconciliation {
        self.active.add(of, 1.0);
        Reconciliation {
            metrics: self.clone(),
            of,
            begun: std::time::Instant::now(),
            result: ReconcileResult::Aborted,
            reason: None,
        }
    }
}

/// One reconciliation that is under way. Dropped without a word, it counts as aborted.
#[derive(Debug)]
pub struct Reconciliation {
    metrics: ReconcileMetrics,
    of: Loop,
    begun: std::time::Instant,
    result: ReconcileResult,
    reason: Option<FailureReason>,
}

impl Reconciliation {
    /// It is done; nothing is left to do until something changes.
    pub fn succeed(mut self) {
        self.result = ReconcileResult::Success;
    }

    /// It is done as far as possible; it will go on by itself.
    pub fn requeue(mut self) {
        self.result = ReconcileResult::Requeue;
    }

    /// It failed and will be tried again.
    pub fn fail(mut self, reason: FailureReason) {
        self.result = ReconcileResult::Error;
        self.reason = Some(reason);
    }
}

impl Drop for Reconciliation {
    fn drop(&mut self) {
        let Self {
            metrics,
            of,
            begun,
            result,
            reason,
        } = self;
        metrics.active.add(*of, -1.0);
        metrics.duration.observe(*of, begun.elapsed());
        metrics.total.increment(*of, *result);
        if let Some(reason) = reason {
            metrics.errors.increment(*of, *reason);
        }
        if matches!(result, ReconcileResult::Success | ReconcileResult::Requeue) {
            metrics.last_success.set(*of, unix_seconds());
        }
    }
}

/// What the watches tell.
#[derive(Clone, Debug)]
pub struct WatchMetrics {
    failures: Counters<WatchedKind, ()>,
    synced: Gauges<WatchedKind>,
    invalid: Gauges<WatchedKind>,
    missing: Gauges<WatchedKind>,
}

impl WatchMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            failures: Counters::new(
                registry,
                "serviceoffer_watch_failures_total",
                "Watches that broke.",
            )?,
            synced: Gauges::new(
                registry,
                "serviceoffer_cache_synced",
                "1 once all objects of a kind have been listed.",
            )?,
            invalid: Gauges::new(
                registry,
                "serviceoffer_invalid_objects",
                "Objects that cannot be decoded.",
            )?,
            missing: Gauges::new(
                registry,
                "serviceoffer_crd_missing",
                "1 while the API server does not know the kind.",
            )?,
        })
    }

    /// A watch broke; `missing` says whether because the API server does not know the kind.
    pub fn failed(&self, kind: WatchedKind, missing: bool) {
        self.failures.increment(kind, ());
        self.missing.set(kind, if missing { 1.0 } else { 0.0 });
    }

    /// All objects of a kind have been listed.
    pub fn synced(&self, kind: WatchedKind) {
        self.synced.set(kind, 1.0);
        self.missing.set(kind, 0.0);
    }

    /// So many objects of a kind cannot be decoded.
    pub fn invalid(&self, kind: WatchedKind, count: usize) {
        self.invalid.set(kind, count as f64);
    }
}

/// What the Kubernetes client tells.
#[derive(Clone, Debug)]
pub struct KubeMetrics {
    requests: Counters<HttpMethod, Code>,
    duration: Timers<HttpMethod>,
    rejections: Counters<HttpMethod, ()>,
}

impl KubeMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            requests: Counters::new(
                registry,
                "rest_client_requests_total",
                "Requests to the API server.",
            )?,
            duration: Timers::new(
                registry,
                "rest_client_request_duration_seconds",
                "How long the API server takes to answer.",
                WORK,
            )?,
            rejections: Counters::new(
                registry,
                "serviceoffer_fence_rejections_total",
                "Requests that were not sent because this replica did not lead.",
            )?,
        })
    }

    /// A request was not sent, because the fence is closed.
    pub fn refused(&self, method: &http::Method) {
        self.rejections.increment(HttpMethod::of(method), ());
    }

    /// A request was answered, or failed (`code` is `None`).
    pub fn requested(
        &self,
        method: &http::Method,
        code: Option<http::StatusCode>,
        duration: Duration,
    ) {
        let method = HttpMethod::of(method);
        self.requests.increment(method, Code::of(code));
        self.duration.observe(method, duration);
    }
}

/// What happens on chains.
#[derive(Clone, Debug)]
pub struct ChainMetrics {
    requests: Counters<RpcMethod, RpcResult>,
    duration: Timers<RpcMethod>,
    registrations: ChainCounters<RegistrationOutcome>,
    spent: ChainGauges,
    pending: ChainGauges,
    oldest_pending: ChainGauges,
    head: ChainGauges,
    balance: ChainGauges,
    confirmation: Timers<()>,
}

impl ChainMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        let gauges = |name: &str, help: &str| ChainGauges::new(registry, name, help);
        Ok(Self {
            requests: Counters::new(
                registry,
                "serviceoffer_chain_requests_total",
                "Requests to RPC endpoints.",
            )?,
            duration: Timers::new(
                registry,
                "serviceoffer_chain_request_duration_seconds",
                "How long an RPC endpoint takes to answer.",
                WORK,
            )?,
            registrations: ChainCounters::new(
                registry,
                "serviceoffer_onchain_registrations_total",
                "Registrations by how far they came: signed, sent (repeats included), registered, adopted, frozen.",
            )?,
            spent: gauges(
                "serviceoffer_chain_spent_coins",
                "Spent in the last 24 hours, in whole units of the chain's coin.",
            )?,
            pending: gauges(
                "serviceoffer_chain_transactions_pending",
                "Nonces that are in use and not final.",
            )?,
            oldest_pending: gauges(
                "serviceoffer_chain_oldest_pending_timestamp_seconds",
                "Since when the oldest nonce in use waits; 0 if none does.",
            )?,
            head: gauges(
                "serviceoffer_chain_head_timestamp_seconds",
                "Time of the latest block seen; 0 if none was.",
            )?,
            balance: gauges(
                "serviceoffer_chain_signer_balance_coins",
                "Balance of the first signer, in whole units of the chain's coin.",
            )?,
            confirmation: Timers::new(
                registry,
                "serviceoffer_chain_confirmation_seconds",
                "How long a registration takes from its first sending to its finality.",
                CONFIRMATION,
            )?,
        })
    }

    /// A registry uses this chain: its series exist from then on.
    pub fn track(&self, chain_id: u64) {
        self.registrations.track(chain_id);
        for gauges in [
            &self.spent,
            &self.pending,
            &self.oldest_pending,
            &self.head,
            &self.balance,
        ] {
            gauges.track(chain_id);
        }
    }

    /// A request to an RPC endpoint was answered, or not.
    pub fn requested(&self, call: RpcMethod, answer: RpcResult, duration: Duration) {
        self.requests.increment(call, answer);
        self.duration.observe(call, duration);
    }

    /// A registration came so far.
    pub fn registration(&self, chain_id: u64, outcome: RegistrationOutcome) {
        self.registrations.increment(chain_id, outcome);
    }

    /// A registration became final so long after its first sending.
    pub fn confirmed(&self, duration: Duration) {
        self.confirmation.observe((), duration);
    }

    /// What one look at a chain shows.
    pub fn observe(&self, chain_id: u64, reading: ChainReading) {
        let ChainReading {
            head_timestamp,
            balance,
            spent,
            pending,
            oldest_pending,
        } = reading;
        self.head.set(chain_id, head_timestamp as f64);
        self.balance.set(chain_id, balance);
        if let Some(spent) = spent {
            self.spent.set(chain_id, spent);
        }
        self.pending.set(chain_id, pending as f64);
        self.oldest_pending
            .set(chain_id, oldest_pending.unwrap_or_default());
    }
}

/// What one look at a chain shows. Amounts are in whole units of its coin: exact to 15 digits, fine for alerts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChainReading {
    /// Time of the latest block, in Unix seconds.
    pub head_timestamp: u64,
    /// Balance of the first signer.
    pub balance: f64,
    /// Spent in the last 24 hours, if it was counted at this look.
    pub spent: Option<f64>,
    /// Nonces in use that are not final.
    pub pending: usize,
    /// Since when the oldest of them waits, in Unix seconds.
    pub oldest_pending: Option<f64>,
}

/// What the HTTP servers tell.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Counters<Route, Code>,
    duration: Timers<Route>,
}

impl HttpMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            requests: Counters::new(registry, "http_requests_total", "Requests served.")?,
            duration: Timers::new(
                registry,
                "http_request_duration_seconds",
                "How long a request takes to serve.",
                WORK,
            )?,
        })
    }

    /// A request was served.
    pub fn served(&self, route: Route, code: http::StatusCode, duration: Duration) {
        self.requests.increment(route, Code::of(Some(code)));
        self.duration.observe(route, duration);
    }
}

/// Shared by whoever computes a number when it is asked for.
type Compute<T> = Arc<dyn Fn() -> T + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_from_the_start_and_no_pod_has_too_many() {
        let metrics = Metrics::new("lease").unwrap();
        metrics.chain.track(84532);
        let text = metrics.render().unwrap();
        for series in [
            "leader_election_master_status{name=\"lease\"} 0",
            "serviceoffer_leader_transitions_total 0",
            "serviceoffer_onchain_registrations_total{chain=\"84532\",outcome=\"registered\"} 0",
            "serviceoffer_reconcile_total{loop=\"offer\",result=\"success\"} 0",
            "serviceoffer_watch_failures_total{kind=\"ServiceOffer\"} 0",
        ] {
            assert!(text.contains(series), "{series} is missing from\n{text}");
        }
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
            .count();
        assert!(series < 400, "{series}");
    }

    #[test]
    fn a_reconciliation_that_is_dropped_counts_as_aborted() {
        let metrics = Metrics::new("lease").unwrap();
        drop(metrics.reconcile.begin(Loop::Registry));
        metrics
            .reconcile
            .begin(Loop::Offer)
            .fail(FailureReason::Conflict);
        metrics.reconcile.begin(Loop::Offer).succeed();
        let text = metrics.render().unwrap();
        for series in [
            "serviceoffer_reconcile_total{loop=\"registry\",result=\"aborted\"} 1",
            "serviceoffer_reconcile_errors_total{loop=\"offer\",reason=\"Conflict\"} 1",
            "serviceoffer_reconcile_active{loop=\"offer\"} 0",
        ] {
            assert!(text.contains(series), "{series} is missing from\n{text}");
        }
    }

    #[tokio::test]
    async fn the_readme_lists_every_metric_and_no_other() {
        let metrics = Metrics::new("lease").unwrap();
        metrics.count_offers(OfferCounts::default).unwrap();
        metrics.report_fence(Duration::default).unwrap();
        metrics.chain.track(84532);
        let text = metrics.render().unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let ours: std::collections::BTreeSet<&str> =
            names.filter(|name| !name.starts_with("process_")).collect();
        let chapter = include_str!("../../README.md")
            .split("\n## Metrics\n")
            .nth(1)
            .unwrap();
        let rows = chapter.split("\n## ").next().unwrap().lines();
        let listed = rows
            .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(ours, listed);
    }

    #[test]
    fn two_sets_of_metrics_do_not_meet() {
        assert!(Metrics::new("a").is_ok() && Metrics::new("b").is_ok());
    }
}
