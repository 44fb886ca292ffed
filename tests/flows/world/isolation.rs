//! One bad object: everything else continues.

use std::time::Duration;

use alloy::consensus::Transaction;
use alloy::primitives::U256;
use alloy::providers::Provider;
use anyhow::ensure;
use harness::objects::{agent_of, delete, delete_if_exists};
use harness::wait::eventually;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use rpc_proxy::Rule;
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, SignerLedger};

use super::{OTHERS, SHOWN, World};
use crate::definitions::{create_any, dynamic, relax, restore};

/// How long a registration may take that waits for a nonce which is filled after a minute.
const FILLED: Duration = Duration::from_secs(150);

#[test]
fn uri_of_any_length_and_bytes_blocks_no_other_offer() {
    World::run("uri", async |world| {
        let data = |bytes: usize| {
            let mut uri = b"data:application/json;base64,".to_vec();
            uri.resize(bytes, b'A');
            uri
        };
        let uris: [Vec<u8>; 5] = [
            data(2_929),
            data(2_049),
            data(16_000),
            b"https://old.example/\x00\x07\x1b[31m\n.json".to_vec(),
            b"https://old.example/\xff\xfe\xc3\x28.json".to_vec(),
        ];
        let registry = world.registry(0).await;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        let mut agents = Vec::new();
        for (nth, uri) in uris.iter().enumerate() {
            let agent = world.chain.register_for(world.stranger(), Some(uri)).await;
            let agent = agent.unwrap();
            let adopt = json!({ "agentId": agent });
            // Names that sort before those of the others.
            world.offer_with(0, &shop, &format!("a-{nth}"), adopt).await;
            agents.push(agent);
        }
        world.offer(0, &other, "b").await;
        world.wait_other(&other, "b").await;
        for (nth, agent) in agents.iter().enumerate() {
            let name = format!("a-{nth}");
            eventually(&format!("{name} is decided"), OTHERS, async || {
                let offer = world.objects().offers(&shop).get(&name).await?;
                let (reason, message) = world.read_offer(&shop, &name).await?;
                let is_adopted = agent_of(&offer).as_ref() == Some(agent);
                ensure!(
                    is_adopted || reason == "AdoptionRefused",
                    "{reason}: {message}"
                );
                Ok(())
            })
            .await;
        }
        world.wait_ready(0).await;
        world.assert_minted(registry.owner(), 1).await;
    });
}

#[test]
fn revert_without_data_refuses_one_adoption() {
    World::run("revert", async |world| {
        let texts = [
            "execution reverted",
            "VM execution error.",
            "evm: execution reverted",
        ];
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        let mut registries = Vec::new();
        for (nth, text) in texts.into_iter().enumerate() {
            let proxy = world.proxy().await;
            proxy.add(Rule::edit_answer("eth_call", move |answer| {
                if let Some(error) = answer.get_mut("error").and_then(Value::as_object_mut) {
                    error.insert("message".into(), json!(text));
                    error.remove("data");
                }
            }));
            registries.push(world.registry_behind(nth, proxy).await);
            let adopt = json!({ "agentId": (999 + nth).to_string() });
            world
                .offer_with(nth, &shop, &format!("a-{nth}"), adopt)
                .await;
            world.offer(nth, &other, &format!("b-{nth}")).await;
        }
        for (nth, registry) in registries.iter().enumerate() {
            world.wait_other(&other, &format!("b-{nth}")).await;
            let name = format!("a-{nth}");
            let message = world.wait_offer(&shop, &name, "AdoptionRefused").await;
            assert!(message.contains(&(999 + nth).to_string()), "{message}");
            world.assert_minted(registry.owner(), 1).await;
        }
    });
}

#[test]
fn refused_record_is_reported_on_its_offer() {
    World::run("record", async |world| {
        let registry = world.registry(0).await;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        let client = world.env.cluster.client();
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client);
        const NAME: &str = "record-refuses-one";
        let expression = format!("object.spec.identity != '{shop}/a'");
        create_policy(&policies, &bindings, NAME, &expression).await;
        world.offer(0, &shop, "a").await;
        world.offer(0, &other, "b").await;
        world.wait_other(&other, "b").await;
        let message = world.wait_offer(&shop, "a", "RecordRefused").await;
        assert!(message.contains(NAME), "who refuses: {message}");
        let mined = world.chain.mined_transactions_of(registry.owner()).await;
        assert_eq!(mined.unwrap(), 1, "nothing is sent without a record");

        delete(&bindings, NAME).await.unwrap();
        delete(&policies, NAME).await.unwrap();
        world.objects().wait_registered(&shop, "a", SHOWN).await;
        world.assert_minted(registry.owner(), 2).await;
        world.wait_ready(0).await;
    });
}

#[test]
fn nonce_that_nothing_can_be_signed_for_is_named_and_then_filled() {
    World::run("unsigned", async |world| {
        let registry = world.registry(0).await;
        let objects = world.objects();
        let suspend = async |value: &str| {
            let change = json!({ "spec": { "suspend": value } });
            objects.patch_registry(&registry.name, change).await;
        };
        suspend("Spending").await;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        world.offer(0, &shop, "a").await;
        objects.wait_key(&shop, "a").await;
        // The older record gets the lower nonce; creation times have a resolution of a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        world.offer(0, &other, "b").await;
        objects.wait_key(&other, "b").await;
        let client = world.env.cluster.client();
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client);
        const NAME: &str = "attempts-refused";
        let expression = format!(
            "object.spec.identity != '{shop}/a' || !has(object.spec.attempts) || size(object.spec.attempts) == 0"
        );
        create_policy(&policies, &bindings, NAME, &expression).await;
        suspend("None").await;

        world.wait_offer(&shop, "a", "RecordRefused").await;
        let message = world.wait_offer(&other, "b", "NonceUnsigned").await;
        assert!(message.contains("nonce 0"), "{message}");
        world.wait_registry(0, "NonceUnsigned").await;
        let owner = registry.owner();
        let mined = world.chain.mined_transactions_of(owner).await;
        assert_eq!(mined.unwrap(), 0, "nothing above it is signed");

        objects.wait_registered(&other, "b", FILLED).await;
        let filled = world.chain.provider();
        let filled = filled.get_transaction_by_sender_nonce(owner, 0).await;
        let filled = filled.unwrap().expect("a transaction with nonce 0");
        let calldata = String::from_utf8(filled.input().to_vec()).unwrap();
        assert_eq!((filled.to(), filled.value()), (Some(owner), U256::ZERO));
        assert!(calldata.starts_with("filler for agent "), "{calldata}");
        let message = world.wait_offer(&shop, "a", "NonceFilled").await;
        assert!(message.contains("nonce 0"), "{message}");
        eventually("the filler counts as spent", SHOWN, async || {
            let records = objects.records().list(&ListParams::default()).await?;
            let ours = format!("{shop}/a");
            let record = records.iter().find(|record| record.spec.identity == ours);
            let spent = record.and_then(|record| record.spec.spent_wei);
            ensure!(spent.is_some_and(|spent| spent.0 > 0), "{spent:?}");
            anyhow::Ok(())
        })
        .await;

        delete(&bindings, NAME).await.unwrap();
        delete(&policies, NAME).await.unwrap();
        // Another process does not hold back the agent for the rest of the ten minutes.
        world.restart().await;
        objects.wait_registered(&shop, "a", SHOWN).await;
        let minted = world.chain.registrations_of(owner).await.unwrap();
        assert_eq!(minted.len(), 2, "{minted:?}");
        let mined = world.chain.mined_transactions_of(owner).await;
        assert_eq!(mined.unwrap(), 3, "one filler and two registrations");
        world.wait_ready(0).await;
    });
}

/// Refuses every write of a record for which the expression is false, once the API server has read
/// the policy.
async fn create_policy(
    policies: &Api<ValidatingAdmissionPolicy>,
    bindings: &Api<ValidatingAdmissionPolicyBinding>,
    name: &str,
    expression: &str,
) {
    let manifest = json!({
        "metadata": { "name": name },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["obol.org"],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["agentregistrations"],
            }] },
            "validations": [{
                "expression": expression,
                "message": "this record is refused",
            }],
        },
    });
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(manifest).unwrap();
    delete_if_exists(policies, name).await.unwrap();
    delete_if_exists(bindings, name).await.unwrap();
    let parameters = PostParams::default();
    policies.create(&parameters, &policy).await.unwrap();
    let manifest = json!({
        "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    });
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(manifest).unwrap();
    bindings.create(&parameters, &binding).await.unwrap();
    // The API server reads policies in the background.
    tokio::time::sleep(Duration::from_secs(3)).await;
}

#[test]
fn change_of_the_signer_strands_no_record() {
    World::run("signer", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, swallow) = world.registry_with_lost_transaction(&shop, "old").await;
        let manifest = world.manifest(0, &[&registry.proxy]).await;
        let next = world.manifest(1, &[&registry.proxy]).await;
        let signer = |manifest: &Value| manifest["spec"]["signers"][0].clone();
        let signers = json!([signer(&next), signer(&manifest)]);
        let change = json!({ "spec": { "signers": signers } });
        world.objects().patch_registry(&registry.name, change).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "new").await;

        world.wait_other(&shop, "new").await;
        let what = "the record of the first signer finishes, or says why it does not";
        eventually(what, SHOWN, async || {
            let (reason, message) = world.read_offer(&shop, "old").await?;
            let is_silent = ["Pending", "Registering", ""].contains(&reason.as_str());
            ensure!(!is_silent, "{reason}: {message}");
            println!("{reason}: {message}");
            Ok(())
        })
        .await;
        let (first, second) = (registry.owner(), world.signer(1).address());
        let both = [first, second].map(|owner| world.chain.registrations_of(owner));
        let [first, second] = both;
        let minted = (first.await.unwrap(), second.await.unwrap());
        let mut uris: Vec<_> = minted
            .0
            .iter()
            .chain(&minted.1)
            .map(|event| &event.uri)
            .collect();
        uris.sort();
        let count = uris.len();
        uris.dedup();
        assert_eq!(uris.len(), count, "a key is minted by both signers");
    });
}

#[test]
fn signer_belongs_to_the_oldest_registry() {
    World::run("holder", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "held").await;
        world.wait_other(&shop, "held").await;
        // Creation times have a resolution of a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let proxy = world.proxy().await;
        let mut manifest = world.manifest(1, &[&proxy]).await;
        let own = world.manifest(0, &[&proxy]).await;
        manifest["spec"]["signers"] = own["spec"]["signers"].clone();
        manifest["spec"]["baseUrl"] = json!("http://other.example");
        world.objects().create_registry(manifest).await;
        world.offer(1, &shop, "waiting").await;

        let message = world.wait_registry(1, "SignerInUse").await;
        assert!(message.contains(&registry.name), "who holds it: {message}");
        world.wait_offer(&shop, "waiting", "SignerInUse").await;
        world.offer(0, &shop, "again").await;
        world.wait_other(&shop, "again").await;
        assert_eq!(proxy.calls().of("eth_sendRawTransaction"), 0);
        let minted = world
            .chain
            .registrations_of(registry.owner())
            .await
            .unwrap();
        let is_own = |uri: &str| uri.starts_with("http://agents.example/");
        assert!(minted.iter().all(|event| is_own(&event.uri)), "{minted:?}");

        delete(&world.objects().registries(), &registry.name)
            .await
            .unwrap();
        world
            .objects()
            .wait_registered(&shop, "waiting", SHOWN)
            .await;
        world.assert_minted(registry.owner(), 3).await;
    });
}

#[test]
fn undecodable_record_and_ledger_are_named() {
    World::run_alone("undecodable", async |world| {
        let registry = world.registry(0).await;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;

        let client = &world.objects().client;
        let allow = json!({ "obol.org/allow-deletion": "true" });
        let strict = relax::<AgentRegistration>(client).await;
        let broken = json!({
            "apiVersion": "obol.org/v1alpha1",
            "kind": "AgentRegistration",
            "metadata": { "name": "r-aaaaaaaaaaaaaaaa", "annotations": allow },
            "spec": { "key": "aaaaaaaaaaaaaaaa", "phase": "Remembered", "chainId": "many" },
        });
        create_any::<AgentRegistration>(client, broken).await;
        restore::<AgentRegistration>(client, strict).await;
        for name in ["b", "c"] {
            world.offer(0, &other, name).await;
            world.wait_other(&other, name).await;
        }

        let strict = relax::<SignerLedger>(client).await;
        let name = SignerLedger::name_of(world.chain.id, world.signer(5).address());
        let ledger = json!({
            "apiVersion": "obol.org/v1alpha1",
            "kind": "SignerLedger",
            "metadata": { "name": name, "annotations": allow },
            "spec": { "chainId": world.chain.id, "registering": "unknown" },
        });
        create_any::<SignerLedger>(client, ledger).await;
        restore::<SignerLedger>(client, strict).await;
        // Its keys may be in flight: no nonce is given before they are known.
        world.offer(0, &other, "d").await;
        let message = world.wait_registry(0, "LedgerUnreadable").await;
        assert!(message.contains(&name), "which one: {message}");
        world
            .assert_quiet(registry.owner(), Duration::from_secs(5))
            .await;

        let deletion = DeleteParams::default();
        let ledgers = dynamic::<SignerLedger>(client, None);
        ledgers.delete(&name, &deletion).await.unwrap();
        world.objects().wait_registered(&other, "d", SHOWN).await;
        world.assert_minted(registry.owner(), 4).await;
        world.assert_no_crash().await;
    });
}

#[test]
fn failing_call_of_one_entry_holds_up_no_other() {
    World::run("entry", async |world| {
        let registry = world.registry(0).await;
        let swallow = registry.proxy.add(Rule::swallow());
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        world.offer(0, &shop, "a").await;
        registry.wait_hits(swallow, 1).await;
        let calls = registry.proxy.calls();
        let raw = calls.all("eth_sendRawTransaction").next().unwrap();
        let bytes = alloy::hex::decode(raw.params[0].as_str().unwrap()).unwrap();
        let hash = json!(alloy::primitives::keccak256(bytes));
        let receipts = Rule::error("eth_getTransactionReceipt", -32603, "internal error");
        let rule = receipts.when(move |call| call.params[0] == hash);
        let rule = registry.proxy.add(rule);
        registry.proxy.remove(swallow);
        world.offer(0, &other, "b").await;
        world.wait_other(&other, "b").await;
        assert!(
            registry.proxy.remove(rule) > 0,
            "the rule must have mattered"
        );
        world.objects().wait_registered(&shop, "a", SHOWN).await;
        world.assert_minted(registry.owner(), 2).await;
    });
}
