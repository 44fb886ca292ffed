//! One EVM chain and the ERC-8004 Identity Registry on it.
//!
//! - [`abi`] declares the registry's calls and events and encodes calldata (pure)
//! - [`transaction`] signs transactions and checks signed bytes (pure): the only file that holds a
//!   private key
//! - [`rpc`] asks an endpoint the questions of the registry loop, and sends transactions
//! - [`transport`] carries calls over HTTP: the only file that uses the network
//! - [`envelope`] reads JSON-RPC, [`decode`] reads results, and [`refusal`] reads refusals, all of
//!   them leniently (pure)
//! - [`error`] names why a question has no answer, without credentials (pure)
//! - [`health`] decides whether an endpoint is good enough to decide on (pure)
//! - [`scan`] decides how many blocks one request for logs covers (pure)
//!
//! It does not decide whether a transaction should exist: [`crate::ledger`] does.
//! [`crate::api::network`] lists the known networks.

pub(crate) mod abi;
mod decode;
mod envelope;
mod error;
pub(crate) mod health;
pub mod key;
pub(crate) mod refusal;
pub(crate) mod rpc;
pub(crate) mod scan;
pub(crate) mod transaction;
mod transport;

#[cfg(test)]
mod tests;

use alloy::primitives::{Address, B256, Bytes, U256};

pub use rpc::RpcError;
pub(crate) use rpc::{RpcEndpoint, UrlError};
pub use transaction::TransactionSigner;

use crate::api::Nonce;

/// The parts of a block that decisions need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Block number.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// In Unix seconds.
    pub timestamp: u64,
    /// In wei per gas (EIP-1559); `None` on a chain without a base fee.
    pub base_fee: Option<u128>,
}

/// The end of the chain, as one endpoint shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The latest block.
    pub latest: Block,
    /// The last finalized block; `None` if the endpoint does not know finality.
    pub finalized: Option<Block>,
}

/// What stays the same at a chain and a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainIdentity {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Hash of the first block; `None` if the endpoint does not have it.
    pub genesis: Option<B256>,
    /// Keccak-256 of the contract's code; `None` if there is no code.
    pub code_hash: Option<B256>,
    /// Contract behind the proxy (ERC-1967); `None` if it is no such proxy.
    pub implementation: Option<Address>,
    /// Version of the contract; `None` if it does not answer like a registry.
    pub version: Option<String>,
    /// Contract that knows what a rollup charges besides gas; `None` if the chain has none.
    pub fee_oracle: Option<Address>,
}

/// How a token describes itself; `None` for what it does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenReading {
    /// EIP-155 id of the chain that the endpoint serves.
    pub chain_id: u64,
    pub name: Option<String>,
    /// Version in its EIP-712 domain.
    pub version: Option<String>,
    pub decimals: Option<u8>,
    /// Hash of its EIP-712 domain.
    pub domain_separator: Option<B256>,
}

/// What one batch shows of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountReading {
    /// Transaction counts.
    pub counts: TransactionCounts,
    /// Balance in the latest block, in wei.
    pub balance: u128,
    /// Whether the account has code (an EIP-7702 delegation).
    pub has_code: bool,
}

/// An agent in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnChainAgent {
    /// Owner of the agent.
    pub owner: Address,
    /// URI of the agent, cut after 64 KiB; empty if it is not text.
    pub uri: String,
    /// Keccak-256 of the whole URI as the registry has it.
    pub uri_hash: B256,
}

/// A transfer of tokens that its payer has authorized (EIP-3009).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizedTransfer {
    pub from: Address,
    pub to: Address,
    /// In atomic units.
    pub value: U256,
    pub nonce: B256,
}

/// Transaction counts of an account, which are its next nonces, at three depths of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionCounts {
    /// In finalized blocks.
    pub finalized: Nonce,
    /// In all blocks.
    pub latest: Nonce,
    /// In all blocks and in the endpoint's pool, up to the first gap.
    pub pending: Nonce,
}

/// A transaction of an account, as far as its purpose shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountTransaction {
    pub hash: B256,
    pub nonce: Nonce,
    /// Whom it calls or pays; `None` if it creates a contract.
    pub to: Option<Address>,
    /// Calldata.
    pub input: Bytes,
}

/// Current fees of the chain, in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeeMarket {
    /// Transactions have a maximum fee and a priority fee (EIP-1559).
    Dynamic {
        /// Base fee of the latest block.
        base_fee: u128,
        /// Priority fee that recent transactions paid.
        tip: u128,
    },
    /// Blocks have no base fee: transactions have one gas price.
    Legacy {
        /// What the node suggests.
        gas_price: u128,
    },
}

/// Fees of one transaction, in wei per gas. They decide its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fees {
    /// EIP-1559.
    Dynamic {
        /// Maximum fee, priority fee included.
        max_fee: u128,
        /// Maximum priority fee.
        tip: u128,
    },
    /// Before EIP-1559.
    Legacy { gas_price: u128 },
}

impl Fees {
    /// Maximum fee per gas, priority fee included.
    #[must_use]
    pub const fn max_fee(self) -> u128 {
        match self {
            Self::Dynamic { max_fee, .. } => max_fee,
            Self::Legacy { gas_price } => gas_price,
        }
    }

    /// Maximum priority fee per gas. Nodes compare a legacy transaction as if it were its price.
    #[must_use]
    pub const fn tip(self) -> u128 {
        match self {
            Self::Dynamic { tip, .. } => tip,
            Self::Legacy { gas_price } => gas_price,
        }
    }

    /// Maximum cost of a transaction with this gas limit, in wei, without the fees of a rollup.
    #[must_use]
    pub fn worst_cost(self, gas: u64) -> u128 {
        self.max_fee().saturating_mul(gas.into())
    }
}

/// The receipt of a transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whether the transaction succeeded.
    pub succeeded: bool,
    /// Number of its block.
    pub block: u64,
    /// Hash of its block.
    pub block_hash: Option<B256>,
    /// Cost in wei, including the L1 data fee and the operator fee of a rollup.
    pub cost: u128,
}

/// One `Registered` event of the owner in a finalized block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredEvent {
    /// Id that the registry assigned. Zero is a valid id.
    pub agent_id: U256,
    /// URI of the agent at registration.
    pub agent_uri: String,
    /// Transaction that emitted the event.
    pub transaction: B256,
    /// Number of its block.
    pub block: u64,
    /// Hash of its block.
    pub block_hash: B256,
}

/// Logs of one owner in a range of blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// First block of the range.
    pub from: u64,
    /// Last block of the range.
    pub to: u64,
    /// `Registered` events of the owner, in chain order.
    pub registrations: Vec<RegisteredEvent>,
    /// Agents that were minted to the owner (ERC-721 `Transfer` from the zero address).
    pub mints: Vec<U256>,
    /// Number of agents that other accounts transferred to the owner.
    pub received: u64,
    /// Number of agents that the owner transferred away.
    pub given: u64,
}
