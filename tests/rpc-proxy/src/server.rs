//! The proxy itself: HTTP on both sides, and the rules in between.
//!
//! Elements of a batch are forwarded one by one, so that a rule for one of them leaves the others
//! alone. The answer to a batch is a batch in the same order.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::call::{Call, number};
use crate::lag::{self, Lagged};
use crate::record::{Calls, RecordedCall};
use crate::rule::{Fault, Rule, RuleId};

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct RpcProxy {
    address: SocketAddr,
    state: Arc<ProxyState>,
    server: JoinHandle<()>,
}

struct ProxyState {
    client: Client<HttpConnector, Full<Bytes>>,
    chain: Uri,
    next: AtomicU64,
    rules: Mutex<BTreeMap<RuleId, Rule>>,
    calls: Mutex<Vec<RecordedCall>>,
}

impl RpcProxy {
    /// Listens on a free port of all addresses and forwards to a chain.
    ///
    /// # Errors
    /// If it cannot listen, or the URL of the chain is invalid.
    pub async fn start(chain: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
            .await
            .context("the proxy failed to listen")?;
        let address = listener.local_addr()?;
        let state = Arc::new(ProxyState {
            client: Client::builder(TokioExecutor::new()).build_http(),
            chain: chain.parse().context("the URL of the chain")?,
            next: AtomicU64::default(),
            rules: Mutex::default(),
            calls: Mutex::default(),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            server,
        })
    }

    /// The URL at an address of this machine, such as the node's.
    #[must_use]
    pub fn url_at(&self, host: IpAddr) -> String {
        format!("http://{}", SocketAddr::new(host, self.address.port()))
    }

    /// Puts a rule in force, after those that already are.
    pub fn add(&self, rule: Rule) -> RuleId {
        let id = RuleId(self.state.next.fetch_add(1, Ordering::SeqCst));
        lock(&self.state.rules).insert(id, rule);
        id
    }

    /// Removes a rule and returns how many calls it has failed or changed.
    pub fn remove(&self, id: RuleId) -> u64 {
        let removed = lock(&self.state.rules).remove(&id);
        removed.map_or(0, |rule| rule.hits())
    }

    /// Removes all rules.
    pub fn clear(&self) {
        lock(&self.state.rules).clear();
    }

    /// How many calls a rule has failed or changed.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        let rules = lock(&self.state.rules);
        rules.get(&id).map_or(0, Rule::hits)
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        Calls(lock(&self.state.calls).clone())
    }

    /// The calls that arrived since then.
    #[must_use]
    pub fn calls_since(&self, start: Instant) -> Calls {
        let mut calls = self.calls();
        calls.0.retain(|call| call.at >= start);
        calls
    }

    /// Waits that long and returns the calls that arrived in that time.
    pub async fn calls_during(&self, duration: Duration) -> Calls {
        let start = Instant::now();
        tokio::time::sleep(duration).await;
        self.calls_since(start)
    }
}

impl Drop for RpcProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl fmt::Debug for ProxyState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = lock(&self.rules);
        formatter
            .debug_struct("ProxyState")
            .field("chain", &self.chain)
            .field("rules", &*rules)
            .finish_non_exhaustive()
    }
}

/// The connection is dropped without an answer.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a rule closes the connection")
    }
}

impl std::error::Error for Closed {}

/// A call, and the request that it came with.
struct Arrived {
    call: Call,
    batch: usize,
    at: Instant,
    lag: Option<u64>,
}

/// What becomes of one call.
enum Outcome {
    Answered(Value),
    Http(Response<Full<Bytes>>),
    Closed,
}

/// Ends its connections when it is aborted.
async fn serve(listener: TcpListener, state: Arc<ProxyState>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<ProxyState>) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { state.answer(request).await }
    });
    // It ends with an error when a rule closes it, or the client goes away.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl ProxyState {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        let body = request.into_body().collect().await.map_err(|_| Closed)?;
        let at = Instant::now();
        let request: Value = match serde_json::from_slice(&body.to_bytes()) {
            Ok(request) => request,
            Err(error) => {
                let error = json!({ "code": -32700, "message": error.to_string() });
                return Ok(respond(&json!({ "id": null, "error": error })));
            }
        };
        let head = if lock(&self.rules).values().any(Rule::needs_head) {
            self.head().await
        } else {
            0
        };
        let (requests, is_batch) = match request {
            Value::Array(requests) => (requests, true),
            request => (vec![request], false),
        };
        let calls: Vec<Call> = requests.iter().map(|request| call(request, head)).collect();
        let size = calls.len();
        let (lag, refusal) = self.judge_request(&calls, is_batch);
        if let Some(error) = refusal {
            for call in &calls {
                self.record(call, size, at, true);
            }
            let refusal = json!({ "jsonrpc": "2.0", "id": null, "error": error });
            return Ok(respond(&refusal));
        }
        let outcomes = requests.into_iter().zip(calls).map(|(request, call)| {
            let arrived = Arrived {
                call,
                batch: size,
                at,
                lag,
            };
            self.outcome(request, arrived)
        });
        let mut answers = Vec::new();
        for outcome in join_all(outcomes).await {
            match outcome {
                Outcome::Answered(answer) => answers.push(answer),
                Outcome::Http(response) => return Ok(response),
                Outcome::Closed => return Err(Closed),
            }
        }
        let answer = match answers.pop() {
            Some(answer) if !is_batch => answer,
            last => Value::Array(answers.into_iter().chain(last).collect()),
        };
        Ok(respond(&answer))
    }

    /// Lag of the node that this request reaches, and the error that answers it as a whole. One node
    /// answers all elements of a batch, so that these rules judge a request by its first call.
    fn judge_request(&self, calls: &[Call], is_batch: bool) -> (Option<u64>, Option<Value>) {
        let (mut lag, mut refusal) = (None, None);
        let Some(first) = calls.first() else {
            return (lag, refusal);
        };
        for rule in lock(&self.rules).values() {
            match rule.fault() {
                Fault::Lag(_) => {}
                Fault::RefuseBatch(_) if is_batch => {}
                _ => continue,
            }
            match rule.fires(first) {
                Some(Fault::Lag(blocks)) => lag = Some(blocks),
                Some(Fault::RefuseBatch(error)) => refusal = Some(error),
                _ => {}
            }
        }
        (lag, refusal)
    }

    async fn outcome(&self, request: Value, arrived: Arrived) -> Outcome {
        let Arrived {
            call,
            batch,
            at,
            lag,
        } = arrived;
        let faults: Vec<Fault> = {
            let rules = lock(&self.rules);
            let mut faults = Vec::new();
            for rule in rules.values() {
                if matches!(rule.fault(), Fault::Lag(_) | Fault::RefuseBatch(_)) {
                    continue;
                }
                // A rule behind the one that answers sees nothing, and does not count.
                let Some(fault) = rule.fires(&call) else {
                    continue;
                };
                let is_final = fault.answers();
                faults.push(fault);
                if is_final {
                    break;
                }
            }
            faults
        };
        self.record(&call, batch, at, faults.iter().any(Fault::answers));
        let answer = |body: Value| {
            let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
            for (name, value) in body.as_object().into_iter().flatten() {
                answer[name] = value.clone();
            }
            answer
        };
        let mut forwarded = request.clone();
        for fault in &faults {
            match fault {
                Fault::Error(error) => return Outcome::Answered(answer(json!({ "error": error }))),
                Fault::Result(result) => {
                    return Outcome::Answered(answer(json!({ "result": result })));
                }
                Fault::Swallow => {
                    let hash = format!("0x{:064x}", self.next.fetch_add(1, Ordering::SeqCst) + 1);
                    return Outcome::Answered(answer(json!({ "result": hash })));
                }
                Fault::Close => return Outcome::Closed,
                Fault::Http {
                    status,
                    headers,
                    body,
                } => return http(*status, headers, body),
                Fault::Hang(_)
                | Fault::Edit(_)
                | Fault::EditAnswer(_)
                | Fault::Lag(_)
                | Fault::RefuseBatch(_) => {}
            }
        }
        if let Some(blocks) = lag {
            match lag::judge(&call, blocks) {
                Lagged::Answered(body) => return Outcome::Answered(answer(body)),
                Lagged::Asked(params) => forwarded["params"] = params,
            }
        }
        let mut answer = match self.forward(&forwarded).await {
            Ok(answer) => answer,
            Err(error) => {
                let status = StatusCode::BAD_GATEWAY.as_u16();
                return http(status, &[], &format!("{error:#}"));
            }
        };
        if lag.is_some_and(|blocks| lag::is_unknown(&call, blocks, &answer["result"])) {
            answer["result"] = Value::Null;
        }
        for fault in &faults {
            match fault {
                Fault::Edit(edit) => {
                    if let Some(result) = answer.get_mut("result") {
                        edit(result);
                    }
                }
                Fault::EditAnswer(edit) => edit(&mut answer),
                Fault::Hang(duration) => tokio::time::sleep(*duration).await,
                _ => {}
            }
        }
        Outcome::Answered(answer)
    }

    async fn forward(&self, request: &Value) -> Result<Value> {
        let request = Request::post(self.chain.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(request.to_string()))?;
        let response = self.client.request(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        serde_json::from_slice(&body).context("the chain's answer is not JSON")
    }

    async fn head(&self) -> u64 {
        let request = json!({ "jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber" });
        let answer = self.forward(&request).await.unwrap_or_default();
        number(&answer["result"]).unwrap_or(0)
    }

    fn record(&self, call: &Call, batch: usize, at: Instant, is_faulty: bool) {
        lock(&self.calls).push(RecordedCall {
            at,
            method: call.method.clone(),
            params: call.params.clone(),
            batch,
            is_faulty,
        });
    }
}

fn call(request: &Value, head: u64) -> Call {
    Call {
        method: request["method"].as_str().unwrap_or_default().to_owned(),
        params: request["params"].clone(),
        head,
    }
}

fn respond(answer: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.to_string()));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// An HTTP answer of a rule. One that is not valid HTTP closes the connection.
fn http(status: u16, headers: &[(String, String)], body: &str) -> Outcome {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let response = response.body(Full::from(body.to_owned()));
    response.map_or(Outcome::Closed, Outcome::Http)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
