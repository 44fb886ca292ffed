//! Whether this replica is alive and ready: what the elector, the caches and the loops say of themselves, for the admin port
//! to tell and for the elector to act on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Loop;

/// How long work may wait without any of it being done before a leader makes room for another. Longer than any one turn
/// takes: every request of one has a limit of seconds.
const STALL_LIMIT: Duration = Duration::from_secs(600);

/// What waits to be reconciled: one object of one loop.
pub type WorkItem = (Loop, Option<String>, String);

/// What liveness and readiness depend on. Neither depends on leadership, and neither on a chain: a standby serves documents,
/// and an outage of an RPC endpoint must not take them down.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    synced: AtomicBool,
    /// Milliseconds from `origin` to the last sign of life of the elector; zero before the first.
    heartbeat: AtomicU64,
    elector_timeout: Option<Duration>,
    queue: Mutex<WorkQueue>,
}

/// What has been asked of the loops, and when they last answered.
#[derive(Debug, Default)]
struct WorkQueue {
    waiting: HashMap<WorkItem, Instant>,
    done: Option<Instant>,
}

impl WorkQueue {
    /// Since when nothing has been done although something waits.
    fn stalled_since(&self) -> Option<Instant> {
        let oldest = self.waiting.values().min()?;
        Some(self.done.map_or(*oldest, |done| done.max(*oldest)))
    }
}

impl Health {
    /// `elector_timeout` is how long the elector may be silent; `None` where there is none.
    #[must_use]
    pub fn new(elector_timeout: Option<Duration>) -> Self {
        Self {
            origin: Instant::now(),
            synced: AtomicBool::new(false),
            heartbeat: AtomicU64::new(0),
            elector_timeout,
            queue: Mutex::default(),
        }
    }

    /// The cache holds every kind.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether the cache holds every kind.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The elector has gone round once more.
    pub fn heartbeat(&self) {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeat.store(elapsed, Ordering::Relaxed);
    }

    /// An object is to be looked at.
    pub fn work_queued(&self, work: WorkItem) {
        self.queue()
            .waiting
            .entry(work)
            .or_insert_with(Instant::now);
    }

    /// An object has been looked at.
    pub fn work_done(&self, work: &WorkItem) {
        let mut queue = self.queue();
        queue.waiting.remove(work);
        queue.done = Some(Instant::now());
    }

    /// The loops have ended: nothing waits for them.
    pub fn work_dropped(&self) {
        *self.queue() = WorkQueue::default();
    }

    /// How long the loops have stood still although work waits, if it is too long.
    #[must_use]
    pub fn stalled_for(&self) -> Option<Duration> {
        let standing = self.queue().stalled_since()?.elapsed();
        (standing > STALL_LIMIT).then_some(standing)
    }

    /// Whether the elector has shown itself within the elector_timeout with it, and no loop has stood still for so long that the
    /// elector should long have left.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        let heard = self.elector_timeout.is_none_or(|elector_timeout| {
            self.origin.elapsed().saturating_sub(beat) <= elector_timeout
        });
        heard
            && self
                .stalled_for()
                .is_none_or(|standstill| standstill <= STALL_LIMIT + STALL_LIMIT / 5)
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
    fn a_replica_is_ready_once_its_cache_is_filled() {
        let health = Health::new(None);
        assert!(!health.is_synced());
        health.set_synced();
        assert!(health.is_synced());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_elector_is_dead_and_no_elector_is_not() {
        assert!(Health::new(None).is_alive());
        let health = Health::new(Some(Duration::from_secs(50)));
        advance(Duration::from_secs(51)).await;
        assert!(!health.is_alive());
        health.heartbeat();
        assert!(health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn loops_stand_still_only_while_work_waits_and_none_is_done() {
        let health = Health::new(None);
        let longer = STALL_LIMIT + Duration::from_secs(1);
        advance(longer).await;
        assert_eq!(health.stalled_for(), None, "nothing has been asked");

        health.work_queued(work("a"));
        health.work_queued(work("b"));
        advance(longer).await;
        health.work_queued(work("a"));
        assert_eq!(
            health.stalled_for(),
            Some(longer),
            "asking again is no progress"
        );
        assert!(health.is_alive(), "the elector is still to leave by itself");

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
        assert_eq!(
            health.stalled_for(),
            None,
            "whoever does not lead does nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_whose_loops_stand_still_for_too_long_is_dead() {
        let health = Health::new(None);
        health.work_queued(work("a"));
        advance(2 * STALL_LIMIT).await;
        assert!(!health.is_alive());
        health.work_done(&work("a"));
        assert!(health.is_alive());
    }
}
