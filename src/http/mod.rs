//! The two HTTP servers of every replica: public documents, and an admin port for the cluster.
//!
//! - [`documents`] serves registration files from the cache, on leader and standbys alike
//! - [`admin`] serves `/livez`, `/readyz`, `/metrics` and the log level
//!
//! They share the limits of a [`connection`] and the counting of requests. Neither reads from the
//! API server or a chain. [`watched`] reports how the body of a response ends, to the gate too.

pub(crate) mod admin;
mod connection;
pub(crate) mod documents;
mod watched;

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode, Uri, Version};
use axum::middleware::{Next, from_fn_with_state, map_request, map_response};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tower::ServiceExt;
use tracing::warn;

use self::connection::{Connection, Requests};
pub(crate) use self::watched::{BodyEnd, watch};
use crate::health::Health;
use crate::metrics::{self, Label, Route};

/// Largest head of a request: payments of 16 KiB, in base64, fit in it.
const HEAD_BYTES: usize = 32 * 1024;
/// Connections of one server at a time, so that their heads cannot fill the memory. Further ones
/// wait until one ends.
const MAX_CONNECTIONS: usize = 4096;
/// How often it is reported that connections wait. A client that opens them must not fill the log.
const FULL_PERIOD: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted, as when there are no file descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_secs(1);

/// Listens on an address. `[::]` accepts clients of both families, and on a node without IPv6 those
/// of IPv4.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) => match without_ipv6(address, &error) {
            Some(address) => TcpListener::bind(address).await,
            None => Err(error),
        },
        bound => bound,
    }
}

/// The address to use instead of one that the node refused because it has no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let is_any = address.ip() == Ipv6Addr::UNSPECIFIED;
    let has_none = Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT);
    (is_any && has_none).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// Serves until `end` resolves, then finishes open requests.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    end: impl Future<Output = ()> + Send + 'static,
) {
    serve_at_most(MAX_CONNECTIONS, listener, router, end).await;
}

async fn serve_at_most(
    limit: usize,
    listener: TcpListener,
    router: Router,
    end: impl Future<Output = ()> + Send + 'static,
) {
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limit));
    let mut reported: Option<Instant> = None;
    let mut end = pin!(end);
    loop {
        let is_due = reported.is_none_or(|last| last.elapsed() >= FULL_PERIOD);
        if places.available_permits() == 0 && is_due {
            warn!(limit, "connection limit reached, further connections wait");
            reported = Some(Instant::now());
        }
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Without it, a short piece of a response may wait for the client's next packet.
                let _ = stream.set_nodelay(true);
                let served = connections.watch(serve_connection(stream, peer, router.clone()));
                tokio::spawn(async move {
                    // How a connection ends concerns its client only.
                    let _ = served.await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves the requests on one connection.
fn serve_connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    mut peer: SocketAddr,
    router: Router,
) -> impl GracefulConnection + Send {
    // A socket of both families shows IPv4 clients under IPv6 addresses (`::ffff:127.0.0.1`), which
    // are neither loopback nor in a range of IPv4. Handlers see the IPv4 address.
    peer.set_ip(peer.ip().to_canonical());
    let requests = Requests::default();
    let connection = Connection::new(stream, requests.clone());
    let answer = move |request: hyper::Request<Incoming>| {
        let open = requests.begin();
        let router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        async move {
            // The builder still takes the preface of HTTP/2, for which the limits of this file do not
            // hold.
            if request.version() > Version::HTTP_11 {
                return Ok(StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response());
            }
            let response = router.oneshot(request).await;
            response.map(|response| open.until_sent(response))
        }
    };
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().max_buf_size(HEAD_BYTES);
    builder
        .serve_connection_with_upgrades(TokioIo::new(connection), service_fn(answer))
        .into_owned()
}

/// Ends each connection with its next response once this process drains: a request on a connection that
/// is being closed would have no response.
pub(crate) fn closing(router: Router, health: Arc<Health>) -> Router {
    let close = move |mut response: Response| {
        if health.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let fields = response.headers_mut();
            fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ready(response)
    };
    router.layer(map_response(close))
}

/// Serves a router below a path as well as at the root: a proxy that shares its host with something
/// else keeps the path, and clients in the cluster do not know it.
pub(crate) fn below(path: String, router: Router) -> Router {
    if path.is_empty() {
        return router;
    }
    let enter = move |mut request: Request| {
        if let Some(uri) = without_prefix(request.uri(), &path) {
            *request.uri_mut() = uri;
        }
        ready(request)
    };
    Router::new()
        .fallback_service(router)
        .layer(map_request(enter))
}

/// A URI without the first part of its path; `None` if it does not begin so.
fn without_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let rest = parts
        .path_and_query?
        .as_str()
        .strip_prefix(prefix)?
        .to_owned();
    let rest = match rest.chars().next() {
        None | Some('?') => format!("/{rest}"),
        Some('/') => rest,
        Some(_) => return None,
    };
    parts.path_and_query = Some(rest.parse().ok()?);
    Uri::from_parts(parts).ok()
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// What a handler sees of a client that connects to that address.
    async fn peer_of(server: IpAddr, port: u16) -> io::Result<String> {
        let mut client = TcpStream::connect((server, port)).await?;
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        client.write_all(request).await?;
        let mut response = String::new();
        client.read_to_string(&mut response).await?;
        let body = response.rsplit("\r\n").next();
        Ok(body.unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn clients_of_both_families_are_served_and_have_their_own_address() {
        let any = (Ipv6Addr::UNSPECIFIED, 0).into();
        let listener = listen(any).await.unwrap();
        let address = listener.local_addr().unwrap();
        let show = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string();
        let router = Router::new().route("/", get(show));
        tokio::spawn(serve(listener, router, std::future::pending()));
        let mut families = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        if address.is_ipv6() {
            families.push(Ipv6Addr::LOCALHOST.into());
        }
        for loopback in families {
            let seen = peer_of(loopback, address.port()).await.unwrap();
            assert_eq!(seen, loopback.to_string());
        }
    }

    #[tokio::test]
    async fn connection_above_the_limit_is_served_once_another_ends() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "served" }));
        tokio::spawn(serve_at_most(1, listener, router, std::future::pending()));
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = tokio::spawn(peer_of(address.ip(), address.port()));
        let early = timeout(Duration::from_millis(200), &mut second).await;
        assert!(early.is_err(), "{early:?}");
        drop(first);
        assert_eq!(second.await.unwrap().unwrap(), "served");
    }

    #[tokio::test]
    async fn router_answers_below_its_path_and_at_the_root() {
        let asked = async |uri: Uri, path: Option<MatchedPath>| {
            let matched = path.as_ref().map(MatchedPath::as_str);
            format!("{uri} {}", matched.unwrap_or_default())
        };
        let inner = Router::new().route("/a/{b}", get(asked)).fallback(asked);
        let router = below("/x".to_owned(), inner);
        for (target, seen) in [
            ("/x/a/1", "/a/1 /a/{b}"),
            ("/a/1", "/a/1 /a/{b}"),
            ("/x", "/ "),
            ("/x?q=/x", "/?q=/x "),
            ("/x/", "/ "),
            ("/xy/a/1", "/xy/a/1 "),
            ("/x/%2e%2e/a", "/%2e%2e/a "),
            ("/x/x/a/1", "/x/a/1 "),
        ] {
            let request = Request::get(target).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let body = to_bytes(response.into_body(), 1024).await.unwrap();
            assert_eq!(body, seen, "{target}");
        }
    }

    #[tokio::test]
    async fn connection_ends_with_the_next_response_once_the_process_drains() {
        let health = Arc::new(Health::new(None));
        let router = closing(
            Router::new().route("/", get(|| async {})),
            Arc::clone(&health),
        );
        for drains in [false, true] {
            if drains {
                health.set_draining();
            }
            let request = Request::get("/").body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers().get(CONNECTION).is_some(), drains);
        }
    }

    #[test]
    fn only_a_missing_ipv6_is_replaced() {
        let any: SocketAddr = "[::]:8080".parse().unwrap();
        let missing = io::Error::from(Errno::AFNOSUPPORT);
        let ipv4 = "0.0.0.0:8080".parse().ok();
        assert_eq!(without_ipv6(any, &missing), ipv4);
        let one = "[::1]:8080".parse().unwrap();
        assert_eq!(without_ipv6(one, &missing), None);
        let taken = io::Error::from(Errno::ADDRINUSE);
        assert_eq!(without_ipv6(any, &taken), None);
    }
}
