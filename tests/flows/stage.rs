//! Where a flow begins: a cluster as if nothing had ever been installed.

use std::fmt::Debug;
use std::time::Duration;

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
use crate::patience::eventually;
use crate::release::{NAME, Release};

/// Namespaces that a cluster is born with.
const OWN: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

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
        let output = self
            .cluster
            .helm(["list", "--all-namespaces", "--output", "json"])
            .output()
            .await
            .expect("helm runs");
        let list: Vec<serde_json::Value> =
            serde_json::from_slice(&output.stdout).expect("a list of releases");
        let ours = list.iter().filter(|release| release["name"] == NAME);
        ours.filter_map(|release| release["namespace"].as_str().map(str::to_owned))
            .collect()
    }

    async fn delete_definitions(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.cluster.client());
        let definitions = api
            .list(&ListParams::default())
            .await
            .expect("definitions are listed");
        for definition in definitions
            .items
            .iter()
            .filter(|definition| definition.spec.group == "obol.org")
        {
            let allow =
                json!({ "metadata": { "annotations": { "obol.org/allow-deletion": "true" } } });
            let name = definition.name_any();
            let _ = api
                .patch(&name, &PatchParams::default(), &Patch::Merge(allow))
                .await;
            api.delete(&name, &DeleteParams::background())
                .await
                .expect("the definition is deleted");
        }
        eventually(
            "the definitions are gone",
            Duration::from_secs(30),
            async || {
                let left = api
                    .list(&ListParams::default())
                    .await
                    .map_err(|error| error.to_string())?;
                let left: Vec<String> = left
                    .items
                    .iter()
                    .filter(|one| one.spec.group == "obol.org")
                    .map(ResourceExt::name_any)
                    .collect();
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{left:?}"))
                }
            },
        )
        .await;
    }

    async fn delete_namespaces(&self) {
        let api = Api::<Namespace>::all(self.cluster.client());
        let others = async || {
            let list = api
                .list(&ListParams::default())
                .await
                .expect("namespaces are listed");
            let names = list.items.iter().map(ResourceExt::name_any);
            names
                .filter(|name| !OWN.contains(&name.as_str()))
                .collect::<Vec<_>>()
        };
        for name in others().await {
            let _ = api.delete(&name, &DeleteParams::background()).await;
        }
        eventually(
            "the namespaces are gone",
            Duration::from_secs(60),
            async || {
                let left = others().await;
                if left.is_empty() { Ok(()) } else { Err(left) }
            },
        )
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
    // The kind may not be there.
    let Ok(all) = objects.list_metadata(&ListParams::default()).await else {
        return;
    };
    for held in all
        .items
        .iter()
        .filter(|object| !object.finalizers().is_empty())
    {
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
