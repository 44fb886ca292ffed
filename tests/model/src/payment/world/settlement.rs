//! Settlements, as `src/gate/serve/settlement.rs` has them: the tasks that settle, and the one that asks
//! for an unknown outcome.

use serviceoffer::decisions::Settlement;
use serviceoffer::decisions::payment::{Event, Outcome, Presented, SettleAttempt, may_mean_used};

use super::facilitator::{USED, is_definite};
use super::shell::Shell;
use super::state::{
    End, Held, KEPT_OPEN, Purpose, Reply, Request, Resolving, Settling, VALID_BEFORE, Waiter,
};
use crate::payment::bounds::Endpoint;
use crate::payment::variants::Flaw;

/// The hash of the one transaction.
const TRANSACTION: &str = "0xa";

impl Shell<'_> {
    /// Settles in a task of its own.
    pub(super) fn settle(&mut self, at: usize, held: Held, purpose: Purpose) {
        let (event, attempt) = match purpose {
            Purpose::Learn => (Event::Learn, SettleAttempt::Learning),
            Purpose::Deliver | Purpose::Execute => (Event::Settle, SettleAttempt::First),
        };
        if self.report(held.token, event).is_err() {
            return self.refuse(at, held);
        }
        self.state.process.requests[at] = Request::Waiting(purpose);
        self.ask(held, Waiter::Request(at), purpose, attempt);
    }

    fn ask(&mut self, held: Held, waiter: Waiter, purpose: Purpose, attempt: SettleAttempt) {
        self.state.process.settling.push(Settling {
            held,
            waiter,
            purpose,
            attempt,
            reply: None,
            unknown: None,
        });
    }

    /// `/settle` did not reach the facilitator.
    pub(super) fn not_sent(&mut self, task: usize) {
        let task = self.state.process.settling.remove(task);
        let why = String::new();
        self.settled(task, Settlement::NotSent { why });
    }

    /// The answer to `/settle` arrives.
    pub(super) fn answered(&mut self, task: usize, reply: Reply) {
        let task = self.state.process.settling.remove(task);
        self.state.process.is_heard = true;
        self.state.process.is_refused |= task.attempt == SettleAttempt::First && is_definite(reply);
        let transaction = TRANSACTION.to_owned();
        let settlement = match reply {
            Reply::Settled => Settlement::Settled {
                transaction,
                payer: None,
            },
            Reply::Refused(reason) => Settlement::Refused {
                reason: reason.to_owned(),
                transaction: None,
            },
            Reply::Pending => Settlement::Pending {
                transaction: Some(transaction),
            },
        };
        self.settled(task, settlement);
    }

    /// No answer to `/settle` arrives in time. The facilitator may not even have received it.
    pub(super) fn lost(&mut self, task: usize) {
        let task = self.state.process.settling.remove(task);
        self.state.is_late |= task.reply.is_none();
        self.state.process.is_heard = true;
        let unknown = Settlement::Unknown {
            why: String::new(),
            transaction: None,
        };
        self.settled(task, unknown);
    }

    /// The facilitator's part has ended. If that leaves the outcome unknown, the chain is asked.
    fn settled(&mut self, mut task: Settling, settlement: Settlement) {
        let attempt = match self.has(Flaw::AgainIsFirst) {
            true => SettleAttempt::First,
            false => task.attempt,
        };
        let outcome = (self.world.core.outcome)(settlement, attempt);
        let is_open = matches!(outcome, Outcome::Unknown { .. });
        if is_open && self.world.bounds.endpoint != Endpoint::None {
            task.unknown = Some(outcome);
            self.state.process.settling.push(task);
        } else {
            self.concluded(task, outcome);
        }
    }

    /// The endpoints show what the facilitator did not say. A transfer counts, no matter who has sent it.
    pub(super) fn shown_to_task(&mut self, task: usize, is_used: Option<bool>) {
        let mut task = self.state.process.settling.remove(task);
        let outcome = match (task.unknown.take(), is_used) {
            (_, Some(true)) => Outcome::Settled {
                transaction: TRANSACTION.to_owned(),
            },
            (Some(unknown), _) => unknown,
            (None, _) => Outcome::Unknown { transaction: None },
        };
        self.concluded(task, outcome);
    }

    fn concluded(&mut self, task: Settling, outcome: Outcome) {
        let _ = self.report(task.held.token, outcome.event());
        self.note(&outcome, task.purpose);
        let is_open = matches!(outcome, Outcome::Unknown { .. });
        match task.waiter {
            Waiter::Request(at) => {
                let told = Request::Told(task.purpose, task.held, outcome);
                self.state.process.requests[at] = told;
            }
            Waiter::Gone => self.end(task.held.token, End::CutOff),
            Waiter::Resolve => {
                self.end(task.held.token, End::CutOff);
                let resolving = self.state.process.resolving.as_mut();
                match resolving.filter(|_| is_open) {
                    Some(resolving) => resolving.is_asking = false,
                    None => self.state.process.resolving = None,
                }
            }
        }
        if is_open && task.attempt != SettleAttempt::Repeated && !self.has(Flaw::OutcomeNotAsked) {
            self.state.process.resolving = Some(Resolving {
                fingerprint: task.held.fingerprint,
                purpose: task.purpose,
                is_asking: false,
            });
        }
    }

    /// The payment has ended if it was refused and cannot have been used, or if its success shows that
    /// it was.
    fn note(&mut self, outcome: &Outcome, purpose: Purpose) {
        self.state.process.is_over |= match outcome {
            Outcome::Refused { reason, .. } => !may_mean_used(reason),
            Outcome::Settled { .. } => purpose == Purpose::Learn,
            Outcome::Unknown { .. } | Outcome::NotSent => false,
        };
    }

    /// A request receives the outcome of its settlement.
    pub(super) fn received(&mut self, at: usize, purpose: Purpose, held: Held, outcome: Outcome) {
        match (outcome, purpose) {
            (Outcome::Settled { .. }, Purpose::Deliver) => {
                self.deliver(at, held, held.fingerprint);
            }
            (Outcome::Settled { .. }, Purpose::Execute) => self.execute(at, held),
            (Outcome::Refused { .. } | Outcome::NotSent, Purpose::Learn) => {
                self.end(held.token, End::CutOff);
                self.unusable(at, held, USED);
            }
            (Outcome::Refused { reason, .. }, _) => self.definitely_refused(at, held, &reason),
            (Outcome::Settled { .. }, Purpose::Learn)
            | (Outcome::Unknown { .. } | Outcome::NotSent, _) => self.refuse(at, held),
        }
    }

    /// The task that asks for an unknown outcome looks at the claim.
    pub(super) fn resolve(&mut self, resolving: Resolving) {
        if self.state.now() >= VALID_BEFORE + KEPT_OPEN {
            self.state.process.resolving = None;
            return;
        }
        let token = self.state.fresh_token();
        let fingerprint = resolving.fingerprint;
        let held = Held { token, fingerprint };
        match self.take(held) {
            Some(Presented::Join { .. }) => {
                let is_asking = true;
                self.state.process.resolving = Some(Resolving {
                    is_asking,
                    ..resolving
                });
                let attempt = SettleAttempt::Repeated;
                self.ask(held, Waiter::Resolve, resolving.purpose, attempt);
            }
            Some(Presented::InProgress) => self.end(token, End::CutOff),
            _ => {
                self.state.process.resolving = None;
                self.end(token, End::CutOff);
            }
        }
    }
}
