//! Why a registry cannot be used: what [`super::observe`] comes upon, and [`super::status`] tells.

use alloy::primitives::Address;
use strum::IntoStaticStr;

use crate::api::{Key, Nonce};
use crate::chain::RpcError;
use crate::chain::transaction::KeyError;
use crate::ledger::money::UnreadableLimit;

/// Why a registry cannot be used at all.
#[derive(Clone, Debug, PartialEq, thiserror::Error, IntoStaticStr)]
pub(crate) enum Blocked {
    /// An endpoint does not answer as it should.
    #[error("{endpoint}: {error}")]
    Rpc {
        /// The endpoint, without credentials.
        endpoint: String,
        /// What went wrong.
        error: RpcError,
    },
    /// An endpoint's URL is not to be had.
    #[error("{0}")]
    EndpointUnknown(String),
    /// The chain or the contract is not what the spec says.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// The signer's key is not to be had.
    #[error("Secret {secret} has no key {key}: create it in the namespace of the operator")]
    SecretMissing {
        /// Name of the Secret.
        secret: String,
        /// Key inside it.
        key: String,
    },
    /// The signer's key is not the signer's.
    #[error("signer {address}: {error}")]
    KeyMismatch {
        /// Address that the spec names.
        address: String,
        /// What is wrong with the key.
        error: KeyError,
    },
    /// A limit cannot be read.
    #[error(transparent)]
    InvalidLimit(#[from] UnreadableLimit),
    /// What is stored for a nonce contradicts the ledger or itself.
    #[error("nonce {nonce} of agent {key}: {why}. Restore the record from a backup")]
    StoredTransactionMismatch {
        /// The agent.
        key: Key,
        /// Its nonce.
        nonce: Nonce,
        /// What is wrong.
        why: String,
    },
    /// The quorum cannot be honoured.
    #[error(
        "quorum is {quorum}: this version asks one endpoint only, and spends nothing where more must agree. Set quorum: 1"
    )]
    QuorumNotSupported {
        /// What the spec asks for.
        quorum: u8,
    },
}

/// Why a chain or a contract is not what the spec says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum Unverified {
    /// The endpoint serves another chain.
    #[error(
        "the endpoint serves chain {actual}, and spec.chainId is {expected}: correct one of them"
    )]
    WrongChain {
        /// What the spec says.
        expected: u64,
        /// What the endpoint says.
        actual: u64,
    },
    /// There is no contract.
    #[error("there is no contract at {address} on chain {chain_id}: correct spec.address")]
    NoContract {
        /// The address.
        address: Address,
        /// The chain.
        chain_id: u64,
    },
    /// The contract is something else.
    #[error(
        "the contract at {address} does not answer getVersion(): it is not an identity registry. Correct spec.address"
    )]
    NotARegistry {
        /// The address.
        address: Address,
    },
    /// Nothing is final yet, or the chain does not know finality.
    #[error("the endpoint knows no final block: use one that serves the tag \"finalized\"")]
    NoFinality,
    /// The signer delegates its account to code.
    #[error(
        "signer {address} has code (an EIP-7702 delegation): anyone that code lets in could register in its name. Use an account without code"
    )]
    SignerHasCode {
        /// The signer.
        address: Address,
    },
}

impl Blocked {
    /// The condition that it concerns, and one word for it.
    #[must_use]
    pub(crate) fn condition(&self) -> (&'static str, &'static str) {
        let type_ = match self {
            Self::Rpc { .. } | Self::EndpointUnknown(_) => "RpcHealthy",
            Self::SecretMissing { .. }
            | Self::KeyMismatch { .. }
            | Self::StoredTransactionMismatch { .. }
            | Self::Unverified(Unverified::SignerHasCode { .. }) => "SignersReady",
            Self::Unverified(_) | Self::InvalidLimit(_) | Self::QuorumNotSupported { .. } => {
                "RegistryVerified"
            }
        };
        let reason = match self {
            Self::Rpc { error, .. } => error.reason(),
            Self::Unverified(unverified) => unverified.into(),
            own => own.into(),
        };
        (type_, reason)
    }

    /// Whether it may pass by itself.
    #[must_use]
    pub(crate) const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Rpc { .. } | Self::Unverified(Unverified::NoFinality)
        )
    }
}
