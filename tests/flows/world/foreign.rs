//! Something else uses the signer's key: a wallet, a script, the CLI of the legacy controller.

use std::time::Duration;

use alloy::primitives::{Address, B256};
use anyhow::ensure;
use harness::wait::eventually;
use rpc_proxy::{Methods, Rule};
use serde_json::json;

use super::{OTHERS, World};

impl World {
    /// Sends a payment from the account, which the operator did not sign, and returns its hash once it
    /// is in a block.
    async fn pay_from(&self, account: Address) -> B256 {
        let before = self.chain.mined_transactions_of(account).await.unwrap();
        let payment = json!([{ "from": account, "to": self.stranger(), "value": "0x1" }]);
        let hash = self.chain.rpc("eth_sendTransaction", payment).await;
        eventually("the payment is in a block", OTHERS, async || {
            let mined = self.chain.mined_transactions_of(account).await?;
            ensure!(mined > before, "{mined} transactions");
            anyhow::Ok(())
        })
        .await;
        serde_json::from_value(hash.unwrap()).unwrap()
    }

    async fn assert_registered(&self, owner: Address, expected: usize) {
        let minted = self.chain.registrations_of(owner).await.unwrap();
        assert_eq!(minted.len(), expected, "{minted:?}");
    }
}

#[test]
fn registration_continues_above_what_something_else_sent() {
    World::run("wallet", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        // More than one pass looks for.
        for _ in 0..12 {
            world.pay_from(registry.owner()).await;
        }
        world.offer(0, &shop, "second").await;
        world.wait_other(&shop, "second").await;
        world.wait_ready(0).await;
        world.assert_registered(registry.owner(), 2).await;
    });
}

#[test]
fn registration_whose_nonce_something_else_used_is_made_once_at_another() {
    World::run("displaced", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, swallow) = world
            .registry_with_lost_transaction(&shop, "displaced")
            .await;
        let payment = world.pay_from(registry.owner()).await;
        registry.proxy.remove(swallow);
        world.offer(0, &shop, "other").await;
        world.wait_other(&shop, "displaced").await;
        world.wait_other(&shop, "other").await;

        let objects = world.objects();
        let key = objects.wait_key(&shop, "displaced").await;
        let record = objects.records().get(&key.record_name()).await.unwrap();
        let displaced = record.spec.displaced.unwrap();
        assert_eq!((displaced.nonce.0, displaced.transaction), (0, payment));
        let attempts = record.spec.attempts.iter();
        let nonces: Vec<u64> = attempts.map(|attempt| attempt.nonce.0).collect();
        assert_eq!(nonces.first(), Some(&0), "{nonces:?}");
        assert!(nonces.last() > Some(&0), "{nonces:?}");
        let (_, message) = objects
            .wait_registry_reason(&registry.name, "Ready", "Reconciled", OTHERS)
            .await;
        assert!(message.contains(&payment.to_string()), "{message}");
        world.assert_registered(registry.owner(), 2).await;
    });
}

#[test]
fn leader_that_did_not_see_what_came_before_allocates_nothing() {
    World::run_alone("unseen", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        // As after a restore: a registration could be in flight that the ledger has forgotten.
        let down = registry.proxy.add(Rule::http(Methods::all(), 503, ""));
        world.pay_from(registry.owner()).await;
        world.restart().await;
        registry.proxy.remove(down);
        world.offer(0, &shop, "second").await;
        let message = world.wait_registry(0, "NonceAhead").await;
        assert!(message.contains("has sent 2 transactions"), "{message}");
        let quiet = Duration::from_secs(10);
        world.assert_quiet(registry.owner(), quiet).await;
        world.assert_registered(registry.owner(), 1).await;
    });
}
