//! The core that decides about payments: functions of the operator's library, which variants replace
//! one by one.

use std::fmt;

use serviceoffer::decisions::Settlement;
use serviceoffer::decisions::payment::{
    self, Claim, Event, Fingerprint, HolderToken, Moved, NotAllowed, Outcome, Presented,
    SettleAttempt,
};

/// The functions of one core.
#[derive(Clone, Copy)]
pub struct Core {
    /// The claim after an event that a holder reports.
    pub advance: fn(Claim, HolderToken, Event) -> Result<Moved, NotAllowed>,
    /// What a payment that is presented again is answered.
    pub present: fn(&Claim, Fingerprint) -> Presented,
    /// When a claim may be forgotten.
    pub expiry: fn(&Claim) -> u64,
    /// What an answer to `/settle` means.
    pub outcome: fn(Settlement, SettleAttempt) -> Outcome,
    /// Whether a refusal may mean that the authorization was used.
    pub may_mean_used: fn(&str) -> bool,
    /// Whether a refusal may be the effect of the payment's own charge.
    pub may_follow_charge: fn(&str) -> bool,
}

/// The core that the gate ships.
pub const SHIPPED: Core = Core {
    advance: Claim::advance,
    present: payment::present,
    expiry: Claim::expiry,
    outcome: Outcome::of,
    may_mean_used: payment::may_mean_used,
    may_follow_charge: payment::may_follow_charge,
};

impl fmt::Debug for Core {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("core of payments")
    }
}
