//! AgentRegistration: the durable record of one agent. Only the operator writes it.
//!
//! Its state lives in `spec`, because backup tools drop `status`. It is cluster-scoped, so that its name is a
//! cluster-wide test-and-set, and has no owner, so that it outlives the offer and its namespace.

use alloy::primitives::{Address, B256, Bytes};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Key, Nonce, Wei, schema};

/// The durable record of one agent.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[kube(
    group = "obol.org",
    version = "v1alpha1",
    kind = "AgentRegistration",
    plural = "agentregistrations",
    shortname = "areg",
    derive = "PartialEq",
    doc = "AgentRegistration is the durable record of one agent on one identity registry. Only the operator writes it; do not delete it.",
    printcolumn(name = "Identity", type_ = "string", json_path = ".spec.identity"),
    printcolumn(name = "Chain", type_ = "integer", json_path = ".spec.chainId"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.result.agentId"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".spec.phase"),
    printcolumn(name = "Nonce", type_ = "integer", json_path = ".spec.attempts[-1].nonce"),
    printcolumn(name = "Tx", type_ = "string", json_path = ".spec.attempts[-1].hash"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'r-' + self.spec.key").message("the name of a record is r-<key>")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(format!("!has(oldSelf.result) || ({})", schema::constant("signer")))
        .message("signer is immutable once there is a result"),
    validation = Rule::new(schema::constant("adopt")).message("adopt is immutable"),
    validation = Rule::new(format!(
        "!has(oldSelf.attempts) || oldSelf.attempts.size() == 0 || ({} && {})",
        schema::constant("agentUri"), schema::constant("calldataHash")
    )).message("agentUri and calldataHash are frozen by the first attempt"),
    validation = Rule::new("!has(self.attempts) || self.attempts.size() == 0 || (has(self.agentUri) && has(self.calldataHash))")
        .message("an attempt needs agentUri and calldataHash"),
    validation = Rule::new("!has(oldSelf.attempts) || oldSelf.attempts.size() == 0 || (has(self.attempts) && self.attempts.size() > 0)")
        .message("attempts never become empty again"),
    validation = Rule::new("!has(oldSelf.result) || (has(self.result) && self.result == oldSelf.result)")
        .message("result is written once")
)]
pub struct AgentRegistrationSpec {
    /// Key of the agent: 80 bits of a hash over identity, chainId, registry address and edition, in base32.
    #[schemars(with = "String", length(max = 16), regex(pattern = schema::KEY))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("key is immutable"))]
    pub key: Key,
    /// What the agent stands for: <namespace>/<name>, <namespace>, or empty, by the scope of the registry.
    #[schemars(
        length(max = 317),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(/[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?)?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("identity is immutable"))]
    pub identity: String,
    /// EIP-155 id of the chain.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainId is immutable"))]
    pub chain_id: u64,
    /// The registry contract.
    #[x_kube(validation = Rule::new("self == oldSelf").message("registry is immutable"))]
    pub registry: RegistryContract,
    /// Edition of the agent.
    #[schemars(range(min = 1, max = 2_147_483_647), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("edition is immutable"))]
    pub edition: u32,
    /// Account that registers the agent; unset where the registry only watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub signer: Option<Address>,
    /// URI that is registered; frozen by the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub agent_uri: Option<String>,
    /// Keccak-256 of the calldata that registers it; frozen by the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub calldata_hash: Option<B256>,
    /// The existing agent to adopt; nothing is ever minted for a record that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 78), regex(pattern = schema::UNSIGNED))]
    pub adopt: Option<String>,
    /// Where the agent stands: Pending, Bound, Sent, Included, Registered, Reverted or Tombstoned.
    #[serde(default)]
    pub phase: Phase,
    /// Offers that share the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub offers: Vec<OfferRef>,
    /// Transactions signed so far, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attempts: Vec<Attempt>,
    /// A URI update that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UriUpdate")]
    pub update: Option<UriUpdate>,
    /// The registration, once final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RegistrationResult")]
    pub result: Option<RegistrationResult>,
    /// Up to which block the chain is proven to hold no registration of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProvenAbsent")]
    pub proven_absent: Option<ProvenAbsent>,
    /// Set while no offer uses the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub tombstone: Option<bool>,
    /// Spent so far, in wei.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 38), regex(pattern = schema::UNSIGNED))]
    pub spent_wei: Option<Wei>,
}

impl AgentRegistrationSpec {
    /// Whether the agent is registered by an account on a chain. An account has a ledger of its own on each chain.
    #[must_use]
    pub fn is_of(&self, chain_id: u64, signer: Address) -> bool {
        self.chain_id == chain_id && self.signer == Some(signer)
    }
}

/// A registry contract.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryContract {
    /// Address of the contract, in lower case.
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub address: Address,
    /// Keccak-256 of the code at that address.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub code_hash: B256,
}

/// Where an agent stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Phase {
    /// Waits for a nonce.
    #[default]
    Pending,
    /// Owns a nonce, nothing is signed.
    Bound,
    /// Signed, stored and sent.
    Sent,
    /// In a block that may still be reorganised away.
    Included,
    /// Registered, final.
    Registered,
    /// The transaction was included and reverted, final.
    Reverted,
    /// No offer uses the agent any more.
    Tombstoned,
}

/// An offer that uses the agent.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct OfferRef {
    /// Namespace of the offer.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the offer.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Uid of the offer.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// What a nonce is used for.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Operation {
    /// Registers an agent.
    Register,
    /// Changes an agent's URI.
    Update,
    /// Nothing: the nonce must be used up.
    Filler,
}

/// One signed transaction.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Nonce of the transaction.
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[serde(with = "super::scalar::nonce_as_number")]
    pub nonce: Nonce,
    /// What it does: Register, Update or Filler.
    pub kind: Operation,
    /// Highest fee per gas, in wei.
    #[schemars(with = "String", length(max = 38), regex(pattern = schema::UNSIGNED))]
    pub max_fee_per_gas: Wei,
    /// Highest tip per gas, in wei.
    #[schemars(with = "String", length(max = 38), regex(pattern = schema::UNSIGNED))]
    pub max_priority_fee_per_gas: Wei,
    /// Gas limit.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub gas: u64,
    /// Hash of the transaction.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub hash: B256,
    /// The signed bytes in hex; kept for the last 8 attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 16384),
        regex(pattern = "^0x([0-9a-f]{2})*$")
    )]
    pub raw: Option<Bytes>,
}

/// A change of URI that is under way.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriUpdate {
    /// The URI to set.
    #[schemars(length(max = 2048))]
    pub agent_uri: String,
    /// Keccak-256 of the calldata that sets it.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub calldata_hash: B256,
}

/// A final registration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResult {
    /// Id of the agent; "0" is a valid id.
    #[schemars(length(max = 78), regex(pattern = schema::UNSIGNED))]
    pub agent_id: String,
    /// Hash of the transaction that registered it; unset for an agent that was adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub transaction: Option<B256>,
    /// Number of its block; for an agent that was adopted, of the final block that proved its existence.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
    /// Hash of that block.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub block_hash: B256,
}

/// A proof that a key is not registered.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ProvenAbsent {
    /// Last block that it covers.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
}
