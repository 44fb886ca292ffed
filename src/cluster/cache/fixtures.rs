//! A cache for unit tests, filled by no watch.

use std::sync::Arc;

use futures::FutureExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;

use super::changes::{Changes, listed_offers};
use super::table::Table;
use super::users::OfferUsers;
use super::{Cache, Grant, ServiceFacts, ServiceForm, trimmed_record};
use crate::api::{
    AgentRegistration, IdentityRegistry, Key, PaymentFacilitator, ServiceOffer, SignerLedger,
};
use crate::cluster::MaybeDecoded;
use crate::leader::lease::ResourceVersion;

/// What a cache holds.
#[derive(Default)]
pub(crate) struct CachedObjects {
    pub(crate) offers: Vec<ServiceOffer>,
    pub(crate) registries: Vec<IdentityRegistry>,
    pub(crate) records: Vec<AgentRegistration>,
    /// Keys of records that cannot be decoded.
    pub(crate) undecodable: Vec<Key>,
    /// Names of namespaces, which have no labels.
    pub(crate) namespaces: Vec<&'static str>,
    pub(crate) facilitators: Vec<PaymentFacilitator>,
    /// Namespaces and names of Services, with TCP ports 80 and 11434.
    pub(crate) services: Vec<(&'static str, &'static str)>,
}

impl Cache {
    pub(crate) fn holding(objects: CachedObjects) -> Self {
        let cache = Self {
            offers: stored(objects.offers),
            registries: stored(objects.registries),
            facilitators: stored(objects.facilitators),
            records: Table::default(),
            ledgers: Table::default(),
            namespaces: Table::default(),
            services: Table::default(),
            grants: Table::default(),
            users: OfferUsers::default(),
            changes: Changes::default(),
            synced: async {}.boxed().shared(),
        };
        let version = ResourceVersion::default;
        for record in objects.records {
            let name = record.spec.key.record_name();
            cache.users.insert(&name, &listed_offers(&record.spec));
            let spec = Some(Arc::new(trimmed_record(&record.spec)));
            cache.records.apply((None, name), version(), spec);
        }
        for key in objects.undecodable {
            let name = (None, key.record_name());
            cache.records.apply(name, version(), None);
        }
        for namespace in objects.namespaces {
            let labels = Some(Arc::default());
            let name = (None, namespace.to_owned());
            cache.namespaces.apply(name, version(), labels);
        }
        for (namespace, name) in objects.services {
            cache.show_service(namespace, name, |_| {});
        }
        cache
    }

    /// Shows a Service that is like any other but for a change.
    pub(crate) fn show_service(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut ServiceFacts),
    ) {
        let mut facts = ServiceFacts {
            form: ServiceForm::ClusterIp([10, 96, 0, 7].into()),
            ports: vec![80, 11434],
            has_selector: true,
            offers_from: Default::default(),
        };
        change(&mut facts);
        let name = (Some(namespace.to_owned()), name.to_owned());
        self.services
            .apply(name, ResourceVersion::default(), Arc::new(facts));
    }

    /// Shows a ReferenceGrant.
    pub(crate) fn show_grant(&self, namespace: &str, name: &str, grant: Grant) {
        let name = (Some(namespace.to_owned()), name.to_owned());
        self.grants.apply(name, ResourceVersion::default(), grant);
    }

    /// Shows a ledger, as a watch does.
    pub(crate) fn show_ledger(&self, ledger: SignerLedger) {
        let name = (None, ledger.metadata.name.clone().unwrap_or_default());
        let change = super::CacheChange::ledger(&name);
        let version = ResourceVersion::default();
        self.ledgers.apply(name, version, Some(Arc::new(ledger)));
        self.changes.report(change);
    }

    /// Reports that the watch of ledgers failed.
    pub(crate) fn interrupt_ledgers(&self) {
        self.changes.report(super::CacheChange::LedgersInterrupted);
    }
}

fn stored<K>(objects: Vec<K>) -> Store<MaybeDecoded<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    for object in objects {
        let object = MaybeDecoded(Ok(Arc::new(object)));
        writer.apply_watcher_event(&Event::Apply(object));
    }
    store
}
