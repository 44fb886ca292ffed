//! One watch per kind, which keeps a store up to date, counts its failures and reports every
//! change.

use std::fmt::Debug;

use futures::TryStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tracing::warn;

use super::CacheChange;
use crate::metrics::{Metrics, WatchedKind};
use crate::telemetry::causes;

/// Seconds after which a watch is restarted, so that one whose connection died unnoticed does not
/// last.
const WATCH_SECONDS: u32 = 60;

/// Starts watches that share a client.
pub(super) struct Watches<'a> {
    pub(super) client: &'a Client,
    pub(super) metrics: &'a Metrics,
    pub(super) changes: &'a broadcast::Sender<CacheChange>,
    pub(super) tasks: JoinSet<()>,
}

impl Watches<'_> {
    /// Watches one kind and returns the store that the watch fills.
    pub(super) fn watch<K>(
        &mut self,
        kind: WatchedKind,
        is_invalid: impl Fn(&K) -> bool + Send + 'static,
        change: impl Fn(&K) -> CacheChange + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let stream = watcher(Api::<K>::all(self.client.clone()), config)
            .default_backoff()
            .modify(trim)
            .reflect(writer);
        let metrics = self.metrics.watch.clone();
        let changes = self.changes.clone();
        let watched = store.clone();
        self.tasks.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                let event = match stream.try_next().await {
                    Ok(Some(event)) => event,
                    Ok(None) => return,
                    Err(error) => {
                        metrics.failed(kind, is_missing(&error));
                        warn!(?kind, error = %causes(&error), "watch failed, will restart");
                        continue;
                    }
                };
                if matches!(event, watcher::Event::InitDone) {
                    metrics.synced(kind);
                }
                // While a list is being read, the store still holds the last one.
                if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                    let objects = watched.state();
                    let invalid = objects.iter().filter(|object| is_invalid(object)).count();
                    metrics.invalid(kind, invalid);
                }
                match event {
                    watcher::Event::Apply(object)
                    | watcher::Event::Delete(object)
                    | watcher::Event::InitApply(object) => {
                        // Sending fails if no loop listens. A loop that starts to listen looks at
                        // every object first.
                        drop(changes.send(change(&object)));
                    }
                    watcher::Event::Init | watcher::Event::InitDone => {}
                }
            }
        });
        store
    }
}

/// Drops metadata that this operator does not read and that is often the larger part of an object.
fn trim<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
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
