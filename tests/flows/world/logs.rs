//! Reading the logs of a signer from endpoints that limit, lose or refuse them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use anyhow::{anyhow, ensure};
use harness::objects::{delete, patch};
use harness::wait::eventually;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, ResourceExt};
use rpc_proxy::{Call, Calls, Methods, RecordedCall, Rule};
use serde_json::json;
use serviceoffer::api::{IdentityRegistry, SignerLedger};

use super::{OTHERS, SHOWN, World, delete_all, delete_protected};

const LOGS: &str = "eth_getLogs";
/// Blocks between the first registration of a signer and the head.
const HISTORY: u64 = 6_000;
/// Blocks that an endpoint can search.
const SEARCHED: u64 = 2_500;

/// The lowest block that a log query asked for.
fn lowest(calls: &Calls) -> Option<u64> {
    calls.all(LOGS).filter_map(from_block).min()
}

/// The lowest block that a query for the logs of an account asked for.
fn lowest_of(calls: &Calls, owner: Address) -> Option<u64> {
    let topic = format!("{:#x}", owner.into_word());
    let of_owner = calls
        .all(LOGS)
        .filter(|call| call.params[0]["topics"].to_string().contains(&topic));
    of_owner.filter_map(from_block).min()
}

fn from_block(call: &RecordedCall) -> Option<u64> {
    let text = call.params[0]["fromBlock"].as_str()?;
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[test]
fn failing_log_queries_narrow_and_stay_narrow() {
    World::run("ranges", async |world| {
        let wide = |rule: Rule| rule.when(|call| call.span() > SEARCHED);
        let faults = [
            wide(Rule::hang(LOGS, Duration::from_secs(20))),
            wide(Rule::http(
                LOGS,
                413,
                "<html>Request Entity Too Large</html>",
            )),
            wide(Rule::http(LOGS, 504, "<html>Gateway Time-out</html>")),
            wide(Rule::close(LOGS)),
            wide(Rule::error(
                LOGS,
                -32005,
                "query returned more than 10000 results. Try with this block range [0x0, 0x1f4].",
            )),
            wide(Rule::error(
                LOGS,
                -32000,
                "exceed maximum block range: 2500",
            )),
        ];
        let mut registries = Vec::new();
        for (nth, fault) in faults.into_iter().enumerate() {
            let proxy = world.proxy().await;
            let rule = proxy.add(fault);
            registries.push((world.registry_with_history(nth, proxy).await, rule));
        }
        world.mine(HISTORY).await;
        let shop = world.namespace("shop").await;
        let healthy = registries.len();
        world.registry(healthy).await;
        world.offer(healthy, &shop, "other").await;
        for nth in 0..healthy {
            world.offer(nth, &shop, &format!("offer-{nth}")).await;
        }
        world.wait_other(&shop, "other").await;
        let limit = Duration::from_secs(120);
        for (nth, (registry, rule)) in registries.iter().enumerate() {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, limit).await;
            let refused = registry.proxy.hits(*rule);
            // Two filters a page, halved from the first size to one that the endpoint can search,
            // and a batch that fails is repeated singly.
            assert!(refused <= 16, "{refused} queries of {name} were too wide");
            world.assert_minted(registry.owner(), 2).await;
        }
    });
}

#[test]
fn final_log_proves_an_agent_without_its_transaction() {
    World::run("witness", async |world| {
        let registry = world.registry(0).await;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        world.offer(0, &shop, "a").await;
        let agent = world.wait_other(&shop, "a").await;
        let minted = world
            .chain
            .registrations_of(registry.owner())
            .await
            .unwrap();
        let hash = json!(minted[0].transaction);
        let methods = ["eth_getTransactionByHash", "eth_getTransactionReceipt"];
        let unindexed = Rule::null(methods).when(move |call: &Call| call.params[0] == hash);
        registry.proxy.add(unindexed);
        let record = world.objects().wait_key(&shop, "a").await.record_name();
        let records = world.objects().records();
        let deleted = records.get(&record).await.unwrap();
        delete_protected(&records, &record).await;
        world.offer(0, &other, "b").await;

        world.wait_other(&other, "b").await;
        eventually("the record is recovered", OTHERS, async || {
            let found = records.get(&record).await?;
            let agent_id = found.spec.result.as_ref().map(|result| &result.agent_id);
            ensure!(
                found.uid() != deleted.uid() && agent_id == Some(&agent),
                "{found:?}"
            );
            Ok(())
        })
        .await;
        assert_eq!(world.wait_other(&shop, "a").await, agent);
        world.assert_minted(registry.owner(), 2).await;
    });
}

#[test]
fn missing_old_logs_are_reported_and_waited_for() {
    World::run("old-logs", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let mut agents = Vec::new();
        for name in ["first", "second"] {
            world.offer(0, &shop, name).await;
            agents.push(world.wait_other(&shop, name).await);
        }
        world.mine(200).await;
        let pruned = Rule::result(LOGS, json!([]));
        let is_old = |call: &Call| call.range().is_some_and(|(from, _)| from + 100 < call.head);
        let rule = registry.proxy.add(pruned.when(is_old));
        // What was read is lost with the object's status and the leader, and is read again.
        delete(&world.objects().registries(), &registry.name)
            .await
            .unwrap();
        world.restart().await;
        let manifest = world.manifest(0, &[&registry.proxy]).await;
        world.objects().create_registry(manifest).await;
        world.offer(0, &shop, "third").await;

        let message = world.wait_registry(0, "LogsIncomplete").await;
        for count in ["2", "0"] {
            assert!(message.contains(count), "expected and found: {message}");
        }
        let calls = registry.proxy.calls_during(Duration::from_secs(20)).await;
        assert!(
            calls.of(LOGS) <= 12,
            "it must back off: {:?}",
            calls.by_method()
        );
        let mined = world.chain.mined_transactions_of(registry.owner()).await;
        assert_eq!(mined.unwrap(), 2, "nothing may be minted without the logs");
        registry.proxy.remove(rule);
        let limit = Duration::from_secs(120);
        world.objects().wait_registered(&shop, "third", limit).await;
        for (name, agent) in ["first", "second"].into_iter().zip(agents) {
            assert_eq!(world.wait_other(&shop, name).await, agent);
        }
        world.assert_minted(registry.owner(), 3).await;
    });
}

#[test]
fn clipped_page_is_read_again_without_the_rest() {
    World::run("clipped", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "first").await;
        world.wait_other(&shop, "first").await;
        let minted = world
            .chain
            .registrations_of(registry.owner())
            .await
            .unwrap();
        let first = minted[0].block;
        world.mine(100).await;
        // The next answers that have a log lose it.
        let left = AtomicU32::new(2);
        let rule = registry.proxy.add(Rule::edit(LOGS, move |logs| {
            let has_logs = logs.as_array().is_some_and(|logs| !logs.is_empty());
            let take = |left: u32| left.checked_sub(1);
            if has_logs
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                    .is_ok()
            {
                *logs = json!([]);
            }
        }));
        let start = Instant::now();
        for name in ["second", "third"] {
            world.offer(0, &shop, name).await;
            world.objects().wait_registered(&shop, name, SHOWN).await;
        }
        registry.proxy.remove(rule);
        let lowest = lowest(&registry.proxy.calls_since(start));
        assert!(
            lowest.is_none_or(|block| block > first),
            "proven pages are read again: from {lowest:?}, proven above {first}"
        );
        world.assert_minted(registry.owner(), 3).await;
    });
}

#[test]
fn mint_without_its_registered_log_proves_nothing() {
    World::run("unpaired", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        let agent = world.wait_other(&shop, "chat").await;
        // The node lacks the logs of one topic and has those of the other.
        let registered = alloy::primitives::keccak256("Registered(uint256,string,address)");
        let registered = json!(registered);
        let rule = registry.proxy.add(Rule::edit(LOGS, move |logs| {
            if let Some(logs) = logs.as_array_mut() {
                logs.retain(|log| log["topics"][0] != registered);
            }
        }));
        let key = world.objects().wait_key(&shop, "chat").await;
        let record = key.record_name();
        delete(&world.objects().registries(), &registry.name)
            .await
            .unwrap();
        delete_protected(&world.objects().records(), &record).await;
        // The previous leader has all logs in memory, and would adopt the agent.
        world.restart().await;
        let manifest = world.manifest(0, &[&registry.proxy]).await;
        world.objects().create_registry(manifest).await;
        world.wait_registry(0, "LogsIncomplete").await;
        world
            .assert_quiet(registry.owner(), Duration::from_secs(5))
            .await;
        registry.proxy.remove(rule);
        // The next leader need not wait until this one reads logs again.
        world.restart().await;
        let found = world.objects().wait_registered(&shop, "chat", SHOWN).await;
        assert_eq!(found, agent);
        world.assert_minted(registry.owner(), 1).await;
    });
}

#[test]
fn failed_question_about_old_state_costs_no_scan() {
    World::run("probe", async |world| {
        const BLOCKS: u64 = 5_000;
        world.mine(BLOCKS).await;
        let proxies = [world.proxy().await, world.proxy().await];
        let count = "eth_getTransactionCount";
        proxies[0].add(
            Rule::http(count, 500, "Internal Server Error")
                .skip(4)
                .times(1),
        );
        // No state but the latest blocks' is ever needed.
        let state = Methods::except(["eth_getBlockByNumber"]);
        let pruned = Rule::error(state, -32000, "missing trie node 1a2b (path ) <nil>");
        let pruned = pruned.when(|call| call.block().is_some_and(|block| block + 128 < call.head));
        proxies[1].add(pruned);
        let shop = world.namespace("shop").await;
        for (nth, proxy) in proxies.into_iter().enumerate() {
            let registry = world.registry_behind(nth, proxy).await;
            let name = format!("offer-{nth}");
            world.offer(nth, &shop, &name).await;
            world.wait_other(&shop, &name).await;
            let lowest = lowest(&registry.proxy.calls());
            assert!(
                lowest.is_none_or(|block| block >= BLOCKS),
                "logs are read from block {lowest:?}"
            );
            world.assert_minted(registry.owner(), 1).await;
        }
    });
}

#[test]
fn restore_by_nonce_needs_a_block_and_mints_nothing() {
    World::run("restore", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let mut agents = Vec::new();
        for name in ["a", "b"] {
            world.offer(0, &shop, name).await;
            agents.push(world.wait_other(&shop, name).await);
        }
        // Everything but the offers is lost.
        let objects = world.objects();
        delete(&objects.registries(), &registry.name).await.unwrap();
        delete_all(&objects.records()).await;
        delete_all(&objects.ledgers()).await;
        // A leader remembers the ledgers that it has used.
        world.restart().await;
        let mut manifest = world.manifest(0, &[&registry.proxy]).await;
        manifest["spec"]["bootstrap"] = json!({ "atNonce": 2 });
        let refused: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        let resource = ApiResource::erase::<IdentityRegistry>(&());
        let registries = Api::<DynamicObject>::all_with(world.env.cluster.client(), &resource);
        let refused = registries.create(&PostParams::default(), &refused).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("fromBlock"), "what is missing: {refused}");

        manifest["spec"]["bootstrap"] = json!({ "atNonce": 2, "fromBlock": 0 });
        objects.create_registry(manifest).await;
        for (name, agent) in ["a", "b"].into_iter().zip(agents) {
            let found = objects.wait_registered(&shop, name, SHOWN).await;
            assert_eq!(found, agent);
        }
        world.assert_minted(registry.owner(), 2).await;
    });
}

#[test]
fn deleted_records_restarts_and_gifts_keep_every_agent() {
    World::run("gifts", async |world| {
        let owner = world.signer(0).address();
        let stranger = world.stranger();
        let gift = async || {
            let agent = world
                .chain
                .register_for(stranger, Some(b"https://gift.example"))
                .await;
            world
                .chain
                .give(&agent.unwrap(), stranger, owner)
                .await
                .unwrap();
        };
        // Before the ledger exists, and later.
        gift().await;
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "a").await;
        let agent = world.wait_other(&shop, "a").await;
        gift().await;
        let record = world.objects().wait_key(&shop, "a").await.record_name();
        let lose = async || delete_protected(&world.objects().records(), &record).await;
        let recovered = async || {
            let records = world.objects().records();
            eventually("the record is recovered", SHOWN, async || {
                let found = records.get(&record).await?;
                let found = found.spec.result.map(|result| result.agent_id);
                ensure!(found.as_ref() == Some(&agent), "{found:?}");
                anyhow::Ok(())
            })
            .await;
        };

        lose().await;
        world.restart().await;
        recovered().await;
        // An agent above the position that is stored.
        lose().await;
        world.offer(0, &shop, "b").await;
        world.objects().wait_registered(&shop, "b", SHOWN).await;
        world.restart().await;
        recovered().await;
        // A ledger of a version that knew no first block.
        let name = SignerLedger::name_of(world.chain.id, owner);
        let older = json!({ "fromBlock": null, "fromBalance": null, "fromRegistry": null });
        let older = json!({ "spec": older });
        patch(&world.objects().ledgers(), &name, older)
            .await
            .unwrap();
        lose().await;
        world.restart().await;
        recovered().await;
        world.offer(0, &shop, "c").await;
        world.objects().wait_registered(&shop, "c", SHOWN).await;
        world.assert_minted(registry.owner(), 3).await;
        world.wait_ready(0).await;
    });
}

#[test]
fn narrow_ranges_show_progress_and_survive_a_restart() {
    World::run("narrow", async |world| {
        const BLOCKS: u64 = 4_000;
        let proxy = world.proxy().await;
        let text = "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range.";
        let rule = Rule::error(LOGS, -32600, text).when(|call| call.span() > 10);
        let rule = proxy.add(rule);
        // So that they take 40 seconds.
        proxy.add(Rule::hang(LOGS, Duration::from_millis(100)));
        let registry = world.registry_with_history(0, proxy).await;
        world.registry(1).await;
        world.mine(BLOCKS).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        world.offer(1, &shop, "other").await;
        world.wait_other(&shop, "other").await;

        let read = eventually("a part of the logs is read", SHOWN, async || {
            let conditions = world.read_conditions(0).await?;
            let mut messages = conditions.iter().map(|(_, _, message)| message);
            let read = messages.find_map(|message| progress(message));
            let (read, of) = read.ok_or_else(|| anyhow!("{conditions:?}"))?;
            ensure!(read >= BLOCKS / 4 && of >= BLOCKS, "block {read} of {of}");
            anyhow::Ok(read)
        })
        .await;
        let start = Instant::now();
        world.restart().await;
        let limit = Duration::from_secs(120);
        world.objects().wait_registered(&shop, "chat", limit).await;
        let lowest = lowest_of(&registry.proxy.calls_since(start), registry.owner());
        assert!(
            lowest.is_none_or(|block| block + 20 >= read),
            "block {read} was reached, and the next leader reads from block {lowest:?}"
        );
        let refused = registry.proxy.hits(rule);
        let pages = registry.proxy.calls().of(LOGS) as u64 - refused;
        assert!(
            refused * 10 <= pages,
            "{refused} queries were refused for {pages} answers"
        );
        world.assert_minted(registry.owner(), 2).await;
    });
}

/// The numbers in "block 10 of 20".
fn progress(message: &str) -> Option<(u64, u64)> {
    let words: Vec<String> = message
        .split_whitespace()
        .map(|word| word.replace([',', '.', ';', ':', '(', ')'], ""))
        .collect();
    words.windows(4).find_map(|words| match words {
        [block, read, of, all] if block == "block" && of == "of" => {
            Some((read.parse().ok()?, all.parse().ok()?))
        }
        _ => None,
    })
}
