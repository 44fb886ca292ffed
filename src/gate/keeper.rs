//! Keeps the table current: compiles it when something that it is made of changes, and not when a
//! status is written. Gate and operator both run it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info;

use super::table::{GateSettings, OfferTable, compile};
use super::unix_seconds;
use crate::api::{SupportedKind, TokenFacts};
use crate::cluster::{Cache, CacheChange};
use crate::metrics::GateMetrics;

/// How long changes are collected before the table is compiled.
const COLLECT: Duration = Duration::from_millis(50);

/// A table, and the version of the cache that it shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptTable {
    pub(crate) table: Arc<OfferTable>,
    pub(crate) version: u64,
    /// Whether the table was compiled. The first one is empty because nothing is known yet.
    pub(crate) is_compiled: bool,
}

/// Keeps the table of a cache for as long as it is read.
pub(crate) async fn keep(
    cache: Cache,
    settings: GateSettings,
    metrics: GateMetrics,
    kept: watch::Sender<KeptTable>,
) {
    let mut changes = cache.changes();
    cache.synced().await;
    let mut known = TableDigests::default();
    let mut must_compile = true;
    loop {
        // Read first: what changes while the table is compiled is not in it.
        let version = cache.version();
        if must_compile {
            let begun = Instant::now();
            let mut table = compile(&cache, &settings);
            table.honor(&kept.borrow().table, unix_seconds());
            metrics.table_built(begun.elapsed());
            let table = Arc::new(table);
            if table.digest != kept.borrow().table.digest {
                info!(
                    open = table.count_open(),
                    digest = table.digest,
                    "table changed"
                );
            }
            kept.send_replace(KeptTable {
                table,
                version,
                is_compiled: true,
            });
        } else {
            kept.send_modify(|kept| kept.version = version);
        }
        must_compile = match changes.recv().await {
            Ok(change) => known.matters(&cache, &change),
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return,
        };
        if must_compile {
            sleep(COLLECT).await;
        }
        loop {
            match changes.try_recv() {
                Ok(change) => must_compile |= known.matters(&cache, &change),
                Err(TryRecvError::Lagged(_)) => must_compile = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }
}

/// What the last table was made of, as far as changes differ in it.
#[derive(Default)]
struct TableDigests {
    offers: HashMap<(String, String), Option<OfferDigest>>,
    facilitators: HashMap<String, Option<FacilitatorDigest>>,
    registries: HashMap<String, Option<i64>>,
}

/// Of an offer: uid, generation, and whether it is being deleted, off sale, or sold by another
/// controller.
type OfferDigest = (Option<String>, Option<i64>, [bool; 3]);
/// Of a facilitator: uid, generation, and what it settles and knows.
type FacilitatorDigest = (
    Option<String>,
    Option<i64>,
    Vec<SupportedKind>,
    Vec<TokenFacts>,
);

impl TableDigests {
    /// Whether a change may change the table.
    fn matters(&mut self, cache: &Cache, change: &CacheChange) -> bool {
        match change {
            CacheChange::Offer { namespace, name } => {
                let digest = cache.offer(namespace, name).map(|offer| {
                    let metadata = &offer.metadata;
                    let is_deleted = metadata.deletion_timestamp.is_some();
                    let closes = [is_deleted, offer.is_paused(), offer.has_other_gate()];
                    (offer.uid(), metadata.generation, closes)
                });
                let name = (namespace.clone(), name.clone());
                self.offers.insert(name, digest.clone()) != Some(digest)
            }
            CacheChange::Facilitator(name) => {
                let digest = cache.facilitator(name).map(|facilitator| {
                    let status = facilitator.status.clone().unwrap_or_default();
                    let generation = facilitator.metadata.generation;
                    (facilitator.uid(), generation, status.kinds, status.assets)
                });
                self.facilitators.insert(name.clone(), digest.clone()) != Some(digest)
            }
            CacheChange::Registry(name) => {
                let generation = cache
                    .registry(name)
                    .map(|registry| registry.metadata.generation.unwrap_or_default());
                self.registries.insert(name.clone(), generation) != Some(generation)
            }
            CacheChange::Service { namespace, name } => cache.offers().iter().any(|offer| {
                let upstream = offer.spec.upstream.as_ref();
                upstream.is_some_and(|upstream| {
                    upstream.namespace == *namespace && upstream.service == *name
                })
            }),
            CacheChange::Namespace(_) | CacheChange::Grant { .. } => true,
            // An offer stays with the registry of its record, so no record moves it.
            CacheChange::Record { .. }
            | CacheChange::Ledger(_)
            | CacheChange::LedgersInterrupted => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::cache::fixtures::CachedObjects;
    use crate::gate::table::tests::sold;

    /// Whether the table is compiled again after `shop/chat` changed from one state to another.
    fn matters(before: Value, after: Value) -> bool {
        let mut known = TableDigests::default();
        let change = CacheChange::Offer {
            namespace: "shop".into(),
            name: "chat".into(),
        };
        let mut see = |over| {
            let objects = CachedObjects {
                offers: vec![sold("shop", "chat", over)],
                ..CachedObjects::default()
            };
            known.matters(&Cache::holding(objects), &change)
        };
        assert!(see(before), "an offer that was not known");
        see(after)
    }

    #[test]
    fn table_follows_what_closes_an_offer_and_nothing_else_of_its_status() {
        let paused =
            |value: &str| json!({ "metadata": { "annotations": { "obol.org/paused": value } } });
        assert!(matters(paused("false"), paused("true")));
        assert!(matters(paused("true"), json!({})));
        assert!(!matters(json!({}), json!({ "status": { "agentId": "7" } })));
        let stalled = |reason: &str| {
            let stalled = json!({ "type": "Stalled", "status": "True", "reason": reason });
            json!({ "status": { "conditions": [stalled] } })
        };
        assert!(matters(stalled("OtherGate"), stalled("Drained")));
        assert!(!matters(json!({}), stalled("Drained")));
    }
}
