//! Runs the reconcile loops whenever this replica leads.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::build::Parts;
use crate::cluster::{Cache, Reader, Writer};
use crate::gate::FacilitatorClient;
use crate::health::Health;
use crate::leader::{Drain, Fence};
use crate::ledger::Store;
use crate::metrics::Metrics;
use crate::reconcile::gate::GateWatch;
use crate::reconcile::{self, Settings};
use crate::telemetry::causes;

/// Delay between attempts to read the uid of the cluster.
const START_RETRY: Duration = Duration::from_secs(2);

/// What the loops work with before the API server has answered.
pub(super) struct Worker {
    cache: Cache,
    reader: Reader,
    writer: Writer,
    store: Store,
    gate: Option<GateWatch>,
    facilitators: FacilitatorClient,
    fence: Fence,
    metrics: Metrics,
    health: Arc<Health>,
    settings: Settings,
}

impl Worker {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            cache: parts.cache.clone(),
            reader: parts.reader.clone(),
            writer: parts.writer.clone(),
            store: parts.store.clone(),
            gate: parts.gate.clone(),
            facilitators: parts.facilitators.clone(),
            fence: parts.fence.clone(),
            metrics: parts.metrics.clone(),
            health: Arc::clone(&parts.health),
            settings: Settings::from(&parts.args),
        }
    }

    /// Works in every term of this replica. Returns only if it cannot continue.
    pub(super) async fn run(self, drain: Drain) {
        let ready = async {
            self.cache.synced().await;
            self.health.set_synced();
            cluster_uid(&self.reader).await
        };
        let cluster_uid = tokio::select! {
            uid = ready => uid,
            // No work has started yet.
            () = drain.begun() => return drained(&drain).await,
        };
        let context = Arc::new(self.into_context(cluster_uid));
        loop {
            let leading = tokio::select! {
                leading = context.fence.opened() => leading,
                () = drain.begun() => break,
            };
            let term = leading.epoch().map(|epoch| epoch.transitions);
            info!(term, "became leader");
            tokio::select! {
                () = work_for_one_term(&context, &drain) => break,
                () = leading.over() => warn!("leadership term ended; dropping in-flight work"),
            }
            context.health.work_dropped();
        }
        if drain.has_begun() {
            drained(&drain).await;
        }
    }

    fn into_context(self, cluster_uid: String) -> reconcile::Context {
        let Self {
            cache,
            reader,
            writer,
            store,
            gate,
            facilitators,
            fence,
            metrics,
            health,
            settings,
        } = self;
        reconcile::Context {
            store,
            gate,
            facilitators,
            facilitator_states: Default::default(),
            cluster_uid,
            issues: Default::default(),
            adopted_owners: Default::default(),
            registry_states: Default::default(),
            offer_states: Default::default(),
            cache,
            reader,
            writer,
            fence,
            metrics,
            health,
            settings,
        }
    }
}

async fn work_for_one_term(context: &Arc<reconcile::Context>, drain: &Drain) {
    // The last leader may have changed what this cache does not show yet.
    tokio::select! {
        () = context.cache.catch_up(&context.reader) => {}
        () = drain.begun() => return,
    }
    reconcile::run(Arc::clone(context), drain).await;
}

/// Reports that no work is running, and starts none.
async fn drained(drain: &Drain) {
    drain.finish();
    std::future::pending().await
}

/// Uid of the namespace kube-system, which distinguishes this cluster from a copy of it.
async fn cluster_uid(reader: &Reader) -> String {
    loop {
        match reader.cluster_wide::<Namespace>("kube-system").await {
            Ok(Some(namespace)) => return namespace.uid().unwrap_or_default(),
            Ok(None) => error!("namespace kube-system does not exist, will retry"),
            Err(error) => {
                warn!(error = %causes(&error), "failed to read namespace kube-system, will retry")
            }
        }
        sleep(START_RETRY).await;
    }
}
