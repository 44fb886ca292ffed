//! One write to the Lease, and what its answer means to the candidate.
//!
//! It does not decide what to write: [`super::lease_object`] builds the object. It never repeats a
//! write: the candidate hedges and retries, because it has to know when each write was sent.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::ElectorEvent;
use crate::leader::candidate::{Input, WriteId};
use crate::metrics::{ElectionMetrics, RenewError};
use crate::telemetry::causes;

/// Writes one Lease.
pub(super) struct LeaseWriter {
    pub(super) api: Api<LeaseObject>,
    /// How long a write may stay unanswered. A slow write may still succeed, so it is kept that
    /// long: the candidate has sent a second one on another connection long before.
    pub(super) budget: Duration,
    pub(super) metrics: ElectionMetrics,
}

impl LeaseWriter {
    /// Creates the Lease. Here a 404 means that its namespace does not exist.
    pub(super) fn create_lease(
        &self,
        write_id: WriteId,
        object: LeaseObject,
    ) -> BoxFuture<'static, ElectorEvent> {
        let api = self.api.clone();
        let write = async move { api.create(&PostParams::default(), &object).await };
        self.send(write_id, &[409], write)
    }

    /// Replaces the Lease if it still has the version of the object. Here a 404 means that it was
    /// deleted.
    pub(super) fn update_lease(
        &self,
        write_id: WriteId,
        object: LeaseObject,
    ) -> BoxFuture<'static, ElectorEvent> {
        let api = self.api.clone();
        let write = async move {
            api.replace(&object.name_any(), &PostParams::default(), &object)
                .await
        };
        self.send(write_id, &[409, 404], write)
    }

    /// `conflicts` are the status codes that prove that the Lease is not what the candidate
    /// believes: it must read it.
    fn send(
        &self,
        write_id: WriteId,
        conflicts: &'static [u16],
        write: impl Future<Output = Result<LeaseObject, kube::Error>> + Send + 'static,
    ) -> BoxFuture<'static, ElectorEvent> {
        let (budget, metrics) = (self.budget, self.metrics.clone());
        async move {
            let begun = Instant::now();
            match timeout(budget, write).await {
                Ok(Ok(lease)) => ElectorEvent::Written(write_id, Box::new(lease), begun.elapsed()),
                Ok(Err(kube::Error::Api(status))) if conflicts.contains(&status.code) => {
                    metrics.renewal_failed(RenewError::Conflict);
                    ElectorEvent::Input(Input::Conflict(write_id))
                }
                Ok(Err(error)) => {
                    metrics.renewal_failed(match error {
                        kube::Error::Api(_) => RenewError::Refused,
                        _ => RenewError::Unreachable,
                    });
                    warn!(error = %causes(&error), "failed to write lease");
                    ElectorEvent::Input(Input::OutcomeUnknown(write_id))
                }
                Err(_) => {
                    metrics.renewal_failed(RenewError::Timeout);
                    warn!(
                        seconds = budget.as_secs(),
                        "failed to write lease: the API server did not answer in time"
                    );
                    ElectorEvent::Input(Input::OutcomeUnknown(write_id))
                }
            }
        }
        .boxed()
    }
}
