//! A buyer on a laptop, behind `kubectl port-forward`.

use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::shop::{SOON, Shop};
use crate::fixture::TestEnv;

#[test]
fn buyer_pays_through_a_forwarded_port() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let service = format!("service/{}-serviceoffer-controller", shop.release.name());
        let namespace = shop.release.namespace();
        let forward = ["port-forward", "--namespace", namespace, &service, ":80"];
        let mut forwarding = shop
            .env
            .cluster
            .kubectl(forward)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(forwarding.stdout.take().unwrap()).lines();
        // Forwarding from 127.0.0.1:40001 -> 8080
        let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap();
        let line = line.context("kubectl ended").unwrap();
        let address = line.split(' ').nth(2).unwrap().to_owned();
        let url = format!("http://{address}/services/chat/v1");
        let unpaid = reqwest::get(&url).await.unwrap();
        assert_eq!(unpaid.status(), 402);

        let mut buyer = shop.buyer();
        for nth in 1..=2 {
            let bought = buyer.post(&url, "question").await.unwrap();
            assert_eq!(bought.status, 200, "{bought:?}");
            assert_eq!(bought.receipt.unwrap()["success"], true);
            assert_eq!(shop.transfers().await.len(), nth);
        }
        assert_eq!(shop.upstream.count(), 2);
    });
}
