//! A cache of every kind that decisions and documents need, filled by one watch per kind on every
//! replica.
//!
//! - [`watch`] fills the stores and reports a [`CacheChange`] for every object that changed
//! - [`table`] keeps one small value of each record, namespace, Service and ReferenceGrant
//! - [`service`] and [`grant`] say what is kept of the last two
//! - [`users`] finds the records that list an offer
//! - [`catch_up`] waits until the stores are as new as the API server was
//!
//! The cache lags behind the API server. It decides what to reconcile and what to report; decisions
//! that can spend money read from the API server again. An object is trimmed to what is read from
//! it, so nothing that is written comes from here: a record has no metadata, and the bytes of its
//! transactions are missing. An object that cannot be decoded stays in the cache as a
//! [`MaybeDecoded`], so that it does not block the others.

mod catch_up;
mod changes;
#[cfg(test)]
pub(crate) mod fixtures;
mod grant;
mod sale_edit;
mod service;
mod table;
mod users;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub use self::changes::CacheChange;
use self::changes::Changes;
pub use self::grant::Grant;
pub(crate) use self::sale_edit::SaleEdit;
pub use self::service::{ServiceFacts, ServiceForm};
use self::table::Table;
use self::users::OfferUsers;
use self::watch::Watches;
pub(super) use self::watch::list_and_watch;
use super::{MaybeDecoded, Reader};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, ConditionStatus, DEFAULT_REGISTRY_ANNOTATION,
    IdentityRegistry, Key, PAUSED_ANNOTATION, PaymentFacilitator, ServiceOffer, SignerLedger,
    condition,
};
use crate::metrics::{Label, Metrics, OfferCondition, OfferCounts, WatchedKind};

/// A record without the bytes of its transactions; `None` if it cannot be decoded.
type CachedRecord = Option<Arc<AgentRegistrationSpec>>;

/// A ledger; `None` if it cannot be decoded.
type CachedLedger = Option<Arc<SignerLedger>>;

/// Labels of a namespace; `None` while it is being deleted.
type Labels = Option<Arc<BTreeMap<String, String>>>;

/// Who uses a cache, which decides what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    /// The operator: every kind.
    Controller,
    /// The gate: every kind but ledgers, which say nothing about what is for sale.
    Gate,
}

/// One store per kind. All clones are the same cache.
#[derive(Clone)]
pub struct Cache {
    offers: Store<MaybeDecoded<ServiceOffer>>,
    registries: Store<MaybeDecoded<IdentityRegistry>>,
    facilitators: Store<MaybeDecoded<PaymentFacilitator>>,
    records: Table<CachedRecord>,
    ledgers: Table<CachedLedger>,
    namespaces: Table<Labels>,
    services: Table<Arc<ServiceFacts>>,
    grants: Table<Grant>,
    users: OfferUsers,
    changes: Changes,
    /// Ends when every kind has been listed. It is shared because a store wakes only the last one of
    /// the tasks that wait for it.
    synced: Shared<BoxFuture<'static, ()>>,
}

impl Cache {
    /// A cache, and the watches that fill it. A watch ends only if it panics.
    #[must_use]
    pub fn start(client: &Client, metrics: &Metrics, scope: CacheScope) -> (Self, JoinSet<()>) {
        let changes = Changes::default();
        let mut watches = Watches {
            client,
            metrics,
            changes: changes.clone(),
            tasks: JoinSet::new(),
        };
        let users = OfferUsers::default();
        let offers = watches.watch(
            WatchedKind::ServiceOffer,
            trim_offer,
            is_undecodable,
            CacheChange::offer,
        );
        let registries = watches.watch(
            WatchedKind::IdentityRegistry,
            trim_registry,
            is_undecodable,
            {
                let chains = metrics.chain.clone();
                move |registry: &MaybeDecoded<IdentityRegistry>| {
                    if let Some(registry) = registry.decoded() {
                        chains.track(registry.spec.chain_id);
                    }
                    CacheChange::Registry(registry.name_any())
                }
            },
        );
        let facilitators = watches.watch(
            WatchedKind::PaymentFacilitator,
            trim_facilitator,
            is_undecodable,
            |facilitator| CacheChange::Facilitator(facilitator.name_any()),
        );
        let records = watches.table(
            WatchedKind::AgentRegistration,
            {
                let users = users.clone();
                move |record: &MaybeDecoded<AgentRegistration>| {
                    let spec = trimmed_record(&record.decoded()?.spec);
                    users.insert(&record.name_any(), &changes::listed_offers(&spec));
                    Some(Arc::new(spec))
                }
            },
            is_undecodable,
            None,
            |_, record| CacheChange::record(record.as_deref()),
        );
        let ledgers = match scope {
            CacheScope::Gate => Table::default(),
            CacheScope::Controller => watches.table(
                WatchedKind::SignerLedger,
                |ledger: &MaybeDecoded<SignerLedger>| {
                    let mut ledger = Arc::clone(ledger.decoded()?);
                    Arc::make_mut(&mut ledger).metadata.managed_fields = None;
                    Some(ledger)
                },
                is_undecodable,
                Some(CacheChange::LedgersInterrupted),
                |ledger, _| CacheChange::ledger(ledger),
            ),
        };
        let namespaces = watches.table(
            WatchedKind::Namespace,
            labels_of,
            |_| false,
            None,
            |namespace, _| CacheChange::namespace(namespace),
        );
        let services = watches.table(
            WatchedKind::Service,
            |service: &Service| Arc::new(ServiceFacts::of(service)),
            |_| false,
            None,
            |service, _| CacheChange::service(service),
        );
        let grants = watches.optional_table(WatchedKind::ReferenceGrant, Grant::of, |grant, _| {
            CacheChange::grant(grant)
        });
        let tasks = watches.tasks;
        let synced = {
            let (offers, registries) = (offers.clone(), registries.clone());
            let (facilitators, records) = (facilitators.clone(), records.clone());
            let (namespaces, services) = (namespaces.clone(), services.clone());
            let (ledgers, grants) = (ledgers.clone(), grants.clone());
            async move {
                let ledgers = async {
                    if scope == CacheScope::Controller {
                        ledgers.listed().await;
                    }
                };
                // A store fails only if its watch is gone. The process exits then, and the result does
                // not matter.
                let _ = futures::join!(
                    offers.wait_until_ready(),
                    registries.wait_until_ready(),
                    facilitators.wait_until_ready(),
                    records.listed(),
                    ledgers,
                    namespaces.listed(),
                    services.listed(),
                    grants.listed(),
                );
            }
        };
        (
            Self {
                offers,
                registries,
                facilitators,
                records,
                ledgers,
                namespaces,
                services,
                grants,
                users,
                changes,
                synced: synced.boxed().shared(),
            },
            tasks,
        )
    }

    /// Waits until every kind has been listed. Any number of tasks may wait.
    pub async fn synced(&self) {
        self.synced.clone().await;
    }

    /// Waits until every store holds all that the API server stored when this was called. Grants
    /// are left out: their kind may not exist, and the operator writes nothing that depends on the
    /// newest ones. Only a cache of [`CacheScope::Controller`] can catch up.
    pub async fn catch_up(&self, reader: &Reader) {
        futures::join!(
            catch_up::catch_up::<ServiceOffer>(&self.offers, reader),
            catch_up::catch_up::<IdentityRegistry>(&self.registries, reader),
            catch_up::catch_up::<PaymentFacilitator>(&self.facilitators, reader),
            catch_up::catch_up::<AgentRegistration>(&self.records, reader),
            catch_up::catch_up::<SignerLedger>(&self.ledgers, reader),
            catch_up::catch_up::<Namespace>(&self.namespaces, reader),
            catch_up::catch_up::<Service>(&self.services, reader),
        );
    }

    /// Every change from now on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<CacheChange> {
        self.changes.subscribe()
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.changes.count()
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

    /// Every facilitator that can be decoded.
    #[must_use]
    pub fn facilitators(&self) -> Vec<Arc<PaymentFacilitator>> {
        decoded(&self.facilitators)
    }

    /// A facilitator, if it can be decoded.
    #[must_use]
    pub fn facilitator(&self, name: &str) -> Option<Arc<PaymentFacilitator>> {
        let facilitator = self.facilitators.get(&ObjectRef::new(name))?;
        facilitator.decoded().cloned()
    }

    /// The store of facilitators, for a reconcile loop.
    #[must_use]
    pub fn facilitator_store(&self) -> Store<MaybeDecoded<PaymentFacilitator>> {
        self.facilitators.clone()
    }

    /// Every record that can be decoded, without the bytes of its transactions.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<AgentRegistrationSpec>> {
        self.records.values().into_iter().flatten().collect()
    }

    /// The record of a key, if it can be decoded, without the bytes of its transactions.
    #[must_use]
    pub fn record(&self, key: Key) -> Option<Arc<AgentRegistrationSpec>> {
        self.records.get(None, &key.record_name())?
    }

    /// Whether the record of a key exists and cannot be decoded.
    #[must_use]
    pub fn record_is_undecodable(&self, key: Key) -> bool {
        self.records.get(None, &key.record_name()) == Some(None)
    }

    /// Records that list an offer, if they can be decoded.
    #[must_use]
    pub fn records_of(&self, offer: &(String, String)) -> Vec<Arc<AgentRegistrationSpec>> {
        let names = self.users.records_of(offer);
        let records = names
            .iter()
            .filter_map(|name| self.records.get(None, name)?);
        let lists_offer = |record: &Arc<AgentRegistrationSpec>| {
            let mut offers = record.offers.iter();
            offers.any(|listed| listed.namespace == offer.0 && listed.name == offer.1)
        };
        records.filter(lists_offer).collect()
    }

    /// Every ledger that can be decoded.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Arc<SignerLedger>> {
        self.ledgers.values().into_iter().flatten().collect()
    }

    /// A ledger, if it can be decoded.
    #[must_use]
    pub fn ledger(&self, name: &str) -> Option<Arc<SignerLedger>> {
        self.ledgers.get(None, name)?
    }

    /// Labels of a namespace; `None` if it does not exist or is being deleted.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.namespaces.get(None, name)?
    }

    /// Whether a Service exists.
    #[must_use]
    pub fn service_exists(&self, namespace: &str, name: &str) -> bool {
        self.services.get(Some(namespace), name).is_some()
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

/// What the gate reads to compile offers into routes.
impl Cache {
    /// Where a Service leads; `None` if it does not exist.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceFacts>> {
        self.services.get(Some(namespace), name)
    }

    /// Grants of a namespace: who may refer to its objects.
    #[must_use]
    pub fn grants(&self, namespace: &str) -> Vec<Grant> {
        self.grants.values_in(namespace)
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

fn is_undecodable<K>(object: &MaybeDecoded<K>) -> bool {
    object.0.is_err()
}

/// Drops the metadata of an offer that is not read: all but the annotation that pauses it, and who else
/// writes its conditions about selling.
fn trim_offer(offer: &mut MaybeDecoded<ServiceOffer>) {
    let metadata = offer.meta_mut();
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name == PAUSED_ANNOTATION);
    }
    metadata.labels = None;
    metadata.managed_fields = sale_edit::others(metadata.managed_fields.take());
    metadata.owner_references = None;
}

/// Drops the metadata of a registry that is not read: all but the annotation of the default.
fn trim_registry(registry: &mut MaybeDecoded<IdentityRegistry>) {
    let metadata = registry.meta_mut();
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name == DEFAULT_REGISTRY_ANNOTATION);
    }
    metadata.labels = None;
    metadata.managed_fields = None;
    metadata.owner_references = None;
}

/// Drops the metadata of a facilitator that is not read.
fn trim_facilitator(facilitator: &mut MaybeDecoded<PaymentFacilitator>) {
    let metadata = facilitator.meta_mut();
    metadata.annotations = None;
    metadata.labels = None;
    metadata.managed_fields = None;
    metadata.owner_references = None;
}

/// A record without the bytes of its transactions: before they are sent, the record is read.
fn trimmed_record(record: &AgentRegistrationSpec) -> AgentRegistrationSpec {
    let mut trimmed = record.clone();
    for attempt in &mut trimmed.attempts {
        attempt.raw = None;
    }
    trimmed
}

fn labels_of(namespace: &PartialObjectMeta<Namespace>) -> Labels {
    if namespace.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Arc::new(namespace.labels().clone()))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tokio::time::{sleep, timeout};
    use tower::{BoxError, service_fn};

    use super::*;

    /// An empty list of any kind, after a while.
    async fn serve(request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let query = request.uri().query().unwrap_or_default();
        if query.contains("watch=true") {
            return pending().await;
        }
        sleep(Duration::from_secs(1)).await;
        let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [] });
        Ok(Response::new(Body::from(serde_json::to_vec(&list)?)))
    }

    #[tokio::test(start_paused = true)]
    async fn every_task_that_waits_learns_that_the_cache_is_synced() {
        for scope in [CacheScope::Controller, CacheScope::Gate] {
            let client = Client::new(service_fn(serve), "default");
            let metrics = Metrics::new("operator/lease").unwrap();
            let (cache, _watches) = Cache::start(&client, &metrics, scope);
            let mut waiting = JoinSet::new();
            for _ in 0..3 {
                let cache = cache.clone();
                waiting.spawn(async move { cache.synced().await });
            }
            let all = timeout(Duration::from_secs(10), waiting.join_all());
            assert!(all.await.is_ok(), "{scope:?}");
        }
    }

    #[test]
    fn trimmed_objects_keep_what_is_read_from_them() {
        let annotations = json!({ "obol.org/is-default-registry": "true", "other": "x" });
        let metadata = json!({
            "name": "idr", "generation": 3, "annotations": annotations,
            "labels": { "a": "b" }, "managedFields": [{}],
        });
        let spec = json!({
            "chainId": 1, "rpc": [], "baseUrl": "https://x", "allowedNamespaces": { "from": "All" },
        });
        let registry = json!({ "metadata": metadata, "spec": spec });
        let mut registry = serde_json::from_value(registry).unwrap();
        trim_registry(&mut registry);
        let metadata = registry.meta();
        assert_eq!(metadata.annotations.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!((&metadata.labels, &metadata.managed_fields), (&None, &None));
        assert_eq!(metadata.generation, Some(3));

        let annotations = json!({ "obol.org/paused": "true", "other": "x" });
        let metadata =
            json!({ "name": "chat", "annotations": annotations, "labels": { "a": "b" } });
        let offer = json!({ "metadata": metadata, "spec": {} });
        let mut offer = serde_json::from_value(offer).unwrap();
        trim_offer(&mut offer);
        let kept = offer.meta().annotations.clone().unwrap_or_default();
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["obol.org/paused"]);
        assert_eq!(offer.meta().labels, None);
    }

    #[test]
    fn namespace_that_is_being_deleted_has_no_labels() {
        let namespace = |metadata: serde_json::Value| {
            let namespace = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            labels_of(&namespace)
        };
        let labels = namespace(json!({ "labels": { "team": "red" } })).unwrap();
        assert_eq!(labels["team"], "red");
        let deleted = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert_eq!(namespace(deleted), None);
    }
}
