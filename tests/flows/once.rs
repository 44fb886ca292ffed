//! Nothing is minted twice: an agent keeps its identity through deletion, disabling, moves and
//! restores.

use std::time::Duration;

use anyhow::ensure;
use harness::chain::Chain;
use harness::objects::{delete, patch};
use harness::wait::{eventually, throughout};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use serviceoffer::api::{Key, SignerLedger};
use testbed::AnvilConfig;

use crate::fixture::{NAMESPACE, TestEnv, block_every_second};
use crate::objects::{Objects, offer, registry};

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than the operator waits before it retires an agent that no offer uses.
const RETIREMENT: Duration = Duration::from_secs(100);

#[test]
fn recreated_offer_keeps_its_agent() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&[]).await;
        for namespace in ["shop", "mall"] {
            objects.create_namespace(namespace, &[]).await;
        }
        for (namespace, name) in [
            ("shop", "recreated"),
            ("shop", "disabled"),
            ("shop", "retired"),
            ("mall", "stall"),
        ] {
            objects.create_offer(offer(namespace, name)).await;
        }
        let before = objects.assert_all_registered(&chain, 4, LIMIT).await;
        let retired = objects.wait_key("shop", "retired").await;

        objects.delete_offer("shop", "retired").await;
        delete_namespace(&env, "mall").await;
        objects.delete_offer("shop", "recreated").await;
        objects.create_offer(offer("shop", "recreated")).await;
        let disable = json!({ "spec": { "registration": { "enabled": false } } });
        objects.patch_offer("shop", "disabled", disable).await;
        objects
            .wait_offer_reason("shop", "disabled", "Registered", "Disabled", LIMIT)
            .await;
        let enable = json!({ "spec": { "registration": { "enabled": true } } });
        objects.patch_offer("shop", "disabled", enable).await;
        objects.create_namespace("mall", &[]).await;
        objects.create_offer(offer("mall", "stall")).await;
        wait_retired(objects, retired, true).await;
        objects.create_offer(offer("shop", "retired")).await;
        wait_retired(objects, retired, false).await;

        let after = objects.assert_all_registered(&chain, 4, LIMIT).await;
        assert_eq!(after, before);
        assert_mined(&chain, 4).await;
    });
}

#[test]
fn recreated_registry_and_release_keep_their_agents() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], 2).await;
        let before = objects.assert_all_registered(&chain, 2, LIMIT).await;

        delete(&objects.registries(), "local").await.unwrap();
        objects.create_offer(offer("shop", "third")).await;
        objects
            .wait_offer_reason("shop", "third", "Registered", "NoRegistry", LIMIT)
            .await;
        let manifest = registry("local", &chain, "http://agents.example");
        objects.create_registry(manifest).await;
        let recreated = objects.assert_all_registered(&chain, 3, LIMIT).await;
        assert!(
            before
                .iter()
                .all(|(offer, agent)| recreated.get(offer) == Some(agent)),
            "{before:?} {recreated:?}"
        );

        release.uninstall().await.unwrap();
        objects.create_offer(offer("shop", "fourth")).await;
        let release = env.install(&[]).await;
        assert_eq!(
            release.namespace(),
            NAMESPACE,
            "the signer's Secret must be where it was"
        );
        let reinstalled = objects.assert_all_registered(&chain, 4, LIMIT).await;
        assert!(
            recreated
                .iter()
                .all(|(offer, agent)| reinstalled.get(offer) == Some(agent)),
            "{recreated:?} {reinstalled:?}"
        );
        assert_mined(&chain, 4).await;
    });
}

#[test]
fn deleted_record_is_recovered_from_the_chain() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], 3).await;
        let before = objects.assert_all_registered(&chain, 3, LIMIT).await;

        let records = objects.records();
        let record = objects.wait_key("shop", "offer-1").await.record_name();
        let refused = records.delete(&record, &DeleteParams::default()).await;
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("obol.org/allow-deletion=true"),
            "the refusal must say what to do: {refused}"
        );
        allow_deletion(&records, &record).await;
        let deleted = records.get(&record).await.unwrap();
        delete(&records, &record).await.unwrap();

        eventually("the record is recovered", LIMIT, async || {
            let found = records.get(&record).await?;
            ensure!(
                found.uid() != deleted.uid() && found.spec.result == deleted.spec.result,
                "{found:?}"
            );
            Ok(())
        })
        .await;
        let after = objects.assert_all_registered(&chain, 3, LIMIT).await;
        assert_eq!(after, before);
        assert_mined(&chain, 3).await;
    });
}

#[test]
fn registry_without_its_ledger_stalls_and_explains_recovery() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offer(offer("shop", "first")).await;
        let before = objects.assert_all_registered(&chain, 1, LIMIT).await;

        let ledger = SignerLedger::name_of(chain.id, chain.signer.address());
        allow_deletion(&objects.ledgers(), &ledger).await;
        delete(&objects.ledgers(), &ledger).await.unwrap();
        objects.create_offer(offer("shop", "second")).await;
        let (status, message) = objects
            .wait_registry_reason("local", "Stalled", "LedgerLost", LIMIT)
            .await;
        assert_eq!(status, "True");
        assert!(
            message.contains("Restore etcd from a backup"),
            "the message must say what to do: {message}"
        );
        objects
            .wait_offer_reason("shop", "second", "Registered", "RegistryNotReady", LIMIT)
            .await;
        assert_nothing_sent(&chain, 1, Duration::from_secs(10)).await;
        let agents = chain.agents().await.unwrap();
        assert_eq!(
            agents.values().collect::<Vec<_>>(),
            before.values().collect::<Vec<_>>()
        );
    });
}

#[test]
fn new_default_registry_moves_no_agent() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (old, release) = env.deploy(&[]).await;
        let config = AnvilConfig {
            chain_id: 31338,
            ..block_every_second()
        };
        let new = env.start_chain(config).await;
        objects
            .create_secret(release.namespace(), "other", "key", &new.private_key())
            .await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], 2).await;
        objects.assert_all_registered(&old, 2, LIMIT).await;

        let mut other = registry("other", &new, "http://other.example");
        other["spec"]["signers"][0]["secretRef"]["name"] = "other".into();
        other["metadata"]["annotations"] = json!({});
        objects.create_registry(other).await;
        for (name, default) in [("local", "false"), ("other", "true")] {
            let annotations = json!({ "obol.org/is-default-registry": default });
            let change = json!({ "metadata": { "annotations": annotations } });
            objects.patch_registry(name, change).await;
        }
        // The operator must act on an old offer, and the new offer shows when it has.
        let move_path = json!({ "spec": { "path": "/moved" } });
        objects.patch_offer("shop", "offer-0", move_path).await;
        objects.create_offer(offer("shop", "new")).await;
        objects.wait_registered("shop", "new", LIMIT).await;

        assert_eq!(old.agents().await.unwrap().len(), 2);
        assert_eq!(new.agents().await.unwrap().len(), 1);
        assert_mined(&old, 2).await;
        assert_mined(&new, 1).await;
    });
}

#[test]
fn agent_of_the_legacy_controller_is_adopted_not_minted() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, _release) = env.prepare(block_every_second(), &[]).await;
        let uri = "https://old.example/agent.json";
        let agent = chain.register(uri).await.unwrap();
        objects.create_namespace("shop", &[]).await;
        objects.create_offer(offer("shop", "chat")).await;
        let status = Patch::Merge(json!({ "status": { "agentId": agent } }));
        let offers = objects.offers("shop");
        eventually("the legacy status is written", LIMIT, async || {
            offers
                .patch_status("chat", &PatchParams::default(), &status)
                .await
        })
        .await;

        let mut manifest = registry("local", &chain, "http://agents.example");
        manifest["spec"]["bootstrap"] = json!({ "atNonce": 1, "fromBlock": 0 });
        objects.create_registry(manifest).await;
        let (_, message) = objects
            .wait_offer_reason("shop", "chat", "Registered", "AdoptionRequired", LIMIT)
            .await;
        assert!(
            message.contains("Set registration.agentId"),
            "the message must say what to do: {message}"
        );
        assert_nothing_sent(&chain, 1, Duration::from_secs(5)).await;

        let adopt = json!({ "spec": { "registration": { "agentId": agent } } });
        objects.patch_offer("shop", "chat", adopt).await;
        let adopted = objects.wait_registered("shop", "chat", LIMIT).await;
        assert_eq!(adopted, agent);
        assert_eq!(
            chain.registrations().await.unwrap().len(),
            1,
            "the chain must hold only the legacy controller's registration"
        );
    });
}

async fn assert_mined(chain: &Chain, expected: u64) {
    let mined = chain.mined_transactions().await.unwrap();
    assert_eq!(mined, expected, "nothing else must be sent");
}

/// Asserts that the signer's transactions stay that many.
async fn assert_nothing_sent(chain: &Chain, expected: u64, duration: Duration) {
    throughout("nothing is sent", duration, async || {
        let mined = chain.mined_transactions().await?;
        ensure!(mined == expected, "{mined} transactions");
        Ok(())
    })
    .await;
}

async fn delete_namespace(env: &TestEnv, name: &str) {
    let namespaces = Api::<Namespace>::all(env.cluster.client());
    delete(&namespaces, name).await.unwrap();
    eventually(&format!("namespace {name} is gone"), LIMIT, async || {
        let namespace = namespaces.get_opt(name).await?;
        ensure!(namespace.is_none(), "{namespace:?}");
        Ok(())
    })
    .await;
}

/// Waits until the record of an agent says that no offer uses it, or that an offer uses it again.
async fn wait_retired(objects: &Objects, key: Key, retired: bool) {
    let state = if retired { "retired" } else { "in use" };
    let what = format!("agent {key} is {state}");
    eventually(&what, RETIREMENT, async || {
        let record = objects.records().get(&key.record_name()).await?;
        ensure!(
            record.spec.tombstone.is_some() == retired,
            "{:?}",
            record.spec
        );
        Ok(())
    })
    .await;
}

/// Annotates an object that the chart's policy protects from deletion.
async fn allow_deletion<K>(api: &Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let allow = json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
    patch(api, name, allow).await.unwrap();
}
