//! Offers, registries, and what they need around them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use harness::chain::Chain;
use harness::objects::{
    agent_of, condition_of, create, delete, delete_if_exists, key_of, patch, read_condition,
};
use harness::release::Release;
use harness::wait::eventually;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, IdentityRegistry, Key, ServiceOffer, SignerLedger};

/// How long the API server may take to do what it is asked.
const SOON: Duration = Duration::from_secs(30);
/// How long an offer may outlive its deletion.
const GONE: Duration = Duration::from_secs(10);

/// A JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, change) in changes {
        match change {
            Value::Null => drop(
                target
                    .as_object_mut()
                    .and_then(|fields| fields.remove(name)),
            ),
            _ => merge(&mut target[name], change),
        }
    }
}

/// A manifest of an offer: one HTTP service for sale, to be registered.
pub fn offer(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "ServiceOffer",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "upstream": { "service": "backend", "namespace": namespace, "port": 80 },
            "payment": {
                "network": "eip155:31337",
                "payTo": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "price": { "perRequest": "0.002" },
                "asset": { "symbol": "USDC" },
            },
            "registration": { "enabled": true },
        },
    })
}

/// A manifest of the default IdentityRegistry, for one chain, open to all namespaces, with generous
/// limits.
pub fn registry(name: &str, chain: &Chain, base_url: &str) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "IdentityRegistry",
        "metadata": { "name": name, "annotations": { "obol.org/is-default-registry": "true" } },
        "spec": {
            "chainId": chain.id,
            "address": chain.registry,
            "rpc": [{ "url": chain.url() }],
            "signers": [{ "address": chain.signer.address(), "secretRef": { "name": "signer", "key": "key" } }],
            "baseUrl": base_url,
            "allowedNamespaces": { "from": "All" },
            "limits": { "perRegistration": "0.05", "perDay": "100" },
        },
    })
}

/// The objects of one cluster.
#[derive(Clone)]
pub struct Objects {
    pub client: Client,
}

impl Objects {
    pub fn offers(&self, namespace: &str) -> Api<ServiceOffer> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn all_offers(&self) -> Api<ServiceOffer> {
        Api::all(self.client.clone())
    }

    pub fn registries(&self) -> Api<IdentityRegistry> {
        Api::all(self.client.clone())
    }

    pub fn records(&self) -> Api<AgentRegistration> {
        Api::all(self.client.clone())
    }

    pub fn ledgers(&self) -> Api<SignerLedger> {
        Api::all(self.client.clone())
    }

    pub async fn create_offer(&self, manifest: Value) -> ServiceOffer {
        let offer: ServiceOffer = serde_json::from_value(manifest).expect("a manifest");
        let namespace = offer.namespace().expect("a namespace");
        create(&self.offers(&namespace), &offer).await.unwrap()
    }

    /// Creates that many offers, spread over namespaces that exist.
    pub async fn create_offers(&self, namespaces: &[&str], count: usize) {
        let manifests = namespaces
            .iter()
            .cycle()
            .take(count)
            .enumerate()
            .map(|(index, namespace)| offer(namespace, &format!("offer-{index}")));
        futures::future::join_all(manifests.map(|manifest| self.create_offer(manifest))).await;
    }

    /// Waits until the status of an offer names the key of its agent.
    pub async fn wait_key(&self, namespace: &str, name: &str) -> Key {
        let what = format!("offer {namespace}/{name} has a key");
        eventually(&what, SOON, async || {
            let offer = self.offers(namespace).get(name).await?;
            key_of(&offer).ok_or(anyhow::anyhow!("status {:?}", offer.status))
        })
        .await
    }

    /// Changes fields of an offer's spec or metadata; the rest stays.
    pub async fn patch_offer(&self, namespace: &str, name: &str, change: Value) {
        patch(&self.offers(namespace), name, change).await.unwrap();
    }

    /// Deletes an offer and waits until it is gone.
    pub async fn delete_offer(&self, namespace: &str, name: &str) {
        delete(&self.offers(namespace), name).await.unwrap();
        self.wait_offer_gone(namespace, name).await;
    }

    pub async fn wait_offer_gone(&self, namespace: &str, name: &str) {
        let what = format!("offer {namespace}/{name} is gone");
        eventually(&what, GONE, async || {
            let offer = self.offers(namespace).get_opt(name).await?;
            ensure!(offer.is_none(), "{offer:?}");
            Ok(())
        })
        .await;
    }

    /// Changes fields of a registry; the rest stays.
    pub async fn patch_registry(&self, name: &str, change: Value) {
        patch(&self.registries(), name, change).await.unwrap();
    }

    pub async fn create_registry(&self, manifest: Value) -> IdentityRegistry {
        let registry: IdentityRegistry = serde_json::from_value(manifest).expect("a manifest");
        create(&self.registries(), &registry).await.unwrap()
    }

    /// Creates a namespace with a Service that offers can sell.
    pub async fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let manifest = json!({ "metadata": { "name": name, "labels": labels } });
        let namespace: Namespace = serde_json::from_value(manifest).expect("a manifest");
        let namespaces = Api::all(self.client.clone());
        create(&namespaces, &namespace).await.unwrap();
        let manifest = json!({
            "metadata": { "name": "backend" },
            "spec": { "ports": [{ "port": 80 }], "selector": { "app": "backend" } },
        });
        let service: Service = serde_json::from_value(manifest).expect("a manifest");
        let services = Api::namespaced(self.client.clone(), name);
        create(&services, &service).await.unwrap();
    }

    /// Sets a label of a namespace.
    pub async fn label_namespace(&self, namespace: &str, key: &str, value: &str) {
        let change = json!({ "metadata": { "labels": { key: value } } });
        let namespaces = Api::<Namespace>::all(self.client.clone());
        patch(&namespaces, namespace, change).await.unwrap();
    }

    /// Creates the Secret that holds the signer's key.
    pub async fn create_signer_secret(&self, release: &Release, chain: &Chain) {
        let key = chain.private_key();
        self.create_secret(release.namespace(), "signer", "key", &key)
            .await;
    }

    /// Creates a Secret, in place of one that has the name already.
    pub async fn create_secret(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let manifest = json!({ "metadata": { "name": name }, "stringData": { key: value } });
        let secret: Secret = serde_json::from_value(manifest).expect("a manifest");
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        delete_if_exists(&secrets, name).await.unwrap();
        create(&secrets, &secret).await.unwrap();
    }

    /// Waits until an offer is registered, and returns its agent id.
    pub async fn wait_registered(&self, namespace: &str, name: &str, limit: Duration) -> String {
        let what = format!("offer {namespace}/{name} is registered");
        eventually(&what, limit, async || {
            let offer = self.offers(namespace).get(name).await?;
            let condition = condition_of(&offer, "Registered");
            agent_of(&offer).ok_or(anyhow::anyhow!("{condition:?}"))
        })
        .await
    }

    /// Waits until a condition of an offer has that reason, and returns its status and message.
    pub async fn wait_offer_reason(
        &self,
        namespace: &str,
        name: &str,
        type_: &str,
        reason: &str,
        limit: Duration,
    ) -> (String, String) {
        let what = format!("{type_} of offer {namespace}/{name} has reason {reason}");
        eventually(&what, limit, async || {
            let offer = self.offers(namespace).get(name).await?;
            let (status, found, message) = condition_of(&offer, type_);
            ensure!(found == reason, "{status} {found}: {message}");
            Ok((status, message))
        })
        .await
    }

    /// Waits until the status of a registry is that of its current spec.
    pub async fn wait_registry_observed(&self, name: &str, limit: Duration) {
        let what = format!("the spec of registry {name} is observed");
        eventually(&what, limit, async || {
            let registry = self.registries().get(name).await?;
            let status = registry.status.unwrap_or_default();
            let observed = status.observed_generation;
            ensure!(observed == registry.metadata.generation, "{observed:?}");
            Ok(())
        })
        .await;
    }

    /// Waits until a condition of a registry has that reason, and returns its status and message.
    pub async fn wait_registry_reason(
        &self,
        name: &str,
        type_: &str,
        reason: &str,
        limit: Duration,
    ) -> (String, String) {
        let what = format!("{type_} of registry {name} has reason {reason}");
        eventually(&what, limit, async || {
            let registry = self.registries().get(name).await?;
            let status = registry.status.unwrap_or_default();
            let (status, found, message) = read_condition(&status.conditions, type_);
            ensure!(found == reason, "{status} {found}: {message}");
            Ok((status, message))
        })
        .await
    }
}
