//! Rolling updates: the Pod that leads goes last, so that leadership changes once.

use std::time::Duration;

use harness::wait::eventually;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::Audit;

use crate::objects::patch;
use crate::release::{LEASE, Release};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(90);
/// How often, unless `ROLLOUTS` says otherwise.
const ROLLOUTS: usize = 5;
/// From so many rollouts on it would be a wonder if leadership changed once in each of them without a mark.
const ENOUGH: usize = 20;
/// By which the controller of a Deployment's Pods chooses whom it deletes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// An old Pod goes before a new one comes: a leader that is not the last to go may be followed by an old Pod.
const ONE_BY_ONE: [&str; 4] = [
    "replicaCount=3",
    "leaderElection.markPod=false",
    "strategy.rollingUpdate.maxSurge=0",
    "strategy.rollingUpdate.maxUnavailable=1",
];

#[test]
fn a_rollout_changes_the_leader_exactly_once() {
    Stage::play(async |stage| {
        let release = stage.install(&["replicaCount=3"]).await;
        let changes = roll_out(&stage, &release, rollouts(), async |_, template| {
            upgrade(&release, template).await
        })
        .await;
        println!(
            "changes of the leader in {} rollouts: {changes:?}",
            changes.len()
        );
        assert!(changes.iter().all(|changes| *changes == 1), "{changes:?}");
    });
}

#[test]
fn a_rollout_that_begins_with_the_leader_changes_it_more_than_once() {
    Stage::play(async |stage| {
        let release = stage.install(&ONE_BY_ONE).await;
        let nodes = Api::<Node>::all(stage.cluster.client());
        let node = eventually("a node is listed", LIMIT, async || {
            let nodes = nodes.list(&ListParams::default()).await;
            let nodes = nodes.map_err(|error| error.to_string())?.items;
            nodes
                .first()
                .map(ResourceExt::name_any)
                .ok_or("none".to_owned())
        })
        .await;
        let changes = roll_out(&stage, &release, 2, async |leader, template| {
            let cost = json!({ "metadata": { "annotations": { DELETION_COST: "-100" } } });
            patch(&release.pod_api(), leader, cost).await;
            // No new Pod starts before an old one leads: it has to go as well.
            let cordon = async || nodes.cordon(&node).await;
            eventually("the node is cordoned", LIMIT, cordon).await;
            let followed = async {
                release.leader(Some(leader), LIMIT).await;
                let uncordon = async || nodes.uncordon(&node).await;
                eventually("the node is uncordoned", LIMIT, uncordon).await;
            };
            tokio::join!(upgrade(&release, template), followed);
        })
        .await;
        println!("changes of the leader in rollouts that begin with it: {changes:?}");
        assert!(changes.iter().all(|changes| *changes > 1), "{changes:?}");
    });
}

#[test]
fn without_a_mark_chance_decides_how_often_the_leader_changes() {
    if rollouts() < ENOUGH {
        println!("only with ROLLOUTS={ENOUGH}: fewer may all go well by chance");
        return;
    }
    Stage::play(async |stage| {
        let release = stage.install(&ONE_BY_ONE).await;
        let changes = roll_out(&stage, &release, rollouts(), async |_, template| {
            upgrade(&release, template).await
        })
        .await;
        println!(
            "changes of the leader in {} rollouts without a mark: {changes:?}",
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

/// Changes the template of the Pods, and waits until all are of the new one.
async fn upgrade(release: &Release, template: &str) {
    release
        .upgrade(&[&format!("podAnnotations.rollout={template}")])
        .await;
}

/// Rolls out that many changes of the template, each of which is told the leader, and counts in each how often it changed.
async fn roll_out(
    stage: &Stage,
    release: &Release,
    rollouts: usize,
    change: impl AsyncFn(&str, &str),
) -> Vec<usize> {
    let mut changes = Vec::new();
    for rollout in 0..rollouts {
        release.ready(3, LIMIT).await;
        let leader = release.leader(None, LIMIT).await;
        let before = transitions(release).await;
        let mut audit = stage.cluster.audit().expect("an audit log");
        let template = format!("rollout-{rollout}");
        change(&leader, &template).await;
        replaced(release, &template).await;
        release.leader(Some(&leader), LIMIT).await;
        let holders = holders(&mut audit, &leader);
        let changed = transitions(release).await - before;
        assert_eq!(
            i32::try_from(holders.len() - 1),
            Ok(changed),
            "the Lease and the audit log agree: {holders:?}"
        );
        changes.push(holders.len() - 1);
    }
    changes
}

/// Waits until no Pod of an earlier template is left.
async fn replaced(release: &Release, template: &str) {
    eventually(
        "only Pods of the new template are there",
        LIMIT,
        async || {
            let pods = release
                .pod_api()
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?
                .items;
            let new = pods.iter().filter(|pod| {
                pod.annotations()
                    .get("rollout")
                    .is_some_and(|own| own == template)
            });
            if pods.len() == 3 && new.count() == 3 {
                Ok(())
            } else {
                Err(format!(
                    "{:?}",
                    pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
                ))
            }
        },
    )
    .await;
}

async fn transitions(release: &Release) -> i32 {
    let lease = release.lease().await;
    lease
        .spec
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or_default()
}

/// Who has held the Lease, one after the other, by the audit log.
fn holders(audit: &mut Audit, first: &str) -> Vec<String> {
    let entries = audit.read().expect("the audit log");
    let writes = entries
        .iter()
        .filter(|entry| entry.resource == "leases" && (200..300).contains(&entry.code));
    let own = writes.filter(|entry| entry.answered["metadata"]["name"] == LEASE);
    let holders = own.filter_map(|entry| entry.answered["spec"]["holderIdentity"].as_str());
    let named = holders
        .filter(|holder| !holder.is_empty())
        .map(str::to_owned);
    let mut all: Vec<String> = std::iter::once(first.to_owned()).chain(named).collect();
    all.dedup();
    all
}
