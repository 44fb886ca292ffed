//! Failures of endpoints, chains and other objects that were met in public, one test for each.
//!
//! A test begins in a [`World`]: the operator, a chain of its own, and IdentityRegistries whose
//! endpoints are proxies that fail as their rules say. It asserts that what fails is named on
//! the object that has it, with a reason that is true, and that everything else is registered
//! within [`OTHERS`]. [`endpoint`], [`sending`], [`fees`], [`logs`], [`input`], [`signers`], [`foreign`],
//! [`keys`], [`restore`], [`selective`], [`isolation`], [`adoption`] and [`economy`] are the kinds.
//!
//! Tests of one run that disturb nothing but their own objects share an installed operator: see
//! [`World::run`]. A test that does, or that fails, leaves a cluster that the next one clears.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::primitives::Address;
use alloy::signers::local::PrivateKeySigner;
use anyhow::{Result, anyhow, ensure};
use harness::chain::{Chain, LocalChain};
use harness::objects::{condition_of, delete, patch};
use harness::release::Release;
use harness::wait::{eventually, throughout};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use rpc_proxy::{RpcProxy, Rule, RuleId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, IdentityRegistry, SignerLedger};
use testbed::AnvilConfig;

use crate::fixture::{NAMESPACE, TestEnv, block_every_second};
use crate::objects::{Objects, offer, registry};

mod adoption;
mod economy;
mod endpoint;
mod fees;
mod foreign;
mod input;
mod isolation;
mod keys;
mod logs;
mod restore;
mod selective;
mod sending;
mod signers;

/// How long a registration may take that a fault does not concern.
const OTHERS: Duration = Duration::from_secs(30);
/// How long a condition may take to show a fault or its end: it changes at most once a minute per
/// direction.
const SHOWN: Duration = Duration::from_secs(75);
/// How long objects of an earlier test may take to go away.
const GONE: Duration = Duration::from_secs(60);
/// Accounts with funds on a chain.
const ACCOUNTS: u32 = 24;
/// Annotation of the operator's namespace that names the run whose tests may share the release.
const SHARED_BY: &str = "obol.org/shared-by-run";
/// A Lease that changes hands in seconds, and many transactions in flight.
const VALUES: [&str; 4] = [
    "leaderElection.leaseDuration=6s",
    "leaderElection.renewDeadline=4s",
    "leaderElection.retryPeriod=1s",
    "controller.maxInFlight=64",
];

/// The operator, and a chain with a contract that only one test uses.
struct World {
    env: TestEnv,
    release: Release,
    chain: LocalChain,
    case: String,
    /// Proxies serve until the test ends, also those that it does not look at again.
    proxies: Mutex<Vec<Arc<RpcProxy>>>,
}

/// An IdentityRegistry whose only endpoint is a proxy, with a signer of its own.
struct ProxiedRegistry {
    name: String,
    proxy: Arc<RpcProxy>,
    signer: PrivateKeySigner,
}

impl ProxiedRegistry {
    fn owner(&self) -> Address {
        self.signer.address()
    }

    /// Waits until a rule of the proxy was applied so often.
    async fn wait_hits(&self, rule: RuleId, count: u64) {
        let what = format!("a rule is applied {count} times");
        eventually(&what, SHOWN, async || {
            let hits = self.proxy.hits(rule);
            ensure!(hits >= count, "{hits} times");
            anyhow::Ok(())
        })
        .await;
    }
}

impl World {
    /// Runs a test that disturbs only its own objects. It takes over the operator that an earlier
    /// test of the same run has installed, if that test passed.
    fn run(case: &str, test: impl AsyncFnOnce(&World) + Send) {
        Self::run_on(case, one_second(case), test);
    }

    /// Like [`World::run`], on a chain of the test's choice. The chain's id is replaced.
    fn run_on(case: &str, config: AnvilConfig, test: impl AsyncFnOnce(&World) + Send) {
        TestEnv::run_uncleared(async |env| {
            let run = std::env::var("NEXTEST_RUN_ID").ok();
            if run.is_some() && shared_by(&env).await == run {
                mark(&env, None).await;
                empty(&env.objects).await;
            } else {
                env.clear().await;
                env.install(&VALUES).await;
            }
            let world = Self::new(env, case, config).await;
            test(&world).await;
            // A test that fails does not get here, and the next one clears the cluster.
            mark(&world.env, run.as_deref()).await;
        });
    }

    /// Runs a test that changes more than its own objects: the cluster is cleared before it, and
    /// before the next one.
    fn run_alone(case: &str, test: impl AsyncFnOnce(&World) + Send) {
        Self::run_alone_with(case, &[], test);
    }

    /// Like [`World::run_alone`], with more values of the chart.
    fn run_alone_with(case: &str, values: &[&str], test: impl AsyncFnOnce(&World) + Send) {
        TestEnv::run(async |env| {
            env.install(&[&VALUES, values].concat()).await;
            test(&Self::new(env, case, one_second(case)).await).await;
        });
    }

    async fn new(env: TestEnv, case: &str, config: AnvilConfig) -> Self {
        let config = AnvilConfig {
            chain_id: chain_id(case),
            accounts: ACCOUNTS,
            ..config
        };
        let release = env.release(NAMESPACE);
        release
            .wait_leader(None, Duration::from_secs(30))
            .await
            .unwrap();
        let chain = env.start_chain(config).await;
        Self {
            env,
            release,
            chain,
            case: case.to_owned(),
            proxies: Mutex::default(),
        }
    }

    fn objects(&self) -> &Objects {
        &self.env.objects
    }

    /// Creates a namespace that offers of this test can be in, and returns its name.
    async fn namespace(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.case);
        self.objects().create_namespace(&name, &[]).await;
        name
    }

    /// A proxy before the chain.
    async fn proxy(&self) -> Arc<RpcProxy> {
        self.proxy_of(&self.chain).await
    }

    async fn proxy_of(&self, chain: &LocalChain) -> Arc<RpcProxy> {
        let proxy = Arc::new(RpcProxy::start(&chain.anvil.url()).await.unwrap());
        self.proxies.lock().unwrap().push(Arc::clone(&proxy));
        proxy
    }

    /// Where the operator reaches a proxy.
    fn url(&self, proxy: &RpcProxy) -> String {
        proxy.url_at(self.env.cluster.node_ip())
    }

    /// The key of the nth registry's signer. The chain's first account deployed the contract.
    fn signer(&self, nth: usize) -> PrivateKeySigner {
        self.chain.anvil.keys()[nth + 1].clone()
    }

    /// An account that no registry uses.
    fn stranger(&self) -> Address {
        self.chain.anvil.keys().last().unwrap().address()
    }

    /// Name of the nth registry.
    fn name(&self, nth: usize) -> String {
        format!("{}-{nth}", self.case)
    }

    /// Manifest of the nth registry with these endpoints, and the Secret of its signer.
    async fn manifest(&self, nth: usize, proxies: &[&RpcProxy]) -> Value {
        self.manifest_on(&self.chain, nth, proxies).await
    }

    async fn manifest_on(&self, chain: &Chain, nth: usize, proxies: &[&RpcProxy]) -> Value {
        let signer = self.signer(nth);
        let secret = self.secret(nth).await;
        let mut manifest = registry(&self.name(nth), chain, "http://agents.example");
        manifest["metadata"]["annotations"] = json!({});
        let endpoints = proxies
            .iter()
            .map(|proxy| json!({ "url": self.url(proxy) }));
        manifest["spec"]["rpc"] = endpoints.collect();
        let secret = json!({ "name": secret, "key": "key" });
        manifest["spec"]["signers"] = json!([{ "address": signer.address(), "secretRef": secret }]);
        manifest
    }

    /// Name of the Secret of the nth signer, which is created unless it exists: deleting it would
    /// disturb the registries that use it.
    async fn secret(&self, nth: usize) -> String {
        let name = format!("signer-{nth}");
        let key = format!("{:#x}", self.signer(nth).to_bytes());
        let secrets = Api::<Secret>::namespaced(self.env.cluster.client(), NAMESPACE);
        let what = format!("Secret {name} is read");
        let found = eventually(&what, OTHERS, async || secrets.get_opt(&name).await).await;
        let found = found.and_then(|secret| secret.data?.remove("key"));
        if found.is_none_or(|found| found.0 != key.as_bytes()) {
            let objects = self.objects();
            objects.create_secret(NAMESPACE, &name, "key", &key).await;
        }
        name
    }

    /// Mines many blocks, in steps that each take less than a call may.
    async fn mine(&self, blocks: u64) {
        const STEP: u64 = 100;
        for start in (0..blocks).step_by(STEP as usize) {
            let step = STEP.min(blocks - start);
            self.chain.anvil.mine(step).await.unwrap();
        }
    }

    /// Makes the chain mine a block every so many seconds, or none (0).
    async fn mine_every(&self, seconds: u64) {
        let interval = json!([seconds]);
        let set = self.chain.rpc("evm_setIntervalMining", interval).await;
        set.unwrap();
    }

    /// Creates the nth registry behind a proxy without rules.
    async fn registry(&self, nth: usize) -> ProxiedRegistry {
        let proxy = self.proxy().await;
        self.registry_behind(nth, proxy).await
    }

    /// Creates the nth registry behind a proxy whose rules may be in force already.
    async fn registry_behind(&self, nth: usize, proxy: Arc<RpcProxy>) -> ProxiedRegistry {
        let manifest = self.manifest(nth, &[&proxy]).await;
        self.objects().create_registry(manifest).await;
        ProxiedRegistry {
            name: self.name(nth),
            proxy,
            signer: self.signer(nth),
        }
    }

    /// Creates a registry behind each fault, with an offer `offer-<nth>` each, and a healthy one
    /// after them, whose offer is registered.
    async fn registries_behind(
        &self,
        faults: impl IntoIterator<Item = Rule>,
        namespace: &str,
    ) -> Vec<ProxiedRegistry> {
        let mut registries = Vec::new();
        for (nth, fault) in faults.into_iter().enumerate() {
            let proxy = self.proxy().await;
            proxy.add(fault);
            registries.push(self.registry_behind(nth, proxy).await);
            self.offer(nth, namespace, &format!("offer-{nth}")).await;
        }
        let healthy = registries.len();
        self.registry(healthy).await;
        self.offer(healthy, namespace, "other").await;
        self.wait_other(namespace, "other").await;
        registries
    }

    /// Creates the first registry, and an offer whose transaction is signed, sent, and kept by the
    /// endpoint until the rule is removed.
    async fn registry_with_lost_transaction(
        &self,
        namespace: &str,
        offer: &str,
    ) -> (ProxiedRegistry, RuleId) {
        let proxy = self.proxy().await;
        let swallow = proxy.add(Rule::swallow());
        let registry = self.registry_behind(0, proxy).await;
        self.offer(0, namespace, offer).await;
        registry.wait_hits(swallow, 1).await;
        (registry, swallow)
    }

    /// Creates the nth registry for a signer that registered an agent when the chain was short, so
    /// that the operator has to read the logs from there.
    async fn registry_with_history(&self, nth: usize, proxy: Arc<RpcProxy>) -> ProxiedRegistry {
        let signer = self.signer(nth).address();
        let first = self.chain.anvil.block_number().await.unwrap();
        let register = self
            .chain
            .register_for(signer, Some(b"https://old.example"));
        let agent = register.await.unwrap();
        let mut manifest = self.manifest(nth, &[&proxy]).await;
        manifest["spec"]["bootstrap"] = json!({
            "atNonce": 1, "fromBlock": first, "ignoreAgents": { "ids": [agent] },
        });
        self.objects().create_registry(manifest).await;
        ProxiedRegistry {
            name: self.name(nth),
            proxy,
            signer: self.signer(nth),
        }
    }

    /// Creates an offer that uses the nth registry.
    async fn offer(&self, nth: usize, namespace: &str, name: &str) {
        self.offer_with(nth, namespace, name, json!({})).await;
    }

    /// Creates an offer that uses the nth registry, with more fields of its registration.
    async fn offer_with(&self, nth: usize, namespace: &str, name: &str, registration: Value) {
        let manifest = self.offer_manifest(nth, namespace, name, registration);
        self.objects().create_offer(manifest).await;
    }

    fn offer_manifest(
        &self,
        nth: usize,
        namespace: &str,
        name: &str,
        registration: Value,
    ) -> Value {
        let mut manifest = offer(namespace, name);
        let fields = &mut manifest["spec"]["registration"];
        fields["registryRef"] = json!({ "name": self.name(nth) });
        for (field, value) in registration.as_object().unwrap() {
            fields[field] = value.clone();
        }
        manifest
    }

    /// Waits until an offer that no fault concerns is registered, and returns its agent id.
    async fn wait_other(&self, namespace: &str, name: &str) -> String {
        self.objects()
            .wait_registered(namespace, name, OTHERS)
            .await
    }

    /// Waits until an offer's condition `Registered` has that reason, and returns the message.
    async fn wait_offer(&self, namespace: &str, name: &str, reason: &str) -> String {
        let objects = self.objects();
        let (_, message) = objects
            .wait_offer_reason(namespace, name, "Registered", reason, SHOWN)
            .await;
        message
    }

    /// Reason and message of an offer's condition `Registered`.
    async fn read_offer(&self, namespace: &str, name: &str) -> Result<(String, String)> {
        let offer = self.objects().offers(namespace).get(name).await?;
        let (_, reason, message) = condition_of(&offer, "Registered");
        Ok((reason, message))
    }

    /// Waits until any condition of the nth registry has that reason, and returns the message.
    async fn wait_registry(&self, nth: usize, reason: &str) -> String {
        let name = self.name(nth);
        let what = format!("registry {name} says {reason}");
        eventually(&what, SHOWN, async || {
            let conditions = self.read_conditions(nth).await?;
            let found = conditions.iter().find(|(_, found, _)| found == reason);
            let (_, _, message) = found.ok_or_else(|| anyhow!("{conditions:?}"))?;
            anyhow::Ok(message.clone())
        })
        .await
    }

    /// Type, reason and message of each condition of the nth registry.
    async fn read_conditions(&self, nth: usize) -> Result<Vec<(String, String, String)>> {
        let registry = self.objects().registries().get(&self.name(nth)).await?;
        let status = registry.status.unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let conditions = status.conditions.iter();
        Ok(conditions
            .map(|found| {
                (
                    found.type_.clone(),
                    text(&found.reason),
                    text(&found.message),
                )
            })
            .collect())
    }

    /// Waits until the nth registry is ready, after all that its offers and endpoint went through.
    async fn wait_ready(&self, nth: usize) {
        let (status, message) = self
            .objects()
            .wait_registry_reason(&self.name(nth), "Ready", "Reconciled", SHOWN)
            .await;
        assert_eq!(status, "True", "{message}");
    }

    /// Asserts that exactly that many agents of an account are on the chain, from as many
    /// transactions.
    async fn assert_minted(&self, owner: Address, expected: usize) {
        let minted = self.chain.registrations_of(owner).await.unwrap();
        assert_eq!(minted.len(), expected, "{minted:?}");
        let mined = self.chain.mined_transactions_of(owner).await.unwrap();
        assert_eq!(mined, expected as u64, "nothing else must be sent");
    }

    /// Asserts that an account sends nothing more for a while.
    async fn assert_quiet(&self, owner: Address, duration: Duration) {
        let before = self.chain.mined_transactions_of(owner).await.unwrap();
        throughout("nothing is sent", duration, async || {
            let mined = self.chain.mined_transactions_of(owner).await?;
            ensure!(mined == before, "{mined} transactions, {before} before");
            Ok(())
        })
        .await;
    }

    /// Replaces every replica, and waits until another one leads.
    async fn restart(&self) {
        let leader = self.release.wait_leader(None, OTHERS).await.unwrap();
        for pod in self.release.pods().await.unwrap() {
            let name = pod.name_any();
            delete(&self.release.pod_api(), &name).await.unwrap();
        }
        let limit = Duration::from_secs(60);
        self.release
            .wait_leader(Some(&leader), limit)
            .await
            .unwrap();
    }

    /// Stops the operator, and all that it remembers is gone.
    async fn stop(&self) {
        self.release.upgrade(&["replicaCount=0"]).await.unwrap();
        eventually("the operator is gone", GONE, async || {
            let pods = self.release.list_replicas().await?;
            ensure!(pods.is_empty(), "{} Pods", pods.len());
            anyhow::Ok(())
        })
        .await;
    }

    /// Starts the operator again.
    async fn start(&self) {
        self.release.upgrade(&["replicaCount=1"]).await.unwrap();
        self.release.wait_leader(None, OTHERS).await.unwrap();
    }

    /// Waits until an offer's transaction is signed, and returns its record.
    async fn wait_signed(&self, namespace: &str, name: &str) -> AgentRegistration {
        let record = self.objects().wait_key(namespace, name).await.record_name();
        let what = format!("the transaction of {name} is signed");
        eventually(&what, OTHERS, async || {
            let record = self.objects().records().get(&record).await?;
            let attempt = record.spec.attempts.last();
            let is_signed = attempt.is_some_and(|attempt| attempt.raw.is_some());
            ensure!(is_signed, "{:?}", record.spec.phase);
            anyhow::Ok(record)
        })
        .await
    }

    fn ledger_name(&self, nth: usize) -> String {
        SignerLedger::name_of(chain_id(&self.case), self.signer(nth).address())
    }

    /// The nth registry's ledger once nothing is in flight.
    async fn settled_ledger(&self, nth: usize) -> SignerLedger {
        let name = self.ledger_name(nth);
        eventually("nothing is in flight", OTHERS, async || {
            let ledger = self.objects().ledgers().get(&name).await?;
            ensure!(ledger.spec.entries.is_empty(), "{:?}", ledger.spec.entries);
            anyhow::Ok(ledger)
        })
        .await
    }

    /// Asserts that no container of the operator was restarted: it neither panicked nor ran out of
    /// memory.
    async fn assert_no_crash(&self) {
        for pod in self.release.pods().await.unwrap() {
            let statuses = pod.status.and_then(|status| status.container_statuses);
            for status in statuses.unwrap_or_default() {
                assert_eq!(status.restart_count, 0, "{:?}", status.last_state);
            }
        }
    }
}

/// The chain id of a test. A leader remembers the ledgers of a chain, so that two tests must not
/// share one.
fn chain_id(case: &str) -> u64 {
    let hash = case.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    3_000_000 + hash % 1_000_000
}

/// A chain with a block every second, whose blocks are final two blocks later.
fn one_second(case: &str) -> AnvilConfig {
    AnvilConfig {
        chain_id: chain_id(case),
        ..block_every_second()
    }
}

/// A chain with a block every second, whose blocks are final 64 blocks later.
fn slow_finality() -> AnvilConfig {
    AnvilConfig {
        slots_in_an_epoch: 32,
        ..block_every_second()
    }
}

/// The run whose tests may share the operator that is installed, if it is ready.
async fn shared_by(env: &TestEnv) -> Option<String> {
    let namespaces = Api::<Namespace>::all(env.cluster.client());
    let namespace = namespaces.get_opt(NAMESPACE).await.ok()??;
    let run = namespace.annotations().get(SHARED_BY)?.clone();
    let release = env.release(NAMESPACE);
    release.wait_ready(1, Duration::from_secs(10)).await.ok()?;
    Some(run)
}

/// Notes which run may share the operator. `None`: no test may.
async fn mark(env: &TestEnv, run: Option<&str>) {
    let namespaces = Api::<Namespace>::all(env.cluster.client());
    let change = json!({ "metadata": { "annotations": { SHARED_BY: run } } });
    patch(&namespaces, NAMESPACE, change).await.unwrap();
}

/// Removes the objects of an earlier test. Records and ledgers go last, when nothing can bring them
/// back.
async fn empty(objects: &Objects) {
    delete_offers(objects).await;
    delete_all::<IdentityRegistry>(&objects.registries()).await;
    delete_all::<AgentRegistration>(&objects.records()).await;
    delete_all::<SignerLedger>(&objects.ledgers()).await;
}

async fn delete_offers(objects: &Objects) {
    eventually("the offers are gone", GONE, async || {
        let offers = objects.list_offers().await?;
        for offer in &offers {
            let namespace = offer.namespace().unwrap_or_default();
            let own = objects.offers(&namespace);
            let _ = own
                .delete(&offer.name_any(), &DeleteParams::default())
                .await;
        }
        ensure!(offers.is_empty(), "{} are left", offers.len());
        Ok(())
    })
    .await;
}

/// Deletes all objects of a kind, those included whose deletion is refused without an annotation.
async fn delete_all<K>(api: &Api<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let allow = json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
    let allow = Patch::Merge(allow);
    let what = format!("all {} are gone", K::plural(&()));
    eventually(&what, GONE, async || {
        let list = api.list_metadata(&ListParams::default()).await?.items;
        for object in &list {
            let name = object.name_any();
            // It may be gone, or change at this moment.
            let _ = api
                .patch_metadata(&name, &PatchParams::default(), &allow)
                .await;
            let _ = api.delete(&name, &DeleteParams::default()).await;
        }
        ensure!(list.is_empty(), "{} are left", list.len());
        Ok(())
    })
    .await;
}

/// Annotates an object that the chart's policy protects, and deletes it.
async fn delete_protected<K>(api: &Api<K>, name: &str)
where
    K: Clone + Debug + DeserializeOwned,
{
    let allow = json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
    patch(api, name, allow).await.unwrap();
    delete(api, name).await.unwrap();
}
