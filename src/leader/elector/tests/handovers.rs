//! Leadership passes on: given back, asked for, run out, reclaimed, or lost.

use std::sync::Mutex;

use super::*;
use crate::metrics::Loop;

/// What is told of a takeover.
fn acquired(replica: &Replica, cause: &str) -> (f64, f64) {
    let series = |what: &str| {
        replica.metric(&format!(
            "serviceoffer_leader_acquire_latency_seconds_{what}{{cause=\"{cause}\"}} "
        ))
    };
    (series("count"), series("sum"))
}

#[tokio::test(start_paused = true)]
async fn the_next_candidate_writes_as_soon_as_it_sees_the_release() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    leader.rests_when_asked().leave.cancel();
    server
        .until("leases", LEASE, |lease| holder(lease) == Some(""))
        .await;
    let released = last_change(&server);
    standby.leads().await;
    assert!(
        released.elapsed() < 50 * SECOND / 1000,
        "{:?}",
        released.elapsed()
    );
    let write = standby.link.calls("update leases")[0];
    assert!(write - released <= SECOND / 1000, "{:?}", write - released);
    let (count, seconds) = acquired(&standby, "release");
    assert!(count == 1.0 && seconds > 0.0 && seconds < 0.05, "{seconds}");
    assert_eq!(
        leader.departs().await,
        ElectorExit {
            exit: Exit::Clean,
            stalled: false
        }
    );
    assert_eq!(standby.transitions(), 2.0);
}

#[tokio::test(start_paused = true)]
async fn the_fence_is_closed_before_the_release_leaves_and_the_process_ends_after_it_landed() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let open = Arc::new(Mutex::new(Vec::new()));
    leader.link.shows({
        let (open, fence) = (Arc::clone(&open), leader.fence.clone());
        move |call| {
            if call == "update leases" {
                open.lock().unwrap().push(!fence.remaining().is_zero());
            }
        }
    });
    // Longer than a renewal and shorter than the patience with a release.
    leader
        .link
        .breaks("update leases", Fault::CommitLate(2 * SECOND));
    leader.rests_when_asked().leave.cancel();
    let exit = leader.departs().await.exit;
    let released = server
        .changes("leases")
        .into_iter()
        .find(|change| holder(Some(&change.object)) == Some(""));
    assert!(
        released.is_some_and(|released| released.at <= Instant::now()),
        "it ended before it had released"
    );
    assert_eq!((exit, &**open.lock().unwrap()), (Exit::Clean, &[false][..]));
    standby.leads().await;
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_come_to_rest_keeps_its_lease_until_it_runs_out() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let (end, asked) = (leader.end_of_term(), Instant::now());
    leader.leave.cancel();
    assert_eq!(leader.departs().await.exit, Exit::Unreleased);
    assert_eq!(
        end.await.unwrap() - asked,
        25 * SECOND,
        "it led for as long as the work might need it"
    );
    assert_eq!(holder(server.get("leases", LEASE).as_ref()), Some("pod-a"));
    let renewed = last_change(&server);
    assert!(
        asked.elapsed() - renewed.elapsed() > 18 * SECOND,
        "it went on renewing"
    );
    standby.leads().await;
    assert!(renewed.elapsed() >= 30 * SECOND && renewed.elapsed() < 30 * SECOND + 2 * SLACK);
    let (count, seconds) = acquired(&standby, "expiry");
    assert!(count == 1.0 && seconds < 0.3, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_meets_a_conflict_is_repeated() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    leader.link.silences_watches();
    server.edit("leases", LEASE, |lease| {
        lease["metadata"]["labels"]["team"] = json!("a")
    });
    leader.rests_when_asked().leave.cancel();
    let begun = Instant::now();
    let link = leader.link.clone();
    assert_eq!(leader.departs().await.exit, Exit::Clean);
    let lease = server.get("leases", LEASE).unwrap();
    assert_eq!(
        (holder(Some(&lease)), &lease["metadata"]["labels"]["team"]),
        (Some(""), &json!("a"))
    );
    assert_eq!(
        link.calls("update leases")
            .into_iter()
            .filter(|at| *at >= begun)
            .count(),
        2
    );
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_release_outlasts_refusals_and_is_given_up_after_three_seconds() {
    for (fault, times, exit) in [
        (Fault::Status(503), 2, Exit::Clean),
        (Fault::Broken, 2, Exit::Clean),
        (Fault::Status(429), 2, Exit::Clean),
        (Fault::Status(503), usize::MAX, Exit::Unreleased),
        (Fault::Hang, usize::MAX, Exit::Unreleased),
    ] {
        let server = Server::start();
        let leader = Replica::start(&server, "pod-a");
        leader.leads().await;
        let end = leader.end_of_term();
        leader.link.breaks_times(times, "update leases", fault);
        let begun = Instant::now();
        leader.rests_when_asked().leave.cancel();
        assert_eq!(leader.departs().await.exit, exit, "{fault:?} {times}");
        assert!(
            begun.elapsed() < 3 * SECOND + SLACK,
            "{fault:?}: {:?}",
            begun.elapsed()
        );
        assert!(
            end.await.unwrap() <= begun + SLACK,
            "{fault:?}: whatever becomes of the release, the fence is closed"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_asked_to_leave_ends_at_once_and_writes_nothing() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let (asked, link) = (Instant::now(), standby.link.clone());
    standby.leave.cancel();
    assert_eq!(
        standby.departs().await,
        ElectorExit {
            exit: Exit::Clean,
            stalled: false
        }
    );
    assert_eq!(
        (asked.elapsed(), link.tally(asked)),
        (Duration::ZERO, Default::default())
    );
    assert!(leader.is_leading());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_sees_another_holder_stops_at_once_and_ends() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    // Telling people about it must not hold up the end.
    leader.link.breaks("create events", Fault::Hang);
    leader.link.breaks("patch events", Fault::Hang);
    let end = leader.end_of_term();
    let taken = Instant::now();
    server.edit("leases", LEASE, |lease| {
        lease["spec"]["holderIdentity"] = json!("pod-z")
    });
    assert!(end.await.unwrap() - taken <= SECOND / 1000);
    assert_eq!(
        leader.metric("leader_election_master_status{name=\"controller\"} "),
        0.0
    );
    assert_eq!(leader.departs().await.exit, Exit::Lost);
    assert!(taken.elapsed() <= SECOND + SLACK, "{:?}", taken.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_watch_is_silent_finds_another_holder_with_its_next_renewal() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    leader.link.silences_watches();
    let end = leader.end_of_term();
    let taken = Instant::now();
    server.edit("leases", LEASE, |lease| {
        lease["spec"]["holderIdentity"] = json!("pod-z")
    });
    assert!(end.await.unwrap() - taken <= 6 * SECOND);
    assert_eq!(leader.departs().await.exit, Exit::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_closes_the_fence_and_nobody_leads_before_it_would_have_run_out() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let (end, renewed, deleted) = (leader.end_of_term(), last_change(&server), Instant::now());
    server.delete("leases", LEASE);
    assert!(end.await.unwrap() - deleted <= SECOND / 50);
    let next = tokio::select! { epoch = leader.leads() => epoch, epoch = standby.leads() => epoch };
    assert!(
        renewed.elapsed() >= 30 * SECOND && renewed.elapsed() < 31 * SECOND,
        "{:?}",
        renewed.elapsed()
    );
    assert_eq!(next.transitions, 1, "the counter goes on");
    assert!(leader.is_leading() != standby.is_leading());
}

#[tokio::test(start_paused = true)]
async fn a_leader_makes_room_for_whom_it_is_asked_to() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let chosen = Replica::start(&server, "pod-c");
    sleep(SECOND).await;
    let asked = Instant::now();
    server.edit("leases", LEASE, |lease| {
        lease["metadata"]["annotations"]["obol.org/step-down"] = json!("pod-c")
    });
    leader.rests_when_asked();
    chosen.leads().await;
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert_eq!(
        leader.departs().await,
        ElectorExit {
            exit: Exit::Clean,
            stalled: false
        }
    );
    sleep(10 * SECOND).await;
    assert!(chosen.is_leading() && !standby.is_leading());
    let lease = server.get("leases", LEASE).unwrap();
    assert_eq!(
        lease["metadata"]["annotations"]["obol.org/step-down"],
        Value::Null,
        "it is asked once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_left_to_a_candidate_that_never_comes_is_taken_two_seconds_later() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    server.edit("leases", LEASE, |lease| {
        lease["metadata"]["annotations"]["obol.org/step-down"] = json!("nobody")
    });
    leader.rests_when_asked();
    server
        .until("leases", LEASE, |lease| holder(lease) == Some(""))
        .await;
    let released = Instant::now();
    standby.leads().await;
    assert!(
        released.elapsed() >= 2 * SECOND && released.elapsed() < 2 * SECOND + SLACK,
        "{:?}",
        released.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_loops_stand_still_makes_room_however_short_its_period() {
    for period in [1, 2, 5] {
        let server = Server::start();
        let health = Arc::new(Health::new(None));
        let leader = Replica::with(&server, "pod-a", |elector, _| {
            elector.config.retry_period = period * SECOND;
            elector.health = Arc::clone(&health);
        });
        leader.leads().await;
        sleep(20 * SECOND).await;
        assert!(leader.is_leading());
        leader.rests_when_asked();
        let end = leader.end_of_term();
        health.work_queued((Loop::Offer, None, "an offer".into()));
        sleep(600 * SECOND).await;
        assert!(!end.is_finished(), "a turn may take long");
        let begun = Instant::now();
        assert_eq!(
            leader.departs().await,
            ElectorExit {
                exit: Exit::Clean,
                stalled: true
            }
        );
        assert!(
            begun.elapsed() < 6 * SECOND,
            "{period}: {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_container_reclaims_the_lease_of_its_pod_at_once_as_another_term() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let first = leader.epoch().unwrap();
    leader.dies();
    sleep(SECOND).await;
    let begun = Instant::now();
    let restarted = Replica::start(&server, "pod-a");
    let second = restarted.leads().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    assert!(first.version.precedes(&second.version) && second.transitions == first.transitions + 1);
    assert_eq!(acquired(&restarted, "reclaim").0, 1.0);
    sleep(SECOND).await;
    assert_eq!(
        standby.transitions(),
        2.0,
        "a standby sees the term of the same name begin"
    );
    assert_eq!(
        restarted.metric("serviceoffer_leader_epoch ").to_string(),
        second.version.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_stranger_of_the_same_name_waits_like_anybody_else() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    leader.dies();
    let died = Instant::now();
    let stranger = Replica::with(&server, "pod-a", |elector, _| {
        elector.config.pod_uid = Some("uid of another pod".into())
    });
    stranger.leads().await;
    assert!(died.elapsed() >= 30 * SECOND, "{:?}", died.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_starts_on_a_released_lease_leads_at_once_and_on_a_silent_one_after_its_duration()
 {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    leader.rests_when_asked().leave.cancel();
    leader.departs().await;
    sleep(600 * SECOND).await;
    let begun = Instant::now();
    let next = Replica::start(&server, "pod-b");
    next.leads().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    next.dies();
    sleep(600 * SECOND).await;
    // That it has not been renewed for long is said by the clock of another machine alone.
    let begun = Instant::now();
    let last = Replica::start(&server, "pod-c");
    last.leads().await;
    assert!(
        begun.elapsed() >= 30 * SECOND && begun.elapsed() < 30 * SECOND + 3 * SLACK,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn people_are_told_who_began_to_lead_and_who_stopped() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    sleep(SECOND).await;
    leader.rests_when_asked().leave.cancel();
    leader.departs().await;
    let changes = server.changes("events");
    let notes: Vec<_> = changes
        .iter()
        .map(|change| change.object["note"].as_str().unwrap())
        .collect();
    assert_eq!(notes, ["pod-a became leader", "pod-a stopped leading"]);
    assert!(
        changes
            .iter()
            .all(|change| change.object["reason"] == "LeaderElection")
    );
    assert!(
        changes
            .iter()
            .all(|change| change.object["regarding"]["name"] == LEASE)
    );
}
