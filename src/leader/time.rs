//! Time as the election core takes it in: moments of the monotonic clock, and the instant of one
//! step.
//!
//! Values only. [`super::clock`] reads the clocks; [`super::candidate`] decides by them.

use std::time::Duration;

use jiff::Timestamp;

/// A moment of the process's monotonic clock, as time since an origin that all moments of one
/// process share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// Time since an earlier moment; zero if that moment is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// A random fraction, uniform over all values. It spreads candidates that would otherwise act at
/// the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Jitter(pub u32);

impl Jitter {
    /// This fraction of a duration: at least zero, always less than the whole.
    #[must_use]
    pub fn of(self, whole: Duration) -> Duration {
        whole.mul_f64(f64::from(self.0) / (f64::from(u32::MAX) + 1.0))
    }
}

/// The instant of one step, by every clock that the core needs, and the jitter for it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic time. All decisions are made by it.
    pub moment: Moment,
    /// Wall-clock time in whole microseconds. It is written into the Lease for people to read, and
    /// it can close a fence early. It never shortens a wait.
    pub wall: Timestamp,
    /// Spreads the candidates in time.
    pub jitter: Jitter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_fraction_below_one() {
        let whole = Duration::from_secs(60);
        assert_eq!(Jitter(0).of(whole), Duration::ZERO);
        assert_eq!(Jitter(1 << 31).of(whole), whole / 2);
        assert!(Jitter(u32::MAX).of(whole) < whole);
    }
}
