//! An EVM node with an identity registry on it: what a signer has registered there, and for how
//! much.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::providers::{Provider, RootProvider};
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{SolCall, SolEvent, SolValue};
use anyhow::{Context, Result, ensure};
use contracts::Registered;
use contracts::abi::IdentityRegistry;
use serde_json::{Value, json};
use testbed::{Anvil, AnvilConfig};

/// A chain with a registry on it.
#[derive(Debug)]
pub struct Chain {
    provider: RootProvider,
    url: String,
    /// Id of the chain.
    pub id: u64,
    /// Address of the registry.
    pub registry: Address,
    /// The account that registers agents. It did not deploy the registry.
    pub signer: PrivateKeySigner,
}

impl Chain {
    /// Deploys a registry to a chain that Pods reach at `url`.
    ///
    /// # Errors
    /// If the registry is not deployed.
    pub async fn deploy(
        provider: RootProvider,
        url: String,
        deployer: &PrivateKeySigner,
        signer: PrivateKeySigner,
    ) -> Result<Self> {
        let id = provider.get_chain_id().await?;
        let registry = contracts::deploy(&provider, deployer)
            .await
            .context("deploying the registry")?;
        Ok(Self {
            provider,
            url,
            id,
            registry,
            signer,
        })
    }

    /// Where Pods reach it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of the chain.
    pub fn provider(&self) -> &RootProvider {
        &self.provider
    }

    /// The signer's private key, as a Secret holds it.
    pub fn private_key(&self) -> String {
        format!("{:#x}", self.signer.to_bytes())
    }

    /// Calls any method, `anvil_*` included.
    ///
    /// # Errors
    /// If the node does not answer, or with an error.
    pub async fn rpc(&self, method: &'static str, params: Value) -> Result<Value> {
        let answer = self.provider.raw_request(method.into(), params).await;
        answer.context(method)
    }

    /// Every registration of the signer, in the order of the chain.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn registrations(&self) -> Result<Vec<Registered>> {
        contracts::registered_events(&self.provider, self.registry, Some(self.signer.address()))
            .await
    }

    /// Every registration on the chain, by any account.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn all_registrations(&self) -> Result<Vec<Registered>> {
        contracts::registered_events(&self.provider, self.registry, None).await
    }

    /// Agent ids by the key in their URI.
    ///
    /// # Errors
    /// If a key was registered twice.
    pub async fn agents(&self) -> Result<BTreeMap<String, String>> {
        let mut agents = BTreeMap::new();
        for event in self.registrations().await? {
            let key = key_in(&event.uri);
            let earlier = agents.insert(key.to_owned(), event.agent_id.to_string());
            ensure!(earlier.is_none(), "agent {key} was registered twice");
        }
        Ok(agents)
    }

    /// How many agents the signer owns.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn owned_agents(&self) -> Result<u64> {
        let contract = IdentityRegistry::new(self.registry, &self.provider);
        let owned = contract.balanceOf(self.signer.address()).call().await?;
        Ok(owned.saturating_to())
    }

    /// How many transactions of the signer are in blocks.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn mined_transactions(&self) -> Result<u64> {
        let signer = self.signer.address();
        Ok(self.provider.get_transaction_count(signer).await?)
    }

    /// How many transactions of the signer the node has, in blocks or in its mempool.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn sent_transactions(&self) -> Result<u64> {
        let count = self.provider.get_transaction_count(self.signer.address());
        Ok(count.pending().await?)
    }

    /// Gas that each of these registrations used, and its price in wei per gas.
    ///
    /// # Errors
    /// If a transaction is in no block.
    pub async fn fees(&self, registrations: &[Registered]) -> Result<Vec<(u64, u128)>> {
        let mut fees = Vec::new();
        for event in registrations {
            let receipt = contracts::included(&self.provider, event.transaction).await?;
            fees.push((receipt.gas_used, receipt.effective_gas_price));
        }
        Ok(fees)
    }

    /// What the signer's registrations have cost, in wei.
    ///
    /// # Errors
    /// If a transaction is in no block.
    pub async fn spent(&self) -> Result<U256> {
        let fees = self.fees(&self.registrations().await?).await?;
        let fees = fees.into_iter();
        Ok(fees
            .map(|(gas, price)| U256::from(gas) * U256::from(price))
            .sum())
    }

    /// Registers an agent for the signer, as another program would, and returns its id.
    ///
    /// # Errors
    /// If the node refuses the transaction.
    pub async fn register(&self, uri: &str) -> Result<String> {
        let contract = IdentityRegistry::new(self.registry, &self.provider);
        let call = contract
            .register_1(uri.to_owned())
            .from(self.signer.address());
        let transaction = json!([call.into_transaction_request()]);
        let hash = self.rpc("eth_sendTransaction", transaction).await?;
        let hash: B256 = serde_json::from_value(hash)?;
        contracts::included(&self.provider, hash).await?;
        let last = self.registrations().await?.pop();
        Ok(last.context("no Registered event")?.agent_id.to_string())
    }

    /// Registers an agent for any account of the node, and returns its id. The URI may be any bytes,
    /// or absent.
    ///
    /// # Errors
    /// If the node refuses the transaction.
    pub async fn register_for(&self, owner: Address, uri: Option<&[u8]>) -> Result<String> {
        let calldata = match uri {
            None => IdentityRegistry::register_0Call {}.abi_encode(),
            // Bytes and strings have the same encoding.
            Some(uri) => {
                let arguments = (Bytes::copy_from_slice(uri),).abi_encode_params();
                [&IdentityRegistry::register_1Call::SELECTOR[..], &arguments].concat()
            }
        };
        let transaction =
            json!([{ "from": owner, "to": self.registry, "input": Bytes::from(calldata) }]);
        let hash = self.rpc("eth_sendTransaction", transaction).await?;
        let hash: B256 = serde_json::from_value(hash)?;
        let receipt = contracts::included(&self.provider, hash).await?;
        let minted = IdentityRegistry::Transfer::SIGNATURE_HASH;
        let is_mint = |log: &&alloy::rpc::types::Log| log.topic0() == Some(&minted);
        let log = receipt.inner.logs().iter().find(is_mint);
        let id = log.and_then(|log| log.topics().get(3)).context("no mint")?;
        Ok(U256::from_be_bytes(id.0).to_string())
    }

    /// Transfers an agent from one account of the node to any account.
    ///
    /// # Errors
    /// If the node refuses the transaction.
    pub async fn give(&self, agent: &str, from: Address, to: Address) -> Result<()> {
        let transfer = IdentityRegistry::transferFromCall {
            from,
            to,
            tokenId: agent.parse()?,
        };
        let calldata = Bytes::from(transfer.abi_encode());
        let transaction = json!([{ "from": from, "to": self.registry, "input": calldata }]);
        let hash = self.rpc("eth_sendTransaction", transaction).await?;
        let hash: B256 = serde_json::from_value(hash)?;
        contracts::included(&self.provider, hash).await.map(drop)
    }

    /// Agents that an account registered, in the order of the chain.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn registrations_of(&self, owner: Address) -> Result<Vec<Registered>> {
        contracts::registered_events(&self.provider, self.registry, Some(owner)).await
    }

    /// How many transactions of an account are in blocks.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn mined_transactions_of(&self, account: Address) -> Result<u64> {
        Ok(self.provider.get_transaction_count(account).await?)
    }

    /// Sets the code at an address.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn set_code(&self, at: Address, code: &Bytes) -> Result<()> {
        let code = json!([at, code]);
        self.rpc("anvil_setCode", code).await.map(drop)
    }

    /// Sets the balance of an account, in wei.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn set_balance(&self, account: Address, balance: u128) -> Result<()> {
        let balance = json!([account, U256::from(balance)]);
        self.rpc("anvil_setBalance", balance).await.map(drop)
    }

    /// Sets the base fee of the next block, in wei per gas.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn set_base_fee(&self, fee: u64) -> Result<()> {
        let fee = json!([U256::from(fee)]);
        self.rpc("anvil_setNextBlockBaseFeePerGas", fee)
            .await
            .map(drop)
    }
}

/// A chain whose node is a child of this process. It ends when this is dropped.
#[derive(Debug)]
pub struct LocalChain {
    /// The node.
    pub anvil: Anvil,
    chain: Chain,
}

impl LocalChain {
    /// Starts a node and deploys a registry. Pods reach it at `host`.
    ///
    /// # Errors
    /// If the node does not start.
    pub async fn start(host: IpAddr, config: AnvilConfig) -> Result<Self> {
        let anvil = Anvil::start(config).await?;
        let [deployer, signer, ..] = anvil.keys() else {
            anyhow::bail!("anvil has fewer than two accounts");
        };
        let (provider, url) = (anvil.provider().clone(), anvil.url_at(host));
        let chain = Chain::deploy(provider, url, deployer, signer.clone()).await?;
        Ok(Self { anvil, chain })
    }
}

impl Deref for LocalChain {
    type Target = Chain;

    fn deref(&self) -> &Chain {
        &self.chain
    }
}

/// The key in an agent's URI; empty if there is none.
pub fn key_in(uri: &str) -> &str {
    let file = uri.rsplit('/').next().unwrap_or_default();
    file.strip_suffix(".json").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_the_file_name_in_the_uri() {
        let uri = "https://agents.example.org/agents/ruketrjggivda2pe.json";
        assert_eq!(key_in(uri), "ruketrjggivda2pe");
        assert_eq!(key_in("https://agents.example.org/"), "");
    }
}
