//! Where and how an offer is served: routes, looks, limits, and what some types of offer deliver.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payment::PriceTable;
use crate::api::schema;

/// Rules of one path.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferRoute {
    /// Path below the path of the offer; * stands for anything.
    #[schemars(length(max = 512), regex(pattern = r"^/[a-zA-Z0-9/_.*-]*$"))]
    pub path: String,
    /// Methods served; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub methods: Vec<Method>,
    /// Who may pass: paid, free or auth.
    #[serde(default)]
    pub gate: Gate,
    /// Price of this path, when it differs from the offer's; {} means it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PriceTable")]
    pub price: Option<PriceTable>,
    /// One line for the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 300))]
    pub summary: Option<String>,
    /// Free requests of each buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub free_quota: Option<u32>,
}

/// Who may pass a route.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Who pays.
    #[default]
    Paid,
    /// Anyone.
    Free,
    /// Who has signed in.
    Auth,
}

/// Methods of HTTP.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each is the word of RFC 9110")]
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

/// Looks of the offer's own site.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Branding {
    /// Name to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub display_name: Option<String>,
    /// Line under the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    pub tagline: Option<String>,
    /// Logo: an https URL, a path, or an image inlined as a data URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub logo_url: Option<String>,
    /// Colours: light, dark or obol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Theme")]
    pub theme: Option<Theme>,
    /// Accent colour in hex, like #00ff88.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 9),
        regex(pattern = r"^#[0-9a-fA-F]{3,8}$")
    )]
    pub accent_color: Option<String>,
    /// Icon of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub favicon_url: Option<String>,
    /// Image of link previews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 65536))]
    pub og_image_url: Option<String>,
    /// Longer text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 16384))]
    pub description: Option<String>,
}

/// Themes of a site.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is a name and nothing more")]
pub enum Theme {
    Light,
    Dark,
    Obol,
}

/// Place of an offer in the storefront.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Listing {
    /// Offers of higher weight come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = -2_147_483_648, max = 2_147_483_647))]
    pub weight: Option<i32>,
    /// Section of the storefront.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub category: Option<String>,
}

/// Delivery of results after the request has been answered.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Async {
    /// Whether results come later.
    #[serde(default)]
    pub enabled: bool,
    /// Who may read a result: payer or public.
    #[serde(default)]
    pub result_visibility: ResultVisibility,
    /// How long results are kept, like 72h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), regex(pattern = schema::DURATION))]
    pub ttl: Option<String>,
}

/// Who may read a result.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResultVisibility {
    /// Who paid for it.
    #[default]
    Payer,
    /// Anyone.
    Public,
}

/// Load limits of a route; 0 means none.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferLimits {
    /// Requests under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub max_in_flight: Option<u32>,
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub rps: Option<u32>,
}

/// A bundle of instructions.
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
    /// Name to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub display_name: Option<String>,
    /// Description to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub description: Option<String>,
}

/// A dataset.
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
    /// Published version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub version: Option<String>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 0, max = 9_007_199_254_740_991u64), extend("format" = "int64"))]
    pub size_bytes: Option<u64>,
}
