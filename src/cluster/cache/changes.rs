//! What the cache reports to the reconcile loops when a watch delivers an object.

use kube::ResourceExt;

use crate::api::AgentRegistration;

/// An object of the cache was created, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheChange {
    Offer {
        namespace: String,
        name: String,
    },
    Registry(String),
    /// A record, with the namespace and name of each offer that it lists.
    Record {
        name: String,
        offers: Vec<(String, String)>,
    },
    Namespace(String),
    Service {
        namespace: String,
        name: String,
    },
}

impl CacheChange {
    pub(super) fn offer(offer: &impl ResourceExt) -> Self {
        Self::Offer {
            namespace: offer.namespace().unwrap_or_default(),
            name: offer.name_any(),
        }
    }

    pub(super) fn service(service: &impl ResourceExt) -> Self {
        Self::Service {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
        }
    }
}

/// Namespace and name of each offer that a record lists.
pub(super) fn listed_offers(record: &AgentRegistration) -> Vec<(String, String)> {
    let offers = record.spec.offers.iter();
    offers
        .map(|offer| (offer.namespace.clone(), offer.name.clone()))
        .collect()
}
