//! Leadership is kept through every error of the API server, unanswered requests and outages.

use super::*;

/// Every error status that an API server is known to return.
const CODES: [u16; 8] = [403, 404, 409, 410, 429, 500, 503, 504];

#[tokio::test(start_paused = true)]
async fn one_slow_call_never_loses_leadership() {
    let late = 15 * SECOND;
    for fault in [
        Fault::AnswerLate(late),
        Fault::CommitLate(late),
        Fault::Hang,
        Fault::HangAfterCommit,
        Fault::ConnectionReset,
        Fault::Busy(3600),
    ] {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.becomes_leader().await;
        let end = replica.end_of_term();
        replica.link.fail_times(1, "update leases", fault);
        sleep(60 * SECOND).await;
        assert!(!end.is_finished(), "{fault:?}");
        assert_eq!(replica.epoch(), Some(epoch), "{fault:?}");
        assert!(
            last_change(&server).elapsed() < 6 * SECOND,
            "{fault:?}: renewals continued"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn leader_survives_every_error_status_on_renewals() {
    for code in CODES {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.becomes_leader().await;
        let end = replica.end_of_term();
        replica
            .link
            .fail_times(4, "update leases", Fault::Status(code));
        sleep(60 * SECOND).await;
        assert!(!end.is_finished(), "{code}");
        assert_eq!(replica.epoch(), Some(epoch), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn candidate_survives_every_error_status_while_acquiring() {
    for code in CODES {
        for call in [
            "get leases",
            "list leases",
            "watch leases",
            "create leases",
            "list pods",
            "patch pods",
            "create events",
        ] {
            let server = Server::start();
            let replica = Replica::with(&server, "pod-a", |_, link| {
                link.fail_times(2, call, Fault::Status(code))
            });
            let lead = timeout(5 * SECOND, replica.becomes_leader()).await;
            // It is unknown whether another replica leads by a deleted Lease, so one lease duration
            // is waited.
            let unsure = call == "list pods" && code != 403;
            assert!(lead.is_ok() || unsure, "{code} {call}");
            replica.becomes_leader().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conflict_with_its_own_unanswered_write_makes_it_leader() {
    let server = Server::start();
    for (name, call) in [("pod-a", "create leases"), ("pod-b", "update leases")] {
        let begun = Instant::now();
        let replica = Replica::with(&server, name, |elector, link| {
            // Neither the watch nor the Pod uid may give the answer.
            elector.config.pod_uid = None;
            link.fail("list leases", Fault::Hang);
            link.fail_times(1, call, Fault::HangAfterCommit);
        });
        let epoch = replica.becomes_leader().await;
        assert!(
            begun.elapsed() < 3 * SECOND + SLACK,
            "{call}: {:?}",
            begun.elapsed()
        );
        let terms: Vec<_> = server
            .changes("leases")
            .iter()
            .map(|change| term(&change.object))
            .collect();
        assert_eq!(
            terms.iter().filter(|(holder, ..)| holder == name).count(),
            2,
            "{terms:?}"
        );
        assert_eq!(
            terms[terms.len() - 1],
            terms[terms.len() - 2],
            "it continued the term that it had begun"
        );
        assert_eq!(
            epoch.version.0,
            server.get("leases", LEASE).unwrap()["metadata"]["resourceVersion"]
        );
        replica.drains_when_asked().leave.cancel();
        assert_eq!(replica.exited().await.exit, Exit::Clean);
    }
}

fn term(lease: &Value) -> (String, Value, Value) {
    let spec = &lease["spec"];
    (
        spec["holderIdentity"].as_str().unwrap().into(),
        spec["acquireTime"].clone(),
        spec["leaseTransitions"].clone(),
    )
}

#[tokio::test(start_paused = true)]
async fn conflict_with_its_own_unanswered_renewal_is_harmless() {
    let server = Server::start();
    let replica = Replica::start(&server, "pod-a");
    let epoch = replica.becomes_leader().await;
    let end = replica.end_of_term();
    // The watch would report the renewal before the conflict does.
    replica.link.silence_watches();
    replica
        .link
        .fail_times(1, "update leases", Fault::HangAfterCommit);
    sleep(10 * SECOND).await;
    assert!(!end.is_finished());
    assert_eq!(replica.epoch(), Some(epoch));
    assert_eq!(
        replica.metric("leader_election_slowpath_total{name=\"controller\"} "),
        1.0
    );
    assert_eq!(
        replica.metric("serviceoffer_leader_renew_errors_total{reason=\"Conflict\"} "),
        1.0
    );
    assert_eq!(replica.transitions(), 1.0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_an_hour_does_not_delay_renewals() {
    let server = Server::start();
    let replica = Replica::start(&server, "pod-a");
    replica.becomes_leader().await;
    let end = replica.end_of_term();
    replica.link.fail("update leases", Fault::Busy(3600));
    sleep(15 * SECOND).await;
    let refused = replica.link.calls("update leases");
    replica.link.clear_faults();
    sleep(3 * SECOND).await;
    assert!(!end.is_finished() && last_change(&server).elapsed() < 3 * SECOND);
    assert!(
        refused
            .windows(2)
            .all(|pair| pair[1] - pair[0] <= 2 * SECOND + SLACK),
        "{refused:?}"
    );
    assert!(
        (5..60).contains(&refused.len()),
        "it neither gives up nor floods the server: {}",
        refused.len()
    );
}

#[tokio::test(start_paused = true)]
async fn repeated_conflicts_back_off() {
    let server = Server::start();
    let replica = Replica::start(&server, "pod-a");
    replica.becomes_leader().await;
    replica.link.fail("update leases", Fault::Status(409));
    let begun = Instant::now();
    sleep(20 * SECOND).await;
    let requests = replica.link.requests(begun);
    assert!((5..60).contains(&requests["update leases"]), "{requests:?}");
}

/// Waits for a renewal, then cuts the leader off for a while. Returns when that renewal arrived.
async fn outage(server: &Server, replica: &Replica, fault: Fault, lasts: Duration) -> Instant {
    let renewed = replica.link.calls("update leases").len();
    while replica.link.calls("update leases").len() == renewed {
        sleep(SECOND / 1000).await;
    }
    sleep(4 * HOP).await;
    let last = *replica.link.calls("update leases").last().unwrap();
    assert_eq!(last_change(server), last + HOP);
    replica.link.partition(fault);
    sleep(lasts - last.elapsed()).await;
    replica.link.clear_faults();
    last
}

#[tokio::test(start_paused = true)]
async fn outage_shorter_than_the_fence_changes_nothing() {
    for (fault, seconds) in [
        Fault::ConnectionReset,
        Fault::Hang,
        Fault::Status(503),
        Fault::Busy(60),
    ]
    .into_iter()
    .flat_map(|fault| [(fault, 10), (fault, 24)])
    {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.becomes_leader().await;
        let end = replica.end_of_term();
        outage(&server, &replica, fault, seconds * SECOND).await;
        sleep(60 * SECOND).await;
        assert!(!end.is_finished(), "{fault:?} {seconds}");
        assert_eq!(replica.epoch(), Some(epoch), "{fault:?} {seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn outage_closes_the_fence_in_time_and_the_term_resumes() {
    let soon = 3 * SECOND;
    for (fault, seconds, recovery) in [
        (Fault::ConnectionReset, 25, soon),
        (Fault::ConnectionReset, 40, soon),
        (Fault::ConnectionReset, 55, soon),
        (Fault::Status(503), 25, soon),
        (Fault::Status(503), 40, soon),
        (Fault::Status(503), 55, soon),
        // A write that is sent just before the end of the outage is never answered. The next one may be
        // sent when the budget of the hedge that is three seconds younger than the first write ends.
        (Fault::Hang, 25, 5 * SECOND),
        // All three writes in flight are never answered, so recovery waits for the write budget.
        (Fault::Hang, 40, 20 * SECOND),
    ] {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.becomes_leader().await;
        let end = replica.end_of_term();
        let last = outage(&server, &replica, fault, seconds * SECOND).await;
        assert_eq!(replica.is_leading(), seconds < 27, "{fault:?} {seconds}");
        sleep(recovery).await;
        assert_eq!(
            replica.epoch(),
            Some(epoch),
            "{fault:?} {seconds}: without a takeover the term resumes"
        );
        assert_eq!(replica.transitions(), 1.0);
        if seconds > 27 {
            let closed = end.await.unwrap() - last;
            assert!(
                closed <= 27 * SECOND + SECOND / 100,
                "{fault:?} {seconds}: {closed:?}"
            );
            assert!(
                closed + SLACK >= 27 * SECOND,
                "{fault:?} {seconds}: {closed:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn outage_of_two_lease_durations_ends_the_candidate() {
    for fault in [Fault::ConnectionReset, Fault::Hang, Fault::Status(503)] {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        replica.becomes_leader().await;
        let end = replica.end_of_term();
        let last = outage(&server, &replica, fault, 59 * SECOND).await;
        replica.link.partition(fault);
        assert!(
            end.await.unwrap() - last <= 27 * SECOND + SECOND / 100,
            "{fault:?}"
        );
        let elector_exit = replica.exited().await;
        assert_eq!(elector_exit.exit, Exit::Lost, "{fault:?}");
        assert!(
            last.elapsed() < 62 * SECOND,
            "{fault:?}: {:?}",
            last.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn partitioned_leader_stops_before_the_takeover_then_exits() {
    for fault in [Fault::ConnectionReset, Fault::Hang, Fault::Status(503)] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        let end = leader.end_of_term();
        let last = outage(&server, &leader, fault, 29 * SECOND).await;
        leader.link.partition(fault);
        let closed = end.await.unwrap();
        let epoch = standby.becomes_leader().await;
        assert!(
            closed < Instant::now() && Instant::now() >= last + 30 * SECOND,
            "{fault:?}"
        );
        assert!(
            last.elapsed() < 30 * SECOND + 3 * SLACK,
            "{fault:?}: {:?}",
            last.elapsed()
        );
        leader.link.clear_faults();
        let recovered = Instant::now();
        assert_eq!(leader.exited().await.exit, Exit::Lost, "{fault:?}");
        assert!(
            recovered.elapsed() < 3 * SECOND + SLACK,
            "{fault:?}: {:?}",
            recovered.elapsed()
        );
        assert_eq!(standby.epoch(), Some(epoch));
    }
}

#[tokio::test(start_paused = true)]
async fn missing_namespace_counts_as_refused_and_is_retried() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |_, link| {
        link.fail("create leases", Fault::Status(404))
    });
    sleep(60 * SECOND).await;
    let tries = replica.link.calls("create leases").len();
    assert!((25..120).contains(&tries), "{tries}");
    assert_eq!(
        replica.metric("serviceoffer_leader_renew_errors_total{reason=\"Refused\"} "),
        tries as f64
    );
    replica.link.clear_faults();
    let recovered = Instant::now();
    replica.becomes_leader().await;
    assert!(
        recovered.elapsed() < 3 * SECOND,
        "{:?}",
        recovered.elapsed()
    );
}
