//! Kubernetes Events on the Lease: the same reason and words as client-go's leader election.
//!
//! Events are best effort: publishing one has a short budget and never fails the elector.

use std::time::Duration;

pub(super) use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::timeout;
use tracing::debug;

use crate::telemetry::causes;

/// How long publishing one Event may take.
const PUBLISH_BUDGET: Duration = Duration::from_secs(1);
/// Reporting controller of the Events.
const REPORTER: &str = "serviceoffer-controller";

/// Publishes the Events of one candidate.
pub(super) struct EventPublisher {
    recorder: Recorder,
    identity: String,
}

impl EventPublisher {
    pub(super) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: REPORTER.into(),
            instance: Some(identity.into()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            identity: identity.into(),
        }
    }

    /// Publishes `<identity> <what>`. The recorder counts Events of the same action as repetitions
    /// of the first, so each kind has its own.
    pub(super) fn publish(
        &self,
        action: &str,
        what: &str,
        lease: ObjectReference,
    ) -> impl Future<Output = ()> + Send + 'static {
        let recorder = self.recorder.clone();
        let event = Event {
            type_: EventType::Normal,
            reason: "LeaderElection".into(),
            note: Some(format!("{} {what}", self.identity)),
            action: action.into(),
            secondary: None,
        };
        async move {
            match timeout(PUBLISH_BUDGET, recorder.publish(&event, &lease)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(error = %causes(&error), "failed to publish event"),
                Err(_) => debug!("failed to publish event: no answer in time"),
            }
        }
    }
}

/// Reference to the Lease, for the Events about it.
pub(super) fn lease_reference(namespace: &str, name: &str, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("coordination.k8s.io/v1".into()),
        kind: Some("Lease".into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid,
        ..ObjectReference::default()
    }
}
