//! What the gate does with upstreams that are slow, that stream, or that move.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::objects::{create, delete, patch};
use harness::upstream::{EVENT_COUNT, EVENT_EVERY, EVENTS, Upstream, point_service};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::shop::{SHOP, SOON, Shop};
use crate::definitions::create_lax;
use crate::fixture::TestEnv;

/// Longest time until a grant counts, or no longer does.
const GRANTED: Duration = Duration::from_secs(3);

#[test]
fn upstream_that_takes_40_seconds_is_waited_for_and_paid_once() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        shop.upstream.delay.store(40_000, Ordering::SeqCst);
        let bought = shop.buyer().post(&shop.url("/v1"), "x").await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        assert_eq!(
            (shop.upstream.count(), shop.transfers().await.len()),
            (1, 1)
        );
    });
}

#[test]
fn events_are_passed_on_as_they_come() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.create_facilitator().await;
        let mut manifest = shop.offer("chat");
        manifest["spec"]["routes"] = json!([
            { "path": "/events", "methods": ["GET"], "gate": "free" },
            { "path": "/events", "methods": ["POST"] },
        ]);
        shop.env.objects.create_offer(manifest).await;
        shop.wait_ready("chat").await;
        let mut free = reqwest::get(shop.url(EVENTS)).await.unwrap();
        let mut arrived = Vec::new();
        while free.chunk().await.unwrap().is_some() {
            arrived.push(Instant::now());
        }
        assert_eq!(arrived.len(), EVENT_COUNT);
        let spread = arrived[EVENT_COUNT - 1] - arrived[0];
        assert!(spread > EVENT_EVERY * 3, "they came together: {spread:?}");

        let bought = shop.buyer().post(&shop.url(EVENTS), "x").await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        let events = bought.body.matches("data: ").count();
        assert_eq!((events, shop.transfers().await.len()), (EVENT_COUNT, 1));
    });
}

#[test]
fn upstream_that_moves_to_another_address_is_found() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let client = || shop.env.objects.client.clone();
        let services = Api::<Service>::namespaced(client(), SHOP);
        let (moved, at) = Upstream::serve(shop.env.cluster.node_ip()).await.unwrap();
        delete(&services, "backend").await.unwrap();
        let offers = &shop.env.objects;
        offers
            .wait_offer_reason(SHOP, "chat", "UpstreamHealthy", "MissingService", SOON)
            .await;
        let closed = reqwest::get(shop.url("/v1")).await.unwrap();
        assert_eq!(closed.status(), 503, "no one is asked to pay for nothing");
        point_service(client(), SHOP, "backend", at).await.unwrap();
        shop.wait_ready("chat").await;
        let buyer = Mutex::new(shop.buyer());
        // The node may learn the address of a Service later than the gate. Nothing is charged until then.
        eventually(
            "the answer comes from the other upstream",
            SOON,
            async || {
                let bought = buyer.lock().await.get(&shop.url("/v1")).await?;
                ensure!(bought.status == 200, "{bought:?}");
                Ok(())
            },
        )
        .await;
        assert_eq!((shop.upstream.count(), moved.count()), (0, 1));
        assert_eq!(shop.transfers().await.len(), 1);
    });
}

/// Creates the offer `chat` of Service `llm/model`, which is in another namespace than the offer.
async fn offer_model(shop: &Shop) {
    shop.create_facilitator().await;
    shop.env.objects.create_offer(shop.offer("own")).await;
    shop.wait_ready("own").await;
    let client = shop.env.objects.client.clone();
    shop.env.objects.create_namespace("llm", &[]).await;
    let (_, at) = Upstream::serve(shop.env.cluster.node_ip()).await.unwrap();
    point_service(client, "llm", "model", at).await.unwrap();
    let mut manifest = shop.offer("chat");
    manifest["spec"]["upstream"] = json!({ "service": "model", "namespace": "llm", "port": 80 });
    shop.env.objects.create_offer(manifest).await;
}

#[test]
fn service_of_another_namespace_is_sold_while_it_agrees() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        offer_model(&shop).await;
        let message = shop.wait_gate_reason("chat", "UpstreamNotGranted").await;
        assert!(message.contains("obol.org/offers-from=shop"), "{message}");
        let services = Api::<Service>::namespaced(shop.env.objects.client.clone(), "llm");
        let agree = async |namespaces: Option<&str>| {
            let annotations = json!({ "obol.org/offers-from": namespaces });
            let change = json!({ "metadata": { "annotations": annotations } });
            patch(&services, "model", change).await.unwrap();
        };
        agree(Some("elsewhere,shop")).await;
        shop.wait_ready("chat").await;
        agree(None).await;
        shop.wait_gate_reason("chat", "UpstreamNotGranted").await;
        shop.wait_status(&shop.url("/v1"), 503).await;
    });
}

/// A ReferenceGrant of namespace `llm` to offers of another one for one Service.
fn grant(name: &str, from: &str, to: &str) -> DynamicObject {
    let from = json!({ "group": "obol.org", "kind": "ServiceOffer", "namespace": from });
    let to = json!({ "group": "", "kind": "Service", "name": to });
    let manifest = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": { "name": name, "namespace": "llm" },
        "spec": { "from": [from], "to": [to] },
    });
    serde_json::from_value(manifest).unwrap()
}

/// Waits until the offer `chat` answers so, and checks that it took no longer than a grant may.
async fn time_until(shop: &Shop, expected: u16) {
    let begun = Instant::now();
    shop.wait_status(&shop.url("/v1"), expected).await;
    let took = begun.elapsed();
    println!("{expected} after {} ms", took.as_millis());
    assert!(took < GRANTED, "{took:?}");
}

#[test]
fn service_of_another_namespace_is_sold_while_a_reference_grant_names_the_offers() {
    TestEnv::run(async |env| {
        let client = env.objects.client.clone();
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant");
        let kind = ApiResource::from_gvk(&kind);
        create_lax(&client, &kind).await;
        let shop = Shop::open(env, &[]).await;
        offer_model(&shop).await;
        let message = shop.wait_gate_reason("chat", "UpstreamNotGranted").await;
        let wanted =
            "create a ReferenceGrant there from ServiceOffer (group obol.org) of namespace shop";
        assert!(message.contains(wanted), "{message}");

        let grants = Api::<DynamicObject>::namespaced_with(client, "llm", &kind);
        for (name, from, to) in [("other-offers", "bank", "model"), ("other", SHOP, "vault")] {
            create(&grants, &grant(name, from, to)).await.unwrap();
        }
        sleep(GRANTED).await;
        let closed = reqwest::get(shop.url("/v1")).await.unwrap();
        assert_eq!(closed.status(), 503, "the grants are for something else");

        for nth in 1..=2 {
            create(&grants, &grant("offers", SHOP, "model"))
                .await
                .unwrap();
            time_until(&shop, 402).await;
            let bought = shop.buyer().get(&shop.url("/v1")).await.unwrap();
            assert_eq!(bought.status, 200, "{bought:?}");
            delete(&grants, "offers").await.unwrap();
            time_until(&shop, 503).await;
            shop.wait_gate_reason("chat", "UpstreamNotGranted").await;
            assert_eq!(shop.transfers().await.len(), nth);
        }
    });
}

#[test]
fn service_that_names_another_host_is_sold_while_it_is_listed() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let client = || shop.env.objects.client.clone();
        shop.env.objects.create_namespace("llm", &[]).await;
        let (model, at) = Upstream::serve(shop.env.cluster.node_ip()).await.unwrap();
        point_service(client(), "llm", "model", at).await.unwrap();
        let service = json!({
            "metadata": { "name": "outside", "namespace": SHOP },
            "spec": { "type": "ExternalName", "externalName": "model.llm.svc.cluster.local" },
        });
        let service: Service = serde_json::from_value(service).unwrap();
        let services = Api::<Service>::namespaced(client(), SHOP);
        create(&services, &service).await.unwrap();
        let upstream = json!({ "service": "outside", "namespace": SHOP, "port": 80 });
        let change = json!({ "spec": { "upstream": upstream } });
        shop.env.objects.patch_offer(SHOP, "chat", change).await;
        let closes = async || {
            let message = shop.wait_gate_reason("chat", "UpstreamNotAllowed").await;
            let wanted = "the admin of the gate must list it in gate.allowedExternalUpstreams";
            assert!(message.contains(wanted), "{message}");
            shop.wait_status(&shop.url("/v1"), 503).await;
        };
        closes().await;
        let list = async |name: &str| {
            let listed = format!("gate.allowedExternalUpstreams={{{name}}}");
            shop.release.upgrade(&[&listed]).await.unwrap();
            // The former gate answers until its address is no longer that of the Service.
            shop.release.wait_gate(SOON).await.unwrap();
        };
        list("shop/outside").await;
        shop.wait_ready("chat").await;
        let bought = shop.buyer().get(&shop.url("/v1")).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        assert_eq!((model.count(), shop.transfers().await.len()), (1, 1));
        list("shop/other").await;
        closes().await;
        assert_eq!((model.count(), shop.upstream.count()), (1, 0));
    });
}

#[test]
fn unpaid_request_reaches_no_upstream_however_slow_it_is() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        shop.upstream.delay.store(5_000, Ordering::SeqCst);
        let begun = Instant::now();
        for _ in 0..20 {
            let unpaid = reqwest::get(shop.url("/v1")).await.unwrap();
            assert_eq!(unpaid.status(), 402);
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(shop.upstream.count(), 0);
    });
}
