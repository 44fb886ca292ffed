//! One moment of the world: the process with its claim and tasks, what the facilitator still has, the
//! token, and what happened so far as far as a property depends on it.

use serviceoffer::decisions::payment::{Claim, Fingerprint, HolderToken, Outcome, SettleAttempt};

use crate::payment::properties::Property;

/// `validAfter` of the payment, in Unix seconds.
pub(super) const VALID_AFTER: u64 = 1000;
/// Its `validBefore`.
pub(super) const VALID_BEFORE: u64 = 2500;
/// Seconds for which a process that was told to stop may still run beside its successor. What it sent
/// by then is carried out, and every endpoint shows that.
pub(super) const OVERLAP: u64 = 600;
/// Seconds before `validBefore` from which no work begins.
pub(super) const SETTLING: u64 = 37;
/// Seconds after `validBefore` until which an ended claim is kept, and until which an open one is.
pub(super) const KEPT: u64 = 60;
pub(super) const KEPT_OPEN: u64 = 3600;
/// The moments that differ: too early by far and by less than [`OVERLAP`], in time and
/// [`OVERLAP`] later, too late for work, ended, forgotten if ended, [`OVERLAP`] later, forgotten.
pub(super) const MOMENTS: [u64; 9] = [
    VALID_AFTER - OVERLAP,
    VALID_AFTER - OVERLAP + 1,
    VALID_AFTER + 1,
    VALID_AFTER + 1 + OVERLAP,
    VALID_BEFORE - SETTLING,
    VALID_BEFORE,
    VALID_BEFORE + KEPT,
    VALID_BEFORE + KEPT + OVERLAP,
    VALID_BEFORE + KEPT_OPEN,
];
/// Number of moments that are not too late for work.
pub(super) const IN_TIME: usize = 4;

/// Why a request waits for a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The upstream has answered, and the answer is held.
    Deliver,
    /// The upstream is called afterwards.
    Execute,
    /// Only to learn whether the payment was used.
    Learn,
}

/// What is done if an endpoint does not show that a payment was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// The payment is sold for.
    Sell,
    /// It cannot buy anything, and another one may be asked for.
    AskAgain,
}

/// A request with the payment, at a point where it waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Request {
    /// There is none.
    #[default]
    Absent,
    /// For the facilitator's answer to `/verify`.
    Verifying(Held),
    /// For an endpoint's answer whether the payment was used.
    Asking(Asked, Held),
    /// For the upstream, before the settlement.
    Calling(Held),
    /// For a settlement, whose task has the claim.
    Waiting(Purpose),
    /// A settlement has ended and has given the claim back.
    Told(Purpose, Held, Outcome),
    /// For the upstream, after the settlement.
    Executing(Held),
    /// For the buyer to read the answer.
    Sending(Held),
    /// For another task's settlement.
    Joining(Fingerprint),
}

/// A hold of the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) token: HolderToken,
    pub(super) fingerprint: Fingerprint,
}

/// Who waits for a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waiter {
    Request(usize),
    Resolve,
    /// Its request has ended.
    Gone,
}

/// What a facilitator answers to `/settle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Success, with the transaction.
    Settled,
    /// A refusal with this reason.
    Refused(&'static str),
    /// A transaction was sent and is not included.
    Pending,
}

/// A task that settles.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Settling {
    pub(super) held: Held,
    pub(super) waiter: Waiter,
    pub(super) purpose: Purpose,
    pub(super) attempt: SettleAttempt,
    /// The facilitator's answer on its way.
    pub(super) reply: Option<Reply>,
    /// The outcome, if it is unknown and the chain is asked for it.
    pub(super) unknown: Option<Outcome>,
}

/// The task that asks for an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Resolving {
    pub(super) fingerprint: Fingerprint,
    pub(super) purpose: Purpose,
    /// Whether it waits for a settlement of its own, and not for the next time.
    pub(super) is_asking: bool,
}

/// How a hold ended whose report is not made yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Complete,
    CutOff,
}

/// One process. A restart replaces it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Process {
    /// Whether the payment may have been presented to the process before it.
    pub(super) may_be_older: bool,
    /// Index of the first moment at which it has run for [`OVERLAP`]. 0 since then.
    pub(super) overlaps_until: usize,
    pub(super) claim: Option<Claim>,
    /// The request whose complete answer is kept.
    pub(super) kept: Option<Fingerprint>,
    pub(super) requests: [Request; 2],
    pub(super) settling: Vec<Settling>,
    pub(super) resolving: Option<Resolving>,
    /// The end of the claim's hold, which a task of its own reports.
    pub(super) ending: Option<(HolderToken, End)>,
    /// Calls of the upstream for the claim.
    pub(super) executions: u8,
    /// Whether a `/settle` of this process that is not in flight any more may have been received.
    pub(super) is_heard: bool,
    /// Whether the first `/settle` was refused for a definite reason.
    pub(super) is_refused: bool,
    /// Whether the payment has ended: it was refused and cannot have been used, or delivered, or found
    /// to be used.
    pub(super) is_over: bool,
    /// Whether the money was moved by what this process has sent.
    pub(super) has_charged: bool,
}

/// The state of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Index into [`MOMENTS`].
    pub(super) moment: usize,
    pub(super) process: Process,
    /// Whether the facilitator may still carry out a `/settle` that this process has sent.
    pub(super) is_late: bool,
    /// Whether it may still carry out one that an earlier process has sent.
    pub(super) is_late_of_earlier: bool,
    /// Whether the token has moved the money.
    pub(super) is_charged: bool,
    /// Whether the buyer has spent the money otherwise.
    pub(super) is_broke: bool,
    /// Whether an answer was delivered to its last byte.
    pub(super) is_delivered: bool,
    /// What the last step has violated, as a set of bits.
    pub(super) broken: u16,
}

impl State {
    pub(super) fn now(&self) -> u64 {
        MOMENTS[self.moment]
    }

    pub(super) fn violate(&mut self, property: Property) {
        self.broken |= 1 << property as u16;
    }

    /// Whether the last step has violated a property.
    pub(super) fn violates(&self, property: Property) -> bool {
        self.broken & (1 << property as u16) != 0
    }

    /// A holder token that nothing else has.
    pub(super) fn fresh_token(&self) -> HolderToken {
        let used = |token: &HolderToken| {
            let process = &self.process;
            let claim = process.claim.as_ref().and_then(|claim| claim.holder);
            claim == Some(*token)
                || process.ending.is_some_and(|(ending, _)| ending == *token)
                || process
                    .settling
                    .iter()
                    .any(|task| task.held.token == *token)
                || process.requests.iter().any(|request| request.has(*token))
        };
        let mut token = HolderToken(1);
        while used(&token) {
            token.0 += 1;
        }
        token
    }
}

impl Request {
    /// What it holds of the claim.
    pub(super) fn held(&self) -> Option<Held> {
        match self {
            Self::Absent | Self::Waiting(_) | Self::Joining(_) => None,
            Self::Verifying(held)
            | Self::Asking(_, held)
            | Self::Calling(held)
            | Self::Told(_, held, _)
            | Self::Executing(held)
            | Self::Sending(held) => Some(*held),
        }
    }

    fn has(&self, token: HolderToken) -> bool {
        self.held().is_some_and(|held| held.token == token)
    }
}
