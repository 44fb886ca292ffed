//! How a term of leadership ends: handed over in good order, or lost.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use harness::wait::eventually;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;

use crate::objects::{delete, patch};
use crate::release::{LEASE, Release};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
const HANDOVERS: usize = 20;
/// From the release of the Lease to its next holder.
const HANDOVER: Duration = Duration::from_millis(500);
/// Keeps the object of a Pod that has ended, so that its exit code can be read.
const FINALIZER: &str = "test.obol.org/keep";

#[test]
fn a_leader_that_is_asked_to_end_exits_with_0_and_hands_over_within_half_a_second() {
    Stage::play(async |stage| {
        let release = stage.install(&["replicaCount=3"]).await;
        let mut times = Vec::new();
        for _ in 0..HANDOVERS {
            release.ready(3, LIMIT).await;
            let leader = release.leader(None, LIMIT).await;
            let holders = Holders::watch(release.lease_api()).await;
            keep(&release.pod_api(), &leader, true).await;
            delete(&release.pod_api(), &leader).await;
            let next = release.leader(Some(&leader), LIMIT).await;
            assert_eq!(
                exit_code(&release, &leader).await,
                0,
                "{leader} ended in good order"
            );
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
fn a_leader_whose_lease_is_taken_exits_with_1() {
    Stage::play(async |stage| {
        let release = stage.install(&["replicaCount=2"]).await;
        let leader = release.leader(None, LIMIT).await;
        let taken =
            json!({ "spec": { "holderIdentity": "somebody-else", "leaseDurationSeconds": 2 } });
        patch(&release.lease_api(), LEASE, taken).await;
        let code = eventually("the leader has ended", LIMIT, async || {
            let pod = release
                .pod_api()
                .get(&leader)
                .await
                .map_err(|error| error.to_string())?;
            terminated(&pod, |status| status.last_state.as_ref()).ok_or("it has not".to_owned())
        })
        .await;
        assert_eq!(code, 1);
        release.leader(None, LIMIT).await;
    });
}

/// Who has held the Lease, and since when.
struct Holders {
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Holders {
    /// Watches, and has seen who holds the Lease to begin with.
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
        eventually("the Lease is seen", LIMIT, async || {
            match holders.seen.lock().unwrap().is_empty() {
                true => Err("it is not"),
                false => Ok(()),
            }
        })
        .await;
        holders
    }

    /// How long nobody held the Lease between two holders, the first of which released it.
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
            "the Lease was released, and taken once"
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
    patch(pods, pod, change).await;
}

/// Exit code of the container of a Pod that is being deleted.
async fn exit_code(release: &Release, pod: &str) -> i32 {
    eventually(&format!("{pod} has ended"), LIMIT, async || {
        let pod = release
            .pod_api()
            .get(pod)
            .await
            .map_err(|error| error.to_string())?;
        terminated(&pod, |status| status.state.as_ref()).ok_or("it has not".to_owned())
    })
    .await
}

fn terminated(
    pod: &Pod,
    state: impl Fn(
        &k8s_openapi::api::core::v1::ContainerStatus,
    ) -> Option<&k8s_openapi::api::core::v1::ContainerState>,
) -> Option<i32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(state(status)?.terminated.as_ref()?.exit_code)
}
