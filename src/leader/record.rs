//! What the elector speaks of: moments, a candidate's terms, the Lease as it stands, and the epoch of a leadership.
//!
//! Values only. What they mean for a candidate is decided in [`super::lease`]; how they stand in a Kubernetes object is
//! known to [`super::elector`].

use std::time::Duration;

use jiff::Timestamp;

/// A moment of the process's monotonic clock, as time since an origin that all moments of one process share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// Time since an earlier moment; zero if it is a later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// A share of chance, uniform over all values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chance(pub u32);

impl Chance {
    /// This share of a duration: from nothing to nearly all of it.
    #[must_use]
    pub fn of(self, whole: Duration) -> Duration {
        whole.mul_f64(f64::from(self.0) / (f64::from(u32::MAX) + 1.0))
    }
}

/// The instant of one step, by every clock that the core needs, and its share of chance.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic time: all decisions are made by it.
    pub moment: Moment,
    /// Wall-clock time in whole microseconds. It is written into the record for people, and it can close a fence early:
    /// no wait is ever shortened by it.
    pub wall: Timestamp,
    /// Spreads the candidates in time.
    pub chance: Chance,
}

/// How one candidate takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Name in the Lease; the Pod's name inside a cluster. Never empty.
    pub identity: String,
    /// Uid of this Pod, if it is one: tells its next container from a stranger of the same name.
    pub pod_uid: Option<String>,
    /// Token of this very container, if the kubelet will repeat it when the container has terminated.
    pub instance: Option<String>,
    /// Whether a leader marks its Pod before its fence opens.
    pub marks: bool,
    /// How long others wait after the last change before they take over. Whole seconds.
    pub lease_duration: Duration,
    /// After how long without a successful renewal nothing is started any more.
    pub renew_deadline: Duration,
    /// How often the Lease is renewed.
    pub retry_period: Duration,
}

impl Config {
    /// Time between the end of a leader's fence and the first moment at which another may take over. It covers a pause
    /// between checking the fence and a request leaving the process.
    #[must_use]
    pub fn guard(&self) -> Duration {
        (self.lease_duration / 10).max(Duration::from_secs(1))
    }

    /// How far a renewal carries the fence.
    #[must_use]
    pub fn reach(&self) -> Duration {
        self.lease_duration.saturating_sub(self.guard())
    }
}

/// Version of an object as the API server numbers it: a decimal integer that grows with every write (KEP-5504).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub String);

impl Version {
    /// Whether this version is certainly older: shorter, or of equal length and lexically smaller.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        (self.0.len(), &self.0) < (other.0.len(), &other.0)
    }
}

/// The fields of a Lease that electors agree on (coordination.k8s.io/v1 LeaseSpec, client-go `LeaderElectionRecord`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who leads; empty once released.
    pub holder: String,
    /// How long others wait after the last change.
    pub duration: Duration,
    /// When the holder took over, by its own clock.
    pub acquired: Option<Timestamp>,
    /// When the holder last renewed, by its own clock.
    pub renewed: Option<Timestamp>,
    /// How often the holder changed.
    pub transitions: i32,
}

/// A Lease as it stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What electors agree on.
    pub record: Record,
    /// Uid of the Pod that wrote the record, if its elector is one of ours.
    pub pod_uid: Option<String>,
    /// Token of the container that wrote the record, if its elector is one of ours.
    pub instance: Option<String>,
    /// Somebody asks the holder to step down: for the candidate of this name, or for anybody if it is empty.
    pub successor: Option<String>,
    /// Whether the API server chooses the holder (coordinated leader election, KEP-4355): then nobody takes it by himself.
    pub coordinated: bool,
    /// Uid of the object: a Lease that was deleted and made anew has another one.
    pub uid: String,
    /// Version of the object.
    pub version: Version,
}

impl Record {
    /// What a released Lease says of its duration, as client-go writes it.
    pub const RELEASED: Duration = Duration::from_secs(1);

    /// Whether its holder gave the Lease back. A holder that somebody else erased has not: it may still act.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.holder.is_empty() && self.duration <= Self::RELEASED
    }
}

/// How a candidate came to its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// There was no Lease.
    Creation,
    /// The holder had released it.
    Release,
    /// The holder had let it run out.
    Expiry,
    /// The holder's container had terminated.
    Termination,
    /// The holder was an earlier container of the same Pod.
    Reclaim,
}

/// One term of leadership. The version of the write that began it grows over transitions, restarts and deletions of the
/// Lease alike, which its transition counter does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Uid of the Lease.
    pub lease_uid: String,
    /// Version of the write that began the term.
    pub version: Version,
    /// Transition counter of the Lease, for people.
    pub transitions: i32,
}
