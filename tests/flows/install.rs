//! The life of a release, as a person lives it with Helm.

use std::process::Output;
use std::time::Duration;

use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;

use crate::objects::offer;
use crate::release::{NAME, Release, chart, said};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_release_is_upgraded_rolled_back_removed_and_installed_again() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, release) = stage.open(&[]).await;
        objects.shop("shop", &[]).await;
        objects.create_offer(offer("shop", "first")).await;
        let tested = async || {
            let output = release.helm(&["test", NAME], &[]).await;
            if output.status.success() {
                Ok(())
            } else {
                Err(said(&output))
            }
        };
        // The Services lead to a Pod a moment after it is ready.
        eventually("helm test succeeds", LIMIT, tested).await;
        objects.all_registered(&chain, 1, LIMIT).await;

        release.upgrade(&["replicaCount=3"]).await;
        release.ready(3, LIMIT).await;
        objects.create_offer(offer("shop", "second")).await;
        objects.all_registered(&chain, 2, LIMIT).await;

        succeeds(
            &release,
            &["rollback", NAME, "1", "--wait", "--timeout", "120s"],
        )
        .await;
        release.ready(1, LIMIT).await;
        objects.create_offer(offer("shop", "third")).await;
        objects.all_registered(&chain, 3, LIMIT).await;

        let goodbye = release.uninstall().await;
        assert!(goodbye.status.success(), "{}", said(&goodbye));
        assert!(
            said(&goodbye).contains("kept"),
            "helm says what it keeps: {}",
            said(&goodbye)
        );
        let definitions = Api::<CustomResourceDefinition>::all(stage.cluster.client());
        for kind in [
            "serviceoffers",
            "identityregistries",
            "agentregistrations",
            "signerledgers",
        ] {
            definitions.get(&format!("{kind}.obol.org")).await.unwrap();
        }
        assert_eq!(
            objects
                .records()
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .len(),
            3
        );

        stage.install(&[]).await;
        objects.create_offer(offer("shop", "fourth")).await;
        objects.all_registered(&chain, 4, LIMIT).await;
        assert_eq!(chain.count().await, 4, "nothing was registered again");
    });
}

#[test]
fn a_second_release_in_the_cluster_is_refused_with_the_name_of_the_first() {
    Stage::play(async |stage| {
        stage.install(&[]).await;
        let second = Release::of(&stage.cluster, "elsewhere")
            .try_install(&[])
            .await;
        assert!(!second.status.success(), "one cluster has one release");
        let words = said(&second);
        for word in ["obol.org", "meta.helm.sh/release-namespace", "operator"] {
            assert!(
                words.contains(word),
                "helm says what is in the way ({word}): {words}"
            );
        }
    });
}

#[test]
fn wrong_values_are_refused_with_their_path() {
    Stage::play(async |stage| {
        let release = Release::of(&stage.cluster, "operator");
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
            let refused = release
                .helm(&["template", NAME, chart.to_str().unwrap()], &[value])
                .await;
            assert!(!refused.status.success(), "{value} is refused");
            assert!(
                said(&refused).contains(path),
                "{value}: the path is named: {}",
                said(&refused)
            );
        }
    });
}

async fn succeeds(release: &Release, arguments: &[&str]) -> Output {
    let output = release.helm(arguments, &[]).await;
    assert!(
        output.status.success(),
        "helm {arguments:?}: {}",
        said(&output)
    );
    output
}
