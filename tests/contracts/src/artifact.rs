//! Compiler output of each contract.
//!
//! `build.rs` writes it, this module only reads it. The bindings in [`crate::abi`] are written by
//! hand, so that a test can compare the two.

use std::collections::BTreeMap;

use alloy::primitives::{Bytes, FixedBytes};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A contract that the build compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// The registry's implementation, to be used behind a proxy.
    IdentityRegistry,
    /// First implementation of a registry's proxy.
    Genesis,
    /// The ERC-1967 proxy that keeps a registry's address and state.
    Proxy,
    /// Forwards calls and rejects ERC-721 tokens.
    Caller,
    /// Forwards calls and accepts ERC-721 tokens.
    Receiver,
    /// Accepts the signatures of one key (ERC-1271).
    Wallet,
    /// A dollar coin with signed transfers (EIP-3009).
    Coin,
}

/// A compiled contract.
#[derive(Debug, Deserialize)]
pub struct Artifact {
    /// Entries of the ABI.
    pub abi: Vec<Value>,
    /// Selectors of the functions by signature.
    pub selectors: BTreeMap<String, FixedBytes<4>>,
    /// Creation code, without constructor arguments.
    pub bytecode: Bytes,
}

macro_rules! compiled {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/artifacts/", $name, ".json"))
    };
}

impl Contract {
    /// Compiler output of this contract.
    pub fn artifact(self) -> Result<Artifact> {
        let json = match self {
            Self::IdentityRegistry => compiled!("IdentityRegistry"),
            Self::Genesis => compiled!("Genesis"),
            Self::Proxy => compiled!("ERC1967Proxy"),
            Self::Caller => compiled!("Caller"),
            Self::Receiver => compiled!("Receiver"),
            Self::Wallet => compiled!("Wallet"),
            Self::Coin => compiled!("Coin"),
        };
        serde_json::from_str(json)
            .with_context(|| format!("{self:?}: cannot parse the compiler output"))
    }
}
