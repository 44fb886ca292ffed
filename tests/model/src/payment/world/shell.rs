//! The shell around the core, as `src/gate/serve/purchase.rs` has it: what a request does between two
//! points where it waits.

use serviceoffer::decisions::payment::{Event, Fingerprint, Presented, is_used};

use super::World;
use super::facilitator::cannot_pay;
use super::state::{
    Asked, End, Held, KEPT_OPEN, Purpose, Request, SETTLING, State, VALID_AFTER, VALID_BEFORE,
    Waiter,
};
use crate::payment::bounds::{Endpoint, Flow};
use crate::payment::properties::Property;
use crate::payment::variants::Flaw;

/// Most calls of the upstream for one claim.
const MOST_CALLS: u8 = 4;
/// There is not enough time for work.
const TOO_SOON: &str = "payment_expires_too_soon";

/// What `/verify` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The payment would be settled.
    Valid,
    /// It is refused with this reason.
    Invalid(&'static str),
    /// No facilitator answers.
    Unavailable,
}

/// What calling the upstream comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// An answer that was held to its end, and is kept.
    Whole,
    /// An answer that is too long to be kept.
    Long,
    /// No answer, or one that is not charged.
    Failed,
}

/// The process in one step.
pub(super) struct Shell<'a> {
    pub(super) world: &'a World,
    pub(super) state: &'a mut State,
}

impl Shell<'_> {
    pub(super) fn has(&self, flaw: Flaw) -> bool {
        self.world.flaw == Some(flaw)
    }

    /// Answers anything but 402: 409, 502 or 503. The hold is dropped.
    pub(super) fn refuse(&mut self, at: usize, held: Held) {
        self.state.process.requests[at] = Request::Absent;
        self.end(held.token, End::CutOff);
    }

    /// Answers 402. The hold is dropped.
    fn ask_for_another(&mut self, at: usize, held: Held) {
        let is_refused = self.state.process.is_refused;
        if self.may_be_heard() && !is_refused && !self.is_due() {
            self.state.violate(Property::NoLateAsk);
        }
        let may_be_charged = self.state.is_late_of_earlier && cannot_pay(self.state).is_none();
        let is_owed = self.state.is_charged && !self.state.is_delivered;
        if (is_owed || may_be_charged) && self.state.now() < VALID_BEFORE + KEPT_OPEN {
            self.state.violate(Property::NoSecondAsk);
        }
        self.refuse(at, held);
    }

    /// The facilitator refused to settle: another payment is asked for only if the money cannot have
    /// moved. What the chain shows decides only which 409 it is otherwise.
    pub(super) fn definitely_refused(&mut self, at: usize, held: Held, reason: &str) {
        self.state.process.kept = None;
        if (self.world.core.may_mean_used)(reason) {
            return self.refuse(at, held);
        }
        // Of a payment that cannot be older, `unusable` asks for another as well.
        self.unusable(at, held, reason);
    }

    /// A request with the payment arrives.
    pub(super) fn present(&mut self, at: usize, fingerprint: Fingerprint) {
        let token = self.state.fresh_token();
        let held = Held { token, fingerprint };
        match self.take(held) {
            None => self.begin(at, held),
            Some(presented) => self.again(at, held, presented),
        }
    }

    /// The payment is not known.
    fn begin(&mut self, at: usize, held: Held) {
        let now = self.state.now();
        if VALID_AFTER >= now {
            return self.ask_for_another(at, held);
        }
        if now + SETTLING >= VALID_BEFORE {
            return match self.has(Flaw::TooSoonIs402) {
                true => self.ask_for_another(at, held),
                false => self.unusable(at, held, TOO_SOON),
            };
        }
        let verifies = match self.world.bounds.flow {
            Flow::Authorization => true,
            Flow::Upfront => self.may_be_older(),
        };
        match verifies {
            true => self.state.process.requests[at] = Request::Verifying(held),
            false => self.settle(at, held, Purpose::Execute),
        }
    }

    fn may_be_older(&self) -> bool {
        self.state.process.may_be_older && !self.has(Flaw::OlderUnchecked)
    }

    /// The payment was presented before.
    pub(super) fn again(&mut self, at: usize, held: Held, presented: Presented) {
        match presented {
            Presented::InProgress
            | Presented::OtherRequest { .. }
            | Presented::Used { .. }
            | Presented::Open { .. } => self.refuse(at, held),
            Presented::Refused { reason, .. } => self.definitely_refused(at, held, &reason),
            Presented::Execute { .. } => match self.state.process.kept {
                Some(kept) => self.deliver(at, held, kept),
                None => self.execute(at, held),
            },
            Presented::Join { .. } => self.join(at, held),
        }
    }

    /// Gives the claim back, and waits for the outcome that another task asks for.
    fn join(&mut self, at: usize, held: Held) {
        let event = Event::LoseTrack { transaction: None };
        match self.report(held.token, event) {
            Ok(()) => self.state.process.requests[at] = Request::Joining(held.fingerprint),
            Err(()) => self.refuse(at, held),
        }
    }

    /// A request that waits for an outcome looks at the claim.
    pub(super) fn look(&mut self, at: usize, fingerprint: Fingerprint) {
        let token = self.state.fresh_token();
        let held = Held { token, fingerprint };
        match self.take(held) {
            Some(Presented::InProgress) => self.end(token, End::CutOff),
            Some(presented) => self.again(at, held, presented),
            None => self.refuse(at, held),
        }
    }

    /// `/verify` was answered.
    pub(super) fn verified(&mut self, at: usize, held: Held, verdict: Verdict) {
        match verdict {
            Verdict::Valid if self.may_be_older() && !self.has(Flaw::ChainNotAsked) => {
                self.ask_chain(at, held, Asked::Sell);
            }
            Verdict::Valid => self.sell(at, held),
            Verdict::Invalid(reason) => self.invalid(at, held, reason),
            Verdict::Unavailable => self.refuse(at, held),
        }
    }

    /// The payment is valid, and nothing shows that it was used.
    fn sell(&mut self, at: usize, held: Held) {
        if self.world.bounds.flow == Flow::Upfront {
            return self.settle(at, held, Purpose::Execute);
        }
        if self.report(held.token, Event::Execute).is_err() {
            return self.refuse(at, held);
        }
        self.call();
        self.state.process.requests[at] = Request::Calling(held);
    }

    /// `/verify` refused. If that says "used", and this process cannot know by whom, `/settle` tells.
    fn invalid(&mut self, at: usize, held: Held, reason: &'static str) {
        let learns = match self.has(Flaw::LearnsIfUnsure) {
            true => (self.world.core.may_mean_used)(reason),
            false => is_used(reason),
        };
        match self.may_be_older() && learns {
            true => self.settle(at, held, Purpose::Learn),
            false => self.unusable(at, held, reason),
        }
    }

    /// The payment cannot buy anything. Another one is asked for only if this one cannot have been
    /// charged, by this process or an earlier one.
    pub(super) fn unusable(&mut self, at: usize, held: Held, reason: &str) {
        if self.may_be_older() && (self.world.core.may_follow_charge)(reason) {
            return self.ask_chain(at, held, Asked::AskAgain);
        }
        match is_used(reason) {
            true => self.refuse(at, held),
            false => self.ask_for_another(at, held),
        }
    }

    /// Asks the endpoints of the chain whether the payment was used.
    fn ask_chain(&mut self, at: usize, held: Held, asked: Asked) {
        match self.world.bounds.endpoint {
            Endpoint::None => self.shown(at, held, asked, None),
            Endpoint::Answers | Endpoint::Lags => {
                self.state.process.requests[at] = Request::Asking(asked, held);
            }
        }
    }

    /// What the endpoints show. What an earlier process has sent is in a block when this one has run
    /// for long enough.
    pub(super) fn shown(&mut self, at: usize, held: Held, asked: Asked, is_used: Option<bool>) {
        let has_run = self.state.process.overlaps_until == 0 || self.has(Flaw::UnusedAtOnce);
        let is_shown_unused = match is_used {
            Some(is_used) => !is_used && has_run,
            None => self.has(Flaw::UnknownIsUnused),
        };
        match asked {
            Asked::Sell if is_used != Some(true) => self.sell(at, held),
            Asked::AskAgain if is_shown_unused => self.ask_for_another(at, held),
            Asked::Sell | Asked::AskAgain => self.refuse(at, held),
        }
    }

    /// Counts a call of the upstream.
    fn call(&mut self) {
        if self.state.process.executions == MOST_CALLS {
            self.state.violate(Property::FewExecutions);
        } else {
            self.state.process.executions += 1;
        }
    }

    /// The upstream has answered a request that is not settled.
    pub(super) fn called(&mut self, at: usize, held: Held, work: Work) {
        match work {
            Work::Failed => return self.refuse(at, held),
            Work::Whole => self.state.process.kept = Some(held.fingerprint),
            Work::Long if self.has(Flaw::KeptIsLeft) => {}
            Work::Long => self.state.process.kept = None,
        }
        if self.has(Flaw::DeliverBeforeSettle) {
            return self.send(at, held, held.fingerprint);
        }
        self.settle(at, held, Purpose::Deliver);
    }

    /// Calls the upstream for a payment that is settled.
    pub(super) fn execute(&mut self, at: usize, held: Held) {
        if self.report(held.token, Event::Execute).is_err() {
            return self.refuse(at, held);
        }
        self.call();
        self.state.process.requests[at] = Request::Executing(held);
    }

    /// The upstream has answered a request that is settled.
    pub(super) fn executed(&mut self, at: usize, held: Held, work: Work) {
        match work {
            Work::Failed => self.refuse(at, held),
            _ => self.deliver(at, held, held.fingerprint),
        }
    }

    /// Sends an answer whose payment is settled, which the claim must allow.
    pub(super) fn deliver(&mut self, at: usize, held: Held, answer: Fingerprint) {
        match self.report(held.token, Event::Deliver) {
            Ok(()) => self.send(at, held, answer),
            Err(()) => self.refuse(at, held),
        }
    }

    /// Bytes leave from here on.
    fn send(&mut self, at: usize, held: Held, answer: Fingerprint) {
        if !self.state.is_charged {
            self.state.violate(Property::SettledFirst);
        }
        if answer != held.fingerprint {
            self.state.violate(Property::OwnAnswer);
        }
        self.state.process.requests[at] = Request::Sending(held);
    }

    /// The last byte was handed over.
    pub(super) fn sent(&mut self, at: usize, held: Held) {
        if self.state.is_delivered {
            self.state.violate(Property::DeliveredOnce);
        }
        self.state.is_delivered = true;
        self.state.process.is_over = true;
        self.state.process.kept = None;
        self.state.process.requests[at] = Request::Absent;
        self.end(held.token, End::Complete);
    }

    /// The buyer leaves. A settlement continues without the request.
    pub(super) fn left(&mut self, at: usize) {
        let request = std::mem::take(&mut self.state.process.requests[at]);
        if let Some(held) = request.held() {
            return self.end(held.token, End::CutOff);
        }
        let tasks = &mut self.state.process.settling;
        let own = tasks
            .iter_mut()
            .find(|task| task.waiter == Waiter::Request(at));
        let Some(task) = own else {
            return;
        };
        task.waiter = Waiter::Gone;
        let token = task.held.token;
        if self.has(Flaw::BuyerStopsSettlement) {
            let tasks = &mut self.state.process.settling;
            tasks.retain(|task| task.held.token != token);
            self.end(token, End::CutOff);
        }
    }
}
