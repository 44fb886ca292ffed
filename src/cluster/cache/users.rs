//! Reverse index from offers to the records that list them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

type RecordsByOffer = HashMap<(String, String), BTreeSet<String>>;

/// Names of the records that have ever listed an offer, by namespace and name of the offer. It may
/// name a record too many, never one too few: callers check the record itself. All clones are the
/// same index.
#[derive(Clone, Default)]
pub(super) struct OfferUsers(Arc<Mutex<RecordsByOffer>>);

impl OfferUsers {
    pub(super) fn insert(&self, record: &str, offers: &[(String, String)]) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for offer in offers {
            let records = users.entry(offer.clone()).or_default();
            records.insert(record.to_owned());
        }
    }

    pub(super) fn records_of(&self, offer: &(String, String)) -> BTreeSet<String> {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(offer).cloned().unwrap_or_default()
    }
}
