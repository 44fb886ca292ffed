//! Two versions take turns while registrations are in flight: the previous one under the new CRDs,
//! an upgrade, a rollback, and the upgrade again.
//!
//! The previous version is a chart and an image of another commit, see `.ci/skew`. Its image has
//! the tag `previous`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alloy::primitives::U256;
use anyhow::{Context, Result, ensure};
use harness::chain::LocalChain;
use harness::objects::agent_of;
use harness::release::{Release, chart, printed};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use rpc_proxy::{RpcProxy, Rule};
use serde_json::json;
use serviceoffer::api::{Phase, SignerLedger};
use testbed::AnvilConfig;

use crate::fixture::{NAMESPACE, TestEnv, block_every_second};
use crate::objects::{offer, registry};
use crate::sale::failure::{ask_until, buy_until};
use crate::sale::shop::Shop;

/// A Lease that changes hands in seconds, and so few registrations at a time that the first offers
/// are still waiting when the CRDs change.
const VALUES: [&str; 6] = [
    "replicaCount=3",
    "leaderElection.leaseDuration=6s",
    "leaderElection.renewDeadline=4s",
    "leaderElection.retryPeriod=1s",
    "controller.maxInFlight=4",
    PREVIOUS,
];
/// The value that selects the image of the previous version.
const PREVIOUS: &str = "image.tag=previous";
/// The value that selects the image that the chart names.
const CURRENT: &str = "image.tag=";
/// Blocks from `latest` to `safe`; `finalized` is twice as far away.
const SAFE_DEPTH: u64 = 4;
/// Helm's number of the release as it was installed.
const INSTALLED: u32 = 1;
const NAMESPACES: [&str; 3] = ["one", "two", "three"];
const OFFERS: usize = 24;
/// Between two offers that are created while the versions change.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long the previous version leads under the new CRDs.
const UNDER_NEW_CRDS: Duration = Duration::from_secs(120);
/// How much longer than a rollout a registration may take.
const GRACE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs the image of a previous version: make test-skew"]
fn registrations_survive_an_upgrade_and_a_rollback() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, versions) = Versions::install_previous(&env).await;
        let manifest = registry("local", &chain, "http://agents.example");
        objects.create_registry(manifest).await;
        for namespace in NAMESPACES {
            objects.create_namespace(namespace, &[]).await;
        }
        objects.create_offers(&NAMESPACES, OFFERS).await;

        let over = AtomicBool::new(false);
        let phases = async {
            let mut rollouts = Vec::new();
            let mixed = versions.previous_under_new_crds.upgrade(&[]);
            rollouts.push(change(&env, "new-crds", mixed).await);
            let before = chain.registrations().await.unwrap().len();
            tokio::time::sleep(UNDER_NEW_CRDS).await;
            versions.wait_all(Version::Previous).await;
            let after = chain.registrations().await.unwrap().len();
            println!(
                "previous version under the new CRDs for {UNDER_NEW_CRDS:?}: {} registrations",
                after - before
            );

            let upgrade = versions.current.upgrade(&[CURRENT]);
            rollouts.push(change(&env, "upgrade", upgrade).await);
            versions.wait_all(Version::Current).await;
            let rollback = versions.current.rollback(INSTALLED);
            rollouts.push(change(&env, "rollback", rollback).await);
            versions.wait_all(Version::Previous).await;
            let forward = versions.current.upgrade(&[CURRENT]);
            rollouts.push(change(&env, "forward", forward).await);
            versions.wait_all(Version::Current).await;
            over.store(true, Ordering::Relaxed);
            rollouts
        };
        let (rollouts, longest) = tokio::join!(phases, sell(&env, &chain, &over));

        let offers = objects.list_offers().await.unwrap().len();
        objects.assert_all_registered(&chain, offers, LIMIT).await;
        let registrations = chain.registrations().await.unwrap().len();
        println!(
            "{offers} offers, {registrations} registrations, longest time without one {:.0} s, changes took {:?}",
            longest.as_secs_f64(),
            rollouts.iter().map(Duration::as_secs).collect::<Vec<_>>()
        );
        assert_eq!(registrations, offers, "every offer is registered once");
        assert_sent(&chain, offers).await;
        let limit = rollouts.into_iter().max().unwrap_or_default() + GRACE;
        assert!(
            longest <= limit,
            "no registration for {longest:?}, {limit:?} are allowed"
        );
    });
}

#[test]
#[ignore = "needs the image of a previous version: make test-skew"]
fn objects_of_this_version_do_not_stop_the_previous_one() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, versions) = Versions::install_previous(&env).await;
        versions.current.upgrade(&[CURRENT]).await.unwrap();
        versions.wait_all(Version::Current).await;

        // This version creates the ledger, and a record that ends without an agent.
        let proxy = RpcProxy::start(&chain.anvil.url()).await.unwrap();
        let too_little = proxy.add(Rule::result("eth_estimateGas", json!("0xea60")));
        let mut manifest = registry("local", &chain, "http://agents.example");
        manifest["spec"]["rpc"] = json!([{ "url": proxy.url_at(env.cluster.node_ip()) }]);
        objects.create_registry(manifest).await;
        let shop = NAMESPACES[0];
        objects.create_namespace(shop, &[]).await;
        objects.create_offer(offer(shop, "reverted")).await;
        wait_reverted(&env).await;
        wait_none_in_flight(&env).await;
        proxy.remove(too_little);
        let name = SignerLedger::name_of(chain.id, chain.signer.address());
        let ledger = objects.ledgers().get(&name).await.unwrap();
        println!("ledger of this version: {:?}", ledger.spec);

        let mixed = versions.previous_under_new_crds.upgrade(&[PREVIOUS]);
        change(&env, "mixed", mixed).await;
        versions.wait_all(Version::Previous).await;
        wait_reverted(&env).await;
        let rollback = versions.current.rollback(INSTALLED);
        change(&env, "rollback", rollback).await;
        versions.wait_all(Version::Previous).await;
        wait_reverted(&env).await;
        let forward = versions.current.upgrade(&[CURRENT]);
        change(&env, "forward", forward).await;
        versions.wait_all(Version::Current).await;
        wait_reverted(&env).await;
        wait_none_in_flight(&env).await;

        let offers = objects.list_offers().await.unwrap();
        let mut named: Vec<_> = offers.iter().filter_map(agent_of).collect();
        let mut agents: Vec<_> = chain.agents().await.unwrap().into_values().collect();
        println!(
            "{} offers, {} registrations, one reverted",
            offers.len(),
            agents.len()
        );
        assert_eq!(named.len() + 1, offers.len(), "all but one are registered");
        let by_number = |agent: &String| agent.parse::<U256>().ok();
        named.sort_by_key(by_number);
        agents.sort_by_key(by_number);
        assert_eq!(named, agents, "statuses and chain name the same agents");
        let records = objects.records().list(&ListParams::default()).await;
        let reverted = records.unwrap().items;
        let reverted = reverted
            .iter()
            .filter(|record| record.spec.phase == Phase::Reverted);
        assert_eq!(reverted.count(), 1, "the reverted record must stay");
        assert_sent(&chain, offers.len()).await;
    });
}

#[test]
#[ignore = "needs the image of a previous version: make test-skew"]
fn purchases_survive_a_rollback_and_an_upgrade() {
    TestEnv::run(async |env| {
        let (old, image) = (path_in("PREVIOUS_CHART"), path_in("PREVIOUS_IMAGE"));
        env.cluster.load(&image).await.unwrap();
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let previous = shop.env.release(NAMESPACE).of_chart(&old);
        let stop = AtomicBool::new(false);
        let phases = async {
            for (release, image, version) in [
                (&previous, PREVIOUS, Version::Previous),
                (&shop.release, CURRENT, Version::Current),
            ] {
                release.upgrade(&[image]).await.unwrap();
                let gate = release.wait_gate(LIMIT).await.unwrap();
                assert_eq!(Version::of(&gate), version);
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (bought, (asked, failed), ()) = tokio::join!(
            buy_until(&shop, &stop, Duration::ZERO),
            ask_until(&shop, &stop),
            phases
        );
        println!("{} purchases, {asked} other requests", bought.len());
        assert!(failed.is_empty(), "{} of {asked}: {failed:?}", failed.len());
        let refused = bought.iter().filter(|answer| answer.status != 200);
        let refused: Vec<_> = refused.collect();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(shop.transfers().await.len(), bought.len());
        assert_eq!(shop.upstream.count(), bought.len());
    });
}

/// Which version a replica is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Previous,
    Current,
}

impl Version {
    fn of(pod: &Pod) -> Self {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut images = containers.filter_map(|container| container.image.as_deref());
        if images.any(|image| image.ends_with(":previous")) {
            Self::Previous
        } else {
            Self::Current
        }
    }
}

/// One release, to be upgraded from the chart of either version.
struct Versions {
    /// The chart of the previous version with the CRDs of this one: nothing but the CRDs changes,
    /// so that the Pods stay.
    previous_under_new_crds: Release,
    current: Release,
}

impl Versions {
    /// Installs the previous version, and starts a chain for it.
    async fn install_previous(env: &TestEnv) -> (LocalChain, Self) {
        let (old, image) = (path_in("PREVIOUS_CHART"), path_in("PREVIOUS_IMAGE"));
        env.cluster.load(&image).await.unwrap();
        let previous = env.release(NAMESPACE).of_chart(&old);
        let config = AnvilConfig {
            slots_in_an_epoch: SAFE_DEPTH,
            ..block_every_second()
        };
        let (chain, installed) = tokio::join!(env.start_chain(config), previous.install(&VALUES));
        installed.unwrap();
        // So that the contract is final.
        chain.anvil.mine(2 * SAFE_DEPTH + 2).await.unwrap();
        env.objects.create_signer_secret(&previous, &chain).await;
        let versions = Self {
            previous_under_new_crds: env
                .release(NAMESPACE)
                .of_chart(&mixed_chart(env, &old).await),
            current: env.release(NAMESPACE),
        };
        versions.wait_all(Version::Previous).await;
        (chain, versions)
    }

    /// Waits until all replicas are ready and of that version, and one of them leads.
    async fn wait_all(&self, version: Version) {
        let what = format!("all replicas are of the {version:?} version, and one leads");
        eventually(&what, LIMIT, async || -> Result<()> {
            let pods = self.current.wait_ready(3, Duration::ZERO).await?;
            let others = pods.iter().filter(|pod| Version::of(pod) != version);
            let others = others.count();
            ensure!(others == 0, "{others} replicas are of the other version");
            self.current.wait_leader(None, Duration::ZERO).await?;
            Ok(())
        })
        .await;
    }
}

/// The path that an environment variable names.
fn path_in(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    let path = path.with_context(|| format!("{variable} is not set: run make test-skew"));
    path.unwrap().into()
}

/// Writes a chart that differs from `old` in nothing but its CRDs, which are those of this version.
async fn mixed_chart(env: &TestEnv, old: &Path) -> PathBuf {
    let mixed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("previous-under-new-crds");
    let script = format!(
        "rm -rf '{mixed}'; cp -r '{old}' '{mixed}'; rm '{mixed}'/files/crds/*; cp '{new}'/files/crds/* '{mixed}/files/crds'",
        mixed = mixed.display(),
        old = old.display(),
        new = chart().display()
    );
    let output = env.cluster.shell(&script).output().await.unwrap();
    assert!(output.status.success(), "{script}: {}", printed(&output));
    mixed
}

/// Changes the release while nonces are in flight, and returns how long that took. A new offer must
/// then be registered soon.
async fn change(env: &TestEnv, name: &str, change: impl Future<Output = Result<()>>) -> Duration {
    let (objects, namespace) = (&env.objects, NAMESPACES[0]);
    let (before, after) = (format!("before-{name}"), format!("after-{name}"));
    objects.create_offer(offer(namespace, &before)).await;
    let in_flight = objects.wait_in_flight(LIMIT).await;
    let start = Instant::now();
    change.await.unwrap();
    let duration = start.elapsed();
    let left = objects.in_flight().await.unwrap();

    let created = Instant::now();
    objects.create_offer(offer(namespace, &after)).await;
    for offer in [&after, &before] {
        let limit = (duration + GRACE).saturating_sub(created.elapsed());
        objects.wait_registered(namespace, offer, limit).await;
    }
    println!(
        "{name}: {in_flight} nonces in flight before, {left} after {:.0} s; a new offer registered {:.0} s later",
        duration.as_secs_f64(),
        created.elapsed().as_secs_f64()
    );
    duration
}

/// Creates an offer every few seconds until the changes are over. Returns the longest time in which
/// the chain got no registration, to within [`INTERVAL`].
async fn sell(env: &TestEnv, chain: &LocalChain, over: &AtomicBool) -> Duration {
    let (mut longest, mut seen, mut last) = (Duration::ZERO, 0, Instant::now());
    for (number, namespace) in NAMESPACES.iter().cycle().enumerate() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let manifest = offer(namespace, &format!("sold-{number}"));
        env.objects.create_offer(manifest).await;
        let registrations = chain.registrations().await.unwrap().len();
        longest = longest.max(last.elapsed());
        if registrations > seen {
            (seen, last) = (registrations, Instant::now());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    longest
}

/// Waits until the offer whose transaction reverted says so.
async fn wait_reverted(env: &TestEnv) {
    let (objects, namespace) = (&env.objects, NAMESPACES[0]);
    let reason = "RegistrationReverted";
    objects
        .wait_offer_reason(namespace, "reverted", "Registered", reason, LIMIT)
        .await;
}

async fn wait_none_in_flight(env: &TestEnv) {
    eventually("no nonce is in flight", LIMIT, async || {
        let in_flight = env.objects.in_flight().await?;
        ensure!(in_flight == 0, "{in_flight} are");
        anyhow::Ok(())
    })
    .await;
}

/// Asserts that the signer sent exactly that many transactions, and that all are in blocks.
async fn assert_sent(chain: &LocalChain, expected: usize) {
    let sent = chain.sent_transactions().await.unwrap();
    let mined = chain.mined_transactions().await.unwrap();
    assert_eq!(
        (sent, mined),
        (expected as u64, expected as u64),
        "nothing else must be sent"
    );
}
