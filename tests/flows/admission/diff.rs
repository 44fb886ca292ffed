//! A readable diff of two JSON values.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every path at which two values differ, with both values.
pub fn diff(path: &str, expected: &Value, found: &Value) -> Vec<String> {
    match (expected, found) {
        (Value::Object(these), Value::Object(those)) => {
            let names: BTreeSet<&String> = these.keys().chain(those.keys()).collect();
            let inner = names
                .into_iter()
                .map(|name| (format!("{path}.{name}"), &expected[name], &found[name]));
            inner
                .flat_map(|(path, this, that)| diff(&path, this, that))
                .collect()
        }
        (Value::Array(these), Value::Array(those)) if these.len() == those.len() => {
            let inner = these.iter().zip(those).enumerate();
            inner
                .flat_map(|(index, (this, that))| diff(&format!("{path}[{index}]"), this, that))
                .collect()
        }
        _ if expected == found => Vec::new(),
        _ => vec![format!("{path}: expected {expected}, found {found}")],
    }
}
