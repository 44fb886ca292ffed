//! One payment buys one answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;
use harness::upstream::ECHO;
use harness::wait::eventually;
use serde_json::{Value, json};

use super::shop::{PRICE, SHOP, SOON, Shop};
use crate::fixture::TestEnv;

#[test]
fn buyer_pays_and_gets_the_answer_and_the_seller_the_money() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let unpaid = reqwest::get(shop.url("/v1")).await.unwrap();
        assert_eq!(unpaid.status(), 402);
        assert!(unpaid.headers().contains_key("payment-required"));
        let terms: Value = unpaid.json().await.unwrap();
        assert_eq!(terms["accepts"][0]["maxAmountRequired"], PRICE.to_string());
        assert_eq!(shop.upstream.count(), 0);

        let mut buyer = shop.buyer();
        for nth in 1..=3 {
            let bought = buyer.post(&shop.url("/v1?a=b"), "question").await.unwrap();
            assert_eq!(bought.status, 200, "{bought:?}");
            let answer: Value = serde_json::from_str(&bought.body).unwrap();
            assert_eq!(
                (&answer["count"], &answer["target"]),
                (&json!(nth), &json!("/v1?a=b"))
            );
            assert_eq!(answer["payer"], shop.buyer_key.address().to_string());
            let receipt = bought.receipt.unwrap();
            assert_eq!(receipt["success"], true);
            let transfers = shop.transfers().await;
            assert_eq!(transfers.len(), nth);
            assert_eq!(
                receipt["transaction"],
                transfers[nth - 1].transaction.to_string()
            );
        }
        assert_eq!(
            shop.count("serviceoffer_gate_delivered_unsettled_total")
                .await,
            0.0
        );
        // The 402 has terms of version 1 as well.
        for call in shop.calls("/verify").await {
            assert_eq!(call.payment["x402Version"], 2);
        }

        let offer = shop.env.objects.offers(SHOP).get("chat").await.unwrap();
        let status = offer.status.unwrap();
        assert_eq!(status.price.as_deref(), Some("0.002 USDC/request"));
        let facilitator = shop.facilitators().get("sepolia").await.unwrap();
        let status = facilitator.status.unwrap();
        assert_eq!(status.host.as_deref(), Some("facilitator.payments.svc"));
    });
}

#[test]
fn answer_that_failed_is_not_charged() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let mut buyer = shop.buyer();
        for status in [302, 404, 500, 503] {
            shop.upstream.status.store(status, Ordering::SeqCst);
            let failed = buyer.get(&shop.url("/v1")).await.unwrap();
            assert_eq!(usize::from(failed.status), status);
            assert_eq!(failed.fields["x-payment-charged"], "false");
        }
        assert!(shop.transfers().await.is_empty());
        assert!(shop.calls("/settle").await.is_empty());
    });
}

#[test]
fn offer_without_a_facilitator_says_what_to_create_and_opens_when_it_is_there() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.env.objects.create_offer(shop.offer("chat")).await;
        let message = shop.wait_gate_reason("chat", "NoFacilitator").await;
        assert!(message.contains("eip155:84532"), "{message}");
        let closed = reqwest::get(shop.url("/")).await.unwrap();
        assert_eq!(closed.status(), 503);
        shop.create_facilitator().await;
        shop.wait_ready("chat").await;
        shop.patch_facilitator(json!({ "spec": { "suspend": "Settling" } }))
            .await;
        shop.wait_gate_reason("chat", "Suspended").await;
        shop.wait_status(&shop.url("/"), 503).await;
        shop.patch_facilitator(json!({ "spec": { "suspend": "None" } }))
            .await;
        shop.wait_ready("chat").await;
        let bought = shop.buyer().get(&shop.url("/")).await.unwrap();
        assert_eq!(bought.status, 200);
    });
}

#[test]
fn gate_below_a_path_sells_and_lists_below_it() {
    TestEnv::run(async |env| {
        let values = [
            "gate.publicPath=/market",
            "gate.publicUrl=http://gate.example/market",
        ];
        let shop = Shop::open(env, &values).await;
        shop.sell().await;
        let ready = shop.wait_gate_reason("chat", "Reconciled").await;
        assert!(ready.contains("BasePathDiffers"), "{ready}");
        let moved = json!({ "spec": { "baseUrl": "http://gate.example/market" } });
        shop.env.objects.patch_registry("sepolia", moved).await;
        let offered = "http://gate.example/market/services/chat";
        let offers = shop.env.objects.offers(SHOP);
        eventually("the URL follows the registry", SOON, async || {
            let url = offers
                .get("chat")
                .await?
                .status
                .and_then(|status| status.url);
            ensure!(url.as_deref() == Some(offered), "{url:?}");
            Ok(())
        })
        .await;
        let url = shop.url("/v1").replace("/services", "/market/services");
        let bought = shop.buyer().post(&url, "question").await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        let answer: Value = serde_json::from_str(&bought.body).unwrap();
        assert_eq!(answer["target"], "/v1");
        let listed = reqwest::get(format!("http://{}/market/", shop.gate)).await;
        let listed: Value = listed.unwrap().json().await.unwrap();
        assert!(listed.to_string().contains(offered), "{listed}");
    });
}

#[test]
fn agent_that_is_found_on_the_chain_sells_what_its_document_names() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.create_facilitator().await;
        let mut manifest = shop.offer("chat");
        manifest["spec"]["registration"] = json!({ "enabled": true });
        shop.env.objects.create_offer(manifest).await;
        let limit = Duration::from_secs(60);
        let objects = &shop.env.objects;
        objects.assert_all_registered(&shop.chain, 1, limit).await;
        shop.wait_ready("chat").await;

        // A stranger knows the contract, and its own wallet.
        let owner = shop.chain.signer.address();
        let registered = shop.chain.registrations_of(owner).await.unwrap();
        let [agent] = registered.as_slice() else {
            panic!("{registered:?}");
        };
        let http = reqwest::Client::builder()
            .resolve("gate.example", (shop.gate, 80).into())
            .build()
            .unwrap();
        let get = async |url: &str| http.get(url).send().await.unwrap();
        let document: Value = get(&agent.uri).await.json().await.unwrap();
        assert_eq!(document["active"], true);
        assert_eq!(document["x402Support"], true);
        let id = document["registrations"][0]["agentId"].to_string();
        assert_eq!(id, agent.agent_id.to_string());
        let endpoint = document["services"][0]["endpoint"].as_str().unwrap();
        let unpaid = get(endpoint).await;
        assert_eq!(unpaid.status(), 402);
        let terms: Value = unpaid.json().await.unwrap();
        assert_eq!(terms["accepts"][0]["resource"], endpoint);
        let endpoint = endpoint.replace("gate.example", &shop.gate.to_string());
        let bought = shop.buyer().get(&endpoint).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        assert_eq!(shop.transfers().await.len(), 1);
    });
}

#[test]
fn request_that_its_buyer_identified_is_charged_once() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let mut buyer = shop.buyer();
        let mut buy = async |body: &str| {
            let url = shop.url("/v1");
            let bought = buyer.post_identified(&url, body, "pay_0123456789abcdef");
            bought.await.unwrap()
        };
        let first = buy("question").await;
        assert_eq!(first.status, 200, "{first:?}");
        // The client signs another payment.
        let again = buy("question").await;
        assert_eq!((again.status, &again.body), (200, &first.body), "{again:?}");
        assert_eq!(again.receipt, first.receipt);
        let other = buy("another question").await;
        assert_eq!(other.status, 409, "{other:?}");
        assert_eq!(shop.transfers().await.len(), 1);
        assert_eq!(shop.upstream.count(), 1);
    });
}

#[test]
fn buyer_pays_for_a_websocket_once_and_talks_over_it() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let mut buyer = shop.buyer();
        let url = shop.url(ECHO);
        let bought = buyer.converse(&url, &["one", "two", "three"]).await;
        let bought = bought.unwrap();
        assert_eq!(bought.body, r#"["one","two","three"]"#, "{bought:?}");
        assert_eq!(bought.receipt.unwrap()["success"], true);
        assert_eq!(shop.transfers().await.len(), 1);
        assert_eq!(shop.upstream.count(), 1);
    });
}
