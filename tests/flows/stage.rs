//! Where a flow begins: a cluster as if nothing had ever been installed.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::wait::eventually;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use testbed::{AnvilConfig, Cluster, Name};

use crate::chain::Chain;
use crate::objects::{Objects, registry};
use crate::release::{NAME, Release};

/// Namespaces that a cluster is born with.
const OWN: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// How long the cluster may take to be rid of something.
const LIMIT: Duration = Duration::from_secs(120);

/// A clean cluster, and the objects in it.
pub struct Stage {
    pub cluster: Cluster,
    pub objects: Objects,
}

impl Stage {
    /// Plays a flow on a clean cluster. No other flow is on it: see `.config/nextest.toml`.
    pub fn play(flow: impl AsyncFnOnce(Stage) + Send) {
        // Clients of the API server and of pods share one TLS library.
        let _ = rustls::crypto::ring::default_provider().install_default();
        testbed::test_on(&lane(), async |cluster| {
            let stage = Stage {
                objects: Objects {
                    client: cluster.client(),
                },
                cluster,
            };
            stage.clear().await;
            flow(stage).await;
        });
    }

    /// Installs the operator.
    pub async fn install(&self, values: &[&str]) -> Release {
        Release::install(&self.cluster, "operator", values).await
    }

    /// Installs the operator, starts a chain whose blocks come every second, and puts a registry, open to all, between them.
    pub async fn open(&self, values: &[&str]) -> (Chain, Release) {
        let config = AnvilConfig {
            block_time: Some(Duration::from_secs(1)),
            ..AnvilConfig::default()
        };
        self.open_on(config, values).await
    }

    /// The same on a chain that the flow shapes.
    pub async fn open_on(&self, config: AnvilConfig, values: &[&str]) -> (Chain, Release) {
        let (chain, release) = tokio::join!(
            Chain::start(self.cluster.node_ip(), config),
            self.install(values)
        );
        self.objects.signer_secret(&release, &chain).await;
        self.objects
            .create_registry(registry("local", &chain, "http://agents.example"))
            .await;
        (chain, release)
    }

    /// Removes everything that an earlier flow left.
    pub async fn clear(&self) {
        for namespace in self.releases().await {
            let output = Release::of(&self.cluster, &namespace).uninstall().await;
            assert!(
                output.status.success(),
                "helm uninstall: {}",
                crate::release::said(&output)
            );
        }
        free(&Api::<Pod>::all(self.cluster.client())).await;
        free(&self.objects.all_offers()).await;
        self.delete_definitions().await;
        self.delete_namespaces().await;
    }

    async fn releases(&self) -> Vec<String> {
        let list: Vec<serde_json::Value> = eventually("helm lists releases", LIMIT, async || {
            let arguments = ["list", "--all-namespaces", "--output", "json"];
            let output = self.cluster.helm(arguments).output().await?;
            serde_json::from_slice(&output.stdout).with_context(|| crate::release::said(&output))
        })
        .await;
        let ours = list.iter().filter(|release| release["name"] == NAME);
        ours.filter_map(|release| release["namespace"].as_str().map(str::to_owned))
            .collect()
    }

    async fn delete_definitions(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.cluster.client());
        let allow = json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
        let allow = Patch::Merge(allow);
        eventually("the definitions are gone", LIMIT, async || {
            let mut left = Vec::new();
            for definition in api.list(&ListParams::default()).await?.items {
                if definition.spec.group != "obol.org" {
                    continue;
                }
                let name = definition.name_any();
                if definition.metadata.deletion_timestamp.is_none() {
                    api.patch(&name, &PatchParams::default(), &allow).await?;
                    api.delete(&name, &DeleteParams::background()).await?;
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
            let all = api.list(&ListParams::default()).await;
            let all = all.map_err(|error| error.to_string())?.items;
            let others = all
                .iter()
                .filter(|namespace| !OWN.contains(&namespace.name_any().as_str()));
            let mut left = Vec::new();
            for namespace in others {
                // The API server refuses to delete what it is deleting.
                if namespace.metadata.deletion_timestamp.is_none() {
                    let _ = api
                        .delete(&namespace.name_any(), &DeleteParams::background())
                        .await;
                }
                left.push(namespace.name_any());
            }
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })
        .await;
    }
}

/// Takes the finalizers of objects away: a flow that failed half-way must not hold up the next one.
async fn free<K>(objects: &Api<K>)
where
    K: Clone
        + Debug
        + DeserializeOwned
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let all = eventually("objects with finalizers are listed", LIMIT, async || {
        match objects.list_metadata(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            // The kind is not there.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    })
    .await;
    for held in all.iter().filter(|object| !object.finalizers().is_empty()) {
        let objects = Api::<K>::namespaced(
            objects.clone().into_client(),
            &held.namespace().unwrap_or_default(),
        );
        let none = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
        let _ = objects
            .patch_metadata(&held.name_any(), &PatchParams::default(), &none)
            .await;
    }
}

/// The testbed of this flow: the checkout's own, or of several that are named the one for the flow's slot.
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
