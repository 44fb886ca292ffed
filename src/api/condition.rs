//! Conditions: one observation per type, in the shape all Kubernetes tools read.
//!
//! Types and reasons of a ServiceOffer keep the words of the controller that this one replaces; `Reconciling` and
//! `Stalled` are kstatus conditions, present only while they are True.

use std::fmt;

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a condition holds.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It could not be observed.
    Unknown,
}

impl ConditionStatus {
    /// Every value, for tables over all of them.
    pub const ALL: [Self; 3] = [Self::True, Self::False, Self::Unknown];

    /// The value as it stands in an object and in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One observation. Only type and status are required, so that what other writers stored keeps fitting in.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Kind of the observation, in CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// Whether it holds: True, False or Unknown.
    pub status: ConditionStatus,
    /// Why, as one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub reason: Option<String>,
    /// Why, in words a person can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32768))]
    pub message: Option<String>,
    /// When status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: Option<String>,
    /// Generation of the object that this observation is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991i64))]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Whether the condition holds.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// One look at one object: what every condition written from it has in common.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Generation of the object that was looked at.
    pub generation: Option<i64>,
    /// Conditions that stand on the object.
    pub before: &'a [Condition],
    /// When it was looked at.
    pub now: Timestamp,
}

impl Observation<'_> {
    /// A condition as observed. The transition time that stands is kept while the status is the same, so an unchanged
    /// observation is an unchanged value and causes no write.
    #[must_use]
    pub fn condition(
        &self,
        type_: &str,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
    ) -> Condition {
        let last_transition_time = find(self.before, type_)
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.clone())
            .unwrap_or_else(|| self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        Condition {
            type_: type_.to_owned(),
            status,
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_transition_time: Some(last_transition_time),
            observed_generation: self.generation,
        }
    }
}

/// The condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = Observation {
            generation: Some(1),
            before: &[],
            now: Timestamp::from_second(0).unwrap(),
        };
        let before = [first.condition("Ready", ConditionStatus::False, "Reconciling", "waiting")];
        let later = Observation {
            generation: Some(2),
            before: &before,
            now: Timestamp::from_second(60).unwrap(),
        };

        let same = later.condition("Ready", ConditionStatus::False, "Pending", "still waiting");
        assert_eq!(
            same.last_transition_time.as_deref(),
            Some("1970-01-01T00:00:00Z")
        );
        assert_eq!(
            (same.reason.as_deref(), same.observed_generation),
            (Some("Pending"), Some(2))
        );

        let changed = later.condition("Ready", ConditionStatus::True, "Reconciled", "registered");
        assert_eq!(
            changed.last_transition_time.as_deref(),
            Some("1970-01-01T00:01:00Z")
        );
    }
}
