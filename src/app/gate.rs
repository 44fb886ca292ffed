//! The gate's process: a cache, the table that is compiled from it, and two HTTP servers. It takes
//! part in no election, writes nothing, and has no key.
//!
//! On SIGTERM it stops accepting connections and finishes open requests. While the API server is
//! away it serves the last table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::routing::any;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ExitReason, SERVER_TIMEOUT, cancel_on_signal, failed, listen};
use crate::cli::{GateArgs, TableArgs};
use crate::cluster::endpoints::watch_ready;
use crate::cluster::{Cache, CacheScope, client};
use crate::gate::chains::ChainReader;
use crate::gate::claims::MemoryClaims;
use crate::gate::headers::TrustedProxies;
use crate::gate::keeper::{KeptTable, keep};
use crate::gate::limit::{AddressBudget, Allowance};
use crate::gate::path::PathRefusal;
use crate::gate::proxy::{MemoryBudget, Proxy};
use crate::gate::report::{self, Probes};
use crate::gate::serve::{GateServer, KeptAnswers, Limiters, on_own_hosts, serve};
use crate::gate::table::GateSettings;
use crate::gate::{FacilitatorClient, unix_seconds};
use crate::health::Health;
use crate::http::{self, admin, documents};
use crate::metrics::Metrics;
use crate::telemetry::LogFilter;

/// Client addresses whose requests are counted.
const MOST_ADDRESSES: usize = 100_000;
/// Payments of an address that a facilitator may refuse.
const INVALID_PAYMENTS: Allowance = Allowance {
    every: Duration::from_secs(1),
    burst: 60,
};
/// Bytes of all bodies together that are read to tell paid requests apart.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// How often expired claims are forgotten.
const SWEEP: Duration = Duration::from_secs(30);
/// How long open requests may take after SIGTERM. Shorter than the grace period of the Pod.
const DRAIN: Duration = Duration::from_secs(100);
/// How long a Pod that is ending still accepts connections, until no one sends any.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// What the table depends on, by the flags that operator and gate have in common.
pub(super) fn settings(args: &TableArgs, namespace: String) -> GateSettings {
    GateSettings {
        public_url: args.public_url.clone(),
        release_namespace: namespace,
        denied_namespaces: args
            .denied_namespaces
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect(),
        allowed_external_upstreams: args.allowed_external_upstreams.iter().cloned().collect(),
    }
}

/// What a client address may do without paying.
fn budget(unpaid_per_second: u32) -> AddressBudget {
    let unpaid = Allowance {
        every: Duration::from_secs(1) / unpaid_per_second.max(1),
        burst: unpaid_per_second.saturating_mul(2).max(1),
    };
    AddressBudget::new(MOST_ADDRESSES, unpaid, INVALID_PAYMENTS)
}

/// Serves buyers until the process should exit.
///
/// # Errors
/// If it cannot start.
pub async fn run(args: GateArgs, filter: LogFilter) -> Result<ExitReason> {
    let config = client::config()
        .await
        .context("no Kubernetes configuration: run in a Pod, or set KUBECONFIG")?;
    let metrics = Metrics::new("")?;
    let reading = client::reading(config, metrics.kube.clone())?;
    let (cache, mut watches) = Cache::start(&reading, &metrics, CacheScope::Gate);
    let health = Arc::new(Health::new(None));
    let namespace = args.pod_namespace.clone().unwrap_or_default();
    let settings = settings(&args.table, namespace);
    let public_path = settings.public_path().to_owned();
    let (kept, table) = watch::channel(KeptTable::default());
    let (ready, replicas) = watch::channel(1);
    let gate = Arc::new(GateServer {
        table: table.clone(),
        claims: Arc::new(MemoryClaims::default()),
        kept: KeptAnswers::default(),
        facilitators: FacilitatorClient::new(args.table.credentials.clone())?,
        chains: ChainReader::new(metrics.chain.clone()),
        proxy: Proxy::new(),
        bodies: MemoryBudget::new(BODY_BYTES),
        trusted: TrustedProxies::new(args.trusted_proxies.clone()),
        public_url: settings.public_url.clone(),
        metrics: metrics.gate.clone(),
        limiters: Limiters::default(),
        replicas: replicas.clone(),
        budget: budget(args.unpaid_per_second),
        limits_unpaid: args.unpaid_per_second > 0,
        begun: Instant::now(),
        begun_at: unix_seconds(),
    });
    gate.report_to(&metrics)?;
    metrics.gate.track_paths::<PathRefusal>();
    let probes = Probes::default();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(keep(cache.clone(), settings, metrics.gate.clone(), kept));
    tasks.spawn(report_ready(
        table.clone(),
        Arc::clone(&gate),
        Arc::clone(&health),
    ));
    tasks.spawn(sweep(Arc::clone(&gate)));
    tasks.spawn(warn_of_others(replicas));
    if let (Some(namespace), Some(service)) = (args.pod_namespace.clone(), args.service.clone()) {
        tasks.spawn(watch_ready(reading, (namespace, service), ready));
    }
    tasks.spawn(report::probe(
        table.clone(),
        probes.clone(),
        gate.proxy.clone(),
    ));

    let public = listen(args.process.http_bind).await?;
    let private = listen(args.process.admin_bind).await?;
    let documents = documents::router(cache.clone(), Arc::clone(&health), metrics.http.clone());
    let router = documents.fallback(any(serve).with_state(Arc::clone(&gate)));
    let router = http::below(public_path, router);
    let is_document = move |path: &str| documents::is_document(&cache, path);
    let router = on_own_hosts(router, gate, is_document);
    let router = http::closing(router, Arc::clone(&health));
    let admin =
        admin::router(Arc::clone(&health), metrics, filter).merge(report::router(table, probes));
    let stop = CancellationToken::new();
    let servers = futures::future::join(
        http::serve(public, router, stop.clone().cancelled_owned()),
        http::serve(private, admin, stop.clone().cancelled_owned()),
    );
    let servers = tokio::spawn(servers);
    info!(http = %args.process.http_bind, admin = %args.process.admin_bind, "serving");

    let shutdown = CancellationToken::new();
    let mut signals = tokio::spawn(cancel_on_signal(shutdown.clone()));
    let reason = tokio::select! {
        () = shutdown.cancelled() => ExitReason::Requested,
        _ = tasks.join_next() => failed("a task of the gate ended"),
        _ = watches.join_next() => failed("a watch ended"),
    };
    health.set_draining();
    tokio::select! {
        () = drain(stop, servers) => {}
        _ = &mut signals => warn!("received a second signal"),
    }
    Ok(reason)
}

/// Accepts connections until no client sends any, and finishes open requests.
async fn drain(stop: CancellationToken, servers: tokio::task::JoinHandle<((), ())>) {
    sleep(LAME_DUCK).await;
    stop.cancel();
    if timeout(DRAIN.max(SERVER_TIMEOUT), servers).await.is_err() {
        warn!("shutdown timeout: dropping open HTTP requests");
    }
}

/// The gate is ready once it has a table.
async fn report_ready(
    mut table: watch::Receiver<KeptTable>,
    gate: Arc<GateServer>,
    health: Arc<Health>,
) {
    while table.changed().await.is_ok() {
        let kept = table.borrow_and_update().clone();
        gate.limiters.retain(&kept.table);
        let urls = kept.table.facilitator_urls();
        gate.facilitators.retain(|url| urls.contains(url));
        let all = kept.table.published().count();
        let open = kept.table.count_open();
        gate.metrics.offers(open, all - open);
        health.set_synced();
    }
}

/// Says when several gates sell at once, as in a rollout: each knows only the payments that were
/// presented to it. The token charges a payment once, at whichever gate.
async fn warn_of_others(mut replicas: watch::Receiver<usize>) {
    while replicas.changed().await.is_ok() {
        let count = *replicas.borrow_and_update();
        if count > 1 {
            warn!(
                replicas = count,
                "several gates are ready: a payment that is presented to two of them is charged once, but may be answered by both"
            );
        }
    }
    std::future::pending().await
}

/// Forgets payments and answers that have expired.
async fn sweep(gate: Arc<GateServer>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        let now = unix_seconds();
        gate.kept.sweep(now);
        gate.metrics.claims(gate.claims.sweep(now).await);
    }
}
