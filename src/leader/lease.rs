//! The Lease as candidates know it: its record, the object around it, and the epoch of a
//! leadership.
//!
//! Values only. [`super::candidate`] decides what they mean for a candidate; [`super::elector`]
//! knows which field of the Kubernetes object holds what.

use std::time::Duration;

use jiff::Timestamp;

/// `metadata.resourceVersion` of an object: a decimal integer that grows with every write
/// (KEP-5504).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceVersion(pub String);

impl ResourceVersion {
    /// Whether this version is certainly older: shorter, or of equal length and lexically smaller.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        (self.0.len(), &self.0) < (other.0.len(), &other.0)
    }
}

/// The fields of a Lease that all electors share (coordination.k8s.io/v1 LeaseSpec, client-go
/// `LeaderElectionRecord`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseRecord {
    /// Identity of the leader; empty once released.
    pub holder: String,
    /// How long other candidates wait after the last change.
    pub duration: Duration,
    /// When the holder became leader, by its own clock.
    pub acquired: Option<Timestamp>,
    /// When the holder last renewed, by its own clock.
    pub renewed: Option<Timestamp>,
    /// How often the holder changed.
    pub transitions: i32,
}

impl LeaseRecord {
    /// Lease duration of a released Lease, as client-go writes it.
    pub const RELEASED: Duration = Duration::from_secs(1);

    /// Whether the holder released the Lease. A holder whose name another client erased has not: it
    /// may still act.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.holder.is_empty() && self.duration <= Self::RELEASED
    }
}

/// A Lease object in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The fields that all electors share.
    pub record: LeaseRecord,
    /// Uid of the Pod that wrote the record, if it runs this operator.
    pub pod_uid: Option<String>,
    /// Token of the container that wrote the record, if it runs this operator.
    pub instance: Option<String>,
    /// The holder is asked to step down: for the candidate of this name, or for any candidate if it
    /// is empty.
    pub successor: Option<String>,
    /// Whether the API server chooses the holder (coordinated leader election, KEP-4355). Then no
    /// candidate takes the Lease without being chosen.
    pub coordinated: bool,
    /// Uid of the object. A Lease that was deleted and created again has another one.
    pub uid: String,
    /// Resource version of the object.
    pub version: ResourceVersion,
}

/// Why a candidate could take the Lease over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TakeoverCause {
    /// There was no Lease.
    Creation,
    /// The holder had released it.
    Release,
    /// The holder had let it expire.
    Expiry,
    /// The holder's container had terminated.
    Termination,
    /// The holder was an earlier container of the same Pod.
    Reclaim,
}

/// One term of leadership. The resource version of the write that began it grows across
/// transitions, restarts and deletions of the Lease. The Lease's transition counter does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Uid of the Lease.
    pub lease_uid: String,
    /// Resource version of the write that began the term.
    pub version: ResourceVersion,
    /// Transition counter of the Lease, for people to read.
    pub transitions: i32,
}
