//! How a leader stops: it hands over on SIGTERM, or it loses its Lease.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use harness::objects::{delete, patch};
use harness::release::{LEASE, Release};
use harness::wait::eventually;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;

use crate::fixture::TestEnv;

const LIMIT: Duration = Duration::from_secs(60);
const HANDOVERS: usize = 20;
/// From the release of the Lease to its next holder.
const HANDOVER: Duration = Duration::from_millis(500);
/// Keeps the object of a Pod that has terminated, so that its exit code can be read.
const FINALIZER: &str = "test.obol.org/keep";

#[test]
fn leader_exits_with_0_and_hands_over_within_500_ms_on_sigterm() {
    TestEnv::run(async |env| {
        let release = env.install(&["replicaCount=3"]).await;
        let mut times = Vec::new();
        for _ in 0..HANDOVERS {
            release.wait_ready(3, LIMIT).await.unwrap();
            let leader = release.wait_leader(None, LIMIT).await.unwrap();
            let holders = Holders::watch(release.lease_api()).await;
            keep(&release.pod_api(), &leader, true).await;
            delete(&release.pod_api(), &leader).await.unwrap();
            let next = release.wait_leader(Some(&leader), LIMIT).await.unwrap();
            assert_eq!(exit_code(&release, &leader).await, 0, "{leader}");
            keep(&release.pod_api(), &leader, false).await;
            times.push(holders.handover(&leader, &next).await);
        }
        times.sort();
        println!(
            "handovers: median {:?}, longest {:?}",
            times[HANDOVERS / 2],
            times[HANDOVERS - 1]
        );
        assert!(times.iter().all(|time| *time <= HANDOVER), "{times:?}");
    });
}

#[test]
fn leader_exits_with_1_when_another_client_takes_its_lease() {
    TestEnv::run(async |env| {
        let release = env.install(&["replicaCount=2"]).await;
        let leader = release.wait_leader(None, LIMIT).await.unwrap();
        let taken =
            json!({ "spec": { "holderIdentity": "another-client", "leaseDurationSeconds": 2 } });
        patch(&release.lease_api(), LEASE, taken).await.unwrap();
        let what = format!("{leader} has restarted its container");
        let code = eventually(&what, LIMIT, async || {
            let pod = release.pod_api().get(&leader).await?;
            terminated(&pod, |status| status.last_state.as_ref())
        })
        .await;
        assert_eq!(code, 1);
        release.wait_leader(None, LIMIT).await.unwrap();
    });
}

/// The holders of the Lease, and since when each of them held it.
struct Holders {
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Holders {
    /// Starts to watch, and returns once the present holder is known.
    async fn watch(leases: Api<Lease>) -> Self {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let watch = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let parameters = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
                // The caller waits for the first event, which limits how long this may take.
                let mut events = loop {
                    match leases.watch(&parameters, "0").await {
                        Ok(events) => break events.into_stream().boxed(),
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                };
                while let Ok(Some(event)) = events.try_next().await {
                    if let WatchEvent::Added(lease) | WatchEvent::Modified(lease) = event {
                        let holder = lease
                            .spec
                            .and_then(|spec| spec.holder_identity)
                            .unwrap_or_default();
                        seen.lock().unwrap().push((Instant::now(), holder));
                    }
                }
            }
        });
        let holders = Self { seen, watch };
        eventually("the watch shows the Lease", LIMIT, async || {
            let seen = holders.seen.lock().unwrap();
            seen.first().map(drop).ok_or("no event")
        })
        .await;
        holders
    }

    /// How long no replica held the Lease between two holders, the first of which released it.
    async fn handover(&self, from: &str, to: &str) -> Duration {
        let what = format!("the watch shows that {to} holds the Lease");
        eventually(&what, LIMIT, async || {
            let seen = self.seen.lock().unwrap();
            match seen.last() {
                Some((_, holder)) if holder == to => Ok(()),
                last => Err(format!("{last:?}")),
            }
        })
        .await;
        let mut seen = self.seen.lock().unwrap().clone();
        seen.dedup_by(|later, earlier| later.1 == earlier.1);
        let holders: Vec<&str> = seen.iter().map(|(_, holder)| holder.as_str()).collect();
        assert_eq!(
            holders,
            [from, "", to],
            "the Lease must be released, and taken once"
        );
        seen[2].0 - seen[1].0
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Keeps the object of a Pod when it is deleted, or lets it go.
async fn keep(pods: &Api<Pod>, pod: &str, keep: bool) {
    let finalizers: &[&str] = if keep { &[FINALIZER] } else { &[] };
    let change = json!({ "metadata": { "finalizers": finalizers } });
    patch(pods, pod, change).await.unwrap();
}

/// Exit code of the container of a Pod that is being deleted.
async fn exit_code(release: &Release, pod: &str) -> i32 {
    let what = format!("the container of {pod} has terminated");
    eventually(&what, LIMIT, async || {
        let pod = release.pod_api().get(pod).await?;
        terminated(&pod, |status| status.state.as_ref())
    })
    .await
}

/// Exit code of a Pod's container in one of its states.
fn terminated(
    pod: &Pod,
    state: impl Fn(&ContainerStatus) -> Option<&ContainerState>,
) -> anyhow::Result<i32> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let status = statuses.and_then(|statuses| statuses.first());
    let terminated = status.and_then(|status| state(status)?.terminated.as_ref());
    let terminated = terminated.ok_or_else(|| anyhow::anyhow!("container status {status:?}"))?;
    Ok(terminated.exit_code)
}
