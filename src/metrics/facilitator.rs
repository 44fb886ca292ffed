//! Metrics of facilitators.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Gauge, Registry};

use super::family::Counters;
use super::label::label;
use super::{Error, register, unix_seconds};

label!(
    /// What a facilitator answered when it was asked what it supports.
    SupportedResult, "result" {
        Answered = "answered",
        /// Nothing, or nothing that can be believed.
        Down = "down",
        /// It was not asked: its URL or its credential cannot be used.
        NotAsked = "not_asked",
    }
);

/// Recorder of what facilitators say that they support.
#[derive(Clone, Debug)]
pub struct FacilitatorMetrics {
    answers: Counters<SupportedResult, ()>,
    oldest: Gauge,
    /// When each facilitator last answered; if it never did, when it was first asked.
    answered: Arc<Mutex<BTreeMap<String, f64>>>,
}

impl FacilitatorMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let oldest = Gauge::new(
            "serviceoffer_facilitators_oldest_answer_timestamp_seconds",
            "Unix time of the last answer of the facilitator that has not answered for the longest time; 0 if there is none.",
        )?;
        Ok(Self {
            answers: Counters::new(
                registry,
                "serviceoffer_facilitator_answers_total",
                "Answers of facilitators about what they support, by result.",
            )?,
            oldest: register(registry, oldest)?,
            answered: Arc::default(),
        })
    }

    /// A facilitator was asked what it supports.
    pub fn asked(&self, facilitator: &str, result: SupportedResult) {
        self.answers.increment(result, ());
        self.update(|answered| {
            let time = answered.entry(facilitator.to_owned());
            let time = time.or_insert_with(unix_seconds);
            if result == SupportedResult::Answered {
                *time = unix_seconds();
            }
        });
    }

    /// Drops facilitators that no longer exist.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.update(|answered| answered.retain(|facilitator, _| exists(facilitator)));
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<String, f64>)) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut answered);
        let oldest = answered.values().copied().min_by(f64::total_cmp);
        self.oldest.set(oldest.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_answer_is_that_of_a_facilitator_that_exists() {
        let metrics = FacilitatorMetrics::new(&Registry::new()).unwrap();
        assert_eq!(metrics.oldest.get(), 0.0);
        metrics.asked("silent", SupportedResult::Down);
        metrics.asked("base", SupportedResult::Answered);
        metrics.update(|answered| answered.extend([("silent".to_owned(), 7.0)]));
        metrics.asked("silent", SupportedResult::NotAsked);
        assert_eq!(metrics.oldest.get(), 7.0, "only an answer counts");
        metrics.asked("silent", SupportedResult::Answered);
        assert!(metrics.oldest.get() > 7.0);
        metrics.update(|answered| answered.extend([("silent".to_owned(), 7.0)]));
        metrics.retain(|facilitator| facilitator == "base");
        assert!(metrics.oldest.get() > 7.0);
        metrics.retain(|_| false);
        assert_eq!(metrics.oldest.get(), 0.0);
    }
}
