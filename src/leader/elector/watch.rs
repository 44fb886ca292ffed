//! The watch of the Lease: reports every change to the elector. It must not decide.
//!
//! A watch that ends or fails resumes at the version it had reached, so that a standby in steady
//! state sends nothing but watch requests. Where RBAC does not allow a watch, the Lease is polled
//! in jittered periods instead.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::ElectorEvent;
use super::read::LeaseReader;
use crate::leader::candidate::{AsOf, Input};
use crate::leader::clock::jitter;
use crate::leader::lease::ResourceVersion;
use crate::metrics::ElectionMetrics;
use crate::telemetry::causes;

/// Shortest and longest delay before the next watch: doubled with each failure, with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Seconds after which the API server ends a watch. The client's read timeout is a little longer.
const WATCH_SECONDS: u32 = 60;
/// How long to poll the Lease before trying to watch it again.
const POLL_FOR: Duration = Duration::from_secs(60);

/// The watch of one Lease.
pub(super) struct LeaseWatch {
    pub(super) reader: LeaseReader,
    /// Mean time between two reads while polling.
    pub(super) poll_period: Duration,
    /// How long a watch may deliver nothing before it counts as dead.
    pub(super) silence: Duration,
    pub(super) events: mpsc::Sender<ElectorEvent>,
    pub(super) metrics: ElectionMetrics,
}

impl LeaseWatch {
    /// Watches until the elector has ended.
    pub(super) async fn run(self) {
        let (mut version, mut failures, mut warned) = (None, 0, false);
        while !self.events.is_closed() {
            let begun = Instant::now();
            match self.watch(&mut version).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    if !warned {
                        warn!(
                            error = status.message,
                            "not allowed to watch the lease; polling instead"
                        );
                        warned = true;
                    }
                    version = None;
                    self.poll(begun + POLL_FOR).await;
                    continue;
                }
                Err(error) => {
                    // The version was compacted (410), or is not reached yet (504): the storage was
                    // restored to before it.
                    if matches!(&error, kube::Error::Api(status) if matches!(status.code, 410 | 504))
                    {
                        version = None;
                    }
                    debug!(error = %causes(&error), "lease watch failed, will retry");
                }
            }
            self.metrics.watch_restarted();
            // A watch that lasted is resumed at once: a release in between must not wait.
            failures = if begun.elapsed() > BACKOFF.1 {
                0
            } else {
                failures + 1
            };
            if failures > 0 {
                let ceiling = BACKOFF
                    .0
                    .saturating_mul(1 << failures.min(8))
                    .min(BACKOFF.1);
                sleep(jitter().of(ceiling)).await;
            }
        }
    }

    /// Lists unless there is a version to resume from, then watches until the stream ends.
    async fn watch(&self, version: &mut Option<String>) -> Result<(), kube::Error> {
        let selector = format!("metadata.name={}", self.reader.name);
        let from = match version.clone() {
            Some(version) => version,
            None => version.insert(self.list(&selector).await?).clone(),
        };
        let parameters = WatchParams::default()
            .fields(&selector)
            .timeout(WATCH_SECONDS);
        let mut stream = self.reader.api.watch(&parameters, &from).await?.boxed();
        // A dead connection shows by its silence: any holder renews far more often.
        while let Ok(next) = timeout(self.silence, stream.try_next()).await {
            let event = match next? {
                Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                    *version = lease.metadata.resource_version.clone();
                    ElectorEvent::Seen(Box::new(lease))
                }
                Some(WatchEvent::Deleted(lease)) => {
                    *version = lease.metadata.resource_version.clone();
                    absent(lease.metadata.resource_version)
                }
                Some(WatchEvent::Bookmark(bookmark)) => {
                    *version = Some(bookmark.metadata.resource_version);
                    continue;
                }
                Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
                None => break,
            };
            let _ = self.events.send(event).await;
        }
        Ok(())
    }

    /// Reports the current Lease and returns the version to watch from.
    async fn list(&self, selector: &str) -> Result<String, kube::Error> {
        let list = self
            .reader
            .api
            .list(&ListParams::default().fields(selector))
            .await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let event = match list.items.into_iter().next() {
            Some(lease) => ElectorEvent::Seen(Box::new(lease)),
            None => absent(Some(version.clone())),
        };
        let _ = self.events.send(event).await;
        Ok(version)
    }

    /// Reads the Lease periodically until it is time to try a watch again.
    async fn poll(&self, until: Instant) {
        while Instant::now() < until && !self.events.is_closed() {
            let _ = self.events.send(self.reader.read().await).await;
            sleep(self.poll_period * 4 / 5 + jitter().of(self.poll_period * 2 / 5)).await;
        }
    }
}

fn absent(version: Option<String>) -> ElectorEvent {
    ElectorEvent::Input(Input::Absent(AsOf::Version(ResourceVersion(
        version.unwrap_or_default(),
    ))))
}
