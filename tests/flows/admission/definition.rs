//! The generated definitions, read as data: which bounds and rules they state, and where.

use std::fmt;

use serde_json::Value;
use testbed::Cluster;

use crate::release::{chart, said};

/// One generated CustomResourceDefinition.
pub struct Definition {
    pub name: String,
    pub kind: String,
    pub document: Value,
}

impl Definition {
    /// Every definition of the chart, as its files state it and kubectl reads them.
    pub async fn all(cluster: &Cluster) -> Vec<Self> {
        let directory = chart().join("files/crds");
        let directory = directory.to_str().expect("a path in UTF-8");
        let arguments = [
            "create",
            "--dry-run=client",
            "--output=json",
            "--filename",
            directory,
        ];
        let output = cluster
            .kubectl(arguments)
            .output()
            .await
            .expect("kubectl runs");
        assert!(output.status.success(), "kubectl: {}", said(&output));
        let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
        documents
            .map(|document| Self::of(document.expect("kubectl writes one JSON after the other")))
            .collect()
    }

    fn of(document: Value) -> Self {
        let text = |pointer| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .expect("a definition names itself")
        };
        let (name, kind) = (
            text("/metadata/name").to_owned(),
            text("/spec/names/kind").to_owned(),
        );
        Self {
            name,
            kind,
            document,
        }
    }

    /// The schema of the one version.
    pub fn schema(&self) -> &Value {
        schema_of(&self.document)
    }

    /// Every bound that the schema states.
    pub fn bounds(&self) -> Vec<(Place, Bound)> {
        let mut bounds = Vec::new();
        walk(self.schema(), &Place::default(), &mut |place, schema| {
            bounds.extend(
                Bound::of(schema)
                    .into_iter()
                    .map(|bound| (place.clone(), bound)),
            );
        });
        bounds
    }

    /// Every CEL rule that the schema states.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        walk(self.schema(), &Place::default(), &mut |place, schema| {
            let stated = schema["x-kubernetes-validations"].as_array();
            rules.extend(
                stated
                    .into_iter()
                    .flatten()
                    .map(|rule| Rule::of(place, rule)),
            );
        });
        rules
    }
}

/// The schema of the one version of a definition.
pub fn schema_of(definition: &Value) -> &Value {
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .expect("a definition has a schema")
}

/// One step from a schema into what it contains.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    Field(String),
    /// The items of a list or the values of a map.
    Each,
}

/// Where a schema stands in the object it describes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Place(pub Vec<Step>);

impl Place {
    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Whether it belongs to the part that only the status subresource writes.
    pub fn is_status(&self) -> bool {
        self.0.first() == Some(&Step::Field("status".to_owned()))
    }
}

impl fmt::Display for Place {
    /// As the API server names a field, with `[]` for any item.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Each => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

/// Visits a schema and all schemas inside it.
pub fn walk(schema: &Value, place: &Place, visit: &mut impl FnMut(&Place, &Value)) {
    visit(place, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &place.then(Step::Field(name.clone())), visit);
    }
    for inner in ["items", "additionalProperties"]
        .iter()
        .filter_map(|keyword| schema.get(keyword))
    {
        walk(inner, &place.then(Step::Each), visit);
    }
}

/// What a schema demands of a value, one keyword each.
#[derive(Clone)]
pub enum Bound {
    Type(String),
    Enum,
    Pattern(String),
    Time,
    MinLength(u64),
    MaxLength(u64),
    Minimum(i64),
    Maximum(i64),
    MinItems(u64),
    MaxItems(u64),
    MinProperties(u64),
    MaxProperties(u64),
    Required(String),
    /// No two items of the list have the same keys.
    UniqueBy,
}

impl Bound {
    /// # Panics
    /// If the schema has a keyword that nothing here is known to break: a bound must not slip through unseen.
    fn of(schema: &Value) -> Vec<Self> {
        // The API server checks the format of a time in place of its type.
        let typed_by_format = schema["format"] == "date-time";
        let keywords = schema.as_object().expect("a schema").iter();
        let keywords = keywords.filter(|(keyword, _)| !(typed_by_format && *keyword == "type"));
        keywords
            .flat_map(|(keyword, value)| Self::stated(keyword, value))
            .collect()
    }

    fn stated(keyword: &str, value: &Value) -> Vec<Self> {
        let text = || value.as_str().expect("text").to_owned();
        let count = || value.as_u64().expect("a count");
        let whole = || value.as_i64().expect("a whole number");
        let texts = || {
            value
                .as_array()
                .expect("a list")
                .iter()
                .map(|text| text.as_str().expect("text").to_owned())
        };
        let bound = match keyword {
            "type" => Self::Type(text()),
            "enum" => Self::Enum,
            "pattern" => Self::Pattern(text()),
            // The format of a number says how clients may hold it; what it may be is said by minimum and maximum.
            "format" if text() == "int32" || text() == "int64" => return Vec::new(),
            "format" if text() == "date-time" => Self::Time,
            "minLength" => Self::MinLength(count()),
            "maxLength" => Self::MaxLength(count()),
            "minimum" => Self::Minimum(whole()),
            "maximum" => Self::Maximum(whole()),
            "minItems" => Self::MinItems(count()),
            "maxItems" => Self::MaxItems(count()),
            "minProperties" => Self::MinProperties(count()),
            "maxProperties" => Self::MaxProperties(count()),
            "required" => return texts().map(Self::Required).collect(),
            "x-kubernetes-list-map-keys" => Self::UniqueBy,
            "x-kubernetes-list-type" if text() == "atomic" || text() == "map" => return Vec::new(),
            "additionalProperties"
            | "default"
            | "description"
            | "items"
            | "nullable"
            | "properties"
            | "title"
            | "x-kubernetes-validations" => return Vec::new(),
            _ => panic!("no value is known that breaks {keyword}: {value}"),
        };
        vec![bound]
    }
}

/// A CEL rule: what the API server says, and about which field.
pub struct Rule {
    pub field: String,
    pub message: String,
}

impl Rule {
    fn of(place: &Place, rule: &Value) -> Self {
        let field = match rule["fieldPath"].as_str() {
            Some(path) => format!("{place}{path}").trim_start_matches('.').to_owned(),
            None if place.0.is_empty() => "<nil>".to_owned(),
            None => place.to_string(),
        };
        Self {
            field,
            message: rule["message"]
                .as_str()
                .expect("a rule has a message")
                .to_owned(),
        }
    }
}

/// A value as the API server stores it: with the defaults of the schema where it says nothing.
pub fn defaulted(value: &Value, schema: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut whole = fields.clone();
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = property.get("default") {
                    whole.entry(name).or_insert_with(|| default.clone());
                }
            }
            let inner = |name: &str| {
                schema["properties"]
                    .get(name)
                    .unwrap_or(&schema["additionalProperties"])
            };
            whole
                .into_iter()
                .map(|(name, value)| (name.clone(), defaulted(&value, inner(&name))))
                .collect()
        }
        Value::Array(items) => items
            .iter()
            .map(|item| defaulted(item, &schema["items"]))
            .collect(),
        scalar => scalar.clone(),
    }
}
