//! The two HTTP servers of every replica: documents for the public, and an admin port for the cluster.
//!
//! - [`documents`] serves registration files from the cache, whoever leads
//! - [`admin`] serves `/livez`, `/readyz`, `/metrics` and the log level
//!
//! They share nothing but the way in which requests are counted.

pub mod admin;
pub mod documents;

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::net::TcpListener;

use crate::metrics::{self, Label, Route};

/// Serves until `end` resolves, and then finishes what is under way.
///
/// # Errors
/// If the listener breaks.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(end)
        .await
}

/// Counts every request by its route, never by its path.
fn counted(router: Router, metrics: metrics::HttpMetrics) -> Router {
    router.layer(from_fn_with_state(metrics, count))
}

async fn count(
    State(metrics): State<metrics::HttpMetrics>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let matched = path.as_ref().map(MatchedPath::as_str).unwrap_or_default();
    let route = Route::ALL
        .iter()
        .copied()
        .find(|route| route.as_str() == matched)
        .unwrap_or(Route::Other);
    let response = next.run(request).await;
    metrics.served(route, response.status(), begun.elapsed());
    response
}
