//! Clients and a facilitator of others, which `.ci/clients` installs. They are too many to install
//! for every test.

use std::path::{Path, PathBuf};

use alloy::primitives::{Address, address};
use alloy::providers::Provider;
use anyhow::{Result, ensure};
use serde_json::json;
use tokio::process::Command;

/// Contracts without which the facilitator in Rust does not start: a validator of EIP-6492
/// signatures, Permit2, and its proxy. A payment by EIP-3009 calls none of them.
const PRESENT: [Address; 3] = [
    address!("dAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B"),
    address!("000000000022D473030F116dDEE9F6B43aC78BA3"),
    address!("402085c248EeA27D92E8b30b2C58ed07f9E20001"),
];

/// A client that someone else wrote.
#[derive(Debug)]
pub struct Client {
    /// Package and version of the protocol.
    pub name: &'static str,
    /// Program and arguments, below the folder of what is installed.
    command: &'static [&'static str],
}

/// Every client that is installed.
pub const CLIENTS: [Client; 6] = [
    Client {
        name: "@x402/axios, version 2",
        command: &["node", "node/axios.mjs"],
    },
    Client {
        name: "x402-fetch, version 1",
        command: &["node", "node/legacy.mjs"],
    },
    Client {
        name: "x402 for Python with httpx, version 2",
        command: &["python/current/bin/python", "python/buyer.py", "httpx"],
    },
    Client {
        name: "x402 for Python with requests, version 2",
        command: &["python/current/bin/python", "python/buyer.py", "requests"],
    },
    Client {
        name: "x402 1.0 for Python, version 1",
        command: &["python/legacy/bin/python", "python/legacy.py"],
    },
    Client {
        name: "x402-reqwest, both versions",
        command: &["rust/debug/buyer"],
    },
];

impl Client {
    /// The program that buys, for [`Buyer::start_program`](crate::Buyer::start_program).
    ///
    /// # Errors
    /// If it is not installed.
    pub fn program(&self) -> Result<Command> {
        program(self.command)
    }
}

/// The command of x402-conformance that looks at the terms of a URL, which is its last argument. It
/// fails if one of its checks does.
///
/// # Errors
/// If it is not installed.
pub fn conformance() -> Result<Command> {
    let python = "python/current/bin/python";
    let mut command = program(&[python, "-m", "x402conf", "resource"])?;
    command.arg("--fail-on-error");
    Ok(command)
}

/// The facilitator of x402-rs, for
/// [`Facilitator::start_program`](crate::Facilitator::start_program).
///
/// # Errors
/// If it is not installed.
pub fn facilitator() -> Result<Command> {
    program(&["rust/debug/facilitator"])
}

/// Puts code at the addresses of [`PRESENT`].
///
/// # Errors
/// If the node refuses.
pub async fn place_contracts(provider: &impl Provider) -> Result<()> {
    for contract in PRESENT {
        // It reverts: PUSH0 PUSH0 REVERT.
        let set = json!([contract, "0x5f5ffd"]);
        let _: serde_json::Value = provider.raw_request("anvil_setCode".into(), set).await?;
    }
    Ok(())
}

/// A command whose files are below the folder of what is installed. A word without a slash is a
/// program in PATH or an argument.
fn program(command: &[&str]) -> Result<Command> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients");
    let mut words = command.iter().map(|word| match word.contains('/') {
        true => installed.join(word),
        false => PathBuf::from(word),
    });
    let first = words.next().unwrap_or_default();
    ensure!(
        !first.is_absolute() || first.exists(),
        "{} is missing: run make test-clients",
        first.display()
    );
    let mut program = Command::new(first);
    program.args(words);
    Ok(program)
}
