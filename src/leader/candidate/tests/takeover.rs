//! When and how a free Lease is taken over.

use super::*;

#[test]
fn guard_is_a_tenth_of_the_lease_but_at_least_a_second() {
    let mut config = Fixture::new().candidate.config;
    assert_eq!(config.guard(), Duration::from_secs(3));
    config.lease_duration = Duration::from_secs(6);
    assert_eq!(config.guard(), Duration::from_secs(1));
}

#[test]
fn absent_lease_is_created_and_led_from_the_sending() {
    let mut fixture = Fixture::new();
    let (write, record) = expect_create(fixture.at(1.0).step(absent()));
    assert_eq!((record.holder.as_str(), record.transitions), (ME, 0));
    assert_eq!(
        (record.acquired, record.renewed),
        (Some(wall(1.0)), Some(wall(1.0)))
    );
    assert_eq!(record.duration, Duration::from_secs(30));

    let actions = fixture
        .at(3.5)
        .step(Input::Written(write, lease(record, 4)));
    assert_eq!(
        actions,
        [Action::AnnounceLeader(ME.into()), opens(4, 0, 1.0)]
    );
}

#[test]
fn released_lease_is_taken_at_once_with_one_transition() {
    let mut fixture = Fixture::new();
    let actions = fixture.at(2.0).step(watched(released(7), 9));
    let (write, version, record) = expect_update(&actions);
    assert_eq!(
        (version.as_str(), record.transitions, actions.len()),
        ("9", 8, 1)
    );
    let actions = fixture.step(Input::Written(write, lease(record, 10)));
    assert_eq!(
        actions,
        [Action::AnnounceLeader(ME.into()), opens(10, 8, 2.0)]
    );
}

#[test]
fn live_holder_is_waited_out_from_its_last_observed_change() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.at(1.0).step(watched(held_by(OTHER, -100.0), 1)),
        [Action::AnnounceLeader(OTHER.into())]
    );
    assert_eq!(fixture.at(6.0).step(watched(held_by(OTHER, -95.0), 2)), []);
    // A label or an annotation changes the version and nothing else.
    assert_eq!(fixture.at(20.0).step(watched(held_by(OTHER, -95.0), 3)), []);

    let (at, actions) = fixture.wait();
    assert_eq!(at, 36.0);
    let (_, version, record) = expect_update(&actions);
    assert_eq!(
        (version.as_str(), record.holder.as_str(), record.transitions),
        ("3", ME, 8)
    );
}

#[test]
fn expiry_follows_the_recorded_duration_plus_jitter() {
    let mut fixture = Fixture::new();
    fixture.now.jitter = Jitter(u32::MAX);
    fixture.step(Input::Watched(lease(
        LeaseRecord {
            duration: Duration::from_secs(3),
            ..held_by(OTHER, 0.0)
        },
        1,
    )));
    let (at, _) = fixture.wait();
    assert!(
        (3.049..=3.05).contains(&at),
        "jitter adds at most a sixtieth of 3 s: {at}"
    );

    let mut fixture = Fixture::new();
    fixture.now.jitter = Jitter(1 << 31);
    fixture.step(watched(held_by(OTHER, 0.0), 1));
    assert_eq!(fixture.wait().0, 30.05);
}

#[test]
fn own_name_is_claimed_only_with_the_sent_acquire_time() {
    let mut fixture = Fixture::new();
    fixture.candidate.config.pod_uid = None;
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 9)));
    fixture.step(Input::OutcomeUnknown(write));
    let stranger = Lease {
        pod_uid: None,
        ..lease(held_by(ME, 0.0), 10)
    };
    assert_eq!(
        fixture.step(Input::Watched(stranger)),
        [Action::AnnounceLeader(ME.into())]
    );
    assert_eq!(fixture.wait().0, 30.0);

    let mut fixture = Fixture::new();
    let undated = Lease {
        pod_uid: None,
        ..lease(
            LeaseRecord {
                acquired: None,
                ..held_by(ME, 0.0)
            },
            9,
        )
    };
    assert_eq!(
        fixture.step(Input::Watched(undated)),
        [Action::AnnounceLeader(ME.into())],
        "no takeover was sent, so none is claimed"
    );
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn next_container_of_the_pod_reclaims_in_a_new_term() {
    let mut fixture = Fixture::new();
    let actions = fixture.step(Input::Watched(lease(held_by(ME, -3.0), 5)));
    let (write, _, record) = expect_update(&actions);
    assert_eq!((record.transitions, record.acquired), (8, Some(wall(0.0))));
    let actions = fixture.step(Input::Written(write, lease(record, 6)));
    assert_eq!(
        actions,
        [Action::AnnounceLeader(ME.into()), opens(6, 8, 0.0)],
        "a reclaimed Lease begins a new term"
    );
    assert_eq!(
        fixture.terms_begun,
        [(TakeoverCause::Reclaim, Duration::ZERO)]
    );
}

#[test]
fn other_pod_of_the_same_name_is_waited_out() {
    for (pod_uid, own) in [
        (Some("another pod".to_owned()), Some(POD.to_owned())),
        (None, Some(POD.to_owned())),
        (None, None),
    ] {
        let mut fixture = Fixture::new();
        fixture.candidate.config.pod_uid = own;
        let lease = Lease {
            pod_uid,
            ..lease(held_by(ME, -3.0), 5)
        };
        assert_eq!(
            fixture.step(Input::Watched(lease)),
            [Action::AnnounceLeader(ME.into())]
        );
        assert_eq!(fixture.wait().0, 30.0);
    }
    // A record of our own Pod under another name is not ours either.
    let mut fixture = Fixture::new();
    let lease = Lease {
        pod_uid: Some(POD.into()),
        ..lease(held_by(OTHER, -3.0), 5)
    };
    fixture.step(Input::Watched(lease));
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn term_reports_its_cause_and_its_delay_once() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 8));
    let (write, _, record) = expect_update(&fixture.at(2.0).step(watched(released(7), 9)));
    fixture
        .at(2.5)
        .step(Input::Written(write, lease(record, 10)));
    let (write, _, record) = expect_update(&fixture.wait().1);
    fixture.step(Input::Written(write, lease(record, 11)));
    assert_eq!(
        fixture.terms_begun,
        [(TakeoverCause::Release, Duration::from_millis(500))]
    );

    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 8));
    let (write, _, record) = expect_update(&fixture.wait().1);
    fixture
        .at(30.25)
        .step(Input::Written(write, lease(record, 9)));
    assert_eq!(
        fixture.terms_begun,
        [(TakeoverCause::Expiry, Duration::from_millis(250))]
    );

    assert_eq!(
        Fixture::leading().terms_begun,
        [(TakeoverCause::Creation, Duration::ZERO)]
    );
}

#[test]
fn lease_of_a_terminated_container_is_taken_at_once() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 8));
    let (write, version, record) = expect_update(
        &fixture
            .at(1.0)
            .step(Input::ContainerTerminated(OTHER_CONTAINER.into())),
    );
    assert_eq!((version.as_str(), record.transitions), ("8", 8));
    fixture.step(Input::Written(write, lease(record, 9)));
    assert_eq!(
        fixture.terms_begun,
        [(TakeoverCause::Termination, Duration::ZERO)]
    );

    // The report may arrive before the Lease.
    let mut fixture = Fixture::new();
    fixture.step(Input::ContainerTerminated(OTHER_CONTAINER.into()));
    assert_eq!(
        expect_update(&fixture.step(watched(held_by(OTHER, 0.0), 8))).1,
        "8"
    );
}

#[test]
fn released_lease_is_left_to_its_successor_for_two_seconds() {
    let given = |successor: &str| {
        Input::Watched(Lease {
            successor: Some(successor.into()),
            ..lease(released(7), 9)
        })
    };
    let mut fixture = Fixture::new();
    assert_eq!(fixture.at(1.0).step(given(OTHER)), []);
    let (at, actions) = fixture.wait();
    assert_eq!((at, expect_update(&actions).1.as_str()), (3.0, "9"));
    for successor in [ME, ""] {
        assert_eq!(expect_update(&Fixture::new().step(given(successor))).1, "9");
    }
}

#[test]
fn coordinated_lease_is_taken_only_by_the_chosen() {
    let coordinated = |record| {
        Input::Watched(Lease {
            coordinated: true,
            pod_uid: None,
            ..lease(record, 9)
        })
    };
    let mut fixture = Fixture::new();
    fixture.step(coordinated(held_by(OTHER, 0.0)));
    for _ in 0..10 {
        assert_eq!(fixture.wake().1, [Action::Read]);
        fixture.step(coordinated(held_by(OTHER, 0.0)));
    }
    let mut fixture = Fixture::new();
    fixture.step(coordinated(released(7)));
    assert_eq!(fixture.wake().1, [Action::Read]);
    let mut fixture = Fixture::new();
    let (_, version, record) = expect_update(&fixture.step(coordinated(held_by(ME, 0.0))));
    assert_eq!((version.as_str(), record.transitions), ("9", 8));
}
