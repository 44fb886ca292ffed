//! What an endpoint cannot do, does wrongly, or says of itself.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::wait::eventually;
use rpc_proxy::{Call, Methods, Rule};
use serde_json::{Value, json};

use super::{OTHERS, SHOWN, World, slow_finality};

/// State of this many blocks is kept by a node in these tests.
const STATES: u64 = 20;

#[test]
fn second_endpoint_serves_when_the_first_fails() {
    World::run("fallback", async |world| {
        // So that an endpoint can be far behind.
        world.mine(64).await;
        let but_chain_id = || Methods::except(["eth_chainId"]);
        let faults = [
            Rule::http(but_chain_id(), 503, "Service Unavailable"),
            Rule::http(but_chain_id(), 429, "Too Many Requests").header("Retry-After", "30"),
            Rule::error(but_chain_id(), -32601, "the method does not exist"),
            Rule::lag(40),
            Rule::result("eth_chainId", json!("0x1")),
        ];
        let shop = world.namespace("shop").await;
        let mut registries = Vec::new();
        for (nth, fault) in faults.into_iter().enumerate() {
            let (first, second) = (world.proxy().await, world.proxy().await);
            first.add(fault);
            let manifest = world.manifest(nth, &[&first, &second]).await;
            world.objects().create_registry(manifest).await;
            world.offer(nth, &shop, &format!("offer-{nth}")).await;
            registries.push((first, second));
        }
        for (nth, (first, _second)) in registries.iter().enumerate() {
            world.wait_other(&shop, &format!("offer-{nth}")).await;
            let url = world.url(first);
            let what = format!("registry {nth} names the endpoint that fails");
            let cause = eventually(&what, SHOWN, async || {
                let conditions = world.read_conditions(nth).await?;
                let mut healthy = conditions.iter().filter(|found| found.0 == "RpcHealthy");
                let message = healthy.find(|found| found.2.contains(&url));
                ensure!(message.is_some(), "{conditions:?}");
                Ok(message.unwrap().2.clone())
            })
            .await;
            println!("{cause}");
            world.assert_minted(world.signer(nth).address(), 1).await;
        }
    });
}

#[test]
fn pruned_state_is_reported_as_missing_history() {
    World::run_on("pruned", slow_finality(), async |world| {
        world.mine(100).await;
        let pruned = world.proxy().await;
        let text = "missing trie node 1a2b3c4d5e6f (path ) <nil>";
        let state = Methods::except(["eth_getBlockByNumber"]);
        let rule = Rule::error(state, -32000, text).when(is_pruned);
        let rule = pruned.add(rule);
        let shop = world.namespace("shop").await;
        let pruned = world.registry_behind(1, pruned).await;
        world.registry(0).await;
        world.offer(1, &shop, "pruned").await;
        world.offer(0, &shop, "other").await;

        let message = world.wait_registry(1, "RpcHistoryMissing").await;
        assert!(message.contains("archive"), "what to do: {message}");
        world.mine(70).await;
        let minted = async || {
            let minted = world
                .chain
                .registrations_of(world.signer(0).address())
                .await?;
            ensure!(!minted.is_empty(), "none");
            anyhow::Ok(())
        };
        eventually("the other offer is minted", OTHERS, minted).await;
        world.mine(70).await;
        world.wait_other(&shop, "other").await;
        assert!(pruned.proxy.remove(rule) > 0, "the rule must have mattered");
    });
}

fn is_pruned(call: &Call) -> bool {
    call.block().is_some_and(|block| block + STATES < call.head)
}

#[test]
fn missing_finalized_and_genesis_have_their_reasons() {
    World::run("finalized", async |world| {
        let finalized = |call: &Call| call.params[0] == "finalized";
        let method = "eth_getBlockByNumber";
        let faults = [
            (
                Rule::error(method, -32602, "invalid block number: finalized").when(finalized),
                "NoFinality",
            ),
            (
                Rule::error(method, -39001, "Unknown block").when(finalized),
                "NoFinality",
            ),
            (
                Rule::null(method).when(|call| call.block() == Some(0)),
                "NoGenesis",
            ),
        ];
        let shop = world.namespace("shop").await;
        let mut registries = Vec::new();
        let mut reasons = Vec::new();
        for (nth, (fault, reason)) in faults.into_iter().enumerate() {
            let proxy = world.proxy().await;
            proxy.add(fault);
            registries.push(world.registry_behind(nth, proxy).await);
            world.offer(nth, &shop, &format!("offer-{nth}")).await;
            reasons.push(reason);
        }
        world.registry(3).await;
        world.offer(3, &shop, "other").await;
        world.wait_other(&shop, "other").await;
        for (nth, reason) in reasons.into_iter().enumerate() {
            let message = world.wait_registry(nth, reason).await;
            println!("{reason}: {message}");
            let owner = registries[nth].owner();
            assert_eq!(world.chain.mined_transactions_of(owner).await.unwrap(), 0);
        }
    });
}

#[test]
fn load_balanced_endpoint_registers_each_offer_once() {
    World::run("balanced", async |world| {
        world.mine(20).await;
        let proxy = world.proxy().await;
        // Every second request reaches a node that is five blocks behind.
        proxy.add(Rule::lag(5).every(2));
        let registry = world.registry_behind(0, proxy).await;
        let shop = world.namespace("shop").await;
        for nth in 0..4 {
            world.offer(0, &shop, &format!("offer-{nth}")).await;
        }
        let limit = Duration::from_secs(90);
        for nth in 0..4 {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, limit).await;
        }
        world.wait_ready(0).await;
        world.assert_minted(registry.owner(), 4).await;
    });
}

#[test]
fn refused_batches_become_single_calls() {
    World::run("batch", async |world| {
        let proxy = world.proxy().await;
        proxy.add(Rule::refuse_batch(
            -32600,
            "batch requests are not supported",
        ));
        let registry = world.registry_behind(0, proxy).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;
        let start = Instant::now();
        world.offer(0, &shop, "second").await;
        world.wait_other(&shop, "second").await;
        let calls = registry.proxy.calls_since(start);
        assert_eq!(calls.largest_batch(), 1, "{:?}", calls.by_method());
        world.assert_minted(registry.owner(), 2).await;
    });
}

#[test]
fn batches_hold_at_most_32_calls() {
    World::run("size", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        for nth in 0..40 {
            world.offer(0, &shop, &format!("offer-{nth}")).await;
        }
        for nth in 0..40 {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, SHOWN).await;
        }
        let largest = registry.proxy.calls().largest_batch();
        assert!((2..=32).contains(&largest), "{largest} calls in one batch");
        world.assert_minted(registry.owner(), 40).await;
    });
}

#[test]
fn nonsense_answers_stop_only_their_own_registry() {
    World::run("nonsense", async |world| {
        let faults = [
            Rule::http(Methods::all(), 200, "<html>Welcome</html>"),
            Rule::http(Methods::all(), 200, ""),
            Rule::error_value(Methods::all(), json!("something went wrong")),
            Rule::error_value(Methods::all(), json!({})),
            Rule::result(Methods::all(), json!({ "number": -1, "hash": [] })),
            Rule::result(Methods::except(["eth_chainId"]), json!("0x")),
            Rule::edit_answer(Methods::all(), |answer| *answer = json!([[], null, 7])),
            Rule::edit("eth_getBlockByNumber", |block| {
                block["timestamp"] = json!("0xffffffffffffffffffff");
            }),
        ];
        let shop = world.namespace("shop").await;
        let registries = world.registries_behind(faults, &shop).await;
        for (nth, registry) in registries.iter().enumerate() {
            let what = format!("registry {nth} does not claim to be ready");
            eventually(&what, SHOWN, async || {
                let conditions = world.read_conditions(nth).await?;
                let mut ready = conditions.iter().filter(|found| found.0 == "Ready");
                let reason = ready.next().map(|found| found.1.as_str());
                ensure!(
                    reason.is_some_and(|reason| reason != "Reconciled"),
                    "{conditions:?}"
                );
                Ok(())
            })
            .await;
            let calls = registry.proxy.calls_during(Duration::from_secs(2)).await;
            assert!(
                calls.total() <= 40,
                "a loop without delay: {:?}",
                calls.by_method()
            );
            registry.proxy.clear();
        }
        for nth in 0..registries.len() {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, SHOWN).await;
        }
        world.assert_no_crash().await;
    });
}

#[test]
fn odd_envelopes_of_real_nodes_are_read() {
    World::run("envelope", async |world| {
        let proxy = world.proxy().await;
        proxy.add(Rule::edit_answer(Methods::all(), |answer| {
            if let Some(fields) = answer.as_object_mut() {
                fields.remove("jsonrpc");
                if let Some(id) = fields.get("id").and_then(Value::as_u64) {
                    fields.insert("id".into(), json!(id.to_string()));
                }
                if fields.contains_key("result") {
                    fields.insert("error".into(), Value::Null);
                }
            }
        }));
        let registry = world.registry_behind(0, proxy).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;
        world.assert_minted(registry.owner(), 1).await;
    });
}
