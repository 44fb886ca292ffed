//! The composition root: builds every part, starts it, and ends it in the one order that is safe.
//!
//! The order of the end: nothing new is begun, what is under way comes to rest, the fence closes, the lease is released, the
//! servers finish what they serve. An elector that dies, a loop that breaks, or a watch that ends takes the process with it:
//! a replica that only looks alive is worse than one that starts anew.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cli::RunArgs;
use crate::cluster::{Cache, Reader, Writer, client};
use crate::health::Health;
use crate::http::{self, admin, documents};
use crate::leader::clock::Clock;
use crate::leader::elector::{Elector, ElectorExit, write_termination_log};
use crate::leader::lease::Exit;
use crate::leader::record::Config;
use crate::leader::{Drain, Fence};
use crate::ledger::Store;
use crate::metrics::Metrics;
use crate::reconcile::{self, Settings};
use crate::telemetry::{LogFilter, causes};

/// How long work may take to come to rest; less than the grace period of the Pod, with room for the release.
const DRAIN_BUDGET: Duration = Duration::from_secs(25);
/// How long the servers may take to finish what they serve.
const SERVE_BUDGET: Duration = Duration::from_secs(5);
/// How long the elector may be silent beyond a lease before the process counts as dead.
const ELECTOR_SILENCE: Duration = Duration::from_secs(20);
/// Until the API server is asked again at the start.
const START_RETRY: Duration = Duration::from_secs(2);

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// As it was asked to.
    Requested,
    /// Because it must not, or cannot, go on.
    Failed,
}

/// Runs the operator until the process should end.
///
/// # Errors
/// If it cannot start.
pub async fn run(settings: RunArgs, filter: LogFilter) -> Result<ExitReason> {
    let config = client::config()
        .await
        .context("no Kubernetes configuration: run in a Pod, or set KUBECONFIG")?;
    let own_namespace = settings
        .pod_namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let metrics = Metrics::new(&settings.lease_name)?;
    let fence = if settings.leader_elect {
        Fence::closed(Clock::start())
    } else {
        Fence::always_open()
    };
    let drain = Drain::default();
    let identity = settings
        .pod_name
        .clone()
        .map_or_else(generated_identity, Ok)?;
    let reading = client::reading(config.clone(), metrics.kube.clone())?;
    let writing = client::writing(config.clone(), fence.clone(), metrics.kube.clone())?;
    let patience = settings
        .leader_elect
        .then_some(settings.lease_duration + ELECTOR_SILENCE);
    let health = Arc::new(Health::new(patience));

    let (cache, mut watches) = Cache::start(&reading, &metrics);
    let counted = cache.clone();
    metrics.count_offers(move || counted.count_offers())?;
    if settings.leader_elect {
        let shown = fence.clone();
        metrics.report_fence(move || shown.remaining())?;
    }
    let served = CancellationToken::new();
    let public = listen(settings.http_bind).await?;
    let admin = listen(settings.admin_bind).await?;
    let public_router = documents::router(cache.clone(), Arc::clone(&health), metrics.http.clone());
    let admin_router = admin::router(Arc::clone(&health), metrics.clone(), filter);
    let end = || served.clone().cancelled_owned();
    let servers = tokio::spawn(futures::future::join(
        http::serve(public, public_router, end()),
        http::serve(admin, admin_router, end()),
    ));
    info!(identity, http = %settings.http_bind, admin = %settings.admin_bind, "serving");

    let leave = CancellationToken::new();
    let mut signals = tokio::spawn(signals(leave.clone()));
    let reader = Reader::new(reading, own_namespace.clone());
    let writer = Writer::new(writing, identity.clone());
    let leadership: Pin<Box<dyn Future<Output = ExitReason> + Send>> = if settings.leader_elect {
        // What concerns Pods is nothing to a process outside of one.
        let in_pod = settings.pod_uid.is_some();
        let elector = Elector {
            config: Config {
                identity,
                pod_uid: settings.pod_uid.clone(),
                instance: in_pod.then(write_termination_log).flatten(),
                marks: in_pod && settings.mark_pod,
                lease_duration: settings.lease_duration,
                renew_deadline: settings.renew_deadline,
                retry_period: settings.retry_period,
            },
            name: settings.lease_name.clone(),
            namespace: settings
                .lease_namespace
                .clone()
                .unwrap_or_else(|| own_namespace.clone()),
            pod_namespace: own_namespace,
            early_takeover: in_pod && settings.early_takeover,
            fence: fence.clone(),
            drain: drain.clone(),
            drain_budget: DRAIN_BUDGET,
            metrics: metrics.election.clone(),
            health: Arc::clone(&health),
        };
        Box::pin(run_elected(elector, config, leave.clone())?)
    } else {
        metrics.election.leads(true);
        Box::pin(run_unelected(leave.clone(), drain.clone()))
    };
    let context = ContextParts {
        cache,
        reader,
        writer,
        fence,
        metrics,
        settings: (&settings).into(),
    };
    let mut work = tokio::spawn(work(context, drain, health));
    let end = tokio::select! {
        end = leadership => end,
        _ = &mut work => forced("the reconcile loops ended"),
        _ = watches.join_next() => forced("a watch ended"),
        _ = &mut signals => forced("asked twice to end"),
    };
    work.abort();
    served.cancel();
    if timeout(SERVE_BUDGET, servers).await.is_err() {
        warn!("requests that were being served are cut off");
    }
    Ok(end)
}

/// Takes part in the election on a thread, a runtime and connections of its own: nothing that a reconciler does can delay a
/// renewal. Resolves when this replica should end.
fn run_elected(
    elector: Elector,
    config: kube::Config,
    leave: CancellationToken,
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
                    // Nobody listening means that the process is ending.
                    Ok(client) => {
                        let _ = sender.send(elector.run(client, leave.cancelled_owned()).await);
                    }
                    Err(error) => error!(error = %causes(&error), "the elector has no client"),
                }
            });
        })?;
    Ok(async move {
        match exit.await {
            Ok(ElectorExit { stalled: true, .. }) => forced("the loops stood still"),
            Ok(ElectorExit {
                exit: Exit::Lost, ..
            }) => ExitReason::Failed,
            Ok(ElectorExit {
                exit: Exit::Clean | Exit::Unreleased,
                ..
            }) => ExitReason::Requested,
            Err(_) => forced("the elector died"),
        }
    })
}

/// Without an election, this replica works until it is asked to end.
async fn run_unelected(leave: CancellationToken, drain: Drain) -> ExitReason {
    leave.cancelled().await;
    drain.begin();
    if timeout(DRAIN_BUDGET, drain.finished()).await.is_err() {
        warn!("work that is under way is cut off");
    }
    ExitReason::Requested
}

/// What the loops work with, as far as it is known before the API server has answered.
struct ContextParts {
    cache: Cache,
    reader: Reader,
    writer: Writer,
    fence: Fence,
    metrics: Metrics,
    settings: Settings,
}

/// Works whenever this replica leads. Ends only if it cannot go on.
async fn work(parts: ContextParts, drain: Drain, health: Arc<Health>) {
    let ContextParts {
        cache,
        reader,
        writer,
        fence,
        metrics,
        settings,
    } = parts;
    let known = async {
        cache.synced().await;
        health.set_synced();
        cluster_uid(&reader).await
    };
    let cluster_uid = tokio::select! {
        uid = known => uid,
        // Nothing has been begun that would have to come to rest.
        () = drain.begun() => return drained(&drain).await,
    };
    let context = Arc::new(reconcile::Context {
        store: Store::new(reader.clone(), writer.clone()),
        cluster_uid,
        findings: Default::default(),
        memories: Default::default(),
        applied: Default::default(),
        cache,
        reader,
        writer,
        fence,
        metrics,
        health,
        settings,
    });
    loop {
        let leading = tokio::select! {
            leading = context.fence.opened() => leading,
            () = drain.begun() => break,
        };
        let term = leading.epoch().map(|epoch| epoch.transitions);
        info!(term, "leading");
        tokio::select! {
            () = lead(&context, &drain) => break,
            () = leading.over() => warn!("the term is over: what was under way is dropped"),
        }
        context.health.work_dropped();
    }
    if drain.has_begun() {
        drained(&drain).await;
    }
}

/// Works for one term. The last leader may have changed what the copies here do not show yet.
async fn lead(context: &Arc<reconcile::Context>, drain: &Drain) {
    tokio::select! {
        () = context.cache.catch_up(&context.reader) => {}
        () = drain.begun() => return,
    }
    reconcile::run(Arc::clone(context), drain).await;
}

/// Says that nothing is under way any more, and begins nothing.
async fn drained(drain: &Drain) {
    drain.finish();
    std::future::pending().await
}

/// Uid of the namespace kube-system, by which a cluster is told from a copy of it.
async fn cluster_uid(reader: &Reader) -> String {
    loop {
        match reader.cluster_wide::<Namespace>("kube-system").await {
            Ok(Some(namespace)) => return namespace.uid().unwrap_or_default(),
            Ok(None) => error!("there is no namespace kube-system"),
            Err(error) => warn!(error = %causes(&error), "the API server does not answer yet"),
        }
        sleep(START_RETRY).await;
    }
}

/// Asks the process to end at the first signal, and resolves at the second.
async fn signals(leave: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => info!("asked to end (SIGTERM)"),
            _ = interrupt.recv() => info!("asked to end (SIGINT)"),
        }
        leave.cancel();
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose a free address and port"))
}

/// Who this replica is outside a cluster: unlike any other on the same host.
fn generated_identity() -> Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("the host has no name: give --pod-name")?;
    Ok(format!("{}_{:016x}", host.trim(), rand::random::<u64>()))
}

fn forced(why: &str) -> ExitReason {
    error!("{why}: the process ends");
    ExitReason::Failed
}

impl From<&RunArgs> for Settings {
    fn from(run: &RunArgs) -> Self {
        Self {
            concurrency: run.concurrency,
            max_in_flight: run.max_in_flight.into(),
        }
    }
}

#[cfg(test)]
mod tests;
