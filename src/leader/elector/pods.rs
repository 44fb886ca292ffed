//! The elector's view of Pods: it labels the leader's Pod, and learns from the kubelet that a
//! container has terminated.
//!
//! Each container draws a random token at startup and writes it into its termination log. The
//! kubelet copies that text into the Pod's status once this very container has terminated, never
//! before. So no clocks and no container ids have to be compared. A Pod that was deleted, or that
//! was set to `Failed` by the node controller, proves nothing.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::ElectorEvent;
use crate::leader::candidate::Input;
use crate::leader::clock::jitter;
use crate::telemetry::causes;

/// Marks the leader's Pod, for people and for Services.
const ROLE_LABEL: &str = "obol.org/role";
/// Role of the leader. Standbys have none.
const LEADER: &str = "leader";
/// Uid of the Lease that the leader holds.
const LEASE_ANNOTATION: &str = "obol.org/lease";
/// A ReplicaSet that scales down deletes the Pod with the highest cost last.
const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
const DELETION_COST: &str = "100";
/// Default `terminationMessagePath` of a container.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Prefix of the termination message, before the token.
const MESSAGE_PREFIX: &str = "serviceoffer-controller container ";
/// After how long without an answer another patch is sent, on another connection. The first may
/// still succeed.
const MARK_HEDGE: Duration = Duration::from_millis(500);
/// How long one patch may take: the longest timeout of an admission webhook.
const MARK_BUDGET: Duration = Duration::from_secs(30);
/// Unanswered patches in flight at once.
const MARKS_IN_FLIGHT: usize = 3;
/// Delay before repeating a request that failed.
const MARK_PAUSE: Duration = Duration::from_millis(100);
/// How long any other request may take. Also how long a busy API server is asked again before
/// giving up on a mark.
const BUDGET: Duration = Duration::from_secs(3);
/// Seconds after which the API server ends a watch.
const WATCH_SECONDS: u32 = 60;
/// Longest delay before the next watch.
const RETRY: Duration = Duration::from_secs(2);
/// Longest delay before the next watch where RBAC does not allow one.
const RETRY_FORBIDDEN: Duration = Duration::from_secs(60);

/// Draws the token of this container and writes it into its termination log. `None` outside a
/// container.
#[must_use]
pub fn write_termination_log() -> Option<String> {
    let token = format!("{:032x}", rand::random::<u128>());
    // The kubelet creates the file; if it is missing, no kubelet reads it.
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(TERMINATION_LOG)
        .and_then(|mut log| write!(log, "{MESSAGE_PREFIX}{token}"));
    match written {
        Ok(()) => Some(token),
        Err(error) => {
            debug!(%error, "no termination log: early takeover after a crash of this replica is disabled");
            None
        }
    }
}

/// The Pods of all candidates.
#[derive(Clone)]
pub(super) struct Pods {
    pub(super) api: Api<Pod>,
    /// Name of the Pod of this replica.
    pub(super) own: String,
}

impl Pods {
    /// Marks the Pod of this replica as the leader's. Returns once the API server has answered: a
    /// candidate that finds no Lease looks for marked Pods, and must not miss a leader whose fence
    /// is open. A refusal is logged and, if the API server keeps refusing, not waited out: a leader
    /// without a mark is better than no leader.
    pub(super) async fn mark(&self, lease_uid: &str) {
        let metadata = json!({
            "labels": { ROLE_LABEL: LEADER },
            "annotations": { DELETION_COST_ANNOTATION: DELETION_COST, LEASE_ANNOTATION: lease_uid },
        });
        let mut attempts = FuturesUnordered::new();
        let (begun, mut warned) = (Instant::now(), false);
        loop {
            if attempts.len() < MARKS_IN_FLIGHT {
                attempts.push(timeout(
                    MARK_BUDGET,
                    self.patch(&self.own, metadata.clone()),
                ));
            }
            match timeout(MARK_HEDGE, attempts.next()).await {
                Ok(Some(Ok(Ok(())))) => return,
                Ok(Some(Ok(Err(kube::Error::Api(status)))))
                    if is_retryable(&status) && begun.elapsed() < BUDGET =>
                {
                    sleep(MARK_PAUSE).await;
                }
                Ok(Some(Ok(Err(error @ kube::Error::Api(_))))) => {
                    return warn!(error = %causes(&error), "failed to mark the leader pod");
                }
                Ok(Some(Ok(Err(error)))) => {
                    debug!(error = %causes(&error), "failed to mark the leader pod, will retry");
                    sleep(MARK_PAUSE).await;
                }
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
            if !warned && begun.elapsed() >= BUDGET {
                warned = true;
                warn!("the API server does not answer: work starts once the leader pod is marked");
            }
        }
    }

    /// Removes the mark from every Pod for which `outdated` returns true.
    pub(super) async fn unmark(&self, outdated: impl Fn(&str) -> bool) {
        let unmarked = async {
            // A Pod that changed since the list may have been marked again, so after a conflict it
            // is read again.
            while let Some(pod) = self
                .marked()
                .await?
                .into_iter()
                .find(|pod| outdated(&pod.name_any()))
            {
                let metadata = json!({
                    "labels": { ROLE_LABEL: null },
                    "annotations": { DELETION_COST_ANNOTATION: null, LEASE_ANNOTATION: null },
                    "resourceVersion": pod.resource_version(),
                });
                match self.patch(&pod.name_any(), metadata).await {
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                        sleep(MARK_PAUSE).await
                    }
                    other => other?,
                }
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(BUDGET, unmarked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = %causes(&error), "failed to remove an outdated leader mark")
            }
            Err(_) => warn!(
                "failed to remove an outdated leader mark: the API server did not answer in time"
            ),
        }
    }

    /// Uids of other Leases for which other Pods are marked as the leader's, unless all containers
    /// of the Pod have terminated. An empty uid matches any Lease: the mark names none, or the
    /// Pods could not be listed.
    pub(super) async fn rivals(&self, lease_uid: &str) -> BTreeSet<String> {
        let marked_for = |pod: &Pod| {
            pod.annotations()
                .get(LEASE_ANNOTATION)
                .cloned()
                .unwrap_or_default()
        };
        let any = BTreeSet::from([String::new()]);
        match timeout(BUDGET, self.marked()).await {
            Ok(Ok(pods)) => {
                let others = pods
                    .iter()
                    .filter(|pod| pod.name_any() != self.own && !has_terminated(pod));
                others
                    .map(marked_for)
                    .filter(|other| other != lease_uid)
                    .collect()
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => BTreeSet::new(),
            Ok(Err(error)) => {
                warn!(error = %causes(&error), "failed to check whether another replica leads by a deleted lease");
                any
            }
            Err(_) => {
                warn!(
                    "failed to check whether another replica leads by a deleted lease: the API server did not answer in time"
                );
                any
            }
        }
    }

    async fn marked(&self) -> Result<Vec<Pod>, kube::Error> {
        let parameters = ListParams::default().labels(&format!("{ROLE_LABEL}={LEADER}"));
        Ok(self.api.list(&parameters).await?.items)
    }

    async fn patch(&self, name: &str, metadata: serde_json::Value) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        self.api
            .patch_metadata(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Reports every container of the current holder's Pod that has terminated.
    pub(super) async fn watch_holders(
        self,
        mut holder: watch::Receiver<Option<String>>,
        events: mpsc::Sender<ElectorEvent>,
    ) {
        loop {
            let name = holder.borrow_and_update().clone();
            let watching = async {
                match name {
                    Some(name) => self.watch_holder(&name, &events).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = watching => return,
                changed = holder.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Watches one Pod until the elector has ended.
    async fn watch_holder(&self, name: &str, events: &mpsc::Sender<ElectorEvent>) {
        let mut version = None;
        while !events.is_closed() {
            let begun = Instant::now();
            let pause = match self.watch(name, &mut version, events).await {
                Ok(()) if begun.elapsed() > RETRY => Duration::ZERO,
                Ok(()) => RETRY,
                Err(kube::Error::Api(status)) if status.code == 403 => RETRY_FORBIDDEN,
                Err(error) => {
                    debug!(error = %causes(&error), "watch of the lease holder's pod failed, will retry");
                    version = None;
                    RETRY
                }
            };
            sleep(pause / 2 + jitter().of(pause / 2)).await;
        }
    }

    async fn watch(
        &self,
        name: &str,
        version: &mut Option<String>,
        events: &mpsc::Sender<ElectorEvent>,
    ) -> Result<(), kube::Error> {
        let selector = format!("metadata.name={name}");
        let report = async |pod: &Pod| {
            for token in terminated(pod) {
                let _ = events
                    .send(ElectorEvent::Input(Input::ContainerTerminated(token)))
                    .await;
            }
        };
        let from = match version.clone() {
            Some(version) => version,
            None => {
                let list = self
                    .api
                    .list(&ListParams::default().fields(&selector))
                    .await?;
                for pod in &list.items {
                    report(pod).await;
                }
                version
                    .insert(list.metadata.resource_version.unwrap_or_default())
                    .clone()
            }
        };
        let parameters = WatchParams::default()
            .fields(&selector)
            .timeout(WATCH_SECONDS);
        let mut stream = self.api.watch(&parameters, &from).await?.boxed();
        while let Some(event) = stream.try_next().await? {
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => {
                    report(&pod).await;
                    *version = pod.resource_version();
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = Some(bookmark.metadata.resource_version)
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(())
    }
}

/// Whether the same request may succeed a moment later.
fn is_retryable(status: &Status) -> bool {
    status.code == 429 || status.code >= 500
}

/// Tokens of the Pod's terminated containers.
fn terminated(pod: &Pod) -> Vec<String> {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let states = statuses
        .flat_map(|status| [&status.state, &status.last_state])
        .flatten();
    let messages =
        states.filter_map(|state: &ContainerState| state.terminated.as_ref()?.message.as_deref());
    messages
        .filter_map(|message| Some(message.trim().strip_prefix(MESSAGE_PREFIX)?.to_owned()))
        .collect()
}

/// Whether the kubelet reports every container of the Pod as terminated.
fn has_terminated(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let ended = |state: &Option<ContainerState>| {
        state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    };
    !statuses.is_empty() && statuses.iter().all(|status| ended(&status.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(statuses: serde_json::Value) -> Pod {
        let status = json!({ "phase": "Failed", "containerStatuses": statuses });
        serde_json::from_value(json!({ "metadata": { "name": "pod-a" }, "status": status }))
            .unwrap()
    }

    fn status(state: serde_json::Value, last: serde_json::Value) -> serde_json::Value {
        json!({
            "name": "controller", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        })
    }

    fn ended(message: &str) -> serde_json::Value {
        json!({ "terminated": { "exitCode": 137, "message": message } })
    }

    #[test]
    fn terminated_container_is_found_by_its_token() {
        let running = json!({ "running": {} });
        let first = format!("{MESSAGE_PREFIX}0a1b\n");
        assert_eq!(
            terminated(&pod(json!([status(ended(&first), json!({}))]))),
            ["0a1b"]
        );
        assert_eq!(
            terminated(&pod(json!([status(running.clone(), ended(&first))]))),
            ["0a1b"]
        );
        assert_eq!(
            terminated(&pod(json!([status(running, json!({}))]))),
            [""; 0]
        );
        assert_eq!(
            terminated(&pod(json!([status(ended("some other text"), json!({}))]))),
            [""; 0]
        );
    }

    #[test]
    fn failed_pod_has_not_terminated_while_a_container_runs() {
        assert!(!has_terminated(&pod(json!([]))));
        assert!(!has_terminated(&Pod::default()));
        assert_eq!(terminated(&pod(json!([]))), [""; 0]);
        let running = status(json!({ "running": {} }), ended("x"));
        assert!(!has_terminated(&pod(json!([running.clone()]))));
        assert!(!has_terminated(&pod(json!([
            running,
            status(ended("x"), json!({}))
        ]))));
        assert!(has_terminated(&pod(json!([status(ended("x"), json!({}))]))));
    }
}
