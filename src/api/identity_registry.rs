//! IdentityRegistry: how one chain's ERC-8004 identity registry is used. Admins write it; the operator writes its
//! status.
//!
//! What money or identity depends on stands here and not in Helm values: `helm upgrade --set` forgets values that were
//! given earlier.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, SecretKey, schema};

/// How one identity registry is used.
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
    doc = "IdentityRegistry says how one chain's ERC-8004 identity registry is used: endpoints, signers, base URL, who may use it, and what it may cost.",
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
    validation = Rule::new(schema::constant("address")).message("address is immutable: make another IdentityRegistry"),
    validation = Rule::new(schema::registry_address_known())
        .message("address is required: no registry is known for this chain id"),
    validation = Rule::new(schema::https_on_mainnets()).message("baseUrl must start with https:// on a mainnet chain"),
    validation = Rule::new("self.quorum <= self.rpc.size()").message("quorum is larger than the number of rpc endpoints"),
    validation = Rule::new("self.identityScope == 'Offer' || has(self.agent)")
        .message("agent is required unless identityScope is Offer: give agent.name")
)]
pub struct IdentityRegistrySpec {
    /// EIP-155 id of the chain. Immutable.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainId is immutable: make another IdentityRegistry"))]
    pub chain_id: u64,
    /// Address of the registry contract; the one of the reference deployment when unset. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::ADDRESS))]
    pub address: Option<String>,
    /// Endpoints of the chain; the first healthy one sends.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(e, self.exists_one(f, f == e))").message("an rpc endpoint is listed twice")
    )]
    pub rpc: Vec<Endpoint>,
    /// How many endpoints must agree on what cannot be taken back.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8), extend("format" = "int32"))]
    pub quorum: u8,
    /// Accounts that own agents. The first one registers, the rest keep serving the agents they own. None: watch only,
    /// nothing is ever minted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["address".into()]),
        validation = Rule::new("self.all(a, self.exists_one(b, b.address.lowerAscii() == a.address.lowerAscii()))")
            .message("a signer is listed twice")
    )]
    pub signers: Vec<Signer>,
    /// Absolute URL under which the agents' documents are reachable, without query or trailing slash; https on a mainnet
    /// chain. It is frozen into an agent's URI by the agent's first transaction.
    #[schemars(
        length(max = 512),
        regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*[^\s/?#])?$")
    )]
    pub base_url: String,
    /// What shares one agent: Offer (each has its own), Namespace (all offers of one), or Registry (all offers). Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("identityScope is immutable: make another IdentityRegistry"))]
    pub identity_scope: IdentityScope,
    /// The shared agent, and the subject of the well-known document; required unless identityScope is Offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SharedAgent")]
    pub agent: Option<SharedAgent>,
    /// Namespaces whose offers may use this registry. Taken away later, agents keep their id, their documents turn
    /// inactive, and nothing is spent.
    pub allowed_namespaces: AllowedNamespaces,
    /// Spending limits.
    #[serde(default)]
    pub limits: SpendingLimits,
    /// What happens when an agent's URI changes: Manual reports it, Automatic sends setAgentURI.
    #[serde(default)]
    pub uri_updates: UriUpdates,
    /// Incident switch. Spending: nothing is signed or sent, re-sends included, and documents stay up. All: status and
    /// records are not written either.
    #[serde(default)]
    pub suspend: Suspend,
    /// Permission to use a wallet that has already sent transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bootstrap")]
    pub bootstrap: Option<Bootstrap>,
    /// Permission to recover a lost or quarantined ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Recovery")]
    pub recovery: Option<Recovery>,
}

fn one() -> u8 {
    1
}

/// One RPC endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.url) != has(self.urlFrom)").message("exactly one of url and urlFrom is required"))]
pub struct Endpoint {
    /// URL without credentials: no user, no query. A URL that holds a key belongs into a Secret: see urlFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 2048),
        regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")
    )]
    pub url: Option<String>,
    /// Where a URL with credentials is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UrlFrom")]
    pub url_from: Option<UrlFrom>,
}

/// Source of a URL.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlFrom {
    /// Key of a Secret in the namespace where the operator runs.
    pub secret_key_ref: SecretKey,
}

/// One signing account.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signer {
    /// Address of the account; it must be the address of the key.
    #[schemars(length(max = 42), regex(pattern = schema::ADDRESS))]
    pub address: String,
    /// Where the private key is kept, in hex.
    pub secret_ref: SecretKey,
}

/// What shares one agent.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum IdentityScope {
    /// Nothing: each offer has an agent of its own.
    #[default]
    Offer,
    /// The offers of one namespace.
    Namespace,
    /// All offers of the registry.
    Registry,
}

/// The agent that offers share.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct SharedAgent {
    /// Name in the document.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Description in the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 4096))]
    pub description: Option<String>,
    /// Absolute URL of the image in the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub image: Option<String>,
}

/// Which namespaces may use a registry.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)")
    .message("selector is required when from is Selector, and forbidden otherwise"))]
pub struct AllowedNamespaces {
    /// All, or those that a Selector picks.
    pub from: NamespacesFrom,
    /// Label selector over namespaces; required when from is Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Selector")]
    #[x_kube(validation = Rule::new("has(self.matchLabels) || has(self.matchExpressions)")
        .message("an empty selector picks every namespace: write from: All if that is meant"))]
    pub selector: Option<Selector>,
}

/// How namespaces are picked.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum NamespacesFrom {
    /// Every namespace.
    All,
    /// Those whose labels match.
    Selector,
}

/// A label selector; all of its parts must hold.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must be equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<Requirement>,
}

/// One expression of a selector.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)")
    .message("values are required for In and NotIn, and forbidden otherwise"))]
pub struct Requirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: Operator,
    /// Values of the label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// How an expression compares.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Operator {
    /// The label is one of the values.
    In,
    /// The label is absent or none of the values.
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
    /// Highest fee per gas, in gwei; bounded by perRegistration alone when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::GWEI).message(schema::GWEI_MESSAGE))]
    pub max_fee_per_gas_gwei: Option<String>,
    /// Most that one registration may cost, in whole units of the chain's coin.
    #[serde(default = "per_registration")]
    #[schemars(length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::COIN).message(schema::COIN_MESSAGE))]
    pub per_registration: String,
    /// Most that may be spent in 24 hours, in whole units of the chain's coin.
    #[serde(default = "per_day")]
    #[schemars(length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::COIN).message(schema::COIN_MESSAGE))]
    pub per_day: String,
    /// Most that one namespace may spend in 24 hours, in whole units of the chain's coin; no limit of its own when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    #[x_kube(validation = Rule::new(schema::COIN).message(schema::COIN_MESSAGE))]
    pub per_namespace_per_day: Option<String>,
}

/// A registration with a 98-byte URI uses about 210,000 gas: 0.005 allows 24 gwei, far above the price of an L2.
fn per_registration() -> String {
    "0.005".into()
}

/// Ten registrations at their limit.
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
    /// It is reported, with count and cost.
    #[default]
    Manual,
    /// setAgentURI is sent.
    Automatic,
}

/// What the incident switch stops.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Suspend {
    /// Nothing.
    #[default]
    None,
    /// Signing and sending.
    Spending,
    /// Every write.
    All,
}

/// Permission to use a wallet that has already sent transactions.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The wallet's transaction count. Valid while nothing of the wallet is pending and no trace of an earlier ledger
    /// exists.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub at_nonce: u64,
}

/// Permission to recover a ledger. Recovery uses up nonces, at a cost of up to 256 empty transactions.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// Uid of the lost ledger, or of the ledger in quarantine; condition Stalled names it.
    #[schemars(length(min = 1, max = 64))]
    pub approved_for: String,
}

/// What the operator observed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRegistryStatus {
    /// Generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991i64))]
    pub observed_generation: Option<i64>,
    /// Conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Ledgers in use. An entry whose SignerLedger is missing tells that it was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["signer".into()]))]
    pub ledgers: Vec<LedgerMarker>,
    /// Signers and what they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub signers: Vec<SignerStatus>,
    /// Agents that are registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub agents: Option<u32>,
    /// Registrations under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub pending: Option<u32>,
    /// Registrations that balance and limits still allow, at the price of the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub registrations_left: Option<u32>,
    /// Spent in the last 24 hours, in whole units of the chain's coin.
    #[serde(
        rename = "spentLast24h",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "String", length(max = 100))]
    pub spent_last_24h: Option<String>,
}

/// The ledger of one signer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct LedgerMarker {
    /// Address of the signer, in lower case.
    #[schemars(length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub signer: String,
    /// Uid of its SignerLedger.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// A signer and what it holds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct SignerStatus {
    /// Address of the signer.
    #[schemars(length(max = 42))]
    pub address: String,
    /// Balance in whole units of the chain's coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 100))]
    pub balance: Option<String>,
}
