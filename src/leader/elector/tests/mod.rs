//! The driver against an API server in memory, on time that passes only when nothing else can happen.
//!
//! A Lease of 30 s, a deadline of 20 s and a period of 5 s, so that a fence reaches 27 s. Each test states one promise to
//! whoever runs replicas, or one fault that must not break it:
//! - [`renewals`]: leadership is kept
//! - [`handovers`]: leadership passes on, and is lost
//! - [`observations`]: how a standby learns of it, and what that costs
//! - [`marks`]: what Pods have to do with it

mod handovers;
mod marks;
mod observations;
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
/// What the clock that no test can stop adds, and the ways of a few requests.
const SLACK: Duration = Duration::from_millis(200);

/// One replica, and the world as it sees it.
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

    /// A replica in a Pod of its own, whose work comes to rest at once when it is asked to.
    fn with(server: &Server, name: &str, change: impl FnOnce(&mut Elector, &Link)) -> Self {
        let (link, fence, drain) = (
            server.link(),
            Fence::closed(Clock::start()),
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
    async fn leads(&self) -> Epoch {
        timeout(300 * SECOND, self.fence.opened())
            .await
            .expect("it never leads")
            .epoch()
            .unwrap()
            .clone()
    }

    /// The same work loop as in the operator, as far as an elector can see it.
    fn rests_when_asked(&self) -> &Self {
        let drain = self.drain.clone();
        tokio::spawn(async move {
            drain.begun().await;
            drain.finish();
        });
        self
    }

    /// The instant at which its present term ends, once it has.
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

    /// Ends without a word, as a machine does that loses its power.
    fn dies(&self) {
        self.elector.abort();
        self.fence.close();
    }

    async fn departs(self) -> ElectorExit {
        timeout(300 * SECOND, self.elector)
            .await
            .expect("it never ends")
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

/// Two replicas, of which the first leads and the second has seen it.
async fn pair(server: &Server) -> (Replica, Replica) {
    let leader = Replica::start(server, "pod-a");
    leader.leads().await;
    let standby = Replica::start(server, "pod-b");
    sleep(SECOND).await;
    assert!(!standby.is_leading());
    (leader, standby)
}

/// When the Lease was last changed.
fn last_change(server: &Server) -> Instant {
    server
        .changes("leases")
        .last()
        .expect("there is a lease")
        .at
}
