//! The world outside the cluster: one EVM chain and the ERC-8004 Identity Registry on it.
//!
//! - [`abi`] is what the registry understands: calls and events, and the calldata made of them (pure)
//! - [`transaction`] makes and checks signed bytes (pure): the only place that holds a key
//! - [`rpc`] asks and sends: the only place where the network is touched
//! - [`scan`] decides in which steps a long range of blocks is asked for (pure)
//!
//! Nothing here decides whether a transaction should exist: that is [`crate::ledger`]. Which networks there are is known to
//! [`crate::api::network`].

pub(crate) mod abi;
pub(crate) mod rpc;
pub(crate) mod scan;
pub(crate) mod transaction;

use alloy::primitives::{B256, U256};

pub(crate) use rpc::{RpcEndpoint, RpcError};
pub(crate) use transaction::TransactionSigner;

use crate::api::Nonce;

/// A block, as far as decisions need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time, in Unix seconds.
    pub timestamp: u64,
    /// Its base fee, in wei per gas (EIP-1559); zero on a chain without one.
    pub base_fee: u128,
}

/// How often an account has sent, at three depths of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionCounts {
    /// In final blocks.
    pub finalized: Nonce,
    /// In all blocks.
    pub latest: Nonce,
    /// In all blocks, and waiting without a gap.
    pub pending: Nonce,
}

/// Fees of the moment, in wei per gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeMarket {
    /// Base fee of the latest block (EIP-1559).
    pub base_fee: u128,
    /// Tip that is usual.
    pub tip: u128,
}

/// Fees of one transaction, in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// Highest fee, tip included.
    pub max_fee: u128,
    /// Highest tip.
    pub tip: u128,
}

impl Fees {
    /// Most that a transaction of so much gas can cost.
    #[must_use]
    pub fn worst_cost(self, gas: u64) -> u128 {
        self.max_fee.saturating_mul(gas.into())
    }
}

/// A transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Number of its block.
    pub block: u64,
    /// What it cost in wei, an L2's fee for its data included.
    pub cost: u128,
}

/// One final `Registered` log of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredEvent {
    /// Id that the registry gave. Zero is an id like any other.
    pub agent_id: U256,
    /// URI as it was registered.
    pub agent_uri: String,
    /// Transaction that emitted the log.
    pub transaction: B256,
    /// Number of its block.
    pub block: u64,
    /// Hash of its block.
    pub block_hash: B256,
}

/// What a range of blocks holds of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// First block of the range.
    pub from: u64,
    /// Last block of the range.
    pub to: u64,
    /// `Registered` logs of the owner, in the order of the chain.
    pub registrations: Vec<RegisteredEvent>,
    /// Agents that the owner received, mints included (ERC-721 `Transfer` to it).
    pub received: u64,
    /// Agents that the owner gave away.
    pub given: u64,
}
