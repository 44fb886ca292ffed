//! How an offer is listed on an identity registry.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Reference, schema};

/// Listing on an ERC-8004 identity registry.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Whether to list the offer. Turned off later, the agent keeps its id and its document turns inactive, without a
    /// transaction.
    #[serde(default)]
    pub enabled: bool,
    /// The IdentityRegistry to use. Unset: the one that the agent's record already uses, else the one annotated
    /// obol.org/is-default-registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Reference")]
    pub registry_ref: Option<Reference>,
    /// Name part of the agent's identity; the name of the offer when unset. Offers of one namespace with the same
    /// identity share one agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub identity: Option<String>,
    /// Adopt this existing agent; nothing is ever minted for the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 78), regex(pattern = schema::UNSIGNED))]
    pub agent_id: Option<String>,
    /// Raise to ask for a new agent: a new registration, paid anew. It may only grow.
    #[serde(default = "first_edition")]
    #[schemars(range(min = 1, max = 2_147_483_647), extend("format" = "int64"))]
    pub edition: u32,
    /// Name in the agent's document; the name of the offer when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    pub name: Option<String>,
    /// Description in the agent's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 4096))]
    pub description: Option<String>,
    /// Absolute URL of the image in the agent's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub image: Option<String>,
    /// Trust models the agent supports, like reputation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub supported_trust: Vec<String>,
    /// Skills by the OASF taxonomy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub skills: Vec<String>,
    /// Domains by the OASF taxonomy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub domains: Vec<String>,
    /// Further keys and values of the agent's document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub metadata: BTreeMap<String, String>,
    /// Further services in the agent's document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub services: Vec<RegistrationService>,
}

fn first_edition() -> u32 {
    1
}

/// One service in an agent's document.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct RegistrationService {
    /// Kind of the service: web, A2A, MCP, OASF, ENS, DID or email.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Where the service is.
    #[schemars(length(max = 2048))]
    pub endpoint: String,
    /// Version of its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub version: Option<String>,
}
