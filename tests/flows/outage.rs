//! The chain, or the API server, stops answering while registrations are in flight.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::release::LEADS;
use harness::wait::{eventually, throughout};
use kube::ResourceExt;
use testbed::Component;

use crate::fixture::TestEnv;

const OUTAGE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);
const OFFERS: usize = 12;
const WELL_KNOWN: &str = "/.well-known/agent-registration.json";

#[test]
fn hanging_chain_is_reported_and_loses_no_registration() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = env.deploy(&["controller.maxInFlight=2"]).await;
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
        let pods = release.wait_ready(1, LIMIT).await.unwrap();
        let rest = OUTAGE.saturating_sub(start.elapsed());
        throughout("documents are served", rest, async || {
            let response = release.document(&pods[0], WELL_KNOWN).await?;
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
        ];
        let (chain, release) = env.deploy(&values).await;
        env.objects.create_namespace("shop", &[]).await;
        env.objects.create_offers(&["shop"], OFFERS).await;
        env.objects.wait_in_flight(LIMIT).await;
        let pods = release.wait_ready(2, LIMIT).await.unwrap();
        let leader = release.wait_leader(None, LIMIT).await.unwrap();

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
            // A leader that cannot renew for two lease durations exits, and restarts as a
            // candidate.
            for pod in pods.iter().filter(|pod| pod.name_any() != leader) {
                let response = release.document(pod, WELL_KNOWN).await?;
                response.error_for_status()?;
            }
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
