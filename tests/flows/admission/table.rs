//! Tables of cases: which objects the API server accepts, and which it rejects with which message.

use serde_json::Value;

use super::client::{AdmissionClient, Operation, Outcome};
use crate::objects::merge;

/// Cases that differ from one base object.
pub struct CaseTable {
    pub operation: Operation,
    pub base: Value,
    pub cases: Vec<Case>,
}

/// One object, accepted or rejected.
pub struct Case {
    pub name: String,
    /// The difference from the base, as a JSON merge patch.
    pub patch: Value,
    /// Each cause of the rejection contains one of these, and each of these is contained in a
    /// cause. Empty: the object is accepted.
    pub expected_messages: Vec<String>,
}

impl CaseTable {
    /// Objects that are created.
    pub fn create(base: Value) -> Self {
        Self {
            operation: Operation::Create,
            base,
            cases: Vec::new(),
        }
    }

    /// Updates of a stored object.
    pub fn update(base: Value) -> Self {
        Self {
            operation: Operation::Update,
            base,
            cases: Vec::new(),
        }
    }

    /// Updates of a stored object's status.
    pub fn status_update(base: Value) -> Self {
        Self {
            operation: Operation::StatusUpdate,
            base,
            cases: Vec::new(),
        }
    }

    /// Adds an object that is accepted.
    pub fn accepts(mut self, name: impl Into<String>, patch: Value) -> Self {
        self.cases.push(Case {
            name: name.into(),
            patch,
            expected_messages: Vec::new(),
        });
        self
    }

    /// Adds an object that is rejected with this message.
    pub fn rejects(self, name: impl Into<String>, patch: Value, message: &str) -> Self {
        self.rejects_with(name, patch, &[message])
    }

    /// Adds an object that is rejected with several messages.
    pub fn rejects_with(
        mut self,
        name: impl Into<String>,
        patch: Value,
        messages: &[&str],
    ) -> Self {
        let expected_messages = messages.iter().map(|&message| message.to_owned()).collect();
        self.cases.push(Case {
            name: name.into(),
            patch,
            expected_messages,
        });
        self
    }

    /// Calls `add` for each value.
    pub fn for_each<T>(
        self,
        values: impl IntoIterator<Item = T>,
        add: impl Fn(Self, T) -> Self,
    ) -> Self {
        values.into_iter().fold(self, add)
    }

    pub fn kind(&self) -> &str {
        self.base["kind"].as_str().expect("an object has a kind")
    }

    /// Submits every case as a dry run.
    pub async fn run(&self, client: &AdmissionClient) -> Vec<(&Case, Outcome)> {
        let base = match self.operation {
            Operation::Create => self.base.clone(),
            Operation::Update | Operation::StatusUpdate => client.store(&self.base).await,
        };
        let mut outcomes = Vec::new();
        for case in &self.cases {
            let mut object = base.clone();
            merge(&mut object, &case.patch);
            outcomes.push((case, client.dry_run(self.operation, &object).await));
        }
        outcomes
    }
}

impl Case {
    pub fn is_rejected(&self) -> bool {
        !self.expected_messages.is_empty()
    }

    /// How the outcome differs from the expected one.
    pub fn mismatch(&self, outcome: &Outcome) -> Option<String> {
        match outcome {
            Outcome::Accepted(_) if self.expected_messages.is_empty() => None,
            Outcome::Accepted(_) => Some(format!(
                "{}: accepted, expected a rejection: {:?}",
                self.name, self.expected_messages
            )),
            Outcome::Rejected(causes) => {
                let causes: Vec<String> = causes
                    .iter()
                    .map(|cause| format!("{}: {}", cause.field, cause.message))
                    .collect();
                let explained = causes.iter().all(|cause| {
                    self.expected_messages
                        .iter()
                        .any(|message| cause.contains(message))
                });
                let complete = self
                    .expected_messages
                    .iter()
                    .all(|message| causes.iter().any(|cause| cause.contains(message)));
                if explained && complete && self.is_rejected() {
                    return None;
                }
                Some(format!(
                    "{}: expected {:?}, rejected with {causes:#?}",
                    self.name, self.expected_messages
                ))
            }
        }
    }
}
