//! Time: the clock of each process, and the next instant at which anything can happen.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::process::Process;
use super::{State, World};
use crate::bounds::TRUE_RATE;
use crate::core::{Moment, Now};

/// Unix time in seconds at which correct wall clocks start.
pub(super) const EPOCH: i64 = 1_700_000_000;

impl World {
    /// The next instant at which anything can become due.
    #[must_use]
    pub fn next_instant(&self, state: &State) -> u64 {
        let running = state
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| process.runs());
        let wakes = running
            .clone()
            .filter_map(|(id, process)| self.wake(id, process));
        let drains = running
            .filter_map(|(_, process)| process.draining)
            .map(|(until, _)| until);
        let timeouts = state
            .in_transit
            .iter()
            .filter_map(|message| self.timeout_at(state, message));
        let strides = (self.bounds.stride > 0)
            .then(|| (state.now / self.bounds.stride + 1) * self.bounds.stride);
        let next = wakes
            .chain(drains)
            .chain(timeouts)
            .filter(|at| *at > state.now)
            .chain(strides)
            .min();
        next.unwrap_or(self.bounds.horizon).max(state.now + 1)
    }

    /// When the timer of a candidate fires.
    pub(super) fn wake(&self, id: usize, process: &Process) -> Option<u64> {
        process
            .candidate
            .as_ref()?
            .wake
            .map(|wake| self.instant(id, process, wake))
    }

    /// The clock of a process at this time after its start.
    pub(super) fn reading(&self, id: usize, elapsed: u64) -> Moment {
        Moment(Duration::from_nanos(
            elapsed * 1000 * self.bounds.candidates[id].rate / TRUE_RATE,
        ))
    }

    pub(super) fn local(&self, state: &State, id: usize) -> Moment {
        self.reading(id, state.now - state.processes[id].started)
    }

    /// The first instant at which the clock of a process shows a moment.
    pub(super) fn instant(&self, id: usize, process: &Process, moment: Moment) -> u64 {
        let nanos = moment.0.as_nanos();
        let rate = u128::from(self.bounds.candidates[id].rate);
        let elapsed = (nanos * u128::from(TRUE_RATE)).div_ceil(rate * 1000);
        process.started + u64::try_from(elapsed).unwrap_or(u64::MAX / 2)
    }

    pub(super) fn now(&self, state: &State, id: usize) -> Now {
        let seconds = self.bounds.candidates[id].wall_offset + state.jump;
        let since = SignedDuration::from_micros(i64::try_from(state.now).unwrap_or(i64::MAX));
        let epoch = Timestamp::constant(EPOCH, 0);
        let wall = epoch
            .checked_add(since + SignedDuration::from_secs(seconds))
            .unwrap_or(epoch);
        Now {
            moment: self.local(state, id),
            wall,
            jitter: state.jitter,
        }
    }
}
