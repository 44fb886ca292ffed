//! What the operator is allowed to do is what it does, and what it is trusted with it does not show.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::wait::eventually;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use serviceoffer::api::LEGACY_FINALIZER;
use testbed::AuditEntry;

use crate::chain::Chain;
use crate::objects::{offer, registry};
use crate::release::{LEASE, NAME, Release, said};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than the operator waits before it retires an agent that no offer uses.
const RETIREMENT: Duration = Duration::from_secs(100);
/// Name of the account and of its roles.
const ACCOUNT: &str = "offers-serviceoffer-controller";
const PASSWORD: &str = "correct-horse-battery-staple";

/// API group, resource with subresource, verb.
type Right = (String, String, String);

#[test]
fn a_full_run_uses_exactly_its_rights_and_shows_no_secret() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let mut audit = stage.cluster.audit().unwrap();
        let (chain, release) = open_with_password(&stage).await;
        objects.shop("shop", &[]).await;
        objects.create_offers(&["shop"], 2).await;
        objects.all_registered(&chain, 2, LIMIT).await;
        let gone = objects.offer_key("shop", "offer-1").await;
        objects.delete_offer("shop", "offer-1").await;

        // The former controller's finalizer is removed, so that its offers can be deleted.
        let mut inherited = offer("shop", "inherited");
        inherited["metadata"]["finalizers"] = json!([LEGACY_FINALIZER]);
        objects.create_offer(inherited).await;
        objects
            .offers("shop")
            .delete("inherited", &DeleteParams::default())
            .await
            .unwrap();
        eventually("the offer is gone", LIMIT, async || {
            match objects.offers("shop").get_opt("inherited").await {
                Ok(None) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;

        // The same Event twice becomes one with a count.
        for _ in 0..2 {
            chain.anvil.pause().unwrap();
            objects
                .registry_says("local", "RpcHealthy", "RpcUnreachable", LIMIT)
                .await;
            chain.anvil.resume().unwrap();
            objects
                .registry_says("local", "Ready", "Reconciled", LIMIT)
                .await;
        }
        eventually(
            "the agent without an offer is retired",
            RETIREMENT,
            async || {
                let record = objects
                    .records()
                    .get(&gone.record_name())
                    .await
                    .map_err(|error| error.to_string())?;
                record
                    .spec
                    .tombstone
                    .map(drop)
                    .ok_or(format!("{:?}", record.spec))
            },
        )
        .await;

        let entries = audit.read().unwrap();
        let user = format!("system:serviceaccount:{}:{ACCOUNT}", release.namespace());
        let own: Vec<&AuditEntry> = entries.iter().filter(|entry| entry.user == user).collect();
        let refused: Vec<_> = own.iter().filter(|entry| entry.code == 403).collect();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(
            used(&own),
            granted(&stage, &release).await,
            "what is used, and what is granted"
        );
        let leases: BTreeSet<&str> = own
            .iter()
            .filter(|one| one.resource == "leases")
            .map(|one| &*one.name)
            .collect();
        assert!(
            leases.is_subset(&["", LEASE].into()),
            "one Lease and no other: {leases:?}"
        );

        for (place, text) in shown(&stage, &release).await {
            for secret in [&chain.key()[2..], PASSWORD] {
                assert!(!text.contains(secret), "{place} shows a secret");
            }
        }
    });
}

/// A chain whose endpoint is known by a URL with a password, and an operator that logs all it can.
async fn open_with_password(stage: &Stage) -> (Chain, Release) {
    let values = ["replicaCount=2", "controller.logLevel=trace"];
    let config = testbed::AnvilConfig {
        block_time: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    let (chain, release) = tokio::join!(
        Chain::start(stage.cluster.node_ip(), config),
        stage.install(&values)
    );
    stage.objects.signer_secret(&release, &chain).await;
    let url = chain
        .url()
        .replace("http://", &format!("http://user:{PASSWORD}@"));
    stage
        .objects
        .secret(release.namespace(), "rpc", "url", &url)
        .await;
    let mut manifest = registry("local", &chain, "http://agents.example");
    manifest["spec"]["rpc"] =
        json!([{ "urlFrom": { "secretKeyRef": { "name": "rpc", "key": "url" } } }]);
    stage.objects.create_registry(manifest).await;
    (chain, release)
}

fn used(entries: &[&AuditEntry]) -> BTreeSet<Right> {
    let resources = entries.iter().filter(|entry| !entry.resource.is_empty());
    resources
        .map(|entry| {
            let resource = match entry.subresource.as_str() {
                "" => entry.resource.clone(),
                subresource => format!("{}/{subresource}", entry.resource),
            };
            (entry.group.clone(), resource, entry.verb.clone())
        })
        .collect()
}

async fn granted(stage: &Stage, release: &Release) -> BTreeSet<Right> {
    let cluster = Api::<ClusterRole>::all(stage.cluster.client());
    let own = Api::<Role>::namespaced(stage.cluster.client(), release.namespace());
    let (cluster, own) = eventually("the roles are read", LIMIT, async || {
        Ok::<_, kube::Error>((cluster.get(ACCOUNT).await?, own.get(ACCOUNT).await?))
    })
    .await;
    let rules = cluster.rules.into_iter().chain(own.rules).flatten();
    rules.flat_map(rights).collect()
}

fn rights(rule: PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(
                rule.verbs
                    .iter()
                    .map(|verb| (group.clone(), resource.clone(), verb.clone())),
            );
        }
    }
    rights
}

/// Everything that people and programs other than the API server's Secrets get to see.
async fn shown(stage: &Stage, release: &Release) -> Vec<(String, String)> {
    let mut shown = Vec::new();
    for pod in release.ready(2, LIMIT).await {
        let name = pod.name_any();
        shown.push((format!("the log of {name}"), release.logs(&name).await));
        shown.push((
            format!("/metrics of {name}"),
            release.admin(&pod, "/metrics").await,
        ));
    }
    let kinds = "events,pods,deployments,configmaps,serviceoffers,identityregistries,agentregistrations,signerledgers";
    for arguments in [
        vec!["get", kinds, "--all-namespaces", "--output", "yaml"],
        vec!["describe", "identityregistries"],
    ] {
        let output = stage.cluster.kubectl(&arguments).output().await.unwrap();
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            said(&output)
        );
        shown.push((format!("kubectl {}", arguments[0]), said(&output)));
    }
    shown.push((
        "helm get all".to_owned(),
        said(&release.helm(&["get", "all", NAME], &[]).await),
    ));
    assert!(
        shown.iter().all(|(_, text)| text.len() > 500),
        "there is something to look through"
    );
    shown
}
