//! The role of a candidate, and how it passes from one to the next: a term begins, is suspended,
//! drains, is released, ends.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::super::lease::{Epoch, LeaseRecord, TakeoverCause};
use super::super::time::{Moment, Now};
use super::{Action, Candidate, Exit, writes::SentAt};

/// How long a release may take. After that the Lease expires instead.
const RELEASE_BUDGET: Duration = Duration::from_secs(3);

/// What a candidate does at present.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// There is no leader, or another candidate leads, or nothing is known yet.
    Following,
    /// A write that would take the Lease over is in flight. If the candidate was asked to stop, it
    /// waits for that write until `stop_by`.
    Acquiring {
        record: LeaseRecord,
        stop_by: Option<Moment>,
        cause: TakeoverCause,
        free_since: Moment,
    },
    /// The fence is open.
    Leading(Term),
    /// The fence is closed, because it has not been opened yet or because renewals failed. No other
    /// leader was seen.
    Suspended(Term),
    /// The fence is open until the work has drained.
    Draining(Term),
    /// The fence is closed, and the Lease is being released.
    Releasing {
        acquired: Option<Timestamp>,
        give_up_at: Moment,
    },
    /// The candidate has exited.
    Ended,
}

/// What a leader knows of its term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Term {
    pub(super) epoch: Epoch,
    /// Distinguishes this term's record from any other under the same name.
    pub(super) acquired: Option<Timestamp>,
    /// When the last write that succeeded was sent.
    pub(super) renewed: SentAt,
    /// When the next renewal is due.
    pub(super) renew_at: Moment,
    /// Present until the fence has opened for the first time.
    pub(super) first_opening: Option<FirstOpening>,
}

/// What precedes the first opening of a term's fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FirstOpening {
    pub(super) cause: TakeoverCause,
    /// When the Lease was known to be free.
    pub(super) free_since: Moment,
    /// From when on no leader of a deleted Lease can act, once that is known.
    pub(super) safe_at: Option<Moment>,
}

impl FirstOpening {
    fn is_safe(&self, moment: Moment) -> bool {
        self.safe_at.is_some_and(|safe_at| safe_at <= moment)
    }
}

impl Candidate {
    /// Looks at the Lease from the current role: a term whose record is gone is lost, one that
    /// another candidate asks for drains.
    pub(super) fn check_term(&mut self, actions: &mut Vec<Action>) {
        match &self.role {
            Role::Leading(term) | Role::Draining(term) | Role::Suspended(term) => {
                let leads = matches!(self.role, Role::Leading(_));
                match self.lease_of_term(term.acquired) {
                    None => {
                        actions.push(Action::CloseFence);
                        self.exit(Exit::Lost, actions);
                    }
                    Some(lease) if leads && self.is_asked_to_step_down(lease) => {
                        self.drain(term.clone(), actions);
                    }
                    Some(_) => {}
                }
            }
            Role::Releasing { acquired, .. } => {
                if self.lease_of_term(*acquired).is_none() {
                    self.exit(Exit::Clean, actions);
                }
            }
            Role::Following | Role::Acquiring { .. } | Role::Ended => {}
        }
    }

    /// Begins a term whose first write succeeded. Its fence is still closed.
    pub(super) fn begin_term(&mut self, term: Term, actions: &mut Vec<Action>) {
        if self.config.marks {
            actions.push(Action::MarkPod(term.epoch.lease_uid.clone()));
        }
        self.role = Role::Suspended(term);
    }

    /// Handles [`super::Input::Marked`]: the fence opens once every leader of a deleted Lease has
    /// expired.
    pub(super) fn on_marked(
        &mut self,
        rivals: &BTreeSet<String>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let ends = rivals
            .iter()
            .map(|lease| self.deleted_since(lease) + self.config.lease_duration);
        let until = ends.max().unwrap_or(now.moment);
        if let Role::Suspended(Term {
            first_opening: Some(opening),
            ..
        }) = &mut self.role
        {
            // A rival that has been reported terminated since then is a rival no longer.
            opening.safe_at = Some(opening.safe_at.map_or(until, |known| known.min(until)));
            self.open_fence(now, actions);
            self.check_term(actions);
        }
    }

    /// Opens the fence, or moves its end, as far as the last renewal reaches. A reply that came too
    /// late opens nothing.
    pub(super) fn open_fence(&mut self, now: Now, actions: &mut Vec<Action>) {
        let reach = self.config.reach();
        let (Role::Leading(term) | Role::Draining(term) | Role::Suspended(term)) = &mut self.role
        else {
            return;
        };
        let hard_end = term.renewed.moment + reach;
        let wall_end = term
            .renewed
            .wall
            .checked_add(reach)
            .unwrap_or(Timestamp::MAX);
        let opening = term.first_opening.as_ref();
        if hard_end <= now.moment || opening.is_some_and(|opening| !opening.is_safe(now.moment)) {
            return;
        }
        if let Some(opening) = term.first_opening.take() {
            actions.push(Action::BeginTerm {
                cause: opening.cause,
                waited: now.moment.since(opening.free_since),
            });
        }
        let soft_end = term.renewed.moment + self.config.renew_deadline;
        actions.push(Action::OpenFence {
            epoch: term.epoch.clone(),
            soft_end,
            hard_end,
            wall_end,
        });
        if let Role::Suspended(term) = &self.role {
            self.role = Role::Leading(term.clone());
        }
    }

    /// When the fence of a term ends.
    pub(super) fn fence_end(&self, term: &Term) -> Moment {
        term.renewed.moment + self.config.reach()
    }

    /// Closes a fence that has reached its end. A leader may still renew and resume; a drain has
    /// run out of time.
    pub(super) fn on_fence_end(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::CloseFence);
        match std::mem::replace(&mut self.role, Role::Ended) {
            Role::Leading(term) => self.role = Role::Suspended(term),
            _ => self.exit(Exit::Unreleased, actions),
        }
    }

    /// Stops waiting: for a renewal of a suspended term, or for the reply to a last write.
    pub(super) fn give_up(&mut self, actions: &mut Vec<Action>) {
        let exit = if matches!(self.role, Role::Suspended(_)) {
            Exit::Lost
        } else {
            Exit::Unreleased
        };
        self.exit(exit, actions);
    }

    /// Handles [`super::Input::Stop`].
    pub(super) fn on_stop(&mut self, now: Now, actions: &mut Vec<Action>) {
        match &mut self.role {
            Role::Following => self.exit(Exit::Clean, actions),
            Role::Acquiring { stop_by, .. } => *stop_by = Some(now.moment + RELEASE_BUDGET),
            Role::Leading(term) => {
                let term = term.clone();
                self.drain(term, actions);
            }
            Role::Suspended(term) => {
                let acquired = term.acquired;
                self.release(acquired, now);
            }
            Role::Draining(_) | Role::Releasing { .. } | Role::Ended => {}
        }
    }

    /// Handles [`super::Input::Drained`]: the fence closes first, then the Lease is released.
    pub(super) fn on_drained(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Role::Draining(term) = &self.role {
            let acquired = term.acquired;
            actions.push(Action::CloseFence);
            self.release(acquired, now);
        }
    }

    /// Handles [`super::Input::DrainTimedOut`]: a Lease under which work may still be in flight is
    /// not released.
    pub(super) fn on_drain_timed_out(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.role, Role::Draining(_)) {
            actions.push(Action::CloseFence);
            self.exit(Exit::Unreleased, actions);
        }
    }

    fn drain(&mut self, term: Term, actions: &mut Vec<Action>) {
        self.role = Role::Draining(term);
        actions.push(Action::Drain);
    }

    pub(super) fn release(&mut self, acquired: Option<Timestamp>, now: Now) {
        self.in_flight.clear();
        self.not_before = now.moment;
        self.role = Role::Releasing {
            acquired,
            give_up_at: now.moment + RELEASE_BUDGET,
        };
    }

    pub(super) fn exit(&mut self, exit: Exit, actions: &mut Vec<Action>) {
        self.in_flight.clear();
        self.role = Role::Ended;
        actions.push(Action::Exit(exit));
    }
}
