//! What is news of the Lease, and what is not.

use super::*;

#[test]
fn stale_watch_event_is_ignored() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 5.0), 10));
    assert_eq!(fixture.at(7.0).step(watched(released(7), 9)), []);
    assert_eq!(
        fixture.wake(),
        (8.0, vec![Action::Read]),
        "a lagging watch counts as a silent one"
    );
    fixture.step(watched(held_by(OTHER, 5.0), 10));
    assert_eq!(fixture.wait().0, 30.0);
    // Versions compare as numbers, not as text.
    assert!(ResourceVersion("9".into()).precedes(&ResourceVersion("10".into())));
    assert!(!ResourceVersion("10".into()).precedes(&ResourceVersion("10".into())));
    assert!(!ResourceVersion("20".into()).precedes(&ResourceVersion("10".into())));
}

#[test]
fn stale_event_does_not_revive_a_deleted_lease() {
    let gone = |version: &str| Input::Absent(AsOf::Version(ResourceVersion(version.into())));
    for (absence, newer) in [(gone("12"), 13), (absent(), 11)] {
        let mut fixture = Fixture::new();
        fixture.step(watched(held_by(OTHER, 5.0), 10));
        fixture.step(absence);
        assert_eq!(fixture.at(7.0).step(watched(held_by(OTHER, 5.0), 10)), []);
        let (at, actions) = fixture.wait();
        assert_eq!((at, expect_create(actions).1.holder.as_str()), (30.0, ME));
        fixture.step(watched(held_by(OTHER, 6.0), newer));
        assert_eq!(fixture.wait().0, 60.0);
    }
}

#[test]
fn rolled_back_store_is_believed_after_a_read() {
    for (gone_back_to, free) in [(released(7), 31.0), (held_by("pod-c", -60.0), 39.5)] {
        let mut fixture = Fixture::new();
        fixture.at(1.0).step(watched(held_by(OTHER, 0.0), 10));
        assert_eq!(
            fixture.at(2.0).step(watched(gone_back_to.clone(), 4)),
            [],
            "the watch may lag"
        );
        assert_eq!(fixture.wake(), (9.0, vec![Action::Read]));
        fixture.at(9.5).step(watched(gone_back_to, 4));
        let (at, actions) = fixture.wait();
        assert_eq!((at, expect_update(&actions).1.as_str()), (free, "4"));
    }
}

#[test]
fn read_overtaken_by_the_watch_is_ignored() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 10));
    assert_eq!(fixture.wake(), (8.0, vec![Action::Read]));
    let mut candidate = fixture.candidate.clone();
    let now = fixture.at(8.5).now;
    assert_eq!(
        candidate.step(Input::Watched(lease(held_by(OTHER, 8.2), 12)), now),
        []
    );
    assert_eq!(
        candidate.step(
            Input::Read(lease(held_by(OTHER, 8.1), 11), fixture.read_asked_at),
            now
        ),
        []
    );
    assert_eq!(
        candidate
            .observed
            .record()
            .map(|(record, _)| record.renewed),
        Some(Some(wall(8.2)))
    );
}

#[test]
fn leader_continues_on_a_rolled_back_store_it_led() {
    let mut fixture = Fixture::leading();
    let Observed::Present { lease: first, .. } = fixture.candidate.observed.clone() else {
        panic!("a leader knows its Lease")
    };
    renew_until(&mut fixture, 9.0);
    let (at, actions) = fixture.wait();
    assert_eq!(
        fixture.step(Input::Conflict(expect_update(&actions).0)),
        [Action::Read]
    );
    let actions = fixture.at(at + 0.1).step(Input::Watched(first));
    assert_eq!(expect_update(&actions).1, "1");
}

#[test]
fn recreated_lease_with_an_equal_record_restarts_the_wait() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 1));
    let recreated = Lease {
        uid: "lease-2".into(),
        ..lease(held_by(OTHER, 0.0), 2)
    };
    assert_eq!(fixture.at(10.0).step(Input::Watched(recreated)), []);
    assert_eq!(fixture.wait().0, 40.0);
}

#[test]
fn holder_that_returns_after_a_release_is_announced_again() {
    let mut fixture = Fixture::new();
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 1)));
    fixture.step(Input::Conflict(write));
    assert_eq!(
        fixture.step(watched(held_by(OTHER, 1.0), 2)),
        [Action::AnnounceLeader(OTHER.into())]
    );
    assert_eq!(fixture.step(watched(held_by(OTHER, 2.0), 3)), []);
    let (write, ..) = expect_update(&fixture.step(watched(released(8), 4)));
    fixture.step(Input::Conflict(write));
    assert_eq!(
        fixture.step(watched(held_by(OTHER, 4.0), 5)),
        [Action::AnnounceLeader(OTHER.into())]
    );
}

#[test]
fn termination_of_another_container_shortens_no_wait() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 8));
    assert_eq!(
        fixture.at(1.0).step(Input::ContainerTerminated(
            "an earlier container of pod-b".into()
        )),
        []
    );
    assert_eq!(fixture.wait().0, 30.0);

    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 8));
    let (write, ..) = expect_update(
        &fixture
            .at(1.0)
            .step(Input::ContainerTerminated(OTHER_CONTAINER.into())),
    );
    assert_eq!(fixture.step(Input::Conflict(write)), [Action::Read]);
    fixture.step(Input::ContainerTerminated("an-earlier-container".into()));
    assert_eq!(
        expect_update(&fixture.step(watched(held_by(OTHER, 0.0), 9))).1,
        "9",
        "only a label had changed"
    );

    let mut fixture = Fixture::new();
    fixture.step(Input::ContainerTerminated(OTHER_CONTAINER.into()));
    assert_eq!(
        fixture.step(Input::Watched(Lease {
            instance: None,
            ..lease(held_by("go-1", 0.0), 8)
        }))[1..],
        []
    );
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn erased_or_shortened_holder_is_waited_out_as_last_seen() {
    let erased = LeaseRecord {
        holder: String::new(),
        ..held_by(OTHER, 0.0)
    };
    let shortened = LeaseRecord {
        duration: Duration::from_secs(1),
        ..held_by(OTHER, 0.0)
    };
    let renamed = LeaseRecord {
        holder: "pod-x".into(),
        duration: Duration::from_secs(1),
        ..held_by(OTHER, 0.0)
    };
    for (edited, announced) in [(erased.clone(), 0), (shortened, 0), (renamed, 1)] {
        let mut fixture = Fixture::new();
        fixture.step(watched(held_by(OTHER, 0.0), 8));
        assert_eq!(fixture.at(2.0).step(watched(edited, 9)).len(), announced);
        let (at, _) = fixture.wait();
        assert!((30.0..30.02).contains(&at), "{at}");
    }
    let mut fixture = Fixture::new();
    assert_eq!(fixture.at(1.0).step(watched(erased, 8)), []);
    assert_eq!(
        fixture.wait().0,
        31.0,
        "no holder was seen, and yet one may act"
    );
}

#[test]
fn stale_absence_is_ignored() {
    let absent_as_of =
        |version: &str| Input::Absent(AsOf::Version(ResourceVersion(version.into())));
    let mut fixture = Fixture::new();
    let (write, record) = expect_create(fixture.step(absent()));
    fixture.step(Input::Written(write, lease(record, 20)));
    assert_eq!(fixture.step(absent_as_of("9")), []);
    assert_eq!(fixture.step(absent_as_of("21")), [Action::CloseFence]);
}

#[test]
fn absence_requested_before_the_lease_was_seen_is_reread() {
    let asked = |seconds: f64| Input::Absent(AsOf::Asked(moment(seconds)));
    let mut fixture = Fixture::new();
    let (write, record) = expect_create(fixture.at(0.5).step(asked(0.1)));
    fixture
        .at(1.0)
        .step(Input::Written(write, lease(record, 20)));
    for seconds in [0.2, 1.0] {
        assert_eq!(
            fixture.step(asked(seconds)),
            [Action::Read],
            "the read had been in flight since {seconds} s"
        );
    }
    assert_eq!(fixture.step(asked(1.5)), [Action::CloseFence]);
}

#[test]
fn follower_reads_only_when_the_watch_is_silent() {
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 1));
    for second in [5.0, 10.0, 15.0] {
        assert_eq!(
            fixture
                .at(second)
                .step(watched(held_by(OTHER, second), 1 + second as u64)),
            []
        );
    }
    assert_eq!(fixture.wake(), (23.0, vec![Action::Read]));
    assert_eq!(
        fixture.candidate.next_wake(),
        Some(moment(45.0)),
        "one read at a time"
    );
    fixture.now.jitter = Jitter(1 << 31);
    assert_eq!(fixture.at(24.0).step(Input::ReadFailed), []);
    assert_eq!(fixture.wake(), (24.125, vec![Action::Read]));
    fixture.at(25.0).step(watched(held_by(OTHER, 20.0), 30));
    assert_eq!(fixture.wake().0, 33.0);
}
