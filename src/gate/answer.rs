//! Reads what a facilitator answers. Pure.
//!
//! An answer is believed only if its status, its content type and its body say the same thing: what
//! is served, charged or signed again depends on it. Real facilitators send verdicts with several
//! statuses, call a settlement failed that goes through later, and stand behind proxies that answer
//! in their place. So only a complete success counts as one, only a failure with a definite reason
//! counts as one, and everything else is unknown.

use std::collections::BTreeSet;
use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{SupportedKind, network};

/// Most bytes of a body that are read.
pub(super) const ANSWER_BYTES: usize = 64 * 1024;
/// Most characters of a reason that are kept.
const REASON_LENGTH: usize = 256;
/// Most characters of a reason that is a code.
const CODE_LENGTH: usize = 128;
/// Most characters of a scheme.
const SCHEME_LENGTH: usize = 64;
/// Most kinds that are kept.
const KINDS: usize = 256;
/// Longest pause that a facilitator can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Statuses besides 200 with which facilitators send failures of a payment.
const VERDICT_STATUSES: [u16; 4] = [400, 402, 412, 500];
/// Reason for a transaction that was sent and has not been included.
const PENDING: &str = "settlement_pending";
/// Words with which reasons say what is wrong with a payment.
const DEFINITE: [&str; 10] = [
    " used",
    "duplicate",
    "expired",
    "insufficient",
    "invalid",
    "mismatch",
    "not allowed",
    "not supported",
    "permit2 allowance required",
    "unsupported",
];
/// Words with which reasons say that the facilitator, or what it needs, did not work.
const OUTAGE: [&str; 9] = [
    "connection",
    "econn",
    "internal",
    "network error",
    "rpc",
    "timed out",
    "timeout",
    "unavailable",
    "unexpected",
];
/// Further words with which reasons leave open what becomes of a settlement.
const INDEFINITE: [&str; 4] = ["node", "pending", "unknown", "verification failed"];
/// Names of fields that hold the hash of a transaction.
const TRANSACTION_FIELDS: [&str; 3] = ["transaction", "transactionHash", "txHash"];

/// A response, as it was received.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    /// The pause that it asks for.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    /// Whether the body was received to its end.
    pub(super) is_whole: bool,
}

/// The payment that a facilitator is asked about, and that its answer must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AskedPayment {
    pub(super) payer: Address,
    pub(super) chain_id: u64,
    pub(super) amount: U256,
}

/// Whether a payment would be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    Valid,
    /// The facilitator looked at the payment and refuses it.
    Invalid {
        reason: String,
    },
    /// The facilitator gave no verdict.
    Unavailable {
        why: String,
        retry_after: Option<Duration>,
    },
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    Settled {
        transaction: String,
        payer: Option<String>,
    },
    /// It failed, and nothing will change that.
    Refused {
        reason: String,
        /// A transaction that was reverted.
        transaction: Option<String>,
    },
    /// Its transaction was sent and has not been included.
    Pending { transaction: Option<String> },
    /// The payment may have been charged, or may be later.
    Unknown {
        why: String,
        transaction: Option<String>,
    },
    /// The facilitator never heard of it.
    NotSent { why: String },
}

/// What a facilitator supports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Supported {
    kinds: Vec<KindBody>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KindBody {
    x402_version: u8,
    scheme: String,
    network: String,
}

#[derive(Deserialize)]
struct SupportedBody {
    kinds: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerifyBody {
    is_valid: bool,
    invalid_reason: Option<String>,
    payer: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SettleBody {
    success: bool,
    error_reason: Option<String>,
    payer: Option<String>,
    network: Option<Value>,
    amount: Option<Value>,
    transaction: Option<Value>,
    transaction_hash: Option<Value>,
    tx_hash: Option<Value>,
}

impl SettleBody {
    /// The hash of its transaction.
    fn transaction(&self) -> Option<String> {
        let named = [&self.transaction, &self.transaction_hash, &self.tx_hash];
        let mut hashes = named
            .into_iter()
            .filter_map(|value| value.as_ref()?.as_str());
        hashes.find(|value| is_hex(value, 64)).map(str::to_owned)
    }

    /// Whether it names another payer, network or amount than those of the payment. What it leaves
    /// out, or has in another form, says nothing.
    fn is_of_another(&self, asked: &AskedPayment) -> bool {
        let chain = |text: &str| {
            let chain_id = network::chain_id(text);
            (chain_id.is_some() || text.contains(':')).then_some(chain_id)
        };
        let amount = |text: &str| U256::from_str_radix(text, 10).ok();
        let network = self.network.as_ref().and_then(Value::as_str);
        asked.has_other_payer(self.payer.as_deref())
            || is_other(network.and_then(chain), Some(asked.chain_id))
            || is_other(
                self.amount
                    .as_ref()
                    .and_then(Value::as_str)
                    .and_then(amount),
                asked.amount,
            )
    }
}

impl AskedPayment {
    /// Whether an answer names another payer.
    fn has_other_payer(&self, said: Option<&str>) -> bool {
        is_other(said.and_then(|said| said.parse().ok()), self.payer)
    }
}

/// Whether something was said, and it is not what was asked about.
fn is_other<T: PartialEq>(said: Option<T>, asked: T) -> bool {
    said.is_some_and(|said| said != asked)
}

impl Supported {
    /// What it supports on these networks. Facilitators list networks that they cannot serve, name
    /// those of version 1 by alias, and may list all EVM chains as one.
    pub(crate) fn kinds_on(&self, networks: &[String]) -> Vec<SupportedKind> {
        let is_named = |kind: &&KindBody| (1..=SCHEME_LENGTH).contains(&kind.scheme.len());
        let kinds = self.kinds.iter().filter(is_named).flat_map(|kind| {
            let on = networks.iter().filter(|own| kind.is_on(own));
            on.map(|own| SupportedKind {
                x402_version: kind.x402_version,
                scheme: kind.scheme.clone(),
                network: own.clone(),
            })
        });
        let kinds: BTreeSet<SupportedKind> = kinds.collect();
        kinds.into_iter().take(KINDS).collect()
    }
}

impl KindBody {
    fn is_on(&self, own: &str) -> bool {
        self.network == "eip155:*" || {
            let chain_id = network::chain_id(&self.network);
            chain_id.is_some() && chain_id == network::chain_id(own)
        }
    }
}

impl Answer {
    /// Whether the same request may have a better answer a moment later.
    pub(super) fn is_transient(&self) -> bool {
        self.status == 429 || self.status >= 500
    }

    /// Whether it comes from an overload or an outage, whatever was asked. A facilitator may answer
    /// 500 to one payment only.
    pub(super) fn is_from_outage(&self) -> bool {
        matches!(self.status, 429 | 502..=504)
    }

    /// The body, if it is JSON of this form.
    fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let status = self.status;
        if !self.is_whole {
            return Err(format!(
                "the answer with status {status} was cut off or is larger than 64 KiB"
            ));
        }
        let is_declared = self.content_type.as_deref().is_some_and(is_json);
        // The parser skips strings that no field needs without looking at their encoding.
        let text = str::from_utf8(&self.body).ok().filter(|_| is_declared);
        let text = text.ok_or_else(|| format!("the answer with status {status} is not JSON"))?;
        serde_json::from_str(text)
            .map_err(|_| format!("the answer with status {status} is not of the form of x402"))
    }

    /// Whether failures of payments come with this status.
    fn may_be_verdict(&self) -> bool {
        self.status == 200 || VERDICT_STATUSES.contains(&self.status)
    }
}

/// Reads the answer of /supported.
pub(super) fn supported(answer: &Answer) -> Result<Supported, String> {
    if answer.status != 200 {
        return Err(format!("it answers with status {}", answer.status));
    }
    let body: SupportedBody = answer.read()?;
    let kinds = body.kinds.into_iter();
    // A kind of a later version of the protocol may have another form.
    let kinds = kinds.filter_map(|kind| serde_json::from_value(kind).ok());
    Ok(Supported {
        kinds: kinds.collect(),
    })
}

/// Reads the answer of /verify about a payment.
pub(super) fn verification(answer: &Answer, asked: &AskedPayment) -> Verification {
    let unavailable = |why| Verification::Unavailable {
        why,
        retry_after: answer.retry_after,
    };
    let body: VerifyBody = match answer.read() {
        Ok(body) => body,
        Err(why) => return unavailable(why),
    };
    let payer = body.payer.as_ref().and_then(Value::as_str);
    if body.is_valid && asked.has_other_payer(payer) {
        return unavailable("it calls the payment of another payer valid".to_owned());
    }
    let status = answer.status;
    match (body.is_valid, printable(body.invalid_reason)) {
        (true, None) if status == 200 => Verification::Valid,
        (true, _) => unavailable(format!("it calls the payment valid with status {status}")),
        (false, Some(reason)) if is_outage(&reason) => {
            unavailable(format!("it could not verify the payment: {reason}"))
        }
        (false, Some(reason)) if answer.may_be_verdict() => Verification::Invalid { reason },
        (false, None) if status == 200 => Verification::Invalid {
            reason: "no_reason_given".to_owned(),
        },
        (false, _) => unavailable(format!("it gives no verdict, with status {status}")),
    }
}

/// Reads the answer of /settle about a payment.
pub(super) fn settlement(answer: &Answer, asked: &AskedPayment) -> Settlement {
    let transaction = transaction_in(&answer.body);
    let body: SettleBody = match answer.read() {
        Ok(body) => body,
        Err(why) => return Settlement::Unknown { why, transaction },
    };
    let status = answer.status;
    if body.success && body.is_of_another(asked) {
        return Settlement::Unknown {
            why: "it reports the success of another payment".to_owned(),
            // It is not this payment's.
            transaction: None,
        };
    }
    let own = body.transaction();
    let reason = printable(body.error_reason);
    if let (200, true, None, Some(transaction)) = (status, body.success, &reason, own) {
        return Settlement::Settled {
            transaction,
            payer: body.payer.filter(|payer| is_hex(payer, 40)),
        };
    }
    match (body.success, reason, transaction) {
        (true, _, transaction) => Settlement::Unknown {
            why: format!("it reports an incomplete success with status {status}"),
            transaction,
        },
        (false, Some(reason), transaction) if reason == PENDING => {
            Settlement::Pending { transaction }
        }
        (false, Some(reason), transaction)
            if answer.may_be_verdict() && is_definite(&reason, transaction.is_some()) =>
        {
            Settlement::Refused {
                reason,
                transaction,
            }
        }
        (false, reason, transaction) => Settlement::Unknown {
            why: format!(
                "it reports a failure that may not be final, with status {status}: {}",
                reason.as_deref().unwrap_or("no reason")
            ),
            transaction,
        },
    }
}

/// Reads the header `Retry-After` in seconds. A date is not read: the clocks may differ.
pub(super) fn retry_after(header: &str) -> Option<Duration> {
    let seconds = header.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Whether a payment was called invalid because something else failed.
fn is_outage(reason: &str) -> bool {
    says(reason, &OUTAGE) && !says(reason, &DEFINITE)
}

/// Whether a reason has one of these words. Codes have underscores where texts have spaces.
fn says(reason: &str, words: &[&str]) -> bool {
    let text = reason.to_ascii_lowercase().replace('_', " ");
    words.iter().any(|word| text.contains(word))
}

/// Whether a failure with this reason is final: a code that says what is wrong with the payment. A code
/// that is not known may say that the transaction was not seen in time. Facilitators also pass on the
/// texts of their libraries, of which nothing follows, and call it failed when they could not send a
/// transaction, although their endpoint may have taken it.
fn is_definite(reason: &str, has_transaction: bool) -> bool {
    let is_code = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    let is_not_sent = reason.to_ascii_lowercase().ends_with("transaction_failed");
    reason.len() <= CODE_LENGTH
        && reason.chars().all(is_code)
        && says(reason, &DEFINITE)
        && !says(reason, &OUTAGE)
        && !says(reason, &INDEFINITE)
        && (has_transaction || !is_not_sent)
}

/// Whether a content type is that of JSON.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// A reason as far as it can be shown in one line; `None` if there is none.
fn printable(reason: Option<String>) -> Option<String> {
    let reason = reason?;
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    let reason: String = reason.chars().take(REASON_LENGTH).map(shown).collect();
    let reason = reason.trim();
    (!reason.is_empty()).then(|| reason.to_owned())
}

/// The hash of the transaction that a body names. It is read from the text, since a body that is
/// cut off or has another form may name it too.
fn transaction_in(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let fields = TRANSACTION_FIELDS.map(|field| format!("\"{field}\""));
    let values = fields.iter().flat_map(|field| {
        let after = text.split(field.as_str()).skip(1);
        after.filter_map(|rest| {
            let value = rest.trim_start().strip_prefix(':')?.trim_start();
            value.strip_prefix('"')?.split('"').next()
        })
    });
    let mut hashes = values.filter(|value| is_hex(value, 64));
    hashes.next().map(str::to_owned)
}

/// Whether a text is a hex number with a prefix and this many digits.
fn is_hex(text: &str, digits: usize) -> bool {
    text.strip_prefix("0x").is_some_and(|hex| {
        hex.len() == digits && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests;
