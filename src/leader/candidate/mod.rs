//! The election core: the state machine of one candidate. Values in, values out, time passed in.
//! Pure.
//!
//! It decides when to take over, renew, drain and release (compare client-go
//! `tools/leaderelection`, whose Lease record it shares), and it must not know a clock, a network
//! or a task. [`super::elector`] gathers its inputs and carries out its actions; [`super::fence`]
//! is what [`Action::OpenFence`] opens.
//!
//! - `input` and `action` are its interface; `config` is identity and timing
//! - `observation` is what is known of the Lease, and when the Lease is free
//! - `role` is what the candidate does at present, and how that changes
//! - `writes` is which records it writes, and what their outcomes mean
//! - `schedule` is what time alone brings about
//!
//! What keeps two leaders apart, most trusted first:
//! 1. Every write to the Lease is conditional on the version that was read, so at most one
//!    candidate's write succeeds.
//! 2. A leader counts its time from the moment it *sent* the last write that succeeded, a follower
//!    from the moment it *received* the last change. So a leader's clock starts no later than the
//!    commit, and a follower's no earlier.
//! 3. A leader's fence ends [`ElectionConfig::guard`] before the Lease may be taken over.
//!
//! `tests/model` compiles this folder word for word; paths within it are relative for that reason.

mod action;
mod config;
mod input;
mod observation;
mod role;
mod schedule;
mod writes;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::time::{Jitter, Moment, Now};

pub use self::action::{Action, Exit, WriteId};
pub use self::config::ElectionConfig;
pub use self::input::{AsOf, Input};

use self::observation::Observed;
use self::role::Role;
use self::writes::SentAt;

/// One candidate for leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    config: ElectionConfig,
    role: Role,
    observed: Observed,
    /// Earliest time the last observed holder can have stopped, even if its record has since been
    /// overwritten.
    holder_expiry: Moment,
    /// The same for the holders of Leases that were deleted.
    deleted_holder_expiry: Moment,
    /// When the current Lease, by its uid, was first seen. No leader of an earlier Lease has
    /// renewed since.
    first_seen: Moment,
    /// Uid of the Lease seen before this one, and when it was first known to be gone. Its leader
    /// has not renewed since.
    deleted_lease: Option<(String, Moment)>,
    /// Token of the last container that is known to have terminated.
    terminated_instance: Option<String>,
    /// When anything was last heard of the Lease.
    last_heard: Moment,
    /// When the Lease was last seen.
    last_seen: Moment,
    /// When something about the Lease was last seen to change.
    last_news: Moment,
    /// Writes in flight, and when each was sent.
    in_flight: BTreeMap<WriteId, SentAt>,
    /// How many writes were sent.
    writes: u64,
    /// Acquire time of a takeover of ours whose outcome may be unknown.
    claimed_acquire_time: Option<Timestamp>,
    /// Failures in a row.
    failures: u32,
    /// Nothing is read or written before this moment.
    not_before: Moment,
    /// A write conflicted and no change has been seen since: a second conflict backs off.
    unexplained_conflict: bool,
    /// A read is in flight.
    reading: bool,
    /// What is known of the Lease is outdated: it must be read before it is written.
    must_read: bool,
    /// Spreads candidates that wait for the same record to expire.
    expiry_jitter: Jitter,
}

impl Candidate {
    /// A candidate that knows nothing, and its first actions.
    #[must_use]
    pub fn new(config: ElectionConfig, now: Now) -> (Self, Vec<Action>) {
        let mut candidate = Self {
            config,
            role: Role::Following,
            observed: Observed::Unknown,
            holder_expiry: Moment::default(),
            deleted_holder_expiry: Moment::default(),
            first_seen: now.moment,
            deleted_lease: None,
            terminated_instance: None,
            last_heard: now.moment,
            last_seen: now.moment,
            last_news: now.moment,
            in_flight: BTreeMap::new(),
            writes: 0,
            claimed_acquire_time: None,
            failures: 0,
            not_before: now.moment,
            unexplained_conflict: false,
            reading: false,
            must_read: true,
            expiry_jitter: now.jitter,
        };
        let actions = candidate.step(Input::Tick, now);
        (candidate, actions)
    }

    /// Handles one input, then everything that is due, and returns what is to be done, in order.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Watched(lease) => self.on_lease(lease, now, &mut actions),
            Input::Read(lease, asked) => self.on_read(lease, asked, now, &mut actions),
            Input::Absent(as_of) => self.on_absent(&as_of, now, &mut actions),
            Input::ReadFailed => {
                self.reading = false;
                self.back_off(now.moment, now.jitter);
            }
            Input::ContainerTerminated(instance) => self.on_container_terminated(instance, now),
            Input::Marked { rivals } => self.on_marked(&rivals, now, &mut actions),
            Input::Written(id, lease) => self.on_written(id, lease, now, &mut actions),
            Input::Conflict(id) => self.on_conflict(id, now, &mut actions),
            Input::OutcomeUnknown(id) => self.on_outcome_unknown(id, now, &mut actions),
            Input::Tick => {}
            Input::Stop => self.on_stop(now, &mut actions),
            Input::Drained => self.on_drained(now, &mut actions),
            Input::DrainTimedOut => self.on_drain_timed_out(&mut actions),
        }
        self.take_due_steps(now, &mut actions);
        actions
    }
}

#[cfg(test)]
mod tests;
