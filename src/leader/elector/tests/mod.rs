//! The elector against an in-memory API server, on paused time that advances only when every task
//! is idle.
//!
//! Lease duration 30 s, renew deadline 20 s, retry period 5 s, so a fence lasts 27 s after a
//! renewal. Each test states one guarantee to operators, or one fault that must not break it:
//! - [`renewals`]: leadership is kept
//! - [`handovers`]: leadership is handed over or lost
//! - [`observations`]: how a standby learns of changes, and at what cost
//! - [`pods`]: the leader's Pod mark and early takeover

mod handovers;
mod observations;
mod pods;
mod renewals;
pub(crate) mod server;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::server::{Fault, HOP, Link, NAMESPACE, Server};
use super::{Elector, ElectorExit};
use crate::health::Health;
use crate::leader::candidate::{ElectionConfig, Exit};
use crate::leader::clock::Clock;
use crate::leader::lease::Epoch;
use crate::leader::{Drain, Fence};
use crate::metrics::Metrics;

const LEASE: &str = "controller";
const SECOND: Duration = Duration::from_secs(1);
/// Allowance for the latency of a few requests.
const SLACK: Duration = Duration::from_millis(200);

/// One replica and its connection to the API server.
struct Replica {
    link: Link,
    fence: Fence,
    drain: Drain,
    metrics: Metrics,
    leave: CancellationToken,
    elector: JoinHandle<ElectorExit>,
}

impl Replica {
    fn start(server: &Server, name: &str) -> Self {
        Self::with(server, name, |_, _| {})
    }

    /// A replica in its own Pod.
    fn with(server: &Server, name: &str, change: impl FnOnce(&mut Elector, &Link)) -> Self {
        let (link, fence, drain) = (
            server.link(),
            Fence::closed(Clock::paused()),
            Drain::default(),
        );
        let (metrics, leave) = (Metrics::new(LEASE).unwrap(), CancellationToken::new());
        let mut elector = Elector {
            config: ElectionConfig {
                identity: name.into(),
                pod_uid: Some(format!("uid of {name}")),
                instance: Some(token(name)),
                marks: true,
                lease_duration: 30 * SECOND,
                renew_deadline: 20 * SECOND,
                retry_period: 5 * SECOND,
            },
            name: LEASE.into(),
            namespace: NAMESPACE.into(),
            pod_namespace: NAMESPACE.into(),
            early_takeover: true,
            fence: fence.clone(),
            drain: drain.clone(),
            drain_budget: 25 * SECOND,
            metrics: metrics.election.clone(),
            health: Arc::new(Health::new(None)),
        };
        change(&mut elector, &link);
        if server.get("pods", name).is_none() {
            server.edit("pods", name, |pod| *pod = self::pod(name));
        }
        let elector = tokio::spawn(elector.run(link.client(), leave.clone().cancelled_owned()));
        Self {
            link,
            fence,
            drain,
            metrics,
            leave,
            elector,
        }
    }

    /// Waits until it leads.
    async fn becomes_leader(&self) -> Epoch {
        timeout(300 * SECOND, self.fence.opened())
            .await
            .expect("it never became leader")
            .epoch()
            .unwrap()
            .clone()
    }

    /// Finishes every drain at once, like an operator with no work in flight.
    fn drains_when_asked(&self) -> &Self {
        let drain = self.drain.clone();
        tokio::spawn(async move {
            drain.begun().await;
            drain.finish();
        });
        self
    }

    /// Resolves to the instant at which its current term ended.
    fn end_of_term(&self) -> JoinHandle<Instant> {
        let leading = self.fence.leading().expect("it leads");
        tokio::spawn(async move {
            leading.over().await;
            Instant::now()
        })
    }

    fn epoch(&self) -> Option<Epoch> {
        self.fence
            .leading()
            .ok()
            .and_then(|leading| leading.epoch().cloned())
    }

    fn is_leading(&self) -> bool {
        !self.fence.remaining().is_zero()
    }

    /// Stops without a release, like a machine that loses power.
    fn crash(&self) {
        self.elector.abort();
        self.fence.close();
    }

    async fn exited(self) -> ElectorExit {
        timeout(300 * SECOND, self.elector)
            .await
            .expect("it never exited")
            .unwrap()
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series))
            .unwrap_or_else(|| panic!("{series}: {text}"));
        line.trim().parse().unwrap()
    }

    fn transitions(&self) -> f64 {
        self.metric("serviceoffer_leader_transitions_total ")
    }
}

fn token(name: &str) -> String {
    format!("token of {name}")
}

fn pod(name: &str) -> Value {
    let status = json!({ "name": "controller", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": { "running": {} } });
    json!({ "metadata": { "name": name, "namespace": NAMESPACE }, "status": { "containerStatuses": [status] } })
}

fn holder(lease: Option<&Value>) -> Option<&str> {
    lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str())
}

/// A leader, and a standby that has seen it lead.
async fn pair(server: &Server) -> (Replica, Replica) {
    let leader = Replica::start(server, "pod-a");
    leader.becomes_leader().await;
    let standby = Replica::start(server, "pod-b");
    sleep(SECOND).await;
    assert!(!standby.is_leading());
    (leader, standby)
}

/// When the Lease last changed.
fn last_change(server: &Server) -> Instant {
    server
        .changes("leases")
        .last()
        .expect("the lease exists")
        .at
}
