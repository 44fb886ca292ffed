//! One scenario per row of the elector's table. Times are seconds since the candidate started.

use super::*;

const ME: &str = "pod-a";
const OTHER: &str = "pod-b";
const POD: &str = "uid-of-pod-a";

/// Token of this candidate's container.
const CONTAINER: &str = "container-of-pod-a";
/// Token of the container of the other.
const OTHER_CONTAINER: &str = "container-of-pod-b";

/// A candidate on a stage where time passes only when the test says so.
struct Stage {
    candidate: Candidate,
    now: Now,
    /// How the candidate came to its terms. They are kept apart from its other actions.
    begun: Vec<(Way, Duration)>,
    /// When it last asked for a read.
    asked: Moment,
}

impl Stage {
    /// A candidate with a Lease of 30 s, a deadline of 20 s and a period of 5 s that has asked for its first read.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
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
            chance: Chance(0),
        };
        let (candidate, actions) = Candidate::new(config, now);
        assert_eq!(actions, [Action::Read]);
        Self {
            candidate,
            now,
            begun: Vec::new(),
            asked: now.moment,
        }
    }

    /// A leader whose first write was sent at 0 s and answered at once.
    fn leading() -> Self {
        let mut stage = Self::new();
        let (attempt, record) = created(stage.step(absent()));
        let actions = stage.step(Input::Written(attempt, stored(record, 1)));
        assert!(
            matches!(&actions[..], [Action::Announce(_), Action::Open { .. }]),
            "{actions:?}"
        );
        stage
    }

    fn at(&mut self, seconds: f64) -> &mut Self {
        let moment = Moment(Duration::from_secs_f64(seconds));
        assert!(moment >= self.now.moment, "time does not run backwards");
        self.now = Now {
            moment,
            wall: wall(seconds),
            ..self.now
        };
        self
    }

    /// Takes a step. What is seen while a read is under way is its answer.
    fn step(&mut self, input: Input) -> Vec<Action> {
        let input = match input {
            Input::Seen(lease) if self.candidate.reading => Input::Read(lease, self.asked),
            other => other,
        };
        let mut actions = self.candidate.step(input, self.now);
        if actions.contains(&Action::Read) {
            self.asked = self.now.moment;
        }
        actions.retain(|action| match action {
            Action::Begin { way, waited } => {
                self.begun.push((*way, *waited));
                false
            }
            _ => true,
        });
        actions
    }

    /// Lets time pass until something is due, and says what is done then. A look at the Lease out of mere silence finds it as
    /// it was.
    fn wait(&mut self) -> (f64, Vec<Action>) {
        loop {
            let (woken, actions) = self.wake();
            if actions != [Action::Read] || self.candidate.stale {
                return (woken, actions);
            }
            let answer = match &self.candidate.sight {
                Sight::Present { lease, .. } => Input::Seen(lease.clone()),
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
            .wake()
            .expect("nothing will ever happen")
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

/// A record of a holder that renewed at a second of its own clock.
fn held(holder: &str, renewed: f64) -> Record {
    Record {
        holder: holder.into(),
        duration: Duration::from_secs(30),
        acquired: Some(wall(-500.0)),
        renewed: Some(wall(renewed)),
        transitions: 7,
    }
}

fn released(transitions: i32) -> Record {
    Record {
        holder: String::new(),
        duration: Duration::from_secs(1),
        transitions,
        ..held("", 0.0)
    }
}

/// The Lease with that record, as an elector of ours in this Pod or as a stranger stored it.
fn stored(record: Record, version: u64) -> Lease {
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
        version: Version(version.to_string()),
    }
}

fn seen(record: Record, version: u64) -> Input {
    Input::Seen(stored(record, version))
}

/// A read just answered that there is no Lease.
fn absent() -> Input {
    Input::Absent(later())
}

/// The Pod is marked, and no other is.
const MARKED: Input = Input::Marked {
    rivals: BTreeSet::new(),
};

/// The Pod is marked, and another is as that of the leader of that Lease.
fn marked_beside(lease: &str) -> Input {
    Input::Marked {
        rivals: BTreeSet::from([lease.to_owned()]),
    }
}

/// No sight of the Lease is younger.
fn later() -> AsOf {
    AsOf::Asked(moment(1e6))
}

#[track_caller]
fn created(actions: Vec<Action>) -> (Attempt, Record) {
    match &actions[..] {
        [Action::Create(attempt, record)] => (*attempt, record.clone()),
        _ => panic!("a create was expected, not {actions:?}"),
    }
}

#[track_caller]
fn replaced(actions: &[Action]) -> (Attempt, String, Record) {
    match actions.last() {
        Some(Action::Replace(attempt, version, record)) => {
            (*attempt, version.0.clone(), record.clone())
        }
        _ => panic!("a replace was expected, not {actions:?}"),
    }
}

fn epoch(version: u64, transitions: i32) -> Epoch {
    Epoch {
        lease_uid: "lease-1".into(),
        version: Version(version.to_string()),
        transitions,
    }
}

fn open(version: u64, transitions: i32, renewed: f64) -> Action {
    Action::Open {
        epoch: epoch(version, transitions),
        soft_end: moment(renewed + 20.0),
        hard_end: moment(renewed + 27.0),
        wall_end: wall(renewed + 27.0),
    }
}

#[test]
fn the_guard_is_a_tenth_of_the_lease_and_at_least_a_second() {
    let mut config = Stage::new().candidate.config;
    assert_eq!(config.guard(), Duration::from_secs(3));
    config.lease_duration = Duration::from_secs(6);
    assert_eq!(config.guard(), Duration::from_secs(1));
}

#[test]
fn a_lease_that_never_was_is_created_and_led_from_the_moment_of_sending() {
    let mut stage = Stage::new();
    let (attempt, record) = created(stage.at(1.0).step(absent()));
    assert_eq!((record.holder.as_str(), record.transitions), (ME, 0));
    assert_eq!(
        (record.acquired, record.renewed),
        (Some(wall(1.0)), Some(wall(1.0)))
    );
    assert_eq!(record.duration, Duration::from_secs(30));

    let actions = stage
        .at(3.5)
        .step(Input::Written(attempt, stored(record, 4)));
    assert_eq!(actions, [Action::Announce(ME.into()), open(4, 0, 1.0)]);
}

#[test]
fn a_released_lease_is_taken_at_once_and_counts_one_transition() {
    let mut stage = Stage::new();
    let actions = stage.at(2.0).step(seen(released(7), 9));
    let (attempt, version, record) = replaced(&actions);
    assert_eq!(
        (version.as_str(), record.transitions, actions.len()),
        ("9", 8, 1)
    );
    let actions = stage.step(Input::Written(attempt, stored(record, 10)));
    assert_eq!(actions, [Action::Announce(ME.into()), open(10, 8, 2.0)]);
}

#[test]
fn a_live_holder_is_announced_once_and_waited_out_from_the_receipt_of_its_last_change() {
    let mut stage = Stage::new();
    assert_eq!(
        stage.at(1.0).step(seen(held(OTHER, -100.0), 1)),
        [Action::Announce(OTHER.into())]
    );
    assert_eq!(stage.at(6.0).step(seen(held(OTHER, -95.0), 2)), []);
    // A label or an annotation changes the version, and nothing else.
    assert_eq!(stage.at(20.0).step(seen(held(OTHER, -95.0), 3)), []);

    let (at, actions) = stage.wait();
    assert_eq!(at, 36.0);
    let (_, version, record) = replaced(&actions);
    assert_eq!(
        (version.as_str(), record.holder.as_str(), record.transitions),
        ("3", ME, 8)
    );
}

#[test]
fn the_duration_that_counts_is_the_one_in_the_record_and_chance_spreads_the_candidates() {
    let mut stage = Stage::new();
    stage.now.chance = Chance(u32::MAX);
    stage.step(Input::Seen(stored(
        Record {
            duration: Duration::from_secs(3),
            ..held(OTHER, 0.0)
        },
        1,
    )));
    let (at, _) = stage.wait();
    assert!(
        (3.049..=3.05).contains(&at),
        "a sixtieth of 3 s is the most that chance adds: {at}"
    );

    let mut stage = Stage::new();
    stage.now.chance = Chance(1 << 31);
    stage.step(seen(held(OTHER, 0.0), 1));
    assert_eq!(stage.wait().0, 30.05);
}

#[test]
fn what_is_older_than_what_is_known_is_not_news() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 5.0), 10));
    assert_eq!(stage.at(7.0).step(seen(released(7), 9)), []);
    assert_eq!(
        stage.wake(),
        (8.0, vec![Action::Read]),
        "a watch that lags does not pass for one that tells"
    );
    stage.step(seen(held(OTHER, 5.0), 10));
    assert_eq!(stage.wait().0, 30.0);
    // The same digits in another order of magnitude: versions are numbers, not words.
    assert!(Version("9".into()).precedes(&Version("10".into())));
    assert!(!Version("10".into()).precedes(&Version("10".into())));
    assert!(!Version("20".into()).precedes(&Version("10".into())));
}

#[test]
fn a_lease_that_is_gone_does_not_come_back_by_an_old_tale() {
    let gone = |version: &str| Input::Absent(AsOf::Version(Version(version.into())));
    for (absence, newer) in [(gone("12"), 13), (absent(), 11)] {
        let mut stage = Stage::new();
        stage.step(seen(held(OTHER, 5.0), 10));
        stage.step(absence);
        assert_eq!(stage.at(7.0).step(seen(held(OTHER, 5.0), 10)), []);
        let (at, actions) = stage.wait();
        assert_eq!((at, created(actions).1.holder.as_str()), (30.0, ME));
        stage.step(seen(held(OTHER, 6.0), newer));
        assert_eq!(stage.wait().0, 60.0);
    }
}

#[test]
fn a_store_that_went_back_is_believed_once_it_is_asked_and_whoever_was_seen_is_waited_out() {
    for (gone_back_to, free) in [(released(7), 31.0), (held("pod-c", -60.0), 39.5)] {
        let mut stage = Stage::new();
        stage.at(1.0).step(seen(held(OTHER, 0.0), 10));
        assert_eq!(
            stage.at(2.0).step(seen(gone_back_to.clone(), 4)),
            [],
            "a watch may lag"
        );
        assert_eq!(stage.wake(), (9.0, vec![Action::Read]));
        stage.at(9.5).step(seen(gone_back_to, 4));
        let (at, actions) = stage.wait();
        assert_eq!((at, replaced(&actions).1.as_str()), (free, "4"));
    }
}

#[test]
fn a_read_that_was_overtaken_by_the_watch_is_an_old_tale() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 10));
    assert_eq!(stage.wake(), (8.0, vec![Action::Read]));
    let mut candidate = stage.candidate.clone();
    let now = stage.at(8.5).now;
    assert_eq!(
        candidate.step(Input::Seen(stored(held(OTHER, 8.2), 12)), now),
        []
    );
    assert_eq!(
        candidate.step(Input::Read(stored(held(OTHER, 8.1), 11), stage.asked), now),
        []
    );
    assert_eq!(
        candidate.sight.record().map(|(record, _)| record.renewed),
        Some(Some(wall(8.2)))
    );
}

#[test]
fn a_leader_whose_store_went_back_goes_on_from_there_if_it_led_then() {
    let mut stage = Stage::leading();
    let Sight::Present { lease: first, .. } = stage.candidate.sight.clone() else {
        panic!("it leads")
    };
    renew_until(&mut stage, 9.0);
    let (at, actions) = stage.wait();
    assert_eq!(
        stage.step(Input::Refused(replaced(&actions).0)),
        [Action::Read]
    );
    let actions = stage.at(at + 0.1).step(Input::Seen(first));
    assert_eq!(replaced(&actions).1, "1");
}

#[test]
fn a_lease_made_anew_restarts_the_wait_even_with_an_equal_record() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 1));
    let anew = Lease {
        uid: "lease-2".into(),
        ..stored(held(OTHER, 0.0), 2)
    };
    assert_eq!(stage.at(10.0).step(Input::Seen(anew)), []);
    assert_eq!(stage.wait().0, 40.0);
}

#[test]
fn a_second_conflict_although_nothing_has_changed_is_looked_into_after_a_pause() {
    let mut stage = Stage::new();
    stage.now.chance = Chance(1 << 31);
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 9)));
    assert_eq!(stage.step(Input::Refused(attempt)), [Action::Read]);
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 9)));
    assert_eq!(stage.step(Input::Refused(attempt)), []);
    assert_eq!(stage.wake(), (0.125, vec![Action::Read]));
    let (attempt, ..) = replaced(&stage.step(seen(released(8), 10)));
    assert_eq!(
        stage.step(Input::Refused(attempt)),
        [Action::Read],
        "what has changed meanwhile is no quarrel"
    );
}

#[test]
fn a_conflict_after_silence_is_looked_into_at_once_because_it_is_an_answer() {
    let mut stage = Stage::leading();
    stage.now.chance = Chance(u32::MAX);
    let (first, ..) = replaced(&stage.wait().1);
    let (second, ..) = replaced(&stage.wait().1);
    assert_eq!(stage.step(Input::Unanswered(first)), []);
    assert_eq!(stage.step(Input::Refused(second)), [Action::Read]);
}

#[test]
fn a_candidate_that_loses_the_race_reads_and_follows_the_winner() {
    let mut stage = Stage::new();
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 9)));
    assert_eq!(stage.step(Input::Refused(attempt)), [Action::Read]);
    assert_eq!(
        stage.step(seen(held(OTHER, 0.0), 10)),
        [Action::Announce(OTHER.into())]
    );
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_take_over_that_was_committed_unseen_is_gone_on_with_under_the_same_transition() {
    let mut stage = Stage::new();
    let (first, _, record) = replaced(&stage.at(1.0).step(seen(released(7), 9)));
    assert_eq!(stage.at(2.0).step(Input::Unanswered(first)), [Action::Read]);

    let foreign_pod = Lease {
        pod_uid: None,
        ..stored(record.clone(), 10)
    };
    let actions = stage.at(2.5).step(Input::Seen(foreign_pod));
    let (second, version, again) = replaced(&actions);
    assert_eq!(actions[0], Action::Announce(ME.into()));
    assert_eq!(
        (version.as_str(), again.transitions, again.acquired),
        ("10", 8, record.acquired)
    );
    assert_eq!(again.renewed, Some(wall(2.5)));
    assert_eq!(
        stage.step(Input::Written(second, stored(again, 11))),
        [open(11, 8, 2.5)]
    );
}

#[test]
fn a_record_under_this_name_is_claimed_only_by_the_acquire_time_that_was_sent() {
    let mut stage = Stage::new();
    stage.candidate.config.pod_uid = None;
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 9)));
    stage.step(Input::Unanswered(attempt));
    let stranger = Lease {
        pod_uid: None,
        ..stored(held(ME, 0.0), 10)
    };
    assert_eq!(
        stage.step(Input::Seen(stranger)),
        [Action::Announce(ME.into())]
    );
    assert_eq!(stage.wait().0, 30.0);

    let mut stage = Stage::new();
    let undated = Lease {
        pod_uid: None,
        ..stored(
            Record {
                acquired: None,
                ..held(ME, 0.0)
            },
            9,
        )
    };
    assert_eq!(
        stage.step(Input::Seen(undated)),
        [Action::Announce(ME.into())],
        "nothing was sent, nothing is claimed"
    );
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn an_unanswered_take_over_gets_a_twin_that_asks_for_the_very_same_term() {
    let mut stage = Stage::new();
    let (first, _, record) = replaced(&stage.step(seen(released(7), 9)));
    let (at, actions) = stage.wait();
    let (second, version, again) = replaced(&actions);
    assert_eq!((at, version.as_str(), &again), (3.0, "9", &record));
    // The first one was committed, and so the second refused. Its own reply comes too late to be more than news.
    assert_eq!(stage.at(4.0).step(Input::Refused(second)), [Action::Read]);
    assert_eq!(
        stage.step(Input::Written(first, stored(record.clone(), 10)))[0],
        Action::Announce(ME.into())
    );

    let mut stage = Stage::new();
    let (first, ..) = replaced(&stage.step(seen(released(7), 9)));
    let (second, ..) = replaced(&stage.wait().1);
    let actions = stage.step(Input::Written(second, stored(record, 10)));
    assert_eq!(actions, [Action::Announce(ME.into()), open(10, 8, 3.0)]);
    assert_eq!(stage.step(Input::Refused(first)), []);
}

#[test]
fn an_unanswered_take_over_that_another_won_is_given_up() {
    let mut stage = Stage::new();
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 9)));
    stage.step(Input::Unanswered(attempt));
    assert_eq!(
        stage.step(seen(held(OTHER, 0.0), 10)),
        [Action::Announce(OTHER.into())]
    );
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_take_over_that_was_overtaken_before_its_reply_opens_nothing() {
    let mut stage = Stage::new();
    let (attempt, _, record) = replaced(&stage.step(seen(released(7), 9)));
    stage.step(seen(held(OTHER, 0.0), 11));
    assert_eq!(stage.step(Input::Written(attempt, stored(record, 10))), []);
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_take_over_that_somebody_released_before_its_reply_is_tried_again_or_left_alone() {
    let released_since = |leaves: bool| {
        let mut stage = Stage::new();
        let (attempt, _, record) = replaced(&stage.step(seen(released(7), 9)));
        assert_eq!(stage.step(seen(released(8), 11)), []);
        if leaves {
            assert_eq!(stage.step(Input::Leave), []);
        }
        (
            stage.step(Input::Written(attempt, stored(record, 10))),
            stage,
        )
    };
    let (actions, stage) = released_since(false);
    assert_eq!(
        (replaced(&actions).1.as_str(), stage.begun.len()),
        ("11", 0)
    );
    assert_eq!(released_since(true).0, [Action::Exit(Exit::Clean)]);
}

#[test]
fn a_reply_that_comes_after_the_fence_would_have_ended_opens_nothing_until_a_renewal_succeeds() {
    let mut stage = Stage::new();
    let (attempt, record) = created(stage.step(absent()));
    stage.at(27.0);
    let actions = stage.step(Input::Written(attempt, stored(record, 1)));
    assert_eq!(actions[0], Action::Announce(ME.into()));
    let (renewal, version, record) = replaced(&actions);
    assert_eq!((version.as_str(), actions.len()), ("1", 2));
    assert_eq!(
        stage
            .at(28.0)
            .step(Input::Written(renewal, stored(record, 2))),
        [open(1, 0, 27.0)]
    );
}

#[test]
fn the_next_container_of_the_same_pod_reclaims_its_lease_at_once_in_a_new_term() {
    let mut stage = Stage::new();
    let actions = stage.step(Input::Seen(stored(held(ME, -3.0), 5)));
    let (attempt, _, record) = replaced(&actions);
    assert_eq!((record.transitions, record.acquired), (8, Some(wall(0.0))));
    let actions = stage.step(Input::Written(attempt, stored(record, 6)));
    assert_eq!(
        actions,
        [Action::Announce(ME.into()), open(6, 8, 0.0)],
        "a term of the same name is another term"
    );
    assert_eq!(stage.begun, [(Way::Reclaim, Duration::ZERO)]);
}

#[test]
fn a_stranger_of_the_same_name_is_waited_out_like_any_other() {
    for (pod_uid, own) in [
        (Some("another pod".to_owned()), Some(POD.to_owned())),
        (None, Some(POD.to_owned())),
        (None, None),
    ] {
        let mut stage = Stage::new();
        stage.candidate.config.pod_uid = own;
        let lease = Lease {
            pod_uid,
            ..stored(held(ME, -3.0), 5)
        };
        assert_eq!(
            stage.step(Input::Seen(lease)),
            [Action::Announce(ME.into())]
        );
        assert_eq!(stage.wait().0, 30.0);
    }
    // A term of our own Pod under another name is not ours either.
    let mut stage = Stage::new();
    let lease = Lease {
        pod_uid: Some(POD.into()),
        ..stored(held(OTHER, -3.0), 5)
    };
    stage.step(Input::Seen(lease));
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_leader_renews_around_its_period_and_moves_the_end_of_its_fence() {
    for (chance, due) in [(0, 4.5), (1 << 31, 5.0), (u32::MAX, 5.5)] {
        let mut stage = Stage::new();
        stage.now.chance = Chance(chance);
        let (attempt, record) = created(stage.step(absent()));
        stage.step(Input::Written(attempt, stored(record, 1)));
        let (at, actions) = stage.wait();
        assert!((at - due).abs() < 1e-6, "{at} is not {due}");
        let (attempt, version, record) = replaced(&actions);
        assert_eq!(
            (version.as_str(), record.transitions, record.acquired),
            ("1", 0, Some(wall(0.0)))
        );
        assert_eq!(record.renewed, Some(wall(at)));
        let sent = stage.now;
        let actions = stage
            .at(at + 1.0)
            .step(Input::Written(attempt, stored(record, 2)));
        let reaches = Action::Open {
            epoch: epoch(1, 0),
            soft_end: sent.moment + Duration::from_secs(20),
            hard_end: sent.moment + Duration::from_secs(27),
            wall_end: sent.wall + Duration::from_secs(27),
        };
        assert_eq!(actions, [reaches]);
    }
}

#[test]
fn renewals_differ_by_a_whole_second_even_where_the_wall_clock_does_not() {
    let mut stage = Stage::leading();
    stage.at(4.5).now.wall = wall(-60.0);
    let (_, _, record) = replaced(&stage.step(Input::Tick));
    assert_eq!(record.renewed, Some(wall(1.0)));
}

#[test]
fn a_refused_renewal_is_read_about_and_sent_again_at_once_if_the_term_still_stands() {
    let mut stage = Stage::leading();
    let (attempt, _, record) = replaced(&stage.wait().1);
    assert_eq!(stage.at(4.6).step(Input::Refused(attempt)), [Action::Read]);
    // Somebody labelled the Lease, or the reply to our own write was lost.
    let (_, version, _) = replaced(&stage.at(4.7).step(seen(record, 3)));
    assert_eq!(version, "3");
}

#[test]
fn a_refused_renewal_of_a_term_that_drains_or_is_suspended_is_sent_again_at_once_too() {
    let mut draining = Stage::leading();
    draining.step(Input::Leave);
    let (attempt, _, record) = replaced(&draining.wait().1);
    assert_eq!(draining.step(Input::Refused(attempt)), [Action::Read]);
    let (attempt, _, record) = replaced(&draining.at(5.0).step(seen(record, 3)));
    assert_eq!(
        draining.step(Input::Written(attempt, stored(record, 4))),
        [open(1, 0, 5.0)]
    );

    let mut suspended = Stage::leading();
    let (attempt, _, record) = replaced(&suspended.wait().1);
    let (twin, ..) = replaced(&suspended.at(27.0).step(Input::Tick));
    assert_eq!(suspended.step(Input::Refused(attempt)), [Action::Read]);
    assert_eq!(suspended.step(Input::Refused(twin)), []);
    let (attempt, _, record) = replaced(&suspended.at(28.0).step(seen(record, 3)));
    assert_eq!(
        suspended.step(Input::Written(attempt, stored(record, 4))),
        [open(1, 0, 28.0)]
    );
}

#[test]
fn a_leader_that_sees_another_holder_closes_the_fence_and_ends_at_once() {
    let lost = [
        Action::Announce(OTHER.into()),
        Action::Close,
        Action::Exit(Exit::Lost),
    ];
    let mut stage = Stage::leading();
    assert_eq!(stage.at(2.0).step(seen(held(OTHER, 2.0), 2)), lost);
    assert_eq!(stage.candidate.wake(), None);

    let mut stage = Stage::leading();
    stage.step(Input::Leave);
    assert_eq!(stage.at(2.0).step(seen(held(OTHER, 2.0), 2)), lost);

    let mut stage = Stage::leading();
    let (attempt, ..) = replaced(&stage.wait().1);
    stage.step(Input::Refused(attempt));
    assert_eq!(stage.step(seen(held(OTHER, 2.0), 2)), lost);
}

#[test]
fn a_term_that_somebody_edited_is_lost() {
    let own = Record {
        transitions: 0,
        ..held(ME, 0.0)
    };
    for edited in [
        Record {
            acquired: Some(wall(9.0)),
            ..own.clone()
        },
        Record {
            acquired: Some(wall(0.0)),
            duration: Duration::from_secs(29),
            ..own.clone()
        },
        Record {
            acquired: Some(wall(0.0)),
            ..released(0)
        },
    ] {
        let mut stage = Stage::leading();
        let actions = stage.step(seen(edited, 2));
        assert_eq!(actions, [Action::Close, Action::Exit(Exit::Lost)]);
    }
    let mut stage = Stage::leading();
    let longer = Record {
        acquired: Some(wall(0.0)),
        duration: Duration::from_secs(31),
        ..own
    };
    assert_eq!(stage.step(seen(longer, 2)), []);
    let (_, _, renewal) = replaced(&stage.wait().1);
    assert_eq!(
        renewal.duration,
        Duration::from_secs(30),
        "a renewal says how long this candidate wants to be waited for"
    );
}

#[test]
fn an_unanswered_renewal_gets_a_twin_after_three_seconds_and_a_third_after_six() {
    let mut stage = Stage::leading();
    let mut sent = Vec::new();
    for at in [4.5, 7.5, 10.5] {
        let (woken, actions) = stage.wait();
        assert_eq!((woken, actions.len()), (at, 1));
        sent.push(replaced(&actions));
    }
    assert!(sent.iter().all(|(_, version, _)| version == "1"));
    // Three are under way: the next thing to happen is the end of the fence.
    assert_eq!(stage.candidate.wake(), Some(moment(27.0)));

    // One of them is known to have come to nothing: that makes room for another.
    stage.at(12.0).step(Input::Unanswered(sent[1].0));
    assert_eq!(stage.candidate.wake(), Some(moment(13.5)));

    // The slow first one was committed; its twins carry a version that no longer stands.
    let (attempt, _, record) = sent[0].clone();
    let actions = stage
        .at(13.0)
        .step(Input::Written(attempt, stored(record, 2)));
    assert_eq!(
        actions[0],
        open(1, 0, 4.5),
        "the fence reaches as far as the sending of that write"
    );
    assert_eq!(
        replaced(&actions).1,
        "2",
        "and by that measure the next renewal is overdue"
    );
    assert_eq!(stage.step(Input::Refused(sent[2].0)), []);
}

#[test]
fn a_twin_that_is_refused_while_the_first_hangs_is_followed_by_another_only_after_a_pause() {
    let mut stage = Stage::leading();
    stage.now.chance = Chance(1 << 31);
    let (first, _) = stage.wait();
    let (_, actions) = stage.wait();
    assert_eq!((first, stage.now.moment), (4.5, moment(7.5)));
    assert_eq!(stage.step(Input::Unanswered(replaced(&actions).0)), []);
    let (at, actions) = stage.wait();
    assert_eq!(at, 7.625);
    assert_eq!(stage.step(Input::Unanswered(replaced(&actions).0)), []);
    assert_eq!(stage.wait().0, 7.875);
}

#[test]
fn failures_back_off_from_a_quarter_to_two_seconds_and_success_forgets_them() {
    let mut stage = Stage::leading();
    stage.at(4.5).now.chance = Chance(u32::MAX);
    let mut actions = stage.step(Input::Tick);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let before = stage.now.moment;
        let (attempt, ..) = replaced(&actions);
        assert_eq!(stage.step(Input::Unanswered(attempt)), []);
        let (_, again) = stage.wait();
        pauses.push((stage.now.moment.since(before).as_secs_f64() * 1000.0).round());
        actions = again;
    }
    assert_eq!(pauses, [250.0, 500.0, 1000.0, 2000.0, 2000.0]);
    let (attempt, _, record) = replaced(&actions);
    stage.step(Input::Written(attempt, stored(record, 2)));
    let (_, actions) = stage.wait();
    let before = stage.now.moment;
    stage.step(Input::Unanswered(replaced(&actions).0));
    stage.wait();
    assert_eq!(
        (stage.now.moment.since(before).as_secs_f64() * 1000.0).round(),
        250.0
    );
}

#[test]
fn a_failed_read_is_repeated_after_a_pause() {
    let mut stage = Stage::new();
    stage.now.chance = Chance(1 << 31);
    assert_eq!(stage.step(Input::ReadFailed), []);
    assert_eq!(stage.wait(), (0.125, vec![Action::Read]));
    assert_eq!(stage.candidate.wake(), None);
}

#[test]
fn a_leader_that_cannot_renew_is_suspended_at_the_end_of_its_fence_and_resumes_the_same_term() {
    let mut stage = Stage::leading();
    for _ in 0..3 {
        stage.wait();
    }
    assert_eq!(stage.wait(), (27.0, vec![Action::Close]));
    let actions = stage.at(28.0).step(Input::Unanswered(Attempt(2)));
    let (attempt, _, record) = replaced(&actions);
    assert_eq!(
        stage
            .at(29.0)
            .step(Input::Written(attempt, stored(record, 2))),
        [open(1, 0, 28.0)]
    );
}

#[test]
fn a_suspended_term_is_lost_when_another_leads_or_after_two_lease_durations() {
    let suspended = || {
        let mut stage = Stage::leading();
        for _ in 0..4 {
            stage.wait();
        }
        stage
    };
    let mut stage = suspended();
    let actions = stage.at(31.0).step(seen(held(OTHER, 31.0), 2));
    assert_eq!(
        actions,
        [
            Action::Announce(OTHER.into()),
            Action::Close,
            Action::Exit(Exit::Lost)
        ]
    );

    let mut stage = suspended();
    assert_eq!(stage.wait(), (60.0, vec![Action::Exit(Exit::Lost)]));
}

#[test]
fn a_lease_deleted_under_its_leader_ends_the_term_and_is_waited_out_like_anybodys() {
    let mut stage = Stage::leading();
    assert_eq!(stage.at(3.0).step(absent()), [Action::Close]);
    let (at, actions) = stage.wait();
    assert_eq!(at, 30.0);
    let (attempt, record) = created(actions);
    assert_eq!((record.transitions, record.acquired), (1, Some(wall(30.0))));
    let anew = Lease {
        uid: "lease-2".into(),
        ..stored(record, 9)
    };
    let actions = stage.step(Input::Written(attempt, anew));
    let term = Epoch {
        lease_uid: "lease-2".into(),
        ..epoch(9, 1)
    };
    let Action::Open {
        soft_end,
        hard_end,
        wall_end,
        ..
    } = open(9, 1, 30.0)
    else {
        unreachable!()
    };
    assert_eq!(
        actions,
        [
            Action::Announce(ME.into()),
            Action::Open {
                epoch: term,
                soft_end,
                hard_end,
                wall_end
            }
        ],
        "a term of the same name is another term"
    );
}

#[test]
fn a_renewal_under_way_when_the_lease_is_deleted_counts_for_nothing() {
    let mut stage = Stage::leading();
    let (attempt, ..) = replaced(&stage.wait().1);
    stage.step(absent());
    assert_eq!(stage.step(Input::Refused(attempt)), []);
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_lease_deleted_under_a_live_holder_is_created_when_that_one_would_have_expired() {
    let mut stage = Stage::new();
    stage.at(1.0).step(seen(held(OTHER, 0.0), 5));
    assert_eq!(stage.at(2.0).step(absent()), []);
    assert_eq!(
        stage.at(3.0).step(absent()),
        [],
        "said twice, it is still the same absence"
    );
    let (at, actions) = stage.wait();
    assert_eq!((at, created(actions).1.transitions), (31.0, 8));
}

#[test]
fn a_lease_deleted_after_its_release_is_created_at_once() {
    let mut stage = Stage::new();
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 5)));
    stage.step(Input::Refused(attempt));
    assert_eq!(created(stage.step(absent())).1.transitions, 8);
}

#[test]
fn a_candidate_that_leads_nothing_leaves_at_once() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 1));
    assert_eq!(stage.step(Input::Leave), [Action::Exit(Exit::Clean)]);
    for input in [
        Input::Leave,
        Input::Tick,
        absent(),
        seen(released(0), 2),
        Input::Drained,
        Input::DrainTimedOut,
    ] {
        assert!(
            !stage
                .step(input)
                .iter()
                .any(|action| !matches!(action, Action::Announce(_)))
        );
    }
}

#[test]
fn a_candidate_asked_to_leave_during_a_take_over_gives_back_what_it_gets_without_opening() {
    let acquiring = || {
        let mut stage = Stage::new();
        let (attempt, _, record) = replaced(&stage.step(seen(released(7), 9)));
        assert_eq!(stage.step(Input::Leave), []);
        (stage, attempt, record)
    };
    let (mut stage, attempt, record) = acquiring();
    let actions = stage.step(Input::Written(attempt, stored(record.clone(), 10)));
    let (_, version, release) = replaced(&actions);
    assert_eq!(
        actions.len(),
        2,
        "the announcement and the release: {actions:?}"
    );
    assert_eq!((version.as_str(), release.holder.as_str()), ("10", ""));

    let (mut stage, attempt, _) = acquiring();
    assert_eq!(
        stage.step(Input::Refused(attempt)),
        [Action::Exit(Exit::Unreleased)]
    );
    let (mut stage, attempt, _) = acquiring();
    assert_eq!(
        stage.step(Input::Unanswered(attempt)),
        [Action::Exit(Exit::Unreleased)]
    );
    let (mut stage, ..) = acquiring();
    let overtaken = [Action::Announce(OTHER.into()), Action::Exit(Exit::Clean)];
    assert_eq!(stage.step(seen(held(OTHER, 0.0), 11)), overtaken);
}

#[test]
fn a_candidate_asked_to_leave_during_a_take_over_sends_nothing_more_and_waits_three_seconds() {
    let mut stage = Stage::new();
    stage.step(seen(released(7), 9));
    assert_eq!(stage.at(2.0).step(Input::Leave), []);
    assert_eq!(stage.wake(), (5.0, vec![Action::Exit(Exit::Unreleased)]));
}

#[test]
fn a_leader_asked_to_leave_drains_renews_meanwhile_closes_the_fence_and_then_releases() {
    let mut stage = Stage::leading();
    assert_eq!(stage.at(1.0).step(Input::Leave), [Action::Drain]);
    assert_eq!(stage.step(Input::Leave), []);
    let (at, actions) = stage.wait();
    let (renewal, _, record) = replaced(&actions);
    assert_eq!(at, 4.5);
    assert_eq!(
        stage.step(Input::Written(renewal, stored(record, 2))),
        [open(1, 0, 4.5)]
    );

    let actions = stage.at(6.0).step(Input::Drained);
    let (release, version, record) = replaced(&actions);
    assert_eq!((&actions[0], version.as_str()), (&Action::Close, "2"));
    assert_eq!(
        (record.holder.as_str(), record.duration, record.transitions),
        ("", Duration::from_secs(1), 0)
    );
    assert_eq!(
        (record.acquired, record.renewed),
        (Some(wall(6.0)), Some(wall(6.0)))
    );
    assert_eq!(
        stage.step(Input::Written(release, stored(record, 3))),
        [Action::Exit(Exit::Clean)]
    );
}

#[test]
fn a_drain_that_takes_too_long_closes_the_fence_and_releases_nothing() {
    let mut stage = Stage::leading();
    assert_eq!(
        stage.step(Input::DrainTimedOut),
        [],
        "nothing is being drained"
    );
    assert_eq!(stage.step(Input::Drained), []);
    stage.step(Input::Leave);
    assert_eq!(
        stage.step(Input::DrainTimedOut),
        [Action::Close, Action::Exit(Exit::Unreleased)]
    );

    let mut stage = Stage::leading();
    stage.step(Input::Leave);
    stage.at(27.0);
    let actions = stage.step(Input::Tick);
    assert_eq!(actions, [Action::Close, Action::Exit(Exit::Unreleased)]);
}

/// A leader that has closed its fence and sent the release, with the attempt and the record it had before.
fn releasing() -> (Stage, Attempt, Record) {
    let mut stage = Stage::leading();
    let Sight::Present { lease, .. } = &stage.candidate.sight else {
        panic!("a leader sees its Lease")
    };
    let own = lease.record.clone();
    stage.step(Input::Leave);
    let (release, ..) = replaced(&stage.at(1.0).step(Input::Drained));
    (stage, release, own)
}

#[test]
fn a_refused_release_is_read_about_and_tried_again() {
    let (mut stage, release, own) = releasing();
    assert_eq!(stage.step(Input::Refused(release)), [Action::Read]);
    let (again, version, _) = replaced(&stage.step(seen(own, 2)));
    assert_eq!(version, "2");
    assert_eq!(replaced(&stage.step(Input::Unanswered(again))).1, "2");
}

#[test]
fn a_release_ends_cleanly_when_nothing_is_left_to_release() {
    let (mut stage, release, _) = releasing();
    stage.step(Input::Refused(release));
    let actions = stage.step(seen(held(OTHER, 1.0), 2));
    assert_eq!(
        actions,
        [Action::Announce(OTHER.into()), Action::Exit(Exit::Clean)]
    );

    let (mut stage, _, _) = releasing();
    assert_eq!(
        stage.step(absent()),
        [Action::Close, Action::Exit(Exit::Clean)]
    );

    let mut stage = Stage::leading();
    stage.step(Input::Leave);
    assert_eq!(
        stage.step(absent()),
        [Action::Close, Action::Exit(Exit::Clean)]
    );
}

#[test]
fn a_release_is_given_up_after_three_seconds() {
    let (mut stage, ..) = releasing();
    assert_eq!(stage.wait(), (4.0, vec![Action::Exit(Exit::Unreleased)]));
}

#[test]
fn a_suspended_leader_asked_to_leave_releases_what_it_may_still_hold() {
    let mut stage = Stage::leading();
    for _ in 0..4 {
        stage.wait();
    }
    let (_, version, record) = replaced(&stage.step(Input::Leave));
    assert_eq!((version.as_str(), record.holder.as_str()), ("1", ""));
}

#[test]
fn a_late_reply_to_a_write_that_was_given_up_is_news_and_nothing_more() {
    let mut stage = Stage::new();
    let (attempt, _, record) = replaced(&stage.step(seen(released(7), 9)));
    stage.step(Input::Unanswered(attempt));
    stage.step(seen(held(OTHER, 0.0), 11));
    assert_eq!(stage.step(Input::Written(attempt, stored(record, 10))), []);
    assert_eq!(stage.step(Input::Unanswered(attempt)), []);
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_holder_that_comes_back_after_a_release_is_announced_again() {
    let mut stage = Stage::new();
    let (attempt, ..) = replaced(&stage.step(seen(released(7), 1)));
    stage.step(Input::Refused(attempt));
    assert_eq!(
        stage.step(seen(held(OTHER, 1.0), 2)),
        [Action::Announce(OTHER.into())]
    );
    assert_eq!(stage.step(seen(held(OTHER, 2.0), 3)), []);
    let (attempt, ..) = replaced(&stage.step(seen(released(8), 4)));
    stage.step(Input::Refused(attempt));
    assert_eq!(
        stage.step(seen(held(OTHER, 4.0), 5)),
        [Action::Announce(OTHER.into())]
    );
}

#[test]
fn how_a_candidate_came_to_its_term_and_how_long_after_it_might_is_told_once() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 8));
    let (attempt, _, record) = replaced(&stage.at(2.0).step(seen(released(7), 9)));
    stage
        .at(2.5)
        .step(Input::Written(attempt, stored(record, 10)));
    let (attempt, _, record) = replaced(&stage.wait().1);
    stage.step(Input::Written(attempt, stored(record, 11)));
    assert_eq!(stage.begun, [(Way::Release, Duration::from_millis(500))]);

    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 8));
    let (attempt, _, record) = replaced(&stage.wait().1);
    stage
        .at(30.25)
        .step(Input::Written(attempt, stored(record, 9)));
    assert_eq!(stage.begun, [(Way::Expiry, Duration::from_millis(250))]);

    assert_eq!(Stage::leading().begun, [(Way::Creation, Duration::ZERO)]);
}

#[test]
fn a_lease_whose_holders_container_terminated_is_taken_at_once() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 8));
    let (attempt, version, record) = replaced(
        &stage
            .at(1.0)
            .step(Input::Terminated(OTHER_CONTAINER.into())),
    );
    assert_eq!((version.as_str(), record.transitions), ("8", 8));
    stage.step(Input::Written(attempt, stored(record, 9)));
    assert_eq!(stage.begun, [(Way::Termination, Duration::ZERO)]);

    // The word may come before the Lease.
    let mut stage = Stage::new();
    stage.step(Input::Terminated(OTHER_CONTAINER.into()));
    assert_eq!(replaced(&stage.step(seen(held(OTHER, 0.0), 8))).1, "8");
}

#[test]
fn the_end_of_another_container_shortens_no_wait() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 8));
    assert_eq!(
        stage
            .at(1.0)
            .step(Input::Terminated("an earlier container of pod-b".into())),
        []
    );
    assert_eq!(stage.wait().0, 30.0);

    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 8));
    let (attempt, ..) = replaced(
        &stage
            .at(1.0)
            .step(Input::Terminated(OTHER_CONTAINER.into())),
    );
    assert_eq!(stage.step(Input::Refused(attempt)), [Action::Read]);
    stage.step(Input::Terminated("an-earlier-container".into()));
    assert_eq!(
        replaced(&stage.step(seen(held(OTHER, 0.0), 9))).1,
        "9",
        "a label had been changed meanwhile"
    );

    let mut stage = Stage::new();
    stage.step(Input::Terminated(OTHER_CONTAINER.into()));
    assert_eq!(
        stage.step(Input::Seen(Lease {
            instance: None,
            ..stored(held("go-1", 0.0), 8)
        }))[1..],
        []
    );
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn a_holder_that_somebody_erased_or_shortened_is_waited_out_as_it_was_last_seen() {
    let erased = Record {
        holder: String::new(),
        ..held(OTHER, 0.0)
    };
    let shortened = Record {
        duration: Duration::from_secs(1),
        ..held(OTHER, 0.0)
    };
    let renamed = Record {
        holder: "pod-x".into(),
        duration: Duration::from_secs(1),
        ..held(OTHER, 0.0)
    };
    for (edited, announced) in [(erased.clone(), 0), (shortened, 0), (renamed, 1)] {
        let mut stage = Stage::new();
        stage.step(seen(held(OTHER, 0.0), 8));
        assert_eq!(stage.at(2.0).step(seen(edited, 9)).len(), announced);
        let (at, _) = stage.wait();
        assert!((30.0..30.02).contains(&at), "{at}");
    }
    let mut stage = Stage::new();
    assert_eq!(stage.at(1.0).step(seen(erased, 8)), []);
    assert_eq!(
        stage.wait().0,
        31.0,
        "nobody was seen, and yet somebody may act"
    );
}

#[test]
fn a_lease_deleted_under_a_holder_and_made_anew_by_another_does_not_end_the_first_ones_time() {
    for through_absence in [true, false] {
        let mut stage = Stage::new();
        stage.at(1.0).step(seen(held(OTHER, 0.0), 5));
        if through_absence {
            stage.at(2.0).step(absent());
        }
        let anew = Lease {
            uid: "lease-2".into(),
            ..stored(held("pod-c", 2.0), 7)
        };
        stage.at(3.0).step(Input::Seen(anew));
        let given_back = Lease {
            uid: "lease-2".into(),
            ..stored(released(0), 8)
        };
        assert_eq!(stage.at(4.0).step(Input::Seen(given_back)), []);
        assert_eq!(stage.wait().0, 31.0);
    }
}

/// A leader by a Lease that it created at 1 s, whose Pod is about to be marked.
fn unmarked() -> (Stage, Record) {
    let mut stage = Stage::with(|config| config.marks = true);
    let (attempt, record) = created(stage.at(1.0).step(absent()));
    stage.step(Input::Written(attempt, stored(record.clone(), 1)));
    (stage, record)
}

/// Answers the renewals that come until then.
fn renew_until(stage: &mut Stage, end: f64) -> Vec<Action> {
    let mut others = Vec::new();
    loop {
        let (at, actions) = stage.wait();
        let (attempt, version, record) = replaced(&actions);
        let version = version.parse::<u64>().unwrap() + 1;
        others.extend(stage.step(Input::Written(attempt, stored(record, version))));
        if at >= end {
            return others;
        }
    }
}

#[test]
fn a_leader_by_another_lease_of_the_name_is_waited_for_because_its_lease_may_have_been_deleted() {
    let (mut stage, _) = unmarked();
    assert_eq!(stage.at(2.0).step(marked_beside("lease-0")), []);
    let actions = renew_until(&mut stage, 27.0);
    let looks = [Action::Mark("lease-1".into())];
    assert_eq!(
        actions
            .iter()
            .filter(|action| !looks.contains(action))
            .count(),
        0,
        "{actions:?}"
    );
    assert!(
        actions.len() >= 5,
        "it looks again with each renewal: {actions:?}"
    );
    let (at, actions) = stage.wake();
    assert_eq!(
        at, 31.0,
        "a lease duration after it was known that there is no other Lease"
    );
    let (attempt, _, record) = replaced(&actions);
    assert_eq!(stage.begun, []);
    stage.step(Input::Written(attempt, stored(record, 20)));
    assert_eq!(stage.begun, [(Way::Creation, Duration::from_secs(30))]);
}

#[test]
fn a_leader_whose_rival_has_ended_waits_no_longer() {
    let (mut stage, _) = unmarked();
    stage.at(2.0).step(marked_beside("lease-0"));
    let actions = renew_until(&mut stage, 5.0);
    assert_eq!(actions, [Action::Mark("lease-1".into())]);
    let opened = stage.step(MARKED);
    assert!(matches!(opened[..], [Action::Open { .. }]), "{opened:?}");
    assert_eq!(
        stage.step(marked_beside("lease-0")),
        [],
        "whoever leads is waited for by others"
    );
}

#[test]
fn a_rival_is_waited_for_since_this_lease_was_first_seen_and_not_since_there_was_none() {
    // Between two looks at nothing, another may have created a Lease, led by it, and lost it.
    let mut stage = Stage::with(|config| config.marks = true);
    let (attempt, _) = created(stage.at(1.0).step(absent()));
    assert_eq!(
        stage.at(2.0).step(Input::Unanswered(attempt)),
        [Action::Read]
    );
    let (attempt, record) = created(stage.at(22.0).step(absent()));
    stage
        .at(23.0)
        .step(Input::Written(attempt, stored(record, 9)));
    stage.step(marked_beside("lease-0"));
    renew_until(&mut stage, 45.0);
    assert_eq!(stage.wake().0, 53.0);

    let mut stage = Stage::with(|config| config.marks = true);
    let (attempt, _) = created(stage.at(1.0).step(absent()));
    assert_eq!(stage.at(2.0).step(Input::Refused(attempt)), [Action::Read]);
    let (attempt, _, record) = replaced(&stage.step(seen(released(0), 3)));
    stage
        .at(3.0)
        .step(Input::Written(attempt, stored(record, 4)));
    stage.step(marked_beside("lease-0"));
    renew_until(&mut stage, 29.0);
    assert_eq!(stage.wake().0, 32.0);
}

#[test]
fn the_leader_of_a_lease_that_was_seen_before_is_waited_for_since_that_one_was_gone() {
    let first = || {
        Input::Seen(Lease {
            uid: "lease-0".into(),
            ..stored(held(OTHER, 0.0), 5)
        })
    };
    let mut stage = Stage::with(|config| config.marks = true);
    stage.step(first());
    stage.at(20.0).step(absent());
    let (at, actions) = stage.wait();
    assert_eq!(at, 30.0, "the holder is waited out as it was last seen");
    let (attempt, record) = created(actions);
    stage.step(Input::Written(attempt, stored(record, 9)));
    stage.step(marked_beside("lease-0"));
    renew_until(&mut stage, 45.0);
    assert_eq!(
        stage.wake().0,
        50.0,
        "it may have renewed unseen until its Lease was deleted"
    );

    // A Lease that is another one says as well that the one before is gone.
    let mut stage = Stage::with(|config| config.marks = true);
    stage.step(first());
    assert_eq!(stage.at(10.0).step(seen(released(0), 7)), []);
    let (attempt, _, record) = replaced(&stage.wait().1);
    stage.step(Input::Written(attempt, stored(record, 9)));
    stage.step(marked_beside("lease-0"));
    renew_until(&mut stage, 35.0);
    assert_eq!(stage.wake().0, 40.0);
}

#[test]
fn an_absence_that_is_older_than_what_is_known_is_not_news() {
    let absent_as_of = |version: &str| Input::Absent(AsOf::Version(Version(version.into())));
    let mut stage = Stage::new();
    let (attempt, record) = created(stage.step(absent()));
    stage.step(Input::Written(attempt, stored(record, 20)));
    assert_eq!(stage.step(absent_as_of("9")), []);
    assert_eq!(stage.step(absent_as_of("21")), [Action::Close]);
}

#[test]
fn an_absence_that_was_asked_for_before_the_lease_was_seen_is_asked_for_again() {
    let asked = |seconds: f64| Input::Absent(AsOf::Asked(moment(seconds)));
    let mut stage = Stage::new();
    let (attempt, record) = created(stage.at(0.5).step(asked(0.1)));
    stage
        .at(1.0)
        .step(Input::Written(attempt, stored(record, 20)));
    for seconds in [0.2, 1.0] {
        assert_eq!(
            stage.step(asked(seconds)),
            [Action::Read],
            "another read had been under way since {seconds} s"
        );
    }
    assert_eq!(stage.step(asked(1.5)), [Action::Close]);
}

#[test]
fn a_follower_that_hears_nothing_looks_for_itself_and_one_that_hears_does_not() {
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 1));
    for second in [5.0, 10.0, 15.0] {
        assert_eq!(
            stage
                .at(second)
                .step(seen(held(OTHER, second), 1 + second as u64)),
            []
        );
    }
    assert_eq!(stage.wake(), (23.0, vec![Action::Read]));
    assert_eq!(
        stage.candidate.wake(),
        Some(moment(45.0)),
        "one look at a time"
    );
    stage.now.chance = Chance(1 << 31);
    assert_eq!(stage.at(24.0).step(Input::ReadFailed), []);
    assert_eq!(stage.wake(), (24.125, vec![Action::Read]));
    stage.at(25.0).step(seen(held(OTHER, 20.0), 30));
    assert_eq!(stage.wake().0, 33.0);
}

#[test]
fn a_leader_marks_its_pod_before_its_fence_opens() {
    let mut stage = Stage::with(|config| config.marks = true);
    let (attempt, record) = created(stage.step(absent()));
    let actions = stage.step(Input::Written(attempt, stored(record, 1)));
    assert_eq!(
        actions,
        [Action::Announce(ME.into()), Action::Mark("lease-1".into())]
    );
    assert_eq!(stage.at(0.25).step(MARKED), [open(1, 0, 0.0)]);
    assert_eq!(stage.begun, [(Way::Creation, Duration::from_millis(250))]);
    assert_eq!(stage.step(MARKED), []);

    // A renewal that overtakes the mark opens nothing either.
    let (mut stage, _) = unmarked();
    let (attempt, _, record) = replaced(&stage.wait().1);
    assert_eq!(stage.step(Input::Written(attempt, stored(record, 2))), []);
    assert_eq!(stage.at(6.0).step(MARKED), [open(1, 0, 5.5)]);
}

#[test]
fn a_candidate_asked_to_leave_before_its_fence_opened_gives_the_lease_back() {
    let mut stage = Stage::with(|config| config.marks = true);
    let (attempt, record) = created(stage.step(absent()));
    stage.step(Input::Written(attempt, stored(record, 1)));
    assert_eq!(replaced(&stage.step(Input::Leave)).2.holder, "");
    assert_eq!(stage.step(MARKED), []);
}

#[test]
fn a_leader_steps_down_for_another_when_it_is_asked_to() {
    let asked = |successor: &str| {
        let mut stage = Stage::leading();
        let Sight::Present { lease, .. } = stage.candidate.sight.clone() else {
            panic!("a leader sees its Lease")
        };
        let version = Version("2".into());
        let actions = stage.step(Input::Seen(Lease {
            successor: Some(successor.into()),
            version,
            ..lease
        }));
        (stage, actions)
    };
    for successor in [OTHER, ""] {
        let (mut stage, actions) = asked(successor);
        assert_eq!(actions, [Action::Drain]);
        assert_eq!(stage.at(1.0).step(Input::Drained)[0], Action::Close);
    }
    assert_eq!(asked(ME).1, []);

    // The request was there before the fence was open.
    let mut stage = Stage::with(|config| config.marks = true);
    let (attempt, record) = created(stage.step(absent()));
    let lease = Lease {
        successor: Some(OTHER.into()),
        ..stored(record, 1)
    };
    stage.step(Input::Written(attempt, lease));
    assert_eq!(stage.step(MARKED), [open(1, 0, 0.0), Action::Drain]);
}

#[test]
fn a_lease_that_was_released_for_somebody_is_left_to_that_one_for_two_seconds() {
    let given = |successor: &str| {
        Input::Seen(Lease {
            successor: Some(successor.into()),
            ..stored(released(7), 9)
        })
    };
    let mut stage = Stage::new();
    assert_eq!(stage.at(1.0).step(given(OTHER)), []);
    let (at, actions) = stage.wait();
    assert_eq!((at, replaced(&actions).1.as_str()), (3.0, "9"));
    for successor in [ME, ""] {
        assert_eq!(replaced(&Stage::new().step(given(successor))).1, "9");
    }
}

#[test]
fn a_lease_whose_holder_the_api_server_chooses_is_taken_only_by_the_chosen() {
    let coordinated = |record| {
        Input::Seen(Lease {
            coordinated: true,
            pod_uid: None,
            ..stored(record, 9)
        })
    };
    let mut stage = Stage::new();
    stage.step(coordinated(held(OTHER, 0.0)));
    for _ in 0..10 {
        assert_eq!(stage.wake().1, [Action::Read]);
        stage.step(coordinated(held(OTHER, 0.0)));
    }
    let mut stage = Stage::new();
    stage.step(coordinated(released(7)));
    assert_eq!(stage.wake().1, [Action::Read]);
    let mut stage = Stage::new();
    let (_, version, record) = replaced(&stage.step(coordinated(held(ME, 0.0))));
    assert_eq!((version.as_str(), record.transitions), ("9", 8));
}

#[test]
fn the_twin_of_a_take_over_is_not_sent_on_a_lease_that_another_took_meanwhile() {
    let overtaken = |input: Input| {
        let mut stage = Stage::new();
        created(stage.step(absent()));
        stage.at(1.0).step(input);
        stage.wait().0
    };
    assert_eq!(overtaken(seen(held(OTHER, 0.0), 9)), 31.0);

    // A reply of before the Lease was deleted begins no term.
    let mut stage = Stage::new();
    let (attempt, _, record) = replaced(&stage.step(seen(released(7), 8)));
    created(stage.at(1.0).step(absent()));
    stage.step(Input::Written(attempt, stored(record, 9)));
    assert_eq!(stage.begun, []);

    // Nor on the absence of one that was deleted under its holder.
    let mut stage = Stage::new();
    stage.step(seen(held(OTHER, 0.0), 8));
    stage
        .at(1.0)
        .step(Input::Terminated(OTHER_CONTAINER.into()));
    assert_eq!(stage.at(2.0).step(absent()), []);
    assert_eq!(stage.wait().0, 30.0);
}

#[test]
fn the_twin_of_a_take_over_that_was_seen_to_succeed_goes_on_with_it() {
    let mut stage = Stage::new();
    let (first, record) = created(stage.step(absent()));
    assert_eq!(
        stage.at(1.0).step(seen(record.clone(), 9)),
        [Action::Announce(ME.into())]
    );
    let (at, actions) = stage.wait();
    let (_, version, again) = replaced(&actions);
    assert_eq!(
        (at, version.as_str(), again.acquired),
        (3.0, "9", record.acquired)
    );
    assert_eq!(
        again.renewed,
        Some(wall(3.0)),
        "others must see that it lives: their wait begins anew"
    );
    assert_eq!(
        stage.step(Input::Written(first, stored(record, 9))),
        [open(9, 0, 0.0)]
    );
}
