//! Conditions: one observation per type, in the form that all Kubernetes tools read.
//!
//! Types and reasons of a ServiceOffer are those of the legacy controller. `Reconciling` and
//! `Stalled` are kstatus conditions: they are present only while True. The plans in
//! [`crate::reconcile`] decide which conditions an object has.

use std::fmt;

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of a condition.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The operator could not determine whether the condition holds.
    Unknown,
}

impl ConditionStatus {
    /// The value in objects and in metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
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

/// One observation about the object. Only type and status are required, so that conditions of other
/// writers stay valid.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, in CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// Status of the condition: True, False or Unknown.
    pub status: ConditionStatus,
    /// Reason for the status, as one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub reason: Option<String>,
    /// Explanation of the status, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32768))]
    pub message: Option<String>,
    /// Time at which status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: Option<String>,
    /// Generation of the spec that this condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991i64))]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Whether the status is True.
    pub(crate) fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// One observation of one object: what all conditions derived from it have in common.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Generation of the observed object.
    pub generation: Option<i64>,
    /// Conditions that the object already has.
    pub before: &'a [Condition],
    /// Time of the observation.
    pub now: Timestamp,
}

impl Observation<'_> {
    /// Builds a condition. It keeps the previous transition time while the status is the same, so
    /// that an unchanged observation is an unchanged value and causes no write.
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

/// The condition of a type, if the object has it.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_only_with_the_status() {
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
