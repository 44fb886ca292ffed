//! The life of a release, as a user lives it with Helm.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use harness::release::{chart, printed};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

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

/// Whether a selector is one of labels that a Pod has.
fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = selector.match_labels.iter().flatten();
    let mut pairs = labels.map(|(name, value)| pod.labels().get(name) == Some(value));
    selector.match_expressions.is_none() && selector.match_labels.is_some() && pairs.all(|own| own)
}

#[test]
fn network_policy_is_made_if_it_is_asked_for_and_admits_to_the_gate_alone() {
    TestEnv::run(async |env| {
        let release = env.install(&["gate.enabled=true"]).await;
        let policies = Api::<NetworkPolicy>::namespaced(env.cluster.client(), NAMESPACE);
        let list = async || {
            let listed = policies.list(&ListParams::default()).await;
            listed.unwrap().items
        };
        assert_eq!(list().await, [], "off by default");

        release
            .upgrade(&["gate.networkPolicy.enabled=true"])
            .await
            .unwrap();
        let gate = release.wait_gate(LIMIT).await.unwrap();
        let operator = release.wait_ready(1, LIMIT).await.unwrap().remove(0);
        let policy = list().await.pop().unwrap().spec.unwrap();
        assert_eq!(policy.policy_types, Some(vec!["Ingress".to_owned()]));
        assert_eq!(policy.egress, None);
        let selected = policy.pod_selector.unwrap();
        assert!(selects(&selected, &gate), "{selected:?}");
        assert!(!selects(&selected, &operator), "{selected:?}");
        let ports = gate.spec.unwrap().containers.remove(0).ports.unwrap();
        let ports: Vec<_> = ports
            .into_iter()
            .map(|port| (port.name.unwrap(), port.container_port))
            .collect();
        let expected = [("http", 8080), ("metrics", 8081)];
        assert_eq!(ports, expected.map(|(name, port)| (name.to_owned(), port)));
        let [public, metrics] = policy.ingress.unwrap().try_into().unwrap();
        let port = |name: &str| json!([{ "port": name, "protocol": "TCP" }]);
        assert_eq!(json!(public), json!({ "ports": port("http") }), "anyone");
        assert_eq!(json!(metrics.ports), port("metrics"));
        let [by_operator, by_probe] = metrics.from.unwrap().try_into().unwrap();
        let by_operator = by_operator.pod_selector.unwrap();
        assert!(selects(&by_operator, &operator), "{by_operator:?}");
        let probe = release.run_helm(&["get", "hooks", RELEASE], &[]).await;
        let probe = probe.unwrap().replace('"', "");
        let labels = by_probe.pod_selector.unwrap().match_labels.unwrap();
        for (name, value) in labels {
            let label = format!("{name}: {value}");
            assert!(probe.contains(&label), "{label} is missing from {probe}");
        }

        let peers = [
            "gate.networkPolicy.from[0].podSelector.matchLabels.app=proxy",
            "gate.networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=watchers",
        ];
        release.upgrade(&peers).await.unwrap();
        let policy = list().await.pop().unwrap().spec.unwrap();
        let [public, metrics]: [Value; 2] = {
            let rules = policy.ingress.unwrap().into_iter().map(|rule| json!(rule));
            rules.collect::<Vec<_>>().try_into().unwrap()
        };
        let proxy = json!([{ "podSelector": { "matchLabels": { "app": "proxy" } } }]);
        assert_eq!(public["from"], proxy);
        let watchers = json!({ "namespaceSelector": { "matchLabels": { "team": "watchers" } } });
        assert_eq!(metrics["from"][2], watchers);

        release.upgrade(&["gate.enabled=false"]).await.unwrap();
        assert_eq!(list().await, [], "there is no gate");
    });
}

#[test]
fn limit_of_unpaid_requests_is_a_value() {
    TestEnv::run(async |env| {
        let release = env.release(NAMESPACE);
        let chart = chart();
        let arguments = ["template", RELEASE, chart.to_str().unwrap()];
        for (values, limit) in [(&[][..], 0), (&["gate.unpaidPerSecond=7"], 7)] {
            let rendered = release.run_helm(&arguments, values).await.unwrap();
            let flag = format!("- --unpaid-per-second={limit}\n");
            assert_eq!(rendered.matches(&flag).count(), 1, "{values:?}");
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
            ("gate.unpaidPerSecond=-1", "unpaidPerSecond"),
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
