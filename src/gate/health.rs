//! Whether an upstream answers. Pure: one lost probe changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Failures in a row after which an upstream counts as unhealthy.
const FAILURES: u8 = 2;
/// Successes in a row after which an unhealthy upstream counts as healthy.
const SUCCESSES: u8 = 3;
/// How soon a probe is repeated while its result is not settled.
const SOON: Duration = Duration::from_secs(2);

/// What probes say of an upstream.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpstreamHealth {
    pub is_healthy: bool,
    /// The last answer.
    pub answer: String,
}

/// Probes of one upstream. Times are since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) health: Option<UpstreamHealth>,
    failures: u8,
    successes: u8,
    next: Duration,
    generation: i64,
}

impl Probe {
    /// Whether to probe: at a generation that was not probed, or when it is time.
    pub(crate) fn is_due(&self, generation: i64, now: Duration) -> bool {
        self.generation != generation || self.next <= now
    }

    /// Takes an answer in: a status code, or why there was none. A status below 500 is healthy,
    /// since a Service without a health path says 404.
    pub(crate) fn answered(
        &mut self,
        generation: i64,
        answer: &Result<u16, String>,
        next: Duration,
    ) {
        if self.generation != generation {
            *self = Self {
                generation,
                ..Self::default()
            };
        }
        let is_success = answer.as_ref().is_ok_and(|status| *status < 500);
        let text = match answer {
            Ok(status) => format!("status {status}"),
            Err(error) => error.clone(),
        };
        (self.failures, self.successes) = match is_success {
            true => (0, self.successes.saturating_add(1)),
            false => (self.failures.saturating_add(1), 0),
        };
        let was_healthy = self.health.as_ref().map(|health| health.is_healthy);
        let is_healthy = match was_healthy {
            None => Some(is_success).filter(|healthy| *healthy || self.failures >= FAILURES),
            Some(true) => Some(self.failures < FAILURES),
            Some(false) => Some(self.successes >= SUCCESSES),
        };
        let is_settled = is_healthy == Some(is_success);
        // The answer is that of the last change, so that a report stays the same while nothing does.
        if is_healthy != was_healthy || self.health.is_none() {
            self.health = is_healthy.map(|is_healthy| UpstreamHealth {
                is_healthy,
                answer: text,
            });
        }
        self.next = match is_settled {
            true => next,
            false => next.min(self.next + SOON),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Health after answers that come 30 s apart.
    fn after(answers: &[Result<u16, &str>]) -> Option<bool> {
        let mut probe = Probe::default();
        for (index, answer) in answers.iter().enumerate() {
            let answer = answer.map_err(str::to_owned);
            probe.answered(1, &answer, seconds(30 * (index as u64 + 1)));
        }
        probe.health.map(|health| health.is_healthy)
    }

    #[test]
    fn upstream_turns_unhealthy_after_two_failures_and_healthy_after_three_successes() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[Ok(200)]), Some(true));
        assert_eq!(after(&[Err("refused")]), None);
        assert_eq!(after(&[Err("refused"), Ok(503)]), Some(false));
        assert_eq!(after(&[Ok(200), Ok(500)]), Some(true));
        assert_eq!(after(&[Ok(200), Ok(500), Err("timeout")]), Some(false));
        let down = [Ok(500), Ok(500)];
        let up = |count| [&down[..], &vec![Ok(200); count]].concat();
        assert_eq!(after(&up(2)), Some(false));
        assert_eq!(after(&up(3)), Some(true));
    }

    #[test]
    fn service_without_a_health_path_is_healthy() {
        assert_eq!(after(&[Ok(404)]), Some(true));
    }

    #[test]
    fn probe_is_repeated_soon_until_its_result_is_settled() {
        let mut probe = Probe::default();
        assert!(probe.is_due(1, seconds(0)));
        probe.answered(1, &Ok(200), seconds(30));
        assert!(!probe.is_due(1, seconds(29)) && probe.is_due(1, seconds(30)));
        probe.answered(1, &Ok(500), seconds(60));
        assert!(probe.is_due(1, seconds(32)));
    }

    #[test]
    fn changed_offer_is_probed_afresh() {
        let mut probe = Probe::default();
        probe.answered(1, &Ok(200), seconds(30));
        assert!(probe.is_due(2, seconds(1)));
        probe.answered(2, &Ok(500), seconds(30));
        assert_eq!(probe.health, None);
    }
}
