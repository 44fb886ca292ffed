//! One look at the Lease as the API server has it at this moment.

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
const BUDGET: Duration = Duration::from_secs(3);

/// Looks at one Lease.
#[derive(Clone)]
pub(super) struct LeaseReader {
    pub(super) api: Api<LeaseObject>,
    pub(super) name: String,
    pub(super) clock: Clock,
}

impl LeaseReader {
    /// How the Lease stands at this moment.
    pub(super) async fn read(&self) -> ElectorEvent {
        let asked = self.clock.moment();
        match timeout(BUDGET, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => ElectorEvent::Read(Box::new(lease), asked),
            Ok(Ok(None)) => ElectorEvent::Input(Input::Absent(AsOf::Asked(asked))),
            Ok(Err(error)) => {
                warn!(error = %causes(&error), "the lease was not read");
                ElectorEvent::Input(Input::ReadFailed)
            }
            Err(_) => {
                warn!(
                    seconds = BUDGET.as_secs(),
                    "the API server did not answer a read of the lease"
                );
                ElectorEvent::Input(Input::ReadFailed)
            }
        }
    }
}
