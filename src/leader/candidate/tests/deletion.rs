//! Leases that are deleted under their holders, and the marks that protect against their leaders.

use super::*;

#[test]
fn lease_deleted_under_its_leader_is_waited_out() {
    let mut fixture = Fixture::leading();
    assert_eq!(fixture.at(3.0).step(absent()), [Action::CloseFence]);
    let (at, actions) = fixture.wait();
    assert_eq!(at, 30.0);
    let (write, record) = expect_create(actions);
    assert_eq!((record.transitions, record.acquired), (1, Some(wall(30.0))));
    let recreated = Lease {
        uid: "lease-2".into(),
        ..lease(record, 9)
    };
    let actions = fixture.step(Input::Written(write, recreated));
    let term = Epoch {
        lease_uid: "lease-2".into(),
        ..epoch(9, 1)
    };
    let Action::OpenFence {
        soft_end,
        hard_end,
        wall_end,
        ..
    } = opens(9, 1, 30.0)
    else {
        unreachable!()
    };
    assert_eq!(
        actions,
        [
            Action::AnnounceLeader(ME.into()),
            Action::OpenFence {
                epoch: term,
                soft_end,
                hard_end,
                wall_end
            }
        ],
        "a Lease created again begins a new term"
    );
}

#[test]
fn renewal_in_flight_across_a_deletion_counts_for_nothing() {
    let mut fixture = Fixture::leading();
    let (write, ..) = expect_update(&fixture.wait().1);
    fixture.step(absent());
    assert_eq!(fixture.step(Input::Conflict(write)), []);
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn deleted_lease_is_created_once_its_holder_has_expired() {
    let mut fixture = Fixture::new();
    fixture.at(1.0).step(watched(held_by(OTHER, 0.0), 5));
    assert_eq!(fixture.at(2.0).step(absent()), []);
    assert_eq!(
        fixture.at(3.0).step(absent()),
        [],
        "a repeated absence is no news"
    );
    let (at, actions) = fixture.wait();
    assert_eq!((at, expect_create(actions).1.transitions), (31.0, 8));
}

#[test]
fn released_and_deleted_lease_is_created_at_once() {
    let mut fixture = Fixture::new();
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 5)));
    fixture.step(Input::Conflict(write));
    assert_eq!(expect_create(fixture.step(absent())).1.transitions, 8);
}

#[test]
fn lease_recreated_by_another_still_waits_for_the_first_holder() {
    for through_absence in [true, false] {
        let mut fixture = Fixture::new();
        fixture.at(1.0).step(watched(held_by(OTHER, 0.0), 5));
        if through_absence {
            fixture.at(2.0).step(absent());
        }
        let recreated = Lease {
            uid: "lease-2".into(),
            ..lease(held_by("pod-c", 2.0), 7)
        };
        fixture.at(3.0).step(Input::Watched(recreated));
        let given_back = Lease {
            uid: "lease-2".into(),
            ..lease(released(0), 8)
        };
        assert_eq!(fixture.at(4.0).step(Input::Watched(given_back)), []);
        assert_eq!(fixture.wait().0, 31.0);
    }
}

/// A leader of a Lease that it created at 1 s, whose Pod is being marked.
fn awaiting_mark() -> (Fixture, LeaseRecord) {
    let mut fixture = Fixture::with(|config| config.marks = true);
    let (write, record) = expect_create(fixture.at(1.0).step(absent()));
    fixture.step(Input::Written(write, lease(record.clone(), 1)));
    (fixture, record)
}

#[test]
fn rival_of_a_deleted_lease_is_waited_out() {
    let (mut fixture, _) = awaiting_mark();
    assert_eq!(fixture.at(2.0).step(marked_with_rival("lease-0")), []);
    let actions = renew_until(&mut fixture, 27.0);
    let looks = [Action::MarkPod("lease-1".into())];
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
        "rivals are checked again with each renewal: {actions:?}"
    );
    let (at, actions) = fixture.wake();
    assert_eq!(
        at, 31.0,
        "a lease duration after the other Lease was known to be gone"
    );
    let (write, _, record) = expect_update(&actions);
    assert_eq!(fixture.terms_begun, []);
    let opened = fixture.step(Input::Written(write, lease(record, 20)));
    assert!(
        matches!(opened[..], [Action::OpenFence { .. }]),
        "nothing is left to look at: {opened:?}"
    );
    assert_eq!(
        fixture.terms_begun,
        [(TakeoverCause::Creation, Duration::from_secs(30))]
    );
}

#[test]
fn fence_opens_once_the_rival_has_ended() {
    let (mut fixture, _) = awaiting_mark();
    fixture.at(2.0).step(marked_with_rival("lease-0"));
    let actions = renew_until(&mut fixture, 5.0);
    assert_eq!(actions, [Action::MarkPod("lease-1".into())]);
    let opened = fixture.step(MARKED);
    assert!(
        matches!(opened[..], [Action::OpenFence { .. }]),
        "{opened:?}"
    );
    assert_eq!(
        fixture.step(marked_with_rival("lease-0")),
        [],
        "an open fence is not closed for a rival"
    );
}

#[test]
fn rival_wait_counts_from_the_first_sight_of_the_lease() {
    // Between two reads of an absent Lease, another candidate may have created one, led under it,
    // and lost it.
    let mut fixture = Fixture::with(|config| config.marks = true);
    let (write, _) = expect_create(fixture.at(1.0).step(absent()));
    assert_eq!(
        fixture.at(2.0).step(Input::OutcomeUnknown(write)),
        [Action::Read]
    );
    let (write, record) = expect_create(fixture.at(22.0).step(absent()));
    fixture
        .at(23.0)
        .step(Input::Written(write, lease(record, 9)));
    fixture.step(marked_with_rival("lease-0"));
    renew_until(&mut fixture, 45.0);
    assert_eq!(fixture.wake().0, 53.0);

    let mut fixture = Fixture::with(|config| config.marks = true);
    let (write, _) = expect_create(fixture.at(1.0).step(absent()));
    assert_eq!(fixture.at(2.0).step(Input::Conflict(write)), [Action::Read]);
    let (write, _, record) = expect_update(&fixture.step(watched(released(0), 3)));
    fixture
        .at(3.0)
        .step(Input::Written(write, lease(record, 4)));
    fixture.step(marked_with_rival("lease-0"));
    renew_until(&mut fixture, 29.0);
    assert_eq!(fixture.wake().0, 32.0);
}

#[test]
fn rival_of_a_known_lease_is_waited_out_from_its_deletion() {
    let first = || {
        Input::Watched(Lease {
            uid: "lease-0".into(),
            ..lease(held_by(OTHER, 0.0), 5)
        })
    };
    let mut fixture = Fixture::with(|config| config.marks = true);
    fixture.step(first());
    fixture.at(20.0).step(absent());
    let (at, actions) = fixture.wait();
    assert_eq!(at, 30.0, "the holder is waited out as last seen");
    let (write, record) = expect_create(actions);
    fixture.step(Input::Written(write, lease(record, 9)));
    fixture.step(marked_with_rival("lease-0"));
    renew_until(&mut fixture, 45.0);
    assert_eq!(
        fixture.wake().0,
        50.0,
        "the rival may have renewed unseen until its Lease was deleted"
    );

    // A Lease with another uid shows as well that the one before is gone.
    let mut fixture = Fixture::with(|config| config.marks = true);
    fixture.step(first());
    assert_eq!(fixture.at(10.0).step(watched(released(0), 7)), []);
    let (write, _, record) = expect_update(&fixture.wait().1);
    fixture.step(Input::Written(write, lease(record, 9)));
    fixture.step(marked_with_rival("lease-0"));
    renew_until(&mut fixture, 35.0);
    assert_eq!(fixture.wake().0, 40.0);
}

#[test]
fn rival_of_an_unknown_lease_is_waited_out_from_the_first_sight_of_this_one() {
    let mut fixture = Fixture::with(|config| config.marks = true);
    fixture.step(Input::Watched(Lease {
        uid: "lease-0".into(),
        ..lease(held_by(OTHER, 0.0), 5)
    }));
    fixture.at(20.0).step(absent());
    let (write, record) = expect_create(fixture.wait().1);
    fixture.step(Input::Written(write, lease(record, 9)));
    fixture.step(marked_with_rival("lease-9"));
    renew_until(&mut fixture, 55.0);
    assert_eq!(fixture.wake().0, 60.0, "its deletion was never seen");
}

#[test]
fn leader_marks_its_pod_before_its_fence_opens() {
    let mut fixture = Fixture::with(|config| config.marks = true);
    let (write, record) = expect_create(fixture.step(absent()));
    let actions = fixture.step(Input::Written(write, lease(record, 1)));
    assert_eq!(
        actions,
        [
            Action::AnnounceLeader(ME.into()),
            Action::MarkPod("lease-1".into())
        ]
    );
    assert_eq!(fixture.at(0.25).step(MARKED), [opens(1, 0, 0.0)]);
    assert_eq!(
        fixture.terms_begun,
        [(TakeoverCause::Creation, Duration::from_millis(250))]
    );
    assert_eq!(fixture.step(MARKED), []);

    // A renewal that overtakes the mark opens nothing.
    let (mut fixture, _) = awaiting_mark();
    let (write, _, record) = expect_update(&fixture.wait().1);
    assert_eq!(fixture.step(Input::Written(write, lease(record, 2))), []);
    assert_eq!(fixture.at(6.0).step(MARKED), [opens(1, 0, 5.5)]);
}
