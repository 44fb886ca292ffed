//! The admin port: is the process alive, is it ready, what does it count, and how much does it say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};

use super::counted;
use crate::metrics::{self, Label, Metrics, Route};
use crate::telemetry::Filter;

/// What liveness and readiness depend on. Neither depends on leadership, and neither on a chain: a standby serves documents,
/// and an outage of an RPC endpoint must not take them down.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    synced: AtomicBool,
    /// Milliseconds from `origin` to the last sign of life of the elector; zero before the first.
    heartbeat: AtomicU64,
    patience: Option<Duration>,
}

impl Health {
    /// `patience` is how long the elector may be silent; `None` where there is none.
    #[must_use]
    pub fn new(patience: Option<Duration>) -> Self {
        Self { origin: Instant::now(), synced: AtomicBool::new(false), heartbeat: AtomicU64::new(0), patience }
    }

    /// The cache holds every kind.
    pub fn synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether the cache holds every kind.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The elector has gone round once more.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeat.store(elapsed, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        self.patience.is_none_or(|patience| self.origin.elapsed().saturating_sub(beat) <= patience)
    }
}

#[derive(Clone)]
struct Admin {
    health: Arc<Health>,
    metrics: Metrics,
    filter: Filter,
}

/// The admin routes.
pub fn router(health: Arc<Health>, metrics: Metrics, filter: Filter) -> Router {
    let http = metrics.http.clone();
    counted(routes().with_state(Admin { health, metrics, filter }), http)
}

fn routes() -> Router<Admin> {
    Router::new()
        .route(Route::Livez.as_str(), get(livez))
        .route(Route::Readyz.as_str(), get(readyz))
        .route(Route::Metrics.as_str(), get(render))
        .route(Route::LogLevel.as_str(), put(set_log_level).get(log_level))
}

async fn livez(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.health.is_alive() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the elector has stopped\n"),
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.health.is_synced() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the cache is being filled\n"),
    }
}

async fn render(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn log_level(State(admin): State<Admin>) -> String {
    format!("{}\n", admin.filter.current())
}

/// Changes what is logged, without a restart. Only from the Pod itself, as `kubectl port-forward` is: whoever can reach the
/// port to scrape it must not be able to flood the log.
async fn set_log_level(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: String,
) -> Response {
    if !peer.ip().is_loopback() {
        return (StatusCode::FORBIDDEN, "only from the Pod itself: use kubectl port-forward\n").into_response();
    }
    match admin.filter.set(body.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_one_that_can_be_served() {
        let _ = routes();
    }

    #[test]
    fn a_silent_elector_is_dead_and_no_elector_is_not() {
        assert!(Health::new(None).is_alive());
        let health = Health::new(Some(Duration::from_millis(20)));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!health.is_alive());
        health.beat();
        assert!(health.is_alive());
    }
}
