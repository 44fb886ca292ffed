//! Rolling updates delete the leader's Pod last, so that leadership changes once.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::objects::patch;
use harness::release::{LEASE, Release};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::Audit;

use crate::fixture::TestEnv;

const LIMIT: Duration = Duration::from_secs(90);
/// Number of rollouts, unless `ROLLOUTS` gives another.
const ROLLOUTS: usize = 5;
/// So many rollouts that, without a mark, leadership almost surely changes more than once in one of
/// them.
const ENOUGH: usize = 20;
/// By this annotation the ReplicaSet controller chooses which Pod it deletes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// An old Pod is deleted before a new one starts, so that an old Pod may follow a leader that is
/// not deleted last.
const ONE_BY_ONE: [&str; 4] = [
    "replicaCount=3",
    "leaderElection.markPod=false",
    "strategy.rollingUpdate.maxSurge=0",
    "strategy.rollingUpdate.maxUnavailable=1",
];

#[test]
fn rollout_changes_the_leader_exactly_once() {
    TestEnv::run(async |env| {
        let release = env.install(&["replicaCount=3"]).await;
        let changes = roll_out(&env, &release, rollouts(), async |_, template| {
            upgrade(&release, template).await
        })
        .await;
        println!("leader changes in {} rollouts: {changes:?}", changes.len());
        assert!(changes.iter().all(|changes| *changes == 1), "{changes:?}");
    });
}

#[test]
fn rollout_that_deletes_the_leader_first_changes_it_again() {
    TestEnv::run(async |env| {
        let release = env.install(&ONE_BY_ONE).await;
        let nodes = Api::<Node>::all(env.cluster.client());
        let node = eventually("the node is listed", LIMIT, async || {
            let nodes = nodes.list(&ListParams::default()).await?.items;
            nodes.first().map(ResourceExt::name_any).context("none")
        })
        .await;
        let changes = roll_out(&env, &release, 2, async |leader, template| {
            let cost = json!({ "metadata": { "annotations": { DELETION_COST: "-100" } } });
            patch(&release.pod_api(), leader, cost).await.unwrap();
            // No new Pod starts until an old one leads, which must then be replaced as well.
            let cordon = async || nodes.cordon(&node).await;
            eventually("the node is cordoned", LIMIT, cordon).await;
            let followed = async {
                release.wait_leader(Some(leader), LIMIT).await.unwrap();
                let uncordon = async || nodes.uncordon(&node).await;
                eventually("the node is uncordoned", LIMIT, uncordon).await;
            };
            tokio::join!(upgrade(&release, template), followed);
        })
        .await;
        println!("leader changes in rollouts that delete it first: {changes:?}");
        assert!(changes.iter().all(|changes| *changes > 1), "{changes:?}");
    });
}

#[test]
fn rollout_without_a_mark_may_change_the_leader_again() {
    if rollouts() < ENOUGH {
        println!(
            "skipped: needs ROLLOUTS={ENOUGH}, fewer may all change the leader once by chance"
        );
        return;
    }
    TestEnv::run(async |env| {
        let release = env.install(&ONE_BY_ONE).await;
        let changes = roll_out(&env, &release, rollouts(), async |_, template| {
            upgrade(&release, template).await
        })
        .await;
        println!(
            "leader changes in {} rollouts without a mark: {changes:?}",
            changes.len()
        );
        assert!(changes.iter().any(|changes| *changes > 1), "{changes:?}");
    });
}

fn rollouts() -> usize {
    std::env::var("ROLLOUTS")
        .ok()
        .and_then(|rollouts| rollouts.parse().ok())
        .unwrap_or(ROLLOUTS)
}

/// Changes the Pod template and waits until Helm reports that all Pods are of the new one.
async fn upgrade(release: &Release, template: &str) {
    release
        .upgrade(&[&format!("podAnnotations.rollout={template}")])
        .await
        .unwrap();
}

/// Rolls out that many templates and counts how often the leader changed in each. `change` gets the
/// leader and the template.
async fn roll_out(
    env: &TestEnv,
    release: &Release,
    rollouts: usize,
    change: impl AsyncFn(&str, &str),
) -> Vec<usize> {
    let mut changes = Vec::new();
    for rollout in 0..rollouts {
        release.wait_ready(3, LIMIT).await.unwrap();
        let leader = release.wait_leader(None, LIMIT).await.unwrap();
        let before = transitions(release).await;
        let mut audit = env.cluster.audit().unwrap();
        let template = format!("rollout-{rollout}");
        change(&leader, &template).await;
        wait_replaced(release, &template).await;
        release.wait_leader(Some(&leader), LIMIT).await.unwrap();
        let holders = holders(&mut audit, &leader);
        let changed = transitions(release).await - before;
        assert_eq!(
            i32::try_from(holders.len() - 1),
            Ok(changed),
            "the Lease and the audit log must agree: {holders:?}"
        );
        changes.push(holders.len() - 1);
    }
    changes
}

/// Waits until no Pod of an earlier template is left.
async fn wait_replaced(release: &Release, template: &str) {
    eventually("all Pods are of the new template", LIMIT, async || {
        let pods = release.list_replicas().await?;
        let is_new = |pod: &&Pod| {
            let rollout = pod.annotations().get("rollout");
            rollout.is_some_and(|rollout| rollout == template)
        };
        let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        let new = pods.iter().filter(is_new).count();
        ensure!(pods.len() == 3 && new == 3, "{new} of {names:?} are");
        Ok(())
    })
    .await;
}

async fn transitions(release: &Release) -> i32 {
    let lease = release.lease().await.unwrap();
    lease
        .spec
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or_default()
}

/// The holders of the Lease in their order, by the audit log.
fn holders(audit: &mut Audit, first: &str) -> Vec<String> {
    let entries = audit.read().unwrap();
    let writes = entries
        .iter()
        .filter(|entry| entry.resource == "leases" && (200..300).contains(&entry.code));
    let own = writes.filter(|entry| entry.response_object["metadata"]["name"] == LEASE);
    let holders = own.filter_map(|entry| entry.response_object["spec"]["holderIdentity"].as_str());
    let named = holders
        .filter(|holder| !holder.is_empty())
        .map(str::to_owned);
    let mut all: Vec<String> = std::iter::once(first.to_owned()).chain(named).collect();
    all.dedup();
    all
}
