//! Gas prices that rise above what was signed, limits that change while transactions are in flight,
//! and chains whose transactions cost something else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::Decodable2718;
use alloy::hex;
use alloy::primitives::utils::{format_ether, parse_ether};
use alloy::primitives::{Address, Bytes, U256, address, keccak256};
use anyhow::{Context, ensure};
use harness::wait::eventually;
use rpc_proxy::Rule;
use serde_json::json;
use serviceoffer::api::Attempt;

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
        let (registry, cheap, swallow) = self.swallowed(offers, limits, namespace).await;
        registry.proxy.remove(swallow);
        (registry, cheap)
    }

    /// The same while the endpoint still keeps every transaction to itself, and the rule for that.
    async fn swallowed(
        &self,
        offers: usize,
        limits: serde_json::Value,
        namespace: &str,
    ) -> (ProxiedRegistry, rpc_proxy::RuleId, rpc_proxy::RuleId) {
        let proxy = self.proxy().await;
        let cheap = proxy.add(refuse_cheap_replacements());
        let swallow = proxy.add(Rule::swallow());
        let mut manifest = self.manifest(0, &[&proxy]).await;
        manifest["spec"]["limits"] = limits;
        self.objects().create_registry(manifest).await;
        for nth in 0..offers {
            self.offer(0, namespace, &format!("offer-{nth}")).await;
        }
        let registry = ProxiedRegistry {
            name: self.name(0),
            proxy,
            signer: self.signer(0),
        };
        registry.wait_hits(swallow, offers as u64).await;
        (registry, cheap, swallow)
    }

    /// Waits until the last block has this base fee.
    async fn wait_base_fee(&self, gwei: u64) {
        eventually("the base fee has changed", OTHERS, async || {
            let block = json!(["latest", false]);
            let block = self.chain.rpc("eth_getBlockByNumber", block).await?;
            let fee = block["baseFeePerGas"].clone();
            ensure!(fee == json!(format!("{:#x}", gwei * GWEI)), "{fee}");
            anyhow::Ok(())
        })
        .await;
    }

    /// What the records of `offer-<n>` have signed.
    async fn attempts(&self, offers: usize, namespace: &str) -> Vec<Vec<Attempt>> {
        let mut all = Vec::new();
        for nth in 0..offers {
            let name = format!("offer-{nth}");
            let key = self.objects().wait_key(namespace, &name).await;
            let record = self.objects().records().get(&key.record_name()).await;
            all.push(record.unwrap().spec.attempts);
        }
        all
    }

    /// Waits until the first registry's status has exactly this much spent, and a fitting number of
    /// registrations left, which it returns.
    async fn wait_forecast(&self, paid: u128, is_fitting: impl Fn(u32) -> bool) -> u32 {
        eventually("the numbers are right", SHOWN, async || {
            let registry = self.objects().registries().get(&self.name(0)).await?;
            let status = registry.status.unwrap_or_default();
            let (spent, left) = (status.spent_last_24h, status.registrations_left);
            let spent = spent.context("no sum")?;
            let wei = parse_ether(spent.split_whitespace().next().unwrap_or_default())?;
            ensure!(wei == U256::from(paid), "{spent} spent, {paid} wei paid");
            let left = left.context("no forecast")?;
            ensure!(is_fitting(left), "{left} left");
            Ok(left)
        })
        .await
    }

    /// What the registrations of an account have cost, in wei.
    async fn paid_by(&self, owner: Address) -> u128 {
        let minted = self.chain.registrations_of(owner).await.unwrap();
        let fees = self.chain.fees(&minted).await.unwrap();
        let cost = |(gas, price): (u64, u128)| u128::from(gas) * price;
        fees.into_iter().map(cost).sum()
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
        let (registry, cheap, swallow) = world.swallowed(OFFERS, limits, &shop).await;
        // Too little for an agent, so the replacements must keep the gas limits of before.
        registry
            .proxy
            .add(Rule::result("eth_estimateGas", json!("0x20000")));
        let finish = async {
            world.wait_base_fee(20).await;
            registry.proxy.remove(swallow);
            world.assert_all_finish(OFFERS, &shop).await;
        };
        world.at_base_fee(20, finish).await;
        assert_eq!(registry.proxy.hits(cheap), 0, "both fees rise by a tenth");
        for attempts in world.attempts(OFFERS, &shop).await {
            assert!(attempts.len() > 1, "it was not replaced: {attempts:?}");
            for attempt in &attempts {
                let cost = attempt.max_fee_per_gas.0 * u128::from(attempt.gas);
                assert!(cost <= u128::from(GWEI) * 20_000_000, "{cost} wei");
            }
            let hashes: Vec<_> = attempts
                .iter()
                .filter_map(|attempt| attempt.raw.as_ref())
                .map(keccak256)
                .collect();
            assert_eq!(hashes.len(), attempts.len(), "all bytes are kept");
            assert!(attempts.iter().all(|next| next.nonce == attempts[0].nonce));
        }
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
        let (registry, _, swallow) = world.swallowed(OFFERS, limits("0.1"), &shop).await;
        let set = async |each: &str| {
            let change = json!({ "spec": { "limits": limits(each) } });
            world.objects().patch_registry(&world.name(0), change).await;
        };
        set("0.0000001").await;
        let objects = world.objects();
        objects.wait_registry_observed(&registry.name, SHOWN).await;
        let before = world.attempts(OFFERS, &shop).await;
        let scenario = async {
            world.wait_base_fee(100).await;
            registry.proxy.remove(swallow);
            world.wait_offer(&shop, "offer-0", "FeeCapReached").await;
            let owner = world.signer(0).address();
            world.assert_quiet(owner, Duration::from_secs(10)).await;
            assert_eq!(
                world.attempts(OFFERS, &shop).await,
                before,
                "none is signed"
            );
            // What the limit of before would have paid.
            set("0.1").await;
            world.assert_all_finish(OFFERS, &shop).await;
        };
        world.at_base_fee(100, scenario).await;
    });
}

#[test]
fn chain_without_fee_history_or_base_fee_is_registered_on() {
    World::run("no-base-fee", async |world| {
        let missing = |method: &str| Rule::error(method, -32601, "method not found");
        let (history, base) = (world.proxy().await, world.proxy().await);
        history.add(missing("eth_feeHistory"));
        for method in ["eth_feeHistory", "eth_maxPriorityFeePerGas"] {
            base.add(missing(method));
        }
        base.add(Rule::edit("eth_getBlockByNumber", |block| {
            if let Some(fields) = block.as_object_mut() {
                fields.remove("baseFeePerGas");
            }
        }));
        let shop = world.namespace("shop").await;
        for (nth, (name, proxy)) in [("dynamic", history), ("legacy", base)]
            .into_iter()
            .enumerate()
        {
            world.registry_behind(nth, proxy).await;
            world.offer(nth, &shop, name).await;
        }
        for name in ["dynamic", "legacy"] {
            world.wait_other(&shop, name).await;
            let key = world.objects().wait_key(&shop, name).await;
            let record = world.objects().records().get(&key.record_name()).await;
            let raw = record.unwrap().spec.attempts[0].raw.clone().unwrap();
            let signed = TxEnvelope::decode_2718_exact(&raw).unwrap();
            assert_eq!(signed.is_legacy(), name == "legacy", "{signed:?}");
        }
    });
}

#[test]
fn rollup_fee_counts_in_limits_and_balance_before_anything_is_sent() {
    const ORACLE: Address = address!("420000000000000000000000000000000000000F");
    const MILLI: u128 = 1_000_000_000_000_000;
    // Answers every call with one word: PUSH32 word, MSTORE, RETURN.
    let answering = |wei: u128| {
        let word = U256::from(wei).to_be_bytes::<32>();
        let code = [&[0x7f][..], &word, &hex!("60005260206000f3")].concat();
        Bytes::from(code)
    };
    World::run("oracle", async |world| {
        let shop = world.namespace("shop").await;
        let chain = &world.chain;
        // 0.2 for L1 and as much for the operator, and a quarter more.
        chain
            .set_code(ORACLE, &answering(200 * MILLI))
            .await
            .unwrap();
        let registry = world.registry(0).await;
        world.offer(0, &shop, "rolled-up").await;
        let message = world.wait_offer(&shop, "rolled-up", "FeeAboveLimit").await;
        assert!(message.contains("rollup fee of 0.5"), "{message}");

        let owner = registry.owner();
        chain.set_balance(owner, 400 * MILLI).await.unwrap();
        let limits = json!({ "spec": { "limits": { "perRegistration": "1", "perDay": "1" } } });
        let objects = world.objects();
        objects.patch_registry(&world.name(0), limits).await;
        let message = world
            .wait_offer(&shop, "rolled-up", "InsufficientFunds")
            .await;
        assert!(
            message.contains("balance 0.4 is below the 0.5"),
            "{message}"
        );
        assert_eq!(chain.mined_transactions_of(owner).await.unwrap(), 0);

        chain.set_balance(owner, 600 * MILLI).await.unwrap();
        world.wait_other(&shop, "rolled-up").await;
    });
}

#[test]
fn price_above_the_default_limit_is_said_in_gwei() {
    World::run("gwei", async |world| {
        let shop = world.namespace("shop").await;
        let proxy = world.proxy().await;
        let mut manifest = world.manifest(0, &[&proxy]).await;
        manifest["spec"]["limits"] = json!({});
        let scenario = async {
            world.objects().create_registry(manifest).await;
            world.offer(0, &shop, "polygon").await;
            let message = world.wait_offer(&shop, "polygon", "FeeAboveLimit").await;
            let said = message.split(" gwei exceeds the limit of ");
            assert_eq!(said.count(), 2, "{message}");
            let limits =
                json!({ "spec": { "limits": { "perRegistration": "0.075", "perDay": "1" } } });
            world.objects().patch_registry(&world.name(0), limits).await;
            world.wait_other(&shop, "polygon").await;
        };
        world.at_base_fee(60, scenario).await;
    });
}

#[test]
fn spending_and_forecast_are_right_after_a_failover() {
    World::run("forecast", async |world| {
        let proxy = world.proxy().await;
        let limits = |day: &str| json!({ "perRegistration": "0.005", "perDay": day });
        let mut manifest = world.manifest(0, &[&proxy]).await;
        manifest["spec"]["limits"] = limits("0.05");
        let objects = world.objects();
        objects.create_registry(manifest).await;
        let shop = world.namespace("shop").await;
        let scenario = async {
            for name in ["a", "b"] {
                world.offer(0, &shop, name).await;
                world.wait_other(&shop, name).await;
            }
            let paid = world.paid_by(world.signer(0).address()).await;
            let before = world.wait_forecast(paid, |left| left > 20).await;

            world.restart().await;
            let change = json!({ "spec": { "limits": limits("0.01") } });
            objects.patch_registry(&world.name(0), change).await;
            let after = world.wait_forecast(paid, |left| left < before / 2).await;
            assert!(after > 0, "{after} of {before}");
        };
        world.at_base_fee(1, scenario).await;
    });
}

#[test]
fn daily_limit_is_shared_by_a_signer_and_the_next_one() {
    World::run("shared-day", async |world| {
        // Together they cost more than one may.
        const OFFERS: usize = 6;
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let objects = world.objects();
        let limit = async |wei: u128| {
            let amount = format_ether(wei);
            let limits = json!({ "perRegistration": amount, "perDay": amount });
            let change = json!({ "spec": { "limits": limits } });
            objects.patch_registry(&registry.name, change).await;
        };
        let scenario = async {
            for nth in 0..OFFERS {
                world.offer(0, &shop, &format!("offer-{nth}")).await;
            }
            world.assert_all_finish(OFFERS, &shop).await;
            let paid = world.paid_by(registry.owner()).await;
            limit(paid).await;
            world.set_signers(&registry.proxy, &[1]).await;
            world.offer(0, &shop, "late").await;
            let message = world.wait_offer(&shop, "late", "DailyLimitReached").await;
            assert!(message.contains("limits.perDay"), "{message}");
            world.wait_registry(0, "DailyLimitReached").await;
            world.wait_forecast(paid, |left| left == 0).await;
            let next = world.signer(1).address();
            world.assert_quiet(next, Duration::from_secs(10)).await;
            world.assert_minted(next, 0).await;

            limit(2 * paid).await;
            objects.wait_registered(&shop, "late", SHOWN).await;
            world.assert_minted(next, 1).await;
            world.assert_minted(registry.owner(), OFFERS).await;
        };
        world.at_base_fee(1, scenario).await;
    });
}

#[test]
fn limit_of_a_namespace_holds_when_signing_and_stops_no_other() {
    World::run("namespace-day", async |world| {
        // Together they cost more than one may.
        const OFFERS: usize = 6;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        let limits = |day: &str| json!({ "perRegistration": "0.1", "perDay": "1", "perNamespacePerDay": day });
        let objects = world.objects();
        let limit = async |day: &str| {
            let change = json!({ "spec": { "limits": limits(day) } });
            objects.patch_registry(&world.name(0), change).await;
        };
        let (registry, _, swallow) = world.swallowed(OFFERS, limits("0.02"), &shop).await;
        let owner = registry.owner();
        let before = world.attempts(OFFERS, &shop).await;
        let risen = async {
            world.wait_base_fee(100).await;
            registry.proxy.remove(swallow);
            let message = world
                .wait_offer(&shop, "offer-0", "NamespaceLimitReached")
                .await;
            assert!(
                message.contains("limits.perNamespacePerDay = 0.02"),
                "{message}"
            );
            world.wait_registry(0, "NonceUnsigned").await;
            world.assert_quiet(owner, Duration::from_secs(10)).await;
            assert_eq!(
                world.attempts(OFFERS, &shop).await,
                before,
                "none is signed"
            );
        };
        world.at_base_fee(100, risen).await;

        let fallen = async {
            world.assert_all_finish(OFFERS, &shop).await;
            limit(&format_ether(world.paid_by(owner).await)).await;
            world.offer(0, &shop, "late").await;
            world
                .wait_offer(&shop, "late", "NamespaceLimitReached")
                .await;
            world.offer(0, &other, "free").await;
            world.wait_other(&other, "free").await;
            world.assert_quiet(owner, Duration::from_secs(10)).await;
            world.assert_minted(owner, OFFERS + 1).await;

            limit("0.1").await;
            objects.wait_registered(&shop, "late", SHOWN).await;
            world.assert_minted(owner, OFFERS + 2).await;
        };
        world.at_base_fee(1, fallen).await;
    });
}
