//! What arrived, and how often.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

/// One call, alone or an element of a batch.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// When it arrived.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The parameters.
    pub params: Value,
    /// How many calls the request held; 1 for a call that is not in a batch.
    pub batch: usize,
    /// Whether a rule answered it instead of the chain.
    pub is_faulty: bool,
}

/// Calls of one period, in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Calls(pub Vec<RecordedCall>);

impl Calls {
    /// How many calls; each element of a batch counts.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.len()
    }

    /// How many calls of one method.
    #[must_use]
    pub fn of(&self, method: &str) -> usize {
        self.all(method).count()
    }

    /// The calls of one method.
    pub fn all<'calls>(
        &'calls self,
        method: &'calls str,
    ) -> impl Iterator<Item = &'calls RecordedCall> {
        self.0.iter().filter(move |call| call.method == method)
    }

    /// How many calls of each method.
    #[must_use]
    pub fn by_method(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for call in &self.0 {
            *counts.entry(call.method.as_str()).or_default() += 1;
        }
        counts
    }

    /// The size of the largest batch.
    #[must_use]
    pub fn largest_batch(&self) -> usize {
        self.0.iter().map(|call| call.batch).max().unwrap_or(0)
    }
}
