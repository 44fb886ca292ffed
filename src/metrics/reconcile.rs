//! Metrics of the reconcile loops.

use std::time::Instant;

use prometheus::Registry;

use super::family::{Counters, Gauges, Timers};
use super::label::label;
use super::{Error, WORK, unix_seconds};

label!(
    /// A reconcile loop.
    Loop, "loop" {
        Facilitator = "facilitator",
        Offer = "offer",
        Registry = "registry",
    }
);

label!(
    /// How a reconcile ended.
    ReconcileResult, "result" {
        /// Nothing is left to do until something changes.
        Success = "success",
        /// It will run again after a delay.
        Requeue = "requeue",
        /// It failed and will be retried.
        Error = "error",
        /// It was dropped, because the process exits or the term ended.
        Aborted = "aborted",
    }
);

label!(
    /// Why a reconcile failed.
    FailureReason, "reason" {
        /// The object was modified concurrently.
        Conflict = "Conflict",
        /// A request to the API server failed.
        Kubernetes = "Kubernetes",
        /// A request to an RPC endpoint failed.
        Chain = "Chain",
        /// This replica is no longer the leader.
        NotLeading = "NotLeading",
        /// The stored objects contradict each other.
        Inconsistent = "Inconsistent",
    }
);

/// Recorder of the reconcile loops.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    total: Counters<Loop, ReconcileResult>,
    errors: Counters<Loop, FailureReason>,
    duration: Timers<Loop>,
    active: Gauges<Loop>,
    last_success: Gauges<Loop>,
}

impl ReconcileMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            total: Counters::new(
                registry,
                "serviceoffer_reconcile_total",
                "Reconciles by result.",
            )?,
            errors: Counters::new(
                registry,
                "serviceoffer_reconcile_errors_total",
                "Failed reconciles by reason.",
            )?,
            duration: Timers::new(
                registry,
                "serviceoffer_reconcile_duration_seconds",
                "Duration of reconciles.",
                WORK,
            )?,
            active: Gauges::new(
                registry,
                "serviceoffer_reconcile_active",
                "Reconciles that are running.",
            )?,
            last_success: Gauges::new(
                registry,
                "serviceoffer_reconcile_last_success_timestamp_seconds",
                "Unix time of the last successful reconcile; 0 if none.",
            )?,
        })
    }

    /// Starts to measure a reconcile. The returned value records its result.
    #[must_use]
    pub fn begin(&self, of: Loop) -> Reconciliation {
        self.active.add(of, 1.0);
        Reconciliation {
            metrics: self.clone(),
            of,
            begun: Instant::now(),
            result: ReconcileResult::Aborted,
            reason: None,
        }
    }
}

/// A reconcile that is running. It counts as aborted if it is dropped without a result.
#[derive(Debug)]
pub struct Reconciliation {
    metrics: ReconcileMetrics,
    of: Loop,
    begun: Instant,
    result: ReconcileResult,
    reason: Option<FailureReason>,
}

impl Reconciliation {
    pub fn succeed(mut self) {
        self.result = ReconcileResult::Success;
    }

    pub fn requeue(mut self) {
        self.result = ReconcileResult::Requeue;
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn dropped_reconcile_counts_as_aborted() {
        let metrics = Metrics::new("lease").unwrap();
        drop(metrics.reconcile.begin(Loop::Registry));
        let failed = metrics.reconcile.begin(Loop::Offer);
        failed.fail(FailureReason::Conflict);
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
}
