//! Changes of the signer: an agent that any of them registered is not registered again, and what one
//! has begun is finished.

use std::time::Duration;

use alloy::primitives::Address;
use anyhow::ensure;
use harness::objects::delete;
use harness::wait::eventually;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use rpc_proxy::RpcProxy;
use serde_json::{Value, json};

use super::{SHOWN, World, delete_all, delete_protected};

impl World {
    /// Makes these accounts the signers of the first registry.
    pub(super) async fn set_signers(&self, proxy: &RpcProxy, signers: &[usize]) {
        let signers = self.signers(proxy, signers).await;
        let change = json!({ "spec": { "signers": signers } });
        self.objects().patch_registry(&self.name(0), change).await;
    }

    async fn signers(&self, proxy: &RpcProxy, signers: &[usize]) -> Value {
        let mut all = Vec::new();
        for nth in signers {
            let manifest = self.manifest(*nth, &[proxy]).await;
            all.push(manifest["spec"]["signers"][0].clone());
        }
        Value::Array(all)
    }

    /// Deletes the record of an offer as an administrator can, and waits until there is another
    /// one with that agent.
    async fn lose_record(&self, namespace: &str, name: &str, agent: &str) -> Option<Address> {
        let record = self.objects().wait_key(namespace, name).await.record_name();
        let records = self.objects().records();
        let lost = records.get(&record).await.unwrap();
        delete_protected(&records, &record).await;
        let what = format!("the record of {name} is recovered");
        eventually(&what, SHOWN, async || {
            let found = records.get(&record).await?;
            let found_agent = found.spec.result.as_ref().map(|result| &*result.agent_id);
            ensure!(
                found.uid() != lost.uid() && found_agent == Some(agent),
                "{:?} {:?}",
                found.spec.phase,
                found.spec.result
            );
            Ok(found.spec.signer)
        })
        .await
    }
}

#[test]
fn agent_of_a_former_signer_is_found_after_its_record_was_lost() {
    World::run("former", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "old").await;
        let agent = world.wait_other(&shop, "old").await;
        world.set_signers(&registry.proxy, &[1]).await;
        world.offer(0, &shop, "new").await;
        world.wait_other(&shop, "new").await;

        let signer = world.lose_record(&shop, "old", &agent).await;
        assert_eq!(signer, Some(registry.owner()), "it is of who registered it");
        assert_eq!(world.wait_other(&shop, "old").await, agent);
        world.assert_minted(registry.owner(), 1).await;
        world.assert_minted(world.signer(1).address(), 1).await;
    });
}

#[test]
fn agents_of_all_signers_are_found_without_records_and_ledgers() {
    World::run("rotated", async |world| {
        let first = world.chain.anvil.block_number().await.unwrap();
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "old").await;
        let old = world.wait_other(&shop, "old").await;
        world.set_signers(&registry.proxy, &[1, 0]).await;
        world.offer(0, &shop, "new").await;
        let new = world.wait_other(&shop, "new").await;

        let objects = world.objects();
        let mut manifest = world.manifest(0, &[&registry.proxy]).await;
        manifest["spec"]["signers"] = world.signers(&registry.proxy, &[1, 0]).await;
        manifest["spec"]["bootstrap"] = json!({ "atNonce": 1, "fromBlock": first });
        for name in ["old", "new"] {
            delete(&objects.offers(&shop), name).await.unwrap();
        }
        delete(&objects.registries(), &registry.name).await.unwrap();
        delete_all(&objects.records()).await;
        delete_all(&objects.ledgers()).await;
        // The operator of before remembers the ledger, and would call it lost.
        world.restart().await;
        objects.create_registry(manifest).await;
        for name in ["old", "new"] {
            world.offer(0, &shop, name).await;
        }
        assert_eq!(world.wait_other(&shop, "new").await, new);
        assert_eq!(world.wait_other(&shop, "old").await, old);
        world.assert_minted(registry.owner(), 1).await;
        world.assert_minted(world.signer(1).address(), 1).await;
    });
}

#[test]
fn agent_of_another_registrys_signer_is_found_after_its_offer_moved() {
    World::run("moved", async |world| {
        let registry = world.registry(0).await;
        world.registry(1).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        let agent = world.wait_other(&shop, "chat").await;
        let objects = world.objects();
        let record = objects.wait_key(&shop, "chat").await.record_name();
        delete(&objects.offers(&shop), "chat").await.unwrap();
        delete_protected(&objects.records(), &record).await;
        world.offer(1, &shop, "chat").await;

        assert_eq!(world.wait_other(&shop, "chat").await, agent);
        world.assert_minted(registry.owner(), 1).await;
        world.assert_minted(world.signer(1).address(), 0).await;
    });
}

#[test]
fn former_signer_finishes_what_it_began_while_the_next_one_registers() {
    World::run("rotation", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, swallow) = world.registry_with_lost_transaction(&shop, "flying").await;
        world.set_signers(&registry.proxy, &[1, 0]).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "new").await;
        world.wait_other(&shop, "new").await;
        world.wait_other(&shop, "flying").await;
        world.set_signers(&registry.proxy, &[0, 1]).await;
        world.offer(0, &shop, "back").await;
        world.wait_other(&shop, "back").await;
        world.wait_ready(0).await;
        world.assert_minted(registry.owner(), 2).await;
        world.assert_minted(world.signer(1).address(), 1).await;
    });
}

#[test]
fn record_that_no_signer_has_begun_goes_to_the_next_one() {
    World::run("unbegun", async |world| {
        let proxy = world.proxy().await;
        let mut manifest = world.manifest(0, &[&proxy]).await;
        manifest["spec"]["suspend"] = json!("Spending");
        world.objects().create_registry(manifest).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "waiting").await;
        world.objects().wait_key(&shop, "waiting").await;
        world.set_signers(&proxy, &[1]).await;
        let resume = json!({ "spec": { "suspend": "None" } });
        world.objects().patch_registry(&world.name(0), resume).await;
        world.wait_other(&shop, "waiting").await;
        world.assert_minted(world.signer(0).address(), 0).await;
        world.assert_minted(world.signer(1).address(), 1).await;
    });
}

#[test]
fn registration_in_flight_of_a_former_signer_is_not_repeated() {
    World::run("flying", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, swallow) = world.registry_with_lost_transaction(&shop, "flying").await;
        world.set_signers(&registry.proxy, &[1]).await;
        // Until then the former signer may send it again.
        let objects = world.objects();
        objects.wait_registry_observed(&registry.name, SHOWN).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "other").await;
        world.wait_other(&shop, "other").await;
        let record = objects.wait_key(&shop, "flying").await.record_name();
        let message = world.wait_offer(&shop, "flying", "SignerChanged").await;
        let former = format!("{:#x}", registry.owner());
        let names = |word: &str| message.to_lowercase().contains(word);
        assert!(names(&record) && names(&former), "{message}");
        delete_protected(&objects.records(), &record).await;

        let next = world.signer(1).address();
        world.assert_quiet(next, Duration::from_secs(20)).await;
        world.assert_minted(next, 1).await;
        world.assert_minted(registry.owner(), 0).await;
    });
}

#[test]
fn ledger_that_another_registry_has_marked_is_lost_without_it() {
    World::run("marked", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "old").await;
        world.wait_other(&shop, "old").await;
        world.settled_ledger(0).await;
        let objects = world.objects();
        let record = objects.wait_key(&shop, "old").await.record_name();
        delete(&objects.offers(&shop), "old").await.unwrap();
        let change = json!({ "spec": {
            "suspend": "Spending", "signers": world.signers(&registry.proxy, &[1]).await,
        } });
        objects.patch_registry(&registry.name, change).await;
        delete_protected(&objects.records(), &record).await;
        delete_protected(&objects.ledgers(), &world.ledger_name(0)).await;
        // No process remembers the ledger either.
        world.restart().await;

        let mut manifest = world.manifest(1, &[&registry.proxy]).await;
        manifest["spec"]["signers"] = world.signers(&registry.proxy, &[0]).await;
        objects.create_registry(manifest).await;
        world.offer(1, &shop, "new").await;
        world.wait_registry(1, "LedgerLost").await;
        world
            .assert_quiet(registry.owner(), Duration::from_secs(10))
            .await;
        world.assert_minted(registry.owner(), 1).await;
    });
}

#[test]
fn ledger_of_a_signer_that_the_spec_forgot_is_remembered() {
    World::run("forgot", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "old").await;
        world.wait_other(&shop, "old").await;
        let objects = world.objects();
        let before = objects.registries().get(&registry.name).await.unwrap();
        world.set_signers(&registry.proxy, &[1, 0]).await;
        world.offer(0, &shop, "new").await;
        world.wait_other(&shop, "new").await;
        world.settled_ledger(1).await;

        // What was made since then is gone, as if etcd had been restored.
        let suspend = json!({ "spec": { "suspend": "Spending" } });
        objects.patch_registry(&registry.name, suspend).await;
        let record = objects.wait_key(&shop, "new").await.record_name();
        delete(&objects.offers(&shop), "new").await.unwrap();
        delete_protected(&objects.records(), &record).await;
        delete_protected(&objects.ledgers(), &world.ledger_name(1)).await;
        let markers = before.status.unwrap_or_default().ledgers;
        let status = Patch::Merge(json!({ "status": { "ledgers": markers } }));
        let registries = objects.registries();
        let parameters = PatchParams::default();
        let restored = registries.patch_status(&registry.name, &parameters, &status);
        restored.await.unwrap();
        world.set_signers(&registry.proxy, &[0]).await;
        let resume = json!({ "spec": { "suspend": "None" } });
        objects.patch_registry(&registry.name, resume).await;
        world.offer(0, &shop, "new").await;

        let message = world.wait_registry(0, "OtherLedgerLost").await;
        let name = world.ledger_name(1);
        assert!(message.contains(&name), "which one: {message}");
        world
            .assert_quiet(registry.owner(), Duration::from_secs(10))
            .await;
        world.assert_minted(registry.owner(), 1).await;
        world.assert_minted(world.signer(1).address(), 1).await;
    });
}

#[test]
fn signer_that_comes_back_has_finished_and_is_not_retired() {
    World::run("there-and-back", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let (first, second) = (registry.owner(), world.signer(1).address());
        let begin = async |names: [&str; 2], signer: Address| {
            for name in names {
                world.offer(0, &shop, name).await;
                let record = world.wait_signed(&shop, name).await;
                assert_eq!(record.spec.signer, Some(signer), "{name}");
            }
        };
        world.offer(0, &shop, "before").await;
        world.wait_other(&shop, "before").await;
        world.mine_every(0).await;
        begin(["a-0", "a-1"], first).await;
        world.set_signers(&registry.proxy, &[1, 0]).await;
        begin(["b-0", "b-1"], second).await;
        world.set_signers(&registry.proxy, &[0, 1]).await;
        begin(["c-0", "c-1"], first).await;
        world.assert_minted(first, 1).await;
        world.assert_minted(second, 0).await;
        world.mine_every(1).await;
        for name in ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1"] {
            world.wait_other(&shop, name).await;
        }
        world.wait_ready(0).await;
        for nth in [0, 1] {
            let ledger = world.settled_ledger(nth).await;
            assert!(!ledger.spec.draining, "signer {nth} is retired");
        }
        world.assert_minted(first, 5).await;
        world.assert_minted(second, 2).await;
    });
}

#[test]
fn registration_begun_before_the_registry_lost_its_signers_waits_for_its_own() {
    World::run("no-signers", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, swallow) = world.registry_with_lost_transaction(&shop, "flying").await;
        let record = world
            .objects()
            .wait_key(&shop, "flying")
            .await
            .record_name();
        let former = registry.owner();
        let names_both = async || {
            let message = world.wait_offer(&shop, "flying", "SignerChanged").await;
            let message = message.to_lowercase();
            let names = |words: &str| message.contains(words);
            assert!(
                names(&record) && names(&format!("{former:#x}")),
                "{message}"
            );
            assert!(names("list it"), "what to do: {message}");
        };
        world.set_signers(&registry.proxy, &[]).await;
        world.wait_registry(0, "WatchOnly").await;
        world.offer(0, &shop, "waiting").await;
        names_both().await;
        let message = world.wait_offer(&shop, "waiting", "WatchOnly").await;
        assert!(message.contains("spec.signers"), "what to do: {message}");

        world.set_signers(&registry.proxy, &[1]).await;
        registry.proxy.remove(swallow);
        world.wait_other(&shop, "waiting").await;
        names_both().await;
        let next = world.signer(1).address();
        world.assert_quiet(next, Duration::from_secs(10)).await;
        world.assert_minted(next, 1).await;
        world.assert_minted(former, 0).await;

        world.set_signers(&registry.proxy, &[1, 0]).await;
        world.wait_other(&shop, "flying").await;
        world.assert_minted(next, 1).await;
        world.assert_minted(former, 1).await;
    });
}

#[test]
fn registration_in_flight_of_another_registry_is_not_repeated_without_its_record() {
    World::run("in-flight", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, _) = world.registry_with_lost_transaction(&shop, "flying").await;
        world.registry(1).await;
        let objects = world.objects();
        let record = objects.wait_key(&shop, "flying").await.record_name();
        delete(&objects.offers(&shop), "flying").await.unwrap();
        delete_protected(&objects.records(), &record).await;
        world.offer(1, &shop, "flying").await;
        world.offer(1, &shop, "other").await;
        world.wait_other(&shop, "other").await;

        let next = world.signer(1).address();
        world.assert_quiet(next, Duration::from_secs(20)).await;
        world.assert_minted(next, 1).await;
        world.assert_minted(registry.owner(), 0).await;
        world.wait_registry(0, "StoredTransactionMismatch").await;
        let message = world
            .wait_offer(&shop, "flying", "OtherLedgerRegistering")
            .await;
        let names = |words: &str| message.contains(words);
        assert!(
            names(&world.ledger_name(0)) && names("Restore"),
            "{message}"
        );
    });
}
