//! Components that are paused or killed, and the recovery of the cluster. Each test has a separate
//! testbed.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use testbed::{Cluster, Component, Signal};
use tokio::time::sleep;

use crate::own_testbed::{OwnTestbed, until};

fn healthy(own: &OwnTestbed) -> bool {
    own.run(&["status"]).status.success()
}

/// Asserts that a new namespace gets its ServiceAccount, which needs the API server, etcd and the
/// controller-manager.
async fn assert_works(cluster: &Cluster) {
    let namespace = cluster.namespace("works").await;
    let node = Api::<Node>::all(cluster.client())
        .get("node")
        .await
        .unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    assert!(
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    );
    assert!(node.spec.unwrap().taints.unwrap_or_default().is_empty());
    drop(namespace);
}

#[test]
fn cluster_recovers_after_the_api_server_was_paused() {
    let own = OwnTestbed::named("soc-t-frozen");
    own.succeed(&["up"]);
    testbed::test_on(own.name(), async |cluster| {
        let pids = Component::ALL.map(|component| cluster.component(component).unwrap().pid());
        let paused = cluster
            .component(Component::ApiServer)
            .unwrap()
            .pause()
            .unwrap();
        sleep(Duration::from_secs(20)).await;
        assert!(!healthy(&own));
        paused.resume();
        until("health", Duration::from_secs(20), || healthy(&own));
        assert_works(&cluster).await;
        assert_eq!(
            pids,
            Component::ALL.map(|component| cluster.component(component).unwrap().pid())
        );
    });
}

#[test]
fn every_component_can_be_killed_and_restarted() {
    let own = OwnTestbed::named("soc-t-restart");
    own.succeed(&["up"]);
    testbed::test_on(own.name(), async |cluster| {
        for component in Component::ALL {
            let mut process = cluster.component(component).unwrap();
            let before = process.pid();
            process.kill(Signal::Kill).unwrap();
            assert!(!healthy(&own), "{component:?} is dead");
            process.restart().await.unwrap();
            assert_ne!(process.pid(), before);
            until("health", Duration::from_secs(30), || healthy(&own));
        }
        assert_works(&cluster).await;
    });
}
