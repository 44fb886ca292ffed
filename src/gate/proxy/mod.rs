//! Carries requests to upstreams and their responses back.
//!
//! - [`hold`] reads the start of a response before it is paid for
//!
//! Bodies stream in both directions: a slow reader slows the writer, and what is in memory does not
//! depend on their size. A request is sent again only if no byte of it was written, which the HTTP
//! client knows; a request that may have started its work is never repeated here. Dropping the
//! future of a request, or the body of a response, closes the connection to the upstream.
//!
//! This file changes no header field: [`super::headers`] decides on those. It does not know prices
//! or payments either.

mod hold;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Frame, SizeHint};
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::copy_bidirectional;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tower::Service;

pub(crate) use hold::{Held, HoldLimits, MemoryBudget};

use super::headers::{clean_trailers, switches_to_websocket};

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an idle connection is kept: less than the 5 seconds after which common servers close
/// theirs, so that few requests meet a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections that are kept for one upstream.
const IDLE_CONNECTIONS: usize = 64;
/// After this time without any byte, the system asks whether the other end of a connection still
/// exists. Tunnels have no other end.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long a tunnel waits for the client's end after the response that switches was sent or
/// dropped.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum bytes that are buffered of one response; its header fields must fit.
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of all responses together that are held until they are paid.
const HOLD_BYTES: usize = 64 * 1024 * 1024;

/// Where an upstream is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UpstreamAddress {
    /// Address, or name, and port.
    pub(crate) authority: String,
    /// Value of `Host`.
    pub(crate) host: String,
}

/// Why an upstream's response cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the upstream cannot be reached")]
    Unreachable,
    #[error("the upstream did not answer in time")]
    TooSlow,
    #[error("the upstream closed the connection before its response was complete")]
    Broken,
    #[error("the upstream did not answer in HTTP")]
    Malformed,
    /// Not the upstream's failure: the client did not send the body it announced.
    #[error("the body of the request was not complete")]
    RequestBody,
}

impl UpstreamError {
    fn of(error: &hyper_util::client::legacy::Error) -> Self {
        if error.is_connect() {
            return Self::Unreachable;
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(cause) if hyper::Error::is_parse(cause) => Self::Malformed,
            Some(cause) if hyper::Error::is_user(cause) => Self::RequestBody,
            _ => Self::Broken,
        }
    }
}

/// An extension of a request: a value that lives until its tunnel is closed, if it becomes one.
#[derive(Clone)]
pub(crate) struct WhileTunnelled(
    #[expect(dead_code, reason = "it is dropped, not read")] pub(crate) Arc<dyn Any + Send + Sync>,
);

/// Connections to all upstreams. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    client: Client<HttpConnector<Resolver>, Body>,
    budget: MemoryBudget,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(BUFFER_BYTES)
            .build(connector);
        Self {
            client,
            budget: MemoryBudget::new(HOLD_BYTES),
        }
    }

    /// Sends a request, and returns the response as soon as its head is there. The request has the
    /// path, query and fields for the upstream, and the extensions that it came with.
    ///
    /// The deadline is that of the head: it includes connecting, and sending the body as far as the
    /// upstream reads it first.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        upstream: &UpstreamAddress,
        deadline: Option<Duration>,
    ) -> Result<Response<Body>, UpstreamError> {
        let tunnel = Tunnel::of(&mut request);
        let request = self.client.request(addressed(request, upstream)?);
        let answered = match deadline {
            Some(deadline) => timeout(deadline, request)
                .await
                .map_err(|_| UpstreamError::TooSlow)?,
            None => request.await,
        };
        let mut response = answered.map_err(|error| UpstreamError::of(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let is_websocket = switches_to_websocket(response.headers());
            let tunnel = tunnel.filter(|_| is_websocket);
            // An upstream must not switch to what it was not asked for.
            let tunnel = tunnel.ok_or(UpstreamError::Malformed)?;
            let (answered, is_answered) = oneshot::channel();
            tokio::spawn(tunnel.run(upgrade::on(&mut response), is_answered));
            return Ok(response.map(|_| {
                Body::new(Switched {
                    _answered: answered,
                })
            }));
        }
        Ok(response.map(|body| Body::new(Passed(body))))
    }

    /// Reads the start of a response, so that what fails early fails before it is paid for.
    ///
    /// # Errors
    /// If the body breaks off within the limits.
    pub(crate) async fn hold(
        &self,
        response: Response<Body>,
        limits: HoldLimits,
    ) -> Result<Held, UpstreamError> {
        hold::hold(response, limits, &self.budget).await
    }

    /// Bytes that are reserved for responses that are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.budget.used()
    }
}

/// The request as the client sends it: to the address, in HTTP/1.1.
fn addressed(
    request: Request<Body>,
    upstream: &UpstreamAddress,
) -> Result<Request<Body>, UpstreamError> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(&*upstream.authority)
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
        .build()
        .map_err(|_| UpstreamError::Unreachable)?;
    let literal = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    if literal.parse().is_ok_and(|address| !is_upstream(address)) {
        return Err(UpstreamError::Unreachable);
    }
    parts.uri = uri;
    parts.version = Version::HTTP_11;
    Ok(Request::from_parts(parts, Body::new(Passed(body))))
}

/// A body in which trailers say nothing that a header field may not say.
struct Passed<B>(B);

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Passed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.0).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            clean_trailers(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The client's side of a connection that may become a websocket.
struct Tunnel {
    client: OnUpgrade,
    guard: Option<WhileTunnelled>,
}

impl Tunnel {
    /// Takes what a tunnel needs from a request that asks for one.
    fn of(request: &mut Request<Body>) -> Option<Self> {
        let may_switch = request.method() == Method::GET && request.version() == Version::HTTP_11;
        (may_switch && switches_to_websocket(request.headers())).then(|| Self {
            client: upgrade::on(&mut *request),
            guard: request.extensions_mut().remove(),
        })
    }

    /// Copies bytes until both ends have closed or one is lost. If the client is answered something
    /// else than the response that switches, there is no tunnel, and the upstream's end is closed:
    /// a server keeps the client's end open then, but never hands it over.
    async fn run(self, upstream: OnUpgrade, is_answered: oneshot::Receiver<Infallible>) {
        let is_too_late = async {
            let _ = is_answered.await;
            sleep(SWITCH_TIMEOUT).await;
        };
        let ends = tokio::select! {
            ends = async { tokio::try_join!(self.client, upstream) } => ends.ok(),
            () = is_too_late => None,
        };
        if let Some((client, upstream)) = ends {
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // How a tunnel ends concerns its two ends only.
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
        drop(self.guard);
    }
}

/// The empty body of a response that switches. Dropping it reports that the response was sent or
/// will not be.
struct Switched {
    _answered: oneshot::Sender<Infallible>,
}

impl hyper::body::Body for Switched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// Resolves the names of upstreams that are not Services with an address. Addresses that mean the
/// gate's own Pod or its node are left out: a name must not lead to those.
#[derive(Clone, Copy, Debug)]
struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let is_allowed = |address: IpAddr| is_upstream(address) && !address.is_loopback();
            let allowed = found.filter(|address| is_allowed(address.ip().to_canonical()));
            let allowed: Vec<SocketAddr> = allowed.collect();
            if allowed.is_empty() {
                return Err(io::Error::other("the name has no address that is allowed"));
            }
            Ok(allowed.into_iter())
        })
    }
}

/// Whether an address may be that of an upstream: link-local addresses are those of the node and
/// of its cloud's metadata. A loopback address may be, if a Service object says so.
fn is_upstream(address: IpAddr) -> bool {
    let is_link_local = match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_link_local && !address.is_unspecified() && !address.is_multicast()
}
