//! What the compiler made of each contract.
//!
//! `build.rs` wrote it; this module only reads it. The hand-written bindings in [`crate::abi`] do not come from here,
//! so that a test can hold the two against each other.

use std::collections::BTreeMap;

use alloy::primitives::{Bytes, FixedBytes};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A contract that the build compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// The registry itself, to be used behind a proxy.
    IdentityRegistry,
    /// What a registry's proxy runs first.
    Genesis,
    /// The ERC-1967 proxy that keeps a registry's address and state.
    Proxy,
    /// Calls for others, and takes no ERC-721 token.
    Caller,
    /// Calls for others, and takes ERC-721 tokens.
    Receiver,
    /// Consents to what one key signs, by ERC-1271.
    Wallet,
}

/// A compiled contract.
#[derive(Debug, Deserialize)]
pub struct Artifact {
    /// Its ABI, entry by entry.
    pub abi: Vec<Value>,
    /// The selector of each of its functions, by signature.
    pub selectors: BTreeMap<String, FixedBytes<4>>,
    /// The code that creates it; constructor arguments go behind.
    pub bytecode: Bytes,
}

macro_rules! compiled {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/artifacts/", $name, ".json"))
    };
}

impl Contract {
    /// What the compiler made of it.
    pub fn artifact(self) -> Result<Artifact> {
        let json = match self {
            Self::IdentityRegistry => compiled!("IdentityRegistry"),
            Self::Genesis => compiled!("Genesis"),
            Self::Proxy => compiled!("ERC1967Proxy"),
            Self::Caller => compiled!("Caller"),
            Self::Receiver => compiled!("Receiver"),
            Self::Wallet => compiled!("Wallet"),
        };
        serde_json::from_str(json)
            .with_context(|| format!("{self:?}: the compiler's output is unreadable"))
    }
}
