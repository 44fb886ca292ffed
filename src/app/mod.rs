//! The composition root: builds every part, starts it, and stops it in the one safe order.
//!
//! - [`build`] creates the clients, the cache and everything that the tasks share
//! - [`gate`] is the other process of this image: it serves buyers
//! - [`leadership`] takes part in the election, or does without
//! - [`work`] runs the reconcile loops while this replica leads
//! - [`monitor`] looks for ledgers that were rolled back, whether this replica leads or not
//!
//! On SIGTERM nothing new is started, running work drains, the fence closes, the lease is released,
//! and the servers finish their open requests. If the elector dies, a loop panics or a watch ends,
//! the process exits: a replica that only looks alive is worse than one that restarts.

mod build;
pub mod gate;
mod leadership;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, join, ready};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::build::Parts;
use self::work::Worker;
use crate::cli::RunArgs;
use crate::http::{self, admin, documents};
use crate::ledger::monitor;
use crate::reconcile::Settings;
use crate::telemetry::LogFilter;

/// How long running work may take to drain. Shorter than the grace period of the Pod, with time
/// left to release the lease.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// How long the HTTP servers may take to finish open requests.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the process exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It received a signal.
    Requested,
    /// It cannot, or must not, continue.
    Failed,
}

/// Runs the operator until the process should exit.
///
/// # Errors
/// If it cannot start.
pub async fn run(args: RunArgs, filter: LogFilter) -> Result<ExitReason> {
    // Private keys are in memory: no core dump, and no other process of the user reads it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let parts = Parts::build(args).await?;
    let mut process = Process::start(parts, filter).await?;
    let reason = process.exit_reason().await;
    process.stop().await;
    Ok(reason)
}

/// Everything that runs, from start to stop.
struct Process {
    watches: JoinSet<()>,
    monitor: JoinHandle<()>,
    leadership: BoxFuture<'static, ExitReason>,
    work: JoinHandle<()>,
    signals: JoinHandle<std::io::Result<()>>,
    servers: JoinHandle<((), ())>,
    stop_serving: CancellationToken,
}

impl Process {
    async fn start(parts: Parts, filter: LogFilter) -> Result<Self> {
        let stop_serving = CancellationToken::new();
        let servers = start_servers(&parts, filter, &stop_serving).await?;
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(cancel_on_signal(shutdown.clone()));
        let leadership = leadership::start(&parts, shutdown)?;
        let (worker, drain) = (Worker::new(&parts), parts.drain.clone());
        let monitor = monitor::run(parts.cache.clone(), parts.store.clone());
        Ok(Self {
            watches: parts.watches,
            monitor: tokio::spawn(monitor),
            leadership,
            work: tokio::spawn(worker.run(drain)),
            signals,
            servers,
            stop_serving,
        })
    }

    /// Resolves when the process should exit.
    async fn exit_reason(&mut self) -> ExitReason {
        tokio::select! {
            reason = &mut self.leadership => reason,
            _ = &mut self.work => failed("the reconcile loops ended"),
            _ = self.watches.join_next() => failed("a watch ended"),
            _ = &mut self.monitor => failed("the monitor of the ledgers ended"),
            _ = &mut self.signals => failed("received a second signal"),
        }
    }

    /// The lease is released by now, or given up. What is left are the HTTP servers.
    async fn stop(self) {
        self.work.abort();
        self.monitor.abort();
        self.stop_serving.cancel();
        if timeout(SERVER_TIMEOUT, self.servers).await.is_err() {
            warn!("shutdown timeout: dropping open HTTP requests");
        }
    }
}

async fn start_servers(
    parts: &Parts,
    filter: LogFilter,
    stop: &CancellationToken,
) -> Result<JoinHandle<((), ())>> {
    let private = listen(parts.args.process.admin_bind).await?;
    let health = || Arc::clone(&parts.health);
    let admin = admin::router(health(), parts.metrics.clone(), filter);
    let stopped = || stop.clone().cancelled_owned();
    // With a gate, this process, which holds keys, has no public port.
    let documents = if parts.args.gate {
        ready(()).boxed()
    } else {
        let public = listen(parts.args.process.http_bind).await?;
        let cache = parts.cache.clone();
        let documents = documents::router(cache, health(), parts.metrics.http.clone());
        http::serve(public, documents, stopped()).boxed()
    };
    let servers = join(documents, http::serve(private, admin, stopped()));
    info!(
        identity = parts.identity,
        http = %parts.args.process.http_bind,
        admin = %parts.args.process.admin_bind,
        "serving"
    );
    Ok(tokio::spawn(servers))
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    http::listen(address)
        .await
        .with_context(|| format!("failed to listen on {address}: choose a free address and port"))
}

/// Requests a shutdown at the first signal, and resolves at the second.
async fn cancel_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => info!("received SIGTERM, shutting down"),
            _ = interrupt.recv() => info!("received SIGINT, shutting down"),
        }
        shutdown.cancel();
    }
    Ok(())
}

fn failed(why: &str) -> ExitReason {
    error!("{why}; exiting");
    ExitReason::Failed
}

impl From<&RunArgs> for Settings {
    fn from(args: &RunArgs) -> Self {
        Self {
            concurrency: args.concurrency,
            max_in_flight: args.max_in_flight.into(),
        }
    }
}

#[cfg(test)]
mod tests;
