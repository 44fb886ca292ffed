//! Whether an upstream answers. Pure: one lost probe changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Failures in a row after which an upstream counts as unhealthy.
const FAILURES: u8 = 2;
/// Successes in a row after which an unhealthy upstream counts as healthy.
const SUCCESSES: u8 = 3;
/// How soon a probe is repeated while its result is not settled.
const SOON: Duration = Duration::from_secs(2);

/// Whether an upstream can be sold.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum UpstreamState {
    Healthy,
    /// It wants its clients to sign in, and the gate has nothing to sign in with.
    NeedsCredentials,
    Unhealthy,
}

impl UpstreamState {
    /// What the status code of an answer says, if there was one. A code below 500 is healthy, since a
    /// Service without a health path says 404.
    const fn of(status: Option<u16>) -> Self {
        match status {
            Some(401) => Self::NeedsCredentials,
            Some(..500) => Self::Healthy,
            Some(_) | None => Self::Unhealthy,
        }
    }
}

/// What probes say of an upstream.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpstreamHealth {
    pub state: UpstreamState,
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

    /// Takes an answer in: a status code, or why there was none.
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
        let shown = UpstreamState::of(answer.as_ref().ok().copied());
        let is_success = shown != UpstreamState::Unhealthy;
        (self.failures, self.successes) = match is_success {
            true => (0, self.successes.saturating_add(1)),
            false => (self.failures.saturating_add(1), 0),
        };
        let before = self.health.as_ref().map(|health| health.state);
        let is_proven = match before {
            None => is_success || self.failures >= FAILURES,
            Some(UpstreamState::Unhealthy) => !is_success || self.successes >= SUCCESSES,
            Some(_) => is_success || self.failures >= FAILURES,
        };
        // The answer is that of the last change, so that a report stays the same while nothing does.
        if is_proven && before != Some(shown) {
            self.health = Some(UpstreamHealth {
                state: shown,
                answer: match answer {
                    Ok(status) => format!("status {status}"),
                    Err(error) => error.clone(),
                },
            });
        }
        self.next = match is_proven {
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

    /// State after answers that come 30 s apart.
    fn after(answers: &[Result<u16, &str>]) -> Option<UpstreamState> {
        let mut probe = Probe::default();
        for (index, answer) in answers.iter().enumerate() {
            let answer = answer.map_err(str::to_owned);
            probe.answered(1, &answer, seconds(30 * (index as u64 + 1)));
        }
        probe.health.map(|health| health.state)
    }

    #[test]
    fn upstream_turns_unhealthy_after_two_failures_and_healthy_after_three_successes() {
        use UpstreamState::{Healthy, Unhealthy};
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[Ok(200)]), Some(Healthy));
        assert_eq!(after(&[Err("refused")]), None);
        assert_eq!(after(&[Err("refused"), Ok(503)]), Some(Unhealthy));
        assert_eq!(after(&[Ok(200), Ok(500)]), Some(Healthy));
        assert_eq!(after(&[Ok(200), Ok(500), Err("timeout")]), Some(Unhealthy));
        let down = [Ok(500), Ok(500)];
        let up = |count| [&down[..], &vec![Ok(200); count]].concat();
        assert_eq!(after(&up(2)), Some(Unhealthy));
        assert_eq!(after(&up(3)), Some(Healthy));
    }

    #[test]
    fn service_without_a_health_path_is_healthy() {
        assert_eq!(after(&[Ok(404)]), Some(UpstreamState::Healthy));
    }

    #[test]
    fn upstream_that_wants_its_clients_to_sign_in_needs_credentials() {
        use UpstreamState::{Healthy, NeedsCredentials, Unhealthy};
        assert_eq!(after(&[Ok(401)]), Some(NeedsCredentials));
        assert_eq!(after(&[Ok(200), Ok(401)]), Some(NeedsCredentials));
        assert_eq!(after(&[Ok(401), Ok(403)]), Some(Healthy));
        assert_eq!(after(&[Ok(401), Ok(500)]), Some(NeedsCredentials));
        assert_eq!(after(&[Ok(401), Ok(500), Ok(500)]), Some(Unhealthy));
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
