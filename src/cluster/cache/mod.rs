//! A cache of every kind that decisions and documents need, filled by one watch per kind on every
//! replica.
//!
//! - [`watch`] fills the stores and reports a [`CacheChange`] for every object that changed
//! - [`users`] finds the records that list an offer
//! - [`catch_up`] waits until the stores are as new as the API server was
//!
//! The cache lags behind the API server. It decides what to reconcile and what to report; decisions
//! that can spend money read from the API server again. An object that cannot be decoded stays in
//! the cache as a [`MaybeDecoded`], so that it does not block the others.

mod catch_up;
mod changes;
mod users;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use self::changes::CacheChange;
use self::users::OfferUsers;
use self::watch::Watches;
use super::{MaybeDecoded, Reader};
use crate::api::{
    AgentRegistration, ConditionStatus, IdentityRegistry, Key, ServiceOffer, condition,
};
use crate::metrics::{Label, Metrics, OfferCondition, OfferCounts, WatchedKind};

/// Changes that a listener may lag behind; one that lags further looks at every object instead.
const BACKLOG: usize = 4096;

/// One store per kind. All clones are the same cache.
#[derive(Clone)]
pub struct Cache {
    offers: Store<MaybeDecoded<ServiceOffer>>,
    registries: Store<MaybeDecoded<IdentityRegistry>>,
    records: Store<MaybeDecoded<AgentRegistration>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    services: Store<PartialObjectMeta<Service>>,
    users: OfferUsers,
    changes: broadcast::Sender<CacheChange>,
}

impl Cache {
    /// A cache, and the watches that fill it. A watch ends only if it panics.
    #[must_use]
    pub fn start(client: &Client, metrics: &Metrics) -> (Self, JoinSet<()>) {
        let (changes, _) = broadcast::channel(BACKLOG);
        let mut watches = Watches {
            client,
            metrics,
            changes: &changes,
            tasks: JoinSet::new(),
        };
        let users = OfferUsers::default();
        let offers = watches.watch(WatchedKind::ServiceOffer, is_invalid, CacheChange::offer);
        let registries = watches.watch(WatchedKind::IdentityRegistry, is_invalid, {
            let chains = metrics.chain.clone();
            move |registry: &MaybeDecoded<IdentityRegistry>| {
                if let Some(registry) = registry.decoded() {
                    chains.track(registry.spec.chain_id);
                }
                CacheChange::Registry(registry.name_any())
            }
        });
        let records = watches.watch(WatchedKind::AgentRegistration, is_invalid, {
            let users = users.clone();
            move |record: &MaybeDecoded<AgentRegistration>| {
                let name = record.name_any();
                let offers = record
                    .decoded()
                    .map(|record| changes::listed_offers(record));
                let offers = offers.unwrap_or_default();
                users.insert(&name, &offers);
                CacheChange::Record { name, offers }
            }
        });
        let namespaces = watches.watch(
            WatchedKind::Namespace,
            never_invalid,
            |namespace: &PartialObjectMeta<Namespace>| CacheChange::Namespace(namespace.name_any()),
        );
        let services = watches.watch(WatchedKind::Service, never_invalid, CacheChange::service);
        let tasks = watches.tasks;
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
            tasks,
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
        // A store fails only if its watch is gone. The process exits then, and the result does not
        // matter.
        let _ = all.await;
    }

    /// Waits until every store holds all that the API server stored when this was called.
    pub async fn catch_up(&self, reader: &Reader) {
        futures::join!(
            catch_up::catch_up(&self.offers, reader),
            catch_up::catch_up(&self.registries, reader),
            catch_up::catch_up(&self.records, reader),
            catch_up::catch_up(&self.namespaces, reader),
            catch_up::catch_up(&self.services, reader),
        );
    }

    /// Every change from now on.
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
    pub fn offers(&self) -> Vec<Arc<ServiceOffer>> {
        decoded(&self.offers)
    }

    /// An offer, if it can be decoded.
    #[must_use]
    pub fn offer(&self, namespace: &str, name: &str) -> Option<Arc<ServiceOffer>> {
        let offer = self.offers.get(&ObjectRef::new(name).within(namespace))?;
        offer.decoded().cloned()
    }

    /// Every registry that can be decoded.
    #[must_use]
    pub fn registries(&self) -> Vec<Arc<IdentityRegistry>> {
        decoded(&self.registries)
    }

    /// A registry, if it can be decoded.
    #[must_use]
    pub fn registry(&self, name: &str) -> Option<Arc<IdentityRegistry>> {
        let registry = self.registries.get(&ObjectRef::new(name))?;
        registry.decoded().cloned()
    }

    /// Every record that can be decoded.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<AgentRegistration>> {
        decoded(&self.records)
    }

    /// The record of a key, if it can be decoded.
    #[must_use]
    pub fn record(&self, key: Key) -> Option<Arc<AgentRegistration>> {
        self.record_named(&key.record_name())
    }

    /// Records that list an offer, if they can be decoded.
    #[must_use]
    pub fn records_of(&self, offer: &(String, String)) -> Vec<Arc<AgentRegistration>> {
        let names = self.users.records_of(offer);
        let records = names.iter().filter_map(|name| self.record_named(name));
        let lists_offer = |record: &Arc<AgentRegistration>| {
            let mut offers = record.spec.offers.iter();
            offers.any(|listed| listed.namespace == offer.0 && listed.name == offer.1)
        };
        records.filter(lists_offer).collect()
    }

    fn record_named(&self, name: &str) -> Option<Arc<AgentRegistration>> {
        self.records.get(&ObjectRef::new(name))?.decoded().cloned()
    }

    /// Labels of a namespace; `None` if it does not exist or is being deleted.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let namespace = self.namespaces.get(&ObjectRef::new(name))?;
        if namespace.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(namespace.labels().clone())
    }

    /// Whether a Service exists.
    #[must_use]
    pub fn service_exists(&self, namespace: &str, name: &str) -> bool {
        let service = self.services.get(&ObjectRef::new(name).within(namespace));
        service.is_some()
    }

    /// Number of offers by condition and status. An offer that cannot be decoded counts as Unknown.
    #[must_use]
    pub fn count_offers(&self) -> OfferCounts {
        let mut counts = OfferCounts::default();
        for offer in self.offers.state() {
            let status = offer.decoded().and_then(|offer| offer.status.as_ref());
            for (row, kind) in counts.iter_mut().zip(OfferCondition::ALL) {
                let found =
                    status.and_then(|status| condition::find(&status.conditions, kind.as_str()));
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

fn decoded<K>(store: &Store<MaybeDecoded<K>>) -> Vec<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let objects = store.state();
    objects
        .iter()
        .filter_map(|object| object.decoded().cloned())
        .collect()
}

fn is_invalid<K>(object: &MaybeDecoded<K>) -> bool {
    object.0.is_err()
}

/// Metadata can always be decoded.
fn never_invalid<K>(_: &K) -> bool {
    false
}
