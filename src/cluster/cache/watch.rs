//! One watch per kind, which keeps a store up to date, counts its failures and reports changes.
//!
//! A watch drops what is not read from an object before it is stored: of some kinds metadata, of
//! others nearly everything ([`super::table`]).

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::CacheChange;
use super::changes::Changes;
use super::table::Table;
use crate::cluster::read::{ObjectKey, object_key, object_version};
use crate::metrics::{Metrics, WatchMetrics, WatchedKind};
use crate::telemetry::causes;

/// Seconds after which a watch is restarted, so that one whose connection died unnoticed does not
/// last.
const WATCH_SECONDS: u32 = 60;
/// How often the API server is asked for a kind that it need not serve and does not.
const ABSENT_PERIOD: Duration = Duration::from_secs(60);

/// What a failure of a watch means.
enum Failure {
    /// The watch restarts, and people should know.
    Reported,
    /// The API server does not serve the kind, and need not.
    Absent,
}

/// Starts watches that share a client.
pub(super) struct Watches<'a> {
    pub(super) client: &'a Client,
    pub(super) metrics: &'a Metrics,
    pub(super) changes: Changes,
    pub(super) tasks: JoinSet<()>,
}

impl Watches<'_> {
    /// Watches one kind and returns the store that the watch fills. `trim` drops what is not read
    /// from an object.
    pub(super) fn watch<K>(
        &mut self,
        kind: WatchedKind,
        trim: impl Fn(&mut K) + Send + 'static,
        is_invalid: impl Fn(&K) -> bool + Send + 'static,
        change: impl Fn(&K) -> CacheChange + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let stream = self.events::<K>().modify(trim).reflect(writer);
        let metrics = self.metrics.watch.clone();
        let changes = self.changes.clone();
        let filled = store.clone();
        let mut before = Vec::new();
        let handle = move |event: watcher::Event<K>| match event {
            watcher::Event::Init => before = filled.state(),
            // The store shows nothing of a list before its end.
            watcher::Event::InitApply(_) => {}
            watcher::Event::InitDone => {
                for object in differing(std::mem::take(&mut before), filled.state()) {
                    changes.report(change(&object));
                }
            }
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
                changes.report(change(&object));
            }
        };
        self.tasks
            .spawn(follow(kind, stream, metrics, is_invalid, reported, handle));
        store
    }

    /// Watches one kind and returns a table of the values that `value_of` makes of its objects. A
    /// failure of the watch is reported as `interruption`.
    pub(super) fn table<K, V>(
        &mut self,
        kind: WatchedKind,
        value_of: impl Fn(&K) -> V + Send + 'static,
        is_invalid: impl Fn(&K) -> bool + Send + 'static,
        interruption: Option<CacheChange>,
        change: impl Fn(&ObjectKey, &V) -> CacheChange + Send + 'static,
    ) -> Table<V>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        let table = Table::default();
        let failed = {
            let changes = self.changes.clone();
            move |error: &watcher::Error| {
                if let Some(change) = interruption.clone() {
                    changes.report(change);
                }
                reported(error)
            }
        };
        self.fill(&table, kind, value_of, is_invalid, failed, change);
        table
    }

    /// As [`Self::table`], for a kind that the API server need not serve: while it does not, the
    /// table is empty and counts as listed. So it does, with what it holds, while this replica may
    /// not read the kind, which an older role does not allow.
    pub(super) fn optional_table<K, V>(
        &mut self,
        kind: WatchedKind,
        value_of: impl Fn(&K) -> V + Send + 'static,
        change: impl Fn(&ObjectKey, &V) -> CacheChange + Clone + Send + 'static,
    ) -> Table<V>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        let table = Table::default();
        let failed = {
            let (table, changes, change) = (table.clone(), self.changes.clone(), change.clone());
            move |error: &watcher::Error| {
                if has_code(error, 404) {
                    table.begin_list();
                    for (key, value) in table.end_list() {
                        changes.report(change(&key, &value));
                    }
                    return Failure::Absent;
                }
                if has_code(error, 403) {
                    table.give_up();
                }
                Failure::Reported
            }
        };
        self.fill(&table, kind, value_of, |_| false, failed, change);
        table
    }

    /// Watches one kind and keeps the values of its objects in a table.
    fn fill<K, V>(
        &mut self,
        table: &Table<V>,
        kind: WatchedKind,
        value_of: impl Fn(&K) -> V + Send + 'static,
        is_invalid: impl Fn(&K) -> bool + Send + 'static,
        failed: impl Fn(&watcher::Error) -> Failure + Send + 'static,
        change: impl Fn(&ObjectKey, &V) -> CacheChange + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        let stream = self.events::<K>();
        let metrics = self.metrics.watch.clone();
        let changes = self.changes.clone();
        let filled = table.clone();
        let handle = move |event: watcher::Event<K>| match event {
            watcher::Event::Init => filled.begin_list(),
            watcher::Event::InitApply(object) => {
                let version = object_version(&object);
                filled.list(object_key(&object), version, value_of(&object));
            }
            watcher::Event::InitDone => {
                for (key, value) in filled.end_list() {
                    changes.report(change(&key, &value));
                }
            }
            watcher::Event::Apply(object) => {
                let (key, value) = (object_key(&object), value_of(&object));
                if filled.apply(key.clone(), object_version(&object), value.clone()) {
                    changes.report(change(&key, &value));
                }
            }
            watcher::Event::Delete(object) => {
                let key = object_key(&object);
                if let Some(value) = filled.remove(&key) {
                    changes.report(change(&key, &value));
                }
            }
        };
        self.tasks
            .spawn(follow(kind, stream, metrics, is_invalid, failed, handle));
    }

    fn events<K>(
        &self,
    ) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        list_and_watch(Api::all(self.client.clone()), watcher::Config::default())
    }
}

/// Lists and watches objects, and lists them again after a failure. A watch that was resumed after
/// the API server's storage had been restored to an earlier state would stay silent until resource
/// versions exceed those of before, and never show what was written until then.
pub(crate) fn list_and_watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = config.timeout(WATCH_SECONDS);
    let events = stream::unfold(None, move |resumed| {
        let mut watch = resumed.unwrap_or_else(|| watcher(api.clone(), config.clone()).boxed());
        async move {
            let event = watch.next().await?;
            // An API server that only limits requests was not restarted.
            let is_current = match &event {
                Ok(_) => true,
                Err(error) => has_code(error, 429),
            };
            Some((event, is_current.then_some(watch)))
        }
    });
    events.backoff(WatchBackoff::default())
}

/// The default backoff of watches, except that only time resets it: a list that has only started
/// again is no success.
#[derive(Default)]
struct WatchBackoff(watcher::DefaultBackoff);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

/// Objects whose version differs between two lists, or that are in one of them only.
fn differing<K>(before: Vec<Arc<K>>, after: Vec<Arc<K>>) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()>,
{
    let mut before: HashMap<_, _> = before
        .into_iter()
        .map(|object| (object_key(&*object), object))
        .collect();
    let mut differing = after;
    differing.retain(|object| {
        let known = before.remove(&object_key(&**object));
        known.is_none_or(|known| known.resource_version() != object.resource_version())
    });
    differing.extend(before.into_values());
    differing
}

fn reported(_: &watcher::Error) -> Failure {
    Failure::Reported
}

/// Handles every event of a watch, and counts invalid objects and what fails. `failed` is called at
/// each failure.
async fn follow<K: Resource<DynamicType = ()>>(
    kind: WatchedKind,
    stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    metrics: WatchMetrics,
    is_invalid: impl Fn(&K) -> bool,
    failed: impl Fn(&watcher::Error) -> Failure,
    mut handle: impl FnMut(watcher::Event<K>),
) {
    let mut stream = std::pin::pin!(stream);
    let mut invalid = HashSet::new();
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                match failed(&error) {
                    Failure::Absent => {
                        metrics.synced(kind);
                        debug!(?kind, "the API server does not serve the kind");
                        sleep(ABSENT_PERIOD).await;
                    }
                    Failure::Reported => {
                        metrics.failed(kind, has_code(&error, 404));
                        warn!(?kind, error = %causes(&error), "watch failed, will restart");
                    }
                }
                continue;
            }
        };
        match &event {
            watcher::Event::Init => invalid.clear(),
            watcher::Event::InitDone => metrics.synced(kind),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object)
                if is_invalid(object) =>
            {
                invalid.insert(object_key(object));
            }
            watcher::Event::InitApply(object)
            | watcher::Event::Apply(object)
            | watcher::Event::Delete(object) => {
                invalid.remove(&object_key(object));
            }
        }
        // Until a list ends, the last one counts.
        if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
            metrics.invalid(kind, invalid.len());
        }
        handle(event);
    }
}

/// Whether the API server answered with this code; with 404 it says that it does not serve the
/// kind.
fn has_code(error: &watcher::Error, code: u16) -> bool {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        _ => return false,
    };
    // The response for an unknown kind has no Status body, only the code.
    matches!(source, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::{Request, Response};
    use kube::client::Body;
    use kube::runtime::reflector::ObjectRef;
    use serde_json::{Value, json};
    use tokio::time::sleep;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::api::ServiceOffer;
    use crate::cluster::MaybeDecoded;
    use crate::cluster::cache::Grant;

    fn offer(name: &str, version: &str) -> Value {
        json!({
            "apiVersion": "obol.org/v1alpha1", "kind": "ServiceOffer",
            "metadata": { "name": name, "namespace": "shop", "resourceVersion": version },
            "spec": {},
        })
    }

    /// A list in two pages, after which nothing changes.
    async fn serve(request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let query = request.uri().query().unwrap_or_default();
        let (items, next) = if query.contains("watch=true") {
            return pending().await;
        } else if query.contains("continue=") {
            sleep(Duration::from_secs(1)).await;
            ([offer("last", "8")], None)
        } else {
            ([offer("first", "7")], Some("more"))
        };
        let metadata = json!({ "resourceVersion": "9", "continue": next });
        let list = json!({
            "apiVersion": "obol.org/v1alpha1", "kind": "ServiceOfferList",
            "metadata": metadata, "items": items,
        });
        Ok(Response::new(Body::from(serde_json::to_vec(&list)?)))
    }

    /// The store of a watch of offers, which lasts as long as its task is held.
    fn watched_offers(
        client: &Client,
        changes: Changes,
    ) -> (Store<MaybeDecoded<ServiceOffer>>, JoinSet<()>) {
        let mut watches = Watches {
            client,
            metrics: &Metrics::new("operator/lease").unwrap(),
            changes,
            tasks: JoinSet::new(),
        };
        let store = watches.watch(
            WatchedKind::ServiceOffer,
            |_: &mut MaybeDecoded<ServiceOffer>| (),
            |_| false,
            CacheChange::offer,
        );
        (store, watches.tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn store_holds_an_object_of_a_list_when_its_change_is_reported() {
        let changes = Changes::default();
        let mut reported = changes.subscribe();
        let client = Client::new(service_fn(serve), "default");
        let (store, _tasks) = watched_offers(&client, changes);
        for _ in ["first", "last"] {
            let CacheChange::Offer { namespace, name } = reported.recv().await.unwrap() else {
                panic!("only offers are watched");
            };
            let found = store.get(&ObjectRef::new(&name).within(&namespace));
            assert!(found.is_some(), "{name} is not in the store yet");
        }
    }

    /// An API server whose watch fails once, after which its storage was restored to an earlier
    /// state.
    fn restored() -> Client {
        let watches = Arc::new(AtomicUsize::new(0));
        let serve = move |request: Request<Body>| {
            let watches = watches.clone();
            async move {
                let query = request.uri().query().unwrap_or_default();
                if query.contains("watch=true") {
                    if watches.fetch_add(1, Ordering::Relaxed) > 0 {
                        pending::<()>().await;
                    }
                    return Err(BoxError::from("connection reset"));
                }
                let (version, name) = match watches.load(Ordering::Relaxed) {
                    0 => ("9", "lost"),
                    _ => ("5", "kept"),
                };
                let list = json!({
                    "apiVersion": "obol.org/v1alpha1", "kind": "ServiceOfferList",
                    "metadata": { "resourceVersion": version }, "items": [offer(name, version)],
                });
                Ok(Response::new(Body::from(serde_json::to_vec(&list)?)))
            }
        };
        Client::new(service_fn(serve), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn store_shows_what_was_restored_once_a_watch_has_failed() {
        let (store, _tasks) = watched_offers(&restored(), Changes::default());
        sleep(Duration::from_secs(10)).await;
        let names: Vec<String> = store.state().iter().map(|offer| offer.name_any()).collect();
        assert_eq!(names, ["kept"]);
    }

    /// Watches ReferenceGrants of an API server that responds with this code.
    fn grants(code: u16) -> (Table<Grant>, Metrics, JoinSet<()>) {
        let respond = move |_: Request<Body>| async move {
            let response = Response::builder().status(code);
            let body = json!({ "kind": "Status", "code": code, "status": "Failure" });
            Ok::<_, BoxError>(response.body(Body::from(body.to_string().into_bytes()))?)
        };
        let metrics = Metrics::new("operator/lease").unwrap();
        let mut watches = Watches {
            client: &Client::new(service_fn(respond), "default"),
            metrics: &metrics,
            changes: Changes::default(),
            tasks: JoinSet::new(),
        };
        let change = |grant: &ObjectKey, _: &Grant| CacheChange::grant(grant);
        let table = watches.optional_table(WatchedKind::ReferenceGrant, Grant::of, change);
        let tasks = watches.tasks;
        (table, metrics, tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn kind_that_need_not_exist_counts_as_listed_without_a_failure() {
        let failures = r#"serviceoffer_watch_failures_total{kind="ReferenceGrant"} 0"#;
        for (code, is_failure) in [(404, false), (403, true)] {
            let (table, metrics, _tasks) = grants(code);
            table.listed().await;
            sleep(Duration::from_secs(1)).await;
            assert!(table.values_in("shop").is_empty());
            let text = metrics.render().unwrap();
            assert_eq!(!text.contains(failures), is_failure, "{code}: {text}");
        }
    }

    #[test]
    fn list_differs_in_what_was_created_changed_and_deleted_since_the_last_one() {
        let list = |objects: &[(&str, &str)]| -> Vec<Arc<MaybeDecoded<ServiceOffer>>> {
            let objects = objects.iter();
            objects
                .map(|(name, version)| serde_json::from_value(offer(name, version)).unwrap())
                .map(Arc::new)
                .collect()
        };
        let before = list(&[("kept", "1"), ("changed", "2"), ("deleted", "3")]);
        let after = list(&[("kept", "1"), ("changed", "5"), ("created", "4")]);
        let mut names: Vec<String> = differing(before, after)
            .iter()
            .map(|object| object.name_any())
            .collect();
        names.sort();
        assert_eq!(names, ["changed", "created", "deleted"]);
    }
}
