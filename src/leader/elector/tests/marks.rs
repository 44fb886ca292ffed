//! What Pods have to do with it: the mark of the leader, and the kubelet's word that a container ended.

use std::cell::Cell;

use kube::Api;

use super::*;
use crate::leader::elector::Pods;

fn is_marked(server: &Server, name: &str) -> bool {
    let pod = server.get("pods", name).unwrap();
    let (role, cost) = (
        &pod["metadata"]["labels"]["obol.org/role"],
        &pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"],
    );
    assert_eq!(role == "leader", cost == "100", "{pod}");
    role == "leader"
}

fn mark(server: &Server, name: &str) {
    server.edit("pods", name, |pod| {
        *pod = self::pod(name);
        pod["metadata"]["labels"] = json!({ "obol.org/role": "leader", "team": "a" });
        pod["metadata"]["annotations"] =
            json!({ "controller.kubernetes.io/pod-deletion-cost": "100" });
    });
}

fn ended(token: &str) -> Value {
    json!({ "terminated": { "exitCode": 137, "message": format!("serviceoffer-controller container {token}") } })
}

#[tokio::test(start_paused = true)]
async fn the_pod_of_a_leader_is_marked_before_its_fence_opens() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |_, link| {
        link.breaks_times(1, "patch pods", Fault::AnswerLate(300 * SECOND / 1000));
    });
    server
        .until("pods", "pod-a", |pod| {
            pod.is_some_and(|pod| !pod["metadata"]["labels"].is_null())
        })
        .await;
    let marked = Instant::now();
    assert!(is_marked(&server, "pod-a") && !replica.is_leading());
    replica.leads().await;
    assert!(
        marked.elapsed() >= 300 * SECOND / 1000,
        "{:?}",
        marked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_is_lost_or_not_answered_is_asked_for_again_before_the_fence_opens() {
    for (fault, most) in [
        (Fault::Hang, 500),
        (Fault::HangAfterCommit, 500),
        (Fault::Broken, 100),
    ] {
        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| {
            link.breaks_times(1, "patch pods", fault)
        });
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.leads().await;
        assert!(is_marked(&server, "pod-a"), "{fault:?}");
        assert!(
            written.elapsed() <= Duration::from_millis(most + 30),
            "{fault:?}: {:?}",
            written.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_mark_is_not_answered_holds_its_lease_and_waits() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |_, link| {
        link.breaks("patch pods", Fault::Hang)
    });
    server.until("leases", LEASE, |lease| lease.is_some()).await;
    sleep(20 * SECOND).await;
    assert_eq!(
        replica.link.calls("patch pods").len(),
        3,
        "no more are under cause at once"
    );
    sleep(40 * SECOND).await;
    assert!(!replica.is_leading());
    assert!(last_change(&server).elapsed() < 6 * SECOND);
    replica.link.mends();
    let mended = Instant::now();
    replica.leads().await;
    assert!(is_marked(&server, "pod-a") && mended.elapsed() <= 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_the_api_server_refuses_delays_no_leader() {
    for fault in [Fault::Status(403), Fault::Status(404)] {
        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| link.breaks("patch pods", fault));
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.leads().await;
        assert!(
            written.elapsed() <= Duration::from_millis(40),
            "{fault:?}: {:?}",
            written.elapsed()
        );
        sleep(60 * SECOND).await;
        assert!(replica.is_leading(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_is_asked_for_again_for_three_seconds_while_the_api_server_cannot_answer() {
    for fault in [Fault::Status(500), Fault::Busy(60)] {
        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| {
            link.breaks_times(5, "patch pods", fault)
        });
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.leads().await;
        assert!(
            is_marked(&server, "pod-a") && written.elapsed() < SECOND,
            "{fault:?}: {:?}",
            written.elapsed()
        );

        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| link.breaks("patch pods", fault));
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.leads().await;
        let waited = written.elapsed();
        assert!(
            waited >= 3 * SECOND && waited < 4 * SECOND,
            "{fault:?}: {waited:?}"
        );
        assert!(replica.link.calls("patch pods").len() <= 35, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_to_mark_its_pod_touches_no_pod() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |elector, _| {
        elector.config.marks = false;
        elector.early_takeover = false;
    });
    replica.leads().await;
    sleep(60 * SECOND).await;
    let standby = Replica::with(&server, "pod-b", |elector, _| {
        elector.config.marks = false;
        elector.early_takeover = false;
    });
    sleep(60 * SECOND).await;
    for replica in [replica, standby] {
        let tally = replica.link.tally(Instant::now() - 120 * SECOND);
        assert!(
            tally.keys().all(|call| !call.ends_with("pods")),
            "{tally:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_takes_the_mark_from_whoever_led_before() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    assert!(is_marked(&server, "pod-a") && !is_marked(&server, "pod-b"));
    leader.dies();
    standby.leads().await;
    assert!(is_marked(&server, "pod-b"));
    sleep(SECOND).await;
    assert!(!is_marked(&server, "pod-a"));
    mark(&server, "pod-z");
    standby.dies();
    let next = Replica::start(&server, "pod-c");
    next.leads().await;
    sleep(SECOND).await;
    assert!(
        is_marked(&server, "pod-c") && !is_marked(&server, "pod-b") && !is_marked(&server, "pod-z")
    );
    assert_eq!(
        server.get("pods", "pod-z").unwrap()["metadata"]["labels"]["team"],
        "a",
        "labels of others stay"
    );
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_the_mark_of_an_earlier_container_from_its_own_pod_alone() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    mark(&server, "pod-b");
    let standby = Replica::start(&server, "pod-b");
    sleep(SECOND).await;
    assert!(!standby.is_leading() && !is_marked(&server, "pod-b") && is_marked(&server, "pod-a"));
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_an_earlier_container_goes_before_its_pod_is_marked_anew() {
    let server = Server::start();
    let first = Replica::start(&server, "pod-a");
    first.leads().await;
    first.dies();
    let next = Replica::with(&server, "pod-a", |_, link| {
        link.breaks_times(1, "list pods", Fault::AnswerLate(300 * SECOND / 1000));
    });
    next.leads().await;
    sleep(SECOND).await;
    assert!(is_marked(&server, "pod-a"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_marked_anew_while_its_old_mark_is_taken_away_is_looked_at_once_more() {
    let server = Server::start();
    mark(&server, "pod-z");
    let link = server.link();
    link.breaks_times(1, "list pods", Fault::AnswerLate(SECOND));
    let pods = Pods {
        api: Api::namespaced(link.client(), NAMESPACE),
        own: "pod-a".into(),
    };
    let looks = Cell::new(0);
    let outdated = |_: &str| {
        looks.set(looks.get() + 1);
        looks.get() == 1
    };
    let meanwhile = async {
        sleep(SECOND / 2).await;
        server.edit("pods", "pod-z", |pod| {
            pod["metadata"]["labels"]["team"] = json!("b")
        });
    };
    tokio::join!(pods.unmark(outdated), meanwhile);
    assert!(
        is_marked(&server, "pod-z"),
        "what was decided on an older version is not done"
    );
    assert_eq!(looks.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_lease_is_waited_out_while_another_pod_is_marked_as_the_leaders() {
    let server = Server::start();
    mark(&server, "pod-z");
    let begun = Instant::now();
    let replica = Replica::start(&server, "pod-a");
    replica.leads().await;
    assert!(
        begun.elapsed() >= 30 * SECOND && begun.elapsed() < 33 * SECOND,
        "{:?}",
        begun.elapsed()
    );

    let server = Server::start();
    mark(&server, "pod-z");
    server.edit("pods", "pod-z", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = ended("any")
    });
    let begun = Instant::now();
    Replica::start(&server, "pod-a").leads().await;
    assert!(
        begun.elapsed() < SLACK,
        "the marked Pod has ended: {:?}",
        begun.elapsed()
    );

    let server = Server::start();
    mark(&server, "pod-z");
    let replica = Replica::start(&server, "pod-a");
    sleep(12 * SECOND).await;
    assert!(!replica.is_leading());
    server.edit("pods", "pod-z", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = ended("any")
    });
    let reported = Instant::now();
    replica.leads().await;
    assert!(
        reported.elapsed() < 6 * SECOND,
        "it is looked again with each renewal: {:?}",
        reported.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_be_told_who_leads_by_another_lease_somebody_may() {
    for (fault, seconds) in [
        (Fault::Status(500), 30),
        (Fault::Hang, 30),
        (Fault::Status(403), 0),
    ] {
        let server = Server::start();
        let begun = Instant::now();
        let replica = Replica::with(&server, "pod-a", |_, link| link.breaks("list pods", fault));
        replica.leads().await;
        let waited = begun.elapsed();
        assert!(
            waited >= seconds * SECOND && waited < (seconds + 8) * SECOND,
            "{fault:?}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_container_is_reported_terminated_is_taken_over_at_once() {
    for field in ["state", "lastState"] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        leader.dies();
        sleep(SECOND).await;
        assert!(!standby.is_leading());
        let reported = Instant::now();
        server.edit("pods", "pod-a", |pod| {
            pod["status"]["containerStatuses"][0][field] = ended(&token("pod-a"))
        });
        standby.leads().await;
        assert!(
            reported.elapsed() < 50 * SECOND / 1000,
            "{:?}",
            reported.elapsed()
        );
        let count = standby
            .metric("serviceoffer_leader_acquire_latency_seconds_count{cause=\"termination\"} ");
        assert_eq!(count, 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_from_before_the_standby_looked_counts_as_well() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    leader.dies();
    server.edit("pods", "pod-a", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = ended(&token("pod-a"))
    });
    sleep(60 * SECOND).await;
    let begun = Instant::now();
    Replica::start(&server, "pod-b").leads().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_but_the_report_on_the_holders_own_container_shortens_the_wait() {
    type Declare = fn(&Server);
    let declare: [(&str, Declare); 4] = [
        ("another container of the Pod ended", |server| {
            server.edit("pods", "pod-a", |pod| {
                pod["status"]["containerStatuses"][0]["lastState"] = ended("another")
            });
        }),
        ("the Pod was declared failed", |server| {
            server.edit("pods", "pod-a", |pod| {
                pod["status"]["phase"] = json!("Failed")
            });
        }),
        ("the Pod was deleted", |server| {
            server.delete("pods", "pod-a")
        }),
        (
            "a container of another Pod ended with those words",
            |server| {
                server.edit("pods", "pod-z", |pod| {
                    *pod = self::pod("pod-z");
                    pod["status"]["containerStatuses"][0]["state"] = ended(&token("pod-a"));
                });
            },
        ),
    ];
    for (what, declare) in declare {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        leader.dies();
        let renewed = last_change(&server);
        declare(&server);
        standby.leads().await;
        assert!(
            renewed.elapsed() >= 30 * SECOND,
            "{what}: {:?}",
            renewed.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_nothing_to_a_standby_that_is_not_to_listen_or_must_not() {
    for early in [false, true] {
        let server = Server::start();
        let leader = Replica::start(&server, "pod-a");
        leader.leads().await;
        let standby = Replica::with(&server, "pod-b", |elector, link| {
            elector.early_takeover = early;
            link.breaks("watch pods", Fault::Status(403));
        });
        sleep(SECOND).await;
        leader.dies();
        let renewed = last_change(&server);
        server.edit("pods", "pod-a", |pod| {
            pod["status"]["containerStatuses"][0]["state"] = ended(&token("pod-a"))
        });
        standby.leads().await;
        assert!(
            renewed.elapsed() >= 30 * SECOND && renewed.elapsed() < 31 * SECOND,
            "{:?}",
            renewed.elapsed()
        );
        assert!(standby.link.calls("watch pods").len() <= 2);
    }
}
