//! What the cache reports to the reconcile loops when a watch delivers an object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy::primitives::Address;
use kube::ResourceExt;
use tokio::sync::broadcast;

use crate::api::AgentRegistrationSpec;
use crate::cluster::read::ObjectKey;

/// Changes that a listener may lag behind; one that lags further looks at every object instead.
const BACKLOG: usize = 4096;

/// An object of the cache was created, changed or deleted. Of namespaces, Services and records,
/// only changes of what the cache keeps of them are reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheChange {
    Offer {
        namespace: String,
        name: String,
    },
    Registry(String),
    Record {
        /// Chain id and address of its registry contract; `None` if it cannot be decoded.
        contract: Option<(u64, Address)>,
        /// Namespace and name of each offer that it lists.
        offers: Vec<(String, String)>,
    },
    Ledger(String),
    /// The watch of ledgers failed. The API server may have been restored since, and then a watch
    /// that continues at its last version shows nothing for a long time.
    LedgersInterrupted,
    Namespace(String),
    Facilitator(String),
    /// A ReferenceGrant of this namespace.
    Grant {
        namespace: String,
    },
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

    pub(super) fn record(record: Option<&AgentRegistrationSpec>) -> Self {
        Self::Record {
            contract: record.map(|record| (record.chain_id, record.registry.address)),
            offers: record.map(listed_offers).unwrap_or_default(),
        }
    }

    pub(super) fn ledger((_, name): &ObjectKey) -> Self {
        Self::Ledger(name.clone())
    }

    pub(super) fn namespace((_, name): &ObjectKey) -> Self {
        Self::Namespace(name.clone())
    }

    pub(super) fn grant((namespace, _): &ObjectKey) -> Self {
        Self::Grant {
            namespace: namespace.clone().unwrap_or_default(),
        }
    }

    pub(super) fn service((namespace, name): &ObjectKey) -> Self {
        Self::Service {
            namespace: namespace.clone().unwrap_or_default(),
            name: name.clone(),
        }
    }
}

/// Namespace and name of each offer that a record lists.
pub(super) fn listed_offers(record: &AgentRegistrationSpec) -> Vec<(String, String)> {
    let offers = record.offers.iter();
    offers
        .map(|offer| (offer.namespace.clone(), offer.name.clone()))
        .collect()
}

/// Reports and counts changes. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    sender: broadcast::Sender<CacheChange>,
    count: Arc<AtomicU64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG),
            count: Arc::default(),
        }
    }
}

impl Changes {
    /// Reports a change that the cache shows by now.
    pub(super) fn report(&self, change: CacheChange) {
        self.count.fetch_add(1, Ordering::Release);
        // Sending fails if no loop listens. A loop that starts to listen looks at every object
        // first.
        drop(self.sender.send(change));
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<CacheChange> {
        self.sender.subscribe()
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}
