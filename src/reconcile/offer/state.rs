//! What the offer loop keeps of each offer between reconciles.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::OtherGate;
use crate::api::ServiceOfferStatus;

/// What is kept of one offer.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfferState {
    /// The status last applied, until the cache shows it.
    ///
    /// A field that another controller owns keeps its value whatever is applied. Without this, it
    /// would look like a difference indefinitely and cause a write in every reconcile. The cache may
    /// also lag behind the last write.
    pub(super) applied: Option<ServiceOfferStatus>,
    /// What is known of another controller that sells the offer.
    pub(super) other_gate: OtherGate,
}

/// The states of all offers, by uid. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfferStates(Arc<Mutex<BTreeMap<String, OfferState>>>);

impl OfferStates {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, OfferState>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, uid: &str) -> OfferState {
        self.with(|states| states.get(uid).cloned().unwrap_or_default())
    }

    pub(super) fn set(&self, uid: &str, state: OfferState) {
        self.with(|states| states.insert(uid.to_owned(), state));
    }

    /// Drops offers that no longer exist.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.with(|states| states.retain(|uid, _| exists(uid)));
    }
}
