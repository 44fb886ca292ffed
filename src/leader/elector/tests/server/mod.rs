//! An in-memory API server with fault injection.
//!
//! It serves what the elector uses of Leases, Pods and Events to a real client: in memory
//! ([`Link::client`]), where time may be paused, or on a local port ([`Link::listen`]). Each
//! candidate has its own [`Link`], which injects faults and counts requests for that candidate
//! alone.

mod watch_stream;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower::{BoxError, service_fn};

use self::watch_stream::WatchStream;

/// Namespace of all objects.
pub(crate) const NAMESPACE: &str = "operators";
/// One-way latency of requests and of answers.
pub(crate) const HOP: Duration = Duration::from_millis(5);

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Answered with this status.
    Status(u16),
    /// Answered with 429 and this `Retry-After` in seconds.
    Busy(u64),
    /// The connection is reset before the request is processed.
    ConnectionReset,
    /// Never processed, never answered.
    Hang,
    /// Processed, and the answer is lost.
    HangAfterCommit,
    /// Processed at once, answered late.
    AnswerLate(Duration),
    /// Processed late, even if the client has given up.
    CommitLate(Duration),
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) object: Value,
    resource: &'static str,
    kind: &'static str,
    version: u64,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Watches cannot start before this version: older ones are compacted.
    oldest: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    changes: Vec<Change>,
}

/// The API server. All clones share one state.
#[derive(Clone)]
pub(crate) struct Server(Arc<watch::Sender<State>>);

/// One candidate's connection to the server. All clones share one state.
#[derive(Clone)]
pub(crate) struct Link {
    server: Server,
    link_state: Arc<Mutex<LinkState>>,
}

/// Called with every incoming request.
type RequestObserver = Box<dyn Fn(&str) + Send>;

#[derive(Default)]
struct LinkState {
    /// Faults by request, and how many more requests they apply to.
    faults: HashMap<String, (Fault, usize)>,
    calls: Vec<(Instant, String)>,
    /// Number of watches opened so far. The first `silent` of them deliver nothing; the first
    /// `ended` have ended.
    watches: usize,
    silent: usize,
    ended: usize,
    /// Delay of watch events.
    lag: Duration,
    observer: Option<RequestObserver>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    pub(crate) fn link(&self) -> Link {
        Link {
            server: self.clone(),
            link_state: Arc::default(),
        }
    }

    pub(crate) fn get(&self, resource: &'static str, name: &str) -> Option<Value> {
        self.0
            .borrow()
            .objects
            .get(&(resource, name.to_owned()))
            .cloned()
    }

    /// Updates or creates an object without a version check.
    pub(crate) fn edit(&self, resource: &'static str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self
            .get(resource, name)
            .unwrap_or_else(|| json!({ "metadata": { "name": name } }));
        change(&mut object);
        self.0
            .send_modify(|state| drop(state.commit(resource, name, Some(object))));
    }

    pub(crate) fn delete(&self, resource: &'static str, name: &str) {
        self.0
            .send_modify(|state| drop(state.commit(resource, name, None)));
    }

    /// Current version, to restore later.
    pub(crate) fn version(&self) -> u64 {
        self.0.borrow().version
    }

    /// Restores the state at a version, like an etcd restored from a backup. Watches get no event.
    pub(crate) fn restore(&self, version: u64) {
        self.0.send_modify(|state| {
            state.version = version;
            state.changes.retain(|change| change.version <= version);
            state.objects.clear();
            for Change {
                resource,
                object,
                kind,
                ..
            } in &state.changes
            {
                let key = (
                    *resource,
                    object["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                );
                state.objects.remove(&key);
                if *kind != "DELETED" {
                    state.objects.insert(key, object.clone());
                }
            }
        });
    }

    /// Compacts all changes: a watch that starts at one of them gets 410.
    pub(crate) fn compact(&self) {
        self.0.send_modify(|state| state.oldest = state.version);
    }

    /// Every change of the objects of a resource.
    pub(crate) fn changes(&self, resource: &str) -> Vec<Change> {
        self.0
            .borrow()
            .changes
            .iter()
            .filter(|change| change.resource == resource)
            .cloned()
            .collect()
    }

    /// Waits until an object satisfies a condition.
    pub(crate) async fn until(
        &self,
        resource: &'static str,
        name: &str,
        is: impl Fn(Option<&Value>) -> bool,
    ) {
        let key = (resource, name.to_owned());
        self.0
            .subscribe()
            .wait_for(|state| is(state.objects.get(&key)))
            .await
            .unwrap();
    }
}

impl State {
    /// Stores an object, or deletes it, as the next version.
    fn commit(&mut self, resource: &'static str, name: &str, object: Option<Value>) -> Value {
        self.version += 1;
        let key = (resource, name.to_owned());
        let known = self.objects.remove(&key);
        let kind = match (&known, &object) {
            (None, _) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        let uid = known
            .as_ref()
            .map_or(json!(format!("uid-{}", self.version)), |known| {
                known["metadata"]["uid"].clone()
            });
        let deleted = object.is_none();
        let Some(mut object) = object.or(known) else {
            return Value::Null;
        };
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if !deleted {
            self.objects.insert(key, object.clone());
        }
        let change = Change {
            at: Instant::now(),
            object: object.clone(),
            resource,
            kind,
            version: self.version,
        };
        self.changes.push(change);
        object
    }

    fn answer(&mut self, call: &Call, body: Value) -> (u16, Value) {
        let name = call
            .name
            .clone()
            .or_else(|| body["metadata"]["name"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let known = self.objects.get(&(call.resource, name.clone())).cloned();
        match (call.verb, known) {
            ("list", _) => {
                let items = self
                    .objects
                    .iter()
                    .filter(|((resource, _), object)| call.selects(resource, object));
                let items: Vec<_> = items.map(|(_, object)| object).collect();
                (
                    200,
                    json!({ "metadata": { "resourceVersion": self.version.to_string() }, "items": items }),
                )
            }
            ("create", Some(_)) => (409, failure(409, "AlreadyExists")),
            ("create", None) => (201, self.commit(call.resource, &name, Some(body))),
            (_, None) => (404, failure(404, "NotFound")),
            ("get", Some(known)) => (200, known),
            ("update", Some(known))
                if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] =>
            {
                (409, failure(409, "Conflict"))
            }
            ("update", Some(_)) => (200, self.commit(call.resource, &name, Some(body))),
            ("patch", Some(known)) => {
                let mut patched = known.clone();
                merge(&mut patched, body);
                if patched["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
                    return (409, failure(409, "Conflict"));
                }
                // A patch without effect creates no version.
                let object = if patched == known {
                    known
                } else {
                    self.commit(call.resource, &name, Some(patched))
                };
                (200, object)
            }
            _ => (405, failure(405, "MethodNotAllowed")),
        }
    }
}

/// A parsed request.
#[derive(Clone, Debug)]
struct Call {
    verb: &'static str,
    resource: &'static str,
    name: Option<String>,
    /// Selectors, `resourceVersion`, `timeoutSeconds`.
    query: HashMap<String, String>,
}

impl Call {
    fn read(request: &http::request::Parts) -> Self {
        let query: HashMap<_, _> = request
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(pair)
            .collect();
        let (_, path) = request
            .uri
            .path()
            .split_once("/namespaces/")
            .expect("all resources are namespaced");
        let mut path = path.split('/').skip(1);
        let resources = ["leases", "pods", "events"];
        let resource = path
            .next()
            .and_then(|word| resources.into_iter().find(|resource| *resource == word))
            .unwrap();
        let name = path.next().map(str::to_owned);
        let verb = match (&request.method, &name) {
            (&Method::GET, _) if query.contains_key("watch") => "watch",
            (&Method::GET, None) => "list",
            (&Method::GET, Some(_)) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            _ => "delete",
        };
        Self {
            verb,
            resource,
            name,
            query,
        }
    }

    fn selects(&self, resource: &str, object: &Value) -> bool {
        let name = self
            .query
            .get("fieldSelector")
            .and_then(|selector| selector.strip_prefix("metadata.name="));
        let label = self
            .query
            .get("labelSelector")
            .and_then(|selector| selector.split_once('='));
        resource == self.resource
            && name.is_none_or(|name| object["metadata"]["name"] == name)
            && label.is_none_or(|(key, value)| object["metadata"]["labels"][key] == value)
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    Some((key.into(), value.replace("%3D", "=").replace("%2F", "/")))
}

fn failure(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code })
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        return *target = patch;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(&key)),
            value => merge(&mut target[key], value),
        }
    }
}

impl Link {
    /// A client that calls the server in memory.
    pub(crate) fn client(&self) -> Client {
        let link = self.clone();
        let serve =
            move |request: Request<kube::client::Body>| link.clone().serve(request.map(Body::new));
        Client::new(service_fn(serve), NAMESPACE)
    }

    /// Serves on a local port, on its own thread, until the process exits.
    pub(crate) fn listen(&self) -> SocketAddr {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, link) = (listener.local_addr().unwrap(), self.clone());
        let serve = move |request: Request<Body>| async move { link.serve(request).await.unwrap() };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().fallback(serve)).await
            })
        });
        address
    }

    /// Injects a fault into such requests (`update leases`, or `*` for all) from now on.
    pub(crate) fn fail(&self, calls: &str, fault: Fault) {
        self.fail_times(usize::MAX, calls, fault);
    }

    /// Injects a fault into the next `times` such requests.
    pub(crate) fn fail_times(&self, times: usize, calls: &str, fault: Fault) {
        self.link_state()
            .faults
            .insert(calls.into(), (fault, times));
    }

    /// Stops injecting faults.
    pub(crate) fn clear_faults(&self) {
        self.link_state().faults.clear();
    }

    /// Injects a fault into all requests, and silences open watches.
    pub(crate) fn partition(&self, fault: Fault) {
        self.fail("*", fault);
        self.silence_watches();
    }

    /// Open watches deliver nothing any more, and never end.
    pub(crate) fn silence_watches(&self) {
        self.update_link_state(|link_state| link_state.silent = link_state.watches);
    }

    /// Ends open watches.
    pub(crate) fn end_watches(&self) {
        self.update_link_state(|link_state| link_state.ended = link_state.watches);
    }

    /// Delays all watch events.
    pub(crate) fn delay_watches(&self, lag: Duration) {
        self.update_link_state(|link_state| link_state.lag = lag);
    }

    /// Calls `observer` with every incoming request.
    pub(crate) fn on_request(&self, observer: impl Fn(&str) + Send + 'static) {
        self.link_state().observer = Some(Box::new(observer));
    }

    /// When such requests arrived.
    pub(crate) fn calls(&self, calls: &str) -> Vec<Instant> {
        self.link_state()
            .calls
            .iter()
            .filter(|(_, call)| call == calls)
            .map(|(at, _)| *at)
            .collect()
    }

    /// Number of requests since then, by verb and resource.
    pub(crate) fn requests(&self, since: Instant) -> BTreeMap<String, usize> {
        let mut requests = BTreeMap::new();
        for (_, call) in self
            .link_state()
            .calls
            .iter()
            .filter(|(at, _)| *at >= since)
        {
            *requests.entry(call.clone()).or_default() += 1;
        }
        requests
    }

    fn link_state(&self) -> MutexGuard<'_, LinkState> {
        self.link_state.lock().unwrap()
    }

    fn update_link_state(&self, change: impl FnOnce(&mut LinkState)) {
        change(&mut self.link_state());
        self.server.0.send_modify(|_| {});
    }

    /// Records a request and returns the fault to inject.
    fn next_fault(&self, call: &Call) -> Option<Fault> {
        let mut link_state = self.link_state();
        let name = format!("{} {}", call.verb, call.resource);
        let key = if link_state.faults.contains_key(&name) {
            name.as_str()
        } else {
            "*"
        };
        let fault = link_state
            .faults
            .get_mut(key)
            .filter(|(_, left)| *left > 0)
            .map(|(fault, left)| {
                *left -= 1;
                *fault
            });
        if let Some(observer) = &link_state.observer {
            observer(&name);
        }
        link_state.calls.push((Instant::now(), name));
        fault
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let call = Call::read(&parts);
        let fault = self.next_fault(&call);
        sleep(HOP).await;
        match fault {
            Some(Fault::Status(code)) => return Ok(respond(code, &[], refusal(code, &call))),
            Some(Fault::Busy(seconds)) => {
                return Ok(respond(
                    429,
                    &[("retry-after", &seconds.to_string())],
                    refusal(429, &call),
                ));
            }
            Some(Fault::ConnectionReset) => return Err("connection reset by peer".into()),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfterCommit | Fault::AnswerLate(_) | Fault::CommitLate(_)) | None => {}
        }
        if call.verb == "watch" {
            return Ok(self.watch(call));
        }
        let server = self.server.clone();
        let answer = tokio::spawn(async move {
            if let Some(Fault::CommitLate(by)) = fault {
                sleep(by).await;
            }
            let mut answer = None;
            server
                .0
                .send_modify(|state| answer = Some(state.answer(&call, body)));
            answer.unwrap()
        });
        let (code, value) = answer.await?;
        match fault {
            Some(Fault::HangAfterCommit) => std::future::pending().await,
            Some(Fault::AnswerLate(by)) => sleep(by).await,
            _ => sleep(HOP).await,
        }
        Ok(respond(code, &[], value))
    }

    fn watch(self, call: Call) -> Response<Body> {
        let number = |key| call.query.get(key).and_then(|text| text.parse().ok());
        let from: u64 = number("resourceVersion").unwrap_or_default();
        if from < self.server.0.borrow().oldest {
            return respond(
                200,
                &[],
                json!({ "type": "ERROR", "object": failure(410, "Expired") }),
            );
        }
        let ends = Instant::now() + Duration::from_secs(number("timeoutSeconds").unwrap_or(300));
        Response::new(WatchStream::new(self, call, from, ends).body())
    }
}

fn refusal(code: u16, call: &Call) -> Value {
    failure(
        code,
        &format!("cannot {} resource {}", call.verb, call.resource),
    )
}

fn respond(code: u16, headers: &[(&str, &str)], value: Value) -> Response<Body> {
    let mut response = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    for (name, text) in headers {
        response = response.header(*name, *text);
    }
    response.body(Body::from(value.to_string())).unwrap()
}
