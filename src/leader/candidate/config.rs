//! How one candidate takes part in the election.

use std::time::Duration;

/// Identity and timing of one candidate; the timing has client-go's names and meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ElectionConfig {
    /// Name in the Lease; the Pod's name inside a cluster. Never empty.
    pub identity: String,
    /// Uid of this Pod, if the process runs in one. It distinguishes the next container of this Pod
    /// from another Pod of the same name.
    pub pod_uid: Option<String>,
    /// Token of this container, if the kubelet reports it once the container has terminated.
    pub instance: Option<String>,
    /// Whether a leader marks its Pod before its fence opens.
    pub marks: bool,
    /// How long other candidates wait after the last change before they take over. Whole seconds.
    pub lease_duration: Duration,
    /// A leader starts no new work once this long has passed since its last successful renewal.
    pub renew_deadline: Duration,
    /// How often the Lease is renewed.
    pub retry_period: Duration,
}

impl ElectionConfig {
    /// Time between the end of a leader's fence and the first moment at which another candidate may
    /// take over. It covers a pause between checking the fence and a request leaving the process.
    #[must_use]
    pub fn guard(&self) -> Duration {
        (self.lease_duration / 10).max(Duration::from_secs(1))
    }

    /// How long a renewal keeps the fence open, counted from when it was sent.
    #[must_use]
    pub fn reach(&self) -> Duration {
        self.lease_duration.saturating_sub(self.guard())
    }
}
