//! Metrics of the HTTP servers.

use std::time::Duration;

use prometheus::Registry;

use super::family::{Counters, Timers};
use super::label::{ResponseCode, label};
use super::{Error, WORK};

label!(
    /// A route of the HTTP servers.
    Route, "route" {
        Agent = "/agents/{file}",
        WellKnown = "/.well-known/agent-registration.json",
        Livez = "/livez",
        Readyz = "/readyz",
        Metrics = "/metrics",
        LogLevel = "/log-level",
        /// Any other path.
        Other = "other",
    }
);

/// Recorder of the HTTP servers.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Counters<Route, ResponseCode>,
    duration: Timers<Route>,
}

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            requests: Counters::new(
                registry,
                "http_requests_total",
                "HTTP requests served, by route and status code.",
            )?,
            duration: Timers::new(
                registry,
                "http_request_duration_seconds",
                "Duration of HTTP requests served.",
                WORK,
            )?,
        })
    }

    pub fn served(&self, route: Route, code: http::StatusCode, duration: Duration) {
        self.requests.increment(route, ResponseCode::of(Some(code)));
        self.duration.observe(route, duration);
    }
}
