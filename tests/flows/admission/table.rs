//! Tables of objects: what is admitted, and what is refused in which words.

use serde_json::Value;

use super::submission::{Answer, Door, Occasion};

/// What objects have in common before one row differs.
pub struct Scene {
    pub occasion: Occasion,
    pub base: Value,
    pub rows: Vec<Row>,
}

/// One object.
pub struct Row {
    /// What it is about.
    pub case: String,
    /// In which it differs from the base, as a JSON merge patch.
    pub change: Value,
    /// Words that the causes of its refusal contain: each cause some, all of them somewhere. None: it is admitted.
    pub refusal: Vec<String>,
}

impl Scene {
    /// Objects that do not exist yet.
    pub fn creation(base: Value) -> Self {
        Self {
            occasion: Occasion::Creation,
            base,
            rows: Vec::new(),
        }
    }

    /// Later versions of a stored object.
    pub fn update(base: Value) -> Self {
        Self {
            occasion: Occasion::Update,
            base,
            rows: Vec::new(),
        }
    }

    /// Later versions of a stored object's status.
    pub fn status_update(base: Value) -> Self {
        Self {
            occasion: Occasion::StatusUpdate,
            base,
            rows: Vec::new(),
        }
    }

    /// Adds an object that is admitted.
    pub fn admits(mut self, case: impl Into<String>, change: Value) -> Self {
        self.rows.push(Row {
            case: case.into(),
            change,
            refusal: Vec::new(),
        });
        self
    }

    /// Adds an object that is refused in these words.
    pub fn refuses(self, case: impl Into<String>, change: Value, words: &str) -> Self {
        self.refuses_for(case, change, &[words])
    }

    /// Adds an object that is refused for several reasons.
    pub fn refuses_for(mut self, case: impl Into<String>, change: Value, words: &[&str]) -> Self {
        let refusal = words.iter().map(|&words| words.to_owned()).collect();
        self.rows.push(Row {
            case: case.into(),
            change,
            refusal,
        });
        self
    }

    /// Adds one row for each value.
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

    /// Submits every row, and answers row by row.
    pub async fn play(&self, door: &Door) -> Vec<(&Row, Answer)> {
        let base = match self.occasion {
            Occasion::Creation => self.base.clone(),
            Occasion::Update | Occasion::StatusUpdate => door.store(&self.base).await,
        };
        let mut answers = Vec::new();
        for row in &self.rows {
            let mut object = base.clone();
            merge(&mut object, &row.change);
            answers.push((row, door.ask(self.occasion, &object).await));
        }
        answers
    }
}

impl Row {
    pub fn is_refused(&self) -> bool {
        !self.refusal.is_empty()
    }

    /// What is wrong with an answer, if anything.
    pub fn objection(&self, answer: &Answer) -> Option<String> {
        match answer {
            Answer::Admitted(_) if self.refusal.is_empty() => None,
            Answer::Admitted(_) => Some(format!(
                "{}: is admitted, should be refused: {:?}",
                self.case, self.refusal
            )),
            Answer::Refused(causes) => {
                let causes: Vec<String> = causes
                    .iter()
                    .map(|cause| format!("{}: {}", cause.field, cause.message))
                    .collect();
                let explained = causes
                    .iter()
                    .all(|cause| self.refusal.iter().any(|words| cause.contains(words)));
                let complete = self
                    .refusal
                    .iter()
                    .all(|words| causes.iter().any(|cause| cause.contains(words)));
                (!explained || !complete || self.refusal.is_empty()).then(|| {
                    format!(
                        "{}: expected {:?}, the answer is {causes:#?}",
                        self.case, self.refusal
                    )
                })
            }
        }
    }
}

/// A JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, change) in changes {
        match change {
            Value::Null => drop(
                target
                    .as_object_mut()
                    .and_then(|fields| fields.remove(name)),
            ),
            _ => merge(&mut target[name], change),
        }
    }
}
