//! Bounds: what the adversary may do in one run of the checker, and how the candidates are set up.
//!
//! Values only. What a fault does is known to [`crate::world`].

use std::time::Duration;

use crate::core::ElectionConfig;
use crate::world::Event;

/// How many candidates there are.
pub const CANDIDATES: usize = 3;
/// One second of a world's time, which counts microseconds.
pub const SECOND: u64 = 1_000_000;
/// The rate of a clock that is right. One of 9500 loses 5 %.
pub const TRUE_RATE: u64 = 10_000;

/// What the adversary can do, each as often as the bounds allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Hold back one message for as long as it likes.
    Delay,
    /// Break the connection that carries a message: a request does not arrive, a reply does not come back.
    Lose,
    /// Cut a candidate off, or one direction of its traffic, for as long as it likes.
    Cut,
    /// Stop a process for as long as it likes. Its clock goes on.
    Pause,
    /// Kill a process.
    Crash,
    /// Start a process that is down. The kubelet does so; it counts, but it is not a fault.
    Restart,
    /// Ask a process to end.
    Leave,
    /// Keep the work of a leader that is asked to end from coming to rest.
    Linger,
    /// Delete the Lease.
    Delete,
    /// Change a label of the Lease.
    Label,
    /// Show a candidate the Lease as it was before the last write.
    Stale,
    /// Ask the holder to step down.
    Ask,
    /// Erase the holder from the Lease by hand.
    Erase,
}

/// How many kinds of fault there are.
pub const FAULTS: usize = 13;

/// How often each fault may occur, by its place in [`Fault`].
pub type Tally = [u8; FAULTS];

/// How the world stands when the adversary begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No Lease, and all candidates begin.
    Cold,
    /// This candidate leads, and the others follow.
    Led(usize),
}

/// One candidate.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Its name in the Lease.
    pub identity: &'static str,
    /// Uid of its Pod.
    pub pod: &'static str,
    /// Rate of its clock, see [`TRUE_RATE`].
    pub rate: u64,
    /// How many seconds its wall clock is off.
    pub wall_offset: i64,
    /// Its lease duration in seconds.
    pub lease_seconds: u64,
    /// Whether it marks its Pod when it leads.
    pub marks: bool,
}

impl Seat {
    /// How it takes part: with the operator's own proportions, in less time.
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

/// Which states are followed into a calm, to see whether somebody leads in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calm {
    /// None.
    Never,
    /// Those at the end of the time.
    AtTheEnd,
    /// Every state in which nothing is due.
    Everywhere,
}

/// One run of the checker.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Short name.
    pub name: &'static str,
    /// What it explores, in words.
    pub about: &'static str,
    /// Who takes part.
    pub seats: [Seat; CANDIDATES],
    /// How the world may stand at first.
    pub starts: &'static [Start],
    /// How long the adversary is at work, in microseconds.
    pub horizon: u64,
    /// Between two events, time stops at least so often for the adversary, in microseconds.
    pub stride: u64,
    /// How often each fault may occur.
    pub limits: Tally,
    /// How many faults there may be in all.
    pub faults: u8,
    /// How long an effect that was checked may take to leave the process, in microseconds.
    pub straggle: u64,
    /// Whether the kubelet tells the others, sooner or later, that a container has terminated.
    pub evidence: bool,
    /// Which states are followed into a calm.
    pub calm: Calm,
    /// Which [`Event`]s must have occurred, so that what is proven is not proven of nothing.
    pub expected: &'static [Event],
}

/// Limits with these faults and no others.
#[must_use]
pub fn limits(faults: &[(Fault, u8)]) -> Tally {
    let mut tally = Tally::default();
    for (fault, count) in faults {
        tally[*fault as usize] = *count;
    }
    tally
}

impl Bounds {
    /// The same, small enough for every build.
    #[must_use]
    pub fn quick(self) -> Self {
        Self {
            faults: self.faults.min(2),
            horizon: self.horizon.min(QUICK_HORIZON),
            expected: &[],
            ..self
        }
    }

    /// How long it may take until somebody leads once the adversary rests: the Lease expires by the slowest clock, and is
    /// taken.
    #[must_use]
    pub fn patience(&self) -> u64 {
        let longest = self
            .seats
            .iter()
            .map(|seat| seat.lease_seconds)
            .max()
            .unwrap_or_default()
            * SECOND;
        let slowest = self
            .seats
            .iter()
            .map(|seat| seat.rate)
            .min()
            .unwrap_or(TRUE_RATE);
        longest * TRUE_RATE / slowest + SECOND
    }
}

/// How long the adversary is at work in a quick search.
const QUICK_HORIZON: u64 = 15 * SECOND;

const SEAT: Seat = Seat {
    identity: "",
    pod: "",
    rate: TRUE_RATE,
    wall_offset: 0,
    lease_seconds: 10,
    marks: false,
};

/// Three candidates with right clocks.
const THREE: [Seat; CANDIDATES] = [
    Seat {
        identity: "pod-a",
        pod: "uid-a",
        wall_offset: -3600,
        ..SEAT
    },
    Seat {
        identity: "pod-b",
        pod: "uid-b",
        wall_offset: 3600,
        ..SEAT
    },
    Seat {
        identity: "pod-c",
        pod: "uid-c",
        ..SEAT
    },
];

/// Every run of the checker.
pub const PLAN: &[fn() -> Bounds] = &[
    network, clocks, cuts, processes, releases, evidence, outsiders, unmarked, creation, requests,
    namesakes, durations, rest,
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
        about: "messages are held back, lost, and answered into the void",
        seats: THREE,
        starts: &[Start::Cold, Start::Led(0)],
        horizon: 25 * SECOND,
        stride: 0,
        limits: limits(&[(Fault::Delay, 2), (Fault::Lose, 2), (Fault::Cut, 1)]),
        faults: 2,
        straggle: SECOND,
        evidence: false,
        calm: Calm::AtTheEnd,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Resumption,
            Event::Ambiguity,
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
        seats: [
            Seat {
                rate: 9_500,
                ..slow
            },
            Seat {
                rate: 10_500,
                ..fast
            },
            right,
        ],
        starts: &[Start::Led(0), Start::Led(1), Start::Led(2)],
        limits: limits(&[(Fault::Delay, 2), (Fault::Cut, 1), (Fault::Pause, 1)]),
        straggle: 0,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Resumption,
            Event::Ambiguity,
            Event::Hedge,
        ],
        ..network()
    }
}

fn cuts() -> Bounds {
    Bounds {
        name: "cuts",
        about: "a leader is cut off again and again",
        starts: &[Start::Led(0)],
        limits: limits(&[(Fault::Delay, 1), (Fault::Cut, 2)]),
        faults: 3,
        expected: &[
            Event::Term,
            Event::Expiry,
            Event::Resumption,
            Event::Ambiguity,
            Event::Hedge,
            Event::Loss,
        ],
        ..network()
    }
}

fn evidence() -> Bounds {
    Bounds {
        name: "evidence",
        about: "the kubelet tells, sooner or later, that a container has terminated",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Crash, 2),
            (Fault::Restart, 2),
            (Fault::Pause, 1),
            (Fault::Delay, 1),
        ]),
        evidence: true,
        expected: &[Event::Term, Event::Expiry, Event::Reclaim, Event::Evidence],
        ..network()
    }
}

fn unmarked() -> Bounds {
    Bounds {
        name: "unmarked",
        about: "the Lease is deleted under leaders that do not mark their Pods",
        seats: THREE,
        limits: limits(&[(Fault::Delete, 1), (Fault::Label, 1), (Fault::Delay, 2)]),
        expected: &[Event::Term, Event::Conflict, Event::DeletedUnderALeader],
        ..outsiders()
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
            (Fault::Cut, 1),
            (Fault::Delay, 1),
            (Fault::Crash, 1),
            (Fault::Restart, 1),
        ]),
        expected: &[Event::Term, Event::DeletedUnderALeader],
        faults: 3,
        ..outsiders()
    }
}

fn requests() -> Bounds {
    Bounds {
        name: "requests",
        about: "people ask the holder to step down, or erase it",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Ask, 1),
            (Fault::Erase, 1),
            (Fault::Linger, 1),
            (Fault::Delay, 1),
            (Fault::Cut, 1),
        ]),
        expected: &[Event::Term, Event::Handover],
        faults: 3,
        ..network()
    }
}

fn processes() -> Bounds {
    Bounds {
        name: "processes",
        about: "processes are stopped, killed and started again",
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
        about: "leaders are asked to end, and their work does not always come to rest",
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Leave, 2),
            (Fault::Linger, 1),
            (Fault::Cut, 1),
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

fn outsiders() -> Bounds {
    Bounds {
        name: "outsiders",
        about: "the Lease is deleted and labelled, and shown as it was",
        seats: THREE.map(|seat| Seat {
            marks: true,
            ..seat
        }),
        starts: &[Start::Led(0)],
        limits: limits(&[
            (Fault::Delete, 1),
            (Fault::Label, 1),
            (Fault::Stale, 1),
            (Fault::Cut, 1),
            (Fault::Delay, 1),
            (Fault::Pause, 1),
        ]),
        expected: &[
            Event::Term,
            Event::Conflict,
            Event::Stale,
            Event::DeletedUnderALeader,
        ],
        ..network()
    }
}

fn namesakes() -> Bounds {
    let [one, other, third] = THREE;
    Bounds {
        name: "namesakes",
        about: "two Pods have one name, and their processes are stopped, killed and started again",
        seats: [
            one,
            Seat {
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
            (Fault::Leave, 1),
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
        about: "each candidate wants another lease duration",
        seats: [
            Seat {
                lease_seconds: 14,
                ..one
            },
            other,
            Seat {
                lease_seconds: 12,
                ..third
            },
        ],
        starts: &[Start::Led(0), Start::Led(1)],
        horizon: 32 * SECOND,
        limits: limits(&[(Fault::Pause, 1), (Fault::Cut, 1), (Fault::Delay, 1)]),
        expected: &[Event::Term, Event::Expiry],
        ..network()
    }
}

fn rest() -> Bounds {
    Bounds {
        name: "rest",
        about: "after one fault of any kind, at any instant, the adversary rests",
        starts: &[Start::Cold, Start::Led(0)],
        horizon: 16 * SECOND,
        limits: [1; FAULTS],
        faults: 1,
        calm: Calm::Everywhere,
        expected: &[Event::Term],
        ..network()
    }
}
