//! The chain of the demo: anvil in a Pod, with an identity registry, and what it holds at the end.

use std::net::IpAddr;
use std::time::Duration;

use alloy::primitives::{Address, B256, utils::parse_ether};
use alloy::providers::{Provider, ProviderBuilder, RootProvider};
use alloy::signers::local::PrivateKeySigner;
use anyhow::{Context, Result};
use contracts::Registered;
use contracts::abi::IdentityRegistry;
use harness::wait::until;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::{AnvilConfig, Cluster, image, tools};

use crate::summary::{Census, Cost, Minted};

/// Namespace of the chain.
pub const NAMESPACE: &str = "chain";
/// The chain that the README's IdentityRegistry names, so that it can be applied with its own chain id.
pub const CHAIN_ID: u64 = 84_532;
const IMAGE: &str = "localhost/anvil:demo";
const PORT: u16 = 8545;
const BLOCK_TIME: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// A chain with a registry on it.
pub struct Chain {
    provider: RootProvider,
    /// The registry.
    pub registry: Address,
    /// The account that deployed it.
    pub deployer: PrivateKeySigner,
    /// The account that registers.
    pub signer: PrivateKeySigner,
}

impl Chain {
    /// Starts a chain and deploys a registry. Both accounts are as fresh as a person's wallets would be.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let anvil = tools::anvil()?;
        let archive = image::from_programs(&[&anvil], &["/bin/anvil"], IMAGE)?;
        cluster
            .load(&archive)
            .await
            .context("loading the image of anvil")?;
        let address = create(cluster).await?;
        let client = alloy::transports::http::reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()?;
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_reqwest(client, format!("http://{address}:{PORT}").parse()?);
        until("anvil answers", PATIENCE, async || {
            provider.get_block_number().await
        })
        .await?;
        let (deployer, signer) = (PrivateKeySigner::random(), PrivateKeySigner::random());
        for account in [&deployer, &signer] {
            let grant = json!([account.address(), parse_ether("1")?]);
            provider
                .raw_request::<_, Value>("anvil_setBalance".into(), grant)
                .await
                .context("anvil_setBalance")?;
        }
        let registry = contracts::deploy(&provider, &deployer)
            .await
            .context("deploying the registry")?;
        Ok(Self {
            provider,
            registry,
            deployer,
            signer,
        })
    }

    /// Where Pods reach it.
    pub fn url(&self) -> String {
        format!("http://anvil.{NAMESPACE}.svc:{PORT}")
    }

    /// The signer's key, as it stands in a Secret.
    pub fn key(&self) -> String {
        format!("{:#x}", self.signer.to_bytes())
    }

    /// What the chain holds.
    pub async fn census(&self) -> Result<Census> {
        let owner = self.signer.address();
        let contract = IdentityRegistry::new(self.registry, &self.provider);
        let minted = self.registrations().await?;
        Ok(Census {
            minted: minted
                .iter()
                .map(|event| Minted {
                    key: key_of(&event.uri).to_owned(),
                    agent: event.agent_id.to_string(),
                })
                .collect(),
            owned: contract.balanceOf(owner).call().await?.saturating_to(),
            sent: self.provider.get_transaction_count(owner).await?,
        })
    }

    /// Every registration on the chain, whoever sent it.
    pub async fn registrations(&self) -> Result<Vec<Registered>> {
        contracts::registered_events(&self.provider, self.registry, None).await
    }

    /// What the registrations cost.
    pub async fn cost(&self) -> Result<Cost> {
        let mut transactions = Vec::new();
        for event in self.registrations().await? {
            transactions.push(self.paid(event.transaction).await?);
        }
        Ok(Cost::of(&transactions))
    }

    async fn paid(&self, transaction: B256) -> Result<(u64, u128)> {
        let receipt = self.provider.get_transaction_receipt(transaction).await?;
        let receipt =
            receipt.with_context(|| format!("transaction {transaction} has no receipt"))?;
        Ok((receipt.gas_used, receipt.effective_gas_price))
    }
}

/// The key in an agent's URI.
pub fn key_of(uri: &str) -> &str {
    uri.rsplit('/')
        .next()
        .and_then(|file| file.strip_suffix(".json"))
        .unwrap_or_default()
}

/// Creates the Pod and its Service, and returns the Service's address.
async fn create(cluster: &Cluster) -> Result<IpAddr> {
    let client = cluster.client();
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    // A Pod needs the service account that each new namespace gets.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    until(
        "the namespace has its service account",
        PATIENCE,
        async || accounts.get("default").await,
    )
    .await?;
    let pod: Pod = serde_json::from_value(pod())?;
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&PostParams::default(), &pod)
        .await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "anvil" },
        "spec": { "selector": { "app": "anvil" }, "ports": [{ "port": PORT }] },
    }))?;
    let service = Api::namespaced(client, NAMESPACE)
        .create(&PostParams::default(), &service)
        .await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the Service of anvil has no address")?;
    Ok(address.parse()?)
}

fn pod() -> Value {
    let config = AnvilConfig {
        block_time: Some(BLOCK_TIME),
        chain_id: CHAIN_ID,
        port: PORT,
        ..AnvilConfig::default()
    };
    json!({
        "metadata": { "name": "anvil", "labels": { "app": "anvil" } },
        "spec": {
            // There is nothing to save.
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "anvil",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "args": config.arguments(),
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_name_of_the_file_in_the_uri() {
        assert_eq!(
            key_of("https://agents.example.org/agents/ruketrjggivda2pe.json"),
            "ruketrjggivda2pe"
        );
        assert_eq!(key_of("https://agents.example.org/"), "");
    }
}
