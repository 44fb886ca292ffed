//! The API server is away: the gate sells what it knows.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::wait::eventually;
use kube::ResourceExt;
use testbed::{Component, Signal};
use tokio::time::sleep;

use super::shop::Shop;
use crate::fixture::TestEnv;

const OUTAGE: Duration = Duration::from_secs(60);
/// Longest time until a container that ended runs again, once the API server answers.
const RESTART: Duration = Duration::from_secs(120);

#[test]
fn gate_sells_while_the_api_server_is_away() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let mut buyer = shop.buyer();
        let server = shop.env.cluster.component(Component::ApiServer).unwrap();
        let paused = server.pause().unwrap();
        let begun = Instant::now();
        let mut bought = 0;
        while begun.elapsed() < OUTAGE {
            let answer = buyer.get(&shop.url("/v1")).await.unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            bought += 1;
            sleep(Duration::from_secs(2)).await;
        }
        paused.resume();
        println!("{bought} purchases without an API server");
        assert_eq!(shop.transfers().await.len(), bought);
    });
}

#[test]
fn gate_that_starts_while_the_api_server_is_away_sells_once_it_is_back() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let gates = shop.release.list_gates().await.unwrap();
        let gate = shop.release.gate_process(&gates[0].name_any()).await;
        let server = shop.env.cluster.component(Component::ApiServer).unwrap();
        let paused = server.pause().unwrap();
        gate.unwrap().kill(Signal::Kill).unwrap();
        eventually("another gate is starting", RESTART, async || {
            let response = reqwest::get(shop.url("/v1")).await?;
            let status = response.status();
            let body = response.text().await?;
            ensure!(
                status == 503 && body.contains("starting"),
                "{status} {body}"
            );
            Ok(())
        })
        .await;
        sleep(Duration::from_secs(10)).await;
        let status = reqwest::get(shop.url("/v1")).await.unwrap().status();
        assert_eq!(status, 503, "it does not say that there are no offers");
        paused.resume();
        // The API server learns only then that the container was replaced, and the Service may lose its
        // endpoint for a moment.
        eventually("the offer is sold", RESTART, async || {
            let bought = shop.buyer().get(&shop.url("/v1")).await?;
            ensure!(bought.status == 200, "{bought:?}");
            Ok(())
        })
        .await;
    });
}
