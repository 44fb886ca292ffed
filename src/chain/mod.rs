//! The world outside the cluster: one EVM chain and the ERC-8004 Identity Registry on it.
//!
//! - [`abi`] is what the registry understands: calls and events, and the calldata made of them (pure)
//! - [`transaction`] makes and checks signed bytes (pure): the only place that holds a key
//! - [`rpc`] asks and sends: the only place where the network is touched
//! - [`scan`] decides in which steps a long range of blocks is asked for (pure)
//!
//! Nothing here decides whether a transaction should exist: that is [`crate::ledger`]. Which networks there are is known to
//! [`crate::api::network`].

pub mod abi;
pub mod rpc;
pub mod scan;
pub mod transaction;

use alloy::primitives::B256;

pub use rpc::{Endpoint, RpcError};
pub use transaction::Signer;

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
