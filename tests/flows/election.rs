//! Who leads, by evidence and by request: what a replica makes of the end of another's container, of a person's wish, and what
//! people see of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::wait::eventually;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::api::rbac::v1::Role;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::objects::patch;
use crate::release::{LEASE, Release};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
/// The lease is 30 s: whoever leads sooner after a death has not waited for it.
const SOON: Duration = Duration::from_secs(15);
const ROLE: &str = "obol.org/role";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const STEP_DOWN: &str = "obol.org/step-down";

#[test]
fn a_leader_whose_container_is_killed_is_replaced_long_before_its_lease_runs_out() {
    Stage::play(async |stage| {
        let release = stage.install(&["replicaCount=2"]).await;
        for _ in 0..2 {
            release.ready(2, LIMIT).await;
            let leader = release.leader(None, LIMIT).await;
            only_leader_is_marked(&release, &leader).await;
            let killed = Instant::now();
            eventually("the container is killed", SOON, async || {
                release.kill(&leader).await
            })
            .await;
            let next = release.leader(Some(&leader), SOON).await;
            println!(
                "{next} leads {:?} after {leader} was killed",
                killed.elapsed()
            );
            took_over(&release, &next, "termination").await;
            only_leader_is_marked(&release, &next).await;
        }
    });
}

#[test]
fn a_leader_that_is_asked_to_steps_down_for_the_replica_that_is_named() {
    Stage::play(async |stage| {
        let release = stage.install(&["replicaCount=3"]).await;
        let pods = release.ready(3, LIMIT).await;
        let leader = release.leader(None, LIMIT).await;
        let named = pods
            .iter()
            .map(ResourceExt::name_any)
            .find(|pod| *pod != leader)
            .expect("a standby");
        let wish = json!({ "metadata": { "annotations": { STEP_DOWN: named } } });
        patch(&release.lease_api(), LEASE, wish).await;
        assert_eq!(release.leader(Some(&leader), LIMIT).await, named);
        took_over(&release, &named, "release").await;
        let lease = release.lease().await;
        assert!(
            !lease.annotations().contains_key(STEP_DOWN),
            "the wish is granted and gone: {:?}",
            lease.annotations()
        );
        let code = eventually("the former leader has begun anew", LIMIT, async || {
            let pod = release
                .pod_api()
                .get(&leader)
                .await
                .map_err(|error| error.to_string())?;
            let last =
                status(&pod).and_then(|status| status.last_state.as_ref()?.terminated.clone());
            last.map(|last| last.exit_code)
                .ok_or(format!("{:?}", pod.status))
        })
        .await;
        assert_eq!(code, 0);
        only_leader_is_marked(&release, &named).await;
    });
}

#[test]
fn pods_are_none_of_its_business_where_neither_takeover_nor_mark_concern_them() {
    Stage::play(async |stage| {
        let release = stage
            .install(&[
                "leaderElection.earlyTakeover=false",
                "leaderElection.markPod=false",
            ])
            .await;
        let leader = release.leader(None, LIMIT).await;
        let pods = release.pods().await;
        let pod = pods
            .iter()
            .find(|pod| pod.name_any() == leader)
            .expect("the leader's Pod");
        assert_eq!(
            (pod.labels().get(ROLE), pod.annotations().get(COST)),
            (None, None)
        );
        let roles = Api::<Role>::namespaced(stage.cluster.client(), release.namespace());
        let roles = eventually("roles are listed", SOON, async || {
            roles.list(&Default::default()).await
        })
        .await;
        let rules = roles
            .items
            .into_iter()
            .flat_map(|role| role.rules.unwrap_or_default());
        let resources: Vec<String> = rules
            .flat_map(|rule| rule.resources.unwrap_or_default())
            .collect();
        assert!(
            !resources.is_empty() && !resources.contains(&"pods".to_owned()),
            "{resources:?}"
        );
    });
}

/// Waits until the leader's Pod is marked and no other is.
async fn only_leader_is_marked(release: &Release, leader: &str) {
    eventually("only the leader is marked", LIMIT, async || {
        let pods = release.pods().await;
        let marked =
            |pod: &&Pod| pod.labels().contains_key(ROLE) || pod.annotations().contains_key(COST);
        let marked: Vec<String> = pods
            .iter()
            .filter(marked)
            .map(ResourceExt::name_any)
            .collect();
        if marked == [leader] {
            Ok(())
        } else {
            Err(marked)
        }
    })
    .await;
}

/// Makes sure that a replica came to lead once since its container started, for that cause.
async fn took_over(release: &Release, pod: &str, cause: &str) {
    let what = format!("{pod} counts how it came to lead");
    let takeovers = eventually(&what, SOON, async || {
        let takeovers = takeovers(release, pod).await?;
        if takeovers.is_empty() {
            anyhow::bail!("none");
        }
        Ok(takeovers)
    })
    .await;
    assert_eq!(takeovers, [(cause.to_owned(), 1.0)].into());
}

/// How a replica came to lead, as often as it did since its container started.
async fn takeovers(release: &Release, pod: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let pod = release.pod_api().get(pod).await?;
    let series = release
        .try_metrics(&pod)
        .await?
        .into_iter()
        .filter_map(|(name, count)| {
            let cause =
                name.strip_prefix("serviceoffer_leader_acquire_latency_seconds_count{cause=\"")?;
            Some((cause.trim_end_matches("\"}").to_owned(), count))
        });
    Ok(series.filter(|(_, count)| *count > 0.0).collect())
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}
