//! Work without end for whoever leads: offers are made and changed, so that records, ledgers, statuses and transactions are
//! written all the time.

use std::convert::Infallible;
use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::objects::{Objects, offer};

/// Where offers are made.
pub const SHOP: &str = "shop";
/// Between two changes of an offer.
const PAUSE: Duration = Duration::from_millis(80);
/// So many changes for each offer that is made.
const CHANGES: u32 = 20;
/// So many offers at most: the ledger reads all records at each turn.
const OFFERS: u32 = 250;
/// So many offers are changed at once.
const BURST: u32 = 16;
/// How long the API server may take to answer; it is away at times.
const BUDGET: Duration = Duration::from_secs(2);

/// Changes many offers at once, so that whoever leads has many requests under way a moment later.
pub fn burst(objects: &Objects, rng: &mut StdRng) {
    for number in 0..BURST {
        let (offers, change) = (objects.offers(SHOP), price(rng));
        tokio::spawn(async move {
            let name = format!("offer-{number}");
            tokio::time::timeout(
                BUDGET,
                offers.patch(&name, &PatchParams::default(), &change),
            )
            .await
            .is_ok()
        });
    }
}

/// Another price for an offer.
fn price(rng: &mut StdRng) -> Patch<Value> {
    let price = format!("0.{:04}", rng.random_range(1..10_000));
    Patch::Merge(json!({ "spec": { "payment": { "price": { "perRequest": price } } } }))
}

/// Makes and changes offers until it is dropped.
pub async fn stream(objects: Objects, seed: u64) -> Infallible {
    let mut rng = StdRng::seed_from_u64(seed);
    let offers = objects.offers(SHOP);
    let mut made = 0;
    loop {
        tokio::time::sleep(PAUSE).await;
        let name = |number: u32| format!("offer-{number}");
        // An answer that does not come leaves open whether it was done, which does not matter: all that exist count.
        if made < OFFERS && (made < BURST || rng.random_range(0..=CHANGES) == 0) {
            let new = serde_json::from_value(offer(SHOP, &name(made))).expect("a manifest");
            let _ = tokio::time::timeout(BUDGET, offers.create(&PostParams::default(), &new)).await;
            made += 1;
        } else {
            let change = price(&mut rng);
            let (name, parameters) = (name(rng.random_range(0..made)), PatchParams::default());
            let _ = tokio::time::timeout(BUDGET, offers.patch(&name, &parameters, &change)).await;
        }
    }
}
