//! An EVM node of a flow's own, with an identity registry on it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use alloy::signers::local::PrivateKeySigner;
use contracts::Registered;
use contracts::abi::IdentityRegistry;
use serde_json::json;
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
        let registry = contracts::deploy(anvil.provider(), &anvil.keys()[0])
            .await
            .expect("the registry is deployed");
        Self {
            anvil,
            registry,
            host,
        }
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

    /// Registers an agent for the signer, as another program would. Answers with its id.
    pub async fn register(&self, uri: &str) -> String {
        let contract = IdentityRegistry::new(self.registry, self.anvil.provider());
        let call = contract
            .register_1(uri.to_owned())
            .from(self.signer().address());
        let sent = self
            .anvil
            .rpc(
                "eth_sendTransaction",
                json!([call.into_transaction_request()]),
            )
            .await;
        let hash: B256 =
            serde_json::from_value(sent.expect("the transaction is taken")).expect("a hash");
        contracts::included(self.anvil.provider(), hash)
            .await
            .expect("the agent is registered");
        self.registered()
            .await
            .last()
            .expect("an event")
            .agent_id
            .to_string()
    }

    /// Every registration of the signer, in the order of the chain.
    pub async fn registered(&self) -> Vec<Registered> {
        contracts::registered_events(
            self.anvil.provider(),
            self.registry,
            Some(self.signer().address()),
        )
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

    /// How many transactions of the signer are in blocks.
    pub async fn count(&self) -> u64 {
        self.transactions("latest").await
    }

    /// How many transactions of the signer the node has, in blocks or not.
    pub async fn sent(&self) -> u64 {
        self.transactions("pending").await
    }

    async fn transactions(&self, block: &str) -> u64 {
        let count = self
            .anvil
            .rpc(
                "eth_getTransactionCount",
                json!([self.signer().address(), block]),
            )
            .await;
        let count: U256 =
            serde_json::from_value(count.expect("the chain answers")).expect("a number");
        count.to()
    }

    /// What the signer's registrations have cost, in wei.
    pub async fn spent(&self) -> U256 {
        let mut spent = U256::ZERO;
        for event in self.registered().await {
            let receipt = contracts::included(self.anvil.provider(), event.transaction)
                .await
                .expect("a receipt");
            spent += U256::from(receipt.gas_used) * U256::from(receipt.effective_gas_price);
        }
        spent
    }

    /// Lets the next block have that base fee, in wei per gas.
    pub async fn base_fee(&self, fee: u64) {
        self.anvil
            .rpc("anvil_setNextBlockBaseFeePerGas", json!([U256::from(fee)]))
            .await
            .expect("the fee is set");
    }

    /// Keeps the base fee where it is put; blocks that are nearly empty would let it fall.
    pub async fn hold_base_fee(&self, fee: u64) -> std::convert::Infallible {
        loop {
            self.base_fee(fee).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The key in an agent's URI.
pub fn key_of(uri: &str) -> String {
    uri.rsplit('/')
        .next()
        .and_then(|file| file.strip_suffix(".json"))
        .unwrap_or_default()
        .to_owned()
}
