//! Transactions that are refused, swallowed, dropped or reverted, and what they cost.

use std::time::Duration;

use alloy::primitives::{U256, keccak256};
use anyhow::{Context, ensure};
use harness::wait::{eventually, throughout};
use kube::ResourceExt;
use rpc_proxy::Rule;
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, Phase};

use super::{OTHERS, ProxiedRegistry, SHOWN, World};

const SEND: &str = "eth_sendRawTransaction";
/// A suggestion of nodes for quiet chains, in wei per gas.
const SUGGESTED_TIP: u64 = 1_000_000;

/// The record of an offer's agent.
async fn record(world: &World, namespace: &str, name: &str) -> AgentRegistration {
    let key = world.objects().wait_key(namespace, name).await;
    let what = format!("{namespace}/{name} has a record");
    eventually(&what, OTHERS, async || {
        world.objects().records().get(&key.record_name()).await
    })
    .await
}

#[test]
fn reverted_registration_ends_its_record_alone() {
    World::run("reverted", async |world| {
        let registry = world.registry(0).await;
        let estimate = Rule::result("eth_estimateGas", json!("0xea60"));
        let rule = registry.proxy.add(estimate);
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        world.offer(0, &shop, "a").await;
        let message = world.wait_offer(&shop, "a", "RegistrationReverted").await;
        assert!(message.contains("edition"), "what to do: {message}");
        registry.proxy.remove(rule);
        let reverted = record(world, &shop, "a").await;

        world.offer(0, &other, "b").await;
        world.wait_other(&other, "b").await;
        let edition = json!({ "spec": { "registration": { "edition": 2 } } });
        world.objects().patch_offer(&shop, "a", edition).await;
        world.wait_other(&shop, "a").await;

        let records = world.objects().records();
        let reverted = records.get(&reverted.name_any()).await.unwrap();
        assert_eq!(reverted.spec.phase, Phase::Reverted);
        let value = serde_json::to_value(&reverted.spec).unwrap();
        let spent = value["spentWei"].as_str().unwrap_or("0");
        assert_ne!(spent, "0", "a reverted transaction costs gas");
        // The entry goes in the pass after the one that wrote the result.
        world.settled_ledger(0).await;
        assert_eq!(world.objects().in_flight().await.unwrap(), 0);
        let owner = registry.owner();
        assert_eq!(world.chain.registrations_of(owner).await.unwrap().len(), 2);
        let mined = world.chain.mined_transactions_of(owner).await.unwrap();
        assert_eq!(mined, 3, "one reverted, two registered");
        world.wait_ready(0).await;
    });
}

#[test]
fn tip_follows_the_suggestion_and_a_stuck_one_is_shown() {
    World::run("tip", async |world| {
        let shop = world.namespace("shop").await;
        let quiet = world.proxy().await;
        quiet.add(Rule::edit("eth_feeHistory", |history| {
            for rewards in history["reward"].as_array_mut().into_iter().flatten() {
                for reward in rewards.as_array_mut().into_iter().flatten() {
                    *reward = json!("0x0");
                }
            }
        }));
        let tip = json!(format!("{SUGGESTED_TIP:#x}"));
        quiet.add(Rule::result("eth_maxPriorityFeePerGas", tip));
        world.registry_behind(0, quiet).await;
        let stuck = world.proxy().await;
        let swallow = stuck.add(Rule::swallow());
        let stuck = world.registry_behind(1, stuck).await;
        world.offer(0, &shop, "quiet").await;
        world.offer(1, &shop, "stuck").await;

        world.wait_other(&shop, "quiet").await;
        let attempts = record(world, &shop, "quiet").await.spec.attempts;
        let attempt = serde_json::to_value(&attempts[0]).unwrap();
        let tip = attempt["maxPriorityFeePerGas"].as_str().unwrap();
        let tip: u64 = tip.parse().unwrap();
        assert!(tip >= SUGGESTED_TIP, "a tip of {tip} wei is never mined");

        stuck.wait_hits(swallow, 1).await;
        world.mine(300).await;
        let message = world.wait_offer(&shop, "stuck", "NotIncluded").await;
        assert!(!message.contains("has been sent"), "{message}");
        world.wait_registry(1, "NotIncluded").await;
        stuck.proxy.remove(swallow);
        world.objects().wait_registered(&shop, "stuck", SHOWN).await;
        world.assert_minted(stuck.owner(), 1).await;
    });
}

#[test]
fn refused_send_is_shown_in_the_words_of_the_endpoint() {
    World::run("refused", async |world| {
        let refusals = [
            (
                "SendRefused",
                "transaction underpriced: tip needed 25000000000, tip permitted 1",
            ),
            ("SendRefused", "transaction type not supported"),
            ("SendRefused", "unknown transaction type"),
            (
                "SendRefused",
                "max fee per gas less than block base fee: maxFeePerGas: 1, baseFee: 7",
            ),
            (
                "SendRefused",
                "tx fee (1.05 ether) exceeds the configured cap (1.00 ether)",
            ),
            ("SendRefused", "txpool is full"),
            // What a rollup charges for data is not in the limits.
            (
                "InsufficientFunds",
                "insufficient funds for gas * price + value: balance 1000, tx cost 1010, overshot 10",
            ),
        ];
        let shop = world.namespace("shop").await;
        let faults = refusals.map(|(_, text)| Rule::error(SEND, -32000, text));
        let registries = world.registries_behind(faults, &shop).await;
        for (nth, (reason, text)) in refusals.iter().enumerate() {
            let message = world
                .wait_offer(&shop, &format!("offer-{nth}"), reason)
                .await;
            assert!(message.contains(text), "{text}: {message}");
            assert!(!message.contains("has been sent"), "{message}");
            let message = world.wait_registry(nth, reason).await;
            assert!(message.contains(text), "{text}: {message}");
        }
        for registry in &registries {
            registry.proxy.clear();
        }
        for (nth, registry) in registries.iter().enumerate() {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, SHOWN).await;
            world.assert_minted(registry.owner(), 1).await;
        }
    });
}

#[test]
fn unanswered_send_is_shown_on_every_offer() {
    World::run("unanswered", async |world| {
        let proxy = world.proxy().await;
        // A gateway that only reads.
        proxy.add(Rule::http(SEND, 403, "Forbidden"));
        let registry = world.registry_behind(0, proxy).await;
        world.registry(1).await;
        let shop = world.namespace("shop").await;
        for name in ["first", "second"] {
            world.offer(0, &shop, name).await;
        }
        world.offer(1, &shop, "other").await;
        world.wait_other(&shop, "other").await;
        // The second is not signed while the endpoint fails: its offer shows what the registry
        // waits for.
        for name in ["first", "second"] {
            let what = format!("offer {name} shows what the endpoint answered");
            eventually(&what, SHOWN, async || {
                let (reason, message) = world.read_offer(&shop, name).await?;
                let is_shown = ["SendUnanswered", "RegistryNotReady"].contains(&reason.as_str())
                    && message.contains("403");
                ensure!(is_shown, "{reason}: {message}");
                anyhow::Ok(())
            })
            .await;
        }
        world.wait_registry(0, "SendUnanswered").await;
        registry.proxy.clear();
        for name in ["first", "second"] {
            world.objects().wait_registered(&shop, name, SHOWN).await;
        }
        world.assert_minted(registry.owner(), 2).await;
    });
}

#[test]
fn refused_estimates_are_not_reported_as_reverts() {
    World::run("estimates", async |world| {
        let refusals = [
            ("RpcRateLimited", -32005, "rate limit exceeded"),
            ("RpcRateLimited", -32016, "rate limit exceeded"),
            ("RpcRateLimited", 429, "too many requests"),
            (
                "InsufficientFunds",
                -32000,
                "insufficient funds for gas * price + value",
            ),
            (
                "InsufficientFunds",
                -32000,
                "gas required exceeds allowance (21000)",
            ),
            ("RpcMethodMissing", -32601, "the method does not exist"),
            ("RegistrationWouldRevert", 3, "execution reverted: closed"),
        ];
        let shop = world.namespace("shop").await;
        let faults = refusals.map(|(_, code, text)| Rule::error("eth_estimateGas", code, text));
        let registries = world.registries_behind(faults, &shop).await;
        for (nth, (reason, _, text)) in refusals.iter().enumerate() {
            let name = format!("offer-{nth}");
            let what = format!("{text} is shown as {reason}");
            eventually(&what, SHOWN, async || {
                let (own, message) = world.read_offer(&shop, &name).await?;
                assert!(
                    own != "RegistrationWouldRevert" || *reason == "RegistrationWouldRevert",
                    "{text} is no revert: {message}"
                );
                let conditions = world.read_conditions(nth).await?;
                let mut reasons = conditions.iter().map(|(_, found, _)| found);
                let is_shown = own == *reason || reasons.any(|found| found == reason);
                ensure!(is_shown, "{own}: {message}; {conditions:?}");
                Ok(())
            })
            .await;
        }
        for registry in &registries {
            assert_eq!(
                world
                    .chain
                    .mined_transactions_of(registry.owner())
                    .await
                    .unwrap(),
                0
            );
            registry.proxy.clear();
        }
        for nth in 0..registries.len() {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, SHOWN).await;
        }
    });
}

#[test]
fn fees_of_a_rollup_count_as_spent() {
    World::run("rollup", async |world| {
        const DATA_FEE: u128 = 10_000_000_000_000_000;
        const SCALAR: u128 = 2_000_000;
        const CONSTANT: u128 = 5_000;
        let proxy = world.proxy().await;
        proxy.add(Rule::edit("eth_getTransactionReceipt", |receipt| {
            if receipt.is_object() {
                receipt["l1Fee"] = json!(format!("{DATA_FEE:#x}"));
                receipt["operatorFeeScalar"] = json!(format!("{SCALAR:#x}"));
                receipt["operatorFeeConstant"] = json!(format!("{CONSTANT:#x}"));
            }
        }));
        let registry = world.registry_behind(0, proxy).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;

        let minted = world
            .chain
            .registrations_of(registry.owner())
            .await
            .unwrap();
        let fees = world.chain.fees(&minted).await.unwrap();
        let (gas, price) = fees[0];
        let gas = u128::from(gas);
        let expected = gas * price + DATA_FEE + gas * SCALAR / 1_000_000 + CONSTANT;
        let record = record(world, &shop, "chat").await;
        let value = serde_json::to_value(&record.spec).unwrap();
        assert_eq!(value["spentWei"], json!(expected.to_string()));
        let what = "the fees are in the sum of the day";
        eventually(what, SHOWN, async || {
            let registry = world.objects().registries().get(&registry.name).await?;
            let spent = registry.status.and_then(|status| status.spent_last_24h);
            let spent = spent.context("no sum")?;
            let number = spent.split_whitespace().next().unwrap_or_default();
            let wei: U256 = alloy::primitives::utils::parse_ether(number)?;
            ensure!(wei >= U256::from(DATA_FEE), "{spent}");
            Ok(())
        })
        .await;
    });
}

#[test]
fn age_of_a_pending_transaction_survives_leaders() {
    World::run("pending", async |world| {
        let proxy = world.proxy().await;
        let swallow = proxy.add(Rule::swallow());
        let registry = world.registry_behind(0, proxy).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        let before = oldest_pending(world).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.restart().await;
        let after = oldest_pending(world).await;
        assert!(
            (after - before).abs() < 10.0,
            "pending since {before}, and since {after} at the next leader"
        );
        registry.proxy.remove(swallow);
        world.objects().wait_registered(&shop, "chat", SHOWN).await;
        world.assert_minted(registry.owner(), 1).await;
    });
}

/// When the oldest pending transaction on the chain was first sent, as the leader reports it.
async fn oldest_pending(world: &World) -> f64 {
    let what = "the leader reports a pending transaction";
    let chain = format!("chain=\"{}\"", world.chain.id);
    eventually(what, OTHERS, async || {
        let leader = world.release.wait_leader(None, OTHERS).await?;
        let pods = world.release.pods().await?;
        let pod = pods.iter().find(|pod| pod.name_any() == leader);
        let metrics = world.release.try_metrics(pod.context("no leader")?).await?;
        let mut series = metrics.iter().filter(|(name, _)| {
            name.starts_with("serviceoffer_chain_oldest_pending_timestamp_seconds")
                && name.contains(&chain)
        });
        let oldest = series.find(|(_, value)| **value > 0.0);
        Ok::<_, anyhow::Error>(*oldest.context("none")?.1)
    })
    .await
}

#[test]
fn dropped_and_known_transactions_are_registered_once() {
    World::run("dropped", async |world| {
        let texts = [
            "ALREADY_EXISTS: already known",
            "OldNonce",
            "nonce has already been used",
            "Known transaction",
            "known transaction. transaction with hash 0x00 is already in the system",
            "tx already in mempool",
            "already imported",
        ];
        let shop = world.namespace("shop").await;
        let mut registries: Vec<ProxiedRegistry> = Vec::new();
        for (nth, text) in texts.into_iter().enumerate() {
            let proxy = world.proxy().await;
            // The transaction arrives, and the answer is that it had arrived before.
            proxy.add(Rule::edit_answer(SEND, move |answer| {
                let id = answer["id"].clone();
                let error = json!({ "code": -32000, "message": text });
                *answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
            }));
            registries.push(world.registry_behind(nth, proxy).await);
        }
        // The pool accepts the transaction and loses it.
        let dropping = world.proxy().await;
        dropping.add(Rule::swallow().times(1));
        registries.push(world.registry_behind(registries.len(), dropping).await);
        for nth in 0..registries.len() {
            world.offer(nth, &shop, &format!("offer-{nth}")).await;
        }
        for (nth, registry) in registries.iter().enumerate() {
            let name = format!("offer-{nth}");
            world.wait_other(&shop, &name).await;
            world.assert_minted(registry.owner(), 1).await;
        }
    });
}

#[test]
fn stored_transaction_is_resent_unchanged() {
    World::run("resent", async |world| {
        let shop = world.namespace("shop").await;
        let (registry, swallow) = world.registry_with_lost_transaction(&shop, "chat").await;
        registry.wait_hits(swallow, 3).await;
        let calls = registry.proxy.calls();
        let raws: Vec<Value> = calls.all(SEND).map(|call| call.params[0].clone()).collect();
        assert!(raws.iter().all(|raw| raw == &raws[0]), "{raws:?}");
        let bytes = alloy::hex::decode(raws[0].as_str().unwrap()).unwrap();
        let record = record(world, &shop, "chat").await;
        assert_eq!(record.spec.attempts.len(), 1);
        assert_eq!(record.spec.attempts[0].hash, keccak256(bytes));
        throughout("one nonce is used", Duration::from_secs(3), async || {
            let in_flight = world.objects().in_flight().await?;
            ensure!(in_flight == 1, "{in_flight} in flight");
            anyhow::Ok(())
        })
        .await;
        registry.proxy.remove(swallow);
        world.objects().wait_registered(&shop, "chat", SHOWN).await;
        world.assert_minted(registry.owner(), 1).await;
    });
}
