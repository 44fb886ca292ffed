//! How a standby learns of the Lease: by a watch, through everything that can become of a watch, and at which price.

use std::io::Write;
use std::sync::Mutex;

use super::*;

/// The leader dies; how long after its last renewal does the standby lead?
async fn takeover(server: &Server, leader: &Replica, standby: &Replica) -> Duration {
    leader.dies();
    let renewed = last_change(server);
    standby.leads().await;
    renewed.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_standby_in_steady_state_sends_nothing_but_watches() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let begun = Instant::now();
    sleep(600 * SECOND).await;
    let tally = standby.link.tally(begun);
    let watches: Vec<_> = tally.keys().map(String::as_str).collect();
    assert_eq!(watches, ["watch leases", "watch pods"], "{tally:?}");
    // One a minute each, when the server ends the one before.
    assert!(
        tally.values().all(|count| (9..=10).contains(count)),
        "{tally:?}"
    );
    let tally = leader.link.tally(begun);
    assert!(
        (115..=125).contains(&tally["update leases"]) && (9..=10).contains(&tally["watch leases"]),
        "{tally:?}"
    );
    assert_eq!(tally.len(), 2, "{tally:?}");
}

/// Lines that are logged while it lives.
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
async fn where_no_watch_is_allowed_the_lease_is_read_in_jittered_periods_and_that_is_said_once() {
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
        leader.leads().await;
        let standby = Replica::with(&server, "pod-b", |_, link| {
            link.breaks(forbidden, Fault::Status(403))
        });
        sleep(SECOND).await;
        let begun = Instant::now();
        sleep(600 * SECOND).await;

        let verb = forbidden.split_once(' ').unwrap().0;
        let said = log.lines("cannot be watched");
        assert!(
            said.len() == 1 && said[0].contains(&format!("cannot {verb} resource leases")),
            "{said:?}"
        );
        drop(guard);
        let reads = standby.link.calls("get leases");
        let tries = standby.link.calls(forbidden);
        let pauses: Vec<_> = reads
            .windows(2)
            .filter(|pair| pair[0] >= begun)
            .map(|pair| pair[1] - pair[0])
            .collect();
        // Once a minute the watch is tried again, and the period begins anew.
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
            "they are spread: {least:?} to {most:?}"
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
async fn a_watch_that_dies_silently_hides_neither_a_live_leader_nor_a_dead_one() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let epoch = leader.epoch();
    standby.link.silences_watches();
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
        "silence is looked into after a period and three seconds: {reads:?}"
    );
    assert!(reads[0] - silent <= 8 * SECOND + SLACK);
    sleep(600 * SECOND).await;
    let again = standby
        .link
        .calls("watch leases")
        .into_iter()
        .find(|at| *at > silent)
        .expect("it is begun anew");
    assert!(
        again - silent <= 36 * SECOND,
        "a holder renews far more often: {:?}",
        again - silent
    );
    assert_eq!(
        leader.epoch(),
        epoch,
        "a leader that cannot be heard is not taken over"
    );

    standby.link.silences_watches();
    sleep(2 * SECOND).await;
    let after = takeover(&server, &leader, &standby).await;
    assert!(
        after >= 30 * SECOND && after <= 38 * SECOND + 2 * SLACK,
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_tells_old_tales_neither_shortens_nor_prolongs_the_wait() {
    let server = Server::start();
    let leader = Replica::start(&server, "pod-a");
    leader.leads().await;
    let standby = Replica::with(&server, "pod-b", |_, link| link.delays_watches(40 * SECOND));
    sleep(300 * SECOND).await;
    assert!(leader.is_leading() && !standby.is_leading());
    let after = takeover(&server, &leader, &standby).await;
    assert!(
        after >= 30 * SECOND && after <= 38 * SECOND + 2 * SLACK,
        "{after:?}"
    );
    // By now the watch tells of the dead leader's renewals.
    let end = standby.end_of_term();
    sleep(100 * SECOND).await;
    assert!(!end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_breaks_goes_on_where_it_stopped() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let begun = Instant::now();
    for _ in 0..20 {
        standby.link.ends_watches();
        sleep(3 * SECOND).await;
    }
    let tally = standby.link.tally(begun);
    assert!(
        tally["watch leases"] >= 20 && !tally.contains_key("list leases"),
        "{tally:?}"
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
async fn a_watch_whose_past_is_forgotten_begins_anew() {
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
                .breaks_times(1, "watch leases", Fault::Status(code));
        }
        standby.link.ends_watches();
        sleep(SECOND).await;
        assert!(standby.link.tally(begun)["list leases"] >= 1, "{code:?}");
        leader.rests_when_asked().leave.cancel();
        let released = Instant::now();
        standby.leads().await;
        assert!(
            released.elapsed() < SLACK,
            "{code:?}: {:?}",
            released.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_be_had_is_asked_for_in_growing_pauses() {
    for fault in [
        Fault::Broken,
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
    ] {
        let server = Server::start();
        let (leader, standby) = pair(&server).await;
        for resource in ["leases", "pods"] {
            standby.link.breaks(&format!("watch {resource}"), fault);
        }
        standby.link.ends_watches();
        let begun = Instant::now();
        sleep(60 * SECOND).await;
        let tally = standby.link.tally(begun);
        assert!(
            (30..120).contains(&tally["watch leases"]),
            "{fault:?}: {tally:?}"
        );
        assert!(
            (30..120).contains(&tally["watch pods"]),
            "{fault:?}: {tally:?}"
        );
        let after = takeover(&server, &leader, &standby).await;
        assert!(
            after >= 30 * SECOND && after <= 38 * SECOND + 2 * SLACK,
            "{fault:?}: {after:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_each_watch_at_once_is_not_hammered() {
    let server = Server::start();
    let (_leader, standby) = pair(&server).await;
    let begun = Instant::now();
    while begun.elapsed() < 60 * SECOND {
        standby.link.ends_watches();
        sleep(SECOND / 1000).await;
    }
    let tally = standby.link.tally(begun);
    for call in ["watch leases", "watch pods"] {
        assert!((30..150).contains(&tally[call]), "{tally:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_keeps_no_standby_from_taking_over_once_the_leader_has_run_out() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let backup = server.version();
    sleep(60 * SECOND).await;
    leader.dies();
    let renewed = last_change(&server);
    sleep(SECOND).await;
    server.go_back(backup);
    let begun = Instant::now();
    standby.leads().await;
    // By silence it is noticed, and from then on the Lease is waited out.
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
async fn a_leader_goes_on_when_the_store_went_back_to_an_earlier_moment_of_its_term() {
    let server = Server::start();
    let (leader, standby) = pair(&server).await;
    let backup = server.version();
    sleep(60 * SECOND).await;
    server.go_back(backup);
    for _ in 0..120 {
        sleep(SECOND).await;
        assert!(leader.is_leading() && !standby.is_leading());
    }
}
