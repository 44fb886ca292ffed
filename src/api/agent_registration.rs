//! AgentRegistration: the durable record of one agent. Only the operator writes it.
//!
//! Its state is in `spec`, because backup tools drop `status`. It is cluster-scoped, which makes
//! its name a cluster-wide test-and-set. It has no owner reference, so that it outlives the offer
//! and its namespace. [`crate::ledger::protocol`] decides what is written here.

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
    validation = Rule::new("self.metadata.name == 'r-' + self.spec.key").message("the name of a record must be r-<key>")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(format!("!has(oldSelf.result) || ({})", schema::constant("signer")))
        .message("signer is immutable once there is a result"),
    validation = Rule::new(
        "has(oldSelf.adopt) ? has(self.adopt) && self.adopt == oldSelf.adopt : !has(self.adopt) || (!has(oldSelf.result) && (!has(oldSelf.attempts) || oldSelf.attempts.size() == 0))"
    ).message("adopt can be set before the first attempt, and is immutable"),
    validation = Rule::new(format!(
        "!has(oldSelf.attempts) || oldSelf.attempts.size() == 0 || ({} && {})",
        schema::constant("agentUri"), schema::constant("calldataHash")
    )).message("agentUri and calldataHash are frozen by the first attempt"),
    validation = Rule::new("!has(self.attempts) || self.attempts.size() == 0 || (has(self.agentUri) && has(self.calldataHash))")
        .message("an attempt needs agentUri and calldataHash"),
    validation = Rule::new("!has(oldSelf.attempts) || oldSelf.attempts.size() == 0 || (has(self.attempts) && self.attempts.size() > 0)")
        .message("attempts cannot be emptied"),
    validation = Rule::new("!has(oldSelf.result) || (has(self.result) && self.result == oldSelf.result)")
        .message("result is written once"),
    // An older version drops the field when it writes the record, so it may be removed.
    validation = Rule::new("!has(oldSelf.reverted) || !has(self.reverted) || self.reverted == oldSelf.reverted")
        .message("reverted can be removed, not changed"),
    validation = Rule::new("!has(self.reverted) || self.phase == 'Reverted' || has(self.result)")
        .message("reverted needs phase Reverted or a result"),
    validation = Rule::new("!has(oldSelf.displaced) || !has(self.displaced) || self.displaced.nonce >= oldSelf.displaced.nonce")
        .message("displaced can be removed or name a higher nonce"),
    validation = Rule::new("oldSelf.phase != 'Reverted' || self.phase == 'Reverted' || has(self.result)")
        .message("phase Reverted is final unless a result is found")
)]
pub struct AgentRegistrationSpec {
    /// Key of the agent: 80 bits of a hash over identity, chainId, registry address and edition,
    /// encoded in base32.
    #[schemars(with = "String", length(max = 16), regex(pattern = schema::KEY))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("key is immutable"))]
    pub key: Key,
    /// Identity of the agent: <namespace>/<name>, <namespace> or empty, depending on the registry's
    /// identityScope.
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
    /// Registry contract on which the agent is registered.
    #[x_kube(validation = Rule::new("self == oldSelf").message("registry is immutable"))]
    pub registry: RegistryContract,
    /// Edition of the agent; a higher edition of the same identity is another agent.
    #[schemars(range(min = 1, max = 2_147_483_647), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("edition is immutable"))]
    pub edition: u32,
    /// Account that registers the agent; unset if the IdentityRegistry is watch-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub signer: Option<Address>,
    /// URI to register; frozen by the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub agent_uri: Option<String>,
    /// Keccak-256 of the agent's URI on chain, for a URI that agentUri cannot hold: one that is too
    /// long or contains control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub agent_uri_hash: Option<B256>,
    /// Keccak-256 of the registration's calldata; frozen by the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub calldata_hash: Option<B256>,
    /// Id of the existing agent to adopt. A record with an id to adopt never registers a new agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 78), regex(pattern = schema::UNSIGNED))]
    pub adopt: Option<String>,
    /// Progress of the registration: Pending, Bound, Sent, Included, Registered, Reverted or
    /// Tombstoned.
    #[serde(default)]
    pub phase: Phase,
    /// Offers that use the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub offers: Vec<OfferRef>,
    /// Transactions signed so far, oldest first. Each is stored before it is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attempts: Vec<Attempt>,
    /// URI update in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UriUpdate")]
    pub update: Option<UriUpdate>,
    /// Result of the registration, set once it is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RegistrationResult")]
    pub result: Option<RegistrationResult>,
    /// Transaction that was included and reverted, set once that is final. The agent is then not
    /// registered again under this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RevertedRegistration")]
    pub reverted: Option<RevertedRegistration>,
    /// Transaction of something else that used the nonce of an attempt, set once that is final. No
    /// attempt up to that nonce can be included any more, and the agent gets another nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DisplacingTransaction")]
    pub displaced: Option<DisplacingTransaction>,
    /// Last block up to which the logs of its signer were proven to hold no registration of this key
    /// when the transaction was signed. Not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProvenAbsent")]
    pub proven_absent: Option<ProvenAbsent>,
    /// Former signer whose ledger has to be written once more before the signer's ledger may
    /// allocate a nonce to the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub moved_from: Option<Address>,
    /// Set while no offer uses the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub tombstone: Option<bool>,
    /// Amount spent on gas so far, in wei.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 38), regex(pattern = schema::UNSIGNED))]
    pub spent_wei: Option<Wei>,
}

impl AgentRegistrationSpec {
    /// Whether this account registers the agent on this chain. An account has a separate ledger on
    /// each chain.
    #[must_use]
    pub fn is_of(&self, chain_id: u64, signer: Address) -> bool {
        self.chain_id == chain_id && self.signer == Some(signer)
    }

    /// Whether the registration has no final outcome yet: neither a result nor a revert.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.result.is_none() && self.reverted.is_none() && self.phase != Phase::Reverted
    }

    /// The last attempt, unless another transaction has used its nonce: it may still be included.
    #[must_use]
    pub fn live_attempt(&self) -> Option<&Attempt> {
        let last = self.attempts.last();
        last.filter(|attempt| !self.is_displaced(attempt.nonce))
    }

    /// Whether a final transaction of something else has used this nonce, which an attempt had.
    #[must_use]
    pub fn is_displaced(&self, nonce: Nonce) -> bool {
        let displaced = self.displaced.as_ref();
        displaced.is_some_and(|displaced| nonce <= displaced.nonce)
    }

    /// Block of the last final transaction that the record was charged for: a registration, whether it
    /// succeeded or reverted, or what used its nonce.
    #[must_use]
    pub fn final_block(&self) -> Option<u64> {
        let result = self.result.as_ref().map(|result| result.block);
        let reverted = self.reverted.as_ref().map(|reverted| reverted.block);
        let displaced = self.displaced.as_ref().map(|displaced| displaced.block);
        result.or(reverted).or(displaced)
    }
}

/// Registry contract, identified by its address and its code.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryContract {
    /// Address of the contract, in lower-case hex.
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub address: Address,
    /// Keccak-256 of the code at the address when the record was written. Not read; written, because
    /// older versions need it.
    #[serde(default)]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub code_hash: B256,
}

/// Progress of a registration.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Phase {
    /// Waiting for a nonce.
    #[default]
    Pending,
    /// A nonce is allocated; nothing is signed yet.
    Bound,
    /// Signed, stored and sent.
    Sent,
    /// Included in a block that a reorg may still remove.
    Included,
    /// Registered; final.
    Registered,
    /// Included and reverted; final.
    Reverted,
    /// No offer uses the agent.
    Tombstoned,
}

/// Offer that uses the agent.
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

/// Purpose of a transaction.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Operation {
    /// Register an agent.
    Register,
    /// Change an agent's URI.
    Update,
    /// Use up the nonce with an empty transaction.
    Filler,
}

/// Signed transaction.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Nonce of the transaction.
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[serde(with = "super::scalar::nonce_as_number")]
    pub nonce: Nonce,
    /// Purpose of the transaction: Register, Update or Filler.
    pub kind: Operation,
    /// Maximum fee per gas, in wei (EIP-1559).
    #[schemars(with = "String", length(max = 38), regex(pattern = schema::UNSIGNED))]
    pub max_fee_per_gas: Wei,
    /// Maximum priority fee per gas, in wei (EIP-1559).
    #[schemars(with = "String", length(max = 38), regex(pattern = schema::UNSIGNED))]
    pub max_priority_fee_per_gas: Wei,
    /// Gas limit.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub gas: u64,
    /// Hash of the transaction.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub hash: B256,
    /// When the transaction was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), extend("format" = "date-time"))]
    pub signed_at: Option<String>,
    /// Signed bytes of the transaction, in hex; kept for the last 8 attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 16384),
        regex(pattern = "^0x([0-9a-f]{2})*$")
    )]
    pub raw: Option<Bytes>,
}

/// URI update in progress.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriUpdate {
    /// URI to set.
    #[schemars(length(max = 2048))]
    pub agent_uri: String,
    /// Keccak-256 of the update's calldata.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub calldata_hash: B256,
}

/// Result of a final registration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResult {
    /// Id of the agent; "0" is a valid id.
    #[schemars(length(max = 78), regex(pattern = schema::UNSIGNED))]
    pub agent_id: String,
    /// Hash of the transaction that registered the agent; unset for an adopted agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub transaction: Option<B256>,
    /// Number of the block that includes the transaction; for an adopted agent, of the final block
    /// that proved its existence.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
    /// Hash of that block.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub block_hash: B256,
}

/// Registration that was included and reverted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct RevertedRegistration {
    /// Hash of the transaction.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub transaction: B256,
    /// Number of the block that includes it.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
}

/// Transaction of something else at the nonce of an attempt.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct DisplacingTransaction {
    /// The nonce.
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[serde(with = "super::scalar::nonce_as_number")]
    pub nonce: Nonce,
    /// Hash of the transaction.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub transaction: B256,
    /// Number of the block that includes it.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
}

/// Proof that a key is not registered.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ProvenAbsent {
    /// Last block that the proof covers.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
}
