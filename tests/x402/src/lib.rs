//! Buyers and facilitators of x402 that this project did not write, and a coin for them to trade
//! in: what a gate is tested with.
//!
//! - [`Facilitator`] runs the reference facilitator on one chain, and lists what it was asked
//! - [`Buyer`] pays with the reference client
//! - [`clients`] lists the clients of others that `make test-clients` installs
//! - [`coin`] puts a dollar coin where the clients expect USD Coin

pub mod clients;
pub mod coin;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a program may take to start.
const START: Duration = Duration::from_secs(60);
/// How long one purchase may take.
const PURCHASE: Duration = Duration::from_secs(180);

fn script(name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("OUT_DIR")).join(name));
    command
}

/// Runs a program that is asked and answers in lines, and that ends when it is dropped.
fn run(mut command: Command) -> Result<Child> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let program = command.as_std().get_program().to_owned();
    let child = command.spawn();
    child.with_context(|| format!("cannot run {}", program.display()))
}

/// A request that a facilitator answered.
#[derive(Deserialize, Clone, Debug)]
pub struct Call {
    /// `/verify`, `/settle` or `/supported`.
    pub path: String,
    /// Status code of the answer.
    pub status: u16,
    /// Body of the answer.
    pub result: Value,
    /// The payment that it was asked about, where the program reports it.
    #[serde(default)]
    pub payment: Value,
}

/// A facilitator: the reference one, or one with the same arguments. It ends when this is dropped.
#[derive(Debug)]
pub struct Facilitator {
    child: Child,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Facilitator {
    /// Starts the reference facilitator on a chain. `key` pays for the gas.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(at: SocketAddr, rpc: &str, chain_id: u64, key: &str) -> Result<Self> {
        Self::start_program(script("facilitator.mjs"), at, rpc, chain_id, key).await
    }

    /// Starts another facilitator.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_program(
        mut program: Command,
        at: SocketAddr,
        rpc: &str,
        chain_id: u64,
        key: &str,
    ) -> Result<Self> {
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        program.args([&host, &port, rpc, &chain_id.to_string(), key]);
        let mut child = run(program)?;
        let output = child.stdout.take().context("no output")?;
        let mut lines = BufReader::new(output).lines();
        match timeout(START, lines.next_line()).await?? {
            Some(line) if line == "ready" => {}
            other => bail!("the facilitator did not start: {other:?}"),
        }
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(call) = serde_json::from_str(&line) {
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(call);
                }
            }
        });
        Ok(Self { child, calls })
    }

    /// What it was asked so far, with these answers.
    #[must_use]
    pub fn calls(&self, path: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .filter(|call| call.path == path)
            .cloned()
            .collect()
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// A client that pays whatever is asked: the reference one, or one with the same lines.
#[derive(Debug)]
pub struct Buyer {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// What a buyer got.
#[derive(Deserialize, Clone, Debug)]
pub struct Purchase {
    /// Status code of the last response.
    pub status: u16,
    /// Header fields of the last response, with names in lower case.
    pub fields: Value,
    /// Body of the last response.
    pub body: String,
    /// The receipt, if there was one.
    pub receipt: Option<Value>,
}

impl Buyer {
    /// Starts the reference client, which pays with a key.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(key: &str) -> Result<Self> {
        Self::start_program(script("buyer.mjs"), key)
    }

    /// Starts another client.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_program(mut program: Command, key: &str) -> Result<Self> {
        program.arg(key);
        let mut child = run(program)?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        Ok(Self {
            input,
            output: BufReader::new(output).lines(),
            _child: child,
        })
    }

    /// Requests a URL, and pays if a payment is asked for.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn get(&mut self, url: &str) -> Result<Purchase> {
        self.request(&json!({ "url": url })).await
    }

    /// Sends a body, and pays if a payment is asked for.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn post(&mut self, url: &str, body: &str) -> Result<Purchase> {
        self.request(&json!({ "url": url, "method": "POST", "body": body }))
            .await
    }

    /// Sends a body and pays, and for this long sends the same payment again while there is no
    /// answer, or one that asks for that.
    ///
    /// # Errors
    /// If there is no response in the end.
    pub async fn insist(&mut self, url: &str, body: &str, patience: Duration) -> Result<Purchase> {
        let patience = patience.as_secs();
        self.request(&json!({ "url": url, "method": "POST", "body": body, "patience": patience }))
            .await
    }

    /// Sends a body under an identifier of the buyer's, and pays if a payment is asked for.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn post_identified(
        &mut self,
        url: &str,
        body: &str,
        identifier: &str,
    ) -> Result<Purchase> {
        self.request(
            &json!({ "url": url, "method": "POST", "body": body, "identifier": identifier }),
        )
        .await
    }

    /// Opens a websocket, and pays if a payment is asked for; sends messages and waits for as many. The
    /// body is a JSON array of those.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn converse(&mut self, url: &str, messages: &[&str]) -> Result<Purchase> {
        self.request(&json!({ "url": url, "messages": messages }))
            .await
    }

    async fn request(&mut self, request: &Value) -> Result<Purchase> {
        self.input
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        let line = timeout(PURCHASE, self.output.next_line()).await??;
        let line = line.context("the buyer ended")?;
        serde_json::from_str(&line).with_context(|| line)
    }
}
