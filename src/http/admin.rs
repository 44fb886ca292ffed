//! The admin port: is the process alive, is it ready, what does it count, and how much does it say.

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

/// The admin routes.
pub fn router(health: Arc<Health>, metrics: Metrics, filter: LogFilter) -> Router {
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
    match admin.health.is_alive() {
        true => (StatusCode::OK, "ok\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the elector or a loop has stopped\n",
        ),
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.health.is_synced() {
        true => (StatusCode::OK, "ok\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the cache is being filled\n",
        ),
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
        return (
            StatusCode::FORBIDDEN,
            "only from the Pod itself: use kubectl port-forward\n",
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
    fn every_route_is_one_that_can_be_served() {
        let _ = routes();
    }
}
