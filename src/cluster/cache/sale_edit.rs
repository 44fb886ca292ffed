//! Who besides this operator writes the conditions of an offer about selling, by its managedFields.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::api::{SALE_CONDITIONS, ServiceOffer};
use crate::cluster::write::FIELD_MANAGER;

/// The last edit of such a condition by another field manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SaleEdit {
    pub manager: String,
    /// To the second, by the clock of the API server.
    pub at: Timestamp,
}

impl SaleEdit {
    /// The last edit of a cached offer.
    pub(crate) fn last(offer: &ServiceOffer) -> Option<Self> {
        let others = offer.metadata.managed_fields.iter().flatten();
        let edits = others.filter_map(|entry| {
            Some(Self {
                manager: entry.manager.clone().unwrap_or_default(),
                at: entry.time.as_ref()?.0,
            })
        });
        edits.max_by_key(|edit| edit.at)
    }
}

/// The entries of others that own such a condition, without the names of their fields.
pub(super) fn others(entries: Option<Vec<ManagedFieldsEntry>>) -> Option<Vec<ManagedFieldsEntry>> {
    let mut others = entries?;
    others.retain(|entry| !is_own(entry) && owns_condition(entry));
    for entry in &mut others {
        entry.fields_v1 = None;
    }
    Some(others).filter(|others| !others.is_empty())
}

fn is_own(entry: &ManagedFieldsEntry) -> bool {
    // The legacy controller updates under the same name.
    entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
}

/// Fields are named as in KEP-555: a list item by its keys.
fn owns_condition(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    let conditions = fields.and_then(|fields| fields.get("f:status")?.get("f:conditions"));
    let Some(conditions) = conditions else {
        return false;
    };
    let mut keys = SALE_CONDITIONS
        .iter()
        .map(|type_| format!("k:{{\"type\":\"{type_}\"}}"));
    keys.any(|key| conditions.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(manager: &str, operation: &str, second: u32, type_: &str) -> Value {
        let condition = format!("k:{{\"type\":\"{type_}\"}}");
        json!({
            "manager": manager, "operation": operation, "subresource": "status",
            "time": format!("2026-01-01T00:00:{second:02}Z"),
            "fieldsV1": { "f:status": { "f:conditions": { condition: { "f:status": {} } } } },
        })
    }

    fn last(entries: Value) -> Option<(String, String)> {
        let entries = serde_json::from_value(entries).unwrap();
        let mut offer = crate::registration::fixtures::offer(json!({}));
        offer.metadata.managed_fields = others(entries);
        let edit = SaleEdit::last(&offer)?;
        Some((edit.manager, edit.at.to_string()))
    }

    #[test]
    fn last_edit_by_another_manager_is_found() {
        let edits = json!([
            entry("verifier", "Update", 1, "PaymentGateReady"),
            entry("serviceoffer-controller", "Update", 3, "RoutePublished"),
            entry("other", "Apply", 2, "UpstreamHealthy"),
        ]);
        let expected = ("serviceoffer-controller", "2026-01-01T00:00:03Z");
        let found = last(edits).unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str()), expected);
    }

    #[test]
    fn own_edits_and_those_of_other_fields_do_not_count() {
        let own = entry("serviceoffer-controller", "Apply", 1, "PaymentGateReady");
        let other = entry("kubectl", "Update", 2, "ModelReady");
        let mut spec = entry("kubectl", "Apply", 3, "PaymentGateReady");
        spec["fieldsV1"] = json!({ "f:spec": { "f:path": {} } });
        let mut odd = entry("kubectl", "Apply", 3, "PaymentGateReady");
        odd["fieldsV1"] = json!(null);
        assert_eq!(last(json!([own, other, spec, odd])), None);
        assert_eq!(last(json!(null)), None);
    }
}
