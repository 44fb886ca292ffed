//! Stopping: drain, release and exit.

use super::*;

#[test]
fn follower_stops_at_once() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 1));
    assert_eq!(fixture.step(Input::Stop), [Action::Exit(Exit::Clean)]);
    for input in [
        Input::Stop,
        Input::Tick,
        absent(),
        watched(released(0), 2),
        Input::Drained,
        Input::DrainTimedOut,
    ] {
        assert!(
            !fixture
                .step(input)
                .iter()
                .any(|action| !matches!(action, Action::AnnounceLeader(_)))
        );
    }
}

#[test]
fn stop_during_a_takeover_releases_without_opening() {
    let acquiring = || {
        let mut fixture = Fixture::new();
        let (write, _, record) = expect_update(&fixture.step(watched(released(7), 9)));
        assert_eq!(fixture.step(Input::Stop), []);
        (fixture, write, record)
    };
    let (mut fixture, write, record) = acquiring();
    let actions = fixture.step(Input::Written(write, lease(record.clone(), 10)));
    let (_, version, release) = expect_update(&actions);
    assert_eq!(
        actions.len(),
        2,
        "an announcement and a release: {actions:?}"
    );
    assert_eq!((version.as_str(), release.holder.as_str()), ("10", ""));

    let (mut fixture, write, _) = acquiring();
    assert_eq!(
        fixture.step(Input::Conflict(write)),
        [Action::Exit(Exit::Unreleased)]
    );
    let (mut fixture, write, _) = acquiring();
    assert_eq!(
        fixture.step(Input::OutcomeUnknown(write)),
        [Action::Exit(Exit::Unreleased)]
    );
    let (mut fixture, ..) = acquiring();
    let overtaken = [
        Action::AnnounceLeader(OTHER.into()),
        Action::Exit(Exit::Clean),
    ];
    assert_eq!(fixture.step(watched(held_by(OTHER, 0.0), 11)), overtaken);
}

#[test]
fn stop_during_a_takeover_waits_three_seconds_for_it() {
    let mut fixture = Fixture::new();
    fixture.step(watched(released(7), 9));
    assert_eq!(fixture.at(2.0).step(Input::Stop), []);
    assert_eq!(fixture.wake(), (5.0, vec![Action::Exit(Exit::Unreleased)]));
}

#[test]
fn stopped_leader_drains_closes_its_fence_then_releases() {
    let mut fixture = Fixture::leading();
    assert_eq!(fixture.at(1.0).step(Input::Stop), [Action::Drain]);
    assert_eq!(fixture.step(Input::Stop), []);
    let (at, actions) = fixture.wait();
    let (renewal, _, record) = expect_update(&actions);
    assert_eq!(at, 4.5);
    assert_eq!(
        fixture.step(Input::Written(renewal, lease(record, 2))),
        [opens(1, 0, 4.5)]
    );

    let actions = fixture.at(6.0).step(Input::Drained);
    let (release, version, record) = expect_update(&actions);
    assert_eq!((&actions[0], version.as_str()), (&Action::CloseFence, "2"));
    assert_eq!(
        (record.holder.as_str(), record.duration, record.transitions),
        ("", Duration::from_secs(1), 0)
    );
    assert_eq!(
        (record.acquired, record.renewed),
        (Some(wall(6.0)), Some(wall(6.0)))
    );
    assert_eq!(
        fixture.step(Input::Written(release, lease(record, 3))),
        [Action::Exit(Exit::Clean)]
    );
}

#[test]
fn drain_timeout_closes_the_fence_without_a_release() {
    let mut fixture = Fixture::leading();
    assert_eq!(
        fixture.step(Input::DrainTimedOut),
        [],
        "no drain is in progress"
    );
    assert_eq!(fixture.step(Input::Drained), []);
    fixture.step(Input::Stop);
    assert_eq!(
        fixture.step(Input::DrainTimedOut),
        [Action::CloseFence, Action::Exit(Exit::Unreleased)]
    );

    let mut fixture = Fixture::leading();
    fixture.step(Input::Stop);
    fixture.at(27.0);
    let actions = fixture.step(Input::Tick);
    assert_eq!(
        actions,
        [Action::CloseFence, Action::Exit(Exit::Unreleased)]
    );
}

/// A leader that has closed its fence and sent the release, with that write and its last record
/// before.
fn releasing() -> (Fixture, WriteId, LeaseRecord) {
    let mut fixture = Fixture::leading();
    let Observed::Present { lease, .. } = &fixture.candidate.observed else {
        panic!("a leader knows its Lease")
    };
    let own = lease.record.clone();
    fixture.step(Input::Stop);
    let (release, ..) = expect_update(&fixture.at(1.0).step(Input::Drained));
    (fixture, release, own)
}

#[test]
fn conflicting_release_is_retried_after_a_read() {
    let (mut fixture, release, own) = releasing();
    assert_eq!(fixture.step(Input::Conflict(release)), [Action::Read]);
    let (again, version, _) = expect_update(&fixture.step(watched(own, 2)));
    assert_eq!(version, "2");
    assert_eq!(
        expect_update(&fixture.step(Input::OutcomeUnknown(again))).1,
        "2"
    );
}

#[test]
fn release_ends_cleanly_when_nothing_is_held() {
    let (mut fixture, release, _) = releasing();
    fixture.step(Input::Conflict(release));
    let actions = fixture.step(watched(held_by(OTHER, 1.0), 2));
    assert_eq!(
        actions,
        [
            Action::AnnounceLeader(OTHER.into()),
            Action::Exit(Exit::Clean)
        ]
    );

    let (mut fixture, _, _) = releasing();
    assert_eq!(
        fixture.step(absent()),
        [Action::CloseFence, Action::Exit(Exit::Clean)]
    );

    let mut fixture = Fixture::leading();
    fixture.step(Input::Stop);
    assert_eq!(
        fixture.step(absent()),
        [Action::CloseFence, Action::Exit(Exit::Clean)]
    );
}

#[test]
fn release_is_given_up_after_three_seconds() {
    let (mut fixture, ..) = releasing();
    assert_eq!(fixture.wait(), (4.0, vec![Action::Exit(Exit::Unreleased)]));
}

#[test]
fn stopped_suspended_leader_releases() {
    let mut fixture = Fixture::leading();
    for _ in 0..4 {
        fixture.wait();
    }
    let (_, version, record) = expect_update(&fixture.step(Input::Stop));
    assert_eq!((version.as_str(), record.holder.as_str()), ("1", ""));
}

#[test]
fn stop_before_the_first_opening_releases() {
    let mut fixture = Fixture::with(|config| config.marks = true);
    let (write, record) = expect_create(fixture.step(absent()));
    fixture.step(Input::Written(write, lease(record, 1)));
    assert_eq!(expect_update(&fixture.step(Input::Stop)).2.holder, "");
    assert_eq!(fixture.step(MARKED), []);
}
