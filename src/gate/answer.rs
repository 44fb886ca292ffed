//! Reads what a facilitator answers. Pure.
//!
//! An answer is believed only if its status, its content type and its body say the same thing: what
//! is served, charged or signed again depends on it. Real facilitators send verdicts with several
//! statuses, call a settlement failed that goes through later, and stand behind proxies that answer
//! in their place. So only a complete success counts as one, only a failure with a definite reason
//! counts as one, and everything else is unknown.

use std::collections::BTreeSet;
use std::time::Duration;

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
/// A reason with one of these says that the facilitator does not know what happened.
const INDEFINITE: [&str; 8] = [
    "internal",
    "pending",
    "rpc",
    "timed_out",
    "timeout",
    "unavailable",
    "unexpected",
    "unknown",
];
/// Names of fields that hold the hash of a transaction.
const TRANSACTION_FIELDS: [&str; 3] = ["\"transaction\"", "\"transactionHash\"", "\"txHash\""];

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
pub(crate) enum Settlement {
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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SettleBody {
    success: bool,
    error_reason: Option<String>,
    payer: Option<String>,
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

    /// The body, if it is JSON of this form.
    fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let status = self.status;
        if !self.is_whole {
            return Err(format!(
                "the answer with status {status} was cut off or is larger than 64 KiB"
            ));
        }
        if !self.content_type.as_deref().is_some_and(is_json) {
            return Err(format!("the answer with status {status} is not JSON"));
        }
        serde_json::from_slice(&self.body)
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

/// Reads the answer of /verify.
pub(super) fn verification(answer: &Answer) -> Verification {
    let unavailable = |why| Verification::Unavailable {
        why,
        retry_after: answer.retry_after,
    };
    let body: VerifyBody = match answer.read() {
        Ok(body) => body,
        Err(why) => return unavailable(why),
    };
    let status = answer.status;
    match (body.is_valid, printable(body.invalid_reason)) {
        (true, None) if status == 200 => Verification::Valid,
        (true, _) => unavailable(format!("it calls the payment valid with status {status}")),
        (false, Some(reason)) if answer.may_be_verdict() => Verification::Invalid { reason },
        (false, None) if status == 200 => Verification::Invalid {
            reason: "no_reason_given".to_owned(),
        },
        (false, _) => unavailable(format!("it gives no verdict, with status {status}")),
    }
}

/// Reads the answer of /settle.
pub(super) fn settlement(answer: &Answer) -> Settlement {
    let transaction = transaction_in(&answer.body);
    let body: SettleBody = match answer.read() {
        Ok(body) => body,
        Err(why) => return Settlement::Unknown { why, transaction },
    };
    let status = answer.status;
    match (body.success, printable(body.error_reason), transaction) {
        (true, None, Some(transaction)) if status == 200 => Settlement::Settled {
            transaction,
            payer: body.payer.filter(|payer| is_hex(payer, 40)),
        },
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

/// Whether a failure with this reason is final: a code that says what is wrong. Facilitators also
/// pass on the texts of their libraries, of which nothing follows, and call it failed when they
/// could not send a transaction, although their endpoint may have taken it.
fn is_definite(reason: &str, has_transaction: bool) -> bool {
    let is_code = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    let lower = reason.to_ascii_lowercase();
    reason.len() <= CODE_LENGTH
        && reason.chars().all(is_code)
        && !INDEFINITE.iter().any(|word| lower.contains(word))
        && (has_transaction || !lower.ends_with("transaction_failed"))
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
    let values = TRANSACTION_FIELDS.iter().flat_map(|field| {
        let after = text.split(field).skip(1);
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
mod tests {
    use serde_json::json;

    use super::*;

    const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
    const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            content_type: Some("application/json; charset=utf-8".into()),
            retry_after: None,
            body: body.as_bytes().to_vec(),
            is_whole: true,
        }
    }

    fn verdict(status: u16, body: Value) -> Verification {
        verification(&answer(status, &body.to_string()))
    }

    fn settled(status: u16, body: Value) -> Settlement {
        settlement(&answer(status, &body.to_string()))
    }

    fn invalid(reason: &str) -> Verification {
        Verification::Invalid {
            reason: reason.into(),
        }
    }

    #[test]
    fn payment_is_valid_only_if_status_and_body_say_so() {
        let valid = json!({ "isValid": true, "payer": PAYER });
        assert_eq!(verdict(200, valid.clone()), Verification::Valid);
        let null = json!({ "isValid": true, "invalidReason": null });
        assert_eq!(verdict(200, null), Verification::Valid);
        let contradiction = json!({ "isValid": true, "invalidReason": "expired" });
        for (status, body) in [(503, valid.clone()), (202, valid), (200, contradiction)] {
            let found = verdict(status, body.clone());
            let is_unavailable = matches!(found, Verification::Unavailable { .. });
            assert!(is_unavailable, "{status} {body}: {found:?}");
        }
    }

    #[test]
    fn verdict_is_read_with_the_statuses_that_facilitators_use() {
        let body = json!({ "isValid": false, "invalidReason": "unexpected_error" });
        for status in [200, 400, 402, 412, 500] {
            assert_eq!(verdict(status, body.clone()), invalid("unexpected_error"));
        }
        assert_eq!(
            verdict(200, json!({ "isValid": false })),
            invalid("no_reason_given")
        );
        for (status, body) in [(503, body), (500, json!({ "isValid": false }))] {
            let found = verdict(status, body);
            let is_unavailable = matches!(found, Verification::Unavailable { .. });
            assert!(is_unavailable, "{status}: {found:?}");
        }
    }

    #[test]
    fn answer_of_another_form_is_no_verdict() {
        let with = |status: u16, over: Answer| {
            let found = verification(&Answer { status, ..over });
            let Verification::Unavailable { why, retry_after } = found else {
                panic!("{found:?}");
            };
            (why, retry_after)
        };
        let valid = r#"{"isValid":true}"#;
        let html = Answer {
            content_type: Some("text/html".into()),
            retry_after: Some(Duration::from_secs(7)),
            ..answer(200, valid)
        };
        let (why, retry_after) = with(200, html);
        assert_eq!(why, "the answer with status 200 is not JSON");
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
        let untyped = Answer {
            content_type: None,
            ..answer(200, valid)
        };
        assert!(with(200, untyped).0.ends_with("is not JSON"));
        let cut = Answer {
            is_whole: false,
            ..answer(200, valid)
        };
        assert!(with(200, cut).0.contains("cut off"));
        for body in [
            "",
            "{",
            "[]",
            r#"{"isValid":"true"}"#,
            r#"{"isValid":true,"isValid":true}"#,
        ] {
            let (why, _) = with(200, answer(200, body));
            assert!(why.ends_with("is not of the form of x402"), "{body}: {why}");
        }
    }

    #[test]
    fn settlement_needs_status_form_and_transaction() {
        let success = json!({ "success": true, "transaction": HASH, "payer": PAYER });
        let expected = |payer: Option<&str>| Settlement::Settled {
            transaction: HASH.into(),
            payer: payer.map(str::to_owned),
        };
        assert_eq!(settled(200, success.clone()), expected(Some(PAYER)));
        let other = json!({ "success": true, "transaction": HASH, "payer": "someone" });
        assert_eq!(settled(200, other), expected(None));
        let mut contradiction = success.clone();
        contradiction["errorReason"] = json!("expired");
        for (status, body, has_transaction) in [
            (503, success.clone(), true),
            (201, success, true),
            (200, contradiction, true),
            (200, json!({ "success": true }), false),
            (200, json!({ "success": true, "transaction": "" }), false),
            (
                200,
                json!({ "success": true, "transaction": "0x11" }),
                false,
            ),
        ] {
            let found = settled(status, body.clone());
            let Settlement::Unknown { transaction, .. } = found else {
                panic!("{status} {body}: {found:?}");
            };
            assert_eq!(transaction.is_some(), has_transaction, "{status} {body}");
        }
    }

    #[test]
    fn settlement_is_refused_only_for_a_definite_reason() {
        for (status, reason, transaction, is_refused) in [
            (200, "invalid_exact_evm_nonce_already_used", "", true),
            (400, "insufficient_funds", "", true),
            (402, "duplicate_settlement", "", true),
            (412, "permit2_allowance_required", "", true),
            (500, "invalid_transaction_state", "", true),
            (200, "invalid_exact_evm_transaction_failed", HASH, true),
            (200, "invalid_exact_evm_transaction_failed", "", false),
            (500, "unexpected_error", "", false),
            (500, "unexpected_error", HASH, false),
            (200, "Timed out while waiting for transaction", "", false),
            (200, "transaction_timeout", "", false),
            (200, "RPC_ERROR", "", false),
            (503, "insufficient_funds", "", false),
            (200, "", "", false),
        ] {
            let body = json!({
                "success": false, "errorReason": reason, "transaction": transaction,
            });
            let hash = (transaction == HASH).then(|| HASH.to_owned());
            match settled(status, body) {
                Settlement::Refused {
                    reason: found,
                    transaction,
                } => assert_eq!((is_refused, &*found, transaction), (true, reason, hash)),
                Settlement::Unknown { transaction, .. } => {
                    assert_eq!((is_refused, transaction), (false, hash), "{reason}");
                }
                other => panic!("{status} {reason}: {other:?}"),
            }
        }
        let long = json!({ "success": false, "errorReason": "x".repeat(129) });
        assert!(matches!(settled(200, long), Settlement::Unknown { .. }));
    }

    #[test]
    fn pending_settlement_keeps_its_transaction() {
        let body = |transaction: Value| json!({ "success": false, "errorReason": PENDING, "transaction": transaction });
        let pending = |transaction| Settlement::Pending { transaction };
        assert_eq!(settled(200, body(json!(HASH))), pending(Some(HASH.into())));
        assert_eq!(settled(503, body(json!(null))), pending(None));
    }

    #[test]
    fn transaction_is_kept_from_an_answer_that_is_not_believed() {
        let html = |body: &str| Answer {
            content_type: Some("text/html".into()),
            ..answer(502, body)
        };
        let cut = format!(r#"{{"success":true, "transaction" : "{HASH}", "net"#);
        let nested = format!(r#"{{"nonce":"{HASH}","error":{{"txHash":"{HASH}"}}}}"#);
        let other = format!(
            r#"{{"nonce":"{HASH}","transaction":7,"transaction":"0x12","of":["transaction"]}}"#
        );
        for (body, expected) in [(cut, Some(HASH)), (nested, Some(HASH)), (other, None)] {
            let Settlement::Unknown { transaction, .. } = settlement(&html(&body)) else {
                panic!("{body}");
            };
            assert_eq!(transaction.as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn reason_is_shown_in_one_short_line() {
        assert_eq!(printable(Some("a\nb\u{7}".into())), Some("a b".into()));
        assert_eq!(printable(Some("é".repeat(300))), Some("é".repeat(256)));
        assert_eq!(printable(Some(" \n".into())), None);
        assert_eq!(printable(None), None);
    }

    #[test]
    fn supported_kinds_are_those_on_the_networks_of_the_spec() {
        let kind = |version: u8, scheme: &str, network: &str| json!({ "x402Version": version, "scheme": scheme, "network": network, "extra": {} });
        let body = json!({
            "kinds": [
                kind(2, "exact", "eip155:84532"),
                kind(1, "exact", "base-sepolia"),
                kind(1, "exact", "base"),
                kind(2, "upto", "eip155:*"),
                kind(2, "exact", "solana:mainnet"),
                kind(2, "", "eip155:*"),
                kind(2, "exact", "eip155:84532"),
                "unreadable",
            ],
            "signers": {},
        });
        let supported = supported(&answer(200, &body.to_string())).unwrap();
        let networks = ["eip155:84532", "eip155:1"].map(str::to_owned);
        let found = supported.kinds_on(&networks);
        let found: Vec<_> = found
            .iter()
            .map(|kind| (kind.x402_version, &*kind.scheme, &*kind.network))
            .collect();
        let expected = [
            (1, "exact", "eip155:84532"),
            (2, "exact", "eip155:84532"),
            (2, "upto", "eip155:1"),
            (2, "upto", "eip155:84532"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn supported_is_believed_with_status_200_only() {
        let kinds = r#"{"kinds":[]}"#;
        assert_eq!(supported(&answer(200, kinds)), Ok(Supported::default()));
        let unauthorized = supported(&answer(401, kinds)).unwrap_err();
        assert_eq!(unauthorized, "it answers with status 401");
        assert!(supported(&answer(200, "{}")).is_err());
    }

    #[test]
    fn content_type_of_json_has_several_forms() {
        for json in [
            "application/json",
            "Application/JSON ; a=b",
            "application/problem+json",
        ] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "text/json", "application/jsonx", "text/x+json"] {
            assert!(!is_json(other), "{other}");
        }
    }

    #[test]
    fn retry_after_is_a_bounded_number_of_seconds() {
        for (header, seconds) in [
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("86400", Some(3600)),
            ("-1", None),
            ("soon", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(header), expected, "{header}");
        }
    }

    #[test]
    fn only_overload_and_server_errors_pass() {
        for (status, is_transient) in [(200, false), (404, false), (429, true), (502, true)] {
            assert_eq!(answer(status, "").is_transient(), is_transient, "{status}");
        }
    }
}
