//! Where two values differ, told so that a person finds it.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every place where two values differ, with what stands there.
pub fn differences(place: &str, expected: &Value, found: &Value) -> Vec<String> {
    match (expected, found) {
        (Value::Object(these), Value::Object(those)) => {
            let names: BTreeSet<&String> = these.keys().chain(those.keys()).collect();
            let inner = names
                .into_iter()
                .map(|name| (format!("{place}.{name}"), &expected[name], &found[name]));
            inner
                .flat_map(|(place, this, that)| differences(&place, this, that))
                .collect()
        }
        (Value::Array(these), Value::Array(those)) if these.len() == those.len() => {
            let inner = these.iter().zip(those).enumerate();
            inner
                .flat_map(|(index, (this, that))| {
                    differences(&format!("{place}[{index}]"), this, that)
                })
                .collect()
        }
        _ if expected == found => Vec::new(),
        _ => vec![format!("{place}: expected {expected}, found {found}")],
    }
}
