//! For every bound of a schema, an object that breaks it: derived from a specimen, an object that has every field.

use serde_json::{Value, json};

use super::definition::{Bound, Definition, Place, Step};
use super::submission::{Cause, Occasion};

/// An object that breaks one bound, and what is said about it.
pub struct Breach {
    pub occasion: Occasion,
    pub object: Value,
    pub field: String,
    pub words: String,
}

impl Breach {
    /// One for every bound of a definition. `observed` is the specimen as it is stored,
    /// status included, for bounds of a status that is written apart.
    pub fn all(definition: &Definition, specimen: &Value, observed: &Value) -> Vec<Self> {
        let bounds = definition.bounds().into_iter();
        // The API server takes nothing but an object, and no specimen can be anything else.
        let bounds = bounds
            .filter(|(place, bound)| !(place.0.is_empty() && matches!(bound, Bound::Type(_))));
        let breach = |(place, bound): (Place, Bound)| match place.is_status() {
            true => Self::of(Occasion::StatusUpdate, &place, &bound, observed),
            false => Self::of(Occasion::Creation, &place, &bound, specimen),
        };
        bounds.map(breach).collect()
    }

    fn of(occasion: Occasion, place: &Place, bound: &Bound, good: &Value) -> Self {
        let spot = Spot::find(place, bound, good);
        let (field, words) = spot.refusal(bound);
        let mut object = good.clone();
        break_at(
            object
                .pointer_mut(&spot.pointer)
                .expect("the spot is in the specimen"),
            bound,
        );
        Self {
            occasion,
            object,
            field,
            words,
        }
    }

    /// Whether a cause is the one that the breach must have.
    pub fn is_told_by(&self, cause: &Cause) -> bool {
        cause.field == self.field && cause.message.contains(&self.words)
    }
}

/// A value inside the specimen.
struct Spot {
    /// As a JSON pointer.
    pointer: String,
    /// As the API server names it.
    field: String,
}

impl Spot {
    /// Where the specimen has a value at a place that the bound can be broken in.
    ///
    /// # Panics
    /// If it has none: a specimen has every field, or a bound goes untested.
    fn find(place: &Place, bound: &Bound, specimen: &Value) -> Self {
        let fits = |value: &Value| match bound {
            Bound::Required(name) => value.get(name).is_some(),
            Bound::MaxItems(_) | Bound::UniqueBy => {
                value.as_array().is_some_and(|items| !items.is_empty())
            }
            Bound::MaxProperties(_) => value.as_object().is_some_and(|fields| !fields.is_empty()),
            _ => true,
        };
        let found = Self::search(
            &place.0,
            specimen,
            Self {
                pointer: String::new(),
                field: String::new(),
            },
            &fits,
        );
        found.unwrap_or_else(|| panic!("the specimen has no {place}"))
    }

    /// Looks into every item, since some fields exclude each other and stand in different items.
    fn search(
        steps: &[Step],
        value: &Value,
        here: Self,
        fits: &impl Fn(&Value) -> bool,
    ) -> Option<Self> {
        let Some((step, rest)) = steps.split_first() else {
            return fits(value).then_some(here);
        };
        match (step, value) {
            (Step::Field(name), _) => Self::search(rest, value.get(name)?, here.field(name), fits),
            (Step::Each, Value::Array(items)) => {
                let mut items = items.iter().enumerate();
                items.find_map(|(index, item)| Self::search(rest, item, here.item(index), fits))
            }
            (Step::Each, Value::Object(fields)) => fields
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

    /// The field that the API server complains about, and its words.
    fn refusal(&self, bound: &Bound) -> (String, String) {
        let words = match bound {
            Bound::Type(kind) => format!("must be of type {kind}"),
            Bound::Enum => "supported values: ".to_owned(),
            Bound::Pattern(pattern) => format!("should match '{pattern}'"),
            Bound::Time => "must be of type date-time".to_owned(),
            Bound::MinLength(least) => format!("should be at least {least} chars long"),
            Bound::MaxLength(most) => format!("may not be more than {most} bytes"),
            Bound::Minimum(least) => format!("should be greater than or equal to {least}"),
            Bound::Maximum(most) => format!("should be less than or equal to {most}"),
            Bound::MinItems(least) => format!("should have at least {least} items"),
            Bound::MaxItems(most) | Bound::MaxProperties(most) => {
                format!("must have at most {most} items")
            }
            Bound::MinProperties(least) => format!("should have at least {least} properties"),
            Bound::Required(name) => return (self.field(name).field, "Required value".to_owned()),
            Bound::UniqueBy => return (self.item(1).field, "Duplicate value".to_owned()),
        };
        (self.field.clone(), words)
    }
}

/// Turns a good value into one that breaks a bound, and as far as possible nothing else.
fn break_at(value: &mut Value, bound: &Bound) {
    match bound {
        Bound::Type(kind) => {
            *value = if kind == "string" {
                json!(1)
            } else {
                json!("text")
            }
        }
        // No pattern and no list of values takes a lone space, and no bound of a length objects to it.
        Bound::Enum | Bound::Pattern(_) | Bound::Time => *value = json!(" "),
        Bound::MinLength(least) => *value = json!("x".repeat(size(*least) - 1)),
        Bound::MaxLength(most) => {
            *value = json!(lengthened(value.as_str().expect("text"), size(*most) + 1))
        }
        Bound::Minimum(least) => *value = json!(least - 1),
        Bound::Maximum(most) => *value = json!(most + 1),
        Bound::MinItems(least) => value
            .as_array_mut()
            .expect("a list")
            .truncate(size(*least) - 1),
        Bound::MaxItems(most) => *value = json!(vec![value[0].clone(); size(*most) + 1]),
        Bound::MinProperties(_) => *value = json!({}),
        Bound::MaxProperties(most) => *value = multiplied(value, size(*most) + 1),
        Bound::Required(name) => drop(value.as_object_mut().expect("an object").remove(name)),
        Bound::UniqueBy => *value = json!([value[0], value[0]]),
    }
}

fn size(bound: u64) -> usize {
    usize::try_from(bound).expect("a bound fits into memory")
}

/// A text, made longer by repeating its last letter.
fn lengthened(text: &str, length: usize) -> String {
    let last = text.chars().last().expect("text");
    text.chars()
        .chain(std::iter::repeat(last))
        .take(length)
        .collect()
}

/// A map of that many properties, all of them with one value.
fn multiplied(map: &Value, count: usize) -> Value {
    let value = map
        .as_object()
        .and_then(|fields| fields.values().next())
        .expect("a property");
    (0..count)
        .map(|index| (index.to_string(), value.clone()))
        .collect()
}
