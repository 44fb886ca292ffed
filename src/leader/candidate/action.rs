//! What a candidate wants done.

use std::time::Duration;

use jiff::Timestamp;

use super::super::lease::{Epoch, LeaseRecord, ResourceVersion, TakeoverCause};
use super::super::time::Moment;

/// Identifies one write to the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// One effect, to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the Lease from the API server, not from a cache.
    Read,
    /// Create the Lease.
    Create(WriteId, LeaseRecord),
    /// Update the Lease if it still has this version.
    Update(WriteId, ResourceVersion, LeaseRecord),
    /// Mark the Pod of this candidate as the leader of the Lease with this uid, then look for other
    /// marked Pods, and report [`super::Input::Marked`]. Of two candidates that do so in this
    /// order, at least one sees the other.
    MarkPod(String),
    /// A term begins: its fence opens for the first time.
    BeginTerm {
        /// Why this candidate could take the Lease over.
        cause: TakeoverCause,
        /// Time since the Lease was known to be free.
        waited: Duration,
    },
    /// Open the fence, or move its end.
    OpenFence {
        /// The term.
        epoch: Epoch,
        /// From this moment on nothing new is started.
        soft_end: Moment,
        /// From this moment on nothing is in flight.
        hard_end: Moment,
        /// The hard end by the wall clock, for a machine whose other clocks were suspended.
        wall_end: Timestamp,
    },
    /// Close the fence, before any later action is carried out.
    CloseFence,
    /// Let the work finish at a safe point, then report [`super::Input::Drained`].
    Drain,
    /// The candidate of this name became leader.
    AnnounceLeader(String),
    /// The candidate has ended.
    Exit(Exit),
}

/// How a candidate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It was stopped while it held nothing, or after a release.
    Clean,
    /// It was stopped. It may hold the Lease, which was not released and expires.
    Unreleased,
    /// Another candidate leads, or may lead.
    Lost,
}
