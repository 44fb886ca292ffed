//! Offers, prices and facilitators change while they are sold.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::objects::delete;
use harness::wait::eventually;
use serde_json::{Value, json};
use tokio::time::sleep;
use x402::coin;

use super::shop::{PRICE, SHOP, SOON, Shop, asked_price};
use crate::fixture::TestEnv;

/// Longest time from an offer to its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

#[test]
fn offer_is_sold_within_a_second_and_price_and_wallet_follow_it() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.create_facilitator().await;
        shop.env.objects.create_offer(shop.offer("first")).await;
        shop.wait_ready("first").await;
        let begun = Instant::now();
        shop.env.objects.create_offer(shop.offer("chat")).await;
        while asked_price(&shop.url("/v1")).await.is_err() {
            assert!(begun.elapsed() < SOON, "the offer is not sold");
            sleep(Duration::from_millis(20)).await;
        }
        let took = begun.elapsed();
        println!("first 402 after {} ms", took.as_millis());
        assert!(took <= FIRST_ANSWER, "{took:?}");

        // A payment for the former terms is in flight while they change.
        shop.upstream.delay.store(4_000, Ordering::SeqCst);
        let wallet = shop.chain.anvil.keys()[6].address();
        let change = async {
            sleep(Duration::from_secs(2)).await;
            let payment =
                json!({ "payTo": wallet.to_string(), "price": { "perRequest": "0.003" } });
            let change = json!({ "spec": { "payment": payment } });
            shop.env.objects.patch_offer(SHOP, "chat", change).await;
        };
        let (mut buyer, url) = (shop.buyer(), shop.url("/v1"));
        let (before, ()) = tokio::join!(buyer.get(&url), change);
        assert_eq!(before.unwrap().status, 200);
        assert_eq!(
            shop.transfers().await.len(),
            1,
            "{PRICE} to the former wallet"
        );
        shop.upstream.delay.store(0, Ordering::SeqCst);
        shop.wait_price("3000").await;
        let after = buyer.get(&url).await.unwrap();
        assert_eq!(after.status, 200, "{after:?}");
        let moved = coin::transfers_to(shop.chain.provider(), wallet)
            .await
            .unwrap();
        let values: Vec<String> = moved.iter().map(|moved| moved.value.to_string()).collect();
        assert_eq!(values, ["3000"]);
        assert_eq!(shop.transfers().await.len(), 1);
    });
}

/// Buys while something changes during the work, and checks that the answer was sold.
async fn buy_during(shop: &Shop, change: impl Future<Output = ()>) {
    let before = shop.transfers().await.len();
    let change = async {
        sleep(Duration::from_secs(2)).await;
        change.await;
    };
    let (mut buyer, url) = (shop.buyer(), shop.url("/v1"));
    let (bought, ()) = tokio::join!(buyer.get(&url), change);
    let bought = bought.unwrap();
    assert_eq!(bought.status, 200, "{bought:?}");
    assert_eq!(shop.transfers().await.len(), before + 1);
}

#[test]
fn payment_in_flight_is_settled_whatever_becomes_of_its_facilitator() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        shop.upstream.delay.store(4_000, Ordering::SeqCst);
        let patch = |spec: Value| shop.patch_facilitator(json!({ "spec": spec }));
        let url = |url: &str| json!({ "remote": { "url": url } });

        buy_during(&shop, patch(json!({ "suspend": "Settling" }))).await;
        shop.wait_gate_reason("chat", "Suspended").await;
        patch(json!({ "suspend": "None" })).await;
        shop.wait_ready("chat").await;
        let facilitator = shop.facilitators().get("sepolia").await.unwrap();

        buy_during(&shop, patch(url("http://elsewhere.payments.svc"))).await;
        patch(url(&facilitator.spec.remote.url)).await;
        shop.wait_ready("chat").await;

        let remove = async {
            delete(&shop.facilitators(), "sepolia").await.unwrap();
        };
        buy_during(&shop, remove).await;
        shop.wait_gate_reason("chat", "NoFacilitator").await;
        shop.wait_status(&shop.url("/v1"), 503).await;
        shop.create_facilitator().await;
        shop.wait_ready("chat").await;
    });
}

#[test]
fn drained_offer_says_when_it_ends_and_is_gone_afterwards() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let now = jiff::Timestamp::now();
        let drain = json!({ "drainAt": now.to_string(), "drainGracePeriod": "15s" });
        let change = json!({ "spec": drain });
        shop.env.objects.patch_offer(SHOP, "chat", change).await;
        eventually("the answer names the end", SOON, async || {
            let unpaid = reqwest::get(shop.url("/v1")).await?;
            ensure!(unpaid.status() == 402, "{}", unpaid.status());
            ensure!(unpaid.headers().contains_key("sunset"), "no Sunset");
            Ok(())
        })
        .await;
        shop.wait_status(&shop.url("/v1"), 410).await;
        shop.env.objects.delete_offer(SHOP, "chat").await;
        shop.wait_status(&shop.url("/v1"), 404).await;
    });
}
