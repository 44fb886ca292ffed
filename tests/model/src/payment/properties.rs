//! What must hold for a payment, however requests, restarts and the facilitator interleave.
//!
//! Names and order only. [`super::world`] knows what violates each.

/// One property. The numbers P1 to P5 are those of `src/gate/payment.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// P1: the token moves the money at most once.
    ChargedOnce,
    /// P1: at most one answer is delivered completely, restarts included.
    DeliveredOnce,
    /// P1: one process calls the upstream at most four times for one claim.
    FewExecutions,
    /// P1: what is delivered answers the request that it is delivered to.
    OwnAnswer,
    /// P2: after `/settle` was sent, the same process answers 402 only after a definite refusal of
    /// the first one, until the claim may be forgotten.
    NoLateAsk,
    /// P3: no byte of an answer leaves before the money has moved.
    SettledFirst,
    /// P4: a claim is released only if no `/settle` may have been received.
    NoLateRelease,
    /// P5: no claim outlives validBefore + 1 h.
    Expires,
    /// P5: the holder of a claim is still running, so no claim is blocked by a request that ended.
    HolderRuns,
    /// P5: while an outcome is unknown, a task asks for it.
    UnknownIsAsked,
    /// P5: from every state, a state without claims and tasks is reachable without another fault.
    Ends,
    /// A buyer who was charged and has no answer, or who may still be charged for what an earlier
    /// process has sent, is not asked for another payment before validBefore + 1 h.
    NoSecondAsk,
    /// A `/settle` that only asks whether a payment was used does not charge it.
    NoChargeForNothing,
}

impl Property {
    /// All properties.
    pub const ALL: [Self; 13] = [
        Self::ChargedOnce,
        Self::DeliveredOnce,
        Self::FewExecutions,
        Self::OwnAnswer,
        Self::NoLateAsk,
        Self::SettledFirst,
        Self::NoLateRelease,
        Self::Expires,
        Self::HolderRuns,
        Self::UnknownIsAsked,
        Self::Ends,
        Self::NoSecondAsk,
        Self::NoChargeForNothing,
    ];

    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChargedOnce => "P1-charge",
            Self::DeliveredOnce => "P1-delivery",
            Self::FewExecutions => "P1-calls",
            Self::OwnAnswer => "P1-answer",
            Self::NoLateAsk => "P2-402",
            Self::SettledFirst => "P3-settled",
            Self::NoLateRelease => "P4-release",
            Self::Expires => "P5-expiry",
            Self::HolderRuns => "P5-holder",
            Self::UnknownIsAsked => "P5-asked",
            Self::Ends => "P5-ends",
            Self::NoSecondAsk => "B1-402",
            Self::NoChargeForNothing => "B2-charge",
        }
    }
}
