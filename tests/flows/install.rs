//! The life of a release, as a user lives it with Helm.

use std::time::Duration;

use harness::release::{chart, printed};
use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;

use crate::fixture::{NAMESPACE, RELEASE, TestEnv};
use crate::objects::offer;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn release_survives_upgrade_rollback_removal_and_reinstall() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offer(offer("shop", "first")).await;
        // The Services lead to a Pod a moment after it is ready.
        eventually("helm test succeeds", LIMIT, async || {
            release.run_helm(&["test", RELEASE], &[]).await
        })
        .await;
        objects.assert_all_registered(&chain, 1, LIMIT).await;

        release.upgrade(&["replicaCount=3"]).await.unwrap();
        release.wait_ready(3, LIMIT).await.unwrap();
        objects.create_offer(offer("shop", "second")).await;
        objects.assert_all_registered(&chain, 2, LIMIT).await;

        release.rollback(1).await.unwrap();
        release.wait_ready(1, LIMIT).await.unwrap();
        objects.create_offer(offer("shop", "third")).await;
        objects.assert_all_registered(&chain, 3, LIMIT).await;

        let goodbye = release.uninstall().await.unwrap();
        assert!(
            goodbye.contains("kept"),
            "helm must say what it keeps: {goodbye}"
        );
        let definitions = Api::<CustomResourceDefinition>::all(env.cluster.client());
        for kind in [
            "serviceoffers",
            "identityregistries",
            "paymentfacilitators",
            "agentregistrations",
            "signerledgers",
        ] {
            definitions.get(&format!("{kind}.obol.org")).await.unwrap();
        }
        let records = objects.records().list(&ListParams::default()).await;
        assert_eq!(records.unwrap().items.len(), 3);

        env.install(&[]).await;
        objects.create_offer(offer("shop", "fourth")).await;
        objects.assert_all_registered(&chain, 4, LIMIT).await;
        let mined = chain.mined_transactions().await.unwrap();
        assert_eq!(mined, 4, "nothing must be registered again");
    });
}

#[test]
fn second_release_in_the_cluster_is_refused_naming_the_first() {
    TestEnv::run(async |env| {
        env.install(&[]).await;
        let refused = env.release("elsewhere").install(&[]).await;
        let words = format!("{:#}", refused.unwrap_err());
        for word in ["obol.org", "meta.helm.sh/release-namespace", NAMESPACE] {
            assert!(
                words.contains(word),
                "helm must name what is in the way ({word}): {words}"
            );
        }
    });
}

#[test]
fn invalid_values_are_refused_with_their_path() {
    TestEnv::run(async |env| {
        let release = env.release(NAMESPACE);
        let chart = chart();
        for (value, path) in [
            ("replicaCount=-1", "replicaCount"),
            ("replicaCount=three", "replicaCount"),
            ("replicaCounts=3", "replicaCounts"),
            ("image.pullPolicy=Sometimes", "pullPolicy"),
            ("image.digest=latest", "digest"),
            ("leaderElection.leaseDuration=soon", "leaseDuration"),
            (
                "leaderElection.renewDeadline=40s",
                "leaseDuration (30s) must be longer than renewDeadline (40s)",
            ),
            ("leaderElection.leasename=x", "leasename"),
            ("controller.maxInFlight=0", "maxInFlight"),
            ("controller.logLevel=loud", "logLevel"),
            ("controller.logFormat=xml", "logFormat"),
            ("service.port=0", "port"),
            ("podDisruptionBudget.enabled=maybe", "podDisruptionBudget"),
        ] {
            let arguments = ["template", RELEASE, chart.to_str().unwrap()];
            let output = release.helm(&arguments, &[value]).await.unwrap();
            let words = printed(&output);
            assert!(!output.status.success(), "{value} must be refused");
            assert!(
                words.contains(path),
                "{value}: {path} must be named: {words}"
            );
        }
    });
}
