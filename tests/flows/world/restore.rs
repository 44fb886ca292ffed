//! State that was restored from a backup: it is noticed, whatever remembers more, and the signer
//! stops.

use std::time::Duration;

use alloy::primitives::Address;
use anyhow::ensure;
use harness::objects::{create, delete};
use harness::wait::eventually;
use kube::ResourceExt;
use rpc_proxy::Rule;
use serde_json::{Value, json};
use serviceoffer::api::{QuarantineReason, SignerLedger};

use super::{OTHERS, ProxiedRegistry, SHOWN, World, chain_id, delete_protected};

/// How long nothing may be sent after a rollback.
const QUIET: Duration = Duration::from_secs(20);

impl World {
    fn ledger_name(&self, registry: &ProxiedRegistry) -> String {
        SignerLedger::name_of(chain_id(&self.case), registry.owner())
    }

    /// The ledger once nothing is in flight.
    async fn settled_ledger(&self, registry: &ProxiedRegistry) -> SignerLedger {
        let name = self.ledger_name(registry);
        eventually("nothing is in flight", OTHERS, async || {
            let ledger = self.objects().ledgers().get(&name).await?;
            ensure!(ledger.spec.entries.is_empty(), "{:?}", ledger.spec.entries);
            anyhow::Ok(ledger)
        })
        .await
    }

    /// Waits until an offer's transaction is signed, and returns its bytes.
    async fn signed(&self, namespace: &str, name: &str) -> Value {
        let record = self.objects().wait_key(namespace, name).await.record_name();
        let what = format!("the transaction of {name} is signed");
        eventually(&what, OTHERS, async || {
            let record = self.objects().records().get(&record).await?;
            let attempt = record.spec.attempts.last();
            let raw = attempt.and_then(|attempt| attempt.raw.as_ref());
            ensure!(raw.is_some(), "{:?}", record.spec.phase);
            anyhow::Ok(serde_json::to_value(raw)?)
        })
        .await
    }

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

    async fn assert_quarantined(&self, registry: &ProxiedRegistry) {
        let name = self.ledger_name(registry);
        eventually("the ledger is in quarantine", SHOWN, async || {
            let ledger = self.objects().ledgers().get(&name).await?;
            let reason = ledger.spec.quarantine.map(|quarantine| quarantine.reason);
            ensure!(reason == Some(QuarantineReason::Rollback), "{reason:?}");
            anyhow::Ok(())
        })
        .await;
        let message = self.wait_registry(0, "Quarantined").await;
        assert!(message.contains("restore etcd"), "what to do: {message}");
    }
}

#[test]
fn ledger_restored_without_its_records_is_quarantined() {
    World::run("partial", async |world| {
        let registry = world.registry(0).await;
        let objects = world.objects();
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        let backup = world.settled_ledger(&registry).await;
        let swallow = registry.proxy.add(Rule::swallow());
        world.offer(0, &shop, "flying").await;
        let raw = world.signed(&shop, "flying").await;

        // As a selective restore does it: the record is newer, and the registry has no status.
        delete(&objects.registries(), &registry.name).await.unwrap();
        delete_protected(&objects.ledgers(), &world.ledger_name(&registry)).await;
        world.restart().await;
        let restored = SignerLedger::new(&backup.name_any(), backup.spec);
        create(&objects.ledgers(), &restored).await.unwrap();
        let manifest = world.manifest(0, &[&registry.proxy]).await;
        objects.create_registry(manifest).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "other").await;
        world.assert_quarantined(&registry).await;
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
        world.settled_ledger(&registry).await;
        let backup = world.env.cluster.back_up_etcd().await.unwrap();
        let swallow = registry.proxy.add(Rule::swallow());
        world.offer(0, &shop, "flying").await;
        let raw = world.signed(&shop, "flying").await;

        // What was signed since the backup is left only in the memory of two standbys.
        let leader = world.release.wait_leader(None, OTHERS).await.unwrap();
        world.release.kill(&leader).await.unwrap();
        world.env.cluster.restore_etcd(&backup).await.unwrap();
        registry.proxy.remove(swallow);
        world.assert_quarantined(&registry).await;
        world.offer(0, &shop, "other").await;
        world.assert_quiet(registry.owner(), QUIET).await;

        world.include_forgotten(&raw, registry.owner()).await;
    });
}
