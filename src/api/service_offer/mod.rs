//! ServiceOffer: what a seller offers. People write it; the operator writes only its status.
//!
//! It has the fields of every version of the legacy controller, so that existing objects apply
//! unchanged and lose nothing. Condition `Accepted` lists the fields that this version does not act
//! on. [`crate::registration`] decides what an offer means.

mod delivery;
mod payment;
mod registration;
mod status;

pub use delivery::*;
use kube::{CustomResource, KubeSchema};
pub use payment::*;
pub use registration::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use status::*;
use std::collections::BTreeMap;

use super::{PAUSED_ANNOTATION, schema};

/// What the offer sells: a Service in the cluster, its price, and its registration.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "obol.org",
    version = "v1alpha1",
    kind = "ServiceOffer",
    plural = "serviceoffers",
    shortname = "so",
    shortname = "offer",
    category = "obol",
    namespaced,
    status = "ServiceOfferStatus",
    derive = "PartialEq",
    doc = "ServiceOffer sells an in-cluster HTTP service: routed, gated by x402 payments, and listed on an ERC-8004 identity registry.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Price", type_ = "string", json_path = ".status.price"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.payment.network"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentId"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.name", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Registry", type_ = "string", json_path = ".status.registration.registry", priority = 1),
    validation = Rule::new(schema::identity_frozen())
        .message(schema::FROZEN).field_path(".spec.registration.identity").reason(Reason::FieldValueForbidden),
    validation = Rule::new(schema::registry_frozen())
        .message(schema::FROZEN).field_path(".spec.registration.registryRef").reason(Reason::FieldValueForbidden),
    validation = Rule::new(schema::agent_id_frozen())
        .message(schema::FROZEN).field_path(".spec.registration.agentId").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!oldSelf.?status.?registration.?key.hasValue() || self.?status.?registration.?key.hasValue()")
        .message("status.registration.key is never removed: it is what freezes the identity")
        .field_path(".status.registration").reason(Reason::FieldValueForbidden)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'inference' || has(self.model)")
        .message("model is required when type is inference: set model.name and model.runtime")
        .field_path(".model").reason(Reason::FieldValueRequired),
    validation = Rule::new("self.type != 'skill' || has(self.skill)")
        .message("skill is required when type is skill").field_path(".skill").reason(Reason::FieldValueRequired),
    validation = Rule::new("self.?registration.?edition.orValue(1) >= oldSelf.?registration.?edition.orValue(1)")
        .message("registration.edition can only be raised")
)]
pub struct ServiceOfferSpec {
    /// What is sold: inference, fine-tuning, http, agent, skill or dataset.
    #[serde(rename = "type", default)]
    pub type_: OfferType,
    /// Agent that an offer of type agent sells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OfferAgent")]
    pub agent: Option<OfferAgent>,
    /// Model that the offer sells; required when type is inference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Model")]
    pub model: Option<Model>,
    /// Service that answers the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Upstream")]
    pub upstream: Option<Upstream>,
    /// How buyers pay.
    pub payment: Payment,
    /// All accepted ways to pay; the first one repeats payment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub payments: Vec<Payment>,
    /// Rules for individual paths below the offer's path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub routes: Vec<OfferRoute>,
    /// Public path prefix. Defaults to /services/<name>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 512),
        regex(pattern = r"^/[a-zA-Z0-9/_.-]*$")
    )]
    pub path: Option<String>,
    /// Dedicated public hostname of the offer, like chat.example.org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub hostname: Option<String>,
    /// Branding of the offer's site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Branding")]
    pub branding: Option<Branding>,
    /// Position of the offer in the storefront.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Listing")]
    pub listing: Option<Listing>,
    /// Asynchronous delivery of results.
    #[serde(rename = "async", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Async")]
    pub async_: Option<Async>,
    /// Load limits of the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OfferLimits")]
    pub limits: Option<OfferLimits>,
    /// Provenance of the service, as free-form keys and values; published in the agent's document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub provenance: BTreeMap<String, String>,
    /// Registration on an ERC-8004 identity registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Registration")]
    pub registration: Option<Registration>,
    /// Time from which no new buyers are accepted, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), extend("format" = "date-time"))]
    pub drain_at: Option<String>,
    /// Time for which the route stays up after drainAt, like 30m. Defaults to one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), regex(pattern = schema::DURATION))]
    pub drain_grace_period: Option<String>,
    /// Bundle that an offer of type skill sells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Skill")]
    pub skill: Option<Skill>,
    /// Dataset that an offer of type dataset sells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Dataset")]
    pub dataset: Option<Dataset>,
}

/// What an offer sells.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OfferType {
    /// Inference by a model.
    Inference,
    /// Fine-tuning of a model.
    FineTuning,
    /// HTTP service.
    #[default]
    Http,
    /// Autonomous agent.
    Agent,
    /// Bundle of instructions.
    Skill,
    /// Dataset.
    Dataset,
}

impl ServiceOffer {
    /// Whether its seller has taken it off sale.
    pub(crate) fn is_paused(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(PAUSED_ANNOTATION)) == Some(&"true".to_owned())
    }

    /// Whether its status says that another controller sells it as well.
    pub(crate) fn has_other_gate(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.other_gate().is_some())
    }
}

impl OfferType {
    /// The type as written in an object.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::FineTuning => "fine-tuning",
            Self::Http => "http",
            Self::Agent => "agent",
            Self::Skill => "skill",
            Self::Dataset => "dataset",
        }
    }
}

/// Agent that an offer sells.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct OfferAgent {
    /// Reference to the Agent. It must be in the offer's namespace.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AgentReference")]
    pub ref_: Option<AgentReference>,
}

/// Reference to an Agent by name and namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct AgentReference {
    /// Name of the Agent.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Namespace of the Agent.
    #[schemars(length(max = 63))]
    pub namespace: String,
}

/// Language model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Model {
    /// Name of the model in its runtime.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Runtime that serves the model: ollama, vllm or tgi.
    pub runtime: Runtime,
}

/// Runtime that serves a model.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// Text Generation Inference.
    Tgi,
}

/// Service in the cluster.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// Name of the Service.
    #[schemars(length(max = 63))]
    pub service: String,
    /// Namespace of the Service.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Port of the Service.
    #[serde(default = "ollama_port")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub port: u16,
    /// Path that returns 2xx while the Service is healthy.
    #[serde(default = "health_path")]
    #[schemars(length(max = 1024))]
    pub health_path: String,
}

fn ollama_port() -> u16 {
    11434
}

fn health_path() -> String {
    "/health".into()
}
