//! What is kept of a ReferenceGrant: from where its namespace may be referred to, and to what.
//!
//! The kind is part of the Gateway API, which a cluster need not have. Only its fields that are
//! read here are declared.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// The part of a ReferenceGrant that is read.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1beta1",
    kind = "ReferenceGrant",
    plural = "referencegrants",
    namespaced,
    schema = "disabled"
)]
pub(super) struct ReferenceGrantSpec {
    #[serde(default)]
    from: Vec<From>,
    #[serde(default)]
    to: Vec<To>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct To {
    group: String,
    kind: String,
    name: Option<String>,
}

/// Permission to refer to objects of a namespace from other namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Group, kind and namespace of objects that may refer.
    pub from: Vec<(String, String, String)>,
    /// Group, kind and name of objects that may be referred to; no name means all of that kind.
    pub to: Vec<(String, String, Option<String>)>,
}

impl Grant {
    pub(super) fn of(grant: &ReferenceGrant) -> Self {
        let from = grant.spec.from.iter().cloned();
        let to = grant.spec.to.iter().cloned();
        // An empty name is treated as none is.
        let name = |name: Option<String>| name.filter(|name| !name.is_empty());
        Self {
            from: from
                .map(|one| (one.group, one.kind, one.namespace))
                .collect(),
            to: to
                .map(|one| (one.group, one.kind, name(one.name)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn grant_keeps_who_may_refer_to_what() {
        let grant = json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": { "name": "offers", "namespace": "llm" },
            "spec": {
                "from": [{ "group": "obol.org", "kind": "ServiceOffer", "namespace": "shop" }],
                "to": [
                    { "group": "", "kind": "Service" },
                    { "group": "", "kind": "Service", "name": "chat" },
                    { "kind": "Secret", "name": "" },
                ],
            },
        });
        let grant = Grant::of(&serde_json::from_value(grant).unwrap());
        let text = |text: &str| text.to_owned();
        assert_eq!(
            grant.from,
            [(text("obol.org"), text("ServiceOffer"), text("shop"))]
        );
        let service = |name| (text(""), text("Service"), name);
        let secrets = (text(""), text("Secret"), None);
        assert_eq!(
            grant.to,
            [service(None), service(Some(text("chat"))), secrets]
        );
    }
}
