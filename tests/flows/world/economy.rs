//! What is asked of endpoints and of memory: counted, not estimated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::future::join_all;
use harness::chain::LocalChain;
use harness::wait::{eventually, throughout};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::Api;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rpc_proxy::{Calls, Methods, RpcProxy, Rule};
use serde_json::json;
use serviceoffer::api::SignerLedger;
use testbed::AnvilConfig;

use super::{SHOWN, World, chain_id, delete_protected, one_second, slow_finality};

const MINUTE: Duration = Duration::from_secs(60);
/// How long the operator may take to do what is left to do.
const SETTLED: Duration = Duration::from_secs(20);
/// Calls a minute of a registry that has nothing to do, or is frozen.
const IDLE: usize = 12;

fn assert_calls(what: &str, calls: &Calls, limit: usize) {
    let total = calls.total();
    println!("{what}: {total} calls in a minute: {:?}", calls.by_method());
    assert!(
        total <= limit,
        "{what}: {total} calls in a minute, {limit} are allowed: {:?}",
        calls.by_method()
    );
}

/// A chain with another id, a proxy before it, and the nth registry on it.
async fn chain_of(world: &World, nth: usize, config: AnvilConfig) -> (LocalChain, Arc<RpcProxy>) {
    let config = AnvilConfig {
        chain_id: chain_id(&format!("{}-{nth}", world.case)),
        accounts: 20,
        ..config
    };
    let chain = world.env.start_chain(config).await;
    // So that the contract is final.
    chain.anvil.mine(70).await.unwrap();
    let proxy = world.proxy_of(&chain).await;
    let manifest = world.manifest_on(&chain, nth, &[&proxy]).await;
    world.objects().create_registry(manifest).await;
    (chain, proxy)
}

async fn wait_mined(world: &World, chain: &LocalChain, nth: usize, limit: Duration) {
    let owner = world.signer(nth).address();
    eventually("the registration is in a block", limit, async || {
        let mined = chain.mined_transactions_of(owner).await?;
        ensure!(mined == 1, "{mined}");
        anyhow::Ok(())
    })
    .await;
}

#[test]
fn calls_a_minute_idle_waiting_and_frozen() {
    World::run("calls", async |world| {
        let shop = world.namespace("shop").await;
        let minutes = AnvilConfig {
            block_time: Some(Duration::from_secs(12)),
            slots_in_an_epoch: 32,
            ..AnvilConfig::default()
        };
        let (slow, slow_proxy) = chain_of(world, 3, slow_finality()).await;
        let (rare, rare_proxy) = chain_of(world, 4, minutes).await;
        let (fast, frozen) = chain_of(world, 5, one_second("calls")).await;
        let idle = [world.registry(0).await, world.registry(1).await];
        for nth in [0, 5] {
            world.offer(nth, &shop, &format!("offer-{nth}")).await;
        }
        world.wait_other(&shop, "offer-0").await;
        world.wait_other(&shop, "offer-5").await;
        let ledger = SignerLedger::name_of(fast.id, world.signer(5).address());
        delete_protected(&world.objects().ledgers(), &ledger).await;
        world.offer(5, &shop, "late").await;
        world.wait_registry(5, "LedgerLost").await;
        for nth in [3, 4] {
            world.offer(nth, &shop, &format!("offer-{nth}")).await;
        }

        // Included, and not final for a minute and more.
        let waiting = async |chain: &LocalChain, proxy: &RpcProxy, nth: usize| {
            wait_mined(world, chain, nth, MINUTE).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            proxy.calls_during(MINUTE).await
        };
        let settled = async |proxy: &RpcProxy| {
            tokio::time::sleep(SETTLED).await;
            proxy.calls_during(MINUTE).await
        };
        let counts = tokio::join!(
            waiting(&slow, &slow_proxy, 3),
            waiting(&rare, &rare_proxy, 4),
            settled(&frozen),
            settled(&idle[0].proxy),
            settled(&idle[1].proxy),
        );
        let counts: [Calls; 5] = counts.into();
        assert_calls("waits for finality at 1 s blocks", &counts[0], 40);
        assert_calls("waits for finality at 12 s blocks", &counts[1], 20);
        assert_calls("frozen", &counts[2], IDLE);
        assert_calls("idle with an agent", &counts[3], IDLE);
        assert_calls("idle without an agent", &counts[4], IDLE);
        slow.anvil.mine(70).await.unwrap();
        rare.anvil.mine(70).await.unwrap();
        for nth in [3, 4] {
            let name = format!("offer-{nth}");
            world.objects().wait_registered(&shop, &name, SHOWN).await;
        }
    });
}

#[test]
fn changes_of_unrelated_objects_cost_no_calls() {
    World::run("changes", async |world| {
        let registries = [world.registry(0).await, world.registry(1).await];
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;
        tokio::time::sleep(SETTLED).await;
        let client = world.env.cluster.client();
        let services = Api::<Service>::namespaced(client.clone(), &other);
        let namespaces = Api::<Namespace>::all(client);
        let changes = async {
            for change in 0..150 {
                let change = json!({ "metadata": { "annotations": { "t": change.to_string() } } });
                let change = Patch::Merge(change);
                let parameters = PatchParams::default();
                services
                    .patch("backend", &parameters, &change)
                    .await
                    .unwrap();
                namespaces
                    .patch(&other, &parameters, &change)
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let counts = registries.each_ref();
        let counts = join_all(counts.map(|registry| registry.proxy.calls_during(MINUTE)));
        let (counts, ()) = tokio::join!(counts, changes);
        for calls in counts {
            assert_calls("300 changes of unrelated objects", &calls, IDLE);
        }
    });
}

#[test]
fn many_entries_finish_at_once_although_calls_fail() {
    World::run_on("entries", slow_finality(), async |world| {
        const OFFERS: usize = 256;
        // So that the contract is final.
        world.mine(70).await;
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let names: Vec<String> = (0..OFFERS).map(|nth| format!("offer-{nth}")).collect();
        let created = names.iter().map(|name| world.offer(0, &shop, name));
        futures::stream::iter(created)
            .buffer_unordered(16)
            .collect::<Vec<_>>()
            .await;
        let owner = registry.owner();
        let limit = Duration::from_secs(120);
        eventually("all are in blocks", limit, async || {
            let mined = world.chain.mined_transactions_of(owner).await?;
            ensure!(mined == OFFERS as u64, "{mined}");
            anyhow::Ok(())
        })
        .await;
        let fault = Rule::error(Methods::all(), -32603, "internal error").every(50);
        let rule = registry.proxy.add(fault);
        world.mine(70).await;
        let start = Instant::now();
        eventually("every entry is finished", limit, async || {
            let in_flight = world.objects().in_flight().await?;
            ensure!(in_flight == 0, "{in_flight} in flight");
            anyhow::Ok(())
        })
        .await;
        let elapsed = start.elapsed().as_secs_f64();
        let failed = registry.proxy.remove(rule);
        println!("{OFFERS} entries finished in {elapsed:.1} s, {failed} calls failed");
        assert!(failed > 0, "the rule must have mattered");
        world.assert_minted(owner, OFFERS).await;
    });
}

#[test]
fn sum_of_the_day_survives_leaders() {
    World::run("day", async |world| {
        const TWO_DAYS: u64 = 2 * 24 * 60 * 60;
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;
        let spent = async || {
            let found = world.objects().registries().get(&registry.name).await?;
            let spent = found.status.and_then(|status| status.spent_last_24h);
            let spent = spent.context("no sum")?;
            let number = spent.split_whitespace().next().unwrap_or_default();
            number.parse::<f64>().with_context(|| spent.clone())
        };
        eventually("the registration is in the sum", SHOWN, async || {
            let sum = spent().await?;
            ensure!(sum > 0.0, "{sum}");
            anyhow::Ok(())
        })
        .await;
        let jump = json!([TWO_DAYS]);
        world.chain.rpc("evm_increaseTime", jump).await.unwrap();
        world.mine(5).await;
        world.restart().await;
        eventually("the registration leaves the sum", SHOWN, async || {
            let sum = spent().await?;
            ensure!(sum == 0.0, "{sum}");
            anyhow::Ok(())
        })
        .await;
        let what = "the next leader counts the day, not the lifetime";
        throughout(what, Duration::from_secs(20), async || {
            let sum = spent().await?;
            ensure!(sum == 0.0, "{sum}");
            anyhow::Ok(())
        })
        .await;
    });
}

#[test]
fn large_unrelated_services_fit_into_the_limit() {
    World::run_alone("services", async |world| {
        const SERVICES: usize = 2_500;
        const REMOVAL: Duration = Duration::from_secs(180);
        let registry = world.registry(0).await;
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        let services = Api::<Service>::namespaced(world.env.cluster.client(), &other);
        let note = "x".repeat(40_000);
        let manifests = (0..SERVICES).map(|nth| -> Service {
            let manifest = json!({
                "metadata": { "name": format!("s-{nth}"), "annotations": { "note": note } },
                "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] },
            });
            serde_json::from_value(manifest).unwrap()
        });
        let created = manifests.map(|service| {
            let services = services.clone();
            async move {
                let created = services.create(&PostParams::default(), &service).await;
                created.map(drop).unwrap();
            }
        });
        futures::stream::iter(created)
            .buffer_unordered(32)
            .collect::<Vec<_>>()
            .await;
        // A replica that starts reads all of them at once.
        world.restart().await;
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;
        for pod in world.release.pods().await.unwrap() {
            let metrics = world.release.metrics(&pod).await.unwrap();
            let bytes = metrics["process_resident_memory_bytes"];
            println!("{}: {:.0} MB resident", pod.name_any(), bytes / 1e6);
            assert!(bytes < 256.0 * 1024.0 * 1024.0, "{bytes}");
        }
        world.assert_no_crash().await;
        world.assert_minted(registry.owner(), 1).await;
        // So that the next test need not wait for the deletion of the namespace. On a slow machine a request
        // is cut off before it has deleted all of them: the next one deletes the rest.
        let (deletion, all) = (DeleteParams::default(), ListParams::default());
        eventually("the Services are deleted", REMOVAL, async || {
            services.delete_collection(&deletion, &all).await
        })
        .await;
    });
}
