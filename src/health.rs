//! Whether this replica is alive and ready: what the elector and the caches say of themselves, for the admin port to tell.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What liveness and readiness depend on. Neither depends on leadership, and neither on a chain: a standby serves documents,
/// and an outage of an RPC endpoint must not take them down.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    synced: AtomicBool,
    /// Milliseconds from `origin` to the last sign of life of the elector; zero before the first.
    heartbeat: AtomicU64,
    patience: Option<Duration>,
}

impl Health {
    /// `patience` is how long the elector may be silent; `None` where there is none.
    #[must_use]
    pub fn new(patience: Option<Duration>) -> Self {
        Self { origin: Instant::now(), synced: AtomicBool::new(false), heartbeat: AtomicU64::new(0), patience }
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

    /// Whether the elector has shown itself within the patience with it.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        self.patience.is_none_or(|patience| self.origin.elapsed().saturating_sub(beat) <= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_ready_once_its_cache_is_filled() {
        let health = Health::new(None);
        assert!(!health.is_synced());
        health.synced();
        assert!(health.is_synced());
    }

    #[test]
    fn a_silent_elector_is_dead_and_no_elector_is_not() {
        assert!(Health::new(None).is_alive());
        let health = Health::new(Some(Duration::from_millis(20)));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!health.is_alive());
        health.beat();
        assert!(health.is_alive());
    }
}
