//! Why one side of a registry cannot be used. Pure.
//!
//! The steps of a pass return it, [`super::status`] reports it. The name of a variant is the reason
//! of the condition. Problems of a single record, entry or offer are not here: they are
//! [`crate::reconcile::issues::OfferIssue`]s.

use alloy::primitives::Address;
use strum::IntoStaticStr;

use crate::api::IdentityRegistrySpec;
use crate::chain::RpcError;
use crate::chain::key::KeyError;
use crate::ledger::money::UnreadableLimit;
use crate::registration::address::{self, MistypedAddress};

/// Oldest major version of the contract whose interface [`crate::chain`] uses.
pub(crate) const OLDEST_VERSION: u64 = 2;

/// Why one side of a registry cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error, IntoStaticStr)]
pub(crate) enum Blocked {
    /// No endpoint answers as it should.
    #[error("{endpoint}: {error}{}", remedy(error))]
    Rpc {
        /// The endpoint, without credentials.
        endpoint: String,
        error: RpcError,
    },
    /// The URL of an endpoint is not known.
    #[error("{0}")]
    EndpointUnknown(String),
    /// The address of the contract fails its checksum.
    #[error(transparent)]
    InvalidAddress(MistypedAddress),
    /// The address of a signer fails its checksum.
    #[error(transparent)]
    InvalidSignerAddress(MistypedAddress),
    /// The chain or the contract is not what the spec says.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// The signer's key does not exist.
    #[error("Secret {secret} has no key {key}: create it in the namespace of the operator")]
    SecretMissing {
        /// Name of the Secret.
        secret: String,
        /// Key inside it.
        key: String,
    },
    /// What the Secret holds is no key.
    #[error(
        "signer {address}: the private key in Secret {secret}, key {key}, cannot be read: {error}"
    )]
    KeyUnreadable {
        /// Address that the spec names.
        address: String,
        /// Name of the Secret.
        secret: String,
        /// Key inside it.
        key: String,
        error: KeyError,
    },
    /// The key belongs to another account.
    #[error("signer {address}: {error}. Correct the address or the Secret")]
    KeyMismatch {
        /// Address that the spec names.
        address: String,
        error: KeyError,
    },
    /// An older IdentityRegistry of the chain lists the same signer.
    #[error(
        "signer {address} belongs to IdentityRegistry {holder} on this chain: this registry \
         allocates, signs and sends nothing with it. Give this registry another signer, or delete \
         {holder}"
    )]
    SignerInUse {
        address: Address,
        /// Name of the registry that holds the signer.
        holder: String,
    },
    #[error(transparent)]
    InvalidLimit(#[from] UnreadableLimit),
    /// More endpoints would have to agree than this version asks.
    #[error(
        "quorum is {quorum}: this version asks one endpoint only, and spends nothing where more \
         must agree. Set quorum: 1"
    )]
    QuorumNotSupported { quorum: u8 },
}

/// Why a chain or a contract is not what the spec says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum Unverified {
    #[error(
        "the endpoint serves chain {actual}, and spec.chainId is {expected}: correct one of them"
    )]
    WrongChain {
        /// What the spec says.
        expected: u64,
        /// What the endpoint says.
        actual: u64,
    },
    #[error("there is no contract at {address} on chain {chain_id}: correct spec.address")]
    NoContract { address: Address, chain_id: u64 },
    #[error(
        "the contract at {address} does not answer getVersion(): it is not an identity registry. \
         Correct spec.address"
    )]
    NotARegistry { address: Address },
    /// Written for an earlier interface, or for none that is known.
    #[error(
        "the contract at {address} is of version {version:?}, and version {OLDEST_VERSION} or later \
         is needed: correct spec.address, or upgrade the contract"
    )]
    VersionNotSupported { address: Address, version: String },
    #[error("the endpoint knows no final block: use one that serves the tag \"finalized\"")]
    NoFinality,
    /// The genesis block identifies the chain beside its id.
    #[error("the endpoint does not serve block 0, which identifies the chain: use one that does")]
    NoGenesis,
    /// The signer delegates its account to code.
    #[error(
        "signer {address} has code (an EIP-7702 delegation): anyone who controls that code could \
         register on its behalf. Use an account without code"
    )]
    SignerHasCode { address: Address },
}

/// The condition that a problem belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Signers,
    Rpc,
    Contract,
}

/// What to do about an endpoint that does not answer. Other errors say it themselves, or are in the
/// endpoint's own words.
const fn remedy(error: &RpcError) -> &'static str {
    match error {
        RpcError::RpcUnreachable { .. } => ". Check the endpoint and spec.rpc",
        _ => "",
    }
}

/// Checks the addresses of a spec.
///
/// # Errors
/// If one of them fails its checksum.
pub(crate) fn check_addresses(spec: &IdentityRegistrySpec) -> Result<(), Blocked> {
    if let Some(contract) = &spec.address {
        address::check("spec.address", contract).map_err(Blocked::InvalidAddress)?;
    }
    for (nth, signer) in spec.signers.iter().enumerate() {
        address::check(format!("spec.signers[{nth}].address"), &signer.address)
            .map_err(Blocked::InvalidSignerAddress)?;
    }
    Ok(())
}

impl Blocked {
    #[must_use]
    pub(crate) const fn side(&self) -> Side {
        match self {
            Self::Rpc { .. } | Self::EndpointUnknown(_) => Side::Rpc,
            Self::SecretMissing { .. }
            | Self::KeyUnreadable { .. }
            | Self::KeyMismatch { .. }
            | Self::SignerInUse { .. }
            | Self::InvalidSignerAddress(_)
            | Self::Unverified(Unverified::SignerHasCode { .. }) => Side::Signers,
            Self::InvalidAddress(_)
            | Self::Unverified(_)
            | Self::InvalidLimit(_)
            | Self::QuorumNotSupported { .. } => Side::Contract,
        }
    }

    /// Reason of the condition: the name of the innermost variant.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Rpc { error, .. } => error.reason(),
            Self::Unverified(unverified) => unverified.into(),
            own => own.into(),
        }
    }

    /// Whether it can pass without action by a person.
    #[must_use]
    pub(crate) const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Rpc { .. } | Self::Unverified(Unverified::NoFinality)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::registry;

    #[test]
    fn mistyped_address_is_refused_by_the_name_of_its_field() {
        const RIGHT: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
        let mistyped = RIGHT.replace("c79C8", "c79c8");
        let check = |address: &str, signers: [&str; 2]| {
            let secret = json!({ "name": "signer", "key": "key" });
            let signers: Value = signers
                .iter()
                .map(|address| json!({ "address": address, "secretRef": secret }))
                .collect();
            let spec = json!({ "address": address, "signers": signers });
            check_addresses(&registry(json!({ "spec": spec })).spec)
        };
        let of_field = |field: &str| MistypedAddress {
            field: field.into(),
            address: mistyped.clone(),
        };
        let lower = RIGHT.to_lowercase();
        assert_eq!(check(RIGHT, [&lower, RIGHT]), Ok(()));
        assert_eq!(check_addresses(&registry(json!({})).spec), Ok(()));
        let contract = Blocked::InvalidAddress(of_field("spec.address"));
        assert_eq!(check(&mistyped, [RIGHT, &mistyped]), Err(contract));
        let signer = Blocked::InvalidSignerAddress(of_field("spec.signers[1].address"));
        assert_eq!(check(RIGHT, [&lower, &mistyped]), Err(signer));
    }

    #[test]
    fn endpoint_that_does_not_answer_is_to_be_checked() {
        let blocked = |error| Blocked::Rpc {
            endpoint: "https://rpc.example".into(),
            error,
        };
        let unreachable = blocked(RpcError::RpcUnreachable {
            call: "eth_chainId",
            cause: "could not connect",
        });
        assert_eq!(
            unreachable.to_string(),
            "https://rpc.example: eth_chainId failed: could not connect. Check the endpoint and \
             spec.rpc"
        );
        let history_missing = blocked(RpcError::RpcHistoryMissing {
            call: "eth_getBalance",
            message: "pruned".into(),
        });
        let message = history_missing.to_string();
        assert!(
            message.ends_with("keeps the states of more blocks"),
            "{message}"
        );
    }
}
