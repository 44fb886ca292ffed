//! Leadership is kept: through every answer of the API server, through none, and through outages.

use super::*;

/// Every refusal that an API server is known for.
const CODES: [u16; 8] = [403, 404, 409, 410, 429, 500, 503, 504];

#[tokio::test(start_paused = true)]
async fn one_slow_call_never_loses_leadership() {
    let late = 15 * SECOND;
    for fault in [
        Fault::AnswerLate(late),
        Fault::CommitLate(late),
        Fault::Hang,
        Fault::HangAfterCommit,
        Fault::Broken,
        Fault::Busy(3600),
    ] {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.leads().await;
        let end = replica.end_of_term();
        replica.link.breaks_times(1, "update leases", fault);
        sleep(60 * SECOND).await;
        assert!(!end.is_finished(), "{fault:?}");
        assert_eq!(replica.epoch(), Some(epoch), "{fault:?}");
        assert!(
            last_change(&server).elapsed() < 6 * SECOND,
            "{fault:?}: renewals went on"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_outlasts_every_refusal_of_its_renewals() {
    for code in CODES {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.leads().await;
        let end = replica.end_of_term();
        replica
            .link
            .breaks_times(4, "update leases", Fault::Status(code));
        sleep(60 * SECOND).await;
        assert!(!end.is_finished(), "{code}");
        assert_eq!(replica.epoch(), Some(epoch), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_gets_past_every_refusal_on_its_way() {
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
                link.breaks_times(2, call, Fault::Status(code))
            });
            let lead = timeout(5 * SECOND, replica.leads()).await;
            // Whether anybody leads without a Lease could not be told: then it is waited out.
            let unsure = call == "list pods" && code != 403;
            assert!(lead.is_ok() || unsure, "{code} {call}");
            replica.leads().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_conflict_with_its_own_unanswered_write_makes_a_candidate_lead() {
    let server = Server::start();
    for (name, call) in [("pod-a", "create leases"), ("pod-b", "update leases")] {
        let begun = Instant::now();
        let replica = Replica::with(&server, name, |elector, link| {
            // Neither the watch nor the Pod may give the answer.
            elector.config.pod_uid = None;
            link.breaks("list leases", Fault::Hang);
            link.breaks_times(1, call, Fault::HangAfterCommit);
        });
        let epoch = replica.leads().await;
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
            "it went on with the term that it had begun"
        );
        assert_eq!(
            epoch.version.0,
            server.get("leases", LEASE).unwrap()["metadata"]["resourceVersion"]
        );
        replica.rests_when_asked().leave.cancel();
        assert_eq!(replica.departs().await.exit, Exit::Clean);
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
async fn the_conflict_with_its_own_unanswered_renewal_costs_a_leader_nothing() {
    let server = Server::start();
    let replica = Replica::start(&server, "pod-a");
    let epoch = replica.leads().await;
    let end = replica.end_of_term();
    // The watch would tell of the renewal before the conflict does.
    replica.link.silences_watches();
    replica
        .link
        .breaks_times(1, "update leases", Fault::HangAfterCommit);
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
async fn a_server_that_asks_to_come_back_in_an_hour_is_asked_again_within_seconds() {
    let server = Server::start();
    let replica = Replica::start(&server, "pod-a");
    replica.leads().await;
    let end = replica.end_of_term();
    replica.link.breaks("update leases", Fault::Busy(3600));
    sleep(15 * SECOND).await;
    let refused = replica.link.calls("update leases");
    replica.link.mends();
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
        "it neither gives up nor hammers: {}",
        refused.len()
    );
}

#[tokio::test(start_paused = true)]
async fn writes_that_meet_a_conflict_each_time_are_not_repeated_without_a_pause() {
    let server = Server::start();
    let replica = Replica::start(&server, "pod-a");
    replica.leads().await;
    replica.link.breaks("update leases", Fault::Status(409));
    let begun = Instant::now();
    sleep(20 * SECOND).await;
    let tally = replica.link.tally(begun);
    assert!((5..60).contains(&tally["update leases"]), "{tally:?}");
}

/// A leader that has just renewed, and then nothing comes through for so long. Says when the last renewal came in.
async fn outage(server: &Server, replica: &Replica, fault: Fault, lasts: Duration) -> Instant {
    let renewed = replica.link.calls("update leases").len();
    while replica.link.calls("update leases").len() == renewed {
        sleep(SECOND / 1000).await;
    }
    sleep(4 * HOP).await;
    let last = *replica.link.calls("update leases").last().unwrap();
    assert_eq!(last_change(server), last + HOP);
    replica.link.loses_everything(fault);
    sleep(lasts - last.elapsed()).await;
    replica.link.mends();
    last
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_fence_changes_nothing() {
    for (fault, seconds) in [
        Fault::Broken,
        Fault::Hang,
        Fault::Status(503),
        Fault::Busy(60),
    ]
    .into_iter()
    .flat_map(|fault| [(fault, 10), (fault, 24)])
    {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.leads().await;
        let end = replica.end_of_term();
        outage(&server, &replica, fault, seconds * SECOND).await;
        sleep(60 * SECOND).await;
        assert!(!end.is_finished(), "{fault:?} {seconds}");
        assert_eq!(replica.epoch(), Some(epoch), "{fault:?} {seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_closes_the_fence_on_time_and_the_same_term_goes_on_after_it() {
    let soon = 3 * SECOND;
    for (fault, seconds, patience) in [
        (Fault::Broken, 25, soon),
        (Fault::Broken, 40, soon),
        (Fault::Broken, 55, soon),
        (Fault::Status(503), 25, soon),
        (Fault::Status(503), 40, soon),
        (Fault::Status(503), 55, soon),
        (Fault::Hang, 25, soon),
        // Three writes that will never be answered are waited for as long as a slow server may take.
        (Fault::Hang, 40, 20 * SECOND),
    ] {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        let epoch = replica.leads().await;
        let end = replica.end_of_term();
        let last = outage(&server, &replica, fault, seconds * SECOND).await;
        assert_eq!(replica.is_leading(), seconds < 27, "{fault:?} {seconds}");
        sleep(patience).await;
        assert_eq!(
            replica.epoch(),
            Some(epoch),
            "{fault:?} {seconds}: who nobody took over from goes on"
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
async fn an_outage_of_two_leases_ends_the_candidate() {
    for fault in [Fault::Broken, Fault::Hang, Fault::Status(503)] {
        let server = Server::start();
        let replica = Replica::start(&server, "pod-a");
        replica.leads().await;
        let end = replica.end_of_term();
        let last = outage(&server, &replica, fault, 59 * SECOND).await;
        replica.link.loses_everything(fault);
        assert!(
            end.await.unwrap() - last <= 27 * SECOND + SECOND / 100,
            "{fault:?}"
        );
        let departure = replica.departs().await;
        assert_eq!(departure.exit, Exit::Lost, "{fault:?}");
        assert!(
            last.elapsed() < 62 * SECOND,
            "{fault:?}: {:?}",
            last.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_from_the_server_has_stopped_before_the_next_begins_and_ends_when_it_sees_it()
 {
    for fault in [Fault::Broken, Fault::Hang, Fault::Status(503)] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        let end = leader.end_of_term();
        let last = outage(&server, &leader, fault, 29 * SECOND).await;
        leader.link.loses_everything(fault);
        let closed = end.await.unwrap();
        let epoch = standby.leads().await;
        assert!(
            closed < Instant::now() && Instant::now() >= last + 30 * SECOND,
            "{fault:?}"
        );
        assert!(
            last.elapsed() < 30 * SECOND + 3 * SLACK,
            "{fault:?}: {:?}",
            last.elapsed()
        );
        leader.link.mends();
        let mended = Instant::now();
        assert_eq!(leader.departs().await.exit, Exit::Lost, "{fault:?}");
        assert!(
            mended.elapsed() < 3 * SECOND + SLACK,
            "{fault:?}: {:?}",
            mended.elapsed()
        );
        assert_eq!(standby.epoch(), Some(epoch));
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_there_is_told_of_as_a_refusal_and_asked_for_every_few_seconds() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |_, link| {
        link.breaks("create leases", Fault::Status(404))
    });
    sleep(60 * SECOND).await;
    let tries = replica.link.calls("create leases").len();
    assert!((25..120).contains(&tries), "{tries}");
    assert_eq!(
        replica.metric("serviceoffer_leader_renew_errors_total{reason=\"Refused\"} "),
        tries as f64
    );
    replica.link.mends();
    let mended = Instant::now();
    replica.leads().await;
    assert!(mended.elapsed() < 3 * SECOND, "{:?}", mended.elapsed());
}
