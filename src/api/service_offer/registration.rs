//! Registration of an offer on an identity registry.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Reference, schema};

/// Registration on an ERC-8004 identity registry.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Whether to register the offer. If this is disabled later, the agent keeps its id and its
    /// document becomes inactive; no transaction is sent.
    #[serde(default)]
    pub enabled: bool,
    /// IdentityRegistry to use. Defaults to the one that the agent's record uses, or else to the
    /// one with the annotation obol.org/is-default-registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Reference")]
    pub registry_ref: Option<Reference>,
    /// Name part of the agent's identity. Defaults to the offer's name. Offers in one namespace
    /// with the same identity share one agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub identity: Option<String>,
    /// Id of an existing agent to adopt. No new agent is ever registered for the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 78), regex(pattern = schema::UNSIGNED))]
    pub agent_id: Option<String>,
    /// Edition of the agent. Raise it to get a new agent, which costs a new registration. It can
    /// only be raised.
    #[serde(default = "first_edition")]
    #[schemars(range(min = 1, max = 2_147_483_647), extend("format" = "int64"))]
    pub edition: u32,
    /// Name in the agent's document. Defaults to the offer's name.
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
    /// Trust models that the agent supports, like reputation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub supported_trust: Vec<String>,
    /// Skills of the agent, from the OASF taxonomy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub skills: Vec<String>,
    /// Domains of the agent, from the OASF taxonomy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub domains: Vec<String>,
    /// Additional keys and values in the agent's document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub metadata: BTreeMap<String, String>,
    /// Additional services in the agent's document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub services: Vec<RegistrationService>,
}

fn first_edition() -> u32 {
    1
}

/// Service in an agent's document.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct RegistrationService {
    /// Kind of the service: web, A2A, MCP, OASF, ENS, DID or email.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Endpoint of the service.
    #[schemars(length(max = 2048))]
    pub endpoint: String,
    /// Version of the service's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub version: Option<String>,
}
