//! Serves buyers: every request passes [`GateServer::serve`], which finds its route and answers, calls
//! the upstream, or sells.
//!
//! - [`purchase`] is the paid road: claim, verify, call, settle, deliver
//! - [`body`] reads as much of a request as tells it from others
//! - [`settlement`] settles, and asks for outcomes that are not known
//! - [`kept`] keeps what was charged until it is delivered
//! - [`answer`] makes the responses that are not the upstream's
//!
//! Nothing here decides whether an offer is sold ([`super::table`]) or what a payment may do next
//! ([`super::payment`]). What is unknown is refused: no path is free because it has no price.

mod answer;
mod body;
mod kept;
mod purchase;
mod settlement;

pub(crate) use kept::KeptAnswers;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::watch;

use self::answer::{ErrorResponse, is_browser, payment_required};
use super::chains::ChainReader;
use super::claims::ClaimStore;
use super::facilitator::FacilitatorClient;
use super::headers::{self, Forwarded, TrustedProxies, UpstreamHeaders};
use super::keeper::KeptTable;
use super::limit::{AddressBudget, AddressCost, InFlight, Limited, OfferLimiter};
use super::page;
use super::path::{CanonicalPath, PathRefusal, RequestTarget};
use super::proxy::{MemoryBudget, Proxy, UpstreamAddress, UpstreamError, WhileTunnelled};
use super::table::{Access, NotServed, OfferTable, Published, Served};
use super::wire::{PAYMENT_SIGNATURE, Resource, X_PAYMENT};
use crate::http::watch;
use crate::metrics::{self, GateMetrics, GateOutcome, GateReading, Metrics};

/// RFC 8594.
const SUNSET: HeaderName = HeaderName::from_static("sunset");
/// How long a free request may wait for the head of the upstream's response.
const FREE_DEADLINE: Duration = Duration::from_secs(300);

/// What requests are served with.
pub(crate) struct GateServer {
    pub(crate) table: watch::Receiver<KeptTable>,
    pub(crate) claims: Arc<dyn ClaimStore>,
    pub(crate) kept: KeptAnswers,
    pub(crate) facilitators: FacilitatorClient,
    pub(crate) chains: ChainReader,
    pub(crate) proxy: Proxy,
    /// Memory for the bodies of requests that carry a payment.
    pub(crate) bodies: MemoryBudget,
    pub(crate) trusted: TrustedProxies,
    pub(crate) public_url: Option<String>,
    pub(crate) metrics: GateMetrics,
    pub(crate) limiters: Limiters,
    /// Pods of the gate that are ready: each has its share of the limits of offers.
    pub(crate) replicas: watch::Receiver<usize>,
    pub(crate) budget: AddressBudget,
    /// Whether requests without a payment are limited by address.
    pub(crate) limits_unpaid: bool,
    /// When this process began to serve.
    pub(crate) begun: Instant,
    /// The same in Unix seconds. Claims of payments that were presented before are forgotten.
    pub(crate) begun_at: u64,
}

/// Limiters of the offers that have limits, by uid.
#[derive(Debug, Default)]
pub(crate) struct Limiters(Mutex<HashMap<String, OfferLimiter>>);

impl Limiters {
    /// The limiter of an offer, with its share of the limits among so many replicas.
    fn of(&self, offer: &Published, replicas: usize) -> Option<OfferLimiter> {
        if offer.requests_per_second.is_none() && offer.max_in_flight.is_none() {
            return None;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limiter = all.entry(offer.uid.clone()).or_default();
        let replicas = u32::try_from(replicas.max(1)).unwrap_or(u32::MAX);
        let share = |limit: Option<u32>| limit.unwrap_or_default().div_ceil(replicas);
        limiter.set(share(offer.requests_per_second), share(offer.max_in_flight));
        Some(limiter.clone())
    }

    /// Forgets offers that no longer exist.
    pub(crate) fn retain(&self, table: &OfferTable) {
        let uids = table.uids();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

/// Time of one request during which the gate waited for others: for its client, the upstream,
/// facilitators or a chain. Clones count together.
#[derive(Clone, Debug, Default)]
struct WaitedFor(Arc<AtomicU64>);

impl WaitedFor {
    /// Counts a wait.
    async fn count<T>(&self, wait: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let awaited = wait.await;
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
        awaited
    }

    fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A request whose offer and route are known.
pub(super) struct Routed {
    pub(super) offer: Arc<Published>,
    /// Path for the upstream.
    pub(super) rest: String,
    pub(super) path: CanonicalPath,
    /// Path and query as the buyer asked for them, in canonical form.
    pub(super) target: String,
    /// URL that buyers see.
    pub(super) url: String,
    origin: Forwarded,
    waited: WaitedFor,
    /// The limit on requests in flight, held while the request is.
    in_flight: Option<Arc<InFlight>>,
}

impl Routed {
    fn resource(&self) -> Resource<'_> {
        Resource {
            url: &self.url,
            description: &self.offer.description,
            mime_type: self.offer.mime_type,
        }
    }
}

/// Answers a request for an offer, or for a page of the gate.
pub(crate) async fn serve(
    State(gate): State<Arc<GateServer>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (begun, waited) = (Instant::now(), WaitedFor::default());
    let in_flight = gate.metrics.in_flight();
    let answer = gate.serve(peer.ip(), request, waited.clone());
    let (outcome, mut response) = answer.await;
    let overhead = begun.elapsed().saturating_sub(waited.total());
    gate.metrics.answered(outcome, overhead);
    response.headers_mut().remove("server");
    watch(response, move |_| drop(in_flight))
}

/// Serves offers under host names of their own: every path there is the offer's, but those of
/// documents. What another host is asked for is the router's.
pub(crate) fn on_own_hosts(
    router: Router,
    gate: Arc<GateServer>,
    is_document: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
) -> Router {
    let choose = move |peer: ConnectInfo<SocketAddr>, request: Request, next: Next| {
        let (gate, is_document) = (Arc::clone(&gate), is_document.clone());
        async move {
            match gate.is_for_own_host(peer.ip(), &request) && !is_document(request.uri().path()) {
                true => serve(State(gate), peer, request).await,
                false => next.run(request).await,
            }
        }
    };
    router.layer(from_fn(choose))
}

type Answer = (GateOutcome, Response);

impl GateServer {
    /// Adds what is read at every scrape to the metrics.
    pub(crate) fn report_to(self: &Arc<Self>, metrics: &Metrics) -> Result<(), metrics::Error> {
        let gate = Arc::clone(self);
        metrics.report_gate(move || GateReading {
            hold_bytes: gate.proxy.held_bytes(),
            are_facilitators_up: gate.facilitators.are_up(),
        })
    }

    async fn serve(self: &Arc<Self>, peer: IpAddr, request: Request, waited: WaitedFor) -> Answer {
        let kept = self.table.borrow().clone();
        if !kept.is_compiled {
            let refusal = ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "starting");
            return (GateOutcome::Closed, refusal.retry_after(5).response());
        }
        let table = kept.table;
        let (host, path) = match target_of(&request) {
            Ok(RequestTarget::Path { host, path }) => (host, path),
            Ok(RequestTarget::Server) => {
                return (GateOutcome::Page, StatusCode::NO_CONTENT.into_response());
            }
            Err(refused) => {
                self.metrics.refused_path(refused);
                let refusal = ErrorResponse::new(StatusCode::BAD_REQUEST, "malformed_request");
                let response = refusal.hint(refused.to_string()).response();
                return (GateOutcome::Malformed, response);
            }
        };
        let origin = self.trusted.forwarded(peer, &host, request.headers());
        if let Some(answer) = self.page(&table, &origin, &path, &request) {
            return answer;
        }
        let method = asked_method(&request);
        let served = match table.find(name_of(&origin.host), &method, &path) {
            Ok(served) => served,
            Err(not_served) => return not_served_answer(not_served),
        };
        if headers::is_preflight(request.method(), request.headers()) {
            return (GateOutcome::Preflight, preflight(request.headers()));
        }
        let access = served.access.clone();
        let routed = match self.route(served, path, origin, &request) {
            Ok(routed) => Routed { waited, ..routed },
            Err(answer) => return *answer,
        };
        let end = routed.offer.end;
        let (outcome, mut response) = match access {
            Access::Free => self.free(routed, request).await,
            Access::Auth => {
                let refusal = ErrorResponse::new(StatusCode::FORBIDDEN, "sign_in_not_supported");
                (GateOutcome::Closed, refusal.response())
            }
            Access::Paid(Err(closed)) => {
                let refusal = ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, closed.reason());
                (
                    GateOutcome::Closed,
                    refusal.hint("The offer is not for sale.").response(),
                )
            }
            Access::Paid(Ok(_)) if routed.offer.upstream.is_err() => {
                let refusal =
                    ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable");
                (GateOutcome::Closed, refusal.response())
            }
            Access::Paid(Ok(paid)) => {
                let fields = request.headers();
                let has_payment = [PAYMENT_SIGNATURE, X_PAYMENT]
                    .iter()
                    .any(|name| fields.contains_key(name));
                // A HEAD request has no answer that could be paid for.
                if has_payment && request.method() != Method::HEAD {
                    Box::pin(self.sell(routed, &paid, request)).await
                } else if let Err(limited) = self.spend_unpaid(routed.origin.client) {
                    limited_answer(limited)
                } else {
                    let resource = routed.resource();
                    let error = "payment_required";
                    let response = payment_required(&paid, resource, error, fields, None);
                    (GateOutcome::Unpaid, response)
                }
            }
        };
        if let Some(end) = end {
            let date = end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            if let Ok(date) = HeaderValue::from_str(&date) {
                response.headers_mut().insert(SUNSET, date);
            }
        }
        (outcome, response)
    }

    fn is_for_own_host(&self, peer: IpAddr, request: &Request) -> bool {
        let Ok(RequestTarget::Path { host, .. }) = target_of(request) else {
            return false;
        };
        let origin = self.trusted.forwarded(peer, &host, request.headers());
        let table = Arc::clone(&self.table.borrow().table);
        table.is_offers_host(name_of(&origin.host))
    }

    /// The route of a request for an offer that is on sale.
    fn route(
        &self,
        served: Served<'_>,
        path: CanonicalPath,
        origin: Forwarded,
        request: &Request,
    ) -> Result<Routed, Box<Answer>> {
        let offer = served.offer;
        if offer.is_drained(Timestamp::now()) {
            let refusal = ErrorResponse::new(StatusCode::GONE, "drained");
            return Err(Box::new((GateOutcome::Drained, refusal.response())));
        }
        let base = match (&offer.url, &self.public_url) {
            (Some(url), _) => url.clone(),
            (None, Some(base)) => format!("{base}{}", offer.prefix),
            (None, None) => format!("{}://{}{}", origin.scheme, origin.host, offer.prefix),
        };
        let below = &path.as_str()[offer.prefix.len()..];
        let query = request.uri().query().map(|query| format!("?{query}"));
        Ok(Routed {
            url: format!("{base}{below}"),
            target: format!("{}{}", path.as_str(), query.unwrap_or_default()),
            offer: Arc::clone(offer),
            rest: served.rest,
            path,
            origin,
            waited: WaitedFor::default(),
            in_flight: None,
        })
    }

    /// Counts a request within the limits of its offer, until its answer has ended. One that is asked to
    /// pay costs the upstream nothing, and must not keep out those that do.
    fn admit(&self, routed: &mut Routed) -> Result<(), Limited> {
        let limiter = self.limiters.of(&routed.offer, *self.replicas.borrow());
        let in_flight = limiter.map(|limiter| limiter.take(self.begun.elapsed()));
        routed.in_flight = in_flight.transpose()?.map(Arc::new);
        Ok(())
    }

    async fn free(&self, mut routed: Routed, request: Request) -> Answer {
        if let Err(limited) = self.admit(&mut routed) {
            return limited_answer(limited);
        }
        let Ok(upstream) = &routed.offer.upstream else {
            let refusal =
                ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable");
            return (GateOutcome::Closed, refusal.response());
        };
        let request = upstream_request(&routed, request, None);
        let answer = self.send(request, upstream, FREE_DEADLINE);
        match routed.waited.count(answer).await {
            Ok(mut response) => {
                headers::from_upstream(response.headers_mut(), false);
                (
                    GateOutcome::Free,
                    while_in_flight(response, routed.in_flight),
                )
            }
            Err(error) => (
                GateOutcome::UpstreamFailed,
                upstream_failed(&error).response(),
            ),
        }
    }

    /// Calls an upstream, and measures it.
    async fn send(
        &self,
        request: Request,
        upstream: &UpstreamAddress,
        deadline: Duration,
    ) -> Result<Response, UpstreamError> {
        let begun = Instant::now();
        let response = self.proxy.send(request, upstream, Some(deadline)).await;
        self.metrics.responded(begun.elapsed());
        response
    }

    fn spend_unpaid(&self, client: IpAddr) -> Result<(), Limited> {
        match self.limits_unpaid {
            true => {
                let now = self.begun.elapsed();
                self.budget.spend(AddressCost::UnpaidRequest, client, now)
            }
            false => Ok(()),
        }
    }

    /// Pages of the gate itself.
    fn page(
        &self,
        table: &OfferTable,
        origin: &Forwarded,
        path: &CanonicalPath,
        request: &Request,
    ) -> Option<Answer> {
        let is_offers = table.is_offers_host(name_of(&origin.host));
        if is_offers || !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let base = self
            .public_url
            .clone()
            .unwrap_or_else(|| format!("{}://{}", origin.scheme, origin.host));
        let now = Timestamp::now();
        let json = |value: serde_json::Value| ("application/json", format!("{value}\n"));
        let (media_type, text) = match path.as_str() {
            "/" if is_browser(request.headers()) => {
                ("text/html; charset=utf-8", page::catalog(table, &base, now))
            }
            "/" | "/api/services.json" => json(page::services(table, &base, now)),
            "/.well-known/x402" => json(page::well_known(table, &base, now)),
            _ => return None,
        };
        let fields = [
            (CONTENT_TYPE, media_type),
            (CACHE_CONTROL, "no-cache"),
            (
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'",
            ),
        ];
        let mut response = (fields, text).into_response();
        headers::cors(response.headers_mut());
        Some((GateOutcome::Page, response))
    }
}

fn limited_answer(limited: Limited) -> Answer {
    let refusal = ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests");
    let refusal = refusal.retry_after(limited.retry_after_seconds());
    (GateOutcome::Limited, refusal.response())
}

fn target_of(request: &Request) -> Result<RequestTarget, PathRefusal> {
    let (method, version) = (request.method(), request.version());
    RequestTarget::of(method, version, request.uri(), request.headers())
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(bracket) => host[bracket..].find(':').map(|colon| bracket + colon),
        None => host.find(':'),
    };
    &host[..end.unwrap_or(host.len())]
}

/// The method that a route must serve: a preflight asks for another one than its own.
fn asked_method(request: &Request) -> Method {
    let asked = request.headers().get("access-control-request-method");
    let asked = asked.and_then(|asked| Method::from_bytes(asked.as_bytes()).ok());
    match asked {
        Some(asked) if headers::is_preflight(request.method(), request.headers()) => asked,
        _ => request.method().clone(),
    }
}

fn preflight(request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers::preflight(request);
    response
}

fn not_served_answer(not_served: NotServed) -> Answer {
    match not_served {
        NotServed::NotFound => {
            let refusal = ErrorResponse::new(StatusCode::NOT_FOUND, "not_found");
            (GateOutcome::NotFound, refusal.response())
        }
        NotServed::MethodNotAllowed { allow } => {
            let refusal = ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
            (
                GateOutcome::MethodNotAllowed,
                refusal.field(ALLOW, &allow).response(),
            )
        }
    }
}

/// The request as the upstream gets it.
fn upstream_request(
    routed: &Routed,
    request: Request,
    payment: Option<headers::PaymentHeaders>,
) -> Request {
    let (mut parts, body) = request.into_parts();
    let is_gated = payment.is_some();
    let host = match &routed.offer.upstream {
        Ok(upstream) => upstream.host.clone(),
        Err(_) => String::new(),
    };
    let added = UpstreamHeaders {
        host,
        prefix: routed.offer.prefix.clone(),
        forwarded: routed.origin.clone(),
        payment,
    };
    if let Some(in_flight) = &routed.in_flight {
        parts
            .extensions
            .insert(WhileTunnelled(Arc::clone(in_flight) as _));
    }
    parts.headers = headers::to_upstream(&parts.headers, &added, is_gated);
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let target = format!("{}{}", routed.rest, query.unwrap_or_default());
    // A canonical path is a valid one.
    if let Ok(uri) = target.parse() {
        parts.uri = uri;
    }
    Request::from_parts(parts, body)
}

/// Keeps the place of a request until its response has ended.
fn while_in_flight(response: Response, in_flight: Option<Arc<InFlight>>) -> Response {
    let Some(in_flight) = in_flight else {
        return response;
    };
    watch(response, move |_| drop(in_flight))
}

/// The upstream did not answer.
fn upstream_failed(error: &UpstreamError) -> ErrorResponse {
    let status = match error {
        UpstreamError::TooSlow => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    ErrorResponse::new(status, "upstream_failed")
}

#[cfg(test)]
mod tests;
