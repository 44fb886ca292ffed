//! Offers, registries, and what they need around them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use harness::wait::{eventually, is_transient};
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, IdentityRegistry, Key, ServiceOffer, SignerLedger};

use crate::chain::Chain;
use crate::release::Release;

/// How long the API server may take to do what it is asked.
const SOON: Duration = Duration::from_secs(30);

/// A manifest of an offer: one HTTP service for sale, registered.
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

/// A manifest of the registry of a chain, the default one, open to all namespaces, with generous limits.
pub fn registry(name: &str, chain: &Chain, base_url: &str) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "IdentityRegistry",
        "metadata": { "name": name, "annotations": { "obol.org/is-default-registry": "true" } },
        "spec": {
            "chainId": chain.anvil.chain_id(),
            "address": chain.registry,
            "rpc": [{ "url": chain.url() }],
            "signers": [{ "address": chain.signer().address(), "secretRef": { "name": "signer", "key": "key" } }],
            "baseUrl": base_url,
            "allowedNamespaces": { "from": "All" },
            "limits": { "perRegistration": "0.05", "perDay": "100" },
        },
    })
}

/// Objects of one cluster.
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
        create(&self.offers(&namespace), &offer).await
    }

    /// Makes that many offers, spread over namespaces that exist.
    pub async fn create_offers(&self, namespaces: &[&str], count: usize) {
        let manifests = namespaces
            .iter()
            .cycle()
            .take(count)
            .enumerate()
            .map(|(at, namespace)| offer(namespace, &format!("offer-{at}")));
        futures::future::join_all(manifests.map(|manifest| self.create_offer(manifest))).await;
    }

    /// Key of an offer's agent, as its status names it.
    pub async fn offer_key(&self, namespace: &str, name: &str) -> Key {
        let what = format!("offer {namespace}/{name} has a key");
        eventually(&what, SOON, async || {
            let offer = self.offers(namespace).get(name).await;
            let status = offer.map_err(|error| error.to_string())?.status;
            let key = status
                .as_ref()
                .and_then(|status| status.registration.as_ref()?.key);
            key.ok_or(format!("{status:?}"))
        })
        .await
    }

    /// Changes fields of an offer's spec or metadata; the rest stays.
    pub async fn change_offer(&self, namespace: &str, name: &str, change: Value) {
        patch(&self.offers(namespace), name, change).await;
    }

    /// Deletes an offer, and waits until it is gone.
    pub async fn delete_offer(&self, namespace: &str, name: &str) {
        delete(&self.offers(namespace), name).await;
        eventually(
            &format!("offer {namespace}/{name} is gone"),
            SOON,
            async || match self.offers(namespace).get_opt(name).await {
                Ok(None) => Ok(()),
                found => Err(format!("{found:?}")),
            },
        )
        .await;
    }

    /// Changes fields of a registry; the rest stays.
    pub async fn change_registry(&self, name: &str, change: Value) {
        patch(&self.registries(), name, change).await;
    }

    pub async fn create_registry(&self, manifest: Value) -> IdentityRegistry {
        let registry: IdentityRegistry = serde_json::from_value(manifest).expect("a manifest");
        create(&self.registries(), &registry).await
    }

    /// A namespace with a Service that offers can sell.
    pub async fn shop(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))
                .expect("a manifest");
        create(&Api::all(self.client.clone()), &namespace).await;
        self.backend(name).await;
    }

    /// Gives a namespace a label.
    pub async fn label(&self, namespace: &str, key: &str, value: &str) {
        let change = json!({ "metadata": { "labels": { key: value } } });
        patch(
            &Api::<Namespace>::all(self.client.clone()),
            namespace,
            change,
        )
        .await;
    }

    pub async fn backend(&self, namespace: &str) {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "backend" },
            "spec": { "ports": [{ "port": 80 }], "selector": { "app": "backend" } },
        }))
        .expect("a manifest");
        let services = Api::<Service>::namespaced(self.client.clone(), namespace);
        create(&services, &service).await;
    }

    /// The Secret that the signer's key is read from.
    pub async fn signer_secret(&self, release: &Release, chain: &Chain) {
        self.secret(release.namespace(), "signer", "key", &chain.key())
            .await;
    }

    pub async fn secret(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let manifest = json!({ "metadata": { "name": name }, "stringData": { key: value } });
        let secret: Secret = serde_json::from_value(manifest).expect("a manifest");
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        delete(&secrets, name).await;
        create(&secrets, &secret).await;
    }

    /// Waits until an offer is registered, and answers with its agent id.
    pub async fn registered(&self, namespace: &str, name: &str, limit: Duration) -> String {
        eventually(
            &format!("offer {namespace}/{name} is registered"),
            limit,
            async || {
                let offer = self
                    .offers(namespace)
                    .get(name)
                    .await
                    .map_err(|error| error.to_string())?;
                let agent = offer
                    .status
                    .as_ref()
                    .and_then(|status| status.agent_id.clone());
                match (agent, condition(&offer, "Registered")) {
                    (Some(agent), (status, reason, _))
                        if status == "True" && reason == "Registered" =>
                    {
                        Ok(agent)
                    }
                    (_, seen) => Err(format!("{seen:?}")),
                }
            },
        )
        .await
    }

    /// Waits until a condition of an offer has a reason, and answers with its status and message.
    pub async fn offer_says(
        &self,
        namespace: &str,
        name: &str,
        type_: &str,
        reason: &str,
        limit: Duration,
    ) -> (String, String) {
        eventually(
            &format!("{type_} of offer {namespace}/{name} says {reason}"),
            limit,
            async || {
                let offer = self
                    .offers(namespace)
                    .get(name)
                    .await
                    .map_err(|error| error.to_string())?;
                match condition(&offer, type_) {
                    (status, found, message) if found == reason => Ok((status, message)),
                    seen => Err(format!("{seen:?}")),
                }
            },
        )
        .await
    }

    /// Waits until the operator has taken in a registry's spec as it stands.
    pub async fn registry_observed(&self, name: &str, limit: Duration) {
        eventually(
            &format!("registry {name} has been looked at"),
            limit,
            async || {
                let registry = self
                    .registries()
                    .get(name)
                    .await
                    .map_err(|error| error.to_string())?;
                let observed = registry
                    .status
                    .and_then(|status| status.observed_generation);
                if observed == registry.metadata.generation {
                    Ok(())
                } else {
                    Err(format!("{observed:?}"))
                }
            },
        )
        .await;
    }

    /// Waits until a condition of a registry has a reason, and answers with its status and message.
    pub async fn registry_says(
        &self,
        name: &str,
        type_: &str,
        reason: &str,
        limit: Duration,
    ) -> (String, String) {
        eventually(
            &format!("{type_} of registry {name} says {reason}"),
            limit,
            async || {
                let registry = self
                    .registries()
                    .get(name)
                    .await
                    .map_err(|error| error.to_string())?;
                let conditions = registry
                    .status
                    .map(|status| status.conditions)
                    .unwrap_or_default();
                match read(&conditions, type_) {
                    (status, found, message) if found == reason => Ok((status, message)),
                    seen => Err(format!("{seen:?}")),
                }
            },
        )
        .await
    }
}

/// Creates an object, once the API server serves its kind and is not too busy. A refusal is final.
pub async fn create<K>(api: &Api<K>, object: &K) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let mut tried = false;
    eventually(&format!("{name} is created"), SOON, async || {
        let created = match api.create(&PostParams::default(), object).await {
            // The attempt before was carried out, and its answer was lost.
            Err(kube::Error::Api(status)) if status.is_already_exists() && tried => {
                api.get(&name).await
            }
            created => created,
        };
        tried = true;
        final_answer(&name, created)
    })
    .await
}

/// Changes fields of an object; the rest stays.
pub async fn patch<K>(api: &Api<K>, name: &str, change: Value)
where
    K: Clone + Debug + DeserializeOwned,
{
    let change = Patch::Merge(change);
    eventually(&format!("{name} is changed"), SOON, async || {
        let patched = api.patch(name, &PatchParams::default(), &change).await;
        final_answer(name, patched).map(drop)
    })
    .await;
}

/// Deletes an object. One that is gone already needs nothing.
pub async fn delete<K>(api: &Api<K>, name: &str)
where
    K: Clone + Debug + DeserializeOwned,
{
    eventually(&format!("{name} is deleted"), SOON, async || {
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => final_answer(name, deleted).map(drop),
        }
    })
    .await;
}

/// An answer, unless the API server may answer otherwise a moment later.
///
/// # Panics
/// If the API server has refused for good.
fn final_answer<T>(name: &str, answer: kube::Result<T>) -> kube::Result<T> {
    if let Err(error) = &answer {
        assert!(is_transient(error), "{name}: {error}");
    }
    answer
}

/// Status, reason and message of a condition of an offer.
pub fn condition(offer: &ServiceOffer, type_: &str) -> (String, String, String) {
    let conditions = offer
        .status
        .as_ref()
        .map(|status| status.conditions.clone())
        .unwrap_or_default();
    read(&conditions, type_)
}

fn read(conditions: &[serviceoffer::api::Condition], type_: &str) -> (String, String, String) {
    let found = serviceoffer::api::condition::find(conditions, type_);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    found.map_or_else(Default::default, |found| {
        (
            found.status.to_string(),
            text(&found.reason),
            text(&found.message),
        )
    })
}
