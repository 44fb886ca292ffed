//! Whether an endpoint is good enough to decide on. Pure.
//!
//! An endpoint is chosen once per pass, so a bad one must be left quickly and not come back before
//! it has proved itself. Times are durations since the endpoint was created. It does not choose an
//! endpoint: the registry loop does.

use std::collections::BTreeMap;
use std::time::Duration;

/// Failures in a row after which an endpoint is unhealthy.
const FAILURES: u32 = 2;
/// Good answers in a row after which it is healthy again, and how long they must last.
const GOOD_ANSWERS: u32 = 3;
const GOOD_FOR: Duration = Duration::from_secs(15);
/// Blocks that an endpoint may be behind the best of the others.
const LAG: u64 = 16;

/// What is wrong with an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HealthProblem {
    Failing(String),
    WrongChain { expected: u64, actual: u64 },
    Lagging { behind: u64 },
}

/// Health of one endpoint, from all answers so far. An endpoint that was never asked is healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Failures in a row.
    failures: u32,
    /// Failures in a row of each question: an endpoint that answers one question and never another
    /// is of no use either.
    failures_by_question: BTreeMap<&'static str, u32>,
    problem: Option<HealthProblem>,
    /// Good answers since the problem was last seen, and when the first of them came.
    good_answers: u32,
    good_since: Option<Duration>,
}

impl EndpointHealth {
    /// The endpoint answered a question.
    pub fn answered(&mut self, question: &'static str, now: Duration) {
        self.failures = 0;
        self.failures_by_question.remove(question);
        // An answer says nothing about the chain that it is from, nor about its head.
        if matches!(self.problem, Some(HealthProblem::Failing(_))) {
            self.improved(now);
        }
    }

    /// The endpoint failed to answer a question.
    pub fn failed(&mut self, question: &'static str, cause: String) {
        let of_question = self.failures_by_question.entry(question).or_default();
        *of_question = of_question.saturating_add(1);
        let of_question = *of_question;
        self.failures = self.failures.saturating_add(1);
        let is_failing = self.failures.max(of_question) >= FAILURES;
        match &self.problem {
            None if is_failing => self.worsened(HealthProblem::Failing(cause)),
            Some(HealthProblem::Failing(_)) => {
                self.worsened(HealthProblem::Failing(cause));
            }
            Some(_) => self.restart_proof(),
            None => {}
        }
    }

    /// The endpoint said which chain it serves.
    pub fn chain_checked(&mut self, expected: u64, actual: u64, now: Duration) {
        if actual != expected {
            self.worsened(HealthProblem::WrongChain { expected, actual });
        } else if matches!(self.problem, Some(HealthProblem::WrongChain { .. })) {
            self.improved(now);
        }
    }

    /// The endpoint's latest block was compared with the best of the other endpoints.
    pub fn head_checked(&mut self, head: u64, best_of_others: u64, now: Duration) {
        let behind = best_of_others.saturating_sub(head);
        match self.problem {
            Some(HealthProblem::WrongChain { .. }) => {}
            _ if behind > LAG => self.worsened(HealthProblem::Lagging { behind }),
            Some(HealthProblem::Lagging { .. }) => self.improved(now),
            _ => {}
        }
    }

    /// Whether decisions may rest on the endpoint.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problem.is_none()
    }

    /// Why it is unhealthy, for people; `None` if it is healthy.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        Some(match self.problem.as_ref()? {
            HealthProblem::Failing(cause) => cause.clone(),
            HealthProblem::WrongChain { expected, actual } => {
                format!("it serves chain {actual}, and spec.chainId is {expected}")
            }
            HealthProblem::Lagging { behind } => {
                format!("its latest block is {behind} blocks behind another endpoint's")
            }
        })
    }

    fn worsened(&mut self, problem: HealthProblem) {
        self.problem = Some(problem);
        self.restart_proof();
    }

    fn restart_proof(&mut self) {
        self.good_answers = 0;
        self.good_since = None;
    }

    fn improved(&mut self, now: Duration) {
        let since = *self.good_since.get_or_insert(now);
        self.good_answers = self.good_answers.saturating_add(1);
        if self.good_answers >= GOOD_ANSWERS && now.saturating_sub(since) >= GOOD_FOR {
            self.problem = None;
            self.restart_proof();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failing() -> EndpointHealth {
        let mut health = EndpointHealth::default();
        health.failed("head", "timed out".to_owned());
        health.failed("head", "HTTP 503".to_owned());
        health
    }

    #[test]
    fn endpoint_is_unhealthy_after_two_failures_in_a_row() {
        let mut health = EndpointHealth::default();
        assert!(health.is_healthy());
        health.failed("head", "timed out".to_owned());
        assert!(health.is_healthy());
        assert_eq!(health.cause(), None);
        health.answered("head", at(1));
        health.failed("head", "timed out".to_owned());
        assert!(health.is_healthy(), "an answer came in between");
        health.failed("account", "HTTP 503".to_owned());
        assert!(!health.is_healthy());
        assert_eq!(health.cause().as_deref(), Some("HTTP 503"));
    }

    #[test]
    fn answers_to_other_questions_do_not_excuse_one() {
        let mut health = EndpointHealth::default();
        for second in 0..2 {
            health.answered("identity", at(second));
            health.failed("head", "HTTP 429".to_owned());
        }
        assert!(!health.is_healthy());
    }

    #[test]
    fn endpoint_is_healthy_after_three_answers_over_15_seconds() {
        let mut health = failing();
        for second in [1, 2, 3, 15] {
            health.answered("head", at(second));
            assert!(!health.is_healthy(), "{second}");
        }
        health.answered("head", at(16));
        assert!(health.is_healthy());
        assert_eq!(health.cause(), None);

        let mut health = failing();
        health.answered("head", at(1));
        health.answered("head", at(100));
        assert!(!health.is_healthy(), "two answers prove little");
        health.answered("head", at(101));
        assert!(health.is_healthy());
    }

    #[test]
    fn failure_in_between_starts_the_proof_again() {
        let mut health = failing();
        health.answered("head", at(1));
        health.answered("head", at(10));
        health.failed("head", "timed out".to_owned());
        assert_eq!(health.cause().as_deref(), Some("timed out"));
        for second in [17, 20, 31] {
            health.answered("head", at(second));
            assert!(!health.is_healthy(), "{second}");
        }
        health.answered("head", at(32));
        assert!(health.is_healthy());
    }

    #[test]
    fn wrong_chain_is_unhealthy_at_once_and_only_the_right_one_heals() {
        let mut health = EndpointHealth::default();
        health.chain_checked(1, 2, at(0));
        assert!(health.cause().unwrap().contains("serves chain 2"));
        for second in 0..60 {
            health.answered("head", at(second));
            health.head_checked(9, 900, at(second));
        }
        health.failed("head", "timed out".to_owned());
        assert!(health.cause().unwrap().contains("serves chain 2"));
        for second in [60, 70] {
            health.chain_checked(1, 1, at(second));
        }
        assert!(!health.is_healthy());
        health.chain_checked(1, 1, at(75));
        assert!(health.is_healthy());
    }

    #[test]
    fn right_chain_does_not_excuse_failures() {
        let mut health = failing();
        for second in [0, 10, 20] {
            health.chain_checked(1, 1, at(second));
        }
        assert_eq!(health.cause().as_deref(), Some("HTTP 503"));
    }

    #[test]
    fn head_far_behind_the_others_is_unhealthy_until_it_catches_up() {
        let mut health = EndpointHealth::default();
        health.head_checked(84, 100, at(0));
        assert!(health.is_healthy());
        health.head_checked(120, 100, at(0));
        assert!(health.is_healthy(), "being ahead is no problem");
        health.head_checked(83, 100, at(0));
        assert!(health.cause().unwrap().contains("17 blocks behind"));
        for second in 0..60 {
            health.answered("head", at(second));
        }
        assert!(!health.is_healthy());
        for second in [60, 70, 75] {
            health.head_checked(100, 100, at(second));
        }
        assert!(health.is_healthy());
    }
}
