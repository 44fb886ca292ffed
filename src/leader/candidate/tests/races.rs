//! Takeovers whose writes race with others, are hedged, or lose their replies.

use super::*;

#[test]
fn repeated_conflict_without_a_change_backs_off() {
    let mut fixture = Fixture::new();
    fixture.now.jitter = Jitter(1 << 31);
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 9)));
    assert_eq!(fixture.step(Input::Conflict(write)), [Action::Read]);
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 9)));
    assert_eq!(fixture.step(Input::Conflict(write)), []);
    assert_eq!(fixture.wake(), (0.125, vec![Action::Read]));
    let (write, ..) = expect_update(&fixture.step(watched(released(8), 10)));
    assert_eq!(
        fixture.step(Input::Conflict(write)),
        [Action::Read],
        "a conflict after a change is not a repeated one"
    );
}

#[test]
fn conflict_after_an_unknown_outcome_is_read_at_once() {
    let mut fixture = Fixture::leading();
    fixture.now.jitter = Jitter(u32::MAX);
    let (first, ..) = expect_update(&fixture.wait().1);
    let (second, ..) = expect_update(&fixture.wait().1);
    assert_eq!(fixture.step(Input::OutcomeUnknown(first)), []);
    assert_eq!(fixture.step(Input::Conflict(second)), [Action::Read]);
}

#[test]
fn loser_of_a_takeover_race_follows_the_winner() {
    let mut fixture = Fixture::new();
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 9)));
    assert_eq!(fixture.step(Input::Conflict(write)), [Action::Read]);
    assert_eq!(
        fixture.step(watched(held_by(OTHER, 0.0), 10)),
        [Action::AnnounceLeader(OTHER.into())]
    );
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn takeover_with_a_lost_reply_continues_the_same_term() {
    let mut fixture = Fixture::new();
    let (first, _, record) = expect_update(&fixture.at(1.0).step(watched(released(7), 9)));
    assert_eq!(
        fixture.at(2.0).step(Input::OutcomeUnknown(first)),
        [Action::Read]
    );

    let foreign_pod = Lease {
        pod_uid: None,
        ..lease(record.clone(), 10)
    };
    let actions = fixture.at(2.5).step(Input::Watched(foreign_pod));
    let (second, version, again) = expect_update(&actions);
    assert_eq!(actions[0], Action::AnnounceLeader(ME.into()));
    assert_eq!(
        (version.as_str(), again.transitions, again.acquired),
        ("10", 8, record.acquired)
    );
    assert_eq!(again.renewed, Some(wall(2.5)));
    assert_eq!(
        fixture.step(Input::Written(second, lease(again, 11))),
        [opens(11, 8, 2.5)]
    );
}

#[test]
fn hedged_takeover_asks_for_the_same_term() {
    let mut fixture = Fixture::new();
    let (first, _, record) = expect_update(&fixture.step(watched(released(7), 9)));
    let (at, actions) = fixture.wait();
    let (second, version, again) = expect_update(&actions);
    assert_eq!((at, version.as_str(), &again), (3.0, "9", &record));
    // The first write was committed, so the second conflicts. The late reply to the first is only
    // news.
    assert_eq!(
        fixture.at(4.0).step(Input::Conflict(second)),
        [Action::Read]
    );
    assert_eq!(
        fixture.step(Input::Written(first, lease(record.clone(), 10)))[0],
        Action::AnnounceLeader(ME.into())
    );

    let mut fixture = Fixture::new();
    let (first, ..) = expect_update(&fixture.step(watched(released(7), 9)));
    let (second, ..) = expect_update(&fixture.wait().1);
    let actions = fixture.step(Input::Written(second, lease(record, 10)));
    assert_eq!(
        actions,
        [Action::AnnounceLeader(ME.into()), opens(10, 8, 3.0)]
    );
    assert_eq!(fixture.step(Input::Conflict(first)), []);
}

#[test]
fn takeover_that_another_candidate_won_is_abandoned() {
    let mut fixture = Fixture::new();
    let (write, ..) = expect_update(&fixture.step(watched(released(7), 9)));
    fixture.step(Input::OutcomeUnknown(write));
    assert_eq!(
        fixture.step(watched(held_by(OTHER, 0.0), 10)),
        [Action::AnnounceLeader(OTHER.into())]
    );
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn takeover_overtaken_before_its_reply_opens_nothing() {
    let mut fixture = Fixture::new();
    let (write, _, record) = expect_update(&fixture.step(watched(released(7), 9)));
    fixture.step(watched(held_by(OTHER, 0.0), 11));
    assert_eq!(fixture.step(Input::Written(write, lease(record, 10))), []);
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn takeover_released_by_others_is_retried_unless_stopped() {
    let released_since = |leaves: bool| {
        let mut fixture = Fixture::new();
        let (write, _, record) = expect_update(&fixture.step(watched(released(7), 9)));
        assert_eq!(fixture.step(watched(released(8), 11)), []);
        if leaves {
            assert_eq!(fixture.step(Input::Stop), []);
        }
        (
            fixture.step(Input::Written(write, lease(record, 10))),
            fixture,
        )
    };
    let (actions, fixture) = released_since(false);
    assert_eq!(
        (
            expect_update(&actions).1.as_str(),
            fixture.terms_begun.len()
        ),
        ("11", 0)
    );
    assert_eq!(released_since(true).0, [Action::Exit(Exit::Clean)]);
}

#[test]
fn reply_after_the_fence_end_opens_only_with_a_renewal() {
    let mut fixture = Fixture::new();
    let (write, record) = expect_create(fixture.step(absent()));
    fixture.at(27.0);
    let actions = fixture.step(Input::Written(write, lease(record, 1)));
    assert_eq!(actions[0], Action::AnnounceLeader(ME.into()));
    let (renewal, version, record) = expect_update(&actions);
    assert_eq!((version.as_str(), actions.len()), ("1", 2));
    assert_eq!(
        fixture
            .at(28.0)
            .step(Input::Written(renewal, lease(record, 2))),
        [opens(1, 0, 27.0)]
    );
}

#[test]
fn late_reply_to_an_abandoned_takeover_begins_no_term() {
    let mut fixture = Fixture::new();
    let (write, _, record) = expect_update(&fixture.step(watched(released(7), 9)));
    fixture.step(Input::OutcomeUnknown(write));
    fixture.step(watched(held_by(OTHER, 0.0), 11));
    assert_eq!(fixture.step(Input::Written(write, lease(record, 10))), []);
    assert_eq!(fixture.step(Input::OutcomeUnknown(write)), []);
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn takeover_is_not_hedged_on_a_lease_that_changed() {
    let overtaken = |input: Input| {
        let mut fixture = Fixture::new();
        expect_create(fixture.step(absent()));
        fixture.at(1.0).step(input);
        fixture.wait().0
    };
    assert_eq!(overtaken(watched(held_by(OTHER, 0.0), 9)), 31.0);

    // A reply from before the Lease was deleted begins no term.
    let mut fixture = Fixture::new();
    let (write, _, record) = expect_update(&fixture.step(watched(released(7), 8)));
    expect_create(fixture.at(1.0).step(absent()));
    fixture.step(Input::Written(write, lease(record, 9)));
    assert_eq!(fixture.terms_begun, []);

    // A terminated holder is waited out once its Lease was deleted.
    let mut fixture = Fixture::new();
    fixture.step(watched(held_by(OTHER, 0.0), 8));
    fixture
        .at(1.0)
        .step(Input::ContainerTerminated(OTHER_CONTAINER.into()));
    assert_eq!(fixture.at(2.0).step(absent()), []);
    assert_eq!(fixture.wait().0, 30.0);
}

#[test]
fn hedge_of_a_takeover_seen_to_succeed_renews_it() {
    let mut fixture = Fixture::new();
    let (first, record) = expect_create(fixture.step(absent()));
    assert_eq!(
        fixture.at(1.0).step(watched(record.clone(), 9)),
        [Action::AnnounceLeader(ME.into())]
    );
    let (at, actions) = fixture.wait();
    let (_, version, again) = expect_update(&actions);
    assert_eq!(
        (at, version.as_str(), again.acquired),
        (3.0, "9", record.acquired)
    );
    assert_eq!(
        again.renewed,
        Some(wall(3.0)),
        "other candidates must see a renewal, so that their wait restarts"
    );
    assert_eq!(
        fixture.step(Input::Written(first, lease(record, 9))),
        [opens(9, 0, 0.0)]
    );
}
