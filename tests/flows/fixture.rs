//! Where a flow begins: a cluster as if nothing had ever been installed, and the operator in it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::chain::{Chain, LocalChain};
use harness::release::{Release, printed};
use harness::wait::eventually;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::{AnvilConfig, Cluster, Name};

use crate::objects::{Objects, registry};

/// Name of the release in every flow.
pub const RELEASE: &str = "offers";
/// Namespace of the release.
pub const NAMESPACE: &str = "operator";
/// Namespaces that every cluster has.
const BUILT_IN: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// Groups of the kinds that a release or a flow defines.
const GROUPS: [&str; 2] = ["obol.org", "gateway.networking.k8s.io"];
/// How long the cluster may take to be rid of something.
const LIMIT: Duration = Duration::from_secs(120);

/// A cluster that a flow has for itself, and the objects in it.
pub struct TestEnv {
    pub cluster: Cluster,
    pub objects: Objects,
}

impl TestEnv {
    /// Runs a flow on a clean cluster. No other flow is on it: see `.config/nextest.toml`.
    pub fn run(flow: impl AsyncFnOnce(TestEnv) + Send) {
        Self::run_uncleared(async |env| {
            env.clear().await;
            flow(env).await;
        });
    }

    /// Runs a flow on the cluster as the last flow left it.
    pub fn run_uncleared(flow: impl AsyncFnOnce(TestEnv) + Send) {
        // Clients of the API server and of Pods share one TLS library.
        let _ = rustls::crypto::ring::default_provider().install_default();
        testbed::test_on(&lane(), async |cluster| {
            let client = cluster.client();
            let env = TestEnv {
                objects: Objects { client },
                cluster,
            };
            flow(env).await;
        });
    }

    /// A release in that namespace. Nothing is installed.
    pub fn release(&self, namespace: &str) -> Release {
        Release::new(&self.cluster, namespace, RELEASE).expect("an HTTP client")
    }

    /// Installs the operator: without a gate, unless a value is about it. With one, no offer is Ready
    /// until a facilitator settles its payments, which flows about registration do not have.
    pub async fn install(&self, values: &[&str]) -> Release {
        let release = self.release(NAMESPACE);
        let mut all = values.to_vec();
        if !values.iter().any(|value| value.starts_with("gate.")) {
            all.push("gate.enabled=false");
        }
        release.install(&all).await.unwrap();
        release
    }

    /// Starts a chain with a registry contract on it.
    pub async fn start_chain(&self, config: AnvilConfig) -> LocalChain {
        LocalChain::start(self.cluster.node_ip(), config)
            .await
            .unwrap()
    }

    /// Installs the operator, starts a chain with a block every second, and creates an
    /// IdentityRegistry that is open to all.
    pub async fn deploy(&self, values: &[&str]) -> (LocalChain, Release) {
        self.deploy_on(block_every_second(), values).await
    }

    /// Like [`TestEnv::deploy`], on a chain of the flow's choice.
    pub async fn deploy_on(&self, config: AnvilConfig, values: &[&str]) -> (LocalChain, Release) {
        let (chain, release) = self.prepare(config, values).await;
        let manifest = registry("local", &chain, "http://agents.example");
        self.objects.create_registry(manifest).await;
        (chain, release)
    }

    /// Like [`TestEnv::deploy_on`], without the IdentityRegistry.
    pub async fn prepare(&self, config: AnvilConfig, values: &[&str]) -> (LocalChain, Release) {
        let (chain, release) = tokio::join!(self.start_chain(config), self.install(values));
        self.objects.create_signer_secret(&release, &chain).await;
        (chain, release)
    }

    /// Removes everything that an earlier flow left.
    pub async fn clear(&self) {
        for namespace in self.releases().await {
            self.release(&namespace).uninstall().await.unwrap();
        }
        remove_finalizers(&Api::<Pod>::all(self.cluster.client())).await;
        remove_finalizers(&self.objects.all_offers()).await;
        self.delete_definitions().await;
        self.delete_namespaces().await;
    }

    async fn releases(&self) -> Vec<String> {
        let list: Vec<Value> = eventually("helm lists releases", LIMIT, async || {
            let arguments = ["list", "--all-namespaces", "--output", "json"];
            let output = self.cluster.helm(arguments).output().await?;
            serde_json::from_slice(&output.stdout).with_context(|| printed(&output))
        })
        .await;
        let ours = list.iter().filter(|release| release["name"] == RELEASE);
        ours.filter_map(|release| release["namespace"].as_str().map(str::to_owned))
            .collect()
    }

    async fn delete_definitions(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.cluster.client());
        let allow = json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
        let allow = Patch::Merge(allow);
        let begun = Instant::now();
        eventually("the CRDs are gone", LIMIT, async || {
            let mut left = Vec::new();
            for definition in api.list(&ListParams::default()).await?.items {
                if !GROUPS.contains(&&*definition.spec.group) {
                    continue;
                }
                let name = definition.name_any();
                if definition.metadata.deletion_timestamp.is_none() {
                    api.patch(&name, &PatchParams::default(), &allow).await?;
                    api.delete(&name, &DeleteParams::background()).await?;
                } else {
                    remind(&api, &name, begun.elapsed()).await;
                }
                left.push(name);
            }
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await;
    }

    async fn delete_namespaces(&self) {
        let api = Api::<Namespace>::all(self.cluster.client());
        eventually("the namespaces are gone", LIMIT, async || {
            let mut left = Vec::new();
            for namespace in api.list(&ListParams::default()).await?.items {
                let name = namespace.name_any();
                if BUILT_IN.contains(&name.as_str()) {
                    continue;
                }
                // The API server refuses to delete a namespace that it is already deleting.
                if namespace.metadata.deletion_timestamp.is_none() {
                    api.delete(&name, &DeleteParams::background()).await?;
                }
                left.push(name);
            }
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await;
    }
}

/// Makes the API server look again at a definition that it is deleting. It can fail to delete the
/// objects of one that it is still setting up ("storage is (re)initializing"); its retry then meets
/// its own update of the status, and the next one comes after up to five minutes, or when the
/// definition changes, which this does every five seconds.
async fn remind(api: &Api<CustomResourceDefinition>, name: &str, waited: Duration) {
    let waited = (waited.as_secs() / 5).to_string();
    let change = json!({ "metadata": { "annotations": { "obol.org/waited": waited } } });
    // It may be gone at this moment.
    let _ = api
        .patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await;
}

/// A chain with a block every second.
pub fn block_every_second() -> AnvilConfig {
    AnvilConfig {
        block_time: Some(Duration::from_secs(1)),
        ..AnvilConfig::default()
    }
}

/// Holds the base fee, which would fall because blocks are nearly empty.
pub async fn hold_base_fee(chain: &Chain, fee: u64) -> std::convert::Infallible {
    loop {
        chain.set_base_fee(fee).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Removes finalizers, so that a flow that failed half-way does not hold up the next one.
async fn remove_finalizers<K>(objects: &Api<K>)
where
    K: Clone
        + Debug
        + DeserializeOwned
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let none = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    let all = eventually("objects with finalizers are listed", LIMIT, async || {
        match objects.list_metadata(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            // The kind does not exist. Without any kind of its group the answer has no reason.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    })
    .await;
    for object in all {
        if object.finalizers().is_empty() {
            continue;
        }
        let namespace = object.namespace().unwrap_or_default();
        let objects = Api::<K>::namespaced(objects.clone().into_client(), &namespace);
        let _ = objects
            .patch_metadata(&object.name_any(), &PatchParams::default(), &none)
            .await;
    }
}

/// The testbed of this flow: with several `LANES` the one for the flow's slot, otherwise the
/// checkout's own.
fn lane() -> Name {
    let lanes = std::env::var("LANES").unwrap_or_default();
    let slot = std::env::var("NEXTEST_TEST_GROUP_SLOT")
        .ok()
        .and_then(|slot| slot.parse().ok())
        .unwrap_or(0);
    match lanes.split_whitespace().nth(slot) {
        Some(lane) => lane.parse().expect("LANES holds names of testbeds"),
        None => Name::current().expect("TESTBED_NAME is a name"),
    }
}
