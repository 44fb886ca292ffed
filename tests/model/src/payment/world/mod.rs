//! What can happen next, and what becomes of the world.
//!
//! - [`state`]: one moment of it
//! - [`shell`], [`store`], [`settlement`]: what the process does
//! - [`facilitator`]: what facilitator and token do
//! - [`ends`]: whether a state can still reach one where nothing is open
//! - [`describe`]: schedules in words

mod describe;
mod ends;
mod facilitator;
mod settlement;
mod shell;
mod state;
mod store;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use alloy::primitives::B256;
use serviceoffer::decisions::payment::{Fingerprint, State as ClaimState};

use self::shell::{Shell, Verdict, Work};
pub use self::state::State;
use self::state::{
    IN_TIME, KEPT_OPEN, MOMENTS, OVERLAP, Process, Request, VALID_AFTER, VALID_BEFORE,
};
use super::bounds::Bounds;
use super::core::Core;
use super::properties::Property;
use super::variants::Flaw;

/// The moments that differ only by [`OVERLAP`] from those before them.
const OF_OVERLAP: [usize; 3] = [1, 3, 7];
/// Number of requests at a time.
const REQUESTS: usize = 2;

/// Everything that does not change in one search.
#[derive(Clone, Debug)]
pub struct World {
    pub(super) core: Core,
    pub(super) flaw: Option<Flaw>,
    pub(super) bounds: Bounds,
    /// The properties whose shortest schedule is known, as a set of bits.
    found: Arc<AtomicU16>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next moment of the clock.
    Tick,
    /// The process is killed, and starts again.
    Restart,
    /// The buyer spends the money otherwise.
    Spend,
    /// A request with the payment arrives; the flag says whether it is another request.
    Present(usize, bool),
    /// The buyer of a request leaves, or the time for which it waits is over.
    Leave(usize),
    /// `/verify` is answered.
    Verify(usize, Verdict),
    /// The endpoints of the chain show whether the payment was used, or nothing.
    Show(usize, Option<bool>),
    /// They show it to a task that settles, whose outcome the facilitator has left unknown.
    ShowTask(usize, Option<bool>),
    /// The upstream answers, before or after the settlement.
    Work(usize, Work),
    /// A request receives the outcome of its settlement.
    Receive(usize),
    /// The last byte of an answer is handed over.
    Complete(usize),
    /// A request that waits for another task's settlement looks.
    Look(usize),
    /// `/settle` does not reach the facilitator.
    NotSent(usize),
    /// The facilitator carries out a `/settle`, and answers.
    CarryOut(usize),
    /// The facilitator answers that it cannot tell.
    Unsure(usize),
    /// The facilitator answers that a transaction is pending.
    Pending(usize),
    /// The answer to a `/settle` arrives.
    Answer(usize),
    /// The answer to a `/settle` is lost, or the facilitator does not answer in time.
    Lose(usize),
    /// The facilitator carries out a `/settle` for which no one waits any more; the flag says whether
    /// an earlier process has sent it.
    CarryOutLate(bool),
    /// The task that asks for an unknown outcome looks.
    Resolve,
    /// The end of a hold is reported.
    End,
    /// Expired claims are forgotten.
    Sweep,
}

impl World {
    /// The world of a core and a shell, within bounds.
    #[must_use]
    pub fn new(core: Core, flaw: Option<Flaw>, bounds: Bounds) -> Self {
        Self {
            core,
            flaw,
            bounds,
            found: Arc::default(),
        }
    }

    /// Whether a property holds in a state. The checker keeps the last schedule that violates one, so
    /// after the first one, which is the shortest, every other state counts as sound.
    pub(super) fn holds(&self, property: Property, state: &State) -> bool {
        let bit = 1 << property as u16;
        if self.found.load(Ordering::Relaxed) & bit != 0 {
            return true;
        }
        let holds = match property {
            Property::Ends => self.ends(state),
            _ => !state.violates(property),
        };
        if !holds {
            self.found.fetch_or(bit, Ordering::Relaxed);
        }
        holds
    }

    /// A process that has just begun, before the payment is valid, or when it is.
    pub(super) fn begin(&self, moment: usize) -> State {
        let mut state = State {
            moment,
            ..State::default()
        };
        begin_process(&mut state);
        state
    }

    /// The moments at which a world begins. Without restarts there is no process before it, and it
    /// knows that.
    pub(super) fn beginnings(&self) -> Range<usize> {
        match self.bounds.restarts {
            true => 0..IN_TIME,
            false => 0..1,
        }
    }

    /// What can happen next. Progress comes before what the adversary does.
    pub(super) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        let process = &state.process;
        if process.ending.is_some() {
            steps.push(Step::End);
        }
        for at in 0..REQUESTS {
            self.request_steps(state, at, steps);
        }
        for (task, settling) in process.settling.iter().enumerate() {
            if settling.unknown.is_some() {
                let shown = self.shown(state).into_iter();
                steps.extend(shown.map(|is_used| Step::ShowTask(task, is_used)));
            } else {
                self.settling_steps(task, settling.reply.is_some(), steps);
            }
        }
        if state.is_late {
            steps.push(Step::CarryOutLate(false));
        }
        if state.is_late_of_earlier {
            steps.push(Step::CarryOutLate(true));
        }
        if process.resolving.is_some_and(|task| !task.is_asking) {
            steps.push(Step::Resolve);
        }
        if self.is_expired(state) {
            steps.push(Step::Sweep);
        }
        let end = match self.bounds.ends {
            true => MOMENTS.len(),
            false => IN_TIME,
        };
        if self.next_moment(state).is_some_and(|next| next < end) {
            steps.push(Step::Tick);
        }
        if !state.is_broke {
            steps.push(Step::Spend);
        }
        if self.bounds.restarts {
            steps.push(Step::Restart);
        }
    }

    /// Whether the claim may be forgotten.
    fn is_expired(&self, state: &State) -> bool {
        let expiry = state.process.claim.as_ref().map(self.core.expiry);
        expiry.is_some_and(|expiry| expiry <= state.now())
    }

    /// The next moment of the clock. [`OVERLAP`] matters only after a restart.
    fn next_moment(&self, state: &State) -> Option<usize> {
        let matters = |moment: &usize| self.bounds.restarts || !OF_OVERLAP.contains(moment);
        (state.moment + 1..MOMENTS.len()).find(matters)
    }

    /// The clock passes. What an earlier process has sent is carried out within [`OVERLAP`], or never.
    fn tick(&self, state: &mut State) {
        state.moment = self.next_moment(state).unwrap_or(state.moment);
        if state.moment >= state.process.overlaps_until {
            state.process.overlaps_until = 0;
            state.is_late_of_earlier = false;
        }
    }

    fn request_steps(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let request = &state.process.requests[at];
        match request {
            Request::Absent => {
                steps.push(Step::Present(at, false));
                if at == 1 && self.bounds.other_request {
                    steps.push(Step::Present(at, true));
                }
                return;
            }
            Request::Verifying(_) => {
                let verdicts = self.verdicts(state).into_iter();
                steps.extend(verdicts.map(|verdict| Step::Verify(at, verdict)));
            }
            Request::Asking(..) => {
                let shown = self.shown(state).into_iter();
                steps.extend(shown.map(|is_used| Step::Show(at, is_used)));
            }
            Request::Calling(_) | Request::Executing(_) => {
                let works = [Work::Whole, Work::Long, Work::Failed];
                // Only an answer that is settled afterwards is kept.
                let skipped = usize::from(matches!(request, Request::Executing(_)));
                steps.extend(
                    works
                        .into_iter()
                        .skip(skipped)
                        .map(|work| Step::Work(at, work)),
                );
            }
            Request::Waiting(_) => {}
            Request::Told(..) => steps.push(Step::Receive(at)),
            Request::Sending(_) => steps.push(Step::Complete(at)),
            Request::Joining(_) => steps.push(Step::Look(at)),
        }
        if self.bounds.is_lossy {
            steps.push(Step::Leave(at));
        }
    }

    fn settling_steps(&self, task: usize, is_answered: bool, steps: &mut Vec<Step>) {
        let first = match is_answered {
            true => Step::Answer(task),
            false => Step::CarryOut(task),
        };
        steps.push(first);
        if !self.bounds.is_lossy {
            return;
        }
        steps.push(Step::Lose(task));
        if !is_answered {
            steps.extend([Step::NotSent(task), Step::Unsure(task), Step::Pending(task)]);
        }
    }

    /// The state after a step.
    pub(super) fn after(&self, state: &State, step: Step) -> State {
        let mut next = state.clone();
        next.broken = 0;
        self.apply(&mut next, step);
        self.check(&mut next);
        next
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Tick => self.tick(state),
            Step::Restart => restart(state),
            Step::Spend => state.is_broke = true,
            Step::CarryOut(task) => self.carry_out(state, task),
            Step::Unsure(task) => Self::indefinite(state, task, false),
            Step::Pending(task) => Self::indefinite(state, task, true),
            Step::CarryOutLate(is_of_earlier) => self.carry_out_late(state, is_of_earlier),
            _ => self.run(state, step),
        }
    }

    /// A step of the process.
    fn run(&self, state: &mut State, step: Step) {
        let process = state.process.clone();
        let mut shell = Shell { world: self, state };
        match step {
            Step::Present(at, is_other) => shell.present(at, fingerprint(is_other)),
            Step::Leave(at) => shell.left(at),
            Step::NotSent(task) => shell.not_sent(task),
            Step::Answer(task) => {
                if let Some(reply) = process.settling[task].reply {
                    shell.answered(task, reply);
                }
            }
            Step::Lose(task) => shell.lost(task),
            Step::ShowTask(task, is_used) => shell.shown_to_task(task, is_used),
            Step::Resolve => {
                if let Some(task) = process.resolving {
                    shell.resolve(task);
                }
            }
            Step::End => {
                if let Some((token, end)) = shell.state.process.ending.take() {
                    shell.report_end(token, end);
                }
            }
            Step::Sweep => shell.sweep(),
            Step::Verify(at, _)
            | Step::Show(at, _)
            | Step::Work(at, _)
            | Step::Receive(at)
            | Step::Complete(at)
            | Step::Look(at) => proceed(&mut shell, &process.requests[at], at, step),
            _ => {}
        }
    }

    /// The properties of states, and not of steps.
    fn check(&self, state: &mut State) {
        let process = &state.process;
        let Some(claim) = &process.claim else {
            return;
        };
        let outlives = (self.core.expiry)(claim) > VALID_BEFORE + KEPT_OPEN;
        let is_abandoned = claim.holder.is_some_and(|token| {
            let holds = |request: &Request| request.held().is_some_and(|held| held.token == token);
            !process.requests.iter().any(holds)
                && !process.settling.iter().any(|task| task.held.token == token)
                && process.ending.is_none_or(|(ending, _)| ending != token)
        });
        let is_unknown =
            claim.holder.is_none() && matches!(claim.state, ClaimState::Settling { .. });
        let is_unasked =
            is_unknown && process.resolving.is_none() && state.now() < VALID_BEFORE + KEPT_OPEN;
        for (is_violated, property) in [
            (outlives, Property::Expires),
            (is_abandoned, Property::HolderRuns),
            (is_unasked, Property::UnknownIsAsked),
        ] {
            if is_violated {
                state.violate(property);
            }
        }
    }
}

/// A request continues after what it waited for.
fn proceed(shell: &mut Shell<'_>, request: &Request, at: usize, step: Step) {
    match (step, request.clone()) {
        (Step::Verify(_, verdict), Request::Verifying(held)) => shell.verified(at, held, verdict),
        (Step::Show(_, is_used), Request::Asking(asked, held)) => {
            shell.shown(at, held, asked, is_used);
        }
        (Step::Work(_, work), Request::Calling(held)) => shell.called(at, held, work),
        (Step::Work(_, work), Request::Executing(held)) => shell.executed(at, held, work),
        (Step::Receive(_), Request::Told(purpose, held, outcome)) => {
            shell.received(at, purpose, held, outcome);
        }
        (Step::Complete(_), Request::Sending(held)) => shell.sent(at, held),
        (Step::Look(_), Request::Joining(fingerprint)) => shell.look(at, fingerprint),
        _ => {}
    }
}

/// What the facilitator was sent stays with it; everything else is forgotten.
fn restart(state: &mut State) {
    let mut tasks = state.process.settling.iter();
    state.is_late_of_earlier |= state.is_late || tasks.any(|task| task.reply.is_none());
    state.is_late = false;
    begin_process(state);
}

/// A process begins. The payment may have been presented to the one before it if it was valid before
/// that, or while both ran.
fn begin_process(state: &mut State) {
    let end = state.now() + OVERLAP;
    let later = MOMENTS.iter().position(|moment| *moment >= end);
    state.process = Process {
        may_be_older: VALID_AFTER < end,
        overlaps_until: later.unwrap_or(MOMENTS.len()),
        ..Process::default()
    };
}

fn fingerprint(is_other: bool) -> Fingerprint {
    Fingerprint(B256::repeat_byte(is_other.into()))
}
