//! What the registry loop remembers between passes. All of it is found again by a process that remembers nothing; it saves
//! questions to the chain, and makes a few reports better.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use alloy::primitives::{Address, B256};

use crate::api::{Key, Nonce};
use crate::chain::scan::ScanStep;
use crate::ledger::index::OwnerIndex;
use crate::reconcile::issues::OfferName;

/// RegistryStates of all registries, by name.
#[derive(Clone, Debug, Default)]
pub struct RegistryStates(Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<RegistryState>>>>>);

impl RegistryStates {
    /// The state of one registry.
    #[must_use]
    pub fn of(&self, registry: &str) -> Arc<tokio::sync::Mutex<RegistryState>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(registry.to_owned()).or_default())
    }
}

/// What an index is an index of. Of anything else it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexOf {
    pub(super) chain_id: u64,
    pub(super) genesis_hash: B256,
    pub(super) registry: Address,
    pub(super) owner: Address,
}

/// What is remembered of one registry.
#[derive(Debug, Default)]
pub struct RegistryState {
    /// The owner-log index, and the step in which it grows.
    pub(super) index: Option<(IndexOf, Arc<OwnerIndex>, ScanStep)>,
    /// Highest `next` seen of each account's ledger.
    pub(super) seen: HashMap<(u64, Address), Nonce>,
    /// The latest block when each transaction was last sent.
    pub(super) sent: HashMap<B256, u64>,
    /// When each key was first sent.
    pub(super) first_sent: HashMap<Key, SystemTime>,
    /// Since when no offer uses each agent.
    pub(super) unused: HashMap<Key, Instant>,
    /// What was found of another controller's registration of each offer's generation, and when.
    pub(super) legacy: HashMap<(OfferName, Option<i64>), (Instant, Option<String>)>,
    /// First block of the last 24 hours, and when that was found out.
    pub(super) day: Option<(u64, Instant)>,
    /// Reason of the freeze that was last reported.
    pub(super) frozen: Option<&'static str>,
    /// When the status was last written.
    pub(super) told: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_registry_has_one_memory_whoever_asks() {
        let registry_states = RegistryStates::default();
        registry_states.clone().of("a").lock().await.frozen = Some("LedgerLost");
        assert_eq!(
            registry_states.of("a").lock().await.frozen,
            Some("LedgerLost")
        );
        assert_eq!(registry_states.of("b").lock().await.frozen, None);
    }
}
