//! The leader's Pod mark, and early takeover when the kubelet reports a terminated container.

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
async fn leader_pod_is_marked_before_the_fence_opens() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |_, link| {
        link.fail_times(1, "patch pods", Fault::AnswerLate(300 * SECOND / 1000));
    });
    server
        .until("pods", "pod-a", |pod| {
            pod.is_some_and(|pod| !pod["metadata"]["labels"].is_null())
        })
        .await;
    let marked = Instant::now();
    assert!(is_marked(&server, "pod-a") && !replica.is_leading());
    replica.becomes_leader().await;
    assert!(
        marked.elapsed() >= 300 * SECOND / 1000,
        "{:?}",
        marked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn lost_mark_is_retried_before_the_fence_opens() {
    for (fault, most) in [
        (Fault::Hang, 500),
        (Fault::HangAfterCommit, 500),
        (Fault::ConnectionReset, 100),
    ] {
        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| {
            link.fail_times(1, "patch pods", fault)
        });
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.becomes_leader().await;
        assert!(is_marked(&server, "pod-a"), "{fault:?}");
        assert!(
            written.elapsed() <= Duration::from_millis(most + 30),
            "{fault:?}: {:?}",
            written.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn leader_waits_and_renews_while_its_mark_is_unanswered() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |_, link| {
        link.fail("patch pods", Fault::Hang)
    });
    server.until("leases", LEASE, |lease| lease.is_some()).await;
    sleep(20 * SECOND).await;
    assert_eq!(
        replica.link.calls("patch pods").len(),
        3,
        "no more are in flight at once"
    );
    sleep(40 * SECOND).await;
    assert!(!replica.is_leading());
    assert!(last_change(&server).elapsed() < 6 * SECOND);
    replica.link.clear_faults();
    let recovered = Instant::now();
    replica.becomes_leader().await;
    assert!(is_marked(&server, "pod-a") && recovered.elapsed() <= 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn refused_mark_does_not_delay_the_leader() {
    for fault in [Fault::Status(403), Fault::Status(404)] {
        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| link.fail("patch pods", fault));
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.becomes_leader().await;
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
async fn mark_is_retried_for_three_seconds_on_server_errors() {
    for fault in [Fault::Status(500), Fault::Busy(60)] {
        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| {
            link.fail_times(5, "patch pods", fault)
        });
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.becomes_leader().await;
        assert!(
            is_marked(&server, "pod-a") && written.elapsed() < SECOND,
            "{fault:?}: {:?}",
            written.elapsed()
        );

        let server = Server::start();
        let replica = Replica::with(&server, "pod-a", |_, link| link.fail("patch pods", fault));
        server.until("leases", LEASE, |lease| lease.is_some()).await;
        let written = Instant::now();
        replica.becomes_leader().await;
        let waited = written.elapsed();
        assert!(
            waited >= 3 * SECOND && waited < 4 * SECOND,
            "{fault:?}: {waited:?}"
        );
        assert!(replica.link.calls("patch pods").len() <= 35, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn leader_without_marks_sends_no_pod_requests() {
    let server = Server::start();
    let replica = Replica::with(&server, "pod-a", |elector, _| {
        elector.config.marks = false;
        elector.early_takeover = false;
    });
    replica.becomes_leader().await;
    sleep(60 * SECOND).await;
    let standby = Replica::with(&server, "pod-b", |elector, _| {
        elector.config.marks = false;
        elector.early_takeover = false;
    });
    sleep(60 * SECOND).await;
    for replica in [replica, standby] {
        let requests = replica.link.requests(Instant::now() - 120 * SECOND);
        assert!(
            requests.keys().all(|call| !call.ends_with("pods")),
            "{requests:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn leader_unmarks_the_pods_of_earlier_leaders() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    assert!(is_marked(&server, "pod-a") && !is_marked(&server, "pod-b"));
    leader.crash();
    standby.becomes_leader().await;
    assert!(is_marked(&server, "pod-b"));
    sleep(SECOND).await;
    assert!(!is_marked(&server, "pod-a"));
    mark(&server, "pod-z");
    standby.crash();
    let next = Replica::start(&server, "pod-c");
    next.becomes_leader().await;
    sleep(SECOND).await;
    assert!(
        is_marked(&server, "pod-c") && !is_marked(&server, "pod-b") && !is_marked(&server, "pod-z")
    );
    assert_eq!(
        server.get("pods", "pod-z").unwrap()["metadata"]["labels"]["team"],
        "a",
        "other labels are kept"
    );
}

#[tokio::test(start_paused = true)]
async fn standby_unmarks_only_its_own_pod() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    mark(&server, "pod-b");
    let standby = Replica::start(&server, "pod-b");
    sleep(SECOND).await;
    assert!(!standby.is_leading() && !is_marked(&server, "pod-b") && is_marked(&server, "pod-a"));
}

#[tokio::test(start_paused = true)]
async fn old_mark_is_removed_before_the_pod_is_marked_again() {
    let server = Server::start();
    let first = Replica::start(&server, "pod-a");
    first.becomes_leader().await;
    first.crash();
    let next = Replica::with(&server, "pod-a", |_, link| {
        link.fail_times(1, "list pods", Fault::AnswerLate(300 * SECOND / 1000));
    });
    next.becomes_leader().await;
    sleep(SECOND).await;
    assert!(is_marked(&server, "pod-a"));
}

#[tokio::test(start_paused = true)]
async fn pod_marked_again_during_unmark_is_checked_again() {
    let server = Server::start();
    mark(&server, "pod-z");
    let link = server.link();
    link.fail_times(1, "list pods", Fault::AnswerLate(SECOND));
    let pods = Pods {
        api: Api::namespaced(link.client(), NAMESPACE),
        own: "pod-a".into(),
    };
    let checks = Cell::new(0);
    let outdated = |_: &str| {
        checks.set(checks.get() + 1);
        checks.get() == 1
    };
    let concurrent_edit = async {
        sleep(SECOND / 2).await;
        server.edit("pods", "pod-z", |pod| {
            pod["metadata"]["labels"]["team"] = json!("b")
        });
    };
    tokio::join!(pods.unmark(outdated), concurrent_edit);
    assert!(
        is_marked(&server, "pod-z"),
        "a decision on an older version is not applied"
    );
    assert_eq!(checks.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn missing_lease_is_waited_out_while_another_pod_is_marked() {
    let server = Server::start();
    mark(&server, "pod-z");
    let begun = Instant::now();
    let replica = Replica::start(&server, "pod-a");
    replica.becomes_leader().await;
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
    Replica::start(&server, "pod-a").becomes_leader().await;
    assert!(
        begun.elapsed() < SLACK,
        "the marked Pod has terminated: {:?}",
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
    replica.becomes_leader().await;
    assert!(
        reported.elapsed() < 6 * SECOND,
        "each renewal checks again: {:?}",
        reported.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn unlistable_pods_count_as_marked_unless_forbidden() {
    for (fault, seconds) in [
        (Fault::Status(500), 30),
        (Fault::Hang, 30),
        (Fault::Status(403), 0),
    ] {
        let server = Server::start();
        let begun = Instant::now();
        let replica = Replica::with(&server, "pod-a", |_, link| link.fail("list pods", fault));
        replica.becomes_leader().await;
        let waited = begun.elapsed();
        assert!(
            waited >= seconds * SECOND && waited < (seconds + 8) * SECOND,
            "{fault:?}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn terminated_holder_is_taken_over_at_once() {
    for field in ["state", "lastState"] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        leader.crash();
        sleep(SECOND).await;
        assert!(!standby.is_leading());
        let reported = Instant::now();
        server.edit("pods", "pod-a", |pod| {
            pod["status"]["containerStatuses"][0][field] = ended(&token("pod-a"))
        });
        standby.becomes_leader().await;
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
async fn termination_before_the_standby_started_counts() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    leader.crash();
    server.edit("pods", "pod-a", |pod| {
        pod["status"]["containerStatuses"][0]["state"] = ended(&token("pod-a"))
    });
    sleep(60 * SECOND).await;
    let begun = Instant::now();
    Replica::start(&server, "pod-b").becomes_leader().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn only_the_holders_own_container_shortens_the_wait() {
    type Declare = fn(&Server);
    let declare: [(&str, Declare); 4] = [
        ("another container of the Pod terminated", |server| {
            server.edit("pods", "pod-a", |pod| {
                pod["status"]["containerStatuses"][0]["lastState"] = ended("another")
            });
        }),
        ("the Pod was set to Failed", |server| {
            server.edit("pods", "pod-a", |pod| {
                pod["status"]["phase"] = json!("Failed")
            });
        }),
        ("the Pod was deleted", |server| {
            server.delete("pods", "pod-a")
        }),
        ("a container of another Pod has that message", |server| {
            server.edit("pods", "pod-z", |pod| {
                *pod = self::pod("pod-z");
                pod["status"]["containerStatuses"][0]["state"] = ended(&token("pod-a"));
            });
        }),
    ];
    for (what, declare) in declare {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        leader.crash();
        let renewed = last_change(&server);
        declare(&server);
        standby.becomes_leader().await;
        assert!(
            renewed.elapsed() >= 30 * SECOND,
            "{what}: {:?}",
            renewed.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn early_takeover_off_or_forbidden_waits_for_expiry() {
    for early in [false, true] {
        let server = Server::start();
        let leader = Replica::start(&server, "pod-a");
        leader.becomes_leader().await;
        let standby = Replica::with(&server, "pod-b", |elector, link| {
            elector.early_takeover = early;
            link.fail("watch pods", Fault::Status(403));
        });
        sleep(SECOND).await;
        leader.crash();
        let renewed = last_change(&server);
        server.edit("pods", "pod-a", |pod| {
            pod["status"]["containerStatuses"][0]["state"] = ended(&token("pod-a"))
        });
        standby.becomes_leader().await;
        assert!(
            renewed.elapsed() >= 30 * SECOND && renewed.elapsed() < 31 * SECOND,
            "{:?}",
            renewed.elapsed()
        );
        assert!(standby.link.calls("watch pods").len() <= 2);
    }
}
