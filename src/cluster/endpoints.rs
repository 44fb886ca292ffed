//! Counts the Pods that are ready behind a Service, from its EndpointSlices.

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::debug;

use super::cache::list_and_watch;
use crate::telemetry::causes;

/// Label of EndpointSlices that names their Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reports how many Pods are ready behind a Service, until no one listens. While the API server does
/// not say, the last number counts.
pub(crate) async fn watch_ready(
    client: Client,
    (namespace, service): (String, String),
    ready: watch::Sender<usize>,
) {
    let config = watcher::Config::default().labels(&format!("{SERVICE_NAME}={service}"));
    let slices = Api::<EndpointSlice>::namespaced(client, &namespace);
    let (store, writer) = reflector::store();
    let mut events = std::pin::pin!(list_and_watch(slices, config).reflect(writer));
    while let Some(event) = events.next().await {
        match event {
            // The store shows nothing of a list before its end.
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => {
                let slices = store.state();
                let count = count_ready(slices.iter().map(AsRef::as_ref));
                if ready.send(count).is_err() {
                    return;
                }
            }
            Err(error) => {
                debug!(service, error = %causes(&error), "endpoint watch failed, will restart");
            }
        }
    }
}

/// Pods that are ready. A Service of two address families has a slice for each.
fn count_ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> usize {
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        // What is not said counts as ready (discovery.k8s.io/v1 EndpointConditions).
        conditions.and_then(|conditions| conditions.ready) != Some(false)
    });
    let names = ready.map(|endpoint| {
        let pod = endpoint.target_ref.as_ref();
        pod.and_then(|pod| pod.name.as_ref())
            .or(endpoint.addresses.first())
    });
    names.collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(kind: &str, endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({ "addressType": kind, "endpoints": endpoints })).unwrap()
    }

    fn endpoint(pod: &str, address: &str, ready: Value) -> Value {
        json!({
            "addresses": [address], "conditions": { "ready": ready },
            "targetRef": { "kind": "Pod", "name": pod },
        })
    }

    #[test]
    fn every_ready_pod_counts_once() {
        let four = slice(
            "IPv4",
            json!([
                endpoint("a", "10.0.0.1", json!(true)),
                endpoint("b", "10.0.0.2", Value::Null),
                endpoint("c", "10.0.0.3", json!(false)),
            ]),
        );
        let six = slice("IPv6", json!([endpoint("a", "fd00::1", json!(true))]));
        assert_eq!(count_ready([&four, &six].into_iter()), 2);
        let nameless = slice("IPv4", json!([{ "addresses": ["10.0.0.9"] }]));
        assert_eq!(count_ready([&nameless].into_iter()), 1);
        assert_eq!(count_ready([].into_iter()), 0);
    }
}
