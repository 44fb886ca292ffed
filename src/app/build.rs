//! Builds what the tasks of the process share. The watches of the cache run from here on; nothing
//! else does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::cli::RunArgs;
use crate::cluster::{Cache, CacheScope, QuarantineWriter, Reader, Writer, client};
use crate::gate::FacilitatorClient;
use crate::gate::report::ReportReader;
use crate::health::Health;
use crate::leader::clock::Clock;
use crate::leader::{Drain, Fence};
use crate::ledger::Store;
use crate::metrics::Metrics;
use crate::reconcile::gate::GateWatch;

/// How long after the end of a lease the elector may go without a heartbeat before the process
/// counts as dead.
const HEARTBEAT_GRACE: Duration = Duration::from_secs(20);

/// What the tasks of the process share.
pub(super) struct Parts {
    pub(super) args: RunArgs,
    pub(super) config: kube::Config,
    /// Namespace of this Pod, where Secrets are read.
    pub(super) namespace: String,
    /// Name of this replica in the election.
    pub(super) identity: String,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
    pub(super) fence: Fence,
    pub(super) drain: Drain,
    pub(super) cache: Cache,
    pub(super) watches: JoinSet<()>,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) store: Store,
    pub(super) gate: Option<GateWatch>,
    pub(super) facilitators: FacilitatorClient,
}

impl Parts {
    pub(super) async fn build(args: RunArgs) -> Result<Self> {
        let config = client::config()
            .await
            .context("no Kubernetes configuration: run in a Pod, or set KUBECONFIG")?;
        let namespace = args.pod_namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let identity = match &args.pod_name {
            Some(name) => name.clone(),
            None => generated_identity()?,
        };
        let metrics = Metrics::new(&args.lease_name)?;
        let (fence, elector_timeout) = if args.leader_elect {
            let timeout = args.lease_duration + HEARTBEAT_GRACE;
            (Fence::closed(Clock::start()), Some(timeout))
        } else {
            (Fence::always_open(), None)
        };
        let reading = client::reading(config.clone(), metrics.kube.clone())?;
        let writing = client::writing(config.clone(), fence.clone(), metrics.kube.clone())?;
        let (cache, watches) = Cache::start(&reading, &metrics, CacheScope::Controller);
        metrics.count_offers({
            let cache = cache.clone();
            move || cache.count_offers()
        })?;
        if args.leader_elect {
            let fence = fence.clone();
            metrics.report_fence(move || fence.remaining())?;
        }
        let quarantine_writer = QuarantineWriter::new(reading.clone());
        let (gate, watching) = watch_gate(&args, &cache, &metrics, &namespace)?;
        let mut watches = watches;
        watches.spawn(watching);
        let reader = Reader::new(reading, namespace.clone());
        let writer = Writer::new(writing, identity.clone());
        Ok(Self {
            store: Store::new(reader.clone(), writer.clone(), quarantine_writer),
            gate,
            facilitators: FacilitatorClient::new(args.table.credentials.clone())?,
            reader,
            writer,
            health: Arc::new(Health::new(elector_timeout)),
            drain: Drain::default(),
            args,
            config,
            namespace,
            identity,
            metrics,
            fence,
            cache,
            watches,
        })
    }
}

/// What the operator knows of the gate, if the release has one, and what keeps it current.
fn watch_gate(
    args: &RunArgs,
    cache: &Cache,
    metrics: &Metrics,
    namespace: &str,
) -> Result<(Option<GateWatch>, BoxFuture<'static, ()>)> {
    if !args.gate {
        return Ok((None, std::future::pending().boxed()));
    }
    let reader = args.gate_report_url.clone().map(ReportReader::new);
    let reader = reader
        .transpose()
        .context("no client for the gate's report")?;
    let settings = super::gate::settings(&args.table, namespace.to_owned());
    let (gate, watching) = GateWatch::start(cache, settings, metrics.gate.clone(), reader);
    Ok((Some(gate), watching.boxed()))
}

/// Identity of a replica outside a Pod: unique even among those on one host.
fn generated_identity() -> Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("failed to read the host name: set --pod-name")?;
    Ok(format!("{}_{:016x}", host.trim(), rand::random::<u64>()))
}
