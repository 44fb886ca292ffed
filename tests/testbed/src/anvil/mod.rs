//! A private chain for a test: one anvil process.
//!
//! It owns the process, and lets a test start, pause, mine, reorganize and stop the chain. It
//! depends neither on contracts (see the crate `contracts`) nor on the cluster: anvil runs in the
//! network namespace of the thread that starts it, so that pods can reach a chain that was started
//! inside [`crate::test`]. [`crate::tools`] provides the binary, and `process` manages the process.

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

use self::process::{AnvilProcess, Banner};
use crate::tools;

/// Timeout of a call of [`Anvil::rpc`]. A paused chain answers none.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// For how many past blocks the state can be queried. To keep more, anvil would write files to the
/// home directory, which remain there when it is killed.
const STATES_IN_MEMORY: &str = "4096";

/// The directory for such files, which prevents them: anvil creates it at each reorganization,
/// needed or not, and continues if that fails.
const STATES_ON_DISK: &str = "/dev/null";

/// The settings of a chain. Start from the default and change what matters:
/// `AnvilConfig { block_time: Some(Duration::from_secs(1)), ..AnvilConfig::default() }`.
#[derive(Clone, Debug)]
pub struct AnvilConfig {
    /// The time between blocks. None: each transaction is mined at once, in a separate block.
    pub block_time: Option<Duration>,
    /// Finality: `safe` is this many blocks behind `latest`, and `finalized` twice as many.
    pub slots_in_an_epoch: u64,
    /// The chain id.
    pub chain_id: u64,
    /// A file from which the chain is loaded if it exists, and to which [`Anvil::stop`] saves the
    /// chain.
    pub state: Option<PathBuf>,
    /// The address to listen on. Default: all addresses, so that pods can reach it.
    pub host: IpAddr,
    /// The port to listen on. 0: a free port.
    pub port: u16,
    /// The block gas limit. None: anvil's default, 30 million.
    pub block_gas_limit: Option<u64>,
    /// The number of funded accounts.
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
    /// anvil's arguments for these settings.
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
            // With history, because an operator reads the state at the finalized block, which is
            // never the latest one.
            arguments.extend(["--preserve-historical-states", "--state"].map(str::to_owned));
            arguments.push(file.display().to_string());
        }
        arguments
    }
}

/// A running chain. It is killed when this is dropped, and when the process that started it dies.
#[derive(Debug)]
pub struct Anvil {
    process: AnvilProcess,
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
        let (process, Banner { port, keys }) = AnvilProcess::start(command)
            .await
            .context("failed to start anvil")?;

        // Other workspace members enable TLS in the HTTP client, which then needs a crypto provider
        // even for plain HTTP.
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

    /// Shuts the chain down. If it has a state file, the state is saved.
    pub async fn stop(mut self) -> Result<()> {
        // In this order, so that a paused chain receives the signal when it resumes.
        self.process.signal(Signal::SIGTERM)?;
        self.resume()?;
        self.process.wait().await
    }

    /// The URL at which this process reaches the chain.
    pub fn url(&self) -> String {
        self.url_at(self.address.ip())
    }

    /// The URL with another address of this machine, such as the node's.
    pub fn url_at(&self, host: IpAddr) -> String {
        format!("http://{}", SocketAddr::new(host, self.address.port()))
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The chain id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The pid of anvil.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The keys of the funded accounts. anvil can also sign with them (`eth_sendTransaction`).
    pub fn keys(&self) -> &[PrivateKeySigner] {
        &self.keys
    }

    /// A client of the chain that does not fill in nonces or fees.
    pub fn provider(&self) -> &RootProvider {
        &self.provider
    }

    /// Pauses the chain: it still accepts connections, and answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.process.stop()
    }

    /// Resumes a paused chain.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Calls any method, including `anvil_*` and `evm_*`.
    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value> {
        self.provider
            .raw_request(method.to_owned().into(), params)
            .await
            .with_context(|| method.to_owned())
    }

    /// Mines `blocks` blocks at once.
    pub async fn mine(&self, blocks: u64) -> Result<()> {
        self.rpc("anvil_mine", json!([U256::from(blocks)]))
            .await
            .map(drop)
    }

    /// Sets the balance of `account`.
    pub async fn set_balance(&self, account: Address, wei: U256) -> Result<()> {
        self.rpc("anvil_setBalance", json!([account, wei]))
            .await
            .map(drop)
    }

    /// Replaces the last `depth` blocks by empty ones. Their transactions are lost: anvil does not
    /// return them to the pool. It ignores finality.
    pub async fn reorg(&self, depth: u64) -> Result<()> {
        self.rpc("anvil_reorg", json!([depth, []])).await.map(drop)
    }

    /// The number of the latest block.
    pub async fn block_number(&self) -> Result<u64> {
        Ok(self.provider.get_block_number().await?)
    }

    /// The number of the finalized block.
    pub async fn finalized(&self) -> Result<u64> {
        let block = self
            .provider
            .get_block_by_number(BlockNumberOrTag::Finalized)
            .await?;
        Ok(block
            .context("the chain has no finalized block")?
            .header
            .number)
    }
}
