//! How a standby learns of the Lease: by a watch, through every way a watch can fail, and at what
//! cost in requests.

use std::io::Write;
use std::sync::Mutex;

use super::*;

/// Crashes the leader. Returns how long after its last renewal the standby became leader.
async fn takeover(server: &Server, leader: &Replica, standby: &Replica) -> Duration {
    leader.crash();
    let renewed = last_change(server);
    standby.becomes_leader().await;
    renewed.elapsed()
}

#[tokio::test(start_paused = true)]
async fn standby_in_steady_state_sends_only_watches() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let begun = Instant::now();
    sleep(600 * SECOND).await;
    let requests = standby.link.requests(begun);
    let watches: Vec<_> = requests.keys().map(String::as_str).collect();
    assert_eq!(watches, ["watch leases", "watch pods"], "{requests:?}");
    // One per minute each, when the server ends the previous one.
    assert!(
        requests.values().all(|count| (9..=10).contains(count)),
        "{requests:?}"
    );
    let requests = leader.link.requests(begun);
    assert!(
        (115..=125).contains(&requests["update leases"])
            && (9..=10).contains(&requests["watch leases"]),
        "{requests:?}"
    );
    assert_eq!(requests.len(), 2, "{requests:?}");
}

/// Captures the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines()
            .filter(|line| line.contains(text))
            .map(str::to_owned)
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn forbidden_watch_falls_back_to_jittered_polling() {
    for forbidden in ["watch leases", "list leases"] {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let server = Server::start();
        let leader = Replica::start(&server, "pod-a");
        leader.becomes_leader().await;
        let standby = Replica::with(&server, "pod-b", |_, link| {
            link.fail(forbidden, Fault::Status(403))
        });
        sleep(SECOND).await;
        let begun = Instant::now();
        sleep(600 * SECOND).await;

        let verb = forbidden.split_once(' ').unwrap().0;
        let warnings = log.lines("not allowed to watch the lease");
        assert!(
            warnings.len() == 1 && warnings[0].contains(&format!("cannot {verb} resource leases")),
            "{warnings:?}"
        );
        drop(guard);
        let reads = standby.link.calls("get leases");
        let tries = standby.link.calls(forbidden);
        let pauses: Vec<_> = reads
            .windows(2)
            .filter(|pair| pair[0] >= begun)
            .map(|pair| pair[1] - pair[0])
            .collect();
        // Once a minute the watch is tried again, which cuts a polling period short.
        let (whole, cut): (Vec<Duration>, Vec<_>) =
            pauses.iter().partition(|pause| **pause >= 4 * SECOND);
        assert!(
            whole.iter().all(|pause| *pause <= 6 * SECOND + 8 * HOP),
            "{whole:?}"
        );
        assert!(
            cut.len() <= tries.len() && (9..=12).contains(&tries.len()),
            "{cut:?} {tries:?}"
        );
        let (least, most) = (whole.iter().min().unwrap(), whole.iter().max().unwrap());
        assert!(
            *most - *least > SECOND,
            "they are jittered: {least:?} to {most:?}"
        );
        assert!((100..=150).contains(&pauses.len()), "{}", pauses.len());

        let after = takeover(&server, &leader, &standby).await;
        assert!(
            after >= 30 * SECOND && after < 36 * SECOND + 2 * SLACK,
            "{forbidden}: {after:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silent_watch_hides_neither_a_live_nor_a_dead_leader() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let epoch = leader.epoch();
    standby.link.silence_watches();
    let silent = Instant::now();
    sleep(25 * SECOND).await;
    let reads: Vec<_> = standby
        .link
        .calls("get leases")
        .into_iter()
        .filter(|at| *at > silent)
        .collect();
    assert!(
        (2..=4).contains(&reads.len()),
        "silence leads to a read after a period and three seconds: {reads:?}"
    );
    assert!(reads[0] - silent <= 8 * SECOND + SLACK);
    sleep(600 * SECOND).await;
    let again = standby
        .link
        .calls("watch leases")
        .into_iter()
        .find(|at| *at > silent)
        .expect("the watch is restarted");
    assert!(
        again - silent <= 36 * SECOND,
        "a holder renews far more often: {:?}",
        again - silent
    );
    assert_eq!(
        leader.epoch(),
        epoch,
        "a live leader is not taken over while the watch is silent"
    );

    standby.link.silence_watches();
    sleep(2 * SECOND).await;
    let after = takeover(&server, &leader, &standby).await;
    assert!(
        after >= 30 * SECOND && after <= 38 * SECOND + 2 * SLACK,
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lagging_watch_neither_shortens_nor_extends_the_wait() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.becomes_leader().await;
    let standby = Replica::with(&server, "pod-b", |_, link| link.delay_watches(40 * SECOND));
    sleep(300 * SECOND).await;
    assert!(leader.is_leading() && !standby.is_leading());
    let after = takeover(&server, &leader, &standby).await;
    assert!(
        after >= 30 * SECOND && after <= 38 * SECOND + 2 * SLACK,
        "{after:?}"
    );
    // By now the watch delivers the dead leader's renewals.
    let end = standby.end_of_term();
    sleep(100 * SECOND).await;
    assert!(!end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn ended_watch_resumes_at_its_last_version() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let begun = Instant::now();
    for _ in 0..20 {
        standby.link.end_watches();
        sleep(3 * SECOND).await;
    }
    let requests = standby.link.requests(begun);
    assert!(
        requests["watch leases"] >= 20 && !requests.contains_key("list leases"),
        "{requests:?}"
    );
    assert_eq!(
        standby.metric("serviceoffer_leader_watch_restarts_total "),
        20.0
    );
    let after = takeover(&server, &leader, &standby).await;
    assert!(
        after >= 30 * SECOND && after <= 30 * SECOND + 2 * SLACK,
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn compacted_watch_starts_with_a_list() {
    for (code, compacts) in [(None, true), (Some(410), false)] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        let begun = Instant::now();
        if compacts {
            server.edit("pods", "pod-z", |_| {});
            server.compact();
        }
        if let Some(code) = code {
            standby
                .link
                .fail_times(1, "watch leases", Fault::Status(code));
        }
        standby.link.end_watches();
        sleep(SECOND).await;
        assert!(standby.link.requests(begun)["list leases"] >= 1, "{code:?}");
        leader.drains_when_asked().leave.cancel();
        let released = Instant::now();
        standby.becomes_leader().await;
        assert!(
            released.elapsed() < SLACK,
            "{code:?}: {:?}",
            released.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn failing_watch_is_retried_with_backoff() {
    for fault in [
        Fault::ConnectionReset,
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
    ] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        for resource in ["leases", "pods"] {
            standby.link.fail(&format!("watch {resource}"), fault);
        }
        standby.link.end_watches();
        let begun = Instant::now();
        sleep(60 * SECOND).await;
        let requests = standby.link.requests(begun);
        assert!(
            (30..120).contains(&requests["watch leases"]),
            "{fault:?}: {requests:?}"
        );
        assert!(
            (30..120).contains(&requests["watch pods"]),
            "{fault:?}: {requests:?}"
        );
        let after = takeover(&server, &leader, &standby).await;
        assert!(
            after >= 30 * SECOND && after <= 38 * SECOND + 2 * SLACK,
            "{fault:?}: {after:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_every_watch_is_not_flooded() {
    let server = Server::start();
    let (_leader, standby) = pair(&server).await;
    let begun = Instant::now();
    while begun.elapsed() < 60 * SECOND {
        standby.link.end_watches();
        sleep(SECOND / 1000).await;
    }
    let requests = standby.link.requests(begun);
    for call in ["watch leases", "watch pods"] {
        assert!((30..150).contains(&requests[call]), "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn restored_storage_does_not_prevent_a_takeover() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let backup = server.version();
    sleep(60 * SECOND).await;
    leader.crash();
    let renewed = last_change(&server);
    sleep(SECOND).await;
    server.restore(backup);
    let begun = Instant::now();
    standby.becomes_leader().await;
    // The restore is noticed by silence; from then on the Lease is waited out.
    assert!(
        renewed.elapsed() >= 30 * SECOND && begun.elapsed() < 40 * SECOND,
        "{:?}",
        begun.elapsed()
    );
    let reads = standby
        .link
        .calls("get leases")
        .into_iter()
        .filter(|at| *at >= begun)
        .count();
    assert!(reads <= 8, "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn leader_continues_after_storage_is_restored_within_its_term() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let backup = server.version();
    sleep(60 * SECOND).await;
    server.restore(backup);
    for _ in 0..120 {
        sleep(SECOND).await;
        assert!(leader.is_leading() && !standby.is_leading());
    }
}
