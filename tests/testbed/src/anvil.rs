//! A chain of a test's own: one anvil process.
//!
//! It owns the process and what a test does to a chain from outside: start, pause, mine, reorganise, end. It knows
//! nothing of contracts (see the crate `contracts`) and nothing of the cluster: anvil runs in the network namespace of
//! the thread that starts it, so that one started inside [`crate::test`] can be reached by pods.
//! Where the binary comes from is decided in [`crate::tools`]; how the process lives and dies, in `process`.

mod process;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, U256},
    providers::{Provider, ProviderBuilder, RootProvider},
    signers::local::PrivateKeySigner,
    transports::http::reqwest,
};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::process::{Banner, Process};
use crate::tools;

/// How long one call of [`Anvil::rpc`] may take. A paused chain answers none.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How many blocks back the chain's state can be asked for. anvil's own way of keeping more is to write files into the
/// home directory, where they stay when it is killed.
const STATES_IN_MEMORY: &str = "4096";

/// Where anvil may write such files: nowhere. It makes a folder for them at each reorganisation, whether or not it has
/// any, and goes on without one.
const STATES_ON_DISK: &str = "/dev/null";

/// What a test decides about its chain. Start from the default and change what matters:
/// `AnvilConfig { block_time: Some(Duration::from_secs(1)), ..AnvilConfig::default() }`.
#[derive(Clone, Debug)]
pub struct AnvilConfig {
    /// The time between blocks; none: each transaction is put into a block of its own, at once.
    pub block_time: Option<Duration>,
    /// Finality: `safe` is this many blocks behind `latest`, and `finalized` twice as many.
    pub slots_in_an_epoch: u64,
    /// The chain's id.
    pub chain_id: u64,
    /// A file that the chain is read from, if it exists, and written to by [`Anvil::stop`].
    pub state: Option<PathBuf>,
    /// The address to listen on. By default all, so that pods can reach it.
    pub host: IpAddr,
    /// The port to listen on; 0: a free one.
    pub port: u16,
    /// The gas that fits into a block; none: anvil's own limit, 30 million.
    pub block_gas_limit: Option<u64>,
    /// How many accounts start out with money.
    pub accounts: u32,
}

impl Default for AnvilConfig {
    fn default() -> Self {
        Self {
            block_time: None,
            slots_in_an_epoch: 1,
            chain_id: 31337,
            state: None,
            host: Ipv4Addr::UNSPECIFIED.into(),
            port: 0,
            block_gas_limit: None,
            accounts: 10,
        }
    }
}

impl AnvilConfig {
    /// anvil's arguments for a chain like this.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            ("--host", self.host.to_string()),
            ("--port", self.port.to_string()),
            ("--chain-id", self.chain_id.to_string()),
            ("--slots-in-an-epoch", self.slots_in_an_epoch.to_string()),
            ("--accounts", self.accounts.to_string()),
            ("--prune-history", STATES_IN_MEMORY.to_owned()),
            ("--cache-path", STATES_ON_DISK.to_owned()),
            ("--color", "never".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if let Some(time) = self.block_time {
            arguments.extend(["--block-time".to_owned(), time.as_secs_f64().to_string()]);
        }
        if let Some(limit) = self.block_gas_limit {
            arguments.extend(["--gas-limit".to_owned(), limit.to_string()]);
        }
        if let Some(file) = &self.state {
            // With history, because an operator asks for the state at the finalized block, which is never the last one.
            arguments.extend(["--preserve-historical-states", "--state"].map(str::to_owned));
            arguments.push(file.display().to_string());
        }
        arguments
    }
}

/// A running chain. Dropping it kills it; it also dies with the process that started it, however that ends.
#[derive(Debug)]
pub struct Anvil {
    process: Process,
    address: SocketAddr,
    chain_id: u64,
    keys: Vec<PrivateKeySigner>,
    provider: RootProvider,
}

impl Anvil {
    /// Starts a chain and returns once it listens.
    pub async fn start(config: AnvilConfig) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(tools::anvil()?)
            .args(config.arguments());
        let (process, Banner { port, keys }) = Process::start(command)
            .await
            .context("anvil does not start")?;

        // Other members of the workspace build the HTTP client with TLS, which then wants a default even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = if config.host.is_unspecified() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            config.host
        };
        let address = SocketAddr::new(host, port);
        let client = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .no_proxy()
            .build()?;
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_reqwest(client, format!("http://{address}").parse()?);
        Ok(Self {
            process,
            address,
            chain_id: config.chain_id,
            keys,
            provider,
        })
    }

    /// Ends the chain in good order: if it has a state file, that is written.
    pub async fn stop(mut self) -> Result<()> {
        // In this order, so that a paused chain finds the signal when it wakes.
        self.process.signal(Signal::SIGTERM)?;
        self.resume()?;
        self.process.wait().await
    }

    /// Where this process reaches the chain.
    pub fn url(&self) -> String {
        self.url_at(self.address.ip())
    }

    /// Where the chain is reached under another address of this machine, such as the node's.
    pub fn url_at(&self, host: IpAddr) -> String {
        format!("http://{}", SocketAddr::new(host, self.address.port()))
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The chain's id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The keys of the accounts that start out with money; anvil also signs for these itself (`eth_sendTransaction`).
    pub fn keys(&self) -> &[PrivateKeySigner] {
        &self.keys
    }

    /// A client of the chain, without anything that chooses nonces or fees.
    pub fn provider(&self) -> &RootProvider {
        &self.provider
    }

    /// Freezes the chain as it is: connections are accepted and nothing is answered any more.
    pub fn pause(&self) -> Result<()> {
        self.process.stop()
    }

    /// Ends [`Anvil::pause`].
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Calls any method, `anvil_*` and `evm_*` included.
    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value> {
        self.provider
            .raw_request(method.to_owned().into(), params)
            .await
            .with_context(|| method.to_owned())
    }

    /// Adds `blocks` blocks at once.
    pub async fn mine(&self, blocks: u64) -> Result<()> {
        self.rpc("anvil_mine", json!([U256::from(blocks)]))
            .await
            .map(drop)
    }

    /// Gives `account` exactly this much.
    pub async fn set_balance(&self, account: Address, wei: U256) -> Result<()> {
        self.rpc("anvil_setBalance", json!([account, wei]))
            .await
            .map(drop)
    }

    /// Replaces the last `depth` blocks by empty ones. Their transactions are lost: anvil does not put them back into
    /// the pool, and it does not care about finality.
    pub async fn reorg(&self, depth: u64) -> Result<()> {
        self.rpc("anvil_reorg", json!([depth, []])).await.map(drop)
    }

    /// The number of the last block.
    pub async fn block_number(&self) -> Result<u64> {
        Ok(self.provider.get_block_number().await?)
    }

    /// The number of the last block that is final.
    pub async fn finalized(&self) -> Result<u64> {
        let block = self
            .provider
            .get_block_by_number(BlockNumberOrTag::Finalized)
            .await?;
        Ok(block.context("the chain has no final block")?.header.number)
    }
}
