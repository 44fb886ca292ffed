//! What sellers and an administrator write: namespaces, offers, changes, and the registry.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use harness::bench::ProgressTrack;
use harness::chain::Chain;
use harness::objects::create;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, IdentityRegistry, ServiceOffer};

/// Namespaces over which offers are spread.
const NAMESPACES: usize = 20;
/// Requests in flight.
const CONCURRENT: usize = 16;
/// Name of the IdentityRegistry. It is not the default one: offers without a registration have
/// nothing to do with it.
const REGISTRY: &str = "scale";
/// Base URL of the registry.
pub const BASE_URL: &str = "http://agents.example";

/// Whether an offer is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has no registration.
    Plain,
    /// It asks for a registration.
    Registered,
}

/// Writes objects as an administrator.
pub struct Offers {
    client: Client,
    changes: AtomicUsize,
}

impl Offers {
    /// Creates the namespaces, each with the Service that its offers sell.
    ///
    /// # Errors
    /// If there are offers already, or the API server refuses.
    pub async fn prepare(client: Client) -> Result<Self> {
        let offers = Api::<ServiceOffer>::all(client.clone());
        let found = offers
            .list_metadata(&ListParams::default().limit(1))
            .await?;
        ensure!(
            found.items.is_empty(),
            "the testbed holds offers already: use a new one"
        );
        for number in 0..NAMESPACES {
            let name = namespace(number);
            let manifest = json!({ "metadata": { "name": name } });
            let object: Namespace = serde_json::from_value(manifest)?;
            create(&Api::all(client.clone()), &object).await?;
            let manifest = json!({
                "metadata": { "name": "backend" },
                "spec": { "ports": [{ "port": 80 }], "selector": { "app": "backend" } },
            });
            let object: Service = serde_json::from_value(manifest)?;
            create(&Api::namespaced(client.clone(), &name), &object).await?;
        }
        Ok(Self {
            client,
            changes: AtomicUsize::new(0),
        })
    }

    /// Creates the offers with these numbers.
    ///
    /// # Errors
    /// If the API server refuses one.
    pub async fn create(
        &self,
        kind: Kind,
        numbers: std::ops::Range<usize>,
        track: &ProgressTrack,
    ) -> Result<()> {
        let one = |number| async move {
            let offer: ServiceOffer = serde_json::from_value(manifest(kind, number))?;
            create(&self.api(number), &offer).await?;
            track.step("");
            Ok(())
        };
        concurrently(numbers, one).await
    }

    /// Removes the status of the offers with these numbers.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn clear_statuses(
        &self,
        numbers: std::ops::Range<usize>,
        track: &ProgressTrack,
    ) -> Result<()> {
        let parameters = PatchParams::default();
        let none = Patch::Merge(json!({ "status": null }));
        let (parameters, none) = (&parameters, &none);
        let one = |number| async move {
            let name = name(Kind::Plain, number);
            self.api(number)
                .patch_status(&name, parameters, none)
                .await?;
            track.step("");
            Ok(())
        };
        concurrently(numbers, one).await
    }

    /// Changes the price of an offer, as its seller would. No two changes are the same.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn change(&self, kind: Kind, number: usize) -> Result<()> {
        let serial = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        let price = format!("0.{serial:08}");
        let change = json!({ "spec": { "payment": { "price": { "perRequest": price } } } });
        let (parameters, change) = (PatchParams::default(), Patch::Merge(change));
        let api = self.api(number);
        api.patch(&name(kind, number), &parameters, &change).await?;
        Ok(())
    }

    /// Creates the registry for a contract, and the Secret with the key of its signer.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn create_registry(&self, chain: &Chain, secrets: &str) -> Result<()> {
        let key = json!({ "key": chain.private_key() });
        let manifest = json!({ "metadata": { "name": "signer" }, "stringData": key });
        let secret: Secret = serde_json::from_value(manifest)?;
        create(&Api::namespaced(self.client.clone(), secrets), &secret).await?;
        let registry: IdentityRegistry = serde_json::from_value(json!({
            "apiVersion": "obol.org/v1alpha1",
            "kind": "IdentityRegistry",
            "metadata": { "name": REGISTRY },
            "spec": {
                "chainId": chain.id,
                "address": chain.registry,
                "rpc": [{ "url": chain.url() }],
                "signers": [{
                    "address": chain.signer.address(),
                    "secretRef": { "name": "signer", "key": "key" },
                }],
                "baseUrl": BASE_URL,
                "allowedNamespaces": { "from": "All" },
                "limits": { "perRegistration": "0.05", "perDay": "1000" },
            },
        }))?;
        create(&Api::all(self.client.clone()), &registry).await?;
        Ok(())
    }

    /// Paths of the documents of all agents.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn agent_paths(&self) -> Result<Vec<String>> {
        let records = Api::<AgentRegistration>::all(self.client.clone());
        let list = records.list_metadata(&ListParams::default()).await?;
        let names = list.items.iter().map(ResourceExt::name_any);
        Ok(names
            .filter_map(|name| Some(format!("/agents/{}.json", name.strip_prefix("r-")?)))
            .collect())
    }

    fn api(&self, number: usize) -> Api<ServiceOffer> {
        Api::namespaced(self.client.clone(), &namespace(number))
    }
}

/// Handles every number, several at a time, until one fails.
async fn concurrently<F>(numbers: std::ops::Range<usize>, one: impl FnMut(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let all = stream::iter(numbers).map(one);
    all.buffer_unordered(CONCURRENT).try_collect().await
}

fn namespace(number: usize) -> String {
    format!("sellers-{}", number % NAMESPACES)
}

fn name(kind: Kind, number: usize) -> String {
    match kind {
        Kind::Plain => format!("offer-{number}"),
        Kind::Registered => format!("agent-{number}"),
    }
}

fn manifest(kind: Kind, number: usize) -> Value {
    let mut manifest = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "ServiceOffer",
        "metadata": { "name": name(kind, number), "namespace": namespace(number) },
        "spec": {
            "upstream": { "service": "backend", "namespace": namespace(number), "port": 80 },
            "payment": {
                "network": "eip155:31337",
                "payTo": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "price": { "perRequest": "0.002" },
                "asset": { "symbol": "USDC" },
            },
        },
    });
    if kind == Kind::Registered {
        manifest["spec"]["registration"] =
            json!({ "enabled": true, "registryRef": { "name": REGISTRY } });
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_offers() {
        for kind in [Kind::Plain, Kind::Registered] {
            let offer: ServiceOffer = serde_json::from_value(manifest(kind, 21)).unwrap();
            assert_eq!(offer.namespace().as_deref(), Some("sellers-1"));
            let is_registered = offer.spec.registration.is_some_and(|own| own.enabled);
            assert_eq!(is_registered, kind == Kind::Registered);
        }
    }
}
