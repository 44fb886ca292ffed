//! What becomes of the process with its elector, and that nothing in the process can hold the elector up.
//!
//! On a port of this machine and in real time: what is shown here is that threads do not wait for each other.

use std::time::Instant;

use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::leader::elector::tests::server::{NAMESPACE, Server};

const LEASE: &str = "controller";

/// A replica with a Lease of 3 s, whose fence reaches 2 s.
struct Replica {
    server: Server,
    config: kube::Config,
    fence: Fence,
    drain: Drain,
    leave: CancellationToken,
}

impl Replica {
    fn new() -> Self {
        let server = Server::start();
        let address = format!("http://{}", server.link().listen());
        Self {
            server,
            config: kube::Config::new(address.parse().unwrap()),
            fence: Fence::closed(Clock::start()),
            drain: Drain::default(),
            leave: CancellationToken::new(),
        }
    }

    fn elector(&self) -> Elector {
        Elector {
            config: Config {
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
            drain_budget: DRAIN_BUDGET,
            metrics: Metrics::new(LEASE).unwrap().election,
            health: Arc::new(Health::new(None)),
        }
    }

    /// Starts the elector as the process does.
    fn start(&self) -> impl Future<Output = ExitReason> + Send + 'static {
        run_elected(self.elector(), self.config.clone(), self.leave.clone()).unwrap()
    }

    /// Watches over the term on a thread of its own, until it is told to stop. Says whether the fence has closed.
    async fn watch_over(&self) -> (oneshot::Sender<()>, std::thread::JoinHandle<bool>) {
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
async fn nothing_that_a_reconciler_does_can_delay_a_renewal() {
    let replica = Replica::new();
    let end = replica.start();
    let (stop, watcher) = replica.watch_over().await;
    let epoch = replica.fence.leading().unwrap().epoch().cloned();
    let renewed = replica.server.changes("leases").len();
    let mut work = JoinSet::new();
    for _ in 0..2 {
        // Both workers are blocked for longer than the fence reaches.
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
    assert!(!watcher.join().unwrap(), "the fence has closed");
    assert_eq!(replica.fence.leading().unwrap().epoch().cloned(), epoch);
    assert!(
        replica.server.changes("leases").len() > renewed + 3,
        "renewals went on"
    );
    replica.drain.finish();
    replica.leave.cancel();
    assert_eq!(end.await, ExitReason::Requested);
    assert_eq!(
        replica.server.get("leases", LEASE).unwrap()["spec"]["holderIdentity"],
        "",
        "it was released"
    );
}

#[tokio::test]
async fn a_leader_that_loses_its_lease_ends_the_process_by_force() {
    let replica = Replica::new();
    let end = replica.start();
    replica.fence.opened().await;
    replica.server.edit("leases", LEASE, |lease| {
        lease["spec"]["holderIdentity"] = json!("host_2")
    });
    assert_eq!(end.await, ExitReason::Failed);
    assert_eq!(replica.fence.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn an_elector_that_cannot_go_on_ends_the_process_by_force() {
    let mut replica = Replica::new();
    replica.config.auth_info.token_file = Some("/a/file/that/is/not/there".into());
    assert_eq!(replica.start().await, ExitReason::Failed);
}
