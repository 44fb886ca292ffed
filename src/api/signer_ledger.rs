//! SignerLedger: allocates the nonces of one account on one chain. Only the operator writes it.
//!
//! The API server enforces its invariants, whatever a writer does wrong: a nonce has one owner
//! because it is a map key, and CEL rules give a key at most one Register entry. All rules are
//! linear in the number of entries: a quadratic rule passes the cost estimate of the CRD and then
//! rejects every write at a thousand entries. [`crate::ledger::protocol`] decides what is written
//! here.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentCount, Key, Nonce, Operation, schema};

/// Nonces of one signer and their owners.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[kube(
    group = "obol.org",
    version = "v1alpha1",
    kind = "SignerLedger",
    plural = "signerledgers",
    shortname = "sl",
    derive = "PartialEq",
    doc = "SignerLedger allocates the nonces of one signer on one chain. Only the operator writes it; do not delete it.",
    printcolumn(name = "Chain", type_ = "integer", json_path = ".spec.chainId"),
    printcolumn(name = "Signer", type_ = "string", json_path = ".spec.signer"),
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Next", type_ = "integer", json_path = ".spec.next"),
    printcolumn(name = "Finalized", type_ = "integer", json_path = ".spec.finalizedNonce"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(
        "self.metadata.name.matches('^[1-9][0-9]*-0x[0-9a-f]{40}$') && self.metadata.name.endsWith(self.spec.signer) && int(self.metadata.name.split('-')[0]) == self.spec.chainId"
    ).message("the name of a ledger must be <chainId>-<signer>")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.next >= oldSelf.next").message("next never decreases"),
    validation = Rule::new("self.finalizedNonce >= oldSelf.finalizedNonce && self.finalizedBlock >= oldSelf.finalizedBlock")
        .message("finalizedNonce and finalizedBlock never decrease"),
    validation = Rule::new("self.entries.all(n, n in oldSelf.entries || int(n) >= oldSelf.next)")
        .message("a new entry needs a nonce at or above the previous next"),
    validation = Rule::new("self.entries.all(n, n.matches('^(0|[1-9][0-9]{0,15})$') && int(n) < self.next)")
        .message("every entry must be a decimal nonce below next"),
    validation = Rule::new(
        "self.registering.all(k, self.registering[k] in self.entries && self.entries[self.registering[k]].?key.orValue('') == k && self.entries[self.registering[k]].operation == 'Register')"
    ).message("registering must point at a Register entry of its key"),
    validation = Rule::new(
        "self.entries.all(n, self.entries[n].operation != 'Register' || (self.entries[n].?key.orValue('') in self.registering && self.registering[self.entries[n].?key.orValue('')] == n))"
    ).message("every Register entry must be listed in registering: a key has at most one"),
    validation = Rule::new("oldSelf.registering.all(k, !(k in self.registering) || self.registering[k] == oldSelf.registering[k])")
        .message("a key cannot leave the ledger and return to it in one write"),
    validation = Rule::new("oldSelf.entries.all(n, n in self.entries || int(n) < self.finalizedNonce)")
        .message("an entry can be pruned only below finalizedNonce"),
    validation = Rule::new("(self.state == 'Quarantine') == has(self.quarantine)")
        .message("quarantine must be set if and only if state is Quarantine"),
    validation = Rule::new("!oldSelf.draining || self.draining").message("draining is permanent"),
    validation = Rule::new("self.clusterUid == oldSelf.clusterUid || oldSelf.state == 'Quarantine'")
        .message("clusterUid can change only in Quarantine"),
    // An older version drops these fields when it writes the ledger, so all of them may be removed.
    validation = Rule::new(
        "!has(self.fromBlock) || (has(oldSelf.fromBlock) ? self.fromBlock <= oldSelf.fromBlock : oldSelf.?quarantine.?reason.orValue('') == 'New')"
    ).message("fromBlock is set while the ledger is new; later it can be lowered or removed"),
    validation = Rule::new("has(self.fromBlock) == has(self.fromBalance)")
        .message("fromBlock and fromBalance must be set together"),
    validation = Rule::new(
        "!has(self.fromBlock) || !has(self.fromBalance) || !has(oldSelf.fromBlock) || !has(oldSelf.fromBalance) || (self.fromBlock < oldSelf.fromBlock ? self.fromBalance == '0' : self.fromBalance == oldSelf.fromBalance)"
    ).message("fromBalance changes only when fromBlock is lowered, to 0"),
    validation = Rule::new("!has(self.fromRegistry) || (has(self.fromBlock) && self.fromBlock == oldSelf.?fromBlock.orValue(self.fromBlock))")
        .message("fromRegistry needs fromBlock, and is removed when fromBlock is lowered"),
    validation = Rule::new(
        "!has(self.fromRegistry) || (has(oldSelf.fromRegistry) ? self.fromRegistry == oldSelf.fromRegistry : oldSelf.?quarantine.?reason.orValue('') == 'New')"
    ).message("fromRegistry is set while the ledger is new; later it can be removed")
)]
pub struct SignerLedgerSpec {
    /// EIP-155 id of the chain.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainId is immutable"))]
    pub chain_id: u64,
    /// Hash of the chain's genesis block.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("genesisHash is immutable"))]
    pub genesis_hash: B256,
    /// Address of the signer, in lower-case hex.
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("signer is immutable"))]
    pub signer: Address,
    /// Uid of the kube-system namespace of the ledger's cluster; it reveals a copy in another
    /// cluster.
    #[schemars(length(max = 64))]
    pub cluster_uid: String,
    /// State of the ledger: Active, or Quarantine (no nonce is allocated).
    pub state: LedgerState,
    /// Whether the ledger accepts no further keys. Permanent.
    #[serde(default)]
    pub draining: bool,
    /// Why no nonce is allocated, and until when. Set if and only if state is Quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quarantine")]
    pub quarantine: Option<Quarantine>,
    /// Lowest nonce that has never been allocated. Never decreases.
    #[serde(with = "super::scalar::nonce_as_number")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub next: Nonce,
    /// All nonces below this one are used up in final blocks. Never decreases.
    #[serde(with = "super::scalar::nonce_as_number")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub finalized_nonce: Nonce,
    /// Final block that this ledger relies on. Never decreases.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub finalized_block: u64,
    /// Owner of each nonce in use.
    #[schemars(with = "BTreeMap<String, Entry>", extend("maxProperties" = 1024))]
    pub entries: BTreeMap<Nonce, Entry>,
    /// Nonce of the Register entry of each key that is being registered.
    #[schemars(
        with = "BTreeMap<String, String>",
        extend("maxProperties" = 1024, "additionalProperties" = {"type": "string", "maxLength": 16, "pattern": schema::UNSIGNED})
    )]
    pub registering: BTreeMap<Key, Nonce>,
    /// Final block at which the signer had sent no transaction, so that no earlier log shows a
    /// registration by it. If it is unset, logs are read from bootstrap.fromBlock of the
    /// IdentityRegistry, or from block 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub from_block: Option<u64>,
    /// Number of agents that the signer held in fromRegistry at fromBlock, all of them received from
    /// other accounts; 0 if fromBlock was configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 77), regex(pattern = schema::UNSIGNED))]
    pub from_balance: Option<AgentCount>,
    /// Address of the registry contract from which fromBalance was read, in lower-case hex; unset
    /// if fromBlock was configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub from_registry: Option<Address>,
    /// Not read; written, because older versions need it.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub epoch: u32,
    /// Hash over all writes so far; it distinguishes a restored copy from its original.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub history_hash: B256,
}

impl SignerLedger {
    /// Name of a signer's ledger on a chain.
    #[must_use]
    pub fn name_of(chain_id: u64, signer: Address) -> String {
        format!("{chain_id}-{signer:#x}")
    }
}

/// Whether the ledger allocates nonces.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum LedgerState {
    /// Nonces are allocated.
    Active,
    /// No nonce is allocated.
    Quarantine,
}

/// Why no nonce is allocated, and until when.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Quarantine {
    /// Cause: New, Lost, Rollback or Clone.
    pub reason: QuarantineReason,
    /// All nonces below this one must be used up before a nonce is allocated.
    #[serde(with = "super::scalar::nonce_as_number")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub bound: Nonce,
}

/// Why no nonce is allocated.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum QuarantineReason {
    /// The ledger is new.
    New,
    /// An earlier ledger of this signer is missing.
    Lost,
    /// The signer has sent more transactions than the ledger knows of.
    Rollback,
    /// The ledger belongs to another cluster.
    Clone,
}

/// Owner of one nonce.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("an entry is immutable"),
    validation = Rule::new("self.operation == 'Filler' || has(self.key)").message("key is required unless operation is Filler")
)]
pub struct Entry {
    /// Key of the agent that owns the nonce; unset for a Filler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 16), regex(pattern = schema::KEY))]
    pub key: Option<Key>,
    /// Purpose of the nonce: Register, Update or Filler.
    pub operation: Operation,
}
