//! Offers that want the same place: the older one has it.

use std::time::Duration;

use harness::objects::condition_of;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::shop::{PRICE, SHOP, Shop, asked_price};
use crate::fixture::TestEnv;

const HOSTNAME: &str = "chat.example";
/// Price of the younger offer, in atomic units.
const OTHER_PRICE: &str = "3000";
/// Ages are compared in seconds.
const APART: Duration = Duration::from_millis(1100);

/// Creates two offers for one place. The name of the younger one comes first.
async fn offer_twice(shop: &Shop, place: &Value) {
    shop.create_facilitator().await;
    let mut older = shop.offer("older");
    let mut younger = shop.offer("another");
    younger["spec"]["payment"]["price"] = json!({ "perRequest": "0.003" });
    for manifest in [&mut older, &mut younger] {
        crate::objects::merge(&mut manifest["spec"], place);
        shop.env.objects.create_offer(manifest.clone()).await;
        sleep(APART).await;
    }
    shop.wait_ready("older").await;
}

/// Checks that the younger offer says which one has its place, and is not sold.
async fn assert_displaced(shop: &Shop, reason: &str) {
    let message = shop.wait_gate_reason("another", reason).await;
    assert!(message.contains("shop/older"), "{message}");
    let offer = shop.env.objects.offers(SHOP).get("another").await.unwrap();
    let (ready, reason, message) = condition_of(&offer, "Ready");
    assert_eq!(ready, "False", "{reason}: {message}");
}

#[test]
fn path_of_two_offers_is_sold_by_the_older_one_until_it_is_deleted() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        offer_twice(&shop, &json!({ "path": "/services/chat" })).await;
        assert_displaced(&shop, "PathConflict").await;
        assert_eq!(
            asked_price(&shop.url("/v1")).await.unwrap(),
            PRICE.to_string()
        );
        let mut buyer = shop.buyer();
        let bought = buyer.get(&shop.url("/v1")).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        assert_eq!(shop.transfers().await.len(), 1);

        shop.env.objects.delete_offer(SHOP, "older").await;
        shop.wait_ready("another").await;
        shop.wait_price(OTHER_PRICE).await;
        let bought = buyer.get(&shop.url("/v1")).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        assert_eq!(shop.upstream.count(), 2);
    });
}

#[test]
fn hostname_of_two_offers_is_sold_by_the_older_one_until_it_is_deleted() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        let http = reqwest::Client::builder()
            .resolve(HOSTNAME, (shop.gate, 80).into())
            .build()
            .unwrap();
        let price = async || -> Value {
            let unpaid = http.get(format!("http://{HOSTNAME}/v1")).send().await;
            let unpaid = unpaid.unwrap();
            assert_eq!(unpaid.status(), 402);
            let terms: Value = unpaid.json().await.unwrap();
            terms["accepts"][0]["maxAmountRequired"].clone()
        };
        offer_twice(&shop, &json!({ "hostname": HOSTNAME })).await;
        assert_displaced(&shop, "HostnameConflict").await;
        assert_eq!(price().await, PRICE.to_string());

        shop.env.objects.delete_offer(SHOP, "older").await;
        shop.wait_ready("another").await;
        assert_eq!(price().await, OTHER_PRICE);
    });
}
