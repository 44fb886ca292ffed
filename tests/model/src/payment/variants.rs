//! Broken variants of core, shell and token: each has one known flaw, and each must be refuted.

use serviceoffer::decisions::Settlement;
use serviceoffer::decisions::payment::{
    self, Claim, Event, Fingerprint, HolderToken, Moved, NotAllowed, Outcome, Presented,
    SettleAttempt, State,
};

use super::core::{Core, SHIPPED};
use super::properties::Property;

/// One flawed gate.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// The flaw in words.
    pub about: &'static str,
    /// What is changed.
    pub change: Change,
    /// The property that it violates.
    pub breaks: Property,
    /// Name of the bounds within which a search must find that.
    pub within: &'static str,
}

/// What a variant changes.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A function of the core.
    Core(Core),
    /// The shell, or the token.
    Shell(Flaw),
}

/// A flaw of the shell around the core, or of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The answer is sent as soon as the upstream has answered.
    DeliverBeforeSettle,
    /// `/settle` is asked to learn whenever `/verify` may mean "used".
    LearnsIfUnsure,
    /// A payment that ends too soon is answered 402 whatever became of it earlier.
    TooSoonIs402,
    /// The chain is not asked before the work.
    ChainNotAsked,
    /// "Not used" counts before what an earlier process has sent must be in a block.
    UnusedAtOnce,
    /// An endpoint that does not answer counts as one that shows "not used".
    UnknownIsUnused,
    /// An answer that is too long to be kept leaves the one that is.
    KeptIsLeft,
    /// A payment of before a restart is taken for one that was never presented.
    OlderUnchecked,
    /// The task that settles ends with the request.
    BuyerStopsSettlement,
    /// The end of a request does not end its hold.
    HoldNotDropped,
    /// The answer to a repeated `/settle` is read like that to the first one.
    AgainIsFirst,
    /// An unknown outcome is not asked for.
    OutcomeNotAsked,
    /// The token moves the money for a used nonce.
    TokenPaysTwice,
}

/// All variants.
pub const VARIANTS: &[Variant] = &[
    Variant {
        name: "any_holder",
        about: "anyone moves a claim",
        change: Change::Core(Core {
            advance: any_holder,
            ..SHIPPED
        }),
        breaks: Property::DeliveredOnce,
        within: "authorization",
    },
    Variant {
        name: "held_is_taken_over",
        about: "a claim that is held is taken over",
        change: Change::Core(Core {
            present: present_as_free,
            ..SHIPPED
        }),
        breaks: Property::UnknownIsAsked,
        within: "upfront",
    },
    Variant {
        name: "complete_stays_settled",
        about: "a payment that was delivered is settled, and not delivered",
        change: Change::Core(Core {
            advance: complete_stays_settled,
            ..SHIPPED
        }),
        breaks: Property::DeliveredOnce,
        within: "authorization",
    },
    Variant {
        name: "released_while_settling",
        about: "a request that ends after /settle was sent releases the claim",
        change: Change::Core(Core {
            advance: released_while_settling,
            ..SHIPPED
        }),
        breaks: Property::NoLateRelease,
        within: "authorization",
    },
    Variant {
        name: "released_when_settled",
        about: "an answer that was cut off releases the claim",
        change: Change::Core(Core {
            advance: released_when_settled,
            ..SHIPPED
        }),
        breaks: Property::NoLateRelease,
        within: "upfront",
    },
    Variant {
        name: "open_is_not_sent",
        about: "a /settle that was not answered counts as not sent",
        change: Change::Core(Core {
            outcome: open_is_not_sent,
            ..SHIPPED
        }),
        breaks: Property::NoLateRelease,
        within: "authorization",
    },
    Variant {
        name: "open_is_refused",
        about: "a /settle that was not answered counts as refused",
        change: Change::Core(Core {
            outcome: open_is_refused,
            ..SHIPPED
        }),
        breaks: Property::NoLateAsk,
        within: "upfront",
    },
    Variant {
        name: "used_is_a_refusal",
        about: "a refusal that may mean \"used\" is answered 402",
        change: Change::Core(Core {
            may_mean_used: never_used,
            ..SHIPPED
        }),
        breaks: Property::NoLateAsk,
        within: "upfront",
    },
    Variant {
        name: "open_claims_expire_early",
        about: "a claim whose outcome is open is forgotten like one that has ended",
        change: Change::Core(Core {
            expiry: expires_early,
            ..SHIPPED
        }),
        breaks: Property::NoLateAsk,
        within: "authorization",
    },
    Variant {
        name: "open_claims_stay",
        about: "a claim whose outcome is open is never forgotten",
        change: Change::Core(Core {
            expiry: open_stays,
            ..SHIPPED
        }),
        breaks: Property::Ends,
        within: "authorization",
    },
    Variant {
        name: "open_claims_live_long",
        about: "a claim whose outcome is open is kept two hours",
        change: Change::Core(Core {
            expiry: open_lives_long,
            ..SHIPPED
        }),
        breaks: Property::Expires,
        within: "authorization",
    },
    Variant {
        name: "any_request",
        about: "a payment buys the answer to any request",
        change: Change::Core(Core {
            present: present_for_any,
            ..SHIPPED
        }),
        breaks: Property::OwnAnswer,
        within: "any-request",
    },
    Variant {
        name: "executed_without_end",
        about: "the upstream is called for a payment until an answer is delivered",
        change: Change::Core(Core {
            present: present_without_end,
            ..SHIPPED
        }),
        breaks: Property::FewExecutions,
        within: "upfront",
    },
    Variant {
        name: "deliver_before_settle",
        about: "the answer is sent before /settle is",
        change: Change::Shell(Flaw::DeliverBeforeSettle),
        breaks: Property::SettledFirst,
        within: "authorization",
    },
    Variant {
        name: "learned_is_sold",
        about: "a success that was only asked for buys an answer",
        change: Change::Core(Core {
            advance: learned_is_sold,
            ..SHIPPED
        }),
        breaks: Property::DeliveredOnce,
        within: "restart",
    },
    Variant {
        name: "refusal_is_definite_again",
        about: "a repeated /settle that finds no money left is answered 402",
        change: Change::Core(Core {
            outcome: definite_again,
            ..SHIPPED
        }),
        breaks: Property::NoSecondAsk,
        within: "balance-first",
    },
    Variant {
        name: "charge_is_not_followed",
        about: "a refusal that is the effect of the charge is answered 402",
        change: Change::Core(Core {
            may_follow_charge: payment::may_mean_used,
            ..SHIPPED
        }),
        breaks: Property::NoSecondAsk,
        within: "restart-steady",
    },
    Variant {
        name: "used_refusals_expire_early",
        about: "a refusal that may mean used is forgotten like another one",
        change: Change::Core(Core {
            expiry: used_refusals_expire_early,
            ..SHIPPED
        }),
        breaks: Property::NoLateAsk,
        within: "authorization",
    },
    Variant {
        name: "learns_if_unsure",
        about: "/settle is asked to learn after a refusal that only may mean used",
        change: Change::Shell(Flaw::LearnsIfUnsure),
        breaks: Property::NoChargeForNothing,
        within: "restart",
    },
    Variant {
        name: "too_soon_is_402",
        about: "after a restart, a payment that ends too soon is answered 402",
        change: Change::Shell(Flaw::TooSoonIs402),
        breaks: Property::NoSecondAsk,
        within: "restart-steady",
    },
    Variant {
        name: "chain_not_asked",
        about: "after a restart, the upstream is called without asking the chain",
        change: Change::Shell(Flaw::ChainNotAsked),
        breaks: Property::DeliveredOnce,
        within: "restart-blind-asked",
    },
    Variant {
        name: "unused_at_once",
        about: "402 as soon as an endpoint shows not used",
        change: Change::Shell(Flaw::UnusedAtOnce),
        breaks: Property::NoSecondAsk,
        within: "restart-steady-asked",
    },
    Variant {
        name: "unknown_is_unused",
        about: "402 if no endpoint answers",
        change: Change::Shell(Flaw::UnknownIsUnused),
        breaks: Property::NoSecondAsk,
        within: "restart-steady",
    },
    Variant {
        name: "kept_is_left",
        about: "an answer that is too long to be kept leaves the one that is",
        change: Change::Shell(Flaw::KeptIsLeft),
        breaks: Property::OwnAnswer,
        within: "any-request",
    },
    Variant {
        name: "older_unchecked",
        about: "after a restart, an upfront payment is settled without /verify",
        change: Change::Shell(Flaw::OlderUnchecked),
        breaks: Property::DeliveredOnce,
        within: "restart-steady-upfront",
    },
    Variant {
        name: "buyer_stops_settlement",
        about: "the task that settles ends when the buyer leaves",
        change: Change::Shell(Flaw::BuyerStopsSettlement),
        breaks: Property::HolderRuns,
        within: "authorization",
    },
    Variant {
        name: "hold_not_dropped",
        about: "a request that ends does not end its hold",
        change: Change::Shell(Flaw::HoldNotDropped),
        breaks: Property::HolderRuns,
        within: "authorization",
    },
    Variant {
        name: "again_is_first",
        about: "a repeated /settle is read like the first one",
        change: Change::Shell(Flaw::AgainIsFirst),
        breaks: Property::HolderRuns,
        within: "authorization",
    },
    Variant {
        name: "outcome_not_asked",
        about: "an unknown outcome is not asked for",
        change: Change::Shell(Flaw::OutcomeNotAsked),
        breaks: Property::UnknownIsAsked,
        within: "authorization",
    },
    Variant {
        name: "token_pays_twice",
        about: "the token moves the money for a used nonce",
        change: Change::Shell(Flaw::TokenPaysTwice),
        breaks: Property::ChargedOnce,
        within: "authorization",
    },
];

fn any_holder(claim: Claim, _: HolderToken, event: Event) -> Result<Moved, NotAllowed> {
    let holder = HolderToken(u64::MAX);
    let held = Claim {
        holder: Some(holder),
        ..claim
    };
    held.advance(holder, event)
}

fn present_as_free(claim: &Claim, fingerprint: Fingerprint) -> Presented {
    let free = Claim {
        holder: None,
        ..claim.clone()
    };
    payment::present(&free, fingerprint)
}

fn complete_stays_settled(
    claim: Claim,
    holder: HolderToken,
    event: Event,
) -> Result<Moved, NotAllowed> {
    let event = match event {
        Event::Complete => Event::CutOff,
        other => other,
    };
    claim.advance(holder, event)
}

fn released_while_settling(
    claim: Claim,
    holder: HolderToken,
    event: Event,
) -> Result<Moved, NotAllowed> {
    match (&claim.state, &event) {
        (State::Settling { .. }, Event::LoseTrack { .. }) => Ok(Moved::Released),
        _ => claim.advance(holder, event),
    }
}

fn released_when_settled(
    claim: Claim,
    holder: HolderToken,
    event: Event,
) -> Result<Moved, NotAllowed> {
    match (&claim.state, &event) {
        (State::Settled { .. } | State::Delivering { .. }, Event::CutOff)
            if claim.holder == Some(holder) =>
        {
            Ok(Moved::Released)
        }
        _ => claim.advance(holder, event),
    }
}

fn open_is_not_sent(settlement: Settlement, attempt: SettleAttempt) -> Outcome {
    match settlement {
        Settlement::Unknown { .. } => Outcome::NotSent,
        other => Outcome::of(other, attempt),
    }
}

fn open_is_refused(settlement: Settlement, attempt: SettleAttempt) -> Outcome {
    match settlement {
        Settlement::Unknown { transaction, .. } => Outcome::Refused {
            reason: "timeout".to_owned(),
            transaction,
        },
        other => Outcome::of(other, attempt),
    }
}

fn learned_is_sold(claim: Claim, holder: HolderToken, event: Event) -> Result<Moved, NotAllowed> {
    let event = match event {
        Event::Learn => Event::Settle,
        other => other,
    };
    claim.advance(holder, event)
}

fn definite_again(settlement: Settlement, attempt: SettleAttempt) -> Outcome {
    let attempt = match &settlement {
        Settlement::Refused { reason, .. } if !payment::may_mean_used(reason) => {
            SettleAttempt::First
        }
        _ => attempt,
    };
    Outcome::of(settlement, attempt)
}

fn never_used(_: &str) -> bool {
    false
}

fn is_open(claim: &Claim) -> bool {
    matches!(claim.state, State::Settling { .. })
}

fn expires_early(claim: &Claim) -> u64 {
    claim.expiry().min(claim.valid_before + 60)
}

fn used_refusals_expire_early(claim: &Claim) -> u64 {
    match claim.state {
        State::Refused { .. } => expires_early(claim),
        _ => claim.expiry(),
    }
}

fn open_stays(claim: &Claim) -> u64 {
    match is_open(claim) {
        true => u64::MAX,
        false => claim.expiry(),
    }
}

fn open_lives_long(claim: &Claim) -> u64 {
    match is_open(claim) {
        true => claim.valid_before + 7200,
        false => claim.expiry(),
    }
}

fn present_for_any(claim: &Claim, _: Fingerprint) -> Presented {
    payment::present(claim, claim.fingerprint)
}

fn present_without_end(claim: &Claim, fingerprint: Fingerprint) -> Presented {
    let few = Claim {
        executions: 1,
        ..claim.clone()
    };
    payment::present(&few, fingerprint)
}
