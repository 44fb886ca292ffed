//! Gas prices that rise above what was signed, and limits that change while transactions are in
//! flight.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::Decodable2718;
use alloy::primitives::{Bytes, keccak256};
use anyhow::ensure;
use harness::wait::eventually;
use rpc_proxy::Rule;
use serde_json::json;

use super::{OTHERS, ProxiedRegistry, SHOWN, World};
use crate::fixture::hold_base_fee;

const GWEI: u64 = 1_000_000_000;
const UNDERPRICED: &str = "replacement transaction underpriced";

/// Refuses a transaction that replaces another one, unless it raises both fees by a tenth, as geth
/// and reth do and anvil does not.
fn refuse_cheap_replacements() -> Rule {
    let pool = Arc::new(Mutex::new(HashMap::<u64, TxEnvelope>::new()));
    Rule::error("eth_sendRawTransaction", -32000, UNDERPRICED).when(move |call| {
        let raw: Bytes = serde_json::from_value(call.params[0].clone()).unwrap();
        let sent = TxEnvelope::decode_2718_exact(&raw).unwrap();
        let fees = |transaction: &TxEnvelope| {
            let tip = transaction.max_priority_fee_per_gas().unwrap_or_default();
            (transaction.max_fee_per_gas(), tip)
        };
        let mut pool = pool.lock().unwrap();
        let replaced = pool.get(&sent.nonce());
        let is_cheap = replaced.is_some_and(|replaced| {
            let (before, after) = (fees(replaced), fees(&sent));
            let is_raised = |before: u128, after: u128| after * 10 >= before * 11;
            replaced.tx_hash() != sent.tx_hash()
                && !(is_raised(before.0, after.0) && is_raised(before.1, after.1))
        });
        if !is_cheap {
            pool.insert(sent.nonce(), sent);
        }
        is_cheap
    })
}

impl World {
    /// A registry whose offers `offer-<n>` have all signed at one gwei, while the endpoint kept
    /// every transaction to itself. Returns the rule that refuses cheap replacements.
    async fn in_flight(
        &self,
        offers: usize,
        limits: serde_json::Value,
        namespace: &str,
    ) -> (ProxiedRegistry, rpc_proxy::RuleId) {
        let proxy = self.proxy().await;
        let cheap = proxy.add(refuse_cheap_replacements());
        let swallow = proxy.add(Rule::swallow());
        let mut manifest = self.manifest(0, &[&proxy]).await;
        manifest["spec"]["limits"] = limits;
        self.objects().create_registry(manifest).await;
        for nth in 0..offers {
            self.offer(0, namespace, &format!("offer-{nth}")).await;
        }
        eventually("all transactions are sent", OTHERS, async || {
            ensure!(proxy.hits(swallow) >= offers as u64, "not yet");
            anyhow::Ok(())
        })
        .await;
        proxy.remove(swallow);
        let registry = ProxiedRegistry {
            name: self.name(0),
            proxy,
            signer: self.signer(0),
        };
        (registry, cheap)
    }

    async fn assert_all_finish(&self, offers: usize, namespace: &str) {
        for nth in 0..offers {
            let name = format!("offer-{nth}");
            let objects = self.objects();
            objects.wait_registered(namespace, &name, SHOWN).await;
        }
        self.assert_minted(self.signer(0).address(), offers).await;
        self.wait_ready(0).await;
    }

    /// Runs a scenario during which every block has this base fee.
    async fn at_base_fee(&self, gwei: u64, scenario: impl Future<Output = ()>) {
        tokio::select! {
            () = scenario => {}
            never = hold_base_fee(&self.chain, gwei * GWEI) => match never {},
        }
    }
}

#[test]
fn rising_base_fee_replaces_all_that_is_in_flight() {
    World::run("risen", async |world| {
        const OFFERS: usize = 16;
        let shop = world.namespace("shop").await;
        let limits = json!({ "perRegistration": "0.02", "perDay": "1" });
        let (registry, cheap) = world.in_flight(OFFERS, limits, &shop).await;
        let finish = world.assert_all_finish(OFFERS, &shop);
        world.at_base_fee(20, finish).await;
        assert_eq!(registry.proxy.hits(cheap), 0, "both fees rise by a tenth");
        let mut replaced = 0;
        for nth in 0..OFFERS {
            let name = format!("offer-{nth}");
            let key = world.objects().wait_key(&shop, &name).await;
            let record = world.objects().records().get(&key.record_name()).await;
            let attempts = record.unwrap().spec.attempts;
            replaced += usize::from(attempts.len() > 1);
            let hashes: Vec<_> = attempts
                .iter()
                .filter_map(|attempt| attempt.raw.as_ref())
                .map(keccak256)
                .collect();
            assert_eq!(hashes.len(), attempts.len(), "all bytes are kept");
            assert!(attempts.iter().all(|next| next.nonce == attempts[0].nonce));
        }
        assert!(replaced > 0, "nothing had to be replaced");
    });
}

#[test]
fn market_above_the_limits_is_reported_on_every_waiting_offer() {
    World::run("capped", async |world| {
        const OFFERS: usize = 3;
        let shop = world.namespace("shop").await;
        let limits = json!({ "perRegistration": "0.005", "perDay": "1" });
        let (registry, _) = world.in_flight(OFFERS, limits, &shop).await;
        let reported = async {
            world.offer(0, &shop, "late").await;
            for name in ["offer-0", "offer-1", "offer-2", "late"] {
                let message = world.wait_offer(&shop, name, "FeeCapReached").await;
                assert!(message.contains("limits.perRegistration"), "{message}");
            }
            world.wait_registry(0, "FeeCapReached").await;
            world.assert_minted(registry.owner(), 0).await;
        };
        world.at_base_fee(100, reported).await;
        let finished = async {
            world.wait_other(&shop, "late").await;
            for nth in 0..OFFERS {
                world.wait_other(&shop, &format!("offer-{nth}")).await;
            }
        };
        world.at_base_fee(1, finished).await;
        world.assert_minted(registry.owner(), OFFERS + 1).await;
    });
}

#[test]
fn limits_that_are_raised_let_a_replacement_through_and_lowered_ones_hold() {
    World::run("limits", async |world| {
        const OFFERS: usize = 3;
        let shop = world.namespace("shop").await;
        let limits = |each: &str| json!({ "perRegistration": each, "perDay": "1" });
        world.in_flight(OFFERS, limits("0.005"), &shop).await;
        let set = async |each: &str| {
            let change = json!({ "spec": { "limits": limits(each) } });
            world.objects().patch_registry(&world.name(0), change).await;
        };
        let scenario = async {
            world.wait_offer(&shop, "offer-0", "FeeCapReached").await;
            set("0.0000001").await;
            let owner = world.signer(0).address();
            world.assert_quiet(owner, Duration::from_secs(10)).await;
            set("0.1").await;
            world.assert_all_finish(OFFERS, &shop).await;
        };
        world.at_base_fee(100, scenario).await;
    });
}
