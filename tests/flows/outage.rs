//! The chain, or the API server, stops answering while registrations are in flight, or ends its
//! watches.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt, stream};
use harness::release::LEADS;
use harness::wait::{eventually, throughout};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use testbed::Component;

use crate::fixture::TestEnv;
use crate::objects::offer;

const OUTAGE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);
const OFFERS: usize = 12;
const WELL_KNOWN: &str = "/.well-known/agent-registration.json";

#[test]
fn hanging_chain_is_reported_and_loses_no_registration() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = env
            .deploy(&["controller.maxInFlight=2", "gate.enabled=true"])
            .await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], OFFERS).await;
        env.objects.wait_in_flight(LIMIT).await;

        let start = Instant::now();
        chain.anvil.pause().unwrap();
        let limit = Duration::from_secs(15);
        let (status, message) = objects
            .wait_registry_reason("local", "RpcHealthy", "RpcUnreachable", limit)
            .await;
        assert_eq!(status, "False", "{message}");
        assert!(
            message.contains(chain.url()),
            "the message must name the endpoint: {message}"
        );
        let elapsed = start.elapsed().as_secs_f64();
        println!("reported after {elapsed:.1} s: {message}");
        let gate = release.wait_gate(LIMIT).await.unwrap();
        let rest = OUTAGE.saturating_sub(start.elapsed());
        throughout("documents are served", rest, async || {
            let response = release.document(&gate, WELL_KNOWN).await?;
            response.error_for_status()?;
            anyhow::Ok(())
        })
        .await;
        chain.anvil.resume().unwrap();

        objects.assert_all_registered(&chain, OFFERS, LIMIT).await;
        objects
            .wait_registry_reason("local", "Ready", "Reconciled", LIMIT)
            .await;
        let mined = chain.mined_transactions().await.unwrap();
        assert_eq!(mined, OFFERS as u64, "nothing else must be sent");
    });
}

#[test]
fn hanging_api_server_fences_the_leader_and_loses_nothing() {
    TestEnv::run(async |env| {
        let values = [
            "replicaCount=2",
            "leaderElection.leaseDuration=6s",
            "leaderElection.renewDeadline=4s",
            "leaderElection.retryPeriod=1s",
            "controller.maxInFlight=2",
            "gate.enabled=true",
        ];
        let (chain, release) = env.deploy(&values).await;
        env.objects.create_namespace("shop", &[]).await;
        env.objects.create_offers(&["shop"], OFFERS).await;
        env.objects.wait_in_flight(LIMIT).await;
        let pods = release.wait_ready(2, LIMIT).await.unwrap();
        let gate = release.wait_gate(LIMIT).await.unwrap();

        let start = Instant::now();
        let server = env.cluster.component(Component::ApiServer).unwrap();
        let paused = server.pause().unwrap();
        eventually("no replica leads", Duration::from_secs(10), async || {
            for pod in &pods {
                let leads = release.try_metrics(pod).await?.get(LEADS).copied();
                ensure!(leads == Some(0.0), "{}: {leads:?}", pod.name_any());
            }
            Ok(())
        })
        .await;
        println!("fenced after {:.1} s", start.elapsed().as_secs_f64());
        let sent = chain.sent_transactions().await.unwrap();
        let what = "documents are served and nothing is sent";
        let rest = OUTAGE.saturating_sub(start.elapsed());
        throughout(what, rest, async || {
            let response = release.document(&gate, WELL_KNOWN).await?;
            response.error_for_status()?;
            let now = chain.sent_transactions().await?;
            ensure!(now == sent, "{now} transactions, {sent} before");
            Ok(())
        })
        .await;
        paused.resume();

        let objects = &env.objects;
        objects.assert_all_registered(&chain, OFFERS, LIMIT).await;
        let mined = chain.mined_transactions().await.unwrap();
        assert_eq!(mined, OFFERS as u64, "nothing else must be sent");
    });
}

#[test]
fn offers_that_are_created_while_watches_restart_get_their_status() {
    TestEnv::run(async |env| {
        // As many as one page of a list holds.
        const BEFORE: usize = 500;
        const DURING: usize = 50;
        let objects = &env.objects;
        // A leader that stays the leader: each term begins with all offers.
        let values = [
            "leaderElection.leaseDuration=60s",
            "leaderElection.renewDeadline=40s",
        ];
        let release = env.install(&values).await;
        let leader = release.wait_leader(None, LIMIT).await.unwrap();
        objects.create_namespace("shop", &[]).await;
        let create = async |name: String| {
            let mut manifest = offer("shop", &name);
            manifest["spec"]["registration"]["enabled"] = json!(false);
            objects.create_offer(manifest).await;
        };
        stream::iter(0..BEFORE)
            .for_each_concurrent(20, |index| create(format!("b-{index}")))
            .await;

        // It does not know the versions that the watches have seen: they begin again with a list.
        let mut server = env.cluster.component(Component::ApiServer).unwrap();
        server.restart().await.unwrap();
        for index in 0..DURING {
            create(format!("a-{index}")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        eventually("every offer has a status", LIMIT, async || {
            let offers = objects.offers("shop").list(&ListParams::default()).await?;
            let mut without = offers.items;
            without.retain(|offer| offer.status.is_none());
            let names: Vec<String> = without.iter().map(ResourceExt::name_any).collect();
            ensure!(names.is_empty(), "without: {names:?}");
            Ok(())
        })
        .await;
        let failures = r#"serviceoffer_watch_failures_total{kind="ServiceOffer"}"#;
        assert!(
            release.sum(failures).await.unwrap() > 0.0,
            "no watch was ended"
        );
        let still = release.wait_leader(None, LIMIT).await.unwrap();
        assert_eq!(still, leader);
    });
}
