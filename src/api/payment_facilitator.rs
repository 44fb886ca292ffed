//! PaymentFacilitator: who verifies and settles the payments of which networks. Admins write it;
//! the operator writes its status.
//!
//! The operator asks the facilitator what it supports and reports that in the status, in
//! [`crate::reconcile`]; the gate pays through it. Credentials are keys of one Secret that is
//! mounted, so that no Helm value names them and no upgrade can lose them.

use alloy::primitives::B256;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AllowedNamespaces, Condition, schema};

/// Configuration of one facilitator.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "obol.org",
    version = "v1alpha1",
    kind = "PaymentFacilitator",
    plural = "paymentfacilitators",
    shortname = "pfac",
    category = "obol",
    status = "PaymentFacilitatorStatus",
    derive = "PartialEq",
    doc = "PaymentFacilitator configures who verifies and settles x402 payments: networks, URL, credentials, time limits and allowed namespaces.",
    printcolumn(name = "Networks", type_ = "string", json_path = ".spec.networks"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.host"),
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
pub struct PaymentFacilitatorSpec {
    /// Networks whose payments it verifies and settles, as CAIP-2 ids like eip155:8453. Networks
    /// that the facilitator does not support are not used.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 23), regex(pattern = schema::EIP155_NETWORK))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub networks: Vec<String>,
    /// Facilitator that is reached over HTTP.
    pub remote: RemoteFacilitator,
    /// Which facilitator of a network is used first: the one with the lowest number, and among
    /// equals the first by name. A payment is settled where it was verified.
    #[serde(default = "hundred")]
    #[schemars(range(min = 0, max = 1_000_000), extend("format" = "int32"))]
    pub priority: u32,
    /// Namespaces whose offers may use this facilitator.
    pub allowed_namespaces: AllowedNamespaces,
    /// Incident switch. Settling: paid requests are answered 503 and no 402 is issued; free routes
    /// continue.
    #[serde(default)]
    pub suspend: FacilitatorSuspend,
}

fn hundred() -> u32 {
    100
}

/// Facilitator that is reached over HTTP.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteFacilitator {
    /// Base URL, without user, query and fragment; /verify, /settle and /supported are below it.
    /// https is required unless the host is <service>.<namespace>.svc.
    #[schemars(
        length(max = 2048),
        regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    )]
    #[x_kube(validation = Rule::new(schema::HTTPS_OUTSIDE_CLUSTER)
        .message("url must start with https:// unless its host is <service>.<namespace>.svc"))]
    pub url: String,
    /// How requests authenticate.
    #[serde(default)]
    pub auth: FacilitatorAuth,
    /// Time for one verification, in seconds.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 30), extend("format" = "int32"))]
    pub verify_timeout_seconds: u8,
    /// Time for one settlement, in seconds.
    #[serde(default = "sixty")]
    #[schemars(range(min = 10, max = 120), extend("format" = "int32"))]
    pub settle_timeout_seconds: u8,
}

fn five() -> u8 {
    5
}

fn sixty() -> u8 {
    60
}

/// How requests authenticate.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type != 'None') == has(self.secretRef)")
        .message("secretRef is required when type is Header or CdpJwt, and forbidden otherwise"),
    validation = Rule::new("self.type == 'Header' || !has(self.header)")
        .message("header is forbidden unless type is Header")
)]
pub struct FacilitatorAuth {
    /// None, Header (a header with a value from the Secret) or CdpJwt (a token per request, signed
    /// with a key of the Coinbase Developer Platform).
    #[serde(rename = "type", default)]
    pub type_: FacilitatorAuthType,
    /// Name of the header. Defaults to Authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(min = 1, max = 64),
        regex(pattern = "^[a-zA-Z0-9][-_a-zA-Z0-9]*$")
    )]
    #[x_kube(validation = Rule::new(schema::NOT_A_TRANSPORT_HEADER)
        .message("header must not be one that describes the connection or the body: use a header for credentials"))]
    pub header: Option<String>,
    /// Key of the Secret <fullname>-facilitators in the operator's namespace. For Header it holds
    /// the header's value, for CdpJwt JSON with id and secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FacilitatorSecretKey")]
    pub secret_ref: Option<FacilitatorSecretKey>,
}

/// How requests to a facilitator authenticate.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FacilitatorAuthType {
    /// Not at all.
    #[default]
    None,
    /// With a header.
    Header,
    /// With a JSON Web Token per request, as the Coinbase Developer Platform asks.
    CdpJwt,
}

/// Key of the Secret of facilitators' credentials.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct FacilitatorSecretKey {
    /// Key in the Secret's data.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-zA-Z0-9][-._a-zA-Z0-9]*$")
    )]
    pub key: String,
}

/// What the incident switch of a facilitator stops.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FacilitatorSuspend {
    /// Nothing.
    #[default]
    None,
    /// Payments: nothing is verified or settled.
    Settling,
}

/// Status that the operator observed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentFacilitatorStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991i64))]
    pub observed_generation: Option<i64>,
    /// Conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Host and port of the facilitator's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2048))]
    pub host: Option<String>,
    /// What the facilitator supports on the networks of the spec, by its last answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub kinds: Vec<SupportedKind>,
    /// Tokens that offers are paid with, as their contracts describe themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["network".into(), "address".into()]))]
    pub assets: Vec<TokenFacts>,
}

/// Kind of payment that a facilitator supports.
#[derive(
    Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SupportedKind {
    /// Version of the x402 protocol.
    #[schemars(range(min = 1, max = 255), extend("format" = "int32"))]
    pub x402_version: u8,
    /// Payment scheme, like exact.
    #[schemars(length(min = 1, max = 64))]
    pub scheme: String,
    /// Network, as a CAIP-2 id.
    #[schemars(length(max = 23), regex(pattern = schema::EIP155_NETWORK))]
    pub network: String,
}

/// Token, as its contract describes itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenFacts {
    /// Network of the token, as a CAIP-2 id.
    #[schemars(length(max = 23), regex(pattern = schema::EIP155_NETWORK))]
    pub network: String,
    /// Address of the token contract, in lower-case hex.
    #[schemars(length(max = 42), regex(pattern = schema::LOWER_ADDRESS))]
    pub address: String,
    /// Answer of name().
    #[schemars(length(max = 128))]
    pub name: String,
    /// Answer of version(). Unset if the contract has no such function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32))]
    pub version: Option<String>,
    /// Answer of decimals().
    #[schemars(range(min = 0, max = 255), extend("format" = "int32"))]
    pub decimals: u8,
    /// Answer of DOMAIN_SEPARATOR(). Unset if the contract has no such function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 66), regex(pattern = schema::HASH))]
    pub domain_separator: Option<B256>,
}

impl PaymentFacilitatorSpec {
    /// Whether payments through this facilitator are stopped.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspend == FacilitatorSuspend::Settling
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_spec_gets_the_defaults_of_the_schema() {
        let spec: PaymentFacilitatorSpec = serde_json::from_value(json!({
            "networks": ["eip155:8453"],
            "remote": { "url": "https://x402.example" },
            "allowedNamespaces": { "from": "All" },
        }))
        .unwrap();
        let remote = &spec.remote;
        assert_eq!(remote.auth.type_, FacilitatorAuthType::None);
        let limits = (remote.verify_timeout_seconds, remote.settle_timeout_seconds);
        assert_eq!((limits, spec.priority), ((5, 60), 100));
        assert!(!spec.is_suspended());
        let settling = PaymentFacilitatorSpec {
            suspend: FacilitatorSuspend::Settling,
            ..spec
        };
        assert!(settling.is_suspended());
    }
}
