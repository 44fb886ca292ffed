//! Continuous load for the leader: offers are created and changed, so that it keeps writing
//! records, ledgers, statuses and transactions.

use std::convert::Infallible;
use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::objects::{Objects, offer};

/// The namespace of the offers.
pub const SHOP: &str = "shop";
/// Between two writes.
const INTERVAL: Duration = Duration::from_millis(80);
/// Changes for each offer that is created.
const CHANGES: u32 = 20;
/// Upper limit of offers: the ledger reads all records at each pass.
const OFFERS: u32 = 250;
/// Offers that a burst changes at once.
const BURST: u32 = 16;
/// Timeout of a request. The API server is unavailable at times.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Changes many offers at once, so that the leader has many requests in flight a moment later.
pub fn update_burst(objects: &Objects, rng: &mut StdRng) {
    for number in 0..BURST {
        let (offers, change) = (objects.offers(SHOP), price(rng));
        tokio::spawn(async move {
            let name = format!("offer-{number}");
            tokio::time::timeout(
                REQUEST_TIMEOUT,
                offers.patch(&name, &PatchParams::default(), &change),
            )
            .await
            .is_ok()
        });
    }
}

/// A patch that changes an offer's price.
fn price(rng: &mut StdRng) -> Patch<Value> {
    let price = format!("0.{:04}", rng.random_range(1..10_000));
    Patch::Merge(json!({ "spec": { "payment": { "price": { "perRequest": price } } } }))
}

/// Creates and changes offers until it is dropped.
pub async fn offer_load(objects: Objects, seed: u64) -> Infallible {
    let mut rng = StdRng::seed_from_u64(seed);
    let offers = objects.offers(SHOP);
    let mut created = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let name = |number: u32| format!("offer-{number}");
        // A request without an answer may or may not have been stored. Either is fine: only offers
        // that exist are counted.
        if created < OFFERS && (created < BURST || rng.random_range(0..=CHANGES) == 0) {
            let new =
                serde_json::from_value(offer(SHOP, &name(created))).expect("an offer deserializes");
            let _ =
                tokio::time::timeout(REQUEST_TIMEOUT, offers.create(&PostParams::default(), &new))
                    .await;
            created += 1;
        } else {
            let change = price(&mut rng);
            let (name, parameters) = (name(rng.random_range(0..created)), PatchParams::default());
            let _ =
                tokio::time::timeout(REQUEST_TIMEOUT, offers.patch(&name, &parameters, &change))
                    .await;
        }
    }
}
