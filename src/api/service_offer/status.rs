//! Status of an offer, for people and for the x402 verifier.
//!
//! Nothing that decides about money relies on it, with one exception: the key in `registration`
//! freezes the offer's identity, so the registry loop waits for it before it allocates a nonce.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Condition, Key, OTHER_GATE, condition, schema};

/// Status that the operator observed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOfferStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991i64))]
    pub observed_generation: Option<i64>,
    /// Conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Public path of the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub endpoint: Option<String>,
    /// Public URL of the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub url: Option<String>,
    /// Price of the offer, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub price: Option<String>,
    /// Id of the agent; "0" is a valid id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 78))]
    pub agent_id: Option<String>,
    /// Hash of the transaction that registered the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66))]
    pub registration_tx_hash: Option<String>,
    /// Resolved Agent of an offer of type agent; the x402 verifier reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AgentResolution")]
    pub agent_resolution: Option<AgentResolution>,
    /// Registration of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RegistrationStatus")]
    pub registration: Option<RegistrationStatus>,
}

impl ServiceOfferStatus {
    /// The condition that says that another controller sells the offer as well.
    pub(crate) fn other_gate(&self) -> Option<&Condition> {
        condition::find(&self.conditions, "Stalled")
            .filter(|own| own.is_true() && own.reason.as_deref() == Some(OTHER_GATE))
    }
}

/// Resolved Agent.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct AgentResolution {
    /// Model of the Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    pub model: Option<String>,
    /// Runtime of the Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub runtime: Option<String>,
    /// Endpoint of the Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub endpoint: Option<String>,
    /// Skills of the Agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub skills: Vec<String>,
}

/// Registration of an agent.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationStatus {
    /// Name of the IdentityRegistry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 253))]
    pub registry: Option<String>,
    /// Key of the agent; its record is the AgentRegistration r-<key>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 16), regex(pattern = schema::KEY))]
    pub key: Option<Key>,
    /// Id of the agent; "0" is a valid id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 78))]
    pub agent_id: Option<String>,
    /// URI of the agent on chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub agent_uri: Option<String>,
    /// Owner of the agent on chain when it was adopted; unset for an agent that was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42))]
    pub owner: Option<String>,
    /// Hash of the transaction that registered the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66))]
    pub transaction: Option<String>,
    /// Number of the block that includes the transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub block: Option<u64>,
    /// Whether that block is final.
    #[serde(rename = "final", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub final_: Option<bool>,
}
