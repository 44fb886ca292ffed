//! The x402 messages, versions 1 and 2: reads the payment of a request, and writes requirements,
//! receipts, and what a facilitator is asked. Pure.
//!
//! A payment is bounded in size before it is parsed and in depth while it is, and a key that occurs
//! twice is refused: two readers must not see two payments. What reaches a facilitator is the
//! text of the buyer; only a signature's recovery id is written as token contracts expect it.
//! Sources: x402 `specs/x402-specification-v1.md`, `-v2.md`, `transports-v1/http.md`,
//! `transports-v2/http.md`.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use alloy::primitives::{Address, B256, U256, hex};
use data_encoding::{BASE64, BASE64_NOPAD};
use http::{HeaderMap, HeaderName};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::terms::Terms;
use crate::api::PaymentFlow;

/// Field of a request that holds a payment of version 2.
pub(crate) const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
/// Field of a request that holds a payment of version 1.
pub(crate) const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// Field of a 402 response that holds the requirements of version 2.
pub(crate) const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// Field of a response that holds the receipt of version 2.
pub(crate) const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");
/// Field of a response that holds the receipt of version 1.
pub(crate) const X_PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("x-payment-response");

/// Most bytes of a payment after base64 is decoded.
const MOST_BYTES: usize = 16 * 1024;
/// Least and most characters of an identifier.
const IDENTIFIER: RangeInclusive<usize> = 16..=128;
/// Most levels of nested JSON.
const MOST_DEPTH: usize = 16;

/// Version of x402 that a buyer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A payment as presented by a buyer. Nothing of it is checked but its form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SignedPayment {
    pub version: Version,
    /// The JSON that the buyer sent.
    pub text: String,
    /// Scheme and network: of the requirement that the buyer chose, or of the payment in version 1.
    pub scheme: String,
    pub network: String,
    /// The requirement that the buyer chose; version 1 has none.
    pub accepted: Option<Map<String, Value>>,
    /// URL of the resource that the buyer says to pay for.
    pub resource: Option<String>,
    /// The buyer's identifier of the request, by the extension `payment-identifier`; version 1 has no
    /// extensions.
    pub identifier: Option<String>,
    pub authorization: Authorization,
    pub signature: Vec<u8>,
}

/// What the buyer signed (EIP-3009 `TransferWithAuthorization`). Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub from: Address,
    pub to: Address,
    pub value: U256,
    pub valid_after: U256,
    pub valid_before: U256,
    pub nonce: B256,
}

/// Why a payment cannot be read: the request is answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("PAYMENT-SIGNATURE or X-PAYMENT occurs more than once, with different payments")]
    SeveralPayments,
    #[error("the payment is not base64")]
    NotBase64,
    #[error("the payment has more than 16384 bytes")]
    TooLong,
    #[error("the payment is not JSON, is nested too deeply, or has a key twice")]
    NotJson,
    #[error("x402Version must be 1 or 2")]
    UnknownVersion,
    #[error("{0} is missing or has the wrong form")]
    Field(&'static str),
}

/// Reads the payment of a request, if it has one.
///
/// # Errors
/// If there are several, or the payment does not have the form of x402.
pub(crate) fn read_payment(fields: &HeaderMap) -> Result<Option<SignedPayment>, Malformed> {
    let values = fields.get_all(PAYMENT_SIGNATURE).iter();
    let mut values = values.chain(fields.get_all(X_PAYMENT));
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != first) {
        return Err(Malformed::SeveralPayments);
    }
    let encoded = first.as_bytes().trim_ascii();
    if encoded.len() > MOST_BYTES.div_ceil(3) * 4 {
        return Err(Malformed::TooLong);
    }
    let decoded = match encoded.ends_with(b"=") {
        true => BASE64.decode(encoded),
        false => BASE64_NOPAD.decode(encoded),
    };
    let text = decoded.map_err(|_| Malformed::NotBase64)?;
    if text.len() > MOST_BYTES {
        return Err(Malformed::TooLong);
    }
    let text = String::from_utf8(text).map_err(|_| Malformed::NotJson)?;
    let Strict(value) = serde_json::from_str(&text).map_err(|_| Malformed::NotJson)?;
    payment(text, value).map(Some)
}

fn payment(text: String, value: Value) -> Result<SignedPayment, Malformed> {
    let version = match value.get("x402Version").and_then(Value::as_u64) {
        Some(1) => Version::V1,
        Some(2) => Version::V2,
        _ => return Err(Malformed::UnknownVersion),
    };
    let accepted = value.get("accepted").and_then(Value::as_object).cloned();
    let (chosen, accepted) = match (version, accepted) {
        (Version::V1, _) => (&value, None),
        (Version::V2, None) => return Err(Malformed::Field("accepted")),
        (Version::V2, Some(accepted)) => (&value["accepted"], Some(accepted)),
    };
    let payload = &value["payload"];
    let signature = string(payload, "signature", "payload.signature")?;
    let bytes = hex::decode(prefixed(signature, "payload.signature")?)
        .map_err(|_| Malformed::Field("payload.signature"))?;
    let (text, bytes) = with_recovery_id(text, signature, bytes);
    Ok(SignedPayment {
        version,
        scheme: string(chosen, "scheme", "scheme")?.to_owned(),
        network: string(chosen, "network", "network")?.to_owned(),
        accepted,
        resource: value["resource"]["url"].as_str().map(str::to_owned),
        identifier: match version {
            Version::V1 => None,
            Version::V2 => identifier(&value)?,
        },
        authorization: authorization(&payload["authorization"])?,
        signature: bytes,
        text,
    })
}

fn identifier(payment: &Value) -> Result<Option<String>, Malformed> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match payment.pointer("/extensions/payment-identifier/info/id") {
        None => Ok(None),
        Some(Value::String(id)) if IDENTIFIER.contains(&id.len()) && id.bytes().all(is_plain) => {
            Ok(Some(id.clone()))
        }
        Some(_) => Err(Malformed::Field("extensions.payment-identifier.info.id")),
    }
}

fn authorization(value: &Value) -> Result<Authorization, Malformed> {
    let number = |key: &str, name: &'static str| {
        let text = string(value, key, name)?;
        // Another reader may take a leading zero for the mark of another base.
        let is_plain = text == "0" || !text.starts_with('0');
        let is_number =
            is_plain && !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let number = U256::from_str_radix(text, 10).ok().filter(|_| is_number);
        number.ok_or(Malformed::Field(name))
    };
    let address = |key: &str, name: &'static str| {
        let text = prefixed(string(value, key, name)?, name)?;
        text.parse::<Address>().map_err(|_| Malformed::Field(name))
    };
    let nonce = "payload.authorization.nonce";
    let nonce_text = prefixed(string(value, "nonce", nonce)?, nonce)?;
    Ok(Authorization {
        from: address("from", "payload.authorization.from")?,
        to: address("to", "payload.authorization.to")?,
        value: number("value", "payload.authorization.value")?,
        valid_after: number("validAfter", "payload.authorization.validAfter")?,
        valid_before: number("validBefore", "payload.authorization.validBefore")?,
        nonce: nonce_text.parse().map_err(|_| Malformed::Field(nonce))?,
    })
}

fn string<'a>(value: &'a Value, key: &str, name: &'static str) -> Result<&'a str, Malformed> {
    let found = value.get(key).and_then(Value::as_str);
    found.ok_or(Malformed::Field(name))
}

/// Hex text that begins with `0x`.
fn prefixed<'a>(text: &'a str, name: &'static str) -> Result<&'a str, Malformed> {
    let has_prefix = text.starts_with("0x");
    Some(text)
        .filter(|_| has_prefix)
        .ok_or(Malformed::Field(name))
}

/// Wallets write the recovery id of an ECDSA signature as 0 and 1 or as 27 and 28; token contracts
/// take 27 and 28. What is verified and what is settled is the same text.
fn with_recovery_id(text: String, signature: &str, mut bytes: Vec<u8>) -> (String, Vec<u8>) {
    match bytes.last_mut() {
        Some(recovery_id) if *recovery_id < 2 && signature.len() == 2 + 2 * 65 => {
            *recovery_id += 27;
        }
        _ => return (text, bytes),
    }
    let text = text.replacen(signature, &hex::encode_prefixed(&bytes), 1);
    (text, bytes)
}

/// JSON in which no key occurs twice, in whatever case, of limited depth.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Level(0)).map(Self)
    }
}

/// Reads a value at a depth.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> de::DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0 > MOST_DEPTH {
            return Err(de::Error::custom("nested too deeply"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Level(self.0 + 1))? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut values, mut keys) = (Map::new(), BTreeSet::new());
        while let Some(key) = entries.next_key::<String>()? {
            // Some facilitators do not distinguish upper from lower case.
            if !keys.insert(key.to_uppercase().to_lowercase()) {
                return Err(de::Error::custom("a key occurs twice"));
            }
            let value = entries.next_value_seed(Level(self.0 + 1))?;
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

/// Maximum bytes of [`PAYMENT_REQUIRED`]: Node refuses more than 16 KiB of fields in all.
pub(crate) const LONGEST_REQUIRED: usize = 12 * 1024;

/// What is sold at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resource<'a> {
    pub url: &'a str,
    pub description: &'a str,
    pub mime_type: &'a str,
}

/// Terms as an entry of `accepts` in version 2.
pub(crate) fn requirement(terms: &Terms) -> Value {
    let mut extra = json!({ "name": terms.token.name, "version": terms.token.version });
    if terms.flow == PaymentFlow::Upfront {
        extra["paymentFlow"] = "upfront".into();
    }
    json!({
        "scheme": "exact",
        "network": terms.network(),
        "amount": terms.amount.to_string(),
        "asset": terms.token.address.to_string(),
        "payTo": terms.pay_to.to_string(),
        "maxTimeoutSeconds": terms.max_timeout_seconds,
        "extra": extra,
    })
}

/// Terms as `accepts` of version 2.
pub(crate) fn requirements(all: &[Terms]) -> Value {
    all.iter().map(requirement).collect()
}

/// Terms as an entry of `accepts` in version 1, which has names for some networks only and no
/// payment flows. Old clients read every field of every entry, so none is left out.
pub(crate) fn requirement_v1(terms: &Terms, resource: Resource<'_>) -> Option<Value> {
    let mut requirement = terms_v1(terms)?;
    requirement["resource"] = resource.url.into();
    requirement["description"] = resource.description.into();
    requirement["mimeType"] = resource.mime_type.into();
    Some(requirement)
}

/// The part of an entry of version 1 that does not depend on the resource.
fn terms_v1(terms: &Terms) -> Option<Value> {
    let network = terms.v1_network()?;
    if terms.flow != PaymentFlow::Authorization {
        return None;
    }
    Some(json!({
        "scheme": "exact",
        "network": network,
        "maxAmountRequired": terms.amount.to_string(),
        "payTo": terms.pay_to.to_string(),
        "maxTimeoutSeconds": terms.max_timeout_seconds,
        "asset": terms.token.address.to_string(),
        "extra": { "name": terms.token.name, "version": terms.token.version },
    }))
}

/// The terms of a route as 402 responses list them, written once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RenderedTerms {
    /// `accepts` of version 2.
    accepts: String,
    /// Entries of `accepts` of version 1, up to where the resource follows.
    accepts_v1: Vec<String>,
}

impl RenderedTerms {
    pub(crate) fn of(all: &[Terms]) -> Self {
        let mut offered = BTreeSet::new();
        let mut accepts_v1 = Vec::new();
        for terms in all {
            // A payment of version 1 does not name its token: of those with one price, the first counts.
            let payment = (terms.chain_id, terms.amount, terms.pay_to);
            if let Some(requirement) = terms_v1(terms)
                && offered.insert(payment)
            {
                let mut entry = requirement.to_string();
                entry.pop();
                accepts_v1.push(entry);
            }
        }
        Self {
            accepts: requirements(all).to_string(),
            accepts_v1,
        }
    }

    /// The requirements of version 2, as JSON: [`PAYMENT_REQUIRED`] holds them in base64.
    pub(crate) fn required(&self, resource: Resource<'_>, error: &str) -> String {
        static EXTENSIONS: LazyLock<String> =
            LazyLock::new(|| json!({ "payment-identifier": payment_identifier() }).to_string());
        let about = json!({
            "url": resource.url, "description": resource.description, "mimeType": resource.mime_type,
        });
        format!(
            r#"{{"x402Version":2,"error":{},"resource":{about},"accepts":{},"extensions":{}}}"#,
            Value::from(error),
            self.accepts,
            *EXTENSIONS,
        )
    }

    /// The body of a 402 response: the requirements of version 1, or those of version 2 where no
    /// payment can be made in version 1.
    pub(crate) fn required_body(&self, resource: Resource<'_>, error: &str) -> String {
        if self.accepts_v1.is_empty() {
            return self.required(resource, error);
        }
        let end = format!(
            r#","resource":{},"description":{},"mimeType":{}}}"#,
            Value::from(resource.url),
            Value::from(resource.description),
            Value::from(resource.mime_type),
        );
        let entries = self.accepts_v1.iter().map(|entry| format!("{entry}{end}"));
        format!(
            r#"{{"x402Version":1,"error":{},"accepts":[{}]}}"#,
            Value::from(error),
            entries.collect::<Vec<_>>().join(","),
        )
    }
}

/// The declaration that a buyer may identify its request (x402
/// `specs/extensions/payment_identifier.md`).
fn payment_identifier() -> Value {
    json!({
        "info": { "required": false },
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "required": { "type": "boolean" },
                "id": {
                    "type": "string",
                    "minLength": IDENTIFIER.start(),
                    "maxLength": IDENTIFIER.end(),
                    "pattern": "^[a-zA-Z0-9_-]+$",
                },
            },
            "required": ["required"],
        },
    })
}

/// The terms that a buyer chose, if they are offered.
pub(crate) fn chosen<'a>(
    terms: impl IntoIterator<Item = &'a Terms>,
    payment: &SignedPayment,
) -> Option<&'a Terms> {
    let mut offered = terms.into_iter();
    offered.find(|terms| payment.scheme == "exact" && is_chosen(terms, payment))
}

/// Terms in the token of a payment that was made on others: they tell which payment it is.
pub(crate) fn in_same_token<'a>(terms: &'a [Terms], payment: &SignedPayment) -> Option<&'a Terms> {
    let is_same = |terms: &&Terms| match &payment.accepted {
        None => terms.v1_network() == Some(payment.network.as_str()),
        Some(accepted) => {
            let asset = accepted.get("asset").and_then(Value::as_str);
            payment.network == terms.network()
                && asset.is_some_and(|asset| asset.parse() == Ok(terms.token.address))
        }
    };
    terms.iter().find(is_same)
}

fn is_chosen(terms: &Terms, payment: &SignedPayment) -> bool {
    let Some(accepted) = &payment.accepted else {
        let authorization = &payment.authorization;
        return terms.flow == PaymentFlow::Authorization
            && terms.v1_network() == Some(payment.network.as_str())
            && (authorization.value, authorization.to) == (terms.amount, terms.pay_to);
    };
    let text = |key: &str| {
        accepted
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let is_address = |key: &str, address: Address| text(key).parse() == Ok(address);
    let extra = |key: &str| accepted.get("extra").and_then(|extra| extra.get(key));
    let is_extra = |key: &str, value: &str| extra(key).and_then(Value::as_str) == Some(value);
    let flow = match extra("paymentFlow").map(Value::as_str) {
        None | Some(Some("authorization")) => Some(PaymentFlow::Authorization),
        Some(Some("upfront")) => Some(PaymentFlow::Upfront),
        Some(_) => None,
    };
    let method = extra("assetTransferMethod").is_none_or(|method| method == "eip3009");
    let timeout = accepted.get("maxTimeoutSeconds").and_then(Value::as_u64);
    payment.network == terms.network()
        && text("amount") == terms.amount.to_string()
        && is_address("asset", terms.token.address)
        && is_address("payTo", terms.pay_to)
        && timeout == Some(terms.max_timeout_seconds.into())
        && is_extra("name", &terms.token.name)
        && is_extra("version", &terms.token.version)
        && flow == Some(terms.flow)
        && method
}

/// Body of a request to `/verify` and `/settle`. The requirement is the one that is offered, not the
/// one that the buyer wrote.
pub(crate) fn facilitator_request(
    payment: &SignedPayment,
    terms: &Terms,
    resource: Resource<'_>,
) -> String {
    let (version, requirement) = match payment.version {
        Version::V1 => (1, requirement_v1(terms, resource).unwrap_or_default()),
        Version::V2 => (2, requirement(terms)),
    };
    let payload = &payment.text;
    format!(
        r#"{{"x402Version":{version},"paymentPayload":{payload},"paymentRequirements":{requirement}}}"#
    )
}

/// What became of a payment, for the buyer: [`PAYMENT_RESPONSE`] holds it in base64.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentReceipt {
    pub success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    pub payer: String,
    /// Hash of the transaction; empty if none is known.
    pub transaction: String,
    pub network: String,
}

impl PaymentReceipt {
    /// The value of the field.
    pub(crate) fn encoded(&self) -> String {
        encoded(&json!(self))
    }
}

/// JSON in base64, as fields hold it.
pub(crate) fn encoded(value: &Value) -> String {
    encoded_text(&value.to_string())
}

/// Bytes of a text in base64.
pub(crate) fn encoded_length(text: &str) -> usize {
    BASE64.encode_len(text.len())
}

/// A text in base64.
pub(crate) fn encoded_text(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests;
