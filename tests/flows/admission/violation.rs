//! For every constraint of a schema, an object that violates it, derived from a complete object:
//! one that has every field.

use serde_json::{Value, json};

use super::client::{Cause, Operation};
use super::crd::{Constraint, Crd, PathStep, SchemaPath};

/// An object that violates one constraint, and the cause with which it must be rejected.
pub struct Violation {
    pub operation: Operation,
    pub object: Value,
    pub field: String,
    pub message: String,
}

impl Violation {
    /// One violation for every constraint of a CRD. `stored` is the complete object as stored, for
    /// the constraints of a status that is a subresource.
    pub fn all(crd: &Crd, complete: &Value, stored: &Value) -> Vec<Self> {
        let constraints = crd.constraints().into_iter();
        // The root is always an object: the API server cannot receive anything else.
        let constraints = constraints.filter(|(path, constraint)| {
            !(path.0.is_empty() && matches!(constraint, Constraint::Type(_)))
        });
        let violation = |(path, constraint): (SchemaPath, Constraint)| {
            if path.is_status() {
                Self::of(Operation::StatusUpdate, &path, &constraint, stored)
            } else {
                Self::of(Operation::Create, &path, &constraint, complete)
            }
        };
        constraints.map(violation).collect()
    }

    fn of(operation: Operation, path: &SchemaPath, constraint: &Constraint, good: &Value) -> Self {
        let location = Location::find(path, constraint, good);
        let (field, message) = location.expected_cause(constraint);
        let mut object = good.clone();
        violate(
            object
                .pointer_mut(&location.pointer)
                .expect("the location is in the object"),
            constraint,
        );
        Self {
            operation,
            object,
            field,
            message,
        }
    }

    /// Whether this is the expected cause.
    pub fn matches(&self, cause: &Cause) -> bool {
        cause.field == self.field && cause.message.contains(&self.message)
    }
}

/// The location of a value in an object.
struct Location {
    /// As a JSON pointer.
    pointer: String,
    /// As the API server names it.
    field: String,
}

impl Location {
    /// Finds a value at the path that can be made to violate the constraint.
    ///
    /// # Panics
    /// If there is none: without a complete object a constraint would stay untested.
    fn find(path: &SchemaPath, constraint: &Constraint, complete: &Value) -> Self {
        let fits = |value: &Value| match constraint {
            Constraint::Required(name) => value.get(name).is_some(),
            Constraint::MaxItems(_) | Constraint::UniqueBy => {
                value.as_array().is_some_and(|items| !items.is_empty())
            }
            Constraint::MaxProperties(_) => {
                value.as_object().is_some_and(|fields| !fields.is_empty())
            }
            _ => true,
        };
        let found = Self::search(
            &path.0,
            complete,
            Self {
                pointer: String::new(),
                field: String::new(),
            },
            &fits,
        );
        found.unwrap_or_else(|| panic!("the complete object has no {path}"))
    }

    /// Searches every item: fields that exclude each other are in different items.
    fn search(
        steps: &[PathStep],
        value: &Value,
        here: Self,
        fits: &impl Fn(&Value) -> bool,
    ) -> Option<Self> {
        let Some((step, rest)) = steps.split_first() else {
            return fits(value).then_some(here);
        };
        match (step, value) {
            (PathStep::Field(name), _) => {
                Self::search(rest, value.get(name)?, here.field(name), fits)
            }
            (PathStep::Each, Value::Array(items)) => {
                let mut items = items.iter().enumerate();
                items.find_map(|(index, item)| Self::search(rest, item, here.item(index), fits))
            }
            (PathStep::Each, Value::Object(fields)) => fields
                .iter()
                .find_map(|(name, field)| Self::search(rest, field, here.field(name), fits)),
            _ => None,
        }
    }

    fn field(&self, name: &str) -> Self {
        let dot = if self.field.is_empty() { "" } else { "." };
        Self {
            pointer: format!("{}/{name}", self.pointer),
            field: format!("{}{dot}{name}", self.field),
        }
    }

    fn item(&self, index: usize) -> Self {
        Self {
            pointer: format!("{}/{index}", self.pointer),
            field: format!("{}[{index}]", self.field),
        }
    }

    /// The field and the message that the API server must report.
    fn expected_cause(&self, constraint: &Constraint) -> (String, String) {
        let message = match constraint {
            Constraint::Type(kind) => format!("must be of type {kind}"),
            Constraint::Enum => "supported values: ".to_owned(),
            Constraint::Pattern(pattern) => format!("should match '{pattern}'"),
            Constraint::Time => "must be of type date-time".to_owned(),
            Constraint::MinLength(least) => format!("should be at least {least} chars long"),
            Constraint::MaxLength(most) => format!("may not be more than {most} bytes"),
            Constraint::Minimum(least) => format!("should be greater than or equal to {least}"),
            Constraint::Maximum(most) => format!("should be less than or equal to {most}"),
            Constraint::MinItems(least) => format!("should have at least {least} items"),
            Constraint::MaxItems(most) | Constraint::MaxProperties(most) => {
                format!("must have at most {most} items")
            }
            Constraint::MinProperties(least) => format!("should have at least {least} properties"),
            Constraint::Required(name) => {
                return (self.field(name).field, "Required value".to_owned());
            }
            Constraint::UniqueBy => return (self.item(1).field, "Duplicate value".to_owned()),
        };
        (self.field.clone(), message)
    }
}

/// Changes a valid value to violate this constraint, and if possible no other.
fn violate(value: &mut Value, constraint: &Constraint) {
    match constraint {
        Constraint::Type(kind) => {
            *value = if kind == "string" {
                json!(1)
            } else {
                json!("text")
            }
        }
        // No pattern and no enum matches a single space, and every length constraint allows it.
        Constraint::Enum | Constraint::Pattern(_) | Constraint::Time => *value = json!(" "),
        Constraint::MinLength(least) => *value = json!("x".repeat(size(*least) - 1)),
        Constraint::MaxLength(most) => {
            *value = json!(lengthen(value.as_str().expect("text"), size(*most) + 1))
        }
        Constraint::Minimum(least) => *value = json!(least - 1),
        Constraint::Maximum(most) => *value = json!(most + 1),
        Constraint::MinItems(least) => value
            .as_array_mut()
            .expect("a list")
            .truncate(size(*least) - 1),
        Constraint::MaxItems(most) => *value = json!(vec![value[0].clone(); size(*most) + 1]),
        Constraint::MinProperties(_) => *value = json!({}),
        Constraint::MaxProperties(most) => *value = with_properties(value, size(*most) + 1),
        Constraint::Required(name) => drop(value.as_object_mut().expect("an object").remove(name)),
        Constraint::UniqueBy => *value = json!([value[0], value[0]]),
    }
}

fn size(limit: u64) -> usize {
    usize::try_from(limit).expect("a limit fits into memory")
}

/// The text, lengthened by repeating its last character.
fn lengthen(text: &str, length: usize) -> String {
    let last = text.chars().last().expect("text");
    text.chars()
        .chain(std::iter::repeat(last))
        .take(length)
        .collect()
}

/// A map of `count` properties with the same value.
fn with_properties(map: &Value, count: usize) -> Value {
    let value = map
        .as_object()
        .and_then(|fields| fields.values().next())
        .expect("a property");
    (0..count)
        .map(|index| (index.to_string(), value.clone()))
        .collect()
}
