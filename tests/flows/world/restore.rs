//! State that was restored from a backup. If it lacks what was signed, that is noticed, whatever
//! remembers more, and the signer stops; else it continues.

use std::time::Duration;

use alloy::primitives::Address;
use anyhow::ensure;
use harness::objects::{create, delete};
use harness::wait::eventually;
use kube::ResourceExt;
use rpc_proxy::Rule;
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, QuarantineReason, SignerLedger};
use testbed::EtcdBackup;

use super::{OTHERS, SHOWN, World, delete_protected};

/// How long nothing may be sent after a rollback.
const QUIET: Duration = Duration::from_secs(20);

impl World {
    /// The network includes a transaction that the operator has forgotten, and nothing follows.
    async fn include_forgotten(&self, raw: &Value, owner: Address) {
        let sent = self.chain.rpc("eth_sendRawTransaction", json!([raw])).await;
        sent.unwrap();
        eventually("the forgotten transaction is mined", OTHERS, async || {
            let mined = self.chain.mined_transactions_of(owner).await?;
            ensure!(mined == 2, "{mined} transactions");
            anyhow::Ok(())
        })
        .await;
        self.assert_quiet(owner, QUIET).await;
        self.assert_minted(owner, 2).await;
    }

    /// Restores etcd while the operator is stopped, so that nothing remembers what was lost.
    async fn restore_etcd(&self, backup: &EtcdBackup) {
        self.stop().await;
        self.env.cluster.restore_etcd(backup).await.unwrap();
        let limit = Duration::from_secs(60);
        self.release.wait_leader(None, limit).await.unwrap();
    }

    pub(super) async fn wait_quarantine(&self, nth: usize) {
        let name = self.ledger_name(nth);
        eventually("the ledger is in quarantine", SHOWN, async || {
            let ledger = self.objects().ledgers().get(&name).await?;
            let reason = ledger.spec.quarantine.map(|quarantine| quarantine.reason);
            ensure!(reason == Some(QuarantineReason::Rollback), "{reason:?}");
            anyhow::Ok(())
        })
        .await;
    }

    pub(super) async fn assert_quarantined(&self, nth: usize) {
        self.wait_quarantine(nth).await;
        let message = self.wait_registry(nth, "Quarantined").await;
        assert!(message.contains("restore etcd"), "what to do: {message}");
    }
}

/// The bytes of a record's last transaction.
fn raw_of(record: &AgentRegistration) -> Value {
    let attempt = record.spec.attempts.last();
    json!(attempt.and_then(|attempt| attempt.raw.as_ref()))
}

#[test]
fn ledger_restored_without_its_records_is_quarantined() {
    World::run("partial", async |world| {
        let registry = world.registry(0).await;
        let objects = world.objects();
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        let backup = world.settled_ledger(0).await;
        let swallow = registry.proxy.add(Rule::swallow());
        world.offer(0, &shop, "flying").await;
        let raw = raw_of(&world.wait_signed(&shop, "flying").await);

        // As a selective restore does it: the record is newer, and the registry has no status.
        delete(&objects.registries(), &registry.name).await.unwrap();
        delete_protected(&objects.ledgers(), &world.ledger_name(0)).await;
        world.restart().await;
        let restored = SignerLedger::new(&backup.name_any(), backup.spec);
        create(&objects.ledgers(), &restored).await.unwrap();
        let manifest = world.manifest(0, &[&registry.proxy]).await;
        objects.create_registry(manifest).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "other").await;
        world.assert_quarantined(0).await;
        world.assert_quiet(registry.owner(), QUIET).await;

        world.include_forgotten(&raw, registry.owner()).await;
    });
}

#[test]
fn standby_that_remembers_stops_the_leader_after_a_restore() {
    World::run_alone_with("restored", &["replicaCount=3"], async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        world.settled_ledger(0).await;
        let backup = world.env.cluster.back_up_etcd("first").await.unwrap();
        let swallow = registry.proxy.add(Rule::swallow());
        world.offer(0, &shop, "flying").await;
        let raw = raw_of(&world.wait_signed(&shop, "flying").await);

        // What was signed since the backup is left only in the memory of two standbys.
        let leader = world.release.wait_leader(None, OTHERS).await.unwrap();
        world.release.kill(&leader).await.unwrap();
        world.env.cluster.restore_etcd(&backup).await.unwrap();
        registry.proxy.remove(swallow);
        world.assert_quarantined(0).await;
        world.offer(0, &shop, "other").await;
        world.assert_quiet(registry.owner(), QUIET).await;

        world.include_forgotten(&raw, registry.owner()).await;
    });
}

#[test]
fn restored_snapshot_continues_unless_nonces_were_given_after_it() {
    World::run_alone("snapshot", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        let swallow = registry.proxy.add(Rule::swallow());
        let in_flight = ["a", "b", "c"];
        for name in in_flight {
            world.offer(0, &shop, name).await;
        }
        for name in in_flight {
            world.wait_signed(&shop, name).await;
        }
        let middle = world.env.cluster.back_up_etcd("middle").await.unwrap();
        registry.proxy.remove(swallow);
        let mut agents = Vec::new();
        for name in in_flight {
            agents.push(world.wait_other(&shop, name).await);
        }

        world.restore_etcd(&middle).await;
        for (name, agent) in in_flight.iter().zip(&agents) {
            assert_eq!(&world.wait_other(&shop, name).await, agent);
        }
        world.offer(0, &shop, "later").await;
        let later = world.wait_other(&shop, "later").await;
        world.settled_ledger(0).await;
        let newest = world.env.cluster.back_up_etcd("newest").await.unwrap();

        world.restore_etcd(&middle).await;
        world.offer(0, &shop, "later").await;
        let message = world.wait_registry(0, "NonceAhead").await;
        assert!(
            message.contains("restore the newest state"),
            "what to do: {message}"
        );
        world.assert_quiet(registry.owner(), QUIET).await;

        world.restore_etcd(&newest).await;
        assert_eq!(world.wait_other(&shop, "later").await, later);
        world.offer(0, &shop, "last").await;
        world.wait_other(&shop, "last").await;
        world.wait_ready(0).await;
        world.assert_minted(registry.owner(), 6).await;
    });
}

#[test]
fn restore_of_before_a_rotation_registers_nothing_twice() {
    World::run_alone("turned", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        let swallow = registry.proxy.add(Rule::swallow());
        world.offer(0, &shop, "former").await;
        world.wait_signed(&shop, "former").await;
        let backup = world.env.cluster.back_up_etcd("before").await.unwrap();
        world.set_signers(&registry.proxy, &[1, 0]).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "next").await;
        let next = world.wait_other(&shop, "next").await;
        let former = world.wait_other(&shop, "former").await;

        world.restore_etcd(&backup).await;
        // The registry before its offers: nothing but its spec knows of the next signer.
        world.set_signers(&registry.proxy, &[1, 0]).await;
        world.offer(0, &shop, "next").await;
        let message = world.wait_registry(0, "WalletUsed").await;
        assert!(message.contains("spec.bootstrap.atNonce to 1"), "{message}");
        assert_eq!(world.wait_other(&shop, "former").await, former);
        let bootstrap = json!({ "atNonce": 1, "fromBlock": 0 });
        let change = json!({ "spec": { "bootstrap": bootstrap } });
        world.objects().patch_registry(&registry.name, change).await;
        assert_eq!(world.wait_other(&shop, "next").await, next);
        world.offer(0, &shop, "last").await;
        world.wait_other(&shop, "last").await;
        world.assert_minted(registry.owner(), 2).await;
        world.assert_minted(world.signer(1).address(), 2).await;
    });
}

#[test]
fn former_signer_repeats_nothing_after_a_restore_of_before_the_rotation() {
    World::run_alone("forgotten", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        world.settled_ledger(0).await;
        let backup = world.env.cluster.back_up_etcd("before").await.unwrap();
        world.set_signers(&registry.proxy, &[1, 0]).await;
        world.offer(0, &shop, "next").await;
        let agent = world.wait_other(&shop, "next").await;

        // Only the chain knows of the next signer.
        world.restore_etcd(&backup).await;
        world.offer(0, &shop, "next").await;
        let account = format!("{:#x}", world.signer(1).address());
        let message = world
            .wait_offer(&shop, "next", "RegisteredByOtherAccount")
            .await;
        assert!(message.to_lowercase().contains(&account), "{message}");
        world.assert_quiet(registry.owner(), QUIET).await;

        world.set_signers(&registry.proxy, &[0, 1]).await;
        assert_eq!(world.wait_other(&shop, "next").await, agent);
        world.assert_minted(registry.owner(), 1).await;
        world.assert_minted(world.signer(1).address(), 1).await;
    });
}
