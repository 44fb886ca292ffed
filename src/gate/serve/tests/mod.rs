//! The whole gate over real HTTP, between facilitators and upstreams that misbehave as real ones do.
//!
//! - [`conformance`]: checks of others, on faulty servers and on the gate
//! - [`facilitators`]: what is believed, and what a buyer learns when nothing can be
//! - [`upstreams`]: what is charged, and what is not
//! - [`replays`]: one payment buys one answer
//! - [`identifiers`]: requests that their buyers identified
//! - [`requests`]: what buyers send
//! - [`paths`]: how they spell paths
//! - [`framing`]: bytes that servers cut into different requests
//!
//! Comments name the public failures that a test repeats.

mod conformance;
mod facilitators;
mod framing;
mod identifiers;
mod paths;
mod replays;
mod requests;
mod upstreams;

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use alloy::primitives::{B256, U256};
use alloy::signers::SignerSync;
use axum::routing::{any, get};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::cluster::Cache;
use crate::cluster::cache::ServiceForm;
use crate::cluster::cache::fixtures::CachedObjects;
use crate::gate::claims::MemoryClaims;
use crate::gate::limit::Allowance;
use crate::gate::table::tests::{facilitator, sold};
use crate::gate::table::{GateSettings, compile};
use crate::gate::unix_seconds;
use crate::gate::wire::tests::{signer, signing_hash, terms};
use crate::gate::wire::{Authorization, encoded, requirement};
use crate::metrics::Metrics;

const TRANSACTION: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

/// How a double answers.
#[derive(Clone)]
enum Reply {
    /// Status, content type and body.
    Whole(u16, &'static str, String),
    /// A body that breaks off.
    Cut(u16, String),
    /// A body that does not end.
    Stalled(u16, String),
    /// The reply, after a while.
    Late(Duration, Box<Reply>),
    /// The reply, with these fields.
    With([(&'static str, &'static str); 2], Box<Reply>),
}

impl Reply {
    fn json(status: u16, body: Value) -> Self {
        Self::Whole(status, "application/json", body.to_string())
    }

    fn valid() -> Self {
        Self::json(200, json!({ "isValid": true }))
    }

    fn invalid(reason: &str) -> Self {
        Self::json(200, json!({ "isValid": false, "invalidReason": reason }))
    }

    fn settled() -> Self {
        Self::json(
            200,
            json!({ "success": true, "transaction": TRANSACTION, "network": "eip155:84532" }),
        )
    }

    fn refused(reason: &str) -> Self {
        Self::json(
            200,
            json!({ "success": false, "errorReason": reason, "transaction": "" }),
        )
    }

    fn text(status: u16, body: &str) -> Self {
        Self::Whole(status, "text/plain", body.to_owned())
    }

    fn with(self, fields: [(&'static str, &'static str); 2]) -> Self {
        Self::With(fields, Box::new(self))
    }

    fn late(self, delay: Duration) -> Self {
        Self::Late(delay, Box::new(self))
    }

    async fn response(self) -> Response {
        let (status, content_type, body) = match self {
            Self::Whole(status, content_type, body) => (status, content_type, Body::from(body)),
            Self::Cut(status, begin) => {
                let parts = [Ok(begin), Err(std::io::Error::other("cut"))];
                // The end of the body comes as a packet of its own.
                let parts = stream::iter(parts).then(async |part| {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    part
                });
                (status, "application/json", Body::from_stream(parts.boxed()))
            }
            Self::Stalled(status, begin) => {
                let begin = stream::iter([Ok::<_, io::Error>(begin)]);
                let body = Body::from_stream(begin.chain(stream::pending()));
                (status, "application/json", body)
            }
            Self::Late(delay, reply) => {
                tokio::time::sleep(delay).await;
                return Box::pin(reply.response()).await;
            }
            Self::With(fields, reply) => {
                return (fields, Box::pin(reply.response()).await).into_response();
            }
        };
        let fields = [(CONTENT_TYPE, content_type)];
        (StatusCode::from_u16(status).unwrap(), fields, body).into_response()
    }
}

/// A server that answers what it should, and remembers what it was asked.
#[derive(Clone)]
struct Double {
    port: u16,
    /// Replies by path, the last of which repeats; `*` for every path.
    replies: Arc<Mutex<HashMap<&'static str, VecDeque<Reply>>>>,
    asked: Arc<Mutex<Vec<http::request::Parts>>>,
    /// The bytes of each connection.
    received: Received,
}

type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// A listener that remembers what its connections receive.
struct Recorder {
    listener: TcpListener,
    received: Received,
}

impl axum::serve::Listener for Recorder {
    type Io = Recorded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Recorded, SocketAddr) {
        let (stream, peer) = self.listener.accept().await.unwrap();
        let received = Arc::clone(&self.received);
        let mut all = received.lock().unwrap();
        all.push(Vec::new());
        let recorded = Recorded {
            stream,
            index: all.len() - 1,
            received: Arc::clone(&received),
        };
        (recorded, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Recorded {
    stream: TcpStream,
    index: usize,
    received: Received,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let new = &buffer.filled()[before..];
        self.received.lock().unwrap()[self.index].extend_from_slice(new);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Double {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let double = Self {
            port: listener.local_addr().unwrap().port(),
            replies: Arc::default(),
            asked: Arc::default(),
            received: Arc::default(),
        };
        let listener = Recorder {
            listener,
            received: Arc::clone(&double.received),
        };
        let own = double.clone();
        let answer = move |request: Request| {
            let own = own.clone();
            async move { own.answer(request).await }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        double
    }

    fn will(&self, path: &'static str, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.replies.lock().unwrap().insert(path, replies);
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        self.asked.lock().unwrap().push(parts);
        let _ = axum::body::to_bytes(body, usize::MAX).await;
        let reply = {
            let mut replies = self.replies.lock().unwrap();
            let key = replies.keys().copied().find(|key| path.ends_with(key));
            let own = replies.get_mut(key.unwrap_or("*"));
            own.and_then(|own| match own.len() {
                0 | 1 => own.front().cloned(),
                _ => own.pop_front(),
            })
        };
        match reply {
            Some(reply) => reply.response().await,
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// How often a path was asked.
    fn count(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|parts| parts.uri.path().ends_with(path))
            .count()
    }
}

/// A gate that sells `shop/chat` for 0.002 USDC.
struct Shop {
    address: SocketAddr,
    facilitator: Double,
    upstream: Double,
    metrics: Metrics,
    client: reqwest::Client,
    table: watch::Sender<KeptTable>,
}

impl Shop {
    async fn open() -> Self {
        Self::with(json!({}), |_| {}).await
    }

    /// `over` overrides fields of the offer.
    async fn with(over: Value, change: impl FnOnce(&mut GateServer)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (facilitator_double, upstream) = (Double::start().await, Double::start().await);
        facilitator_double.will("/verify", [Reply::valid()]);
        facilitator_double.will("/settle", [Reply::settled()]);
        upstream.will("*", [Reply::text(200, "the answer")]);
        let table = table_of(&[facilitator_double.port], &upstream, over);
        let (sender, receiver) = watch::channel(KeptTable {
            table,
            version: 1,
            is_compiled: true,
        });
        let metrics = Metrics::new("").unwrap();
        let many = Allowance {
            every: Duration::from_millis(1),
            burst: 10_000,
        };
        let mut gate = GateServer {
            table: receiver,
            claims: Arc::new(MemoryClaims::default()),
            kept: KeptAnswers::default(),
            facilitators: FacilitatorClient::new("/nonexistent".into()).unwrap(),
            chains: ChainReader::new(metrics.chain.clone()),
            proxy: Proxy::new(),
            bodies: MemoryBudget::new(1024 * 1024),
            trusted: TrustedProxies::new(Vec::new()),
            public_url: None,
            metrics: metrics.gate.clone(),
            limiters: Limiters::default(),
            replicas: watch::channel(1).1,
            budget: AddressBudget::new(1000, many, many),
            limits_unpaid: false,
            begun: Instant::now(),
            begun_at: unix_seconds() - 100_000,
        };
        change(&mut gate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(gate);
        gate.report_to(&metrics).unwrap();
        let router = Router::new()
            .route("/agents/{file}", get("a document"))
            .fallback(any(serve).with_state(Arc::clone(&gate)));
        let router = crate::http::below("/market".into(), router);
        let router = on_own_hosts(router, gate, |path| path == "/agents/1.json");
        tokio::spawn(crate::http::serve(listener, router, pending()));
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Self {
            address,
            facilitator: facilitator_double,
            upstream,
            metrics,
            client: client.unwrap(),
            table: sender,
        }
    }

    /// Sells with other fields of the offer from here on.
    fn change(&self, over: Value) {
        self.rely_on(&[self.facilitator.port], over);
    }

    /// Sells by facilitators at these ports, in this order, from here on.
    fn rely_on(&self, ports: &[u16], over: Value) {
        let table = table_of(ports, &self.upstream, over);
        self.table.send_modify(|kept| kept.table = table);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/services/chat{path}", self.address)
    }

    /// Asks with a payment.
    async fn pay(&self, payment: &str) -> Seen {
        self.ask(
            reqwest::Method::POST,
            "/v1",
            &[("payment-signature", payment)],
        )
        .await
    }

    async fn ask(&self, method: reqwest::Method, path: &str, fields: &[(&str, &str)]) -> Seen {
        let mut request = self.client.request(method, self.url(path));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, fields) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.unwrap_or_default();
        Seen {
            status,
            fields,
            body,
        }
    }

    /// Sends bytes on a connection of its own, and returns what is answered until the gate closes
    /// it, or says nothing for a while.
    async fn send_raw(&self, bytes: &[u8]) -> String {
        self.send_until(bytes, Duration::from_millis(1500)).await
    }

    /// Sends bytes, and returns what is answered until the gate closes the connection.
    async fn send_until_closed(&self, bytes: &[u8]) -> String {
        self.send_until(bytes, Duration::from_secs(60)).await
    }

    async fn send_until(&self, bytes: &[u8], quiet: Duration) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        // The gate may close the connection before it has read everything.
        let _ = connection.write_all(bytes).await;
        let mut answered = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(Ok(length @ 1..)) =
            tokio::time::timeout(quiet, connection.read(&mut piece)).await
        {
            answered.extend_from_slice(&piece[..length]);
        }
        String::from_utf8_lossy(&answered).into_owned()
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render().unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with(name));
        let value = lines
            .next()
            .and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// How often facilitator and upstream were asked: verify, settle, work.
    fn calls(&self) -> (usize, usize, usize) {
        let of = |path| self.facilitator.count(path);
        (of("/verify"), of("/settle"), self.upstream.count(""))
    }
}

/// A table that sells `shop/chat` by facilitators at these ports. `over` overrides fields of the offer.
fn table_of(ports: &[u16], upstream: &Double, over: Value) -> Arc<OfferTable> {
    let mut offer = json!({
        "spec": { "upstream": { "service": "backend", "namespace": "shop", "port": upstream.port } },
    });
    crate::registration::fixtures::merge(&mut offer, over);
    let facilitators = ports.iter().enumerate().map(|(nth, port)| {
        let remote = json!({
            "url": format!("http://127.0.0.1:{port}"),
            "verifyTimeoutSeconds": 1, "settleTimeoutSeconds": 1,
        });
        facilitator(json!({
            "metadata": { "name": format!("sepolia-{nth}"), "uid": format!("uid-{nth}") },
            "spec": { "priority": nth, "remote": remote },
        }))
    });
    let objects = CachedObjects {
        offers: vec![sold("shop", "chat", offer)],
        facilitators: facilitators.collect(),
        namespaces: vec!["shop"],
        ..CachedObjects::default()
    };
    let cache = Cache::holding(objects);
    cache.show_service("shop", "backend", |facts| {
        facts.form = ServiceForm::ClusterIp(Ipv4Addr::LOCALHOST.into());
        facts.ports = vec![upstream.port];
    });
    let table = compile(&cache, &GateSettings::default());
    assert_eq!(table.closed(&("shop".to_owned(), "chat".to_owned())), None);
    Arc::new(table)
}

/// What a buyer saw.
#[derive(Debug)]
struct Seen {
    status: u16,
    fields: HeaderMap,
    body: String,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// JSON of a field in base64.
    fn decoded(&self, name: &str) -> Option<Value> {
        let text = data_encoding::BASE64.decode(self.field(name)?.as_bytes());
        Some(serde_json::from_slice(&text.unwrap()).unwrap())
    }

    /// The receipt, if there is one.
    fn receipt(&self) -> Option<Value> {
        self.decoded("payment-response")
    }
}

/// A payment for the terms, of a nonce.
fn payment(nonce: u8) -> String {
    payment_with(nonce, |_| {})
}

/// The same with a change of what is signed.
fn payment_with(nonce: u8, change: impl FnOnce(&mut Authorization)) -> String {
    encoded(&payment_json(nonce, change))
}

fn payment_json(nonce: u8, change: impl FnOnce(&mut Authorization)) -> Value {
    let terms = terms();
    let now = unix_seconds();
    let mut authorization = Authorization {
        from: signer().address(),
        to: terms.pay_to,
        value: terms.amount,
        valid_after: U256::from(now - 10),
        valid_before: U256::from(now + 300),
        nonce: B256::repeat_byte(nonce),
    };
    change(&mut authorization);
    let signature = signer().sign_hash_sync(&signing_hash(&authorization, &terms));
    json!({
        "x402Version": 2,
        "accepted": requirement(&terms),
        "payload": {
            "signature": signature.unwrap().to_string(),
            "authorization": {
                "from": authorization.from.to_string(),
                "to": authorization.to.to_string(),
                "value": authorization.value.to_string(),
                "validAfter": authorization.valid_after.to_string(),
                "validBefore": authorization.valid_before.to_string(),
                "nonce": authorization.nonce.to_string(),
            },
        },
    })
}
