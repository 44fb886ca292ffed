//! A cache for unit tests, filled by no watch.

use std::sync::Arc;

use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;

use super::changes::{Changes, listed_offers};
use super::table::Table;
use super::users::OfferUsers;
use super::{Cache, CacheScope, Grant, ServiceFacts, ServiceForm, trimmed_record};
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
    /// Namespaces and names of Services, which lead to [`service_facts`].
    pub(crate) services: Vec<(&'static str, &'static str)>,
    /// Namespaces and names of other Services.
    pub(crate) other_services: Vec<(&'static str, &'static str, ServiceFacts)>,
    /// Namespaces and their grants.
    pub(crate) grants: Vec<(&'static str, Grant)>,
}

/// A Service with an address and a selector, on ports 80 and 8080.
pub(crate) fn service_facts() -> ServiceFacts {
    ServiceFacts {
        form: ServiceForm::ClusterIp([10, 43, 0, 7].into()),
        ports: vec![80, 8080],
        has_selector: true,
        offers_from: Default::default(),
    }
}

impl Cache {
    pub(crate) fn holding(objects: CachedObjects) -> Self {
        let cache = Self {
            scope: CacheScope::Controller,
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
        let services = objects.services.into_iter();
        let services = services.map(|(namespace, name)| (namespace, name, service_facts()));
        for (namespace, name, facts) in services.chain(objects.other_services) {
            let name = (Some(namespace.to_owned()), name.to_owned());
            cache.services.apply(name, version(), Arc::new(facts));
        }
        for (index, (namespace, grant)) in objects.grants.into_iter().enumerate() {
            let name = (Some(namespace.to_owned()), index.to_string());
            cache.grants.apply(name, version(), grant);
        }
        cache
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
