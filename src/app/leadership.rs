//! How this replica takes part in the election, and what its outcome means for the process.

use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::build::Parts;
use super::{DRAIN_TIMEOUT, ExitReason, failed};
use crate::cluster::client;
use crate::leader::Drain;
use crate::leader::candidate::{ElectionConfig, Exit};
use crate::leader::elector::{Elector, ElectorExit, write_termination_log};
use crate::telemetry::causes;

/// Starts the election if there is one. Resolves when this replica should exit.
pub(super) fn start(
    parts: &Parts,
    shutdown: CancellationToken,
) -> Result<BoxFuture<'static, ExitReason>> {
    if parts.args.leader_elect {
        return Ok(run_elector(elector(parts), parts.config.clone(), shutdown)?.boxed());
    }
    parts.metrics.election.leads(true);
    Ok(wait_without_election(shutdown, parts.drain.clone()).boxed())
}

fn elector(parts: &Parts) -> Elector {
    let args = &parts.args;
    // Outside a Pod there is no container to report and no Pod to label.
    let in_pod = args.pod_uid.is_some();
    let lease_namespace = args.lease_namespace.clone();
    Elector {
        config: ElectionConfig {
            identity: parts.identity.clone(),
            pod_uid: args.pod_uid.clone(),
            instance: in_pod.then(write_termination_log).flatten(),
            marks: in_pod && args.mark_pod,
            lease_duration: args.lease_duration,
            renew_deadline: args.renew_deadline,
            retry_period: args.retry_period,
        },
        name: args.lease_name.clone(),
        namespace: lease_namespace.unwrap_or_else(|| parts.namespace.clone()),
        pod_namespace: parts.namespace.clone(),
        early_takeover: in_pod && args.early_takeover,
        fence: parts.fence.clone(),
        drain: parts.drain.clone(),
        drain_budget: DRAIN_TIMEOUT,
        metrics: parts.metrics.election.clone(),
        health: Arc::clone(&parts.health),
    }
}

/// Runs the elector with its own thread, runtime and connections, so that nothing a reconciler does
/// can delay a renewal.
pub(super) fn run_elector(
    elector: Elector,
    config: kube::Config,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = ExitReason> + Send + 'static> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, exit) = oneshot::channel();
    std::thread::Builder::new()
        .name("elector".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                match client::unfenced(config) {
                    Ok(client) => {
                        let exit = elector.run(client, shutdown.cancelled_owned()).await;
                        // Sending fails if the process is exiting already.
                        let _ = sender.send(exit);
                    }
                    Err(error) => {
                        error!(error = %causes(&error), "failed to create the elector's client")
                    }
                }
            });
        })?;
    Ok(async move {
        match exit.await {
            Ok(ElectorExit { stalled: true, .. }) => failed("reconcile loops stalled"),
            Ok(ElectorExit {
                exit: Exit::Lost, ..
            }) => ExitReason::Failed,
            Ok(ElectorExit {
                exit: Exit::Clean | Exit::Unreleased,
                ..
            }) => ExitReason::Requested,
            Err(_) => failed("the elector died"),
        }
    })
}

/// Without an election, this replica leads until it shuts down.
async fn wait_without_election(shutdown: CancellationToken, drain: Drain) -> ExitReason {
    shutdown.cancelled().await;
    drain.begin();
    if timeout(DRAIN_TIMEOUT, drain.finished()).await.is_err() {
        warn!("shutdown timeout: dropping in-flight work");
    }
    ExitReason::Requested
}
