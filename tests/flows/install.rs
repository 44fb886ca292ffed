//! The life of a release, as a user lives it with Helm.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use harness::release::{chart, printed};
use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

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
fn gate_can_be_switched_off_and_on() {
    TestEnv::run(async |env| {
        let release = env.install(&["gate.enabled=true"]).await;
        for (value, count) in [("gate.enabled=false", 0), ("gate.enabled=true", 1)] {
            release.upgrade(&[value]).await.unwrap();
            eventually("the number of gates changes", LIMIT, async || {
                let gates = release.list_gates().await?.len();
                ensure!(gates == count, "{gates}");
                Ok(())
            })
            .await;
            // The Service leads to the other workload a moment later.
            eventually("helm test succeeds", LIMIT, async || {
                release.run_helm(&["test", RELEASE], &[]).await
            })
            .await;
        }
    });
}

#[test]
fn restricted_namespace_runs_the_release_as_a_user_of_its_own() {
    TestEnv::run(async |env| {
        let enforced = [("pod-security.kubernetes.io/enforce", "restricted")];
        env.objects.create_namespace(NAMESPACE, &enforced).await;
        // As OpenShift does, which assigns each namespace a range of users.
        let release = env
            .install(&[
                "podSecurityContext.runAsUser=1000650000",
                "gate.enabled=true",
            ])
            .await;
        release.wait_ready(1, LIMIT).await.unwrap();
        release.wait_gate(LIMIT).await.unwrap();
        eventually("helm test succeeds", LIMIT, async || {
            release.run_helm(&["test", RELEASE], &[]).await
        })
        .await;
    });
}

#[test]
fn extra_arguments_take_precedence_over_those_of_the_chart() {
    TestEnv::run(async |env| {
        let values = [
            "extraArgs={--log-level=debug}",
            "gate.extraArgs={--log-level=debug}",
        ];
        let release = env.install(&values).await;
        let mut pods = release.wait_ready(1, LIMIT).await.unwrap();
        pods.push(release.wait_gate(LIMIT).await.unwrap());
        for pod in pods {
            let level = release.admin(&pod, "/log-level").await.unwrap();
            assert_eq!(level.trim(), "debug", "{}", pod.name_any());
        }
    });
}

#[test]
fn parent_chart_includes_the_release_by_condition() {
    TestEnv::run(async |env| {
        let release = env.release(NAMESPACE);
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parent-chart");
        let script = format!(
            "rm -rf '{parent}'; mkdir -p '{parent}/charts'; cp -r '{chart}' '{parent}/charts'; cat > '{parent}/Chart.yaml'",
            parent = parent.display(),
            chart = chart().display()
        );
        let definition = "{apiVersion: v2, name: parent, version: 0.1.0, dependencies: \
            [{name: serviceoffer-controller, version: 0.1.0, condition: serviceoffer-controller.enabled}]}";
        let script = format!("{script} <<< '{definition}'");
        let output = env.cluster.shell(&script).output().await.unwrap();
        assert!(output.status.success(), "{script}: {}", printed(&output));
        for enabled in [true, false] {
            let value = format!("serviceoffer-controller.enabled={enabled}");
            let arguments = ["template", RELEASE, parent.to_str().unwrap()];
            let rendered = release.run_helm(&arguments, &[&value]).await.unwrap();
            let deployments = rendered.matches("kind: Deployment").count();
            assert_eq!(deployments, if enabled { 2 } else { 0 }, "{value}");
        }
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
            ("metrics.port=8080", "port"),
            ("podLabels.app\\.kubernetes\\.io/component=x", "podLabels"),
            ("fullnameOverride=1x", "set fullnameOverride to"),
            ("gate.enable=true", "enable"),
            (
                "gate.replicaCount=2",
                "claims on payments are in the memory of one replica",
            ),
            ("gate.publicUrl=agents.example.org", "publicUrl"),
            ("gate.publicPath=/agents", "must have the same path"),
            ("gate.trustedProxies={10.0.0.1}", "trustedProxies"),
            (
                "gate.allowedExternalUpstreams={ollama}",
                "allowedExternalUpstreams",
            ),
            (
                "gate.serviceAccount.create=false,serviceAccount.create=false",
                "the gate must not have the rights of the operator",
            ),
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
