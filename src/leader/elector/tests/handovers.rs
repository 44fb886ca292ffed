//! Leadership changes: by release, request, expiry, reclaim or loss.

use std::sync::Mutex;

use super::*;
use crate::metrics::Loop;

/// Count and sum of the acquire latency for a cause.
fn acquired(replica: &Replica, cause: &str) -> (f64, f64) {
    let series = |what: &str| {
        replica.metric(&format!(
            "serviceoffer_leader_acquire_latency_seconds_{what}{{cause=\"{cause}\"}} "
        ))
    };
    (series("count"), series("sum"))
}

#[tokio::test(start_paused = true)]
async fn standby_takes_over_as_soon_as_it_sees_the_release() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    leader.drains_when_asked().leave.cancel();
    server
        .until("leases", LEASE, |lease| holder(lease) == Some(""))
        .await;
    let released = last_change(&server);
    standby.becomes_leader().await;
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
        leader.exited().await,
        ElectorExit {
            exit: Exit::Clean,
            stalled: false
        }
    );
    assert_eq!(standby.transitions(), 2.0);
}

#[tokio::test(start_paused = true)]
async fn release_is_sent_after_the_fence_closes_and_before_the_exit() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let open = Arc::new(Mutex::new(Vec::new()));
    leader.link.on_request({
        let (open, fence) = (Arc::clone(&open), leader.fence.clone());
        move |call| {
            if call == "update leases" {
                open.lock().unwrap().push(!fence.remaining().is_zero());
            }
        }
    });
    // Longer than a renewal takes, shorter than the release budget.
    leader
        .link
        .fail("update leases", Fault::CommitLate(2 * SECOND));
    leader.drains_when_asked().leave.cancel();
    let exit = leader.exited().await.exit;
    let released = server
        .changes("leases")
        .into_iter()
        .find(|change| holder(Some(&change.object)) == Some(""));
    assert!(
        released.is_some_and(|released| released.at <= Instant::now()),
        "it exited before the release was stored"
    );
    assert_eq!((exit, &**open.lock().unwrap()), (Exit::Clean, &[false][..]));
    standby.becomes_leader().await;
}

#[tokio::test(start_paused = true)]
async fn unfinished_drain_keeps_the_lease_until_it_expires() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let (end, asked) = (leader.end_of_term(), Instant::now());
    leader.leave.cancel();
    assert_eq!(leader.exited().await.exit, Exit::Unreleased);
    assert_eq!(
        end.await.unwrap() - asked,
        25 * SECOND,
        "it led until the drain timed out"
    );
    assert_eq!(holder(server.get("leases", LEASE).as_ref()), Some("pod-a"));
    let renewed = last_change(&server);
    assert!(
        asked.elapsed() - renewed.elapsed() > 18 * SECOND,
        "it kept renewing"
    );
    standby.becomes_leader().await;
    assert!(renewed.elapsed() >= 30 * SECOND && renewed.elapsed() < 30 * SECOND + 2 * SLACK);
    let (count, seconds) = acquired(&standby, "expiry");
    assert!(count == 1.0 && seconds < 0.3, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn release_is_retried_after_a_conflict() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    leader.link.silence_watches();
    server.edit("leases", LEASE, |lease| {
        lease["metadata"]["labels"]["team"] = json!("a")
    });
    leader.drains_when_asked().leave.cancel();
    let begun = Instant::now();
    let link = leader.link.clone();
    assert_eq!(leader.exited().await.exit, Exit::Clean);
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
async fn release_is_retried_for_three_seconds() {
    for (fault, times, exit) in [
        (Fault::Status(503), 2, Exit::Clean),
        (Fault::ConnectionReset, 2, Exit::Clean),
        (Fault::Status(429), 2, Exit::Clean),
        (Fault::Status(503), usize::MAX, Exit::Unreleased),
        (Fault::Hang, usize::MAX, Exit::Unreleased),
    ] {
        let server = Server::start();
        let leader = Replica::start(&server, "pod-a");
        leader.becomes_leader().await;
        let end = leader.end_of_term();
        leader.link.fail_times(times, "update leases", fault);
        let begun = Instant::now();
        leader.drains_when_asked().leave.cancel();
        assert_eq!(leader.exited().await.exit, exit, "{fault:?} {times}");
        assert!(
            begun.elapsed() < 3 * SECOND + SLACK,
            "{fault:?}: {:?}",
            begun.elapsed()
        );
        assert!(
            end.await.unwrap() <= begun + SLACK,
            "{fault:?}: the fence closes even if the release fails"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn standby_that_leaves_exits_at_once_without_a_write() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let (asked, link) = (Instant::now(), standby.link.clone());
    standby.leave.cancel();
    assert_eq!(
        standby.exited().await,
        ElectorExit {
            exit: Exit::Clean,
            stalled: false
        }
    );
    assert_eq!(
        (asked.elapsed(), link.requests(asked)),
        (Duration::ZERO, Default::default())
    );
    assert!(leader.is_leading());
}

#[tokio::test(start_paused = true)]
async fn leader_that_sees_another_holder_stops_at_once_and_exits() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    // Publishing an event must not delay the exit.
    leader.link.fail("create events", Fault::Hang);
    leader.link.fail("patch events", Fault::Hang);
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
    assert_eq!(leader.exited().await.exit, Exit::Lost);
    assert!(taken.elapsed() <= SECOND + SLACK, "{:?}", taken.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leader_without_a_watch_finds_another_holder_at_its_renewal() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    leader.link.silence_watches();
    let end = leader.end_of_term();
    let taken = Instant::now();
    server.edit("leases", LEASE, |lease| {
        lease["spec"]["holderIdentity"] = json!("pod-z")
    });
    assert!(end.await.unwrap() - taken <= 6 * SECOND);
    assert_eq!(leader.exited().await.exit, Exit::Lost);
}

#[tokio::test(start_paused = true)]
async fn deleted_lease_closes_the_fence_and_is_waited_out() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let (end, renewed, deleted) = (leader.end_of_term(), last_change(&server), Instant::now());
    server.delete("leases", LEASE);
    assert!(end.await.unwrap() - deleted <= SECOND / 50);
    let next = tokio::select! { epoch = leader.becomes_leader() => epoch, epoch = standby.becomes_leader() => epoch };
    assert!(
        renewed.elapsed() >= 30 * SECOND && renewed.elapsed() < 31 * SECOND,
        "{:?}",
        renewed.elapsed()
    );
    assert_eq!(next.transitions, 1, "the transition counter continues");
    assert!(leader.is_leading() != standby.is_leading());
}

#[tokio::test(start_paused = true)]
async fn leader_steps_down_for_the_named_candidate() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let chosen = Replica::start(&server, "pod-c");
    sleep(SECOND).await;
    let asked = Instant::now();
    server.edit("leases", LEASE, |lease| {
        lease["metadata"]["annotations"]["obol.org/step-down"] = json!("pod-c")
    });
    leader.drains_when_asked();
    chosen.becomes_leader().await;
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert_eq!(
        leader.exited().await,
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
        "the request is removed with the new term"
    );
}

#[tokio::test(start_paused = true)]
async fn lease_reserved_for_an_absent_candidate_is_taken_after_2_s() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    server.edit("leases", LEASE, |lease| {
        lease["metadata"]["annotations"]["obol.org/step-down"] = json!("absent")
    });
    leader.drains_when_asked();
    server
        .until("leases", LEASE, |lease| holder(lease) == Some(""))
        .await;
    let released = Instant::now();
    standby.becomes_leader().await;
    assert!(
        released.elapsed() >= 2 * SECOND && released.elapsed() < 2 * SECOND + SLACK,
        "{:?}",
        released.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn stalled_leader_steps_down_at_any_retry_period() {
    for period in [1, 2, 5] {
        let server = Server::start();
        let health = Arc::new(Health::new(None));
        let leader = Replica::with(&server, "pod-a", |elector, _| {
            elector.config.retry_period = period * SECOND;
            elector.health = Arc::clone(&health);
        });
        leader.becomes_leader().await;
        sleep(20 * SECOND).await;
        assert!(leader.is_leading());
        leader.drains_when_asked();
        let end = leader.end_of_term();
        health.work_queued((Loop::Offer, None, "an offer".into()));
        sleep(600 * SECOND).await;
        assert!(!end.is_finished(), "a single reconcile may take long");
        let begun = Instant::now();
        assert_eq!(
            leader.exited().await,
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
async fn restarted_container_reclaims_its_lease_as_a_new_term() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let first = leader.epoch().unwrap();
    leader.crash();
    sleep(SECOND).await;
    let begun = Instant::now();
    let restarted = Replica::start(&server, "pod-a");
    let second = restarted.becomes_leader().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    assert!(first.version.precedes(&second.version) && second.transitions == first.transitions + 1);
    assert_eq!(acquired(&restarted, "reclaim").0, 1.0);
    sleep(SECOND).await;
    assert_eq!(
        standby.transitions(),
        2.0,
        "a standby counts a new term of the same holder"
    );
    assert_eq!(
        restarted.metric("serviceoffer_leader_epoch ").to_string(),
        second.version.0
    );
}

#[tokio::test(start_paused = true)]
async fn namesake_with_another_pod_uid_waits_for_expiry() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    leader.crash();
    let died = Instant::now();
    let namesake = Replica::with(&server, "pod-a", |elector, _| {
        elector.config.pod_uid = Some("uid of another pod".into())
    });
    namesake.becomes_leader().await;
    assert!(died.elapsed() >= 30 * SECOND, "{:?}", died.elapsed());
}

#[tokio::test(start_paused = true)]
async fn new_candidate_takes_a_released_lease_at_once_and_waits_else() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    leader.drains_when_asked().leave.cancel();
    leader.exited().await;
    sleep(600 * SECOND).await;
    let begun = Instant::now();
    let next = Replica::start(&server, "pod-b");
    next.becomes_leader().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    next.crash();
    sleep(600 * SECOND).await;
    // Only another machine's clock says that it was renewed long ago, so the full duration is
    // waited.
    let begun = Instant::now();
    let last = Replica::start(&server, "pod-c");
    last.becomes_leader().await;
    assert!(
        begun.elapsed() >= 30 * SECOND && begun.elapsed() < 30 * SECOND + 3 * SLACK,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn events_report_who_became_leader_and_who_stopped() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    sleep(SECOND).await;
    leader.drains_when_asked().leave.cancel();
    leader.exited().await;
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
