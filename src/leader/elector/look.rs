//! One look at the Lease as the API server has it at this moment.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as StoredLease;
use kube::Api;
use tokio::time::timeout;
use tracing::warn;

use super::Event;
use crate::leader::clock::Clock;
use crate::leader::lease::{AsOf, Input};
use crate::telemetry::causes;

/// How long a read of one small object may take.
const BUDGET: Duration = Duration::from_secs(3);

/// Looks at one Lease.
#[derive(Clone)]
pub(super) struct Look {
    pub(super) api: Api<StoredLease>,
    pub(super) name: String,
    pub(super) clock: Clock,
}

impl Look {
    /// How the Lease stands at this moment.
    pub(super) async fn look(&self) -> Event {
        let asked = self.clock.moment();
        match timeout(BUDGET, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => Event::Read(Box::new(lease), asked),
            Ok(Ok(None)) => Event::Input(Input::Absent(AsOf::Asked(asked))),
            Ok(Err(error)) => {
                warn!(error = %causes(&error), "the lease was not read");
                Event::Input(Input::ReadFailed)
            }
            Err(_) => {
                warn!(
                    seconds = BUDGET.as_secs(),
                    "the API server did not answer a read of the lease"
                );
                Event::Input(Input::ReadFailed)
            }
        }
    }
}
