//! What an offer's conditions say while something outside keeps it from being sold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::api::PostParams;
use tokio::time::sleep;

use super::shop::{SHOP, SOON, Shop};
use crate::fixture::TestEnv;

/// Longest time between two probes of an upstream, and some.
const PROBED: Duration = Duration::from_secs(60);

/// Says that another gate is ready whenever this one says so, as a controller that watches would.
async fn contend(shop: &Shop, stop: &AtomicBool) {
    let offers = shop.env.objects.offers(SHOP);
    let parameters = PostParams {
        field_manager: Some("verifier".to_owned()),
        ..PostParams::default()
    };
    while !stop.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(500)).await;
        let mut offer = offers.get("chat").await.unwrap();
        let conditions = offer
            .status
            .iter_mut()
            .flat_map(|status| &mut status.conditions);
        let mut own = conditions.filter(|own| own.type_ == "PaymentGateReady");
        if let Some(own) = own.next()
            && own.reason.as_deref() != Some("VerifierReady")
        {
            own.reason = Some("VerifierReady".to_owned());
            // A conflict is tried again.
            let _ = offers.replace_status("chat", &parameters, &offer).await;
        }
    }
}

#[test]
fn offer_that_another_controller_sells_is_closed_and_others_are_sold() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        shop.env.objects.create_offer(shop.offer("other")).await;
        shop.wait_ready("other").await;
        let stop = AtomicBool::new(false);
        let closes = async {
            let offers = shop.env.objects.offers(SHOP);
            let objects = &shop.env.objects;
            let closed = objects.wait_offer_reason(SHOP, "chat", "Ready", "OtherGate", SOON);
            let (_, message) = closed.await;
            assert!(message.contains("verifier"), "{message}");
            shop.wait_status(&shop.url("/v1"), 503).await;
            let other = shop.url("/v1").replace("chat", "other");
            assert_eq!(reqwest::get(other).await.unwrap().status(), 402);
            // The two controllers do not write without end.
            let version = async || offers.get("chat").await.unwrap().metadata.resource_version;
            sleep(Duration::from_secs(2)).await;
            let before = version().await;
            sleep(Duration::from_secs(10)).await;
            assert_eq!(version().await, before);
            stop.store(true, Ordering::SeqCst);
        };
        tokio::join!(contend(&shop, &stop), closes);
    });
}

#[test]
fn upstream_that_wants_credentials_is_named_until_it_wants_none() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.upstream.health.store(401, Ordering::SeqCst);
        shop.create_facilitator().await;
        shop.env.objects.create_offer(shop.offer("chat")).await;
        let objects = &shop.env.objects;
        let says =
            |reason| objects.wait_offer_reason(SHOP, "chat", "UpstreamHealthy", reason, PROBED);
        let (_, message) = says("UpstreamNeedsCredentials").await;
        assert!(message.contains("healthPath"), "{message}");
        shop.upstream.health.store(200, Ordering::SeqCst);
        says("Healthy").await;
        shop.wait_ready("chat").await;
    });
}
