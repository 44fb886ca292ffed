//! The chain, and then the API server, stops answering in the middle of things.

use std::time::{Duration, Instant};

use harness::wait::{eventually, throughout};
use kube::ResourceExt;
use testbed::Component;

use crate::release::LEADS;
use crate::stage::Stage;

const OUTAGE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);
const OFFERS: usize = 12;
const WELL_KNOWN: &str = "/.well-known/agent-registration.json";

#[test]
fn a_chain_that_hangs_for_a_minute_is_told_of_and_loses_nothing() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, release) = stage.open(&["controller.maxInFlight=2"]).await;
        objects.shop("shop", &[]).await;
        objects.create_offers(&["shop"], OFFERS).await;
        under_way(&stage).await;

        let begun = Instant::now();
        chain.anvil.pause().unwrap();
        let told = Duration::from_secs(15);
        let (status, message) = objects
            .registry_says("local", "RpcHealthy", "RpcUnreachable", told)
            .await;
        assert_eq!(status, "False", "{message}");
        assert!(
            message.contains(&chain.url()),
            "the message names the endpoint: {message}"
        );
        println!(
            "told after {:.1} s: {message}",
            begun.elapsed().as_secs_f64()
        );
        let pods = release.ready(1, LIMIT).await;
        throughout(
            "documents are served",
            OUTAGE.saturating_sub(begun.elapsed()),
            async || {
                let answer = release.document(&pods[0], WELL_KNOWN).await?;
                answer.error_for_status()?;
                anyhow::Ok(())
            },
        )
        .await;
        chain.anvil.resume().unwrap();

        objects.all_registered(&chain, OFFERS, LIMIT).await;
        objects
            .registry_says("local", "Ready", "Reconciled", LIMIT)
            .await;
        assert_eq!(chain.count().await, OFFERS as u64, "nothing else was sent");
    });
}

#[test]
fn an_api_server_that_hangs_for_a_minute_fences_the_leader_and_loses_nothing() {
    Stage::play(async |stage| {
        let values = [
            "replicaCount=2",
            "leaderElection.leaseDuration=6s",
            "leaderElection.renewDeadline=4s",
            "leaderElection.retryPeriod=1s",
            "controller.maxInFlight=2",
        ];
        let (chain, release) = stage.open(&values).await;
        stage.objects.shop("shop", &[]).await;
        stage.objects.create_offers(&["shop"], OFFERS).await;
        under_way(&stage).await;
        let pods = release.ready(2, LIMIT).await;
        let leader = release.leader(None, LIMIT).await;

        let begun = Instant::now();
        let paused = stage
            .cluster
            .component(Component::ApiServer)
            .unwrap()
            .pause()
            .unwrap();
        eventually("nobody leads", Duration::from_secs(10), async || {
            for pod in &pods {
                let metrics = release.try_metrics(pod).await;
                let metrics = metrics.map_err(|error| format!("{}: {error:#}", pod.name_any()))?;
                if metrics.get(LEADS) != Some(&0.0) {
                    return Err(format!("{} leads", pod.name_any()));
                }
            }
            Ok(())
        })
        .await;
        println!("fenced after {:.1} s", begun.elapsed().as_secs_f64());
        let sent = chain.sent().await;
        throughout(
            "documents are served and nothing is sent",
            OUTAGE.saturating_sub(begun.elapsed()),
            async || {
                // A leader that cannot renew for two leases ends, and starts anew as a candidate among others.
                for pod in pods.iter().filter(|pod| pod.name_any() != leader) {
                    let answer = release
                        .document(pod, WELL_KNOWN)
                        .await
                        .map_err(|error| format!("{error:?}"))?;
                    answer
                        .error_for_status()
                        .map_err(|error| error.to_string())?;
                }
                match chain.sent().await {
                    count if count == sent => Ok(()),
                    count => Err(format!("{count} transactions, and {sent} before")),
                }
            },
        )
        .await;
        paused.resume();

        stage.objects.all_registered(&chain, OFFERS, LIMIT).await;
        assert_eq!(chain.count().await, OFFERS as u64, "nothing else was sent");
    });
}

/// Waits until registrations are under way.
async fn under_way(stage: &Stage) {
    eventually("registrations are under way", LIMIT, async || {
        match stage.objects.in_flight().await {
            0 => Err("none"),
            _ => Ok(()),
        }
    })
    .await;
}
