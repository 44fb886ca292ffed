//! IdentityRegistry: how one chain's ERC-8004 identity registry is used. Admins write it; the
//! operator writes its status.
//!
//! Everything that affects money or identity is configured here and not in Helm values, because
//! `helm upgrade --set` forgets values that were given earlier. [`crate::reconcile::registry`] acts
//! on it.

use std::collections::BTreeMap;

use alloy::primitives::B256;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentCount, Condition, SecretKey, schema};

/// Configuration of one identity registry.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "obol.org",
    version = "v1alpha1",
    kind = "IdentityRegistry",
    plural = "identityregistries",
    shortname = "idr",
    category = "obol",
    status = "IdentityRegistryStatus",
    derive = "PartialEq",
    doc = "IdentityRegistry configures the use of one ERC-8004 identity registry: chain, RPC endpoints, signers, base URL, allowed namespaces and spending limits.",
    printcolumn(name = "Chain", type_ = "integer", json_path = ".spec.chainId"),
    printcolumn(
        name = "Signer",
        type_ = "string",
        json_path = ".spec.signers[0].address"
    ),
    printcolumn(
        name = "Balance",
        type_ = "string",
        json_path = ".status.signers[0].balance"
    ),
    printcolumn(
        name = "Left",
        type_ = "integer",
        json_path = ".status.registrationsLeft"
    ),
    printcolumn(name = "Agents", type_ = "integer", json_path = ".status.agents"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(schema::constant_address("address")).message("address is immutable: create another IdentityRegistry"),
    validation = Rule::new(schema::registry_address_known())
        .message("address is required: no registry is known for this chain id"),
    validation = Rule::new(schema::https_on_mainnets()).message("baseUrl must start with https:// on a mainnet chain"),
    validation = Rule::new("self.quorum <= self.rpc.size()").message("quorum is larger than the number of rpc endpoints"),
    validation = Rule::new("self.identityScope == 'Offer' || has(self.agent)")
        .message("agent is required unless identityScope is Offer: set agent.name")
)]
pub struct IdentityRegistrySpec {
    /// EIP-155 id of the chain. Immutable.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainId is immutable: create another IdentityRegistry"))]
    pub chain_id: u64,
    /// Address of the registry contract. Defaults to the reference deployment of the chain.
    /// Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::ADDRESS))]
    pub address: Option<String>,
    /// RPC endpoints of the chain. The first healthy one sends transactions.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(e, self.exists_one(f, f == e))").message("an rpc endpoint is listed twice")
    )]
    pub rpc: Vec<Endpoint>,
    /// Number of endpoints that must agree on what cannot be undone. This version supports 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8), extend("format" = "int32"))]
    pub quorum: u8,
    /// Accounts that own agents. The first one registers new agents; the others finish what they
    /// have begun and keep the agents they own. Nothing that one of them registered is registered
    /// again. Without signers the registry is watch-only: it adopts agents and never sends a
    /// transaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["address".into()]),
        validation = Rule::new("self.all(a, self.exists_one(b, b.address.lowerAscii() == a.address.lowerAscii()))")
            .message("a signer is listed twice")
    )]
    pub signers: Vec<Signer>,
    /// Public base URL of the agents' documents: absolute, without query or trailing slash, and
    /// https on a mainnet chain. The first transaction of an agent freezes it into the agent's URI.
    #[schemars(
        length(max = 512),
        regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*[^\s/?#])?$")
    )]
    pub base_url: String,
    /// Which offers share one agent: Offer (none, each has its own), Namespace (all offers of a
    /// namespace) or Registry (all offers). Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("identityScope is immutable: create another IdentityRegistry"))]
    pub identity_scope: IdentityScope,
    /// Shared agent, and subject of the well-known document. Required unless identityScope is
    /// Offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SharedAgent")]
    pub agent: Option<SharedAgent>,
    /// Namespaces whose offers may use this registry. If access is revoked later, agents keep their
    /// ids, their documents become inactive, and nothing is spent.
    pub allowed_namespaces: AllowedNamespaces,
    /// Spending limits, shared by all signers. The worst case of each transaction is checked against
    /// them before a nonce is allocated, and again when it is signed or replaced.
    #[serde(default)]
    pub limits: SpendingLimits,
    /// What happens when an agent's URI changes: Manual reports it, Automatic sends setAgentURI.
    #[serde(default)]
    pub uri_updates: UriUpdates,
    /// Incident switch. Spending: the operator signs and sends nothing, not even re-sends;
    /// documents stay up. All: it also stops writing status and records.
    #[serde(default)]
    pub suspend: Suspend,
    /// Permission to use a signer that has already sent transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bootstrap")]
    pub bootstrap: Option<Bootstrap>,
    /// Permission to recover a lost or quarantined ledger. Not supported by this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Recovery")]
    pub recovery: Option<Recovery>,
    /// Which namespace may adopt an agent that offers of several namespaces claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["agentId".into()]))]
    pub adoptions: Vec<Adoption>,
}

fn one() -> u8 {
    1
}

/// RPC endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.url) != has(self.urlFrom)").message("exactly one of url and urlFrom is required"))]
pub struct Endpoint {
    /// URL without credentials: no user, no query. Keep a URL that contains a credential in a
    /// Secret, see urlFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 2048),
        regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")
    )]
    pub url: Option<String>,
    /// Source of a URL with credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UrlFrom")]
    pub url_from: Option<UrlFrom>,
}

/// Source of a URL.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlFrom {
    /// Key of a Secret in the operator's namespace.
    pub secret_key_ref: SecretKey,
}

/// Account that signs registrations.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signer {
    /// Address of the account; it must match the private key.
    #[schemars(length(max = 42), regex(pattern = schema::ADDRESS))]
    pub address: String,
    /// Secret that holds the private key: in hex, or a JSON keystore.
    pub secret_ref: SecretKey,
    /// Secret that holds the password of a JSON keystore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKey")]
    pub password_secret_ref: Option<SecretKey>,
}

/// Which offers share one agent.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum IdentityScope {
    /// None: each offer has its own agent.
    #[default]
    Offer,
    /// All offers of a namespace.
    Namespace,
    /// All offers of the registry.
    Registry,
}

/// Agent that offers share.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct SharedAgent {
    /// Name in the agent's document.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Description in the agent's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 4096))]
    pub description: Option<String>,
    /// Absolute URL of the image in the agent's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub image: Option<String>,
}

/// Namespaces whose offers may use a registry or a facilitator.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)")
    .message("selector is required when from is Selector, and forbidden otherwise"))]
pub struct AllowedNamespaces {
    /// All namespaces, or those that match the selector: All or Selector.
    pub from: NamespacesFrom,
    /// Label selector over namespaces; required when from is Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Selector")]
    #[x_kube(validation = Rule::new("has(self.matchLabels) || has(self.matchExpressions)")
        .message("an empty selector would select every namespace: use from: All instead"))]
    pub selector: Option<Selector>,
}

/// How namespaces are selected.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum NamespacesFrom {
    /// Every namespace.
    All,
    /// Namespaces whose labels match the selector.
    Selector,
}

/// Label selector; all of its requirements must match.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<Requirement>,
}

/// Expression of a label selector.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)")
    .message("values are required for In and NotIn, and forbidden otherwise"))]
pub struct Requirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Operator: In, NotIn, Exists or DoesNotExist.
    pub operator: Operator,
    /// Values of the label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// Operator of an expression.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is set.
    Exists,
    /// The label is not set.
    DoesNotExist,
}

/// Spending limits, as positive decimal strings.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpendingLimits {
    /// Maximum fee per gas, in gwei. If unset, only perRegistration bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::GWEI).message(schema::GWEI_MESSAGE))]
    pub max_fee_per_gas_gwei: Option<String>,
    /// Maximum cost of one registration, in the chain's native token, like "0.005". The default allows
    /// a gas price of about 20 gwei; on Polygon, Celo, Monad or Hedera gas usually costs more.
    #[serde(default = "per_registration")]
    #[schemars(length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::NATIVE_AMOUNT).message(schema::NATIVE_AMOUNT_MESSAGE))]
    pub per_registration: String,
    /// Maximum amount spent in 24 hours, in the chain's native token.
    #[serde(default = "per_day")]
    #[schemars(length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::NATIVE_AMOUNT).message(schema::NATIVE_AMOUNT_MESSAGE))]
    pub per_day: String,
    /// Maximum amount spent in 24 hours for the offers of one namespace, in the chain's native
    /// token. If unset, namespaces share perDay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::NATIVE_AMOUNT).message(schema::NATIVE_AMOUNT_MESSAGE))]
    pub per_namespace_per_day: Option<String>,
}

/// A registration with a 98-byte URI has a gas limit of about 250,000: 0.005 allows 20 gwei, far above
/// the price of an L2.
fn per_registration() -> String {
    "0.005".into()
}

/// Ten registrations at the limit of each.
fn per_day() -> String {
    "0.05".into()
}

impl Default for SpendingLimits {
    fn default() -> Self {
        Self {
            max_fee_per_gas_gwei: None,
            per_registration: per_registration(),
            per_day: per_day(),
            per_namespace_per_day: None,
        }
    }
}

/// What happens when an agent's URI changes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum UriUpdates {
    /// The operator reports the change, with count and cost.
    #[default]
    Manual,
    /// The operator sends setAgentURI.
    Automatic,
}

/// What the incident switch stops.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Suspend {
    /// The operator works normally.
    #[default]
    None,
    /// The operator signs and sends nothing.
    Spending,
    /// The operator writes nothing.
    All,
}

/// Permission to use a signer that has already sent transactions.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.atNonce < 1 || has(self.fromBlock)")
    .message("fromBlock is required when atNonce is above 0: set a block before the signer's first transaction"))]
pub struct Bootstrap {
    /// Transaction count of the signer. It takes effect only while no transaction of the signer is
    /// pending and there is no sign of an earlier ledger.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub at_nonce: u64,
    /// Block at which the signer had sent no transaction and held no agent. The operator reads logs
    /// from this block on and adopts the agents that it finds. A lower block can be set later, to
    /// read earlier logs. Required when atNonce is above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub from_block: Option<u64>,
    /// Agents that belong to no offer. An agent that a signer has registered and whose URI names no
    /// key may be the agent of an offer: until an offer adopts it or it is listed here, nothing is
    /// registered. An agent that an unknown account has registered with the URI of an offer's agent
    /// keeps that offer from being registered until it is listed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IgnoredAgents")]
    pub ignore_agents: Option<IgnoredAgents>,
}

/// Agents of the signers that belong to no offer.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IgnoredAgents {
    /// Their ids; "0" is a valid id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(max = 78), regex(pattern = schema::UNSIGNED))
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ids: Vec<String>,
    /// Every agent without a key that was registered up to this block, for signers with more agents
    /// than can be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub up_to_block: Option<u64>,
}

/// Namespace that may adopt an agent.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adoption {
    /// Id of the agent; "0" is a valid id.
    #[schemars(length(max = 78), regex(pattern = schema::UNSIGNED))]
    pub agent_id: String,
    /// Namespace whose offers may adopt the agent.
    #[schemars(length(max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
}

/// Permission to recover a ledger. Recovery uses up nonces by sending up to 256 empty transactions.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// Uid of the lost or quarantined ledger; condition Stalled names it.
    #[schemars(length(min = 1, max = 64))]
    pub approved_for: String,
}

/// Status that the operator observed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRegistryStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991i64))]
    pub observed_generation: Option<i64>,
    /// Conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Ledgers in use. An entry whose SignerLedger is missing shows that the ledger was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["signer".into()]))]
    pub ledgers: Vec<LedgerMarker>,
    /// How far the logs of each signer were read, so that another replica can continue there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["signer".into()]))]
    pub indexes: Vec<IndexPosition>,
    /// Block of the first agent with the URI of a document of this registry whose account nothing in
    /// the cluster names. After a restart, the logs of all accounts are read from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub orphans_from: Option<u64>,
    /// Signers and their balances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub signers: Vec<SignerStatus>,
    /// Number of registered agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub agents: Option<u32>,
    /// Number of registrations in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub pending: Option<u32>,
    /// Number of registrations that balance and limits still allow at the current gas price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub registrations_left: Option<u32>,
    /// Amount spent in the last 24 hours, in the chain's native token.
    #[serde(
        rename = "spentLast24h",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String", length(max = 100))]
    pub spent_last_24h: Option<String>,
}

/// Marker that a signer has a ledger.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct LedgerMarker {
    /// Address of the signer, in lower-case hex.
    #[schemars(length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub signer: String,
    /// Uid of the signer's SignerLedger.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// How far the logs of one signer were read.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexPosition {
    /// Address of the signer, in lower-case hex.
    #[schemars(length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub signer: String,
    /// First block that was read.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub from_block: u64,
    /// First block that was not read.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
    /// Number of agents that the signer holds before that block, by the logs.
    #[schemars(with = "String", length(max = 77), regex(pattern = schema::UNSIGNED))]
    pub held: AgentCount,
    /// Number of keys that the logs show to be registered.
    #[schemars(range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub keys: u32,
    /// Keccak-256 of these keys.
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub keys_hash: B256,
    /// Agents that the signer registered before that block and whose URI names no key. Unset if an
    /// older version wrote the position, which did not look for them: then all logs are read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<AgentWithoutKey>", length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub without_key: Option<Vec<AgentWithoutKey>>,
}

/// Agent that a signer registered and whose URI names no key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentWithoutKey {
    /// Id of the agent.
    #[schemars(length(max = 78), regex(pattern = schema::UNSIGNED))]
    pub agent_id: String,
    /// Beginning of the URI with which it was registered, without control characters.
    #[schemars(length(max = 200))]
    pub agent_uri: String,
    /// Block in which it was registered.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: u64,
}

/// Signer and its balance.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct SignerStatus {
    /// Address of the signer.
    #[schemars(length(max = 42))]
    pub address: String,
    /// Balance of the signer, in the chain's native token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 100))]
    pub balance: Option<String>,
}
