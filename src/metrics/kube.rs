//! Metrics of the Kubernetes API clients and of the watches that fill the cache.

use std::time::Duration;

use prometheus::Registry;

use super::family::{Counters, Gauges, Timers};
use super::label::{Label, ResponseCode, label};
use super::{Error, WORK};

label!(
    /// A kind that the cache watches.
    WatchedKind, "kind" {
        AgentRegistration = "AgentRegistration",
        IdentityRegistry = "IdentityRegistry",
        Namespace = "Namespace",
        PaymentFacilitator = "PaymentFacilitator",
        ReferenceGrant = "ReferenceGrant",
        Service = "Service",
        ServiceOffer = "ServiceOffer",
        SignerLedger = "SignerLedger",
    }
);

label!(
    /// An HTTP method.
    HttpMethod, "method" {
        Get = "GET",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        /// Any other method; this operator sends none.
        Other = "other",
    }
);

impl HttpMethod {
    fn of(method: &http::Method) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|label| label.as_str() == method.as_str())
            .unwrap_or(Self::Other)
    }
}

/// Recorder of the Kubernetes API clients.
#[derive(Clone, Debug)]
pub struct KubeMetrics {
    requests: Counters<HttpMethod, ResponseCode>,
    duration: Timers<HttpMethod>,
    rejections: Counters<HttpMethod, ()>,
}

impl KubeMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            requests: Counters::new(
                registry,
                "rest_client_requests_total",
                "Requests to the Kubernetes API server, by method and status code.",
            )?,
            duration: Timers::new(
                registry,
                "rest_client_request_duration_seconds",
                "Duration of requests to the Kubernetes API server.",
                WORK,
            )?,
            rejections: Counters::new(
                registry,
                "serviceoffer_fence_rejections_total",
                "Requests that the fence rejected because this replica was not the leader.",
            )?,
        })
    }

    /// The fence rejected a request; it was not sent.
    pub fn rejected(&self, method: &http::Method) {
        self.rejections.increment(HttpMethod::of(method), ());
    }

    /// A request was answered, or failed without a response (`code` is `None`).
    pub fn requested(
        &self,
        method: &http::Method,
        code: Option<http::StatusCode>,
        duration: Duration,
    ) {
        let method = HttpMethod::of(method);
        self.requests.increment(method, ResponseCode::of(code));
        self.duration.observe(method, duration);
    }
}

/// Recorder of the watches that fill the cache.
#[derive(Clone, Debug)]
pub struct WatchMetrics {
    failures: Counters<WatchedKind, ()>,
    synced: Gauges<WatchedKind>,
    invalid: Gauges<WatchedKind>,
    missing: Gauges<WatchedKind>,
}

impl WatchMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            failures: Counters::new(
                registry,
                "serviceoffer_watch_failures_total",
                "Watch failures by kind.",
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
                "1 while the API server does not serve the kind.",
            )?,
        })
    }

    /// A watch failed; `missing` if the API server does not serve the kind.
    pub fn failed(&self, kind: WatchedKind, missing: bool) {
        self.failures.increment(kind, ());
        self.missing.set(kind, if missing { 1.0 } else { 0.0 });
    }

    /// All objects of a kind have been listed.
    pub fn synced(&self, kind: WatchedKind) {
        self.synced.set(kind, 1.0);
        self.missing.set(kind, 0.0);
    }

    /// Sets the number of objects of a kind that cannot be decoded.
    pub fn invalid(&self, kind: WatchedKind, count: usize) {
        self.invalid.set(kind, count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_this_operator_does_not_use_share_a_label() {
        for (method, label) in [
            (http::Method::GET, "GET"),
            (http::Method::POST, "POST"),
            (http::Method::PUT, "PUT"),
            (http::Method::PATCH, "PATCH"),
            (http::Method::DELETE, "other"),
        ] {
            assert_eq!(HttpMethod::of(&method).as_str(), label);
        }
    }
}
