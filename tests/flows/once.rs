//! Nothing mints twice: whatever is deleted, switched off, moved or restored, an agent stays the one that it is.

use std::time::Duration;

use harness::wait::{eventually, throughout};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use serviceoffer::api::{Key, SignerLedger};
use testbed::AnvilConfig;

use crate::chain::Chain;
use crate::objects::{Objects, delete, offer, patch, registry};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than the operator waits before it retires an agent that no offer uses.
const RETIREMENT: Duration = Duration::from_secs(100);

#[test]
fn an_offer_that_comes_back_finds_its_agent() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, _release) = stage.open(&[]).await;
        for namespace in ["shop", "mall"] {
            objects.shop(namespace, &[]).await;
        }
        for (namespace, name) in [
            ("shop", "remade"),
            ("shop", "switched"),
            ("shop", "retired"),
            ("mall", "stall"),
        ] {
            objects.create_offer(offer(namespace, name)).await;
        }
        let before = objects.all_registered(&chain, 4, LIMIT).await;
        let retired = objects.offer_key("shop", "retired").await;

        objects.delete_offer("shop", "retired").await;
        delete_namespace(&stage, "mall").await;
        objects.delete_offer("shop", "remade").await;
        objects.create_offer(offer("shop", "remade")).await;
        objects
            .change_offer(
                "shop",
                "switched",
                json!({ "spec": { "registration": { "enabled": false } } }),
            )
            .await;
        objects
            .offer_says("shop", "switched", "Registered", "Disabled", LIMIT)
            .await;
        objects
            .change_offer(
                "shop",
                "switched",
                json!({ "spec": { "registration": { "enabled": true } } }),
            )
            .await;
        objects.shop("mall", &[]).await;
        objects.create_offer(offer("mall", "stall")).await;
        is_retired(objects, retired, true).await;
        objects.create_offer(offer("shop", "retired")).await;
        is_retired(objects, retired, false).await;

        assert_eq!(objects.all_registered(&chain, 4, LIMIT).await, before);
        assert_eq!(chain.count().await, 4, "nothing else was sent");
    });
}

#[test]
fn a_registry_and_a_release_that_come_back_know_their_agents() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, release) = stage.open(&[]).await;
        objects.shop("shop", &[]).await;
        objects.create_offers(&["shop"], 2).await;
        let before = objects.all_registered(&chain, 2, LIMIT).await;

        delete(&objects.registries(), "local").await;
        objects.create_offer(offer("shop", "third")).await;
        objects
            .offer_says("shop", "third", "Registered", "NoRegistry", LIMIT)
            .await;
        objects
            .create_registry(registry("local", &chain, "http://agents.example"))
            .await;
        let restored = objects.all_registered(&chain, 3, LIMIT).await;
        assert!(
            before
                .iter()
                .all(|(offer, agent)| restored.get(offer) == Some(agent)),
            "{before:?} {restored:?}"
        );

        let said = release.uninstall().await;
        assert!(said.status.success(), "{}", crate::release::said(&said));
        objects.create_offer(offer("shop", "fourth")).await;
        let release = stage.install(&[]).await;
        assert_eq!(
            release.namespace(),
            "operator",
            "the Secret of the signer is where it was"
        );
        let reinstalled = objects.all_registered(&chain, 4, LIMIT).await;
        assert!(
            restored
                .iter()
                .all(|(offer, agent)| reinstalled.get(offer) == Some(agent)),
            "{reinstalled:?}"
        );
        assert_eq!(chain.count().await, 4, "nothing else was sent");
    });
}

#[test]
fn a_record_that_was_deleted_is_found_on_the_chain_again() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, _release) = stage.open(&[]).await;
        objects.shop("shop", &[]).await;
        objects.create_offers(&["shop"], 3).await;
        let before = objects.all_registered(&chain, 3, LIMIT).await;

        let record = objects.offer_key("shop", "offer-1").await.record_name();
        let refused = objects
            .records()
            .delete(&record, &DeleteParams::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("obol.org/allow-deletion=true"),
            "the refusal says what to do: {refused}"
        );
        allow_deletion(&objects.records(), &record).await;
        let deleted = objects.records().get(&record).await.unwrap();
        delete(&objects.records(), &record).await;

        eventually("the record is there again", LIMIT, async || {
            match objects.records().get_opt(&record).await {
                Ok(Some(found))
                    if found.uid() != deleted.uid() && found.spec.result == deleted.spec.result =>
                {
                    Ok(())
                }
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        assert_eq!(objects.all_registered(&chain, 3, LIMIT).await, before);
        assert_eq!(chain.count().await, 3, "nothing else was sent");
    });
}

#[test]
fn without_its_ledger_a_registry_stalls_and_says_what_recovery_needs() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, _release) = stage.open(&[]).await;
        objects.shop("shop", &[]).await;
        objects.create_offer(offer("shop", "first")).await;
        let before = objects.all_registered(&chain, 1, LIMIT).await;

        let ledger = SignerLedger::name_of(chain.anvil.chain_id(), chain.signer().address());
        allow_deletion(&objects.ledgers(), &ledger).await;
        delete(&objects.ledgers(), &ledger).await;
        objects.create_offer(offer("shop", "second")).await;
        let (status, message) = objects
            .registry_says("local", "Stalled", "LedgerLost", LIMIT)
            .await;
        assert_eq!(status, "True");
        assert!(
            message.contains("Restore etcd from a backup"),
            "the message says what to do: {message}"
        );
        objects
            .offer_says("shop", "second", "Registered", "RegistryNotReady", LIMIT)
            .await;
        throughout(
            "nothing is sent",
            Duration::from_secs(10),
            async || match chain.count().await {
                1 => Ok(()),
                sent => Err(sent),
            },
        )
        .await;
        let agents = chain.agents().await;
        assert_eq!(
            agents.values().collect::<Vec<_>>(),
            before.values().collect::<Vec<_>>()
        );
    });
}

#[test]
fn moving_the_default_registry_moves_no_agent() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (old, release) = stage.open(&[]).await;
        let config = AnvilConfig {
            chain_id: 31338,
            block_time: Some(Duration::from_secs(1)),
            ..AnvilConfig::default()
        };
        let young = Chain::start(stage.cluster.node_ip(), config).await;
        objects
            .secret(release.namespace(), "other", "key", &young.key())
            .await;
        objects.shop("shop", &[]).await;
        objects.create_offers(&["shop"], 2).await;
        objects.all_registered(&old, 2, LIMIT).await;

        let mut other = registry("other", &young, "http://other.example");
        other["spec"]["signers"][0]["secretRef"]["name"] = "other".into();
        other["metadata"]["annotations"] = json!({});
        objects.create_registry(other).await;
        for (name, default) in [("local", "false"), ("other", "true")] {
            let annotations = json!({ "obol.org/is-default-registry": default });
            objects
                .change_registry(name, json!({ "metadata": { "annotations": annotations } }))
                .await;
        }
        // Something to do for the operator, and a sign that it has done it.
        objects
            .change_offer("shop", "offer-0", json!({ "spec": { "path": "/moved" } }))
            .await;
        objects.create_offer(offer("shop", "young")).await;
        objects.registered("shop", "young", LIMIT).await;

        assert_eq!(
            (old.agents().await.len(), young.agents().await.len()),
            (2, 1)
        );
        assert_eq!(
            (old.count().await, young.count().await),
            (2, 1),
            "nothing else was sent"
        );
    });
}

#[test]
fn an_agent_of_the_former_controller_is_adopted_and_never_minted_again() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let config = AnvilConfig {
            block_time: Some(Duration::from_secs(1)),
            ..AnvilConfig::default()
        };
        let (chain, release) = tokio::join!(
            Chain::start(stage.cluster.node_ip(), config),
            stage.install(&[])
        );
        let agent = chain.register("https://old.example/agent.json").await;
        objects.signer_secret(&release, &chain).await;
        objects.shop("shop", &[]).await;
        objects.create_offer(offer("shop", "chat")).await;
        let status = Patch::Merge(json!({ "status": { "agentId": agent } }));
        objects
            .offers("shop")
            .patch_status("chat", &PatchParams::default(), &status)
            .await
            .unwrap();

        let mut manifest = registry("local", &chain, "http://agents.example");
        manifest["spec"]["bootstrap"] = json!({ "atNonce": 1 });
        objects.create_registry(manifest).await;
        let (_, message) = objects
            .offer_says("shop", "chat", "Registered", "AdoptionRequired", LIMIT)
            .await;
        assert!(
            message.contains("Set registration.agentId"),
            "the message says what to do: {message}"
        );
        throughout(
            "nothing is sent",
            Duration::from_secs(5),
            async || match chain.count().await {
                1 => Ok(()),
                sent => Err(sent),
            },
        )
        .await;

        objects
            .change_offer(
                "shop",
                "chat",
                json!({ "spec": { "registration": { "agentId": agent } } }),
            )
            .await;
        assert_eq!(objects.registered("shop", "chat", LIMIT).await, agent);
        assert_eq!(
            chain.registered().await.len(),
            1,
            "the chain has the one registration of the former controller"
        );
    });
}

async fn delete_namespace(stage: &Stage, name: &str) {
    let api = Api::<Namespace>::all(stage.cluster.client());
    delete(&api, name).await;
    eventually(
        &format!("namespace {name} is gone"),
        LIMIT,
        async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
    .await;
}

/// Waits until the record of an agent says that no offer uses it, or that one does again.
async fn is_retired(objects: &Objects, key: Key, retired: bool) {
    let what = format!(
        "agent {key} is {}",
        if retired { "retired" } else { "in use" }
    );
    eventually(&what, RETIREMENT, async || {
        let record = objects
            .records()
            .get(&key.record_name())
            .await
            .map_err(|error| error.to_string())?;
        if record.spec.tombstone.is_some() == retired {
            Ok(())
        } else {
            Err(format!("{:?}", record.spec))
        }
    })
    .await;
}

/// Says of an object that its deletion is meant.
async fn allow_deletion<K>(api: &Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let allow = json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
    patch(api, name, allow).await;
}
