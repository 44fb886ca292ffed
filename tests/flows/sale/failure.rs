//! What dies or is replaced while buyers pay: no payment is lost, and none is charged twice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use futures::future::join_all;
use harness::wait::eventually;
use kube::ResourceExt;
use tokio::time::{interval, sleep};
use x402::Purchase;

use super::shop::{SOON, Shop};
use crate::fixture::TestEnv;

/// Buyers that pay at the same time.
const BUYERS: usize = 3;
/// How long a buyer presents the same payment again.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Requests a second that carry no payment.
const UNPAID_RATE: u64 = 200;

/// Buys with several buyers until told to stop, and returns what each purchase came to.
pub async fn buy_until(shop: &Shop, stop: &AtomicBool, patience: Duration) -> Vec<Purchase> {
    let buyers = (0..BUYERS).map(async |_| {
        let (mut buyer, mut bought) = (shop.buyer(), Vec::new());
        while !stop.load(Ordering::SeqCst) {
            let url = shop.url("/v1");
            let answer = buyer.insist(&url, "question", patience).await;
            bought.push(answer.unwrap());
        }
        bought
    });
    join_all(buyers).await.concat()
}

/// Asks for the price at a steady rate until told to stop, on connections that are kept and on others.
/// Returns the number of requests, and what those that failed came to.
pub async fn ask_until(shop: &Shop, stop: &AtomicBool) -> (usize, Vec<String>) {
    let asked = AtomicUsize::new(0);
    let (url, kept) = (shop.url("/v1"), reqwest::Client::new());
    let askers = (0..4).map(async |nth| {
        let mut failed = Vec::new();
        let mut ticks = interval(Duration::from_millis(4000 / UNPAID_RATE));
        while !stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            let client = match nth % 2 {
                0 => kept.clone(),
                _ => reqwest::Client::new(),
            };
            asked.fetch_add(1, Ordering::SeqCst);
            match client.get(&url).send().await {
                Ok(response) if response.status() == 402 => {}
                Ok(response) => failed.push(response.status().to_string()),
                Err(error) => failed.push(format!("{error:?}")),
            }
        }
        failed
    });
    let failed = join_all(askers).await.concat();
    (asked.into_inner(), failed)
}

/// The transactions in the receipts of answers with this status.
pub fn transactions(bought: &[Purchase], status: u16) -> BTreeSet<String> {
    let answers = bought.iter().filter(|answer| answer.status == status);
    let receipts = answers.filter_map(|answer| answer.receipt.as_ref());
    let transactions = receipts.filter_map(|receipt| receipt["transaction"].as_str());
    transactions.map(str::to_owned).collect()
}

/// Waits until the gate knows what became of every payment.
pub async fn wait_resolved(shop: &Shop) {
    eventually("no settlement is unknown", PATIENCE, async || {
        let unknown = shop.count("serviceoffer_gate_settlements_unknown").await;
        ensure!(unknown == 0.0, "{unknown}");
        Ok(())
    })
    .await;
}

#[test]
fn gate_that_is_replaced_fails_no_request() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let stop = AtomicBool::new(false);
        let replace = async {
            for rollout in 1..=2 {
                let template = format!("gate.podAnnotations.rollout=r{rollout}");
                shop.release.upgrade(&[&template]).await.unwrap();
                shop.release
                    .wait_gate(Duration::from_secs(180))
                    .await
                    .unwrap();
            }
            stop.store(true, Ordering::SeqCst);
        };
        let (bought, (asked, failed), ()) = tokio::join!(
            buy_until(&shop, &stop, Duration::ZERO),
            ask_until(&shop, &stop),
            replace
        );
        println!(
            "{} purchases and {asked} requests during two rollouts",
            bought.len()
        );
        assert!(failed.is_empty(), "{} of {asked}: {failed:?}", failed.len());
        let refused: Vec<_> = bought
            .iter()
            .filter(|answer| answer.status != 200)
            .collect();
        assert!(refused.is_empty(), "{refused:?}");
        let paid = transactions(&bought, 200);
        assert_eq!(paid.len(), bought.len());
        assert_eq!(shop.transfers().await.len(), bought.len());
        assert_eq!(shop.upstream.count(), bought.len());
    });
}

#[test]
fn gate_that_is_killed_loses_no_payment() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        shop.upstream.delay.store(300, Ordering::SeqCst);
        let stop = AtomicBool::new(false);
        let kill = async {
            for _ in 0..4 {
                sleep(Duration::from_secs(4)).await;
                let gate = shop.release.wait_gate(SOON).await.unwrap();
                shop.release.kill_gate(&gate.name_any()).await.unwrap();
            }
            sleep(Duration::from_secs(4)).await;
            stop.store(true, Ordering::SeqCst);
        };
        let (bought, ()) = tokio::join!(buy_until(&shop, &stop, PATIENCE), kill);
        wait_resolved(&shop).await;
        let count = |status| {
            bought
                .iter()
                .filter(|answer| answer.status == status)
                .count()
        };
        let (answered, used) = (count(200), count(409));
        println!("{answered} answers, {used} payments whose answer was lost");
        let others: Vec<_> = bought
            .iter()
            .filter(|answer| ![200, 409].contains(&answer.status))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(
            transactions(&bought, 200).len(),
            answered,
            "one transfer for each answer"
        );
        assert_eq!(shop.transfers().await.len(), answered + used);
    });
}

#[test]
fn facilitator_that_is_killed_leaves_no_settlement_unknown() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let stop = AtomicBool::new(false);
        let replace = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(4)).await;
                shop.replace_facilitator(Duration::from_secs(3)).await;
            }
            sleep(Duration::from_secs(4)).await;
            stop.store(true, Ordering::SeqCst);
        };
        let (bought, ()) = tokio::join!(buy_until(&shop, &stop, PATIENCE), replace);
        wait_resolved(&shop).await;
        let refused: Vec<_> = bought
            .iter()
            .filter(|answer| answer.status != 200)
            .collect();
        println!("{} purchases, {} refused", bought.len(), refused.len());
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(transactions(&bought, 200).len(), bought.len());
        assert_eq!(shop.transfers().await.len(), bought.len());
    });
}
