//! The generated CRDs, read as data: their schema constraints and CEL rules, each with its path.

use std::fmt;

use harness::release::{chart, printed};
use serde_json::Value;
use testbed::Cluster;

/// A generated CustomResourceDefinition.
pub struct Crd {
    pub name: String,
    pub kind: String,
    pub document: Value,
}

impl Crd {
    /// Every CRD of the chart, as kubectl parses its files.
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
            .expect("failed to run kubectl");
        assert!(output.status.success(), "kubectl: {}", printed(&output));
        let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
        documents
            .map(|document| Self::of(document.expect("kubectl prints JSON documents")))
            .collect()
    }

    fn of(document: Value) -> Self {
        let text = |pointer| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .expect("a CRD has a name and a kind")
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

    /// The schema of the only version.
    pub fn schema(&self) -> &Value {
        schema_of(&self.document)
    }

    /// Every constraint of the schema.
    pub fn constraints(&self) -> Vec<(SchemaPath, Constraint)> {
        let mut constraints = Vec::new();
        walk(
            self.schema(),
            &SchemaPath::default(),
            &mut |path, schema| {
                constraints.extend(
                    Constraint::of(schema)
                        .into_iter()
                        .map(|constraint| (path.clone(), constraint)),
                );
            },
        );
        constraints
    }

    /// Every CEL rule of the schema.
    pub fn rules(&self) -> Vec<CelRule> {
        let mut rules = Vec::new();
        walk(
            self.schema(),
            &SchemaPath::default(),
            &mut |path, schema| {
                let stated = schema["x-kubernetes-validations"].as_array();
                rules.extend(
                    stated
                        .into_iter()
                        .flatten()
                        .map(|rule| CelRule::of(path, rule)),
                );
            },
        );
        rules
    }
}

/// The schema of the only version of a CRD.
pub fn schema_of(crd: &Value) -> &Value {
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
        .expect("a CRD has a schema")
}

/// One step from a schema to a schema inside it.
#[derive(Clone, PartialEq, Eq)]
pub enum PathStep {
    Field(String),
    /// The items of a list or the values of a map.
    Each,
}

/// The path of a schema in the object that it describes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SchemaPath(pub Vec<PathStep>);

impl SchemaPath {
    fn then(&self, step: PathStep) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Whether it is part of the status.
    pub fn is_status(&self) -> bool {
        self.0.first() == Some(&PathStep::Field("status".to_owned()))
    }
}

impl fmt::Display for SchemaPath {
    /// As the API server names a field, with `[]` in place of each index.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Field(name) if index == 0 => f.write_str(name)?,
                PathStep::Field(name) => write!(f, ".{name}")?,
                PathStep::Each => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

/// Visits a schema and all schemas inside it.
pub fn walk(schema: &Value, path: &SchemaPath, visit: &mut impl FnMut(&SchemaPath, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &path.then(PathStep::Field(name.clone())), visit);
    }
    for inner in ["items", "additionalProperties"]
        .iter()
        .filter_map(|keyword| schema.get(keyword))
    {
        walk(inner, &path.then(PathStep::Each), visit);
    }
}

/// What one schema keyword requires of a value.
#[derive(Clone)]
pub enum Constraint {
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
    /// No two items of the list are equal, or have the same map keys.
    UniqueBy,
}

impl Constraint {
    /// # Panics
    /// If the schema has an unknown keyword: no constraint may stay untested.
    fn of(schema: &Value) -> Vec<Self> {
        // The API server checks the format of a time instead of its type.
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
        let constraint = match keyword {
            "type" => Self::Type(text()),
            "enum" => Self::Enum,
            "pattern" => Self::Pattern(text()),
            // The format of a number is a hint for clients; `minimum` and `maximum` constrain it.
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
            "x-kubernetes-list-type" if text() == "set" => Self::UniqueBy,
            "x-kubernetes-list-type" if text() == "atomic" || text() == "map" => return Vec::new(),
            "additionalProperties"
            | "default"
            | "description"
            | "items"
            | "nullable"
            | "properties"
            | "title"
            | "x-kubernetes-validations" => return Vec::new(),
            _ => panic!("no violation is known for {keyword}: {value}"),
        };
        vec![constraint]
    }
}

/// A CEL rule: its message, and the field that it reports.
pub struct CelRule {
    pub field: String,
    pub message: String,
}

impl CelRule {
    fn of(path: &SchemaPath, rule: &Value) -> Self {
        let field = match rule["fieldPath"].as_str() {
            Some(field) => format!("{path}{field}").trim_start_matches('.').to_owned(),
            None if path.0.is_empty() => "<nil>".to_owned(),
            None => path.to_string(),
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

/// The value with the defaults of the schema, as the API server stores it.
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
