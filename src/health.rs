//! Whether this replica is alive and ready.
//!
//! The elector, the cache and the reconcile loops report here; the admin port answers probes from
//! it, and the elector gives up leadership if the loops stall.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Loop;

/// How long work may wait without any of it being done before a leader steps down. Longer than any
/// reconcile takes: each of its requests has a timeout of seconds.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// An object to reconcile: its loop, namespace and name.
pub type WorkItem = (Loop, Option<String>, String);

/// What liveness and readiness depend on. Neither depends on leadership or on a chain: a standby
/// serves documents, and an RPC endpoint that is down must not stop it.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    synced: AtomicBool,
    draining: AtomicBool,
    /// Milliseconds from `origin` to the last heartbeat of the elector; zero before the first.
    heartbeat: AtomicU64,
    elector_timeout: Option<Duration>,
    queue: Mutex<WorkQueue>,
}

/// The work that waits for the loops, and when they last did any.
#[derive(Debug, Default)]
struct WorkQueue {
    waiting: HashMap<WorkItem, Instant>,
    done: Option<Instant>,
}

impl WorkQueue {
    /// Since when work has been waiting and none has been done.
    fn stalled_since(&self) -> Option<Instant> {
        let oldest = self.waiting.values().min()?;
        Some(self.done.map_or(*oldest, |done| done.max(*oldest)))
    }
}

impl Health {
    /// `elector_timeout` is how long the elector may go without a heartbeat; `None` if there is no
    /// elector.
    #[must_use]
    pub fn new(elector_timeout: Option<Duration>) -> Self {
        Self {
            origin: Instant::now(),
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            heartbeat: AtomicU64::new(0),
            elector_timeout,
            queue: Mutex::default(),
        }
    }

    /// Records that every kind has been listed into the cache.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether every kind has been listed into the cache.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// Records that this process is about to end: nothing more should be sent to it.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether requests should be sent to this process. One that drains still answers those that it
    /// gets: the rest of the cluster learns of it late.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_synced() && !self.is_draining()
    }

    /// Whether this process is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Records an elector heartbeat.
    pub fn heartbeat(&self) {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeat.store(elapsed, Ordering::Relaxed);
    }

    /// Records that an object waits to be reconciled.
    pub fn work_queued(&self, work: WorkItem) {
        self.queue()
            .waiting
            .entry(work)
            .or_insert_with(Instant::now);
    }

    /// Records that an object has been reconciled, with or without success.
    pub fn work_done(&self, work: &WorkItem) {
        let mut queue = self.queue();
        queue.waiting.remove(work);
        queue.done = Some(Instant::now());
    }

    /// Records that the loops have stopped, so that nothing waits for them.
    pub fn work_dropped(&self) {
        *self.queue() = WorkQueue::default();
    }

    /// How long the loops have been stalled, if it is too long: work waits, and none is done.
    #[must_use]
    pub fn stalled_for(&self) -> Option<Duration> {
        let stalled = self.queue().stalled_since()?.elapsed();
        (stalled > STALL_LIMIT).then_some(stalled)
    }

    /// Whether the elector sent a heartbeat within its timeout, and the loops have not been stalled
    /// for so long that the elector should have stepped down long ago.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        let silence = self.origin.elapsed().saturating_sub(beat);
        let heard = self
            .elector_timeout
            .is_none_or(|timeout| silence <= timeout);
        let limit = STALL_LIMIT + STALL_LIMIT / 5;
        heard && self.stalled_for().is_none_or(|stalled| stalled <= limit)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, WorkQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn work(name: &str) -> WorkItem {
        (Loop::Offer, Some("shop".into()), name.into())
    }

    #[test]
    fn replica_is_ready_once_its_cache_has_synced() {
        let health = Health::new(None);
        assert!(!health.is_ready());
        health.set_synced();
        assert!(health.is_ready());
    }

    #[test]
    fn replica_that_drains_is_not_ready_and_still_synced() {
        let health = Health::new(None);
        health.set_synced();
        health.set_draining();
        health.set_synced();
        assert!(!health.is_ready() && health.is_synced());
    }

    #[tokio::test(start_paused = true)]
    async fn replica_is_dead_when_its_elector_sends_no_heartbeat() {
        assert!(Health::new(None).is_alive());
        let health = Health::new(Some(Duration::from_secs(50)));
        advance(Duration::from_secs(51)).await;
        assert!(!health.is_alive());
        health.heartbeat();
        assert!(health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn loops_are_stalled_only_while_work_waits_and_none_is_done() {
        let health = Health::new(None);
        let longer = STALL_LIMIT + Duration::from_secs(1);
        advance(longer).await;
        assert_eq!(health.stalled_for(), None, "no work is queued");

        health.work_queued(work("a"));
        health.work_queued(work("b"));
        advance(longer).await;
        health.work_queued(work("a"));
        assert_eq!(
            health.stalled_for(),
            Some(longer),
            "queueing the same work again is no progress"
        );
        assert!(health.is_alive(), "the elector steps down first");

        health.work_done(&work("a"));
        assert_eq!(health.stalled_for(), None, "one of two is progress");
        advance(longer).await;
        assert_eq!(health.stalled_for(), Some(longer));
        health.work_done(&work("b"));
        advance(longer).await;
        assert_eq!(health.stalled_for(), None);

        health.work_queued(work("c"));
        health.work_dropped();
        advance(longer).await;
        assert_eq!(health.stalled_for(), None, "a standby has no work");
    }

    #[tokio::test(start_paused = true)]
    async fn replica_is_dead_when_its_loops_are_stalled_for_too_long() {
        let health = Health::new(None);
        health.work_queued(work("a"));
        advance(2 * STALL_LIMIT).await;
        assert!(!health.is_alive());
        health.work_done(&work("a"));
        assert!(health.is_alive());
    }
}
