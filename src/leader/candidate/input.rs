//! What a candidate is notified of.

use std::collections::BTreeSet;

use super::super::lease::{Lease, ResourceVersion};
use super::super::time::Moment;
use super::action::WriteId;

/// One event for a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The watch delivered the Lease.
    Watched(Lease),
    /// A read returned the Lease. The answer is not older than this moment, at which it was
    /// requested.
    Read(Lease, Moment),
    /// A read or the watch found no Lease; as of when.
    Absent(AsOf),
    /// A read failed.
    ReadFailed,
    /// The container with this token has terminated.
    ContainerTerminated(String),
    /// The Pod of this candidate is marked as the leader's, or cannot be. Other Pods, whose
    /// containers are not reported terminated, are marked as leaders of other Leases of the same
    /// name: those Leases may have been deleted under leaders that have not noticed.
    Marked {
        /// Uids of those Leases; an empty one for each that is not known.
        rivals: BTreeSet<String>,
    },
    /// A write was committed and returned the Lease.
    Written(WriteId, Lease),
    /// The API server refused a write, because the Lease is not in the state that the write was
    /// based on.
    Conflict(WriteId),
    /// Whether a write was committed is unknown.
    OutcomeUnknown(WriteId),
    /// Time has passed.
    Tick,
    /// The candidate must stop: drain and release what it holds, then exit.
    Stop,
    /// The drain has finished: nothing that only a leader may do is in flight.
    Drained,
    /// The drain has not finished in time: something is still in flight.
    DrainTimedOut,
}

/// How recent the knowledge is that there is no Lease. An object that does not exist has no
/// version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AsOf {
    /// As of this version of the cluster's store.
    Version(ResourceVersion),
    /// Requested at this moment, so not older than that.
    Asked(Moment),
}
