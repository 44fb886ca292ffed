//! What time alone brings about: when the Lease must be read or written next, when the fence ends,
//! and the backoff between failures.

use std::time::Duration;

use super::super::time::{Jitter, Moment, Now};
use super::{Action, Candidate, Role};

/// Unanswered writes in flight at once: a second connection outlives a dead first one, a third a
/// dead second.
const MAX_IN_FLIGHT: usize = 3;
/// A write without an answer after this time is hedged on another connection. The first one may
/// still succeed.
const HEDGE_AFTER: Duration = Duration::from_secs(3);
/// Delays after failures: doubling from the first to the second, then jittered down.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long a follower trusts a silent watch, beyond the period in which a holder renews.
const WATCH_SILENCE: Duration = Duration::from_secs(3);

/// A step that comes due with time, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DueStep {
    /// The fence has reached its end.
    FenceEnd,
    /// The last wait of this role is over.
    GiveUp,
    /// The Lease must be read.
    Read,
    /// The Lease must be written.
    Write,
}

impl Candidate {
    /// When the next step is due, if no input comes before. It may lie in the past.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        self.due_steps().into_iter().map(|(at, _)| at).min()
    }

    /// Takes every step that is due, by urgency and not by due time: the fence ends before
    /// any write.
    pub(super) fn take_due_steps(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((_, due)) = self
            .due_steps()
            .into_iter()
            .filter(|(at, _)| *at <= now.moment)
            .min_by_key(|(_, due)| *due)
        {
            match due {
                DueStep::FenceEnd => self.on_fence_end(actions),
                DueStep::GiveUp => self.give_up(actions),
                DueStep::Read => {
                    self.reading = true;
                    actions.push(Action::Read);
                }
                DueStep::Write => self.send_write(now, actions),
            }
        }
    }

    /// Every step that time alone will bring about, with its moment. One whose moment has passed is
    /// due at once.
    fn due_steps(&self) -> Vec<(Moment, DueStep)> {
        let mut steps = Vec::new();
        if !self.reading && self.role != Role::Ended {
            if self.must_read {
                steps.push((self.not_before, DueStep::Read));
            } else if self.role == Role::Following {
                let silent_until = self.last_heard + self.config.retry_period + WATCH_SILENCE;
                steps.push((silent_until.max(self.not_before), DueStep::Read));
            }
        }
        let write_at = match &self.role {
            Role::Ended => None,
            Role::Following => self.free_at().map(|(free, _)| free),
            Role::Acquiring {
                stop_by: Some(stop_by),
                ..
            } => {
                steps.push((*stop_by, DueStep::GiveUp));
                None
            }
            Role::Acquiring { stop_by: None, .. } => Some(Moment::default()),
            Role::Leading(term) | Role::Draining(term) => {
                steps.push((self.fence_end(term), DueStep::FenceEnd));
                Some(term.renew_at)
            }
            Role::Suspended(term) => {
                let lost_at = term.renewed.moment + 2 * self.config.lease_duration;
                steps.push((lost_at, DueStep::GiveUp));
                // The fence opens with a renewal, so one is sent at the first moment at which that
                // is safe.
                match term
                    .first_opening
                    .as_ref()
                    .and_then(|opening| opening.safe_at)
                {
                    Some(safe_at) if term.renewed.moment < safe_at => {
                        Some(safe_at.min(term.renew_at))
                    }
                    _ => Some(term.renew_at),
                }
            }
            Role::Releasing { give_up_at, .. } => {
                steps.push((*give_up_at, DueStep::GiveUp));
                Some(Moment::default())
            }
        };
        if let Some(write_at) = write_at
            && !self.must_read
        {
            match self.in_flight.values().map(|sent| sent.moment).max() {
                None => steps.push((write_at.max(self.not_before), DueStep::Write)),
                Some(newest) if self.in_flight.len() < MAX_IN_FLIGHT => {
                    steps.push(((newest + HEDGE_AFTER).max(self.not_before), DueStep::Write));
                }
                Some(_) => {}
            }
        }
        steps
    }

    /// Delays the next read or write after a failure, counted from when what failed was sent.
    pub(super) fn back_off(&mut self, since: Moment, jitter: Jitter) {
        let ceiling = BACKOFF
            .0
            .saturating_mul(1 << self.failures.min(8))
            .min(BACKOFF.1);
        self.failures += 1;
        self.not_before = self.not_before.max(since + jitter.of(ceiling));
    }
}
