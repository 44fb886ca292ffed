//! The life of one payment: which states a claim passes through, who may move it, and what a
//! payment that is presented again is answered. Pure.
//!
//! ```text
//! Claimed ──> Executing ──> Settling ──> Settled ──> Delivering ──> Delivered
//!    │            │            │             ^            │
//!    └─ released ─┘            └─> Refused   └── cut off ─┘
//! ```
//! An upfront payment is settled before the upstream is called: Claimed, Settling, Settled,
//! Executing. Where it is open whether a payment has bought its answer from an earlier process,
//! `/settle` is sent only to learn that: Claimed, Settling, Delivered. Rules:
//! - P1 a payment is settled once, and delivered completely at most once, except to a buyer who has
//!   identified the request.
//! - P2 after `/settle` was sent, only a definite refusal is answered 402.
//! - P3 no byte of an answer leaves before the payment is settled.
//! - P4 a claim is released only if `/settle` was not sent.
//! - P5 every claim ends: each has an expiry.
//!
//! [`super::claims`] stores claims; the holder of a claim proves itself by a token, which no one
//! else knows.

use alloy::primitives::{Address, B256, Keccak256, keccak256};

use super::answer::Settlement;

/// How often the upstream may be called for one payment: once, and three times again after a cut.
pub const MOST_EXECUTIONS: u8 = 4;
/// Seconds for which a claim is kept after its payment ended.
const KEPT: u64 = 60;
/// Seconds for which a claim is kept after its payment ended while its outcome is open, the answer was
/// not delivered, or the buyer may present another payment for the same request.
const KEPT_OPEN: u64 = 3600;
/// Seconds after the end of an authorization from which a block shows what became of it: the blocks
/// before are not reorganized any more.
const FINAL_AFTER: u64 = 120;
/// Reason of a payment that ended without being charged, as facilitators call it.
const EXPIRED: &str = "invalid_exact_evm_payload_authorization_valid_before";

/// What a payment was presented for, and how: [`Fingerprint::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub B256);

impl Fingerprint {
    /// Of a request, by its hash, with a signature and the buyer's identifier of the request. Once a
    /// payment is settled, all of it but request and identifier is public.
    pub fn of(request: B256, signature: &[u8], identifier: Option<&str>) -> Self {
        let mut hash = Keccak256::new();
        hash.update(request);
        hash.update(keccak256(signature));
        hash.update(identifier.unwrap_or_default());
        Self(hash.finalize())
    }
}

/// A request that has an identifier of its buyer's (extension `payment-identifier` of x402): it is
/// charged once, although the buyer may sign another payment for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentifiedRequest {
    /// A hash of offer, payer and identifier.
    pub key: B256,
    /// A hash of the request, and of the token that it is paid in.
    pub request: B256,
}

impl IdentifiedRequest {
    /// `offer` is the uid of the offer, and `token` chain id and address.
    pub fn new(
        offer: &str,
        payer: Address,
        identifier: &str,
        request: B256,
        token: (u64, Address),
    ) -> Self {
        let mut key = Keccak256::new();
        key.update(keccak256(offer));
        key.update(payer);
        key.update(identifier);
        let mut paid = Keccak256::new();
        paid.update(request);
        paid.update(token.0.to_be_bytes());
        paid.update(token.1);
        Self {
            key: key.finalize(),
            request: paid.finalize(),
        }
    }
}

/// Proof of holding a claim. It is random, so that it cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HolderToken(pub u64);

/// Where a payment is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Presented, and nothing was done for it.
    Claimed,
    /// The upstream works for it.
    Executing,
    /// `/settle` is about to be sent, or was sent. Without a holder the outcome is unknown.
    Settling {
        /// Hash of the transaction, if one is known.
        transaction: Option<String>,
        /// Whether an earlier `/settle` may have reached the facilitator.
        is_open: bool,
        /// Whether a success buys an answer.
        is_sale: bool,
    },
    /// The money was moved; nothing was delivered.
    Settled { transaction: String },
    /// The answer is being sent.
    Delivering { transaction: String },
    /// The answer was sent to its last byte, or may have been by an earlier process.
    Delivered { transaction: String },
    /// The facilitator refused it for good.
    Refused {
        reason: String,
        transaction: Option<String>,
    },
}

/// A payment that was presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub state: State,
    pub fingerprint: Fingerprint,
    /// The request that it was presented for, if that has an identifier.
    pub identified: Option<IdentifiedRequest>,
    /// Who works for it, if anyone.
    pub holder: Option<HolderToken>,
    /// How often the upstream was called.
    pub executions: u8,
    /// When the authorization ends, in Unix seconds.
    pub valid_before: u64,
}

/// What happens to a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The upstream is about to be called.
    Execute,
    /// `/settle` is about to be sent, to sell.
    Settle,
    /// `/settle` is about to be sent, to learn what became of the payment earlier.
    Learn,
    /// The facilitator reported success.
    Success { transaction: String },
    /// The facilitator refused for good.
    Refuse {
        reason: String,
        transaction: Option<String>,
    },
    /// The outcome of `/settle` is not known.
    LoseTrack { transaction: Option<String> },
    /// `/settle` did not reach the facilitator.
    NotSent,
    /// The first byte of the answer is about to be sent.
    Deliver,
    /// The last byte of the answer was sent.
    Complete,
    /// Work or delivery ended before its time.
    CutOff,
}

/// A claim was moved by someone who does not hold it, or in a way that its state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claim is not in a state that allows this")]
pub struct NotAllowed;

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    To(Claim),
    /// It is as if the payment had never been presented.
    Released,
}

impl Claim {
    /// A payment that is presented for the first time.
    pub fn new(fingerprint: Fingerprint, holder: HolderToken, valid_before: u64) -> Self {
        Self {
            state: State::Claimed,
            fingerprint,
            identified: None,
            holder: Some(holder),
            executions: 0,
            valid_before,
        }
    }

    /// When the claim may be forgotten, in Unix seconds.
    pub fn expiry(&self) -> u64 {
        let kept = match &self.state {
            State::Settling { .. } | State::Settled { .. } | State::Delivering { .. } => KEPT_OPEN,
            State::Refused { reason, .. } if may_mean_used(reason) => KEPT_OPEN,
            State::Delivered { .. } if self.identified.is_some() => KEPT_OPEN,
            _ => KEPT,
        };
        self.valid_before.saturating_add(kept)
    }

    /// The claim after an event that its holder reports.
    ///
    /// # Errors
    /// If it is held by another request, or its state does not allow the event.
    pub fn advance(mut self, holder: HolderToken, event: Event) -> Result<Moved, NotAllowed> {
        if self.holder != Some(holder) {
            return Err(NotAllowed);
        }
        self.state = match (self.state, event) {
            (State::Claimed, Event::Execute) => {
                self.executions += 1;
                State::Executing
            }
            // Upfront: the money was moved, and the answer is still to come.
            (State::Settled { transaction }, Event::Execute) => {
                self.executions += 1;
                State::Settled { transaction }
            }
            (State::Claimed | State::Executing, Event::Settle) => State::Settling {
                transaction: None,
                is_open: false,
                is_sale: true,
            },
            (State::Claimed, Event::Learn) => State::Settling {
                transaction: None,
                is_open: false,
                is_sale: false,
            },
            (State::Claimed | State::Executing, Event::CutOff)
            | (State::Settling { is_open: false, .. }, Event::NotSent) => {
                return Ok(Moved::Released);
            }
            (State::Settling { is_sale: true, .. }, Event::Success { transaction }) => {
                State::Settled { transaction }
            }
            (State::Settling { is_sale: false, .. }, Event::Success { transaction }) => {
                self.holder = None;
                State::Delivered { transaction }
            }
            (
                State::Settling { .. },
                Event::Refuse {
                    reason,
                    transaction,
                },
            ) => {
                self.holder = None;
                State::Refused {
                    reason,
                    transaction,
                }
            }
            (
                State::Settling {
                    transaction: before,
                    is_sale,
                    ..
                },
                Event::LoseTrack { transaction },
            ) => {
                self.holder = None;
                State::Settling {
                    transaction: transaction.or(before),
                    is_open: true,
                    is_sale,
                }
            }
            (State::Settled { transaction }, Event::Deliver) => State::Delivering { transaction },
            (State::Delivering { transaction }, Event::Complete) => {
                self.holder = None;
                State::Delivered { transaction }
            }
            (State::Settled { transaction } | State::Delivering { transaction }, Event::CutOff) => {
                self.holder = None;
                State::Settled { transaction }
            }
            _ => return Err(NotAllowed),
        };
        Ok(Moved::To(self))
    }
}

/// Which `/settle` of a payment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettleAttempt {
    /// The first one.
    First,
    /// One that asks for the outcome of an earlier one.
    Repeated,
    /// The first one of this process, which asks what became of the payment earlier.
    Learning,
}

/// What one endpoint of a chain shows of an authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationReading {
    /// Its nonce is used. Hash of the transaction of its transfer, if that is among those of the
    /// latest blocks.
    Used { transaction: Option<String> },
    /// Its nonce is not used. Time of a block as of which it was not, in Unix seconds, if the
    /// endpoint could be asked so: nodes behind one URL differ in their latest block.
    Unused { as_of: Option<u64> },
}

/// What a chain shows of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnChain {
    /// Its nonce is not used.
    Unused,
    /// Its nonce is not used, and the token does not accept it any more.
    Expired,
    /// Its nonce was used, and its transfer is not among those of the latest blocks: it was
    /// cancelled, or used for something else, or long ago.
    Used,
    /// Its transfer was made.
    Charged { transaction: String },
}

impl OnChain {
    /// What all endpoints show together of an authorization that ends at `valid_before`, in Unix
    /// seconds; `None` if there is no reading. What one endpoint leaves open is open.
    pub fn of(readings: &[AuthorizationReading], valid_before: u64) -> Option<Self> {
        let transactions = readings.iter().filter_map(|reading| match reading {
            AuthorizationReading::Used { transaction } => Some(transaction),
            AuthorizationReading::Unused { .. } => None,
        });
        // `Some` is above `None`.
        if let Some(transaction) = transactions.max() {
            return Some(match transaction.clone() {
                Some(transaction) => Self::Charged { transaction },
                None => Self::Used,
            });
        }
        // The token refuses it from its end on.
        let end = valid_before.saturating_add(FINAL_AFTER);
        let is_expired = |reading: &AuthorizationReading| match reading {
            AuthorizationReading::Unused { as_of: Some(time) } => *time >= end,
            _ => false,
        };
        Some(match readings {
            [] => return None,
            readings if readings.iter().all(is_expired) => Self::Expired,
            _ => Self::Unused,
        })
    }
}

/// How a settlement ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Settled {
        transaction: String,
    },
    Refused {
        reason: String,
        transaction: Option<String>,
    },
    Unknown {
        transaction: Option<String>,
    },
    NotSent,
}

impl Outcome {
    /// What a facilitator's answer to `/settle` means. Once the payment may have been charged, no
    /// refusal says that it was not: a facilitator may find that the nonce is used, or that the payer
    /// cannot pay any more, or that the time is over.
    pub fn of(settlement: Settlement, attempt: SettleAttempt) -> Self {
        let is_definite = |reason: &str| match attempt {
            SettleAttempt::First => true,
            SettleAttempt::Repeated => false,
            // It is answered as a payment that may have been used.
            SettleAttempt::Learning => may_mean_used(reason),
        };
        match settlement {
            Settlement::Settled { transaction, .. } => Self::Settled { transaction },
            Settlement::Refused {
                reason,
                transaction,
            } if is_definite(&reason) => Self::Refused {
                reason,
                transaction,
            },
            Settlement::Refused { transaction, .. }
            | Settlement::Pending { transaction }
            | Settlement::Unknown { transaction, .. } => Self::Unknown { transaction },
            Settlement::NotSent { .. } if attempt == SettleAttempt::Repeated => {
                Self::Unknown { transaction: None }
            }
            Settlement::NotSent { .. } => Self::NotSent,
        }
    }

    /// The outcome, with what the chain shows where the facilitator leaves it open.
    #[must_use]
    pub fn or_on_chain(self, shown: Option<OnChain>) -> Self {
        match (self, shown) {
            (Self::Unknown { .. }, Some(OnChain::Charged { transaction })) => {
                Self::Settled { transaction }
            }
            (Self::Unknown { transaction }, Some(OnChain::Expired)) => Self::Refused {
                reason: EXPIRED.to_owned(),
                transaction,
            },
            (outcome, _) => outcome,
        }
    }

    /// What it means for the claim.
    pub fn event(&self) -> Event {
        match self.clone() {
            Self::Settled { transaction } => Event::Success { transaction },
            Self::Refused {
                reason,
                transaction,
            } => Event::Refuse {
                reason,
                transaction,
            },
            Self::Unknown { transaction } => Event::LoseTrack { transaction },
            Self::NotSent => Event::NotSent,
        }
    }
}

/// What a payment that has a claim is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// 409: another request works for it.
    InProgress,
    /// 409: it was presented for another request.
    OtherRequest { transaction: Option<String> },
    /// 409: its answer was delivered, or may not be produced once more.
    Used { transaction: String },
    /// 402: it was refused for good.
    Refused {
        reason: String,
        transaction: Option<String>,
    },
    /// The outcome of its settlement is not known; the caller holds the claim.
    Join { transaction: Option<String> },
    /// 409: whether the first payment for the request was charged is not known.
    Open { transaction: Option<String> },
    /// It is settled and was not delivered: the caller holds the claim, and may call the upstream
    /// again without a charge.
    Execute { transaction: String },
}

impl Presented {
    /// Whether the caller takes the claim over.
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Execute { .. })
    }
}

/// What a payment that is presented again is answered.
pub fn present(claim: &Claim, fingerprint: Fingerprint) -> Presented {
    if claim.fingerprint != fingerprint {
        let transaction = claim.transaction();
        return Presented::OtherRequest { transaction };
    }
    if claim.holder.is_some() {
        return Presented::InProgress;
    }
    match &claim.state {
        State::Claimed | State::Executing => Presented::InProgress,
        State::Settling { transaction, .. } => Presented::Join {
            transaction: transaction.clone(),
        },
        State::Settled { transaction } if claim.executions < MOST_EXECUTIONS => {
            Presented::Execute {
                transaction: transaction.clone(),
            }
        }
        State::Settled { transaction }
        | State::Delivering { transaction }
        | State::Delivered { transaction } => Presented::Used {
            transaction: transaction.clone(),
        },
        State::Refused {
            reason,
            transaction,
        } => Presented::Refused {
            reason: reason.clone(),
            transaction: transaction.clone(),
        },
    }
}

/// What another payment for an identified request is answered, instead of buying. `claim` is that of
/// the first payment; `None` if that one bought nothing.
pub fn present_another(claim: &Claim, identified: IdentifiedRequest) -> Option<Presented> {
    let first = claim
        .identified
        .filter(|first| first.key == identified.key)?;
    let transaction = claim.transaction();
    if let State::Refused { reason, .. } = &claim.state {
        return may_mean_used(reason).then_some(Presented::Open { transaction });
    }
    if first.request != identified.request {
        return Some(Presented::OtherRequest { transaction });
    }
    Some(match present(claim, claim.fingerprint) {
        // Only the first payment can be settled again.
        Presented::Join { transaction } => Presented::Open { transaction },
        presented => presented,
    })
}

impl Claim {
    /// Hash of its transaction, if one is known.
    pub fn transaction(&self) -> Option<String> {
        match &self.state {
            State::Claimed | State::Executing => None,
            State::Settling { transaction, .. } | State::Refused { transaction, .. } => {
                transaction.clone()
            }
            State::Settled { transaction }
            | State::Delivering { transaction }
            | State::Delivered { transaction } => Some(transaction.clone()),
        }
    }
}

/// Whether a facilitator's refusal says that the authorization was used. A connection that was refused
/// and a token that is paused say nothing of it.
pub fn is_used(reason: &str) -> bool {
    let lower = reason.to_ascii_lowercase();
    let mut words = lower.split(|letter: char| !letter.is_ascii_alphanumeric());
    let parts = ["alreadyused", "authorizationused", "duplicate"];
    words.any(|word| word == "used") || parts.iter().any(|part| lower.contains(part))
}

/// Whether a facilitator's refusal may mean that the authorization was used: then the money may
/// have moved, and the payment must not be answered as if it had not.
pub fn may_mean_used(reason: &str) -> bool {
    let lower = reason.to_ascii_lowercase();
    let words = [
        "nonce",
        "simulation",
        "unexpected",
        "transaction_failed",
        "invalid_transaction_state",
    ];
    is_used(reason) || words.iter().any(|word| lower.contains(word))
}

/// Whether a refusal may be the effect of the payment's own charge: it is used, the payer has less
/// than before, or its time is over.
pub fn may_follow_charge(reason: &str) -> bool {
    let lower = reason.to_ascii_lowercase();
    let words = [
        "balance",
        "deadline",
        "expire",
        "funds",
        "insufficient",
        "valid_before",
    ];
    may_mean_used(reason) || words.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests;
