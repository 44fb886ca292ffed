//! Why a question to an endpoint has no answer. Pure.
//!
//! The name of a variant is the reason of a condition, so each variant is a different problem with
//! a different remedy. An error never contains a part of a URL: [`Redaction`] removes them from the
//! endpoint's own words. [`super::refusal`] decides which variant a refusal is.

use std::time::Duration;

use super::refusal::Refusal;
use crate::leader::NotLeading;
use crate::metrics::{Label as _, RpcMethod};

/// Maximum characters of an endpoint's own message that are repeated.
pub(super) const MESSAGE_LENGTH: usize = 200;

/// Causes of [`RpcError::RpcUnreachable`] that a smaller request may avoid.
pub(super) const TIMED_OUT: &str = "timed out";
pub(super) const CONNECTION_LOST: &str = "the connection was lost";
pub(super) const GATEWAY_TIMED_OUT: &str = "the endpoint timed out (HTTP 408, 504 or 524)";
pub(super) const SERVER_ERROR: &str = "the endpoint reports a server error (HTTP 5xx)";
/// Causes that no request avoids. The last is that of one that was given up.
pub(super) const NOT_CONNECTED: &str = "could not connect";
pub(super) const TLS_FAILED: &str = "the TLS handshake failed: the endpoint must serve https, with a \
     certificate for its host from a public authority";
pub(super) const NOT_TRUSTED: &str = "the TLS certificate is not trusted (self-signed, or from an \
     unknown authority): the endpoint needs one for its host from a public authority";
pub(super) const STOPPED_ANSWERING: &str = "timed out, and so did a short request after it";
/// Causes that become [`RpcError::RpcRangeLimited`] for logs.
pub(super) const TOO_LARGE: &str = "the request or its answer is too large (HTTP 413)";
pub(super) const ANSWER_TOO_LARGE: &str = "the answer is larger than 16 MiB";

/// Why a request failed. The name of a variant is the reason of the condition.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum RpcError {
    /// The endpoint did not answer in JSON-RPC, or not at all.
    #[error("{call} failed: {cause}")]
    RpcUnreachable {
        /// JSON-RPC method.
        call: &'static str,
        /// Cause of the failure.
        cause: &'static str,
    },
    /// The endpoint limits the rate of requests.
    #[error("{call} was rate limited: {message}")]
    RpcRateLimited {
        /// JSON-RPC method.
        call: &'static str,
        /// How long the endpoint asks to wait, if it says so.
        retry_after: Option<Duration>,
        /// Message of the endpoint, without credentials.
        message: String,
    },
    /// The request covers more blocks or logs than the endpoint returns at once.
    #[error("{call} covers too many blocks for the endpoint: {message}")]
    RpcRangeLimited {
        /// JSON-RPC method.
        call: &'static str,
        /// Message of the endpoint, without credentials.
        message: String,
    },
    /// The endpoint does not have the state or the block that was asked for.
    #[error(
        "{call} needs a block whose state the endpoint does not have ({message}): use an archive \
         node, or an endpoint that keeps the states of more blocks"
    )]
    RpcHistoryMissing {
        /// JSON-RPC method.
        call: &'static str,
        /// Message of the endpoint, without credentials.
        message: String,
    },
    /// The endpoint does not serve the method.
    #[error("{call} is not served by the endpoint: {message}")]
    RpcMethodMissing {
        /// JSON-RPC method.
        call: &'static str,
        /// Message of the endpoint, without credentials.
        message: String,
    },
    /// The endpoint answered with another error.
    #[error("{call} was refused: {message}")]
    RpcRefused {
        /// JSON-RPC method.
        call: &'static str,
        /// Meaning of the message.
        refusal: Refusal,
        /// Message of the endpoint, without credentials.
        message: String,
    },
    /// The answer lacks a part that every node has.
    #[error("{call} returned no {missing}")]
    RpcIncomplete {
        /// JSON-RPC method.
        call: &'static str,
        /// Missing part of the answer.
        missing: &'static str,
    },
    /// This replica is not the leader.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

impl RpcError {
    /// Reason for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.into_str()
    }

    /// Whether the endpoint as a whole is to blame, and not the question: it counts against the
    /// endpoint's health.
    #[must_use]
    pub const fn is_endpoint_fault(&self) -> bool {
        matches!(
            self,
            Self::RpcUnreachable { .. }
                | Self::RpcRateLimited { .. }
                | Self::RpcMethodMissing { .. }
                | Self::RpcIncomplete { .. }
        )
    }

    /// Requests that had no answer at all. One for logs may fail because of their number, which says
    /// nothing about other requests.
    #[must_use]
    pub(super) fn unanswered_requests(&self) -> u32 {
        let Self::RpcUnreachable { call, cause } = self else {
            return 0;
        };
        let is_logs = *call == RpcMethod::Logs.as_str();
        match *cause {
            STOPPED_ANSWERING => 2,
            TIMED_OUT | CONNECTION_LOST if is_logs => 0,
            TIMED_OUT | CONNECTION_LOST | NOT_CONNECTED | TLS_FAILED | NOT_TRUSTED => 1,
            _ => 0,
        }
    }

    /// How long the endpoint asks to wait before the next request.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RpcRateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the contract refused the call.
    #[must_use]
    pub const fn is_revert(&self) -> bool {
        matches!(
            self,
            Self::RpcRefused {
                refusal: Refusal::Reverted,
                ..
            }
        )
    }

    /// Whether a request for the logs of fewer blocks may succeed. Slow endpoints and gateways do
    /// not say that a range is too large: they time out, close the connection or fail.
    #[must_use]
    pub fn narrows_range(&self) -> bool {
        match self {
            Self::RpcRangeLimited { .. } => true,
            Self::RpcUnreachable { cause, .. } => {
                [TIMED_OUT, CONNECTION_LOST, GATEWAY_TIMED_OUT, SERVER_ERROR].contains(cause)
            }
            // Endpoints word their limits in many ways, so unknown words may be another one.
            Self::RpcRefused { refusal, .. } => *refusal == Refusal::Other,
            _ => false,
        }
    }

    /// The error for a call without an answer. What is too large is a matter of the question, and
    /// no fault of the endpoint.
    pub(super) fn unreachable(method: RpcMethod, cause: &'static str) -> Self {
        let call = method.as_str();
        match cause {
            TOO_LARGE | ANSWER_TOO_LARGE => {
                let refusal = match method {
                    RpcMethod::Logs => Refusal::RangeLimited,
                    _ => Refusal::Other,
                };
                Self::refused(method, refusal, None, cause.to_owned())
            }
            cause => Self::RpcUnreachable { call, cause },
        }
    }

    /// The error for a refusal of this meaning.
    pub(super) fn refused(
        method: RpcMethod,
        refusal: Refusal,
        retry_after: Option<Duration>,
        message: String,
    ) -> Self {
        let call = method.as_str();
        match refusal {
            Refusal::RateLimited => Self::RpcRateLimited {
                call,
                retry_after,
                message,
            },
            Refusal::RangeLimited => Self::RpcRangeLimited { call, message },
            Refusal::HistoryMissing => Self::RpcHistoryMissing { call, message },
            Refusal::MethodMissing => Self::RpcMethodMissing { call, message },
            Refusal::Reverted
            | Refusal::InsufficientFunds
            | Refusal::Underpriced
            | Refusal::AlreadyKnown
            | Refusal::NonceTooLow
            | Refusal::Other => Self::RpcRefused {
                call,
                refusal,
                message,
            },
        }
    }
}

/// Removes credentials from the words of an endpoint.
#[derive(Clone)]
pub(super) struct Redaction {
    /// Parts of the URL that must never be shown, longest first.
    secrets: Vec<String>,
}

impl Redaction {
    /// Hides these parts of a URL. Parts of up to three characters are no credentials, and hiding
    /// them would make messages unreadable.
    pub(super) fn new(parts: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = parts.into_iter().filter(|part| part.len() > 3).collect();
        // Longest first: replacing a shorter secret first could leave the rest of a longer one
        // readable.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// Message of an endpoint, shortened, without any part of its URL that may be a credential.
    pub(super) fn redact(&self, message: &str) -> String {
        let visible: String = message
            .chars()
            .filter(|letter| !letter.is_control())
            .collect();
        let clean = self
            .secrets
            .iter()
            .fold(visible, |text, secret| text.replace(secret, "***"));
        clean.chars().take(MESSAGE_LENGTH).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redaction_hides_every_part_and_shortens() {
        let redaction = Redaction::new(
            ["hunter22", "/v3/0123456789abcdef", "0123456789abcdef", "v3"].map(str::to_owned),
        );
        assert_eq!(
            redaction.redact("no 0123456789abcdef at /v3/0123456789abcdef for hunter22, v3"),
            "no *** at *** for ***, v3"
        );
        assert_eq!(
            redaction.redact("hun\u{0}ter\n22"),
            "***",
            "a control character does not split a secret"
        );
        assert_eq!(
            redaction.redact(&"é".repeat(1000)).chars().count(),
            MESSAGE_LENGTH
        );
    }

    #[test]
    fn request_is_unanswered_if_nothing_came_back() {
        let unanswered = |method, cause| RpcError::unreachable(method, cause).unanswered_requests();
        for cause in [
            TIMED_OUT,
            CONNECTION_LOST,
            NOT_CONNECTED,
            TLS_FAILED,
            NOT_TRUSTED,
        ] {
            assert_eq!(unanswered(RpcMethod::Block, cause), 1, "{cause}");
        }
        for cause in [TIMED_OUT, CONNECTION_LOST] {
            assert_eq!(
                unanswered(RpcMethod::Logs, cause),
                0,
                "the range may be to blame"
            );
        }
        assert_eq!(unanswered(RpcMethod::Logs, NOT_CONNECTED), 1);
        assert_eq!(unanswered(RpcMethod::Logs, STOPPED_ANSWERING), 2);
        for cause in [SERVER_ERROR, GATEWAY_TIMED_OUT] {
            assert_eq!(unanswered(RpcMethod::Block, cause), 0, "{cause}");
        }
        let refusal = Refusal::Other;
        let refused = RpcError::refused(RpcMethod::Block, refusal, None, String::new());
        assert_eq!(refused.unanswered_requests(), 0);
    }

    #[test]
    fn only_faults_of_the_endpoint_count_against_it() {
        let refused = |refusal| {
            RpcError::refused(
                RpcMethod::Call,
                refusal,
                Some(Duration::from_secs(3)),
                "words".to_owned(),
            )
        };
        let cases = [
            (Refusal::RateLimited, "RpcRateLimited", true),
            (Refusal::RangeLimited, "RpcRangeLimited", false),
            (Refusal::HistoryMissing, "RpcHistoryMissing", false),
            (Refusal::MethodMissing, "RpcMethodMissing", true),
            (Refusal::Reverted, "RpcRefused", false),
            (Refusal::InsufficientFunds, "RpcRefused", false),
            (Refusal::Underpriced, "RpcRefused", false),
            (Refusal::AlreadyKnown, "RpcRefused", false),
            (Refusal::NonceTooLow, "RpcRefused", false),
            (Refusal::Other, "RpcRefused", false),
        ];
        for (refusal, reason, is_fault) in cases {
            let error = refused(refusal);
            assert_eq!(
                (error.reason(), error.is_endpoint_fault()),
                (reason, is_fault),
                "{refusal:?}"
            );
            assert_eq!(error.is_revert(), refusal == Refusal::Reverted);
            assert_eq!(
                error.retry_after().is_some(),
                refusal == Refusal::RateLimited
            );
            assert!(error.to_string().contains("words"));
        }
        let incomplete = RpcError::RpcIncomplete {
            call: "eth_call",
            missing: "owner",
        };
        assert!(incomplete.is_endpoint_fault() && !incomplete.narrows_range());
        assert!(!RpcError::from(NotLeading::Closed).is_endpoint_fault());
    }

    #[test]
    fn slow_and_overloaded_endpoints_are_asked_for_fewer_blocks() {
        let unreachable = |cause| RpcError::RpcUnreachable {
            call: "eth_getLogs",
            cause,
        };
        for cause in [TIMED_OUT, CONNECTION_LOST, GATEWAY_TIMED_OUT, SERVER_ERROR] {
            assert!(unreachable(cause).narrows_range(), "{cause}");
        }
        assert!(!unreachable("could not connect").narrows_range());
        for cause in [TOO_LARGE, ANSWER_TOO_LARGE] {
            let error = RpcError::unreachable(RpcMethod::Logs, cause);
            assert!(
                error.narrows_range() && !error.is_endpoint_fault(),
                "{cause}"
            );
            let error = RpcError::unreachable(RpcMethod::Call, cause);
            assert_eq!(error.reason(), "RpcRefused", "{cause}");
        }
        let refused =
            |refusal| RpcError::refused(RpcMethod::Logs, refusal, None, "words".to_owned());
        assert!(refused(Refusal::RangeLimited).narrows_range());
        assert!(refused(Refusal::Other).narrows_range());
        assert!(!refused(Refusal::RateLimited).narrows_range());
        assert!(!refused(Refusal::HistoryMissing).narrows_range());
    }
}
