//! What is kept of a Service: where it leads, and what its owner allows.
//!
//! Whether an offer may use it is decided by who compiles offers into routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// Names the namespaces whose offers may use a Service, separated by commas.
const OFFERS_FROM_ANNOTATION: &str = "obol.org/offers-from";

/// A Service, trimmed to what the upstream of an offer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    pub form: ServiceForm,
    /// Its TCP ports.
    pub ports: Vec<u16>,
    /// Without one, its endpoints are what others write.
    pub has_selector: bool,
    /// Namespaces, other than its own, whose offers may use it by its annotation.
    pub offers_from: BTreeSet<String>,
}

/// Where a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceForm {
    /// To an address inside the cluster.
    ClusterIp(IpAddr),
    /// To its Pods. It has no address, or none yet.
    Headless,
    /// To a DNS name.
    ExternalName(String),
}

impl ServiceFacts {
    pub(super) fn of(service: &Service) -> Self {
        let annotation = service.annotations().get(OFFERS_FROM_ANNOTATION);
        let namespaces = annotation.map(String::as_str).unwrap_or_default();
        let namespaces = namespaces.split(',').map(str::trim);
        let Some(spec) = &service.spec else {
            return Self::without_spec();
        };
        let ports = spec.ports.iter().flatten();
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        let address = spec.cluster_ip.as_deref();
        let address = address.and_then(|address| address.parse().ok());
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        Self {
            form: match (is_external, address) {
                (true, _) => {
                    ServiceForm::ExternalName(spec.external_name.clone().unwrap_or_default())
                }
                (false, Some(address)) => ServiceForm::ClusterIp(address),
                (false, None) => ServiceForm::Headless,
            },
            ports: tcp.filter_map(|port| port.port.try_into().ok()).collect(),
            has_selector: spec.selector.as_ref().is_some_and(|own| !own.is_empty()),
            offers_from: namespaces
                .filter(|namespace| !namespace.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    fn without_spec() -> Self {
        Self {
            form: ServiceForm::Headless,
            ports: Vec::new(),
            has_selector: false,
            offers_from: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(service: Value) -> ServiceFacts {
        ServiceFacts::of(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn form_follows_from_type_and_cluster_ip() {
        for (spec, form) in [
            (
                json!({ "clusterIP": "10.43.0.7" }),
                ServiceForm::ClusterIp([10, 43, 0, 7].into()),
            ),
            (
                json!({ "type": "NodePort", "clusterIP": "fd00::7" }),
                ServiceForm::ClusterIp("fd00::7".parse().unwrap()),
            ),
            (json!({ "clusterIP": "None" }), ServiceForm::Headless),
            (json!({ "type": "ClusterIP" }), ServiceForm::Headless),
            (
                json!({ "type": "ExternalName", "externalName": "x.example" }),
                ServiceForm::ExternalName("x.example".into()),
            ),
        ] {
            assert_eq!(facts(json!({ "spec": spec })).form, form, "{spec}");
        }
        assert_eq!(facts(json!({})), ServiceFacts::without_spec());
    }

    #[test]
    fn facts_keep_tcp_ports_selector_and_allowed_namespaces() {
        let ports = json!([
            { "port": 80 }, { "port": 443, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" },
        ]);
        let found = facts(json!({
            "metadata": { "annotations": { "obol.org/offers-from": " shop,,bank " } },
            "spec": { "ports": ports, "selector": { "app": "chat" } },
        }));
        assert_eq!(found.ports, [80, 443]);
        assert!(found.has_selector);
        assert_eq!(
            found.offers_from,
            ["bank", "shop"].map(str::to_owned).into()
        );
        let bare = facts(json!({ "spec": { "selector": {} } }));
        assert!(!bare.has_selector && bare.offers_from.is_empty() && bare.ports.is_empty());
    }
}
