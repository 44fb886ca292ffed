//! What one pass found out. Pure.
//!
//! Each step of [`super::pass`] returns its part, and [`super::status`] derives conditions from the
//! whole. What a step did not reach stays [`Check::Skipped`] or [`LedgerOutcome::NotReached`], so
//! that a pass which ends early cannot report what it did not check.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use jiff::Timestamp;

use super::blocked::{Blocked, Side};
use super::index::IndexProblem;
use super::schedule::Activity;
use crate::api::{IndexPosition, Key, Nonce};
use crate::chain::RpcError;
use crate::cluster;
use crate::ledger::Freeze;
use crate::ledger::evidence::UnknownPremise;
use crate::ledger::money::Shortage;
use crate::ledger::sweep::Orphans;
use crate::reconcile::issues::{OfferIssue, OfferName};

/// Result of checking one side of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Check {
    /// Not reached, or not due: the stored condition stays, with the generation that it was checked
    /// on.
    #[default]
    Skipped,
    Passed {
        reason: &'static str,
        message: String,
    },
    Failed(Blocked),
    /// The check was due and could not be made: the condition becomes Unknown.
    Unmade {
        reason: &'static str,
        why: String,
    },
}

/// The checks of a registry's three sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Checks {
    pub signers: Check,
    pub rpc: Check,
    pub contract: Check,
}

impl Checks {
    /// These checks, with the side that a problem belongs to failed.
    #[must_use]
    pub(crate) fn failed(mut self, blocked: Blocked) -> Self {
        let side = match blocked.side() {
            Side::Signers => &mut self.signers,
            Side::Rpc => &mut self.rpc,
            Side::Contract => &mut self.contract,
        };
        *side = Check::Failed(blocked);
        self
    }
}

/// What a pass found out about the ledger and its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum LedgerOutcome {
    /// The pass ended before the ledger, or nothing was due: what is stored about it stays.
    #[default]
    NotReached,
    /// It was due, and the API server did not answer as needed.
    Unmade { why: String },
    /// The most urgent obstacle to registering, if there is any.
    Reached(Option<Obstacle>),
}

impl LedgerOutcome {
    /// What is known of the ledger after a request to the API server failed. After a lost
    /// compare-and-swap or lease, the next pass looks again, and nothing is reported.
    #[must_use]
    pub(crate) fn after(error: &cluster::Error) -> Self {
        match error {
            cluster::Error::Conflict | cluster::Error::Exists | cluster::Error::NotLeading(_) => {
                Self::NotReached
            }
            cluster::Error::Kubernetes(_) => Self::Unmade {
                why: error.message(),
            },
        }
    }
}

/// What keeps a registry from registering, although its three sides are in order. The name of the
/// innermost variant is the reason of `Ready`.
#[derive(Clone, Debug, PartialEq, thiserror::Error, strum::IntoStaticStr)]
pub(crate) enum Obstacle {
    #[error(transparent)]
    Freeze(#[from] Freeze),
    /// The chain's logs prove nothing.
    #[error(transparent)]
    Logs(#[from] IndexProblem),
    /// A premise of every allocation is unknown.
    #[error(transparent)]
    Premise(#[from] UnknownPremise),
    /// What is stored for a nonce contradicts the ledger or itself.
    #[error("nonce {nonce} of agent {key}: {why}. Restore the record from a backup")]
    StoredTransactionMismatch { key: Key, nonce: Nonce, why: String },
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The endpoint refuses a signed transaction.
    #[error("{endpoint} refuses the transaction of agent {key} at nonce {nonce}: {message}")]
    SendRefused {
        endpoint: String,
        key: Key,
        nonce: Nonce,
        message: String,
    },
    /// The endpoint refuses a signed transaction, because the signer cannot pay for it. A rollup
    /// charges more than gas: only the endpoint knows how much.
    #[error(
        "{endpoint} refuses the transaction of agent {key} at nonce {nonce}: {message}. Fund the \
         signer"
    )]
    InsufficientFunds {
        endpoint: String,
        key: Key,
        nonce: Nonce,
        message: String,
    },
    /// The endpoint does not answer whether it accepts a signed transaction.
    #[error(
        "{endpoint} does not say whether it accepts the transaction of agent {key} at nonce \
         {nonce}: {message}"
    )]
    SendUnanswered {
        endpoint: String,
        key: Key,
        nonce: Nonce,
        message: String,
    },
    /// A transaction that was sent is in no block.
    #[error(
        "the transaction of agent {key} at nonce {nonce} was sent {blocks} blocks ago and is in no \
         block: the fee of the transaction may be too low for this chain"
    )]
    NotIncluded { key: Key, nonce: Nonce, blocks: u64 },
    /// Nothing could be signed for the lowest nonce that waits.
    #[error(
        "no transaction could be signed for nonce {nonce} of agent {key}, and nothing above it would \
         be included: the condition Registered of that agent's offers says why"
    )]
    NonceUnsigned { nonce: Nonce, key: Key },
    /// A question that spending depends on was not answered.
    #[error("{endpoint}: {error}")]
    Rpc { endpoint: String, error: RpcError },
    /// The ledger is not ready, or logs are being read.
    #[error("{0}")]
    Settling(String),
}

impl Obstacle {
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Freeze(freeze) => freeze.reason(),
            Self::Logs(problem) => problem.reason(),
            Self::Premise(premise) => premise.reason(),
            Self::Shortage(shortage) => shortage.reason(),
            Self::Rpc { error, .. } => error.reason(),
            own => own.into(),
        }
    }

    /// Whether it can pass without action by a person.
    #[must_use]
    pub(crate) const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Settling(_)
                | Self::Rpc { .. }
                | Self::SendUnanswered { .. }
                | Self::Premise(
                    UnknownPremise::IndexNotProven
                        | UnknownPremise::EntriesUnchecked { .. }
                        | UnknownPremise::OtherLedgerUnchecked { .. }
                )
        )
    }

    /// What the registry waits for because of it; `None` if the next pass can go on.
    #[must_use]
    pub(crate) const fn activity(&self) -> Option<Activity> {
        match self {
            Self::Freeze(_) | Self::StoredTransactionMismatch { .. } | Self::Logs(_) => {
                Some(Activity::Held)
            }
            Self::Premise(_) if !self.is_transient() => Some(Activity::Short),
            Self::Shortage(_)
            | Self::SendRefused { .. }
            | Self::InsufficientFunds { .. }
            | Self::NotIncluded { .. }
            | Self::NonceUnsigned { .. } => Some(Activity::Short),
            Self::Premise(_)
            | Self::SendUnanswered { .. }
            | Self::Rpc { .. }
            | Self::Settling(_) => None,
        }
    }

    /// The more urgent one comes first.
    #[must_use]
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::Freeze(_) => 0,
            Self::StoredTransactionMismatch { .. } => 1,
            Self::Logs(_) => 2,
            Self::Premise(_) => 3,
            Self::Shortage(
                Shortage::FeeCapReached { .. } | Shortage::AttemptLimitReached { .. },
            ) => 4,
            Self::SendRefused { .. } | Self::InsufficientFunds { .. } => 5,
            Self::NotIncluded { .. } => 6,
            Self::SendUnanswered { .. } => 7,
            Self::Shortage(_) => 8,
            Self::Rpc { .. } => 9,
            Self::NonceUnsigned { .. } => 10,
            Self::Settling(_) => 11,
        }
    }
}

/// The most urgent obstacle; of equal ones, the first.
#[must_use]
pub(crate) fn most_urgent(obstacles: impl IntoIterator<Item = Obstacle>) -> Option<Obstacle> {
    obstacles.into_iter().min_by_key(Obstacle::rank)
}

/// Numbers of a registry's status. What a pass did not count stays `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    /// The first signer and its balance in wei.
    pub balance: Option<(Address, u128)>,
    /// Agents registered.
    pub agents: Option<usize>,
    /// Registrations that are not final.
    pub pending: Option<usize>,
    /// Nonces that are allocated and not final.
    pub in_flight: Option<usize>,
    /// When the oldest transaction that is not final was signed.
    pub oldest_signed: Option<Timestamp>,
    /// Registrations that balance and limits still allow.
    pub left: Option<u32>,
    /// Spent in the last 24 hours, in wei.
    pub spent: Option<u128>,
    /// How far the logs of each account were read.
    pub indexes: Vec<IndexPosition>,
    /// Agents that keep keys from getting a nonce, once the logs of all accounts were read.
    pub orphans: Option<Orphans>,
    /// Whether the configured `fromBlock` is accepted without proof, because the endpoint no
    /// longer has the state of that block.
    pub is_start_unverified: bool,
    /// Whether the signer holds agents that others transferred to it.
    pub holds_transferred: bool,
    /// The last transaction of something else that used the nonce of a registration.
    pub foreign_use: Option<B256>,
}

/// Issues of single offers that one step found.
pub(crate) type Issues = BTreeMap<OfferName, OfferIssue>;

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use kube::core::Status;

    use super::*;
    use crate::leader::NotLeading;

    #[test]
    fn ledger_is_unmade_only_if_the_api_server_fails() {
        for lost in [
            cluster::Error::Conflict,
            cluster::Error::Exists,
            cluster::Error::NotLeading(NotLeading::Closed),
        ] {
            let after = LedgerOutcome::after(&lost);
            assert_eq!(after, LedgerOutcome::NotReached, "{lost}");
        }
        let status = Status::failure("quota exceeded", "Forbidden").boxed();
        let refused = cluster::Error::Kubernetes(Box::new(kube::Error::Api(status)));
        let why = "quota exceeded".into();
        assert_eq!(
            LedgerOutcome::after(&refused),
            LedgerOutcome::Unmade { why }
        );
    }

    fn error() -> RpcError {
        RpcError::RpcUnreachable {
            call: "eth_call",
            cause: "timed out",
        }
    }

    /// Every kind of obstacle, the most urgent first, each with its reason and what the registry
    /// waits for.
    fn obstacles() -> Vec<(Obstacle, &'static str, Option<Activity>)> {
        let endpoint = || String::from("https://rpc.example");
        let message = || String::from("no");
        let key = Key::derive("", 1, Address::ZERO, 1);
        let nonce = Nonce(5);
        let incomplete = IndexProblem::LogsIncomplete {
            account: Address::ZERO,
            expected: U256::from(2),
            found: U256::from(1),
        };
        let unreadable = UnknownPremise::LedgerUnreadable { name: "l".into() };
        let short = Shortage::InsufficientFunds {
            balance: 0,
            needed: 1,
        };
        let (held, waits) = (Some(Activity::Held), Some(Activity::Short));
        vec![
            (Freeze::LedgerLost { uid: None }.into(), "LedgerLost", held),
            (
                Obstacle::StoredTransactionMismatch {
                    key,
                    nonce,
                    why: "other bytes".into(),
                },
                "StoredTransactionMismatch",
                held,
            ),
            (incomplete.into(), "LogsIncomplete", held),
            (IndexProblem::Rpc(error()).into(), "RpcUnreachable", held),
            (unreadable.into(), "LedgerUnreadable", waits),
            (
                UnknownPremise::IndexNotProven.into(),
                "IndexNotProven",
                None,
            ),
            (
                UnknownPremise::EntriesUnchecked { count: 1 }.into(),
                "EntriesUnchecked",
                None,
            ),
            (
                Shortage::FeeCapReached { needed: 2, cap: 1 }.into(),
                "FeeCapReached",
                waits,
            ),
            (
                Shortage::AttemptLimitReached { attempts: 256 }.into(),
                "AttemptLimitReached",
                waits,
            ),
            (
                Obstacle::SendRefused {
                    endpoint: endpoint(),
                    key,
                    nonce,
                    message: message(),
                },
                "SendRefused",
                waits,
            ),
            (
                Obstacle::InsufficientFunds {
                    endpoint: endpoint(),
                    key,
                    nonce,
                    message: message(),
                },
                "InsufficientFunds",
                waits,
            ),
            (
                Obstacle::NotIncluded {
                    key,
                    nonce,
                    blocks: 9,
                },
                "NotIncluded",
                waits,
            ),
            (
                Obstacle::SendUnanswered {
                    endpoint: endpoint(),
                    key,
                    nonce,
                    message: message(),
                },
                "SendUnanswered",
                None,
            ),
            (short.into(), "InsufficientFunds", waits),
            (
                Obstacle::Rpc {
                    endpoint: endpoint(),
                    error: error(),
                },
                "RpcUnreachable",
                None,
            ),
            (
                Obstacle::NonceUnsigned { nonce, key },
                "NonceUnsigned",
                waits,
            ),
            (Obstacle::Settling("wait".into()), "Settling", None),
        ]
    }

    #[test]
    fn obstacle_has_the_reason_of_its_innermost_variant() {
        for (obstacle, reason, _) in obstacles() {
            assert_eq!(obstacle.reason(), reason, "{obstacle}");
        }
    }

    #[test]
    fn obstacle_that_passes_by_itself_delays_nothing() {
        for (obstacle, reason, activity) in obstacles() {
            assert_eq!(obstacle.activity(), activity, "{reason}");
            assert_eq!(obstacle.is_transient(), activity.is_none(), "{reason}");
        }
    }

    #[test]
    fn obstacles_are_ranked_by_urgency() {
        let ranks: Vec<u8> = obstacles()
            .iter()
            .map(|(obstacle, ..)| obstacle.rank())
            .collect();
        assert_eq!(ranks, [0, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 11]);
    }
}
