//! SignerLedger: allocates the nonces of one account on one chain. Only the operator writes it.
//!
//! The API server itself guards it: a nonce has one owner by structure (it is a map key), a key has one Register entry
//! by rule, and both survive any writer's mistake. All rules are linear in the number of entries; a quadratic one passes
//! the CRD's cost estimate and then refuses every write at a thousand entries.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Key, Nonce, Operation, schema};

/// Who owns which nonce.
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
    ).message("the name of a ledger is <chainId>-<signer>")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.next >= oldSelf.next").message("next never decreases"),
    validation = Rule::new("self.finalizedNonce >= oldSelf.finalizedNonce && self.finalizedBlock >= oldSelf.finalizedBlock")
        .message("finalizedNonce and finalizedBlock never decrease"),
    validation = Rule::new("self.entries.all(n, n in oldSelf.entries || int(n) >= oldSelf.next)")
        .message("an entry that is added takes a nonce at or above the next that stood before"),
    validation = Rule::new("self.entries.all(n, n.matches('^(0|[1-9][0-9]{0,15})$') && int(n) < self.next)")
        .message("every entry is a plain decimal nonce below next"),
    validation = Rule::new(
        "self.registering.all(k, self.registering[k] in self.entries && self.entries[self.registering[k]].?key.orValue('') == k && self.entries[self.registering[k]].operation == 'Register')"
    ).message("registering points at a Register entry of its key"),
    validation = Rule::new(
        "self.entries.all(n, self.entries[n].operation != 'Register' || (self.entries[n].?key.orValue('') in self.registering && self.registering[self.entries[n].?key.orValue('')] == n))"
    ).message("every Register entry is listed in registering, so a key has at most one"),
    validation = Rule::new("oldSelf.registering.all(k, !(k in self.registering) || self.registering[k] == oldSelf.registering[k])")
        .message("a key leaves the ledger in one write and comes back in another"),
    validation = Rule::new("oldSelf.entries.all(n, n in self.entries || int(n) < self.finalizedNonce)")
        .message("an entry is pruned only below finalizedNonce"),
    validation = Rule::new("(self.state == 'Quarantine') == has(self.quarantine)")
        .message("quarantine is set exactly while state is Quarantine"),
    validation = Rule::new("!oldSelf.draining || self.draining").message("draining is permanent"),
    validation = Rule::new("self.clusterUid == oldSelf.clusterUid || oldSelf.state == 'Quarantine'")
        .message("clusterUid changes only in Quarantine")
)]
pub struct SignerLedgerSpec {
    /// EIP-155 id of the chain.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainId is immutable"))]
    pub chain_id: u64,
    /// Hash of the chain's first block.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("genesisHash is immutable"))]
    pub genesis_hash: B256,
    /// Address of the account, in lower case.
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("signer is immutable"))]
    pub signer: Address,
    /// Uid of the namespace kube-system of the cluster that the ledger belongs to; a copy elsewhere is told by it.
    #[schemars(length(max = 64))]
    pub cluster_uid: String,
    /// Active, or Quarantine: nothing is allocated.
    pub state: LedgerState,
    /// Whether the ledger takes no further keys; permanent.
    #[serde(default)]
    pub draining: bool,
    /// Why nothing is allocated, and until when; set exactly while state is Quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quarantine")]
    pub quarantine: Option<Quarantine>,
    /// First nonce that nobody owns yet; never decreases.
    #[serde(with = "super::scalar::nonce_as_number")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub next: Nonce,
    /// Nonces below this one are used up in final blocks; never decreases.
    #[serde(with = "super::scalar::nonce_as_number")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub finalized_nonce: Nonce,
    /// Final block that this ledger relies on; never decreases.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub finalized_block: u64,
    /// The owner of each nonce in use.
    #[schemars(with = "BTreeMap<String, Entry>", extend("maxProperties" = 1024))]
    pub entries: BTreeMap<Nonce, Entry>,
    /// Each key that is being registered, and the nonce of its one Register entry.
    #[schemars(
        with = "BTreeMap<String, String>",
        extend("maxProperties" = 1024, "additionalProperties" = {"type": "string", "maxLength": 16, "pattern": schema::UNSIGNED})
    )]
    pub registering: BTreeMap<Key, Nonce>,
    /// Counts quarantines.
    #[schemars(range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub epoch: u32,
    /// Hash over all writes so far, so that a restored copy is told from its original.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub history_hash: B256,
}

impl SignerLedger {
    /// Name of the ledger of an account on a chain.
    #[must_use]
    pub fn name_of(chain_id: u64, signer: Address) -> String {
        format!("{chain_id}-{signer:#x}")
    }
}

/// Whether nonces are allocated.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum LedgerState {
    /// They are.
    Active,
    /// They are not.
    Quarantine,
}

/// Why nothing is allocated, and until when.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Quarantine {
    /// Why: New, Lost, Rollback or Clone.
    pub reason: QuarantineReason,
    /// Nonces below this one must be used up before anything is allocated.
    #[serde(with = "super::scalar::nonce_as_number")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub bound: Nonce,
}

/// Why nothing is allocated.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum QuarantineReason {
    /// The ledger has just been created.
    New,
    /// An earlier ledger of this signer is missing.
    Lost,
    /// The chain knows more than the ledger.
    Rollback,
    /// The ledger belongs to another cluster.
    Clone,
}

/// The owner of one nonce.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("an entry is immutable"),
    validation = Rule::new("self.operation == 'Filler' || has(self.key)").message("key is required unless operation is Filler")
)]
pub struct Entry {
    /// Key of the agent; a Filler needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 16), regex(pattern = schema::KEY))]
    pub key: Option<Key>,
    /// What the nonce is used for: Register, Update or Filler.
    pub operation: Operation,
}
