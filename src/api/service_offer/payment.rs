//! Prices and ways to pay.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{network, schema};

/// One way to pay.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.method == 'card' || has(self.network)")
        .message("network is required unless method is card"),
    validation = Rule::new("self.method == 'card' || has(self.payTo)")
        .message("payTo is required unless method is card"),
    validation = Rule::new("self.method != 'card' || self.?card.?account.hasValue()")
        .message("card.account is required when method is card")
)]
pub struct Payment {
    /// How money moves: crypto or card.
    #[serde(default)]
    pub method: PaymentMethod,
    /// The chain: an alias like base-sepolia, or a CAIP-2 id like eip155:84532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 41))]
    #[x_kube(validation = Rule::new(network::cel_known_network()).message(network::known_network_message().as_str()))]
    pub network: Option<String>,
    /// The wallet that is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::ADDRESS))]
    pub pay_to: Option<String>,
    /// The x402 scheme: exact.
    #[serde(default)]
    pub scheme: Scheme,
    /// How long a signed payment stays valid, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub max_timeout_seconds: u32,
    /// The token, when it is not the default of the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Asset")]
    pub asset: Option<Asset>,
    /// Terms of a card payment; required when method is card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Card")]
    pub card: Option<Card>,
    /// The price; at least one unit.
    #[x_kube(validation = Rule::new(
        "has(self.perRequest) || has(self.perMTok) || has(self.perHour) || has(self.perEpoch) || has(self.perMB)"
    ).message("at least one price is required: perRequest, perMTok, perHour, perEpoch or perMB"))]
    pub price: PriceTable,
}

fn five_minutes() -> u32 {
    300
}

/// Ways to move money.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PaymentMethod {
    /// A token transfer.
    #[default]
    Crypto,
    /// A card payment.
    Card,
}

/// Schemes of x402.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// The exact amount.
    #[default]
    Exact,
}

/// A token.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asset {
    /// Address of the token contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::ADDRESS))]
    pub address: Option<String>,
    /// Symbol, like USDC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub symbol: Option<String>,
    /// Decimals of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", range(min = 0, max = 255), extend("format" = "int32"))]
    pub decimals: Option<u8>,
    /// How the token is moved: eip3009 or permit2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TransferMethod")]
    pub transfer_method: Option<TransferMethod>,
    /// Name in the token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub eip712_name: Option<String>,
    /// Version in the token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32))]
    pub eip712_version: Option<String>,
}

/// Ways to move a token.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransferMethod {
    /// EIP-3009, transfer with authorization.
    Eip3009,
    /// Permit2, by the x402 proxy.
    Permit2,
}

/// Terms of a card payment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    /// The account that is paid, like acct_1A2b.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 128),
        regex(pattern = r"^acct_[A-Za-z0-9]+$")
    )]
    pub account: Option<String>,
    /// Currency by ISO 4217, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 3), regex(pattern = r"^[a-z]{3}$"))]
    pub currency: Option<String>,
    /// Provider of the card payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32))]
    pub provider: Option<String>,
    /// Network id at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub network_id: Option<String>,
    /// Accepted types of payment method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub payment_method_types: Vec<String>,
}

/// Prices, as positive decimal strings in whole units of the coin, like "0.002".
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceTable {
    /// Price of one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_request: Option<String>,
    /// Price of a million tokens.
    #[serde(rename = "perMTok", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_mtok: Option<String>,
    /// Price of one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_hour: Option<String>,
    /// Price of one training epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_epoch: Option<String>,
    /// Price of one megabyte.
    #[serde(rename = "perMB", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_mb: Option<String>,
}
