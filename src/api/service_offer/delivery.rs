//! How an offer is served: routes, branding, limits, and what skills and datasets deliver.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payment::PriceTable;
use crate::api::schema;

/// Rules of a path.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferRoute {
    /// Path below the path of the offer; * matches anything.
    #[schemars(length(max = 512), regex(pattern = r"^/[a-zA-Z0-9/_.*-]*$"))]
    pub path: String,
    /// HTTP methods that are served; all methods if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub methods: Vec<Method>,
    /// Access to the path: paid, free or auth.
    #[serde(default)]
    pub gate: Gate,
    /// Price of this path, if it differs from the offer's price; {} means that it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PriceTable")]
    pub price: Option<PriceTable>,
    /// Summary for the catalog, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 300))]
    pub summary: Option<String>,
    /// Number of free requests for each buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub free_quota: Option<u32>,
}

/// Access to a path.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Buyers who pay.
    #[default]
    Paid,
    /// Anyone.
    Free,
    /// Buyers who have signed in.
    Auth,
}

/// HTTP method.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each is a method name of RFC 9110")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Connect,
    Options,
    Trace,
}

impl Method {
    /// The method as requests name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
        }
    }
}

/// Branding of the offer's site.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Branding {
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub display_name: Option<String>,
    /// Tagline below the display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    pub tagline: Option<String>,
    /// Logo: an https URL, a path, or a data URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub logo_url: Option<String>,
    /// Color theme: light, dark or obol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Theme")]
    pub theme: Option<Theme>,
    /// Accent color in hex, like #00ff88.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 9),
        regex(pattern = r"^#[0-9a-fA-F]{3,8}$")
    )]
    pub accent_color: Option<String>,
    /// Favicon of the site: an https URL, a path, or a data URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub favicon_url: Option<String>,
    /// Image for link previews (Open Graph): an https URL, a path, or a data URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub og_image_url: Option<String>,
    /// Description of the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 16384))]
    pub description: Option<String>,
}

/// Color theme of a site.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Theme {
    Light,
    Dark,
    Obol,
}

/// Position of an offer in the storefront.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Listing {
    /// Weight of the offer. Offers with a higher weight are listed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = -2_147_483_648, max = 2_147_483_647))]
    pub weight: Option<i32>,
    /// Section of the storefront.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub category: Option<String>,
}

/// Asynchronous delivery of results.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Async {
    /// Whether results are delivered asynchronously.
    #[serde(default)]
    pub enabled: bool,
    /// Who may read a result: payer or public.
    #[serde(default)]
    pub result_visibility: ResultVisibility,
    /// Time for which results are kept, like 72h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), regex(pattern = schema::DURATION))]
    pub ttl: Option<String>,
}

/// Who may read a result.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResultVisibility {
    /// The buyer who paid for it.
    #[default]
    Payer,
    /// Anyone.
    Public,
}

/// Load limits of an offer; 0 means no limit.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferLimits {
    /// Maximum number of concurrent requests to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub max_in_flight: Option<u32>,
    /// Maximum number of requests to the upstream per second; those answered 402 do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub rps: Option<u32>,
}

/// Bundle of instructions.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    /// Name of the skill.
    #[schemars(length(max = 64), regex(pattern = r"^[a-z0-9][a-z0-9-]*$"))]
    pub name: String,
    /// Version of the skill.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub version: String,
    /// SHA-256 of the bundle, in hex.
    #[schemars(length(max = 64), regex(pattern = r"^[a-f0-9]{64}$"))]
    pub sha256: String,
    /// ConfigMap that holds the bundle.
    #[schemars(length(max = 253))]
    pub bundle_config_map: String,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub display_name: Option<String>,
    /// Description of the skill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub description: Option<String>,
}

/// Dataset.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dataset {
    /// Hash of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub manifest_hash: Option<String>,
    /// Hash of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub file_hash: Option<String>,
    /// Published version of the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub version: Option<String>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub size_bytes: Option<u64>,
}
