//! A copy of every kind that decisions and documents need, kept by one watch per kind on every replica.
//!
//! A copy lags behind. It says what to look at and what to tell people; what could spend money is read anew. Objects that
//! cannot be decoded are kept as such, so that one of them stalls nobody, and what nobody reads is dropped on the way in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Reader;
use super::read::{ObjectVersions, place, version};
use crate::api::{AgentRegistration, IdentityRegistry, Key, ServiceOffer};
use crate::leader::record::Version;
use crate::metrics::{Metrics, OfferCondition, OfferCounts, WatchedKind};
use crate::telemetry::causes;

/// Seconds after which a watch is begun anew, so that one that died in silence is noticed.
const WATCH_SECONDS: u32 = 60;
/// Changes that a listener may be behind; one that is further behind looks at everything.
const BACKLOG: usize = 4096;

/// How long a copy may take to show what was counted, before it is counted again: what was counted may be gone.
const CENSUS_LIFE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const CATCH_UP_PERIOD: Duration = Duration::from_millis(5);

/// An object that may not be decodable.
pub type MaybeDecoded<K> = DeserializeGuard<K>;

/// An object of the cache that has been decoded, shared with the cache.
#[derive(Debug)]
pub struct Decoded<K>(Arc<MaybeDecoded<K>>);

impl<K> Decoded<K> {
    /// The object, if it has been decoded.
    #[must_use]
    pub fn new(object: Arc<MaybeDecoded<K>>) -> Option<Self> {
        object.0.is_ok().then_some(Self(object))
    }
}

impl<K> Clone for Decoded<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Deref for Decoded<K> {
    type Target = K;

    fn deref(&self) -> &K {
        match &self.0.0 {
            Ok(object) => object,
            Err(_) => unreachable!("what cannot be decoded is not wrapped"),
        }
    }
}

impl<K> AsRef<K> for Decoded<K> {
    fn as_ref(&self) -> &K {
        self
    }
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheChange {
    /// An offer.
    Offer {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A registry, by name.
    Registry(String),
    /// A record, with the offers that use it.
    Record {
        /// Its name.
        name: String,
        /// Namespace and name of each offer.
        offers: Vec<(String, String)>,
    },
    /// A namespace, by name.
    Namespace(String),
    /// A Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// The copies. All clones are the same cache.
#[derive(Clone)]
pub struct Cache {
    offers: Store<MaybeDecoded<ServiceOffer>>,
    registries: Store<MaybeDecoded<IdentityRegistry>>,
    records: Store<MaybeDecoded<AgentRegistration>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    services: Store<PartialObjectMeta<Service>>,
    users: Users,
    changes: broadcast::Sender<CacheChange>,
}

/// Names of the records that have listed each offer. It may name too many, never too few: whoever asks looks.
type Users = Arc<Mutex<HashMap<(String, String), BTreeSet<String>>>>;

impl Cache {
    /// A cache, and the watches that fill it. They end only if one of them panics.
    #[must_use]
    pub fn fill(client: &Client, metrics: &Metrics) -> (Self, JoinSet<()>) {
        let (changes, _) = broadcast::channel(BACKLOG);
        let mut watches = JoinSet::new();
        let keeper = Keeper {
            client,
            metrics,
            changes: &changes,
        };
        let offers = keeper.keep(
            &mut watches,
            WatchedKind::ServiceOffer,
            invalid,
            |offer: &MaybeDecoded<ServiceOffer>| CacheChange::Offer {
                namespace: offer.namespace().unwrap_or_default(),
                name: offer.name_any(),
            },
        );
        let chains = metrics.chain.clone();
        let registries = keeper.keep(
            &mut watches,
            WatchedKind::IdentityRegistry,
            invalid,
            move |registry: &MaybeDecoded<_>| {
                if let Ok(registry) = &registry.0 {
                    let registry: &IdentityRegistry = registry;
                    chains.track(registry.spec.chain_id);
                }
                CacheChange::Registry(registry.name_any())
            },
        );
        let users = Users::default();
        let listed = Arc::clone(&users);
        let records = keeper.keep(
            &mut watches,
            WatchedKind::AgentRegistration,
            invalid,
            move |record: &MaybeDecoded<_>| {
                let offers = record
                    .0
                    .iter()
                    .flat_map(|record: &AgentRegistration| &record.spec.offers);
                let offers: Vec<_> = offers
                    .map(|offer| (offer.namespace.clone(), offer.name.clone()))
                    .collect();
                let name = record.name_any();
                let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
                for offer in &offers {
                    listed
                        .entry(offer.clone())
                        .or_default()
                        .insert(name.clone());
                }
                CacheChange::Record { name, offers }
            },
        );
        let namespaces = keeper.keep(
            &mut watches,
            WatchedKind::Namespace,
            valid,
            |namespace: &PartialObjectMeta<Namespace>| CacheChange::Namespace(namespace.name_any()),
        );
        let services = keeper.keep(
            &mut watches,
            WatchedKind::Service,
            valid,
            |service: &PartialObjectMeta<Service>| CacheChange::Service {
                namespace: service.namespace().unwrap_or_default(),
                name: service.name_any(),
            },
        );
        (
            Self {
                offers,
                registries,
                records,
                namespaces,
                services,
                users,
                changes,
            },
            watches,
        )
    }

    /// Waits until every kind has been listed.
    pub async fn synced(&self) {
        let all = futures::future::join5(
            self.offers.wait_until_ready(),
            self.registries.wait_until_ready(),
            self.records.wait_until_ready(),
            self.namespaces.wait_until_ready(),
            self.services.wait_until_ready(),
        );
        // A store says that its writer is gone when the process ends: then nobody waits any more.
        let _ = all.await;
    }

    /// Waits until every copy shows all that the cluster's store held when this was asked. A copy may lag behind for as long
    /// as its watch does, and whoever has just begun to lead must not act on what the last leader has changed since.
    pub async fn catch_up(&self, reader: &Reader) {
        futures::join!(
            catch_up(&self.offers, reader),
            catch_up(&self.registries, reader),
            catch_up(&self.records, reader),
            catch_up(&self.namespaces, reader),
            catch_up(&self.services, reader),
        );
    }

    /// Every change from this moment on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<CacheChange> {
        self.changes.subscribe()
    }

    /// The store of offers, for a reconcile loop.
    #[must_use]
    pub fn offer_store(&self) -> Store<MaybeDecoded<ServiceOffer>> {
        self.offers.clone()
    }

    /// The store of registries, for a reconcile loop.
    #[must_use]
    pub fn registry_store(&self) -> Store<MaybeDecoded<IdentityRegistry>> {
        self.registries.clone()
    }

    /// Every offer that can be decoded.
    #[must_use]
    pub fn offers(&self) -> Vec<Decoded<ServiceOffer>> {
        self.offers
            .state()
            .into_iter()
            .filter_map(Decoded::new)
            .collect()
    }

    /// An offer, if it can be decoded.
    #[must_use]
    pub fn offer(&self, namespace: &str, name: &str) -> Option<Decoded<ServiceOffer>> {
        Decoded::new(self.offers.get(&ObjectRef::new(name).within(namespace))?)
    }

    /// Every registry that can be decoded.
    #[must_use]
    pub fn registries(&self) -> Vec<Decoded<IdentityRegistry>> {
        self.registries
            .state()
            .into_iter()
            .filter_map(Decoded::new)
            .collect()
    }

    /// A registry, if it can be decoded.
    #[must_use]
    pub fn registry(&self, name: &str) -> Option<Decoded<IdentityRegistry>> {
        Decoded::new(self.registries.get(&ObjectRef::new(name))?)
    }

    /// Every record that can be decoded.
    #[must_use]
    pub fn records(&self) -> Vec<Decoded<AgentRegistration>> {
        self.records
            .state()
            .into_iter()
            .filter_map(Decoded::new)
            .collect()
    }

    /// The record of a key, if it can be decoded.
    #[must_use]
    pub fn record(&self, key: Key) -> Option<Decoded<AgentRegistration>> {
        Decoded::new(self.records.get(&ObjectRef::new(&key.record_name()))?)
    }

    /// Records that list an offer, if they can be decoded.
    #[must_use]
    pub fn records_of(&self, offer: &(String, String)) -> Vec<Decoded<AgentRegistration>> {
        let listed = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let names = listed.get(offer).cloned().unwrap_or_default();
        drop(listed);
        let lists = |record: &Decoded<AgentRegistration>| {
            record
                .spec
                .offers
                .iter()
                .any(|listed| listed.namespace == offer.0 && listed.name == offer.1)
        };
        let found = names
            .iter()
            .filter_map(|name| Decoded::new(self.records.get(&ObjectRef::new(name))?));
        found.filter(lists).collect()
    }

    /// Labels of a namespace; `None` if there is no such namespace, or it is going away.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let namespace = self.namespaces.get(&ObjectRef::new(name))?;
        namespace
            .metadata
            .deletion_timestamp
            .is_none()
            .then(|| namespace.labels().clone())
    }

    /// Whether a Service exists.
    #[must_use]
    pub fn service_exists(&self, namespace: &str, name: &str) -> bool {
        self.services
            .get(&ObjectRef::new(name).within(namespace))
            .is_some()
    }

    /// Offers by condition and status.
    #[must_use]
    pub fn count_offers(&self) -> OfferCounts {
        use crate::api::{ConditionStatus, condition};
        use crate::metrics::Label;
        let mut counts = OfferCounts::default();
        for offer in self.offers.state() {
            let conditions = offer
                .0
                .as_ref()
                .ok()
                .and_then(|offer| offer.status.as_ref())
                .map(|status| &status.conditions);
            for (row, kind) in counts.iter_mut().zip(OfferCondition::ALL) {
                let found =
                    conditions.and_then(|conditions| condition::find(conditions, kind.as_str()));
                let column = match found.map(|condition| condition.status) {
                    Some(ConditionStatus::True) => 0,
                    Some(ConditionStatus::False) => 1,
                    Some(ConditionStatus::Unknown) | None => 2,
                };
                row[column] += 1;
            }
        }
        counts
    }
}

async fn catch_up<K>(store: &Store<K>, reader: &Reader)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    loop {
        match reader.object_versions::<K>().await {
            Ok(census) => {
                let asked = Instant::now();
                while asked.elapsed() < CENSUS_LIFE {
                    if shows(
                        store
                            .state()
                            .iter()
                            .map(|object| (place(&**object), version(&**object))),
                        &census,
                    ) {
                        return;
                    }
                    sleep(CATCH_UP_PERIOD).await;
                }
                debug!(kind = %K::kind(&()), "the copy lags behind");
            }
            Err(error) => {
                warn!(kind = %K::kind(&()), error = %causes(&error), "whether the copy lags behind is not known");
                sleep(CENSUS_LIFE).await;
            }
        }
    }
}

/// Whether a copy shows all that a census counted: nothing older, nothing less, and nothing that had gone before.
fn shows(
    copy: impl Iterator<Item = ((Option<String>, String), Version)>,
    census: &ObjectVersions,
) -> bool {
    let mut found = 0;
    for (place, version) in copy {
        match census.objects.get(&place) {
            Some(counted) if version.precedes(counted) => return false,
            Some(_) => found += 1,
            None if !census.version.precedes(&version) => return false,
            None => {}
        }
    }
    found == census.objects.len()
}

fn invalid<K>(object: &MaybeDecoded<K>) -> bool {
    object.0.is_err()
}

fn valid<K>(_: &K) -> bool {
    false
}

/// What all watches share.
struct Keeper<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    changes: &'a broadcast::Sender<CacheChange>,
}

impl Keeper<'_> {
    /// Keeps a copy of one kind, and tells every change of it.
    fn keep<K>(
        &self,
        watches: &mut JoinSet<()>,
        kind: WatchedKind,
        is_invalid: impl Fn(&K) -> bool + Send + 'static,
        change: impl Fn(&K) -> CacheChange + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let (metrics, changes, copy) = (
            self.metrics.watch.clone(),
            self.changes.clone(),
            store.clone(),
        );
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let stream = watcher(Api::<K>::all(self.client.clone()), config)
            .default_backoff()
            .modify(trim)
            .reflect(writer);
        watches.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                match stream.try_next().await {
                    Ok(Some(event)) => {
                        if matches!(event, watcher::Event::InitDone) {
                            metrics.synced(kind);
                        }
                        if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                            metrics.invalid(
                                kind,
                                copy.state()
                                    .iter()
                                    .filter(|object| is_invalid(object))
                                    .count(),
                            );
                        }
                        match event {
                            // Nobody listening is no loss: whoever begins to listen looks at everything.
                            watcher::Event::Apply(object)
                            | watcher::Event::Delete(object)
                            | watcher::Event::InitApply(object) => {
                                drop(changes.send(change(&object)))
                            }
                            watcher::Event::Init | watcher::Event::InitDone => {}
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        metrics.failed(kind, is_missing(&error));
                        warn!(?kind, error = %causes(&error), "the watch broke and is begun anew");
                    }
                }
            }
        });
        store
    }
}

/// Drops what nobody here reads, which is often the larger part of an object.
fn trim<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Whether the API server does not know the kind at all.
fn is_missing(error: &watcher::Error) -> bool {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        _ => return false,
    };
    // A kind that is not known is answered without a Status: only the code tells.
    matches!(source, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_caught_up_when_it_shows_everything_in_no_older_version_and_nothing_that_is_gone()
    {
        let place = |name: &str| (Some("shop".to_owned()), name.to_owned());
        let version = |number: u64| Version(number.to_string());
        let copy = |objects: &[(&str, u64)]| -> Vec<_> {
            objects
                .iter()
                .map(|(name, number)| (place(name), version(*number)))
                .collect()
        };
        let objects = copy(&[("a", 7), ("b", 95)]).into_iter().collect();
        let census = ObjectVersions {
            version: version(100),
            objects,
        };
        for (shown, fresh) in [
            (&[("a", 7), ("b", 95)][..], true),
            (&[("a", 101), ("b", 95)], true),
            (&[("a", 7), ("b", 95), ("made-since", 101)], true),
            (&[("a", 7)], false),
            (&[], false),
            (&[("a", 7), ("b", 9)], false),
            (&[("a", 7), ("b", 95), ("gone", 60)], false),
            (&[("a", 7), ("other", 95)], false),
        ] {
            assert_eq!(shows(copy(shown).into_iter(), &census), fresh, "{shown:?}");
        }
        assert!(shows(std::iter::empty(), &ObjectVersions::default()));
    }
}
