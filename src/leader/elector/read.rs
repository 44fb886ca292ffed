//! One read of the Lease, and what its answer means to the candidate.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::Api;
use tokio::time::timeout;
use tracing::warn;

use super::ElectorEvent;
use crate::leader::candidate::{AsOf, Input};
use crate::leader::clock::Clock;
use crate::telemetry::causes;

/// How long a read of one small object may take.
const READ_BUDGET: Duration = Duration::from_secs(3);

/// Reads one Lease.
#[derive(Clone)]
pub(super) struct LeaseReader {
    pub(super) api: Api<LeaseObject>,
    pub(super) name: String,
    pub(super) clock: Clock,
}

impl LeaseReader {
    /// Reads the current Lease from the API server, not from its cache.
    pub(super) async fn read(&self) -> ElectorEvent {
        let asked = self.clock.moment();
        match timeout(READ_BUDGET, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => ElectorEvent::Read(Box::new(lease), asked),
            Ok(Ok(None)) => ElectorEvent::Input(Input::Absent(AsOf::Asked(asked))),
            Ok(Err(error)) => {
                warn!(error = %causes(&error), "failed to read lease");
                ElectorEvent::Input(Input::ReadFailed)
            }
            Err(_) => {
                warn!(
                    seconds = READ_BUDGET.as_secs(),
                    "failed to read lease: the API server did not answer in time"
                );
                ElectorEvent::Input(Input::ReadFailed)
            }
        }
    }
}
