//! The two HTTP servers of every replica: public documents, and an admin port for the cluster.
//!
//! - [`documents`] serves registration files from the cache, on leader and standbys alike
//! - [`admin`] serves `/livez`, `/readyz`, `/metrics` and the log level
//!
//! They share only the counting of requests. Neither reads from the API server or a chain.

pub(crate) mod admin;
pub(crate) mod documents;

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::net::TcpListener;

use crate::metrics::{self, Label, Route};

/// Serves until `end` resolves, then finishes open requests.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(end)
        .await
}

/// Counts requests by route: a label per path would be unbounded.
fn counted(router: Router, metrics: metrics::HttpMetrics) -> Router {
    router.layer(from_fn_with_state(metrics, count))
}

async fn count(
    State(metrics): State<metrics::HttpMetrics>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let matched = path.as_ref().map(MatchedPath::as_str).unwrap_or_default();
    let route = Route::ALL
        .iter()
        .copied()
        .find(|route| route.as_str() == matched)
        .unwrap_or(Route::Other);
    let response = next.run(request).await;
    metrics.served(route, response.status(), started.elapsed());
    response
}
