//! Decides whether a facilitator is asked for a verdict: a circuit breaker. Pure.
//!
//! A facilitator that failed several times in a row is asked by one payment at a time, after pauses
//! that grow: so that buyers get an answer at once, and those who ask do not keep it down. Settlements
//! are never held back: the work was done, or the outcome is open.
//!
//! Time is a parameter: the time since a start that all callers share.

use std::time::Duration;

/// Failures in a row after which the breaker opens. One payment must not be able to open it, since
/// a facilitator may fail at that payment only.
const FAILURES: u32 = 5;
/// First pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause: how long after its return a facilitator may be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause that a facilitator can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// What is known of one facilitator. The default is that it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Breaker {
    /// In a row.
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    /// When one payment may ask again.
    until: Duration,
    /// The pause that ends then.
    pause: Duration,
}

/// A question that may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// As any other.
    Closed,
    /// The only one at a time, which shows whether the facilitator is back.
    Probe,
}

impl Breaker {
    /// Admits a question that takes at most `limit`.
    ///
    /// # Errors
    /// The time after which one may be asked.
    pub(crate) fn admit(&mut self, now: Duration, limit: Duration) -> Result<Admitted, Duration> {
        let Some(open) = &mut self.open else {
            return Ok(Admitted::Closed);
        };
        if now < open.until {
            return Err(open.until - now);
        }
        // If its buyer leaves, nothing is reported of it, and another one asks after that time.
        open.until = now + limit;
        Ok(Admitted::Probe)
    }

    /// Whether payments are kept from waiting for it.
    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The facilitator gave an answer.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// The facilitator did not answer, or asked for a pause.
    pub(crate) fn failed(&mut self, admitted: Admitted, now: Duration, asked: Option<Duration>) {
        let pause = match (self.open, admitted) {
            // It was asked before the breaker opened.
            (Some(_), Admitted::Closed) => return,
            (Some(open), Admitted::Probe) => (open.pause * 2).min(LONGEST_PAUSE),
            (None, _) => {
                self.failures += 1;
                if self.failures < FAILURES {
                    return;
                }
                FIRST_PAUSE
            }
        };
        let until = now + pause.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        self.open = Some(Open { until, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A breaker that has just opened.
    fn opened(now: Duration) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(now, LIMIT), Ok(Admitted::Closed));
            breaker.failed(Admitted::Closed, now, None);
        }
        breaker
    }

    #[test]
    fn breaker_opens_after_failures_in_a_row() {
        let now = seconds(7);
        assert_eq!(opened(now).admit(now, LIMIT), Err(FIRST_PAUSE));
        assert!(opened(now).is_open());
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..FAILURES {
                breaker.failed(Admitted::Closed, now, None);
            }
            assert!(!breaker.is_open());
            breaker.answered();
        }
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(now, LIMIT), Ok(Admitted::Closed));
    }

    #[test]
    fn one_question_at_a_time_is_asked_while_it_is_open() {
        let begun = seconds(7);
        let mut breaker = opened(begun);
        let now = begun + FIRST_PAUSE;
        assert_eq!(breaker.admit(now, LIMIT), Ok(Admitted::Probe));
        assert_eq!(breaker.admit(now, LIMIT), Err(LIMIT));
        assert_eq!(
            breaker.admit(now + LIMIT, LIMIT),
            Ok(Admitted::Probe),
            "nothing was reported of the first one"
        );
        breaker.answered();
        assert_eq!(breaker.admit(now + LIMIT, LIMIT), Ok(Admitted::Closed));
    }

    #[test]
    fn pauses_grow_with_failed_probes_alone() {
        let mut now = seconds(7);
        let mut breaker = opened(now);
        for pause in [1, 2, 4, 8, 10, 10] {
            breaker.failed(Admitted::Closed, now, None);
            assert_eq!(breaker.admit(now, LIMIT), Err(seconds(pause)));
            now += seconds(pause);
            assert_eq!(breaker.admit(now, LIMIT), Ok(Admitted::Probe));
            now += LIMIT;
            breaker.failed(Admitted::Probe, now, None);
        }
    }

    #[test]
    fn pause_that_the_facilitator_asks_for_is_kept() {
        let begun = seconds(7);
        let mut breaker = opened(begun);
        let now = begun + FIRST_PAUSE;
        for (asked, pause) in [(30, 30), (0, 2), (7200, 60)] {
            let mut breaker = breaker;
            assert_eq!(breaker.admit(now, LIMIT), Ok(Admitted::Probe));
            breaker.failed(Admitted::Probe, now, Some(seconds(asked)));
            assert_eq!(breaker.admit(now, LIMIT), Err(seconds(pause)));
        }
        breaker.answered();
        assert_eq!(breaker, Breaker::default());
    }
}
