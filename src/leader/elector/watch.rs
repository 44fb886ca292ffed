//! The watch of the Lease: tells every change of it, for as long as anyone listens. It never decides.
//!
//! A watch that ends or breaks goes on where it stopped, so that in steady state a standby sends nothing but watches. Where
//! the role allows no watch, the Lease is read in jittered periods instead.

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

/// Delays between two attempts to watch: doubling from the first to the second, shortened by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Seconds after which the API server ends a watch. A connection may be silent for a little longer.
const WATCH_SECONDS: u32 = 60;
/// How long the Lease is read instead of watched before the watch is tried again.
const POLL_FOR: Duration = Duration::from_secs(60);

/// The watch of one Lease.
pub(super) struct LeaseWatch {
    pub(super) reader: LeaseReader,
    /// Between two reads where no watch is allowed.
    pub(super) period: Duration,
    /// How long a watch may say nothing while somebody holds the Lease.
    pub(super) silence: Duration,
    pub(super) events: mpsc::Sender<ElectorEvent>,
    pub(super) metrics: ElectionMetrics,
}

impl LeaseWatch {
    /// Watches until nobody listens any more.
    pub(super) async fn run(self) {
        let (mut version, mut failures, mut told) = (None, 0, false);
        while !self.events.is_closed() {
            let begun = Instant::now();
            match self.watch(&mut version).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    if !told {
                        warn!(
                            missing = status.message,
                            "the lease cannot be watched and is read again and again"
                        );
                        told = true;
                    }
                    version = None;
                    self.poll(begun + POLL_FOR).await;
                    continue;
                }
                Err(error) => {
                    // It is not there any more, or not yet: where the store went back, the version lies ahead of it.
                    if matches!(&error, kube::Error::Api(status) if matches!(status.code, 410 | 504))
                    {
                        version = None;
                    }
                    debug!(error = %causes(&error), "the watch of the lease broke");
                }
            }
            self.metrics.watch_restarted();
            // One that lasted goes on at once: a release in between must not wait.
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

    /// Lists, unless it is known where to go on, and then watches until the stream ends.
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
        // A connection that died is noticed by its silence: whoever holds the Lease renews far more often.
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

    /// Tells how the Lease stands, and says from which version on it is to be watched.
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

    /// Reads the Lease again and again, until the watch is to be tried once more.
    async fn poll(&self, until: Instant) {
        while Instant::now() < until && !self.events.is_closed() {
            let _ = self.events.send(self.reader.read().await).await;
            sleep(self.period * 4 / 5 + jitter().of(self.period * 2 / 5)).await;
        }
    }
}

fn absent(version: Option<String>) -> ElectorEvent {
    ElectorEvent::Input(Input::Absent(AsOf::Version(ResourceVersion(
        version.unwrap_or_default(),
    ))))
}
