//! What the elector knows of Pods and does to them: the mark of the leader, and the kubelet's word that a container ended.
//!
//! A container is known by a token that it drew at its start and wrote into its termination log: the kubelet repeats that
//! text in the Pod's status once this very container has terminated, and never before. So no clock and no container id has
//! to be compared, and a Pod that vanished or was declared failed proves nothing.

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

/// Says who leads, to people and to Services.
const ROLE_LABEL: &str = "obol.org/role";
/// The role of whoever leads. Nobody else has one.
const LEADER: &str = "leader";
/// Uid of the Lease whose leader it is.
const LEASE_ANNOTATION: &str = "obol.org/lease";
/// Of the Pods of a ReplicaSet, the one that costs most is deleted last.
const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
const DELETION_COST: &str = "100";
/// Where Kubernetes has every container write its last words.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// What those words begin with.
const LAST_WORDS: &str = "serviceoffer-controller container ";
/// A mark that is unanswered for so long is asked for once more, on another connection; the first keeps its chance.
const MARK_HEDGE: Duration = Duration::from_millis(500);
/// How long one may take: as long as an admission webhook may.
const MARK_BUDGET: Duration = Duration::from_secs(30);
/// Unanswered marks under way at once.
const MARKS_IN_FLIGHT: usize = 3;
/// The pause after a connection broke.
const MARK_PAUSE: Duration = Duration::from_millis(100);
/// How long any other request may take.
const BUDGET: Duration = Duration::from_secs(3);
/// Seconds after which the API server ends a watch.
const WATCH_SECONDS: u32 = 60;
/// The longest pause between two attempts to watch.
const RETRY: Duration = Duration::from_secs(2);
/// The same where the role allows no watch.
const RETRY_FORBIDDEN: Duration = Duration::from_secs(60);

/// Draws the token of this container and writes it where the kubelet finds it. `None` where no kubelet looks.
#[must_use]
pub fn write_termination_log() -> Option<String> {
    let token = format!("{:032x}", rand::random::<u128>());
    // Never created: a file that is not there is one that nobody reads.
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(TERMINATION_LOG)
        .and_then(|mut log| write!(log, "{LAST_WORDS}{token}"));
    match written {
        Ok(()) => Some(token),
        Err(error) => {
            debug!(%error, "no termination log: the end of this container will not be known before its lease runs out");
            None
        }
    }
}

/// The Pods of one namespace, as one replica sees them.
#[derive(Clone)]
pub(super) struct Pods {
    pub(super) api: Api<Pod>,
    /// Name of the Pod of this replica.
    pub(super) own: String,
}

impl Pods {
    /// Marks the Pod of this replica as that of the leader of a Lease. It is done once the API server has answered: a leader
    /// that opened its fence without knowing would be overlooked by a candidate that finds no Lease. An API server that says
    /// no is told of, and if it goes on to say so it is not waited for: a leader without a mark is better than none.
    pub(super) async fn mark(&self, lease: &str) {
        let metadata = json!({
            "labels": { ROLE_LABEL: LEADER },
            "annotations": { DELETION_COST_ANNOTATION: DELETION_COST, LEASE_ANNOTATION: lease },
        });
        let mut attempts = FuturesUnordered::new();
        let (begun, mut told) = (Instant::now(), false);
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
                    if is_busy(&status) && begun.elapsed() < BUDGET =>
                {
                    sleep(MARK_PAUSE).await;
                }
                Ok(Some(Ok(Err(error @ kube::Error::Api(_))))) => {
                    return warn!(error = %causes(&error), "the pod of the leader is not marked");
                }
                Ok(Some(Ok(Err(error)))) => {
                    debug!(error = %causes(&error), "the pod of the leader is not marked yet");
                    sleep(MARK_PAUSE).await;
                }
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
            if !told && begun.elapsed() >= BUDGET {
                told = true;
                warn!(
                    "the API server does not answer: nothing is begun before the pod of the leader is marked"
                );
            }
        }
    }

    /// Takes the mark from every Pod that `outdated` chooses.
    pub(super) async fn unmark(&self, outdated: impl Fn(&str) -> bool) {
        let unmarked = async {
            // A Pod that changes meanwhile may have been marked anew: it is looked at once more.
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
            Ok(Err(error)) => warn!(error = %causes(&error), "an outdated mark of a leader stays"),
            Err(_) => warn!(
                "the API server did not answer in time: an outdated mark of a leader may stay"
            ),
        }
    }

    /// The other Leases by whose uids other Pods, not known to have ended, are marked as leaders'. An empty one stands for any:
    /// for a mark that names none, or if that cannot be told.
    pub(super) async fn rivals(&self, lease: &str) -> BTreeSet<String> {
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
                    .filter(|pod| pod.name_any() != self.own && !has_ended(pod));
                others
                    .map(marked_for)
                    .filter(|other| other != lease)
                    .collect()
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => BTreeSet::new(),
            Ok(Err(error)) => {
                warn!(error = %causes(&error), "whether another replica leads by a lease that was deleted is not known");
                any
            }
            Err(_) => {
                warn!(
                    "whether another replica leads by a lease that was deleted is not known: no answer in time"
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

    /// Tells of every container of the holder's Pod that has terminated, whoever the holder is.
    pub(super) async fn attend(
        self,
        mut holder: watch::Receiver<Option<String>>,
        events: mpsc::Sender<ElectorEvent>,
    ) {
        loop {
            let name = holder.borrow_and_update().clone();
            let attending = async {
                match name {
                    Some(name) => self.attend_to(&name, &events).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = attending => return,
                changed = holder.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Ends when nobody listens any more.
    async fn attend_to(&self, name: &str, events: &mpsc::Sender<ElectorEvent>) {
        let mut version = None;
        while !events.is_closed() {
            let begun = Instant::now();
            let pause = match self.watch(name, &mut version, events).await {
                Ok(()) if begun.elapsed() > RETRY => Duration::ZERO,
                Ok(()) => RETRY,
                Err(kube::Error::Api(status)) if status.code == 403 => RETRY_FORBIDDEN,
                Err(error) => {
                    debug!(error = %causes(&error), "the watch of the holder's pod broke");
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
        let tell = async |pod: &Pod| {
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
                    tell(pod).await;
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
                    tell(&pod).await;
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

/// Whether an API server that says no may say yes in a moment.
fn is_busy(status: &Status) -> bool {
    status.code == 429 || status.code >= 500
}

/// Tokens of the containers of a Pod that have terminated.
fn terminated(pod: &Pod) -> Vec<String> {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let states = statuses
        .flat_map(|status| [&status.state, &status.last_state])
        .flatten();
    let words =
        states.filter_map(|state: &ContainerState| state.terminated.as_ref()?.message.as_deref());
    words
        .filter_map(|words| Some(words.trim().strip_prefix(LAST_WORDS)?.to_owned()))
        .collect()
}

/// Whether no container of a Pod runs, by the kubelet's word on each of them.
fn has_ended(pod: &Pod) -> bool {
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
    fn a_container_that_terminated_is_known_by_its_token_as_long_as_the_kubelet_remembers_it() {
        let running = json!({ "running": {} });
        let first = format!("{LAST_WORDS}0a1b\n");
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
    fn a_pod_that_is_declared_failed_has_not_ended_as_long_as_a_container_is_not_reported_terminated()
     {
        assert!(!has_ended(&pod(json!([]))));
        assert!(!has_ended(&Pod::default()));
        assert_eq!(terminated(&pod(json!([]))), [""; 0]);
        let running = status(json!({ "running": {} }), ended("x"));
        assert!(!has_ended(&pod(json!([running.clone()]))));
        assert!(!has_ended(&pod(json!([
            running,
            status(ended("x"), json!({}))
        ]))));
        assert!(has_ended(&pod(json!([status(ended("x"), json!({}))]))));
    }
}
