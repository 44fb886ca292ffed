//! Checks that a CRD states what the API server does not ask for, but users need.
//!
//! The API server accepts much that causes trouble later. A rule of unbounded cost blocks writes of
//! a large object. A rule without a message answers with its own source. A list without a type is
//! merged in an unexpected way. A property without a description leaves `kubectl explain` empty.

use serde_json::Value;

/// The faults of a CRD, each with the path of its schema; empty if the CRD is sound.
pub fn faults(definition: &Value) -> Vec<String> {
    let versions = definition["spec"]["versions"].as_array();
    let schemas = versions
        .into_iter()
        .flatten()
        .filter_map(|version| version.pointer("/schema/openAPIV3Schema"));
    schemas
        .flat_map(|schema| faults_below("", schema))
        .collect()
}

fn faults_below(path: &str, schema: &Value) -> Vec<String> {
    let own = [
        structure_faults(schema),
        bound_faults(schema),
        description_faults(schema),
        rule_faults(schema),
    ];
    let here = if path.is_empty() { "the object" } else { path };
    let mut faults: Vec<String> = own
        .into_iter()
        .flatten()
        .map(|fault| format!("{here}: {fault}"))
        .collect();
    for (name, property) in fields(schema) {
        faults.extend(faults_below(&format!("{path}.{name}"), property));
    }
    for inner in ["items", "additionalProperties"]
        .iter()
        .filter_map(|keyword| schema.get(keyword))
    {
        faults.extend(faults_below(&format!("{path}[]"), inner));
    }
    faults
}

fn fields(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// A schema must be structural and complete: the API server prunes what it does not declare, and
/// merges an undeclared list type as a whole.
fn structure_faults(schema: &Value) -> Vec<String> {
    let has = |keyword: &str| schema.get(keyword).is_some();
    let mut faults = Vec::new();
    for keyword in ["$ref", "allOf", "anyOf", "oneOf", "not"]
        .into_iter()
        .filter(|keyword| has(keyword))
    {
        faults.push(format!(
            "{keyword} is not structural: declare the type here, and the rest as a CEL rule"
        ));
    }
    match schema["type"].as_str() {
        None => faults.push("has no type".to_owned()),
        Some("object") if has("properties") == has("additionalProperties") => {
            faults.push("an object has either properties or additionalProperties".to_owned());
        }
        Some("array") if !has("items") => faults.push("a list has no items".to_owned()),
        Some("array") if !has("x-kubernetes-list-type") => {
            faults.push("a list has no x-kubernetes-list-type".to_owned())
        }
        Some(_) => {}
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|values| values.contains(&Value::Null))
    {
        faults.push("an enum holds null".to_owned());
    }
    faults
}

/// Everything that can grow needs a bound: the API server estimates the cost of CEL rules from it,
/// and etcd stores whatever passes admission.
fn bound_faults(schema: &Value) -> Vec<String> {
    let needed: &[&str] = match schema["type"].as_str() {
        Some("string") if schema.get("enum").is_none() => &["maxLength"],
        Some("array") => &["maxItems"],
        Some("object") if schema.get("additionalProperties").is_some() => &["maxProperties"],
        Some("integer") => &["minimum", "maximum"],
        _ => &[],
    };
    let missing = needed
        .iter()
        .filter(|keyword| schema.get(keyword).is_none());
    missing.map(|keyword| format!("has no {keyword}")).collect()
}

fn description_faults(schema: &Value) -> Vec<String> {
    let explained = |property: &Value| {
        property["description"]
            .as_str()
            .is_some_and(|text| !text.trim().is_empty())
    };
    let bare = fields(schema).filter(|(_, property)| !explained(property));
    bare.map(|(name, _)| format!("{name} has no description"))
        .collect()
}

/// Each rule needs a message of its own.
fn rule_faults(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut faults = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let source = &rule["rule"];
        match rule["message"].as_str() {
            None => faults.push(format!("rule {source} has no message")),
            // Two words can only name a field and complain; saying what to write takes more.
            Some(message) if message.split_whitespace().count() < 3 || message.contains('\n') => {
                faults.push(format!(
                    "rule {source} does not say what to write: {message:?}"
                ));
            }
            Some(_)
                if rules[..index]
                    .iter()
                    .any(|other| has_same_message(other, rule)) =>
            {
                faults.push(format!(
                    "rule {source} has the same message as another rule"
                ));
            }
            Some(_) => {}
        }
    }
    faults
}

/// Whether a user could not distinguish which of two rules rejected an object.
fn has_same_message(one: &Value, other: &Value) -> bool {
    one["message"] == other["message"] && one["fieldPath"] == other["fieldPath"]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults_of_property(schema: Value) -> Vec<String> {
        let root = json!({ "type": "object", "properties": { "x": schema } });
        faults(&json!({ "spec": { "versions": [{ "schema": { "openAPIV3Schema": root } }] } }))
    }

    #[test]
    fn complete_property_has_no_faults() {
        for schema in [
            json!({ "type": "string", "maxLength": 3, "description": "A word." }),
            json!({ "type": "string", "enum": ["a"], "description": "A letter." }),
            json!({ "type": "boolean", "description": "A switch." }),
            json!({ "type": "integer", "minimum": 0, "maximum": 9, "description": "A digit." }),
            json!({
                "type": "array", "maxItems": 2, "x-kubernetes-list-type": "atomic", "description": "Words.",
                "items": { "type": "string", "maxLength": 3 },
            }),
            json!({
                "type": "object", "maxProperties": 2, "description": "Words by name.",
                "additionalProperties": { "type": "string", "maxLength": 3 },
                "x-kubernetes-validations": [{ "rule": "true", "message": "write two words" }],
            }),
        ] {
            assert_eq!(
                faults_of_property(schema.clone()),
                Vec::<String>::new(),
                "{schema}"
            );
        }
    }

    #[test]
    fn incomplete_property_has_a_fault_with_its_path() {
        let rule = |rules: Value| json!({ "type": "boolean", "description": "A.", "x-kubernetes-validations": rules });
        let inside = |items: Value| json!({ "type": "array", "maxItems": 1, "x-kubernetes-list-type": "atomic", "description": "A.", "items": items });
        for (schema, fault) in [
            (json!({ "description": "A." }), ".x: has no type"),
            (
                json!({ "type": "boolean", "description": "A.", "anyOf": [] }),
                ".x: anyOf is not structural",
            ),
            (
                json!({ "type": "object", "description": "A." }),
                ".x: an object has either properties or",
            ),
            (
                json!({ "type": "object", "description": "A.", "properties": {}, "maxProperties": 1, "additionalProperties": { "type": "boolean" } }),
                ".x: an object has either properties or",
            ),
            (
                json!({ "type": "array", "description": "A.", "maxItems": 1 }),
                ".x: a list has no items",
            ),
            (
                json!({ "type": "array", "description": "A.", "maxItems": 1, "items": { "type": "boolean" } }),
                ".x: a list has no x-kubernetes-list-type",
            ),
            (
                json!({ "type": "array", "description": "A.", "x-kubernetes-list-type": "atomic", "items": { "type": "boolean" } }),
                ".x: has no maxItems",
            ),
            (
                json!({ "type": "string", "description": "A.", "enum": ["a", null] }),
                ".x: an enum holds null",
            ),
            (
                json!({ "type": "string", "description": "A." }),
                ".x: has no maxLength",
            ),
            (
                json!({ "type": "integer", "description": "A.", "minimum": 0 }),
                ".x: has no maximum",
            ),
            (
                json!({ "type": "integer", "description": "A.", "maximum": 0 }),
                ".x: has no minimum",
            ),
            (
                json!({ "type": "object", "description": "A.", "additionalProperties": { "type": "boolean" } }),
                ".x: has no maxProperties",
            ),
            (
                json!({ "type": "boolean" }),
                "the object: x has no description",
            ),
            (
                json!({ "type": "boolean", "description": " " }),
                "the object: x has no description",
            ),
            (
                inside(json!({ "type": "string" })),
                ".x[]: has no maxLength",
            ),
            (
                rule(json!([{ "rule": "false" }])),
                ".x: rule \"false\" has no message",
            ),
            (
                rule(json!([{ "rule": "false", "message": "is wrong" }])),
                ".x: rule \"false\" does not say what to write",
            ),
            (
                rule(
                    json!([{ "rule": "a", "message": "write it so" }, { "rule": "b", "message": "write it so" }]),
                ),
                ".x: rule \"b\" has the same message as another rule",
            ),
        ] {
            let faults = faults_of_property(schema.clone());
            assert_eq!(faults.len(), 1, "{schema}: {faults:?}");
            assert!(faults[0].starts_with(fault), "{schema}: {faults:?}");
        }
    }
}
