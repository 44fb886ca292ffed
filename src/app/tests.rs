//! The process exits with its elector, and nothing in the process can delay the elector.
//!
//! These tests use a local port and real time, because they show that threads do not wait for each
//! other.

use std::time::Instant;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::leadership::run_elector;
use super::*;
use crate::health::Health;
use crate::leader::candidate::ElectionConfig;
use crate::leader::clock::Clock;
use crate::leader::elector::Elector;
use crate::leader::elector::tests::server::{NAMESPACE, Server};
use crate::leader::{Drain, Fence};
use crate::metrics::Metrics;

const LEASE: &str = "controller";

/// A replica with a lease duration of 3 s; its fence closes 2 s after a renewal.
struct Replica {
    server: Server,
    config: kube::Config,
    fence: Fence,
    drain: Drain,
    shutdown: CancellationToken,
}

impl Replica {
    fn new() -> Self {
        let server = Server::start();
        let address = format!("http://{}", server.link().listen());
        Self {
            server,
            config: kube::Config::new(address.parse().unwrap()),
            fence: Fence::closed(Clock::paused()),
            drain: Drain::default(),
            shutdown: CancellationToken::new(),
        }
    }

    fn elector(&self) -> Elector {
        Elector {
            config: ElectionConfig {
                identity: "host_1".into(),
                pod_uid: None,
                instance: None,
                marks: false,
                lease_duration: Duration::from_secs(3),
                renew_deadline: Duration::from_millis(1500),
                retry_period: Duration::from_millis(500),
            },
            name: LEASE.into(),
            namespace: NAMESPACE.into(),
            pod_namespace: NAMESPACE.into(),
            early_takeover: false,
            fence: self.fence.clone(),
            drain: self.drain.clone(),
            drain_budget: DRAIN_TIMEOUT,
            metrics: Metrics::new(LEASE).unwrap().election,
            health: Arc::new(Health::new(None)),
        }
    }

    /// Starts the elector as the process does.
    fn start_elector(&self) -> impl Future<Output = ExitReason> + Send + 'static {
        run_elector(self.elector(), self.config.clone(), self.shutdown.clone()).unwrap()
    }

    /// Watches the term on a separate thread until it is stopped. The thread returns whether the
    /// fence has closed.
    async fn watch_term(&self) -> (oneshot::Sender<()>, std::thread::JoinHandle<bool>) {
        let leading = self.fence.opened().await;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let watcher = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = leading.over() => true,
                    _ = stopped => false,
                }
            })
        });
        (stop, watcher)
    }
}

fn burn(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturated_runtime_does_not_delay_renewals() {
    let replica = Replica::new();
    let exit = replica.start_elector();
    let (stop, watcher) = replica.watch_term().await;
    let epoch = replica.fence.leading().unwrap().epoch().cloned();
    let renewed = replica.server.changes("leases").len();
    let mut work = JoinSet::new();
    for _ in 0..2 {
        // Blocks both worker threads for longer than the fence stays open.
        work.spawn(async { std::thread::sleep(Duration::from_secs(3)) });
    }
    for _ in 0..10_000 {
        work.spawn(async {
            burn(Duration::from_micros(250));
            tokio::task::yield_now().await;
            burn(Duration::from_micros(250));
        });
    }
    let begun = Instant::now();
    work.join_all().await;
    assert!(
        begun.elapsed() > Duration::from_secs(4),
        "the runtime was not saturated: {:?}",
        begun.elapsed()
    );
    let _ = stop.send(());
    assert!(!watcher.join().unwrap(), "the fence closed");
    assert_eq!(replica.fence.leading().unwrap().epoch().cloned(), epoch);
    assert!(
        replica.server.changes("leases").len() > renewed + 3,
        "renewals stopped"
    );
    replica.drain.finish();
    replica.shutdown.cancel();
    assert_eq!(exit.await, ExitReason::Requested);
    assert_eq!(
        replica.server.get("leases", LEASE).unwrap()["spec"]["holderIdentity"],
        "",
        "the lease was not released"
    );
}

#[tokio::test]
async fn process_fails_when_its_lease_is_lost() {
    let replica = Replica::new();
    let exit = replica.start_elector();
    replica.fence.opened().await;
    replica.server.edit("leases", LEASE, |lease| {
        lease["spec"]["holderIdentity"] = json!("host_2")
    });
    assert_eq!(exit.await, ExitReason::Failed);
    assert_eq!(replica.fence.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn process_fails_when_its_elector_cannot_start() {
    let mut replica = Replica::new();
    replica.config.auth_info.token_file = Some("/missing".into());
    assert_eq!(replica.start_elector().await, ExitReason::Failed);
}
