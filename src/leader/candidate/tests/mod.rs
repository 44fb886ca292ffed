//! Scenarios of one candidate. Times are seconds since the candidate started.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::lease::{Epoch, Lease, LeaseRecord, ResourceVersion, TakeoverCause};
use super::*;

mod deletion;
mod leading;
mod observation;
mod races;
mod stopping;
mod takeover;

const ME: &str = "pod-a";
const OTHER: &str = "pod-b";
const POD: &str = "uid-of-pod-a";

/// Token of this candidate's container.
const CONTAINER: &str = "container-of-pod-a";
/// Token of the container of the other.
const OTHER_CONTAINER: &str = "container-of-pod-b";

/// A candidate for which time passes only when the test says so.
struct Fixture {
    candidate: Candidate,
    now: Now,
    /// Causes and delays of the terms that it began. They are kept apart from its other actions.
    terms_begun: Vec<(TakeoverCause, Duration)>,
    /// When it last requested a read.
    read_asked_at: Moment,
}

impl Fixture {
    /// A candidate with a lease duration of 30 s, a renew deadline of 20 s and a retry period of 5
    /// s that has requested its first read.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ElectionConfig)) -> Self {
        let mut config = ElectionConfig {
            identity: ME.into(),
            pod_uid: Some(POD.into()),
            instance: Some(CONTAINER.into()),
            marks: false,
            lease_duration: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(20),
            retry_period: Duration::from_secs(5),
        };
        change(&mut config);
        let now = Now {
            moment: Moment::default(),
            wall: wall(0.0),
            jitter: Jitter(0),
        };
        let (candidate, actions) = Candidate::new(config, now);
        assert_eq!(actions, [Action::Read]);
        Self {
            candidate,
            now,
            terms_begun: Vec::new(),
            read_asked_at: now.moment,
        }
    }

    /// A leader whose first write was sent and answered at 0 s.
    fn leading() -> Self {
        let mut fixture = Self::new();
        let (write, record) = expect_create(fixture.step(absent()));
        let actions = fixture.step(Input::Written(write, lease(record, 1)));
        assert!(
            matches!(
                &actions[..],
                [Action::AnnounceLeader(_), Action::OpenFence { .. }]
            ),
            "{actions:?}"
        );
        fixture
    }

    fn at(&mut self, seconds: f64) -> &mut Self {
        let moment = Moment(Duration::from_secs_f64(seconds));
        assert!(moment >= self.now.moment, "time runs forward");
        self.now = Now {
            moment,
            wall: wall(seconds),
            ..self.now
        };
        self
    }

    /// Takes a step. A Lease that is delivered while a read is in flight is its answer.
    fn step(&mut self, input: Input) -> Vec<Action> {
        let input = match input {
            Input::Watched(lease) if self.candidate.reading => {
                Input::Read(lease, self.read_asked_at)
            }
            other => other,
        };
        let mut actions = self.candidate.step(input, self.now);
        if actions.contains(&Action::Read) {
            self.read_asked_at = self.now.moment;
        }
        actions.retain(|action| match action {
            Action::BeginTerm { cause, waited } => {
                self.terms_begun.push((*cause, *waited));
                false
            }
            _ => true,
        });
        actions
    }

    /// Advances to the next action, and returns its time. Reads because of a silent watch find the
    /// Lease unchanged.
    fn wait(&mut self) -> (f64, Vec<Action>) {
        loop {
            let (woken, actions) = self.wake();
            if actions != [Action::Read] || self.candidate.must_read {
                return (woken, actions);
            }
            let answer = match &self.candidate.observed {
                Observed::Present { lease, .. } => Input::Watched(lease.clone()),
                _ => absent(),
            };
            let actions = self.step(answer);
            if !actions.is_empty() {
                return (woken, actions);
            }
        }
    }

    fn wake(&mut self) -> (f64, Vec<Action>) {
        let wake = self
            .candidate
            .next_wake()
            .expect("something is due")
            .0
            .as_secs_f64();
        (
            wake,
            self.at(wake.max(self.now.moment.0.as_secs_f64()))
                .step(Input::Tick),
        )
    }
}

fn wall(seconds: f64) -> Timestamp {
    Timestamp::from_microsecond(1_700_000_000_000_000 + (seconds * 1e6) as i64).unwrap()
}

fn moment(seconds: f64) -> Moment {
    Moment(Duration::from_secs_f64(seconds))
}

/// A record of a holder that renewed at that second of its own clock.
fn held_by(holder: &str, renewed: f64) -> LeaseRecord {
    LeaseRecord {
        holder: holder.into(),
        duration: Duration::from_secs(30),
        acquired: Some(wall(-500.0)),
        renewed: Some(wall(renewed)),
        transitions: 7,
    }
}

fn released(transitions: i32) -> LeaseRecord {
    LeaseRecord {
        holder: String::new(),
        duration: Duration::from_secs(1),
        transitions,
        ..held_by("", 0.0)
    }
}

/// The Lease with that record, as written by this Pod, the other candidate, or a foreign elector.
fn lease(record: LeaseRecord, version: u64) -> Lease {
    let (pod_uid, instance) = match record.holder.as_str() {
        ME => (Some(POD.to_owned()), Some(CONTAINER.to_owned())),
        OTHER => (None, Some(OTHER_CONTAINER.to_owned())),
        _ => (None, None),
    };
    Lease {
        record,
        pod_uid,
        instance,
        successor: None,
        coordinated: false,
        uid: "lease-1".into(),
        version: ResourceVersion(version.to_string()),
    }
}

fn watched(record: LeaseRecord, version: u64) -> Input {
    Input::Watched(lease(record, version))
}

/// A read that was requested just now finds no Lease.
fn absent() -> Input {
    Input::Absent(just_now())
}

/// The Pod is marked, and no other Pod is.
const MARKED: Input = Input::Marked {
    rivals: BTreeSet::new(),
};

/// The Pod is marked, and another Pod is marked as the leader of that Lease.
fn marked_with_rival(lease: &str) -> Input {
    Input::Marked {
        rivals: BTreeSet::from([lease.to_owned()]),
    }
}

/// Later than anything that was seen of the Lease.
fn just_now() -> AsOf {
    AsOf::Asked(moment(1e6))
}

#[track_caller]
fn expect_create(actions: Vec<Action>) -> (WriteId, LeaseRecord) {
    match &actions[..] {
        [Action::Create(write, record)] => (*write, record.clone()),
        _ => panic!("expected a create, got {actions:?}"),
    }
}

#[track_caller]
fn expect_update(actions: &[Action]) -> (WriteId, String, LeaseRecord) {
    match actions.last() {
        Some(Action::Update(write, version, record)) => (*write, version.0.clone(), record.clone()),
        _ => panic!("expected an update, got {actions:?}"),
    }
}

fn epoch(version: u64, transitions: i32) -> Epoch {
    Epoch {
        lease_uid: "lease-1".into(),
        version: ResourceVersion(version.to_string()),
        transitions,
    }
}

fn opens(version: u64, transitions: i32, renewed: f64) -> Action {
    Action::OpenFence {
        epoch: epoch(version, transitions),
        soft_end: moment(renewed + 20.0),
        hard_end: moment(renewed + 27.0),
        wall_end: wall(renewed + 27.0),
    }
}

/// Answers all renewals up to and including the first one at or after that second, and returns the
/// other actions.
fn renew_until(fixture: &mut Fixture, end: f64) -> Vec<Action> {
    let mut others = Vec::new();
    loop {
        let (at, actions) = fixture.wait();
        let (write, version, record) = expect_update(&actions);
        let version = version.parse::<u64>().unwrap() + 1;
        others.extend(fixture.step(Input::Written(write, lease(record, version))));
        if at >= end {
            return others;
        }
    }
}
