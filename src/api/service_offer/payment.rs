//! Prices and payment methods.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{network, schema};

/// Accepted payment.
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
    /// Payment method: crypto or card.
    #[serde(default)]
    pub method: PaymentMethod,
    /// Chain on which buyers pay: an alias like base-sepolia, or a CAIP-2 id like eip155:84532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 41))]
    #[x_kube(validation = Rule::new(network::cel_known_network()).message(network::known_network_message().as_str()))]
    pub network: Option<String>,
    /// Wallet that buyers pay. It has nothing to do with the account that registers the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::ADDRESS))]
    pub pay_to: Option<String>,
    /// x402 payment scheme: exact.
    #[serde(default)]
    pub scheme: Scheme,
    /// Time for which a signed payment is valid, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 0, max = 2_147_483_647), extend("format" = "int64"))]
    pub max_timeout_seconds: u32,
    /// Token that buyers pay with. Defaults to the chain's default token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Asset")]
    pub asset: Option<Asset>,
    /// When a payment is settled. authorization: it is verified, and settled once the upstream has
    /// answered. upfront: it is settled before the upstream is asked, and a buyer pays even if the
    /// upstream fails. Defaults to authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PaymentFlow")]
    pub flow: Option<PaymentFlow>,
    /// Terms of a card payment; required when method is card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Card")]
    pub card: Option<Card>,
    /// Price of the offer, for at least one unit.
    #[x_kube(validation = Rule::new(
        "has(self.perRequest) || has(self.perMTok) || has(self.perHour) || has(self.perEpoch) || has(self.perMB)"
    ).message("at least one price is required: perRequest, perMTok, perHour, perEpoch or perMB"))]
    pub price: PriceTable,
}

fn five_minutes() -> u32 {
    300
}

/// Payment method.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PaymentMethod {
    /// Token transfer.
    #[default]
    Crypto,
    /// Card payment.
    Card,
}

/// x402 payment scheme.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Pay the exact amount.
    #[default]
    Exact,
}

/// When a payment is settled.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PaymentFlow {
    /// Once the upstream has answered.
    #[default]
    Authorization,
    /// Before the upstream is asked.
    Upfront,
}

/// Token.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asset {
    /// Address of the token contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 42), regex(pattern = schema::ADDRESS))]
    pub address: Option<String>,
    /// Symbol of the token, like USDC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub symbol: Option<String>,
    /// Number of decimals of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", range(min = 0, max = 255), extend("format" = "int32"))]
    pub decimals: Option<u8>,
    /// How the token is transferred: eip3009 or permit2.
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

/// How a token is transferred.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransferMethod {
    /// EIP-3009 transferWithAuthorization.
    Eip3009,
    /// Permit2, through the x402 proxy.
    Permit2,
}

/// Terms of a card payment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    /// Account that buyers pay, like acct_1A2b.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 128),
        regex(pattern = r"^acct_[A-Za-z0-9]+$")
    )]
    pub account: Option<String>,
    /// ISO 4217 currency code, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 3), regex(pattern = r"^[a-z]{3}$"))]
    pub currency: Option<String>,
    /// Provider of the card payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32))]
    pub provider: Option<String>,
    /// Id of the payment network at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 128))]
    pub network_id: Option<String>,
    /// Accepted payment method types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub payment_method_types: Vec<String>,
}

/// Prices, as positive decimal strings in whole tokens, like "0.002".
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceTable {
    /// Price per request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_request: Option<String>,
    /// Price per million tokens of a model.
    #[serde(rename = "perMTok", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_mtok: Option<String>,
    /// Price per hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_hour: Option<String>,
    /// Price per training epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_epoch: Option<String>,
    /// Price per megabyte.
    #[serde(rename = "perMB", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36), regex(pattern = schema::POSITIVE_DECIMAL))]
    pub per_mb: Option<String>,
}
