//! One watch per kind, which keeps a store up to date, counts its failures and reports changes.
//!
//! A watch drops what is not read from an object before it is stored: of some kinds metadata, of
//! others nearly everything ([`super::table`]).

use std::collections::HashSet;
use std::fmt::Debug;

use futures::{Stream, TryStreamExt};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::warn;

use super::CacheChange;
use super::changes::Changes;
use super::table::Table;
use crate::cluster::read::{ObjectKey, object_key, object_version};
use crate::metrics::{Metrics, WatchMetrics, WatchedKind};
use crate::telemetry::causes;

/// Seconds after which a watch is restarted, so that one whose connection died unnoticed does not
/// last.
const WATCH_SECONDS: u32 = 60;

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
        let mut invalid = HashSet::new();
        let handle = move |metrics: &WatchMetrics, event: watcher::Event<K>| {
            match &event {
                watcher::Event::Init => invalid.clear(),
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                    if is_invalid(object) {
                        invalid.insert(object_key(object));
                    } else {
                        invalid.remove(&object_key(object));
                    }
                }
                watcher::Event::Delete(object) => {
                    invalid.remove(&object_key(object));
                }
                watcher::Event::InitDone => {}
            }
            if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                metrics.invalid(kind, invalid.len());
            }
            if let watcher::Event::Apply(object)
            | watcher::Event::Delete(object)
            | watcher::Event::InitApply(object) = event
            {
                changes.report(change(&object));
            }
        };
        self.tasks.spawn(follow(kind, stream, metrics, handle));
        store
    }

    /// Watches one kind and returns a table of the values that `value_of` makes of its objects.
    pub(super) fn table<K, V>(
        &mut self,
        kind: WatchedKind,
        value_of: impl Fn(&K) -> V + Send + 'static,
        is_invalid: impl Fn(&V) -> bool + Send + 'static,
        change: impl Fn(&ObjectKey, &V) -> CacheChange + Send + 'static,
    ) -> Table<V>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        let table = Table::default();
        let stream = self.events::<K>();
        let metrics = self.metrics.watch.clone();
        let changes = self.changes.clone();
        let filled = table.clone();
        let mut invalid = HashSet::new();
        let handle = move |metrics: &WatchMetrics, event: watcher::Event<K>| {
            let mut row_of = |object: &K| {
                let (key, value) = (object_key(object), value_of(object));
                if is_invalid(&value) {
                    invalid.insert(key.clone());
                } else {
                    invalid.remove(&key);
                }
                (key, object_version(object), value)
            };
            match event {
                watcher::Event::Init => {
                    invalid.clear();
                    filled.begin_list();
                    return;
                }
                watcher::Event::InitApply(object) => {
                    let (key, version, value) = row_of(&object);
                    filled.list(key, version, value);
                    return;
                }
                watcher::Event::InitDone => {
                    for (key, value) in filled.end_list() {
                        changes.report(change(&key, &value));
                    }
                }
                watcher::Event::Apply(object) => {
                    let (key, version, value) = row_of(&object);
                    if filled.apply(key.clone(), version, value.clone()) {
                        changes.report(change(&key, &value));
                    }
                }
                watcher::Event::Delete(object) => {
                    let key = object_key(&object);
                    invalid.remove(&key);
                    if let Some(value) = filled.remove(&key) {
                        changes.report(change(&key, &value));
                    }
                }
            }
            metrics.invalid(kind, invalid.len());
        };
        self.tasks.spawn(follow(kind, stream, metrics, handle));
        table
    }

    fn events<K>(
        &self,
    ) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        watcher(Api::<K>::all(self.client.clone()), config).default_backoff()
    }
}

/// Handles every event of a watch, and counts what fails.
async fn follow<K>(
    kind: WatchedKind,
    stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    metrics: WatchMetrics,
    mut handle: impl FnMut(&WatchMetrics, watcher::Event<K>),
) {
    let mut stream = std::pin::pin!(stream);
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => {
                if matches!(event, watcher::Event::InitDone) {
                    metrics.synced(kind);
                }
                handle(&metrics, event);
            }
            Ok(None) => return,
            Err(error) => {
                metrics.failed(kind, is_missing(&error));
                warn!(?kind, error = %causes(&error), "watch failed, will restart");
            }
        }
    }
}

/// Whether the API server does not serve the kind.
fn is_missing(error: &watcher::Error) -> bool {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        _ => return false,
    };
    // The response for an unknown kind has no Status body, only the code.
    matches!(source, kube::Error::Api(status) if status.code == 404)
}
