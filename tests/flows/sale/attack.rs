//! Attacks on sellers and buyers that need a chain, of arXiv 2605.11781 ("Five Attacks on x402") and
//! 2605.30998 ("Free-Riding"). The others are tests of `src/gate/serve/tests`.

use std::sync::atomic::Ordering;

use anyhow::ensure;
use futures::future::join_all;
use harness::wait::eventually;
use serde_json::Value;
use x402::{Buyer, Purchase, coin};

use super::shop::{PRICE, SOON, Shop};
use crate::fixture::TestEnv;

/// Milliseconds that the upstream takes: enough for a transaction.
const WORK: usize = 6000;

/// The payment that the facilitator has called valid, while the upstream works for it.
async fn wait_verified(shop: &Shop) -> Value {
    eventually("a payment is verified", SOON, async || {
        let calls = shop.calls("/verify").await;
        ensure!(calls.len() == 1, "{calls:?}");
        Ok(calls[0].payment.clone())
    })
    .await
}

async fn buy(shop: &Shop, key: &str) -> Purchase {
    let mut buyer = Buyer::start(key).unwrap();
    buyer.get(&shop.url("/v1")).await.unwrap()
}

fn has_answer(bought: &Purchase) -> bool {
    bought.body.contains("count")
}

#[test]
fn payer_who_moves_the_balance_during_the_work_gets_no_answer() {
    // The revert-grant of "Five Attacks".
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let (provider, keys) = (shop.chain.provider(), shop.chain.anvil.keys());
        let (minter, payer) = (&keys[0], &keys[5]);
        let minted = coin::mint(provider, minter, payer.address(), PRICE);
        minted.await.unwrap();
        shop.upstream.delay.store(WORK, Ordering::SeqCst);
        let key = format!("{:#x}", payer.to_bytes());
        let withdraw = async {
            wait_verified(&shop).await;
            let moved = coin::transfer(provider, payer, minter.address(), PRICE);
            moved.await.unwrap();
        };
        let (bought, ()) = tokio::join!(buy(&shop, &key), withdraw);
        // A gate that has just started says that an earlier one may have used the payment.
        assert!([402, 409].contains(&bought.status), "{bought:?}");
        assert!(!has_answer(&bought), "{bought:?}");
        assert_eq!(bought.receipt.unwrap()["success"], false);
        assert!(shop.transfers().await.is_empty());
    });
}

#[test]
fn authorization_that_someone_else_submits_is_named_and_buys_no_answer_twice() {
    // The preemption of "Five Attacks".
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        shop.upstream.delay.store(WORK, Ordering::SeqCst);
        let submit = async {
            let payment = wait_verified(&shop).await;
            let stranger = &shop.chain.anvil.keys()[6];
            let submitted = coin::submit(shop.chain.provider(), stranger, &payment);
            submitted.await.unwrap()
        };
        let key = format!("{:#x}", shop.buyer_key.to_bytes());
        let (bought, transaction) = tokio::join!(buy(&shop, &key), submit);
        assert_eq!(bought.status, 409, "{bought:?}");
        assert!(!has_answer(&bought), "{bought:?}");
        let receipt = bought.receipt.unwrap();
        assert_eq!(receipt["transaction"], transaction.to_string());
        let transfers = shop.transfers().await;
        assert_eq!(transfers.len(), 1, "the buyer does not pay twice");
        assert_eq!(transfers[0].transaction, transaction);
    });
}

#[test]
fn payments_that_the_balance_covers_once_buy_one_answer() {
    // The allowance overdraft of "Free-Riding".
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let keys = shop.chain.anvil.keys();
        let (minter, poor) = (&keys[0], &keys[5]);
        let minted = coin::mint(shop.chain.provider(), minter, poor.address(), PRICE);
        minted.await.unwrap();
        // All are verified before the first one is settled.
        shop.upstream.delay.store(WORK, Ordering::SeqCst);
        let key = format!("{:#x}", poor.to_bytes());
        let bought = join_all((0..4).map(|_| buy(&shop, &key))).await;
        let answered = bought.iter().filter(|bought| bought.status == 200);
        assert_eq!(answered.count(), 1, "{bought:?}");
        let answers = bought.iter().filter(|bought| has_answer(bought));
        assert_eq!(answers.count(), 1, "{bought:?}");
        assert_eq!(shop.transfers().await.len(), 1);
        let unpaid = "serviceoffer_gate_delivered_unsettled_total";
        assert_eq!(shop.count(unpaid).await, 0.0);
    });
}
