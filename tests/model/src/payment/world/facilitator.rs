//! The facilitator, the token contract and the endpoints of its chain: what they answer, and when the
//! money moves.

use super::World;
use super::shell::Verdict;
use super::state::{Purpose, Reply, State, VALID_AFTER, VALID_BEFORE};
use crate::payment::bounds::Endpoint;
use crate::payment::properties::Property;
use crate::payment::variants::Flaw;

/// The nonce is used.
pub(super) const USED: &str = "invalid_exact_evm_nonce_already_used";
/// The facilitator cannot tell why the token would refuse.
const UNSURE: &str = "invalid_exact_evm_transaction_simulation_failed";
/// The payer has no money left.
const FUNDS: &str = "insufficient_funds";
/// The authorization has ended.
const EXPIRED: &str = "invalid_exact_evm_payload_authorization_valid_before";

/// Whether an answer to `/settle` says for good that the payment will not be settled.
pub(super) fn is_definite(reply: Reply) -> bool {
    matches!(reply, Reply::Refused(reason) if [FUNDS, EXPIRED].contains(&reason))
}

impl World {
    /// The verdicts that `/verify` may give.
    pub(super) fn verdicts(&self, state: &State) -> Vec<Verdict> {
        let mut verdicts = vec![self.verdict(state)];
        if self.bounds.is_lossy {
            verdicts.extend([Verdict::Invalid(UNSURE), Verdict::Unavailable]);
        }
        verdicts
    }

    /// The verdict of a facilitator that looks.
    pub(super) fn verdict(&self, state: &State) -> Verdict {
        let facilitator = self.bounds.facilitator;
        let is_used = state.is_charged && facilitator.notices;
        match cannot_pay(state) {
            Some(reason) if facilitator.looks_at_balance_first || !is_used => {
                Verdict::Invalid(reason)
            }
            _ if is_used => Verdict::Invalid(USED),
            _ => Verdict::Valid,
        }
    }

    /// The facilitator carries out a `/settle`, and answers.
    pub(super) fn carry_out(&self, state: &mut State, task: usize) {
        let facilitator = self.bounds.facilitator;
        let reply = match cannot_pay(state) {
            Some(reason) if facilitator.looks_at_balance_first || !state.is_charged => {
                Reply::Refused(reason)
            }
            _ if !state.is_charged || self.flaw == Some(Flaw::TokenPaysTwice) => {
                if state.process.settling[task].purpose == Purpose::Learn {
                    state.violate(Property::NoChargeForNothing);
                }
                state.process.has_charged = true;
                charge(state);
                Reply::Settled
            }
            _ if facilitator.is_idempotent => Reply::Settled,
            _ => Reply::Refused(USED),
        };
        state.process.settling[task].reply = Some(reply);
    }

    /// The facilitator answers before it carries it out, which it may never do.
    pub(super) fn indefinite(state: &mut State, task: usize, is_pending: bool) {
        state.is_late = true;
        let reply = match is_pending {
            true => Reply::Pending,
            false => Reply::Refused(UNSURE),
        };
        state.process.settling[task].reply = Some(reply);
    }

    /// The facilitator carries out a `/settle` for which no one waits any more.
    pub(super) fn carry_out_late(&self, state: &mut State, is_of_earlier: bool) {
        match is_of_earlier {
            true => state.is_late_of_earlier = false,
            false => state.is_late = false,
        }
        let may_pay = !state.is_charged || self.flaw == Some(Flaw::TokenPaysTwice);
        if cannot_pay(state).is_none() && may_pay {
            state.process.has_charged |= !is_of_earlier;
            charge(state);
        }
    }

    /// What the endpoints of the chain may show: whether the payment was used, or nothing.
    pub(super) fn shown(&self, state: &State) -> Vec<Option<bool>> {
        let process = &state.process;
        let lags = self.bounds.endpoint == Endpoint::Lags;
        let may_be_stale = lags && (process.overlaps_until != 0 || process.has_charged);
        let mut shown = vec![Some(state.is_charged)];
        if state.is_charged && may_be_stale {
            shown.push(Some(false));
        }
        if self.bounds.is_lossy {
            shown.push(None);
        }
        shown
    }
}

/// Why the token would refuse, apart from the nonce.
pub(super) fn cannot_pay(state: &State) -> Option<&'static str> {
    let now = state.now();
    if now <= VALID_AFTER || now >= VALID_BEFORE {
        Some(EXPIRED)
    } else {
        state.is_broke.then_some(FUNDS)
    }
}

/// The token moves the money.
fn charge(state: &mut State) {
    if state.is_charged {
        state.violate(Property::ChargedOnce);
    }
    state.is_charged = true;
}
