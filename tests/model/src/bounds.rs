//! Bounds: what the adversary may do in one search, and how the candidates are set up.
//!
//! Values only. [`crate::world`] knows what a fault does.

use std::time::Duration;

use crate::core::ElectionConfig;
use crate::world::Event;

/// Number of candidates.
pub const CANDIDATES: usize = 3;
/// One second of a world's time, in microseconds.
pub const SECOND: u64 = 1_000_000;
/// The rate of a correct clock. A rate of 9500 loses 5 %.
pub const TRUE_RATE: u64 = 10_000;

/// What the adversary can do, each as often as the bounds allow. "Any time" is up to the adversary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Delay one message for any time.
    Delay,
    /// Break the connection that carries a message, which is lost.
    Lose,
    /// Partition a candidate from the API server, in both directions or one, for any time.
    Partition,
    /// Pause a process for any time. Its clock runs on.
    Pause,
    /// Kill a process.
    Crash,
    /// Start a process that is down. The kubelet does so: it is limited, but does not count as a
    /// fault.
    Restart,
    /// Ask a process to stop.
    Stop,
    /// Keep the drain of a leader from finishing.
    SlowDrain,
    /// Delete the Lease.
    Delete,
    /// Change a label of the Lease.
    Label,
    /// Deliver the Lease as it was before the last write.
    StaleWatch,
    /// Ask the holder to step down.
    StepDown,
    /// Erase the holder from the Lease.
    Erase,
}

/// Number of kinds of fault.
pub const FAULTS: usize = 13;

/// One count per fault, indexed by [`Fault`].
pub type FaultCounts = [u8; FAULTS];

/// The state in which the adversary starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is no Lease, and all candidates start.
    Cold,
    /// This candidate leads, and the others follow.
    Led(usize),
}

/// How one candidate is set up.
#[derive(Clone, Copy, Debug)]
pub struct CandidateSetup {
    /// Its name in the Lease.
    pub identity: &'static str,
    /// Uid of its Pod.
    pub pod: &'static str,
    /// Rate of its clock; see [`TRUE_RATE`].
    pub rate: u64,
    /// Offset of its wall clock in seconds.
    pub wall_offset: i64,
    /// Its lease duration in seconds.
    pub lease_seconds: u64,
    /// Whether it marks its Pod before its fence opens.
    pub marks: bool,
}

impl CandidateSetup {
    /// Its election config: the operator's own proportions, in less time.
    #[must_use]
    pub fn config(&self, instance: &str) -> ElectionConfig {
        ElectionConfig {
            identity: self.identity.into(),
            pod_uid: Some(self.pod.into()),
            instance: Some(instance.into()),
            marks: self.marks,
            lease_duration: Duration::from_secs(self.lease_seconds),
            renew_deadline: Duration::from_secs(self.lease_seconds * 7 / 10),
            retry_period: Duration::from_secs(self.lease_seconds / 2),
        }
    }
}

/// For which states the search checks that a candidate leads in time once the adversary stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryCheck {
    /// For none.
    Never,
    /// For those at the horizon.
    AtTheEnd,
    /// For every state in which nothing is due.
    Everywhere,
}

/// The bounds of one search.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Short name.
    pub name: &'static str,
    /// What it explores, in words.
    pub about: &'static str,
    /// The candidates.
    pub candidates: [CandidateSetup; CANDIDATES],
    /// The initial states.
    pub starts: &'static [Start],
    /// How long the adversary acts, in microseconds.
    pub horizon: u64,
    /// Extra instants at which the adversary may act between two events, as a period in
    /// microseconds; 0 for none.
    pub stride: u64,
    /// How often each fault may occur.
    pub limits: FaultCounts,
    /// How many faults may occur in total.
    pub faults: u8,
    /// How long an effect that passed the fence may take to leave the process, in microseconds.
    pub effect_delay: u64,
    /// Whether the kubelet eventually reports terminated containers.
    pub evidence: bool,
    /// For which states recovery is checked.
    pub recovery: RecoveryCheck,
    /// [`Event`]s that must occur, so that the result is not vacuous.
    pub expected: &'static [Event],
}

/// Limits that allow these faults and no others.
#[must_use]
pub fn limits(faults: &[(Fault, u8)]) -> FaultCounts {
    let mut counts = FaultCounts::default();
    for (fault, count) in faults {
        counts[*fault as usize] = *count;
    }
    counts
}

impl Bounds {
    /// The same bounds, small enough for every build.
    #[must_use]
    pub fn quick(self) -> Self {
        Self {
            faults: self.faults.min(2),
            horizon: self.horizon.min(QUICK_HORIZON),
            expected: &[],
            ..self
        }
    }

    /// How long it may take until a candidate leads once the adversary stops: the Lease expires by
    /// the slowest clock and is taken over.
    #[must_use]
    pub fn recovery_time(&self) -> u64 {
        let longest = self
            .candidates
            .iter()
            .map(|candidate| candidate.lease_seconds)
            .max()
            .unwrap_or_default()
            * SECOND;
        let slowest = self
            .candidates
            .iter()
            .map(|candidate| candidate.rate)
            .min()
            .unwrap_or(TRUE_RATE);
        longest * TRUE_RATE / slowest + SECOND
    }
}

/// How long the adversary acts in a quick search.
const QUICK_HORIZON: u64 = 15 * SECOND;

const CANDIDATE: CandidateSetup = CandidateSetup {
    identity: "",
    pod: "",
    rate: TRUE_RATE,
    wall_offset: 0,
    lease_seconds: 10,
    marks: false,
};

/// Three candidates with correct clocks.
const THREE: [CandidateSetup; CANDIDATES] = [
    CandidateSetup {
        identity: "pod-a",
        pod: "uid-a",
        wall_offset: -3600,
        ..CANDIDATE
    },
    CandidateSetup {
        identity: "pod-b",
        pod: "uid-b",
        wall_offset: 3600,
        ..CANDIDATE
    },
    CandidateSetup {
        identity: "pod-c",
        pod: "uid-c",
        ..CANDIDATE
    },
];

/// Every search.
pub const PLAN: &[fn() -> Bounds] = &[
    network, clocks, partitions, processes, releases, kubelet, edits, unmarked, creation, requests,
    namesakes, durations, recovery,
];

/// The bounds of that name.
#[must_use]
pub fn bounds(name: &str) -> Option<Bounds> {
    PLAN.iter()
        .map(|make| make())
        .find(|bounds| bounds.name == name)
}

fn network() -> Bounds {
    Bounds {
        name: "network",
        about: "messages are delayed and lost, and replies come too late",
        candidates: THREE,
        starts: &[Start::Cold, Start::Led(0)],
        horizon: 25 * SECOND,
        stride: 0,
        limits: limits(&[(Fault::Delay, 2), (Fault::Lose, 2), (Fault::Partition, 1)]),
        faults: 2,
        effect_delay: SECOND,
        evidence: false,
        recovery: RecoveryCheck::AtTheEnd,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Resumption,
            Event::LostReply,
            Event::Conflict,
            Event::Hedge,
        ],
    }
}

fn clocks() -> Bounds {
    let [slow, fast, right] = THREE;
    Bounds {
        name: "clocks",
        about: "one clock loses 5 %, another gains 5 %",
        candidates: [
            CandidateSetup {
                rate: 9_500,
                ..slow
            },
            CandidateSetup {
                rate: 10_500,
                ..fast
            },
            right,
        ],
        starts: &[Start::Led(0), Start::Led(1), Start::Led(2)],
        limits: limits(&[(Fault::Delay, 2), (Fault::Partition, 1), (Fault::Pause, 1)]),
        effect_delay: 0,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Resumption,
            Event::LostReply,
            Event::Hedge,
        ],
        ..network()
    }
}

fn partitions() -> Bounds {
    Bounds {
        name: "partitions",
        about: "a leader is partitioned repeatedly",
        starts: &[Start::Led(0)],
        limits: limits(&[(Fault::Delay, 1), (Fault::Partition, 2)]),
        faults: 3,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Resumption,
            Event::LostReply,
            Event::Hedge,
            Event::Loss,
        ],
        ..network()
    }
}

fn kubelet() -> Bounds {
    Bounds {
        name: "kubelet",
        about: "the kubelet eventually reports terminated containers",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Crash, 2),
            (Fault::Restart, 2),
            (Fault::Pause, 1),
            (Fault::Delay, 1),
        ]),
        evidence: true,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Reclaim,
            Event::TerminationReported,
        ],
        ..network()
    }
}

fn unmarked() -> Bounds {
    Bounds {
        name: "unmarked",
        about: "the Lease is deleted under leaders that do not mark their Pods",
        candidates: THREE,
        limits: limits(&[(Fault::Delete, 1), (Fault::Label, 1), (Fault::Delay, 2)]),
        expected: &[Event::Term, Event::Conflict, Event::DeletedUnderLeader],
        ..edits()
    }
}

fn creation() -> Bounds {
    Bounds {
        name: "creation",
        about: "the Lease is deleted soon after it was created",
        starts: &[Start::Cold],
        horizon: 12 * SECOND,
        limits: limits(&[
            (Fault::Delete, 1),
            (Fault::Partition, 1),
            (Fault::Delay, 1),
            (Fault::Crash, 1),
            (Fault::Restart, 1),
        ]),
        expected: &[Event::Term, Event::DeletedUnderLeader],
        faults: 3,
        ..edits()
    }
}

fn requests() -> Bounds {
    Bounds {
        name: "requests",
        about: "clients ask the holder to step down, or erase it",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::StepDown, 1),
            (Fault::Erase, 1),
            (Fault::SlowDrain, 1),
            (Fault::Delay, 1),
            (Fault::Partition, 1),
        ]),
        expected: &[Event::Term, Event::Handover],
        faults: 3,
        ..network()
    }
}

fn processes() -> Bounds {
    Bounds {
        name: "processes",
        about: "processes are paused, killed and restarted",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Pause, 2),
            (Fault::Crash, 2),
            (Fault::Restart, 2),
            (Fault::Delay, 1),
        ]),
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Reclaim,
            Event::Resumption,
            Event::Loss,
        ],
        faults: 3,
        ..network()
    }
}

fn releases() -> Bounds {
    Bounds {
        name: "releases",
        about: "leaders are stopped, and their work does not always drain",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Stop, 2),
            (Fault::SlowDrain, 1),
            (Fault::Partition, 1),
            (Fault::Delay, 1),
            (Fault::Lose, 1),
            (Fault::Restart, 1),
            (Fault::Crash, 1),
        ]),
        faults: 3,
        expected: &[
            Event::Term,
            Event::Handover,
            Event::Expiry,
            Event::DrainTimedOut,
        ],
        ..network()
    }
}

fn edits() -> Bounds {
    Bounds {
        name: "edits",
        about: "the Lease is deleted and labeled, and delivered stale",
        candidates: THREE.map(|candidate| CandidateSetup {
            marks: true,
            ..candidate
        }),
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Delete, 1),
            (Fault::Label, 1),
            (Fault::StaleWatch, 1),
            (Fault::Partition, 1),
            (Fault::Delay, 1),
            (Fault::Pause, 1),
        ]),
        expected: &[
            Event::Term,
            Event::Conflict,
            Event::StaleDelivery,
            Event::DeletedUnderLeader,
        ],
        ..network()
    }
}

fn namesakes() -> Bounds {
    let [one, other, third] = THREE;
    Bounds {
        name: "namesakes",
        about: "two Pods share a name; their processes are paused, killed and restarted",
        candidates: [
            one,
            CandidateSetup {
                identity: "pod-a",
                ..other
            },
            third,
        ],
        starts: &[Start::Cold, Start::Led(0)],
        limits: limits(&[
            (Fault::Pause, 1),
            (Fault::Crash, 1),
            (Fault::Restart, 1),
            (Fault::Delay, 1),
            (Fault::Stop, 1),
        ]),
        expected: &[Event::Term, Event::Expiry, Event::Reclaim],
        faults: 3,
        ..network()
    }
}

fn durations() -> Bounds {
    let [one, other, third] = THREE;
    Bounds {
        name: "durations",
        about: "each candidate has another lease duration",
        candidates: [
            CandidateSetup {
                lease_seconds: 14,
                ..one
            },
            other,
            CandidateSetup {
                lease_seconds: 12,
                ..third
            },
        ],
        starts: &[Start::Led(0), Start::Led(1)],
        horizon: 32 * SECOND,
        limits: limits(&[(Fault::Pause, 1), (Fault::Partition, 1), (Fault::Delay, 1)]),
        expected: &[Event::Term, Event::Expiry],
        ..network()
    }
}

fn recovery() -> Bounds {
    Bounds {
        name: "recovery",
        about: "after one fault of any kind, at any instant, the adversary stops",
        starts: &[Start::Cold, Start::Led(0)],
        horizon: 16 * SECOND,
        limits: [1; FAULTS],
        faults: 1,
        recovery: RecoveryCheck::Everywhere,
        expected: &[Event::Term],
        ..network()
    }
}
