//! Clients and a facilitator of others buy and settle through the gate. `make test-clients` installs
//! them and runs these flows.

use std::sync::atomic::Ordering;

use alloy::primitives::U256;
use harness::upstream::{EVENT_COUNT, EVENTS};
use serde_json::{Value, json};
use x402::clients::{CLIENTS, Client, conformance, facilitator, place_contracts};
use x402::{Buyer, Purchase, coin};

use super::shop::{SHOP, Shop};
use crate::fixture::TestEnv;

const NOT_INSTALLED: &str = "make test-clients installs what this flow needs";

impl Shop {
    fn buyer_with(&self, client: &Client) -> Buyer {
        let key = format!("{:#x}", self.buyer_key.to_bytes());
        Buyer::start_program(client.program().expect(NOT_INSTALLED), &key).unwrap()
    }

    /// Checks that a purchase was answered, and paid by one more transfer than before.
    async fn assert_sold(&self, bought: &Purchase, before: usize, by: &str) {
        assert_eq!(bought.status, 200, "{by}: {bought:?}");
        let transfers = self.transfers().await;
        assert_eq!(transfers.len(), before + 1, "{by}: {bought:?}");
        let receipt = bought.receipt.as_ref();
        let receipt = receipt.unwrap_or_else(|| panic!("{by} got no receipt: {bought:?}"));
        let paid = json!(transfers[before].transaction.to_string());
        assert_eq!(
            (&receipt["success"], &receipt["transaction"]),
            (&json!(true), &paid),
            "{by}"
        );
    }
}

#[test]
#[ignore = "make test-clients installs the clients"]
fn every_client_buys_an_answer_a_body_and_a_stream() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        for client in &CLIENTS {
            let name = client.name;
            let mut buyer = shop.buyer_with(client);
            let (before, asked) = (shop.transfers().await.len(), shop.upstream.count());
            let bought = buyer.get(&shop.url("/v1?a=b%20c")).await.unwrap();
            shop.assert_sold(&bought, before, name).await;
            let answer: Value = serde_json::from_str(&bought.body).unwrap();
            assert_eq!(answer["target"], "/v1?a=b%20c", "{name}");
            assert_eq!(
                answer["payer"],
                shop.buyer_key.address().to_string(),
                "{name}"
            );
            let bought = buyer.post(&shop.url("/v1"), "question").await.unwrap();
            shop.assert_sold(&bought, before + 1, name).await;
            let bought = buyer.get(&shop.url(EVENTS)).await.unwrap();
            shop.assert_sold(&bought, before + 2, name).await;
            assert_eq!(bought.body.matches("data: ").count(), EVENT_COUNT, "{name}");
            assert_eq!(
                shop.upstream.count(),
                asked + 3,
                "{name}: each payment runs once"
            );
            println!("{name} has bought");
        }
    });
}

#[test]
#[ignore = "make test-clients installs the clients"]
fn every_client_follows_a_change_of_price_and_reads_a_failure() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        for client in &CLIENTS {
            let mut buyer = shop.buyer_with(client);
            shop.upstream.status.store(503, Ordering::SeqCst);
            let failed = buyer.get(&shop.url("/v1")).await.unwrap();
            assert_eq!(failed.status, 503, "{}: {failed:?}", client.name);
            assert_eq!(
                failed.fields["x-payment-charged"], "false",
                "{}",
                client.name
            );
            shop.upstream.status.store(0, Ordering::SeqCst);
        }
        assert!(shop.transfers().await.is_empty());
        let dearer = json!({ "spec": { "payment": { "price": { "perRequest": "0.003" } } } });
        shop.env.objects.patch_offer(SHOP, "chat", dearer).await;
        shop.wait_price("3000").await;
        for client in &CLIENTS {
            let bought = shop.buyer_with(client).get(&shop.url("/v1")).await.unwrap();
            assert_eq!(bought.status, 200, "{}: {bought:?}", client.name);
        }
        let moved = coin::transfers_to(shop.chain.provider(), shop.pay_to).await;
        let paid: Vec<U256> = moved.unwrap().iter().map(|moved| moved.value).collect();
        assert_eq!(paid, vec![U256::from(3000); CLIENTS.len()]);
    });
}

#[test]
#[ignore = "make test-clients installs the clients"]
fn facilitator_in_rust_settles_what_every_client_pays() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        place_contracts(shop.chain.provider()).await.unwrap();
        shop.use_facilitator(facilitator().expect(NOT_INSTALLED))
            .await;
        shop.sell().await;
        for client in &CLIENTS {
            let before = shop.transfers().await.len();
            let bought = shop
                .buyer_with(client)
                .post(&shop.url("/v1"), "question")
                .await;
            shop.assert_sold(&bought.unwrap(), before, client.name)
                .await;
        }
    });
}

#[test]
#[ignore = "make test-clients installs the clients"]
fn conformance_command_accepts_what_the_gate_asks_for() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let mut command = conformance().expect(NOT_INSTALLED);
        let checked = command.arg(shop.url("/v1")).output().await.unwrap();
        assert!(checked.status.success(), "{checked:?}");
        let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let checks = report["results"][0]["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 7, "P1 to P7: {report:#}");
        for check in checks {
            assert_eq!(check["pass"], true, "{check:#}");
        }
    });
}
