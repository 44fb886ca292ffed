//! Everything that is so at one instant.

use std::sync::Arc;

use super::network::Message;
use super::process::Process;
use crate::bounds::{CANDIDATES, FAULTS, FaultCounts};
use crate::core::{Jitter, Lease};

/// The Lease as of a version.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct LeaseSnapshot {
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) version: u64,
}

/// The world at one instant.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct State {
    /// Time that has passed, in microseconds.
    pub now: u64,
    /// Jitter of the next steps.
    pub jitter: Jitter,
    /// Seconds by which all wall clocks were stepped.
    pub jump: i64,
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) revision: u64,
    /// The Lease before the last write.
    pub(super) previous: Option<LeaseSnapshot>,
    /// Who wrote the record of the Lease: a process and its incarnation.
    pub(super) writer: (usize, u8),
    pub(super) processes: [Process; CANDIDATES],
    pub(super) in_transit: Vec<Message>,
    /// For each Pod, the uid of the Lease as whose leader it is marked.
    pub(super) pod_marks: [Option<String>; CANDIDATES],
    pub(super) faults_spent: FaultCounts,
    /// The highest epoch that has opened a fence, and the process and incarnation that it belongs
    /// to.
    pub(super) highest_epoch: (u64, usize, u8),
    /// Invariants that a step has violated, as bits of [`super::Invariant`].
    pub(super) violated: u8,
}

impl State {
    /// Allows the adversary all of its faults again.
    pub const fn refill(&mut self) {
        self.faults_spent = [0; FAULTS];
    }

    pub(super) fn snapshot(&self) -> LeaseSnapshot {
        LeaseSnapshot {
            lease: self.lease.clone(),
            version: self.revision,
        }
    }
}
