//! An EVM node of a flow's own, with an identity registry on it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use alloy::primitives::{Address, U256};
use alloy::signers::local::PrivateKeySigner;
use contracts::Registered;
use testbed::{Anvil, AnvilConfig};

/// A chain with a registry.
pub struct Chain {
    /// The node.
    pub anvil: Anvil,
    /// The registry.
    pub registry: Address,
    host: IpAddr,
}

impl Chain {
    /// A chain with a registry on it; pods reach it at `host`.
    pub async fn start(host: IpAddr, config: AnvilConfig) -> Self {
        let anvil = Anvil::start(config).await.expect("anvil starts");
        let registry = contracts::deploy(anvil.provider(), &anvil.keys()[0]).await.expect("the registry is deployed");
        Self { anvil, registry, host }
    }

    /// Where pods reach it.
    pub fn url(&self) -> String {
        self.anvil.url_at(self.host)
    }

    /// The account that registers; not the one that deployed the registry.
    pub fn signer(&self) -> &PrivateKeySigner {
        &self.anvil.keys()[1]
    }

    /// The signer's private key, as it stands in a Secret.
    pub fn key(&self) -> String {
        format!("{:#x}", self.signer().to_bytes())
    }

    /// Every registration of the signer, in the order of the chain.
    pub async fn registered(&self) -> Vec<Registered> {
        contracts::registered_events(self.anvil.provider(), self.registry, Some(self.signer().address()))
            .await
            .expect("the chain answers")
    }

    /// Agent ids by the key in their URI.
    ///
    /// # Panics
    /// If a key was registered twice.
    pub async fn agents(&self) -> BTreeMap<String, String> {
        let mut agents = BTreeMap::new();
        for event in self.registered().await {
            let key = key_of(&event.uri);
            let before = agents.insert(key.clone(), event.agent_id.to_string());
            assert_eq!(before, None, "agent {key} was registered twice");
        }
        agents
    }

    /// How often the signer has sent.
    pub async fn count(&self) -> u64 {
        let signer = self.signer().address();
        let count = self.anvil.rpc("eth_getTransactionCount", serde_json::json!([signer, "latest"])).await;
        let count: U256 = serde_json::from_value(count.expect("the chain answers")).expect("a number");
        count.to()
    }
}

/// The key in an agent's URI.
pub fn key_of(uri: &str) -> String {
    uri.rsplit('/').next().and_then(|file| file.strip_suffix(".json")).unwrap_or_default().to_owned()
}
