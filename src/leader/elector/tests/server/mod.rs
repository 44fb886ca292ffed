//! An API server in memory, and every cause in which one can fail whoever talks to it.
//!
//! It serves what the elector uses of Leases, Pods and Events, under a real client: in memory ([`Link::client`]), where time
//! may be paused, or on a port of this machine ([`Link::listen`]). Each candidate has a [`Link`] of its own, which breaks and
//! counts for that candidate alone.

mod feed;

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

use self::feed::Feed;

/// Namespace of everything.
pub(crate) const NAMESPACE: &str = "operators";
/// How long a request is on its cause, and its answer.
pub(crate) const HOP: Duration = Duration::from_millis(5);

/// What a request meets with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is refused with this code.
    Status(u16),
    /// It is refused with 429, and told to come back after so many seconds.
    Busy(u64),
    /// The connection breaks before anything is done.
    Broken,
    /// Nothing is ever done or answered.
    Hang,
    /// It is done, and the answer is lost.
    HangAfterCommit,
    /// It is done at once and answered late.
    AnswerLate(Duration),
    /// It is done late, even if nobody waits for it any more.
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
    /// Versions before this one are forgotten by watches.
    oldest: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    changes: Vec<Change>,
}

/// The API server. All clones are the same server.
#[derive(Clone)]
pub(crate) struct Server(Arc<watch::Sender<State>>);

/// One candidate's cause to the server. All clones are the same cause.
#[derive(Clone)]
pub(crate) struct Link {
    server: Server,
    weather: Arc<Mutex<Weather>>,
}

/// Looks on as requests come in.
type Witness = Box<dyn Fn(&str) + Send>;

#[derive(Default)]
struct Weather {
    /// What requests meet with, and how many of them.
    faults: HashMap<String, (Fault, usize)>,
    calls: Vec<(Instant, String)>,
    /// Watches opened so far, and up to which of them they are silent for ever, or have ended.
    watches: usize,
    silent: usize,
    ended: usize,
    /// How late watches tell.
    lag: Duration,
    witness: Option<Witness>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    pub(crate) fn link(&self) -> Link {
        Link {
            server: self.clone(),
            weather: Arc::default(),
        }
    }

    pub(crate) fn get(&self, resource: &'static str, name: &str) -> Option<Value> {
        self.0
            .borrow()
            .objects
            .get(&(resource, name.to_owned()))
            .cloned()
    }

    /// Changes an object, or makes it, whatever its version.
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

    /// How it stands, to go back to.
    pub(crate) fn version(&self) -> u64 {
        self.0.borrow().version
    }

    /// Goes back to how it stood at a version, as a store does that was restored from a backup. Watches are not told.
    pub(crate) fn go_back(&self, version: u64) {
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

    /// Forgets all changes: a watch that wants to go on from one of them is told so.
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

    /// Waits until an object is as it should be.
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
                // What changes nothing makes no version.
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

/// What a request asks for.
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
            .expect("everything lives in a namespace");
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
    /// A client that talks to the server in memory.
    pub(crate) fn client(&self) -> Client {
        let link = self.clone();
        let serve =
            move |request: Request<kube::client::Body>| link.clone().serve(request.map(Body::new));
        Client::new(service_fn(serve), NAMESPACE)
    }

    /// Serves on a port of this machine, on a thread of its own, until the process ends.
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

    /// From this moment on such requests (`update leases`, or `*` for all) meet with a fault.
    pub(crate) fn breaks(&self, calls: &str, fault: Fault) {
        self.breaks_times(usize::MAX, calls, fault);
    }

    /// The same for the next few of them.
    pub(crate) fn breaks_times(&self, times: usize, calls: &str, fault: Fault) {
        self.weather().faults.insert(calls.into(), (fault, times));
    }

    /// No request meets with a fault any more.
    pub(crate) fn mends(&self) {
        self.weather().faults.clear();
    }

    /// Nothing comes through any more, and watches are silent.
    pub(crate) fn loses_everything(&self, fault: Fault) {
        self.breaks("*", fault);
        self.silences_watches();
    }

    /// Open watches say nothing any more, and never end.
    pub(crate) fn silences_watches(&self) {
        self.changes_weather(|weather| weather.silent = weather.watches);
    }

    /// Open watches end.
    pub(crate) fn ends_watches(&self) {
        self.changes_weather(|weather| weather.ended = weather.watches);
    }

    /// Watches tell everything so much later.
    pub(crate) fn delays_watches(&self, lag: Duration) {
        self.changes_weather(|weather| weather.lag = lag);
    }

    /// Has somebody look on as requests come in.
    pub(crate) fn shows(&self, witness: impl Fn(&str) + Send + 'static) {
        self.weather().witness = Some(Box::new(witness));
    }

    /// When such requests came.
    pub(crate) fn calls(&self, calls: &str) -> Vec<Instant> {
        self.weather()
            .calls
            .iter()
            .filter(|(_, call)| call == calls)
            .map(|(at, _)| *at)
            .collect()
    }

    /// What requests came since, each kind with its number.
    pub(crate) fn tally(&self, since: Instant) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for (_, call) in self.weather().calls.iter().filter(|(at, _)| *at >= since) {
            *tally.entry(call.clone()).or_default() += 1;
        }
        tally
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap()
    }

    fn changes_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.weather());
        self.server.0.send_modify(|_| {});
    }

    /// Counts a request, and says what it meets with.
    fn meets(&self, call: &Call) -> Option<Fault> {
        let mut weather = self.weather();
        let name = format!("{} {}", call.verb, call.resource);
        let key = if weather.faults.contains_key(&name) {
            name.as_str()
        } else {
            "*"
        };
        let fault = weather
            .faults
            .get_mut(key)
            .filter(|(_, left)| *left > 0)
            .map(|(fault, left)| {
                *left -= 1;
                *fault
            });
        if let Some(witness) = &weather.witness {
            witness(&name);
        }
        weather.calls.push((Instant::now(), name));
        fault
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let call = Call::read(&parts);
        let fault = self.meets(&call);
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
            Some(Fault::Broken) => return Err("connection reset by peer".into()),
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
        Response::new(Feed::new(self, call, from, ends).body())
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
