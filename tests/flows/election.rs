//! Leadership that changes by evidence and on request: a container that was killed, an annotation
//! on the Lease, and what a replica shows of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::objects::patch;
use harness::release::{LEASE, Release};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::Role;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::fixture::TestEnv;

const LIMIT: Duration = Duration::from_secs(60);
/// The Lease lasts 30 s: a replica that leads sooner after a death has not waited for it to expire.
const SOON: Duration = Duration::from_secs(15);
const ROLE: &str = "obol.org/role";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const STEP_DOWN: &str = "obol.org/step-down";

#[test]
fn killed_leader_is_replaced_before_its_lease_expires() {
    TestEnv::run(async |env| {
        let release = env.install(&["replicaCount=2"]).await;
        for _ in 0..2 {
            release.wait_ready(2, LIMIT).await.unwrap();
            let leader = release.wait_leader(None, LIMIT).await.unwrap();
            wait_only_leader_is_marked(&release, &leader).await;
            let killed = Instant::now();
            let kill = async || release.kill(&leader).await;
            eventually("the container is killed", SOON, kill).await;
            let next = release.wait_leader(Some(&leader), SOON).await.unwrap();
            let elapsed = killed.elapsed();
            println!("{next} leads {elapsed:?} after {leader} was killed");
            assert_took_over(&release, &next, "termination").await;
            wait_only_leader_is_marked(&release, &next).await;
        }
    });
}

#[test]
fn leader_steps_down_for_the_replica_named_on_the_lease() {
    TestEnv::run(async |env| {
        let release = env.install(&["replicaCount=3"]).await;
        let pods = release.wait_ready(3, LIMIT).await.unwrap();
        let leader = release.wait_leader(None, LIMIT).await.unwrap();
        let named = pods
            .iter()
            .map(ResourceExt::name_any)
            .find(|pod| *pod != leader)
            .expect("a standby");
        let request = json!({ "metadata": { "annotations": { STEP_DOWN: named } } });
        patch(&release.lease_api(), LEASE, request).await.unwrap();
        let next = release.wait_leader(Some(&leader), LIMIT).await.unwrap();
        assert_eq!(next, named);
        assert_took_over(&release, &named, "release").await;
        let lease = release.lease().await.unwrap();
        let annotations = lease.annotations();
        assert!(
            !annotations.contains_key(STEP_DOWN),
            "a granted request must be removed: {annotations:?}"
        );
        let what = format!("{leader} has restarted its container");
        let code = eventually(&what, LIMIT, async || {
            let pod = release.pod_api().get(&leader).await?;
            last_exit_code(&pod).with_context(|| format!("{:?}", pod.status))
        })
        .await;
        assert_eq!(code, 0);
        wait_only_leader_is_marked(&release, &named).await;
    });
}

#[test]
fn operator_needs_no_pod_rights_without_takeover_and_mark() {
    TestEnv::run(async |env| {
        let values = [
            "leaderElection.earlyTakeover=false",
            "leaderElection.markPod=false",
        ];
        let release = env.install(&values).await;
        let leader = release.wait_leader(None, LIMIT).await.unwrap();
        let pods = release.pods().await.unwrap();
        let pod = pods
            .iter()
            .find(|pod| pod.name_any() == leader)
            .expect("the leader's Pod");
        assert!(!is_marked(pod), "{:?}", pod.metadata);
        let roles = Api::<Role>::namespaced(env.cluster.client(), release.namespace());
        let roles = eventually("the Roles are listed", SOON, async || {
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

async fn wait_only_leader_is_marked(release: &Release, leader: &str) {
    eventually("only the leader is marked", LIMIT, async || {
        let pods = release.pods().await?;
        let marked = pods.iter().filter(|pod| is_marked(pod));
        let marked: Vec<String> = marked.map(ResourceExt::name_any).collect();
        ensure!(marked == [leader], "marked: {marked:?}");
        Ok(())
    })
    .await;
}

fn is_marked(pod: &Pod) -> bool {
    pod.labels().contains_key(ROLE) || pod.annotations().contains_key(COST)
}

/// Asserts that a replica has become leader once since its container started, and for that cause.
async fn assert_took_over(release: &Release, pod: &str, cause: &str) {
    let what = format!("{pod} counts how it became leader");
    let takeovers = eventually(&what, SOON, async || {
        let takeovers = takeovers(release, pod).await?;
        ensure!(!takeovers.is_empty(), "no takeover is counted");
        Ok(takeovers)
    })
    .await;
    assert_eq!(takeovers, [(cause.to_owned(), 1.0)].into());
}

/// How often a replica has become leader since its container started, by cause.
async fn takeovers(release: &Release, pod: &str) -> Result<BTreeMap<String, f64>> {
    const PREFIX: &str = "serviceoffer_leader_acquire_latency_seconds_count{cause=\"";
    let pod = release.pod_api().get(pod).await?;
    let metrics = release.try_metrics(&pod).await?.into_iter();
    let counts = metrics.filter_map(|(name, count)| {
        let cause = name.strip_prefix(PREFIX)?.trim_end_matches("\"}");
        Some((cause.to_owned(), count))
    });
    Ok(counts.filter(|(_, count)| *count > 0.0).collect())
}

/// Exit code of the container before the present one.
fn last_exit_code(pod: &Pod) -> Option<i32> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let last = statuses.first()?.last_state.as_ref()?;
    Some(last.terminated.as_ref()?.exit_code)
}
