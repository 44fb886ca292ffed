//! Namespaces that share a registry cannot take from each other, and none spends more than is
//! allowed.

use std::time::Duration;

use alloy::primitives::utils::parse_ether;
use anyhow::{Result, ensure};
use harness::objects::agent_of;
use harness::wait::{eventually, throughout};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::fixture::{TestEnv, block_every_second, hold_base_fee};
use crate::objects::{offer, registry};

const LIMIT: Duration = Duration::from_secs(90);
const GWEI: u64 = 1_000_000_000;

#[test]
fn offer_cannot_take_the_agent_of_another_namespace() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&[]).await;
        for namespace in ["honest", "thief"] {
            objects.create_namespace(namespace, &[]).await;
        }
        objects.create_offer(offer("honest", "chat")).await;
        let agent = objects.wait_registered("honest", "chat", LIMIT).await;
        let mut taking = offer("thief", "chat");
        taking["spec"]["registration"]["agentId"] = json!(agent);
        objects.create_offer(taking).await;
        let (_, message) = objects
            .wait_offer_reason("thief", "chat", "Registered", "AdoptionRefused", LIMIT)
            .await;
        println!("{message}");
        let what = "the thief has no agent, and nothing is sent";
        throughout(what, Duration::from_secs(5), async || -> Result<()> {
            let thief = objects.offers("thief").get("chat").await?;
            let (stolen, mined) = (agent_of(&thief), chain.mined_transactions().await?);
            ensure!(stolen.is_none() && mined == 1, "{stolen:?}, {mined} mined");
            Ok(())
        })
        .await;
        let kept = objects.wait_registered("honest", "chat", LIMIT).await;
        assert_eq!(kept, agent);
    });
}

#[test]
fn namespace_that_is_not_allowed_spends_nothing() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&[]).await;
        let selector = json!({ "matchLabels": { "sells": "yes" } });
        let allowed = json!({ "from": "Selector", "selector": selector });
        let change = json!({ "spec": { "allowedNamespaces": allowed } });
        objects.patch_registry("local", change).await;
        objects.wait_registry_observed("local", LIMIT).await;
        objects.create_namespace("open", &[("sells", "yes")]).await;
        objects.create_namespace("closed", &[("sells", "no")]).await;
        for namespace in ["closed", "open"] {
            objects.create_offer(offer(namespace, "chat")).await;
        }
        objects.wait_registered("open", "chat", LIMIT).await;
        let (_, message) = objects
            .wait_offer_reason("closed", "chat", "Registered", "NamespaceNotAllowed", LIMIT)
            .await;
        assert!(
            message.contains("spec.allowedNamespaces"),
            "the message must name the field that decides: {message}"
        );
        let records = objects.records().list(&ListParams::default()).await;
        assert_eq!(records.unwrap().items.len(), 1, "no record");
        let mined = chain.mined_transactions().await.unwrap();
        assert_eq!(mined, 1, "no transaction");

        objects.label_namespace("closed", "sells", "yes").await;
        objects.assert_all_registered(&chain, 2, LIMIT).await;
    });
}

#[test]
fn suspension_stops_sending_within_seconds_and_resumes() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&["controller.maxInFlight=2"]).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], 20).await;
        eventually("four registrations are mined", LIMIT, async || {
            let mined = chain.mined_transactions().await?;
            ensure!(mined >= 4, "{mined}");
            Ok(())
        })
        .await;
        let suspend = json!({ "spec": { "suspend": "Spending" } });
        objects.patch_registry("local", suspend).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let sent = chain.sent_transactions().await.unwrap();
        assert!(sent < 20, "something must be left to stop");
        objects
            .wait_registry_reason("local", "Suspended", "Spending", Duration::from_secs(5))
            .await;
        let (status, _) = objects
            .wait_registry_reason("local", "Ready", "Reconciled", LIMIT)
            .await;
        assert_eq!(status, "True", "it could register");
        throughout("nothing is sent", Duration::from_secs(10), async || {
            let now = chain.sent_transactions().await?;
            ensure!(now == sent, "{now} transactions, {sent} before");
            Ok(())
        })
        .await;
        let resume = json!({ "spec": { "suspend": "None" } });
        objects.patch_registry("local", resume).await;
        objects.assert_all_registered(&chain, 20, LIMIT).await;
        let mined = chain.mined_transactions().await.unwrap();
        assert_eq!(mined, 20, "nothing else must be sent");
    });
}

#[test]
fn suspension_of_all_writes_one_condition_and_nothing_else() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], 1).await;
        objects.assert_all_registered(&chain, 1, LIMIT).await;
        let suspend = json!({ "spec": { "suspend": "All" } });
        objects.patch_registry("local", suspend).await;
        objects
            .wait_registry_reason("local", "Suspended", "All", LIMIT)
            .await;
        let version = async || {
            let registry = objects.registries().get("local").await?;
            anyhow::Ok(registry.resource_version())
        };
        // Writes that began before are done.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let registry = version().await.unwrap();
        let moved = json!({ "spec": { "path": "/moved" } });
        objects.patch_offer("shop", "offer-0", moved).await;
        objects.create_offer(offer("shop", "late")).await;
        throughout("nothing is written", Duration::from_secs(20), async || {
            let now = version().await?;
            ensure!(now == registry, "{now:?}, {registry:?} before");
            let edited = objects.offers("shop").get("offer-0").await?;
            let observed = edited.status.and_then(|status| status.observed_generation);
            ensure!(observed < edited.metadata.generation, "{observed:?}");
            let late = objects.offers("shop").get("late").await?;
            ensure!(late.status.is_none(), "{:?}", late.status);
            let records = objects.records().list(&ListParams::default()).await?;
            ensure!(records.items.len() == 1, "{}", records.items.len());
            Ok(())
        })
        .await;
        let resume = json!({ "spec": { "suspend": "None" } });
        objects.patch_registry("local", resume).await;
        objects.assert_all_registered(&chain, 2, LIMIT).await;
    });
}

#[test]
fn daily_limit_holds_with_three_replicas_and_no_lease() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let values = ["replicaCount=3", "leaderElection.enabled=false"];
        let (chain, _release) = env.prepare(block_every_second(), &values).await;
        let limit = "0.0015";
        let mut manifest = registry("local", &chain, "http://agents.example");
        manifest["spec"]["limits"] = json!({ "perRegistration": "0.01", "perDay": limit });
        objects.create_namespace("shop", &[]).await;
        let scenario = async {
            chain.set_base_fee(GWEI).await.unwrap();
            objects.create_registry(manifest).await;
            objects.create_offers(&["shop"], 12).await;
            let (_, message) = objects
                .wait_registry_reason("local", "Ready", "DailyLimitReached", LIMIT)
                .await;
            println!("{message}");
            eventually("no nonce is in flight", LIMIT, async || {
                let in_flight = objects.in_flight().await?;
                ensure!(in_flight == 0, "{in_flight}");
                Ok(())
            })
            .await;
            let allowed = parse_ether(limit).unwrap();
            throughout("the limit holds", Duration::from_secs(8), async || {
                let spent = chain.spent().await?;
                ensure!(spent <= allowed, "{spent} wei");
                Ok(())
            })
            .await;
            let registered = chain.agents().await.unwrap().len();
            let spent = chain.spent().await.unwrap();
            println!("{registered} of 12 registered for {spent} wei");
            assert!(
                (1..12).contains(&registered),
                "some must be registered, and not all: {registered}"
            );
            let raise = json!({ "spec": { "limits": { "perDay": "1" } } });
            objects.patch_registry("local", raise).await;
            objects.assert_all_registered(&chain, 12, LIMIT).await;
        };
        tokio::select! {
            () = scenario => {}
            never = hold_base_fee(&chain, GWEI) => match never {},
        }
    });
}
