//! State kept between passes. All of it can be rebuilt: it saves RPC calls and improves a few
//! reports.
//!
//! A new leader starts without it, so safety never depends on it. What must survive is in records
//! and ledgers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use alloy::primitives::{Address, B256};

use crate::api::{Key, Nonce};
use crate::chain::scan::ScanStep;
use crate::ledger::index::OwnerIndex;
use crate::reconcile::issues::OfferName;

/// State of all registries, by name. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryStates(
    Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<RegistryState>>>>>,
);

impl RegistryStates {
    #[must_use]
    pub(crate) fn of(&self, registry: &str) -> Arc<tokio::sync::Mutex<RegistryState>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(registry.to_owned()).or_default())
    }
}

/// What an index covers. It proves nothing about any other chain, contract or owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexOf {
    pub(super) chain_id: u64,
    pub(super) genesis_hash: B256,
    pub(super) registry: Address,
    pub(super) owner: Address,
}

#[derive(Debug, Default)]
pub(crate) struct RegistryState {
    /// The owner-log index, and its current scan step.
    pub(super) index: Option<(IndexOf, Arc<OwnerIndex>, ScanStep)>,
    /// Highest `next` read from each account's ledger.
    pub(super) seen: HashMap<(u64, Address), Nonce>,
    /// Latest block at the time when each transaction was last sent.
    pub(super) sent: HashMap<B256, u64>,
    /// When the first transaction of each key was sent.
    pub(super) first_sent: HashMap<Key, SystemTime>,
    /// Since when each agent has been unused.
    pub(super) unused: HashMap<Key, Instant>,
    /// What the legacy controller registered for each generation of an offer, and when that was
    /// checked.
    pub(super) legacy: HashMap<(OfferName, Option<i64>), (Instant, Option<String>)>,
    /// First block of the last 24 hours, and when it was searched.
    pub(super) day: Option<(u64, Instant)>,
    /// Reason of the freeze that was last reported.
    pub(super) frozen: Option<&'static str>,
    /// When the status was last written.
    pub(super) status_written: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clones_share_one_state_per_registry() {
        let registry_states = RegistryStates::default();
        registry_states.clone().of("a").lock().await.frozen = Some("LedgerLost");
        assert_eq!(
            registry_states.of("a").lock().await.frozen,
            Some("LedgerLost")
        );
        assert_eq!(registry_states.of("b").lock().await.frozen, None);
    }
}
