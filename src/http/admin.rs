//! The admin port: `/livez`, `/readyz`, `/metrics`, and the log level.
//!
//! [`crate::health`] decides what is alive and ready; this file only answers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};

use super::counted;
use crate::health::Health;
use crate::metrics::{self, Label, Metrics, Route};
use crate::telemetry::LogFilter;

#[derive(Clone)]
struct Admin {
    health: Arc<Health>,
    metrics: Metrics,
    filter: LogFilter,
}

pub(crate) fn router(health: Arc<Health>, metrics: Metrics, filter: LogFilter) -> Router {
    let http = metrics.http.clone();
    counted(
        routes().with_state(Admin {
            health,
            metrics,
            filter,
        }),
        http,
    )
}

fn routes() -> Router<Admin> {
    Router::new()
        .route(Route::Livez.as_str(), get(livez))
        .route(Route::Readyz.as_str(), get(readyz))
        .route(Route::Metrics.as_str(), get(render))
        .route(Route::LogLevel.as_str(), put(set_log_level).get(log_level))
}

async fn livez(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.health.is_alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the elector or a reconcile loop has stopped\n",
        )
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    let why_not = if admin.health.is_ready() {
        return (StatusCode::OK, "ok\n");
    } else if admin.health.is_draining() {
        "the process is about to end\n"
    } else {
        "the cache is not synced yet\n"
    };
    (StatusCode::SERVICE_UNAVAILABLE, why_not)
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

/// Sets the log level without a restart. Accepted only from the Pod itself, which includes
/// `kubectl port-forward`: a client that may scrape the port must not be able to flood the log.
async fn set_log_level(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: String,
) -> Response {
    if !peer.ip().is_loopback() {
        return (
            StatusCode::FORBIDDEN,
            "accepted only from the Pod itself: use kubectl port-forward\n",
        )
            .into_response();
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
    fn admin_routes_are_valid() {
        let _ = routes();
    }
}
