//! Renewals, hedges and backoff of a leader, and how it loses its term.

use super::*;

#[test]
fn leader_renews_near_its_period_and_extends_its_fence() {
    for (jitter, due) in [(0, 4.5), (1 << 31, 5.0), (u32::MAX, 5.5)] {
        let mut fixture = Fixture::new();
        fixture.now.jitter = Jitter(jitter);
        let (write, record) = expect_create(fixture.step(absent()));
        fixture.step(Input::Written(write, lease(record, 1)));
        let (at, actions) = fixture.wait();
        assert!((at - due).abs() < 1e-6, "{at} is not {due}");
        let (write, version, record) = expect_update(&actions);
        assert_eq!(
            (version.as_str(), record.transitions, record.acquired),
            ("1", 0, Some(wall(0.0)))
        );
        assert_eq!(record.renewed, Some(wall(at)));
        let sent = fixture.now;
        let actions = fixture
            .at(at + 1.0)
            .step(Input::Written(write, lease(record, 2)));
        let reaches = Action::OpenFence {
            epoch: epoch(1, 0),
            soft_end: sent.moment + Duration::from_secs(20),
            hard_end: sent.moment + Duration::from_secs(27),
            wall_end: sent.wall + Duration::from_secs(27),
        };
        assert_eq!(actions, [reaches]);
    }
}

#[test]
fn renew_times_differ_by_a_second_on_a_stalled_wall_clock() {
    let mut fixture = Fixture::leading();
    fixture.at(4.5).now.wall = wall(-60.0);
    let (_, _, record) = expect_update(&fixture.step(Input::Tick));
    assert_eq!(record.renewed, Some(wall(1.0)));
}

#[test]
fn conflicting_renewal_is_resent_after_a_read() {
    let mut fixture = Fixture::leading();
    let (write, _, record) = expect_update(&fixture.wait().1);
    assert_eq!(fixture.at(4.6).step(Input::Conflict(write)), [Action::Read]);
    // Another client labelled the Lease, or the reply to our own write was lost.
    let (_, version, _) = expect_update(&fixture.at(4.7).step(watched(record, 3)));
    assert_eq!(version, "3");
}

#[test]
fn draining_or_suspended_term_resends_after_a_conflict() {
    let mut draining = Fixture::leading();
    draining.step(Input::Stop);
    let (write, _, record) = expect_update(&draining.wait().1);
    assert_eq!(draining.step(Input::Conflict(write)), [Action::Read]);
    let (write, _, record) = expect_update(&draining.at(5.0).step(watched(record, 3)));
    assert_eq!(
        draining.step(Input::Written(write, lease(record, 4))),
        [opens(1, 0, 5.0)]
    );

    let mut suspended = Fixture::leading();
    let (write, _, record) = expect_update(&suspended.wait().1);
    let (hedge, ..) = expect_update(&suspended.at(27.0).step(Input::Tick));
    assert_eq!(suspended.step(Input::Conflict(write)), [Action::Read]);
    assert_eq!(suspended.step(Input::Conflict(hedge)), []);
    let (write, _, record) = expect_update(&suspended.at(28.0).step(watched(record, 3)));
    assert_eq!(
        suspended.step(Input::Written(write, lease(record, 4))),
        [opens(1, 0, 28.0)]
    );
}

#[test]
fn leader_that_sees_another_holder_is_lost_at_once() {
    let lost = [
        Action::AnnounceLeader(OTHER.into()),
        Action::CloseFence,
        Action::Exit(Exit::Lost),
    ];
    let mut fixture = Fixture::leading();
    assert_eq!(fixture.at(2.0).step(watched(held_by(OTHER, 2.0), 2)), lost);
    assert_eq!(fixture.candidate.next_wake(), None);

    let mut fixture = Fixture::leading();
    fixture.step(Input::Stop);
    assert_eq!(fixture.at(2.0).step(watched(held_by(OTHER, 2.0), 2)), lost);

    let mut fixture = Fixture::leading();
    let (write, ..) = expect_update(&fixture.wait().1);
    fixture.step(Input::Conflict(write));
    assert_eq!(fixture.step(watched(held_by(OTHER, 2.0), 2)), lost);
}

#[test]
fn term_edited_by_another_client_is_lost() {
    let own = LeaseRecord {
        transitions: 0,
        ..held_by(ME, 0.0)
    };
    for edited in [
        LeaseRecord {
            acquired: Some(wall(9.0)),
            ..own.clone()
        },
        LeaseRecord {
            acquired: Some(wall(0.0)),
            duration: Duration::from_secs(29),
            ..own.clone()
        },
        LeaseRecord {
            acquired: Some(wall(0.0)),
            ..released(0)
        },
    ] {
        let mut fixture = Fixture::leading();
        let actions = fixture.step(watched(edited, 2));
        assert_eq!(actions, [Action::CloseFence, Action::Exit(Exit::Lost)]);
    }
    let mut fixture = Fixture::leading();
    let longer = LeaseRecord {
        acquired: Some(wall(0.0)),
        duration: Duration::from_secs(31),
        ..own
    };
    assert_eq!(fixture.step(watched(longer, 2)), []);
    let (_, _, renewal) = expect_update(&fixture.wait().1);
    assert_eq!(
        renewal.duration,
        Duration::from_secs(30),
        "a renewal writes this candidate's own lease duration"
    );
}

#[test]
fn unanswered_renewal_is_hedged_every_three_seconds() {
    let mut fixture = Fixture::leading();
    let mut sent = Vec::new();
    for at in [4.5, 7.5, 10.5] {
        let (woken, actions) = fixture.wait();
        assert_eq!((woken, actions.len()), (at, 1));
        sent.push(expect_update(&actions));
    }
    assert!(sent.iter().all(|(_, version, _)| version == "1"));
    // Three are in flight: the next step is the end of the fence.
    assert_eq!(fixture.candidate.next_wake(), Some(moment(27.0)));

    // One of them failed: that makes room for another.
    fixture.at(12.0).step(Input::OutcomeUnknown(sent[1].0));
    assert_eq!(fixture.candidate.next_wake(), Some(moment(13.5)));

    // The slow first one was committed; its hedges carry a version that is outdated now.
    let (write, _, record) = sent[0].clone();
    let actions = fixture
        .at(13.0)
        .step(Input::Written(write, lease(record, 2)));
    assert_eq!(
        actions[0],
        opens(1, 0, 4.5),
        "the fence reaches as far as that write's sending allows"
    );
    assert_eq!(
        expect_update(&actions).1,
        "2",
        "counted from that sending, the next renewal is overdue"
    );
    assert_eq!(fixture.step(Input::Conflict(sent[2].0)), []);
}

#[test]
fn failed_hedge_is_followed_by_another_after_a_backoff() {
    let mut fixture = Fixture::leading();
    fixture.now.jitter = Jitter(1 << 31);
    let (first, _) = fixture.wait();
    let (_, actions) = fixture.wait();
    assert_eq!((first, fixture.now.moment), (4.5, moment(7.5)));
    assert_eq!(
        fixture.step(Input::OutcomeUnknown(expect_update(&actions).0)),
        []
    );
    let (at, actions) = fixture.wait();
    assert_eq!(at, 7.625);
    assert_eq!(
        fixture.step(Input::OutcomeUnknown(expect_update(&actions).0)),
        []
    );
    assert_eq!(fixture.wait().0, 7.875);
}

#[test]
fn failures_back_off_from_250ms_to_2s_until_a_success() {
    let mut fixture = Fixture::leading();
    fixture.at(4.5).now.jitter = Jitter(u32::MAX);
    let mut actions = fixture.step(Input::Tick);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let before = fixture.now.moment;
        let (write, ..) = expect_update(&actions);
        assert_eq!(fixture.step(Input::OutcomeUnknown(write)), []);
        let (_, again) = fixture.wait();
        pauses.push((fixture.now.moment.since(before).as_secs_f64() * 1000.0).round());
        actions = again;
    }
    assert_eq!(pauses, [250.0, 500.0, 1000.0, 2000.0, 2000.0]);
    let (write, _, record) = expect_update(&actions);
    fixture.step(Input::Written(write, lease(record, 2)));
    let (_, actions) = fixture.wait();
    let before = fixture.now.moment;
    fixture.step(Input::OutcomeUnknown(expect_update(&actions).0));
    fixture.wait();
    assert_eq!(
        (fixture.now.moment.since(before).as_secs_f64() * 1000.0).round(),
        250.0
    );
}

#[test]
fn failed_read_is_retried_after_a_backoff() {
    let mut fixture = Fixture::new();
    fixture.now.jitter = Jitter(1 << 31);
    assert_eq!(fixture.step(Input::ReadFailed), []);
    assert_eq!(fixture.wait(), (0.125, vec![Action::Read]));
    assert_eq!(fixture.candidate.next_wake(), None);
}

#[test]
fn leader_without_renewals_is_suspended_and_resumes_its_term() {
    let mut fixture = Fixture::leading();
    for _ in 0..3 {
        fixture.wait();
    }
    assert_eq!(fixture.wait(), (27.0, vec![Action::CloseFence]));
    let actions = fixture.at(28.0).step(Input::OutcomeUnknown(WriteId(2)));
    let (write, _, record) = expect_update(&actions);
    assert_eq!(
        fixture
            .at(29.0)
            .step(Input::Written(write, lease(record, 2))),
        [opens(1, 0, 28.0)]
    );
}

#[test]
fn suspended_term_is_lost_to_another_or_after_two_leases() {
    let suspended = || {
        let mut fixture = Fixture::leading();
        for _ in 0..4 {
            fixture.wait();
        }
        fixture
    };
    let mut fixture = suspended();
    let actions = fixture.at(31.0).step(watched(held_by(OTHER, 31.0), 2));
    assert_eq!(
        actions,
        [
            Action::AnnounceLeader(OTHER.into()),
            Action::CloseFence,
            Action::Exit(Exit::Lost)
        ]
    );

    let mut fixture = suspended();
    assert_eq!(fixture.wait(), (60.0, vec![Action::Exit(Exit::Lost)]));
}

#[test]
fn leader_steps_down_when_asked_for_another() {
    let asked = |successor: &str| {
        let mut fixture = Fixture::leading();
        let Observed::Present { lease, .. } = fixture.candidate.observed.clone() else {
            panic!("a leader knows its Lease")
        };
        let version = ResourceVersion("2".into());
        let actions = fixture.step(Input::Watched(Lease {
            successor: Some(successor.into()),
            version,
            ..lease
        }));
        (fixture, actions)
    };
    for successor in [OTHER, ""] {
        let (mut fixture, actions) = asked(successor);
        assert_eq!(actions, [Action::Drain]);
        assert_eq!(fixture.at(1.0).step(Input::Drained)[0], Action::CloseFence);
    }
    assert_eq!(asked(ME).1, []);

    // The request to step down precedes the first opening.
    let mut fixture = Fixture::with(|config| config.marks = true);
    let (write, record) = expect_create(fixture.step(absent()));
    let lease = Lease {
        successor: Some(OTHER.into()),
        ..lease(record, 1)
    };
    fixture.step(Input::Written(write, lease));
    assert_eq!(fixture.step(MARKED), [opens(1, 0, 0.0), Action::Drain]);
}
