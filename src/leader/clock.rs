//! The clocks of this process, read in one place.
//!
//! Moments count all time that passes: `CLOCK_MONOTONIC` stops while a machine is suspended,
//! `CLOCK_BOOTTIME` does not. The wall clock is read as well, because it is the only one that is
//! corrected after a virtual machine was frozen.

use std::time::Duration;

use jiff::{Timestamp, Unit};
use rand::RngExt as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::time::{Jitter, Moment, Now};

/// Measures the moments of one process. All copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    monotonic: Instant,
    boot: Duration,
}

impl Clock {
    /// A clock that starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self {
            monotonic: Instant::now(),
            boot: since_boot(),
        }
    }

    /// A clock that shows nothing but the time of a paused runtime: on a busy machine, real time passes
    /// while that one stands still.
    #[cfg(test)]
    pub(crate) fn paused() -> Self {
        Self {
            boot: Duration::MAX,
            ..Self::start()
        }
    }

    /// The present moment.
    #[must_use]
    pub fn moment(self) -> Moment {
        Moment(
            self.monotonic
                .elapsed()
                .max(since_boot().saturating_sub(self.boot)),
        )
    }

    /// The present instant, as the election core takes it.
    #[must_use]
    pub fn now(self) -> Now {
        Now {
            moment: self.moment(),
            wall: wall(),
            jitter: jitter(),
        }
    }

    /// The runtime's instant at which to wake for a moment.
    #[must_use]
    pub fn instant(self, moment: Moment) -> Instant {
        Instant::now() + moment.since(self.moment())
    }
}

/// The wall clock, in the whole microseconds that a Lease can hold.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp::now()
        .round(Unit::Microsecond)
        .unwrap_or_default()
}

/// A new random fraction.
#[must_use]
pub fn jitter() -> Jitter {
    Jitter(rand::rng().random())
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_passes_without_a_runtime() {
        let before = since_boot();
        std::thread::sleep(Duration::from_millis(5));
        assert!(since_boot() - before >= Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn moments_count_from_the_start_and_agree_with_instants() {
        let clock = Clock::start();
        let copy = clock;
        tokio::time::advance(Duration::from_secs(3)).await;
        let moment = copy.moment();
        assert!(
            moment.0 >= Duration::from_secs(3) && moment.0 < Duration::from_secs(4),
            "{moment:?}"
        );
        let ahead = clock.instant(moment + Duration::from_secs(2)) - Instant::now();
        assert!(
            ahead <= Duration::from_secs(2) && ahead > Duration::from_secs(1),
            "{ahead:?}"
        );
        assert_eq!(
            clock.instant(Moment::default()),
            Instant::now(),
            "a past moment is due at once"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn paused_clock_ignores_real_time() {
        let clock = Clock::paused();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clock.moment(), Moment::default());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.moment(), Moment(Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn suspend_time_counts_as_passed() {
        let clock = Clock::start();
        let slept = Clock {
            boot: clock.boot.saturating_sub(Duration::from_secs(40)),
            ..clock
        };
        assert!(slept.moment().0 >= Duration::from_secs(40).min(clock.boot));
    }
}
