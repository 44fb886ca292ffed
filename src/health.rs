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
const STANDSTILL: Duration = Duration::from_secs(600);

/// What waits to be reconciled: one object of one loop.
pub type Work = (Loop, Option<String>, String);

/// What liveness and readiness depend on. Neither depends on leadership, and neither on a chain: a standby serves documents,
/// and an outage of an RPC endpoint must not take them down.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    synced: AtomicBool,
    /// Milliseconds from `origin` to the last sign of life of the elector; zero before the first.
    heartbeat: AtomicU64,
    patience: Option<Duration>,
    progress: Mutex<Progress>,
}

/// What has been asked of the loops, and when they last answered.
#[derive(Debug, Default)]
struct Progress {
    waiting: HashMap<Work, Instant>,
    done: Option<Instant>,
}

impl Progress {
    /// Since when nothing has been done although something waits.
    fn standing_since(&self) -> Option<Instant> {
        let oldest = self.waiting.values().min()?;
        Some(self.done.map_or(*oldest, |done| done.max(*oldest)))
    }
}

impl Health {
    /// `patience` is how long the elector may be silent; `None` where there is none.
    #[must_use]
    pub fn new(patience: Option<Duration>) -> Self {
        Self {
            origin: Instant::now(),
            synced: AtomicBool::new(false),
            heartbeat: AtomicU64::new(0),
            patience,
            progress: Mutex::default(),
        }
    }

    /// The cache holds every kind.
    pub fn synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether the cache holds every kind.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The elector has gone round once more.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeat.store(elapsed, Ordering::Relaxed);
    }

    /// An object is to be looked at.
    pub fn asked(&self, work: Work) {
        self.progress()
            .waiting
            .entry(work)
            .or_insert_with(Instant::now);
    }

    /// An object has been looked at.
    pub fn done(&self, work: &Work) {
        let mut progress = self.progress();
        progress.waiting.remove(work);
        progress.done = Some(Instant::now());
    }

    /// The loops have ended: nothing waits for them.
    pub fn rests(&self) {
        *self.progress() = Progress::default();
    }

    /// How long the loops have stood still although work waits, if it is too long.
    #[must_use]
    pub fn standstill(&self) -> Option<Duration> {
        let standing = self.progress().standing_since()?.elapsed();
        (standing > STANDSTILL).then_some(standing)
    }

    /// Whether the elector has shown itself within the patience with it, and no loop has stood still for so long that the
    /// elector should long have left.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        let heard = self
            .patience
            .is_none_or(|patience| self.origin.elapsed().saturating_sub(beat) <= patience);
        heard
            && self
                .standstill()
                .is_none_or(|standstill| standstill <= STANDSTILL + STANDSTILL / 5)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn work(name: &str) -> Work {
        (Loop::Offer, Some("shop".into()), name.into())
    }

    #[test]
    fn a_replica_is_ready_once_its_cache_is_filled() {
        let health = Health::new(None);
        assert!(!health.is_synced());
        health.synced();
        assert!(health.is_synced());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_elector_is_dead_and_no_elector_is_not() {
        assert!(Health::new(None).is_alive());
        let health = Health::new(Some(Duration::from_secs(50)));
        advance(Duration::from_secs(51)).await;
        assert!(!health.is_alive());
        health.beat();
        assert!(health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn loops_stand_still_only_while_work_waits_and_none_is_done() {
        let health = Health::new(None);
        let longer = STANDSTILL + Duration::from_secs(1);
        advance(longer).await;
        assert_eq!(health.standstill(), None, "nothing has been asked");

        health.asked(work("a"));
        health.asked(work("b"));
        advance(longer).await;
        health.asked(work("a"));
        assert_eq!(
            health.standstill(),
            Some(longer),
            "asking again is no progress"
        );
        assert!(health.is_alive(), "the elector is still to leave by itself");

        health.done(&work("a"));
        assert_eq!(health.standstill(), None, "one of two is progress");
        advance(longer).await;
        assert_eq!(health.standstill(), Some(longer));
        health.done(&work("b"));
        advance(longer).await;
        assert_eq!(health.standstill(), None);

        health.asked(work("c"));
        health.rests();
        advance(longer).await;
        assert_eq!(
            health.standstill(),
            None,
            "whoever does not lead does nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_whose_loops_stand_still_for_too_long_is_dead() {
        let health = Health::new(None);
        health.asked(work("a"));
        advance(2 * STANDSTILL).await;
        assert!(!health.is_alive());
        health.done(&work("a"));
        assert!(health.is_alive());
    }
}
