//! Metrics of the elector. Two have the names and the label of client-go and controller-runtime, so
//! that their dashboards work here.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge, Opts, Registry};

use super::family::{Counters, Timers};
use super::label::label;
use super::{Error, WORK, register, unix_seconds};

label!(
    /// Why a replica could become leader.
    Takeover, "cause" {
        /// There was no Lease.
        Creation = "creation",
        /// The holder had released it.
        Release = "release",
        /// The holder had let it expire.
        Expiry = "expiry",
        /// The kubelet had reported that the holder's container terminated.
        Termination = "termination",
        /// The holder was an earlier container of the same Pod.
        Reclaim = "reclaim",
    }
);

label!(
    /// Why a write to the Lease failed.
    RenewError, "reason" {
        /// The Lease was modified concurrently.
        Conflict = "Conflict",
        /// The API server rejected the request.
        Refused = "Refused",
        /// The API server could not be reached.
        Unreachable = "Unreachable",
        /// The API server did not answer in time.
        Timeout = "Timeout",
    }
);

/// Recorder of the elector.
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
    pub(super) fn new(registry: &Registry, lease: &str) -> Result<Self, Error> {
        let named = |name: &str, help: &str| Opts::new(name, help).const_label("name", lease);
        let master = named(
            "leader_election_master_status",
            "1 if this replica is the leader, 0 if it is a standby.",
        );
        let slow_path = named(
            "leader_election_slowpath_total",
            "Renewals that had to read the Lease first, because it had changed since it was last observed.",
        );
        Ok(Self {
            master: register(registry, IntGauge::with_opts(master)?)?,
            slow_path: register(registry, IntCounter::with_opts(slow_path)?)?,
            transitions: register(
                registry,
                IntCounter::new(
                    "serviceoffer_leader_transitions_total",
                    "Leadership terms that this replica observed the start of, including consecutive terms of one holder.",
                )?,
            )?,
            acquisition: Timers::new(
                registry,
                "serviceoffer_leader_acquire_latency_seconds",
                "Time from observing that the Lease is free to becoming leader, by cause.",
                WORK,
            )?,
            renewal: Timers::new(
                registry,
                "serviceoffer_leader_renew_duration_seconds",
                "Duration of successful writes to the Lease.",
                WORK,
            )?,
            errors: Counters::new(
                registry,
                "serviceoffer_leader_renew_errors_total",
                "Failed writes to the Lease, by reason.",
            )?,
            renewed: register(
                registry,
                Gauge::new(
                    "serviceoffer_leader_renewed_timestamp_seconds",
                    "Unix time of this replica's last successful write to the Lease; 0 if none.",
                )?,
            )?,
            epoch: register(
                registry,
                Gauge::new(
                    "serviceoffer_leader_epoch",
                    "Resource version of the write that began this replica's last term; grows from term to term; 0 if none.",
                )?,
            )?,
            watch_restarts: register(
                registry,
                IntCounter::new(
                    "serviceoffer_leader_watch_restarts_total",
                    "Watches of the Lease that ended and were restarted.",
                )?,
            )?,
        })
    }

    pub fn leads(&self, leads: bool) {
        self.master.set(leads.into());
    }

    /// A term of this replica began with the write of this resource version.
    pub fn epoch(&self, version: &str) {
        // An f64 is exact to 15 digits; above that, terms still compare in order.
        self.epoch.set(version.parse().unwrap_or_default());
    }

    /// A term began, of this replica or of another.
    pub fn transition(&self) {
        self.transitions.inc();
    }

    /// This replica became leader. `after` is the time since it observed that the Lease was free.
    pub fn acquired(&self, by: Takeover, after: Duration) {
        self.acquisition.observe(by, after);
    }

    pub fn renewed(&self, took: Duration) {
        self.renewal.observe((), took);
        self.renewed.set(unix_seconds());
    }

    pub fn renewal_failed(&self, error: RenewError) {
        self.errors.increment(error, ());
    }

    /// A leader had to read the Lease before it could renew.
    pub fn slow_path(&self) {
        self.slow_path.inc();
    }

    pub fn watch_restarted(&self) {
        self.watch_restarts.inc();
    }
}
