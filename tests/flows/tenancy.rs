//! Namespaces that share a registry cannot take from each other, and nobody spends more than was allowed.

use std::time::Duration;

use alloy::primitives::utils::parse_ether;
use harness::wait::{eventually, throughout};
use kube::api::ListParams;
use serde_json::json;
use testbed::AnvilConfig;

use crate::objects::{offer, registry};
use crate::stage::Stage;
use crate::tally::agent_of;

const LIMIT: Duration = Duration::from_secs(90);
const GWEI: u64 = 1_000_000_000;

#[test]
fn an_offer_cannot_take_the_agent_of_another_namespace() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, _release) = stage.open(&[]).await;
        for namespace in ["honest", "thief"] {
            objects.shop(namespace, &[]).await;
        }
        objects.create_offer(offer("honest", "chat")).await;
        let agent = objects.registered("honest", "chat", LIMIT).await;
        let mut taking = offer("thief", "chat");
        taking["spec"]["registration"]["agentId"] = json!(agent);
        objects.create_offer(taking).await;
        let (_, message) = objects
            .offer_says("thief", "chat", "Registered", "AdoptionRefused", LIMIT)
            .await;
        println!("{message}");
        throughout(
            "the agent stays, and nothing is sent",
            Duration::from_secs(5),
            async || {
                let thief = objects
                    .offers("thief")
                    .get("chat")
                    .await
                    .map_err(|error| error.to_string())?;
                match (agent_of(&thief), chain.count().await) {
                    (None, 1) => Ok(()),
                    seen => Err(format!("{seen:?}")),
                }
            },
        )
        .await;
        assert_eq!(objects.registered("honest", "chat", LIMIT).await, agent);
    });
}

#[test]
fn a_namespace_that_is_not_allowed_spends_nothing() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, _release) = stage.open(&[]).await;
        let selector = json!({ "matchLabels": { "sells": "yes" } });
        let allowed = json!({ "from": "Selector", "selector": selector });
        objects
            .change_registry("local", json!({ "spec": { "allowedNamespaces": allowed } }))
            .await;
        objects.registry_observed("local", LIMIT).await;
        objects.shop("open", &[("sells", "yes")]).await;
        objects.shop("closed", &[("sells", "no")]).await;
        for namespace in ["closed", "open"] {
            objects.create_offer(offer(namespace, "chat")).await;
        }
        objects.registered("open", "chat", LIMIT).await;
        let (_, message) = objects
            .offer_says("closed", "chat", "Registered", "NamespaceNotAllowed", LIMIT)
            .await;
        assert!(
            message.contains("spec.allowedNamespaces"),
            "the message says what decides: {message}"
        );
        let records = objects
            .records()
            .list(&ListParams::default())
            .await
            .unwrap();
        assert_eq!(
            (records.items.len(), chain.count().await),
            (1, 1),
            "no record and no transaction"
        );

        objects.label("closed", "sells", "yes").await;
        objects.all_registered(&chain, 2, LIMIT).await;
    });
}

#[test]
fn suspending_stops_sending_within_seconds_and_resumes_whole() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, _release) = stage.open(&["controller.maxInFlight=2"]).await;
        objects.shop("shop", &[]).await;
        objects.create_offers(&["shop"], 20).await;
        eventually("registrations are under way", LIMIT, async || {
            match chain.count().await {
                count @ 0..4 => Err(count),
                count => Ok(count),
            }
        })
        .await;
        objects
            .change_registry("local", json!({ "spec": { "suspend": "Spending" } }))
            .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let sent = chain.sent().await;
        assert!(sent < 20, "there is something left to stop");
        objects
            .registry_says("local", "Ready", "Suspended", Duration::from_secs(5))
            .await;
        throughout(
            "nothing is sent",
            Duration::from_secs(10),
            async || match chain.sent().await {
                count if count == sent => Ok(()),
                count => Err(count),
            },
        )
        .await;
        objects
            .change_registry("local", json!({ "spec": { "suspend": "None" } }))
            .await;
        objects.all_registered(&chain, 20, LIMIT).await;
        assert_eq!(chain.count().await, 20, "nothing else was sent");
    });
}

#[test]
fn a_daily_limit_holds_with_three_replicas_and_no_lease() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let values = ["replicaCount=3", "leaderElection.enabled=false"];
        let config = AnvilConfig {
            block_time: Some(Duration::from_secs(1)),
            ..AnvilConfig::default()
        };
        let (chain, release) = tokio::join!(
            crate::chain::Chain::start(stage.cluster.node_ip(), config),
            stage.install(&values)
        );
        objects.signer_secret(&release, &chain).await;
        let limit = "0.0015";
        let mut manifest = registry("local", &chain, "http://agents.example");
        manifest["spec"]["limits"] = json!({ "perRegistration": "0.01", "perDay": limit });
        objects.shop("shop", &[]).await;
        let story = async {
            chain.base_fee(GWEI).await;
            objects.create_registry(manifest).await;
            objects.create_offers(&["shop"], 12).await;
            let (_, message) = objects
                .registry_says("local", "Ready", "DailyLimitReached", LIMIT)
                .await;
            println!("{message}");
            let at_rest = async || match objects.in_flight().await {
                0 => Ok(()),
                in_flight => Err(in_flight),
            };
            eventually("everything has come to rest", LIMIT, at_rest).await;
            throughout(
                "the limit holds",
                Duration::from_secs(8),
                async || match chain.spent().await {
                    spent if spent <= parse_ether(limit).expect("an amount") => Ok(()),
                    spent => Err(spent),
                },
            )
            .await;
            let registered = chain.agents().await.len();
            println!(
                "{registered} of 12 registered for {} wei",
                chain.spent().await
            );
            assert!(
                (1..12).contains(&registered),
                "some were registered, and not all: {registered}"
            );
            objects
                .change_registry("local", json!({ "spec": { "limits": { "perDay": "1" } } }))
                .await;
            objects.all_registered(&chain, 12, LIMIT).await;
        };
        tokio::select! {
            () = story => {}
            never = chain.hold_base_fee(GWEI) => match never {},
        }
    });
}
