//! Pods on the testbed of this checkout. These tests do not touch the objects of other tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::{Cluster, Signal, TestNamespace, image, tools};
use tokio::time::{Instant, sleep};

const SHELL: &str = "localhost/testbed-shell:1";

/// Loads an image with a shell, a resolver and a server: programs of the host with their libraries.
async fn load_shell(cluster: &Cluster) {
    let anvil = tools::anvil().unwrap();
    let programs = [
        Path::new("/bin/bash"),
        Path::new("/usr/bin/getent"),
        Path::new("/bin/sleep"),
        anvil.as_path(),
    ];
    let archive = image::from_programs(&programs, &["/bin/bash"], SHELL).unwrap();
    cluster.load(&archive).await.unwrap();
}

fn pod(name: &str, command: &[&str]) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "main",
                "image": SHELL,
                "imagePullPolicy": "Never",
                "command": command,
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    }))
    .unwrap()
}

async fn create(cluster: &Cluster, namespace: &TestNamespace, pod: Pod) {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let name = pod.metadata.name.unwrap();
    until(&pods, &name, |state| state.running.is_some()).await;
}

/// Waits until the state of the pod's only container satisfies a condition, and returns the pod.
async fn until(pods: &Api<Pod>, name: &str, wanted: impl Fn(&ContainerState) -> bool) -> Pod {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let pod = pods.get(name).await.unwrap();
        let containers = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_deref())
            .unwrap_or_default();
        if containers
            .iter()
            .filter_map(|container| container.state.as_ref())
            .any(&wanted)
        {
            return pod;
        }
        assert!(Instant::now() < deadline, "pod {name}: {:?}", pod.status);
        sleep(Duration::from_millis(50)).await;
    }
}

async fn kubectl(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.kubectl(arguments).output().await.unwrap();
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn restricted_pod_has_dns_services_exec_and_logs() {
    testbed::test(async |cluster| {
        load_shell(&cluster).await;
        let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
        let namespace = cluster.namespace_with_labels("workload", &restricted).await;
        create(
            &cluster,
            &namespace,
            pod("chain", &["/bin/anvil", "--host", "0.0.0.0"]),
        )
        .await;
        create(&cluster, &namespace, pod("client", &["/bin/sleep", "1000"])).await;
        let chain = [
            "-n",
            namespace.name(),
            "expose",
            "pod",
            "chain",
            "--port=8545",
        ];
        kubectl(&cluster, &chain).await;

        let service = format!("chain.{}.svc.cluster.local", namespace.name());
        let exec = |script: String| {
            let arguments = [
                "-n",
                namespace.name(),
                "exec",
                "client",
                "--",
                "/bin/bash",
                "-c",
            ]
            .map(str::to_owned);
            cluster
                .kubectl(arguments.into_iter().chain([script]))
                .output()
        };
        // CoreDNS takes a moment to serve a new Service, and kube-proxy about a second.
        let mut resolved = String::new();
        for _ in 0..100 {
            let script = format!("getent hosts {service} kubernetes.default");
            resolved = String::from_utf8(exec(script).await.unwrap().stdout).unwrap();
            if resolved.contains(&service) && resolved.contains("10.96.0.1") {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert!(
            resolved.contains(&service) && resolved.contains("10.96.0.1"),
            "{resolved}"
        );

        let request = r#"POST / HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{"id":1,"jsonrpc":"2.0","method":"eth_chainId","params":[] }"#;
        let script = format!(
            "exec 3<>/dev/tcp/{service}/8545; printf '{request}' >&3; read -d '' -u 3 all; echo \"$all\""
        );
        let mut answer = String::new();
        for _ in 0..100 {
            answer = String::from_utf8(exec(script.clone()).await.unwrap().stdout).unwrap();
            if answer.contains("0x7a69") {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert!(answer.contains("0x7a69"), "{answer}");
        let api = exec("exec 3<>/dev/tcp/kubernetes.default/443 && echo reached".to_owned())
            .await
            .unwrap();
        assert_eq!(api.stdout, b"reached\n");

        let log = kubectl(&cluster, &["-n", namespace.name(), "logs", "chain"]).await;
        assert!(log.contains("Listening on 0.0.0.0:8545"), "{log}");
        namespace.delete().await.unwrap();
    });
}

#[test]
fn killed_container_restarts_in_the_same_pod() {
    testbed::test(async |cluster| {
        load_shell(&cluster).await;
        let namespace = cluster.namespace("killed").await;
        create(
            &cluster,
            &namespace,
            pod("sleeper", &["/bin/sleep", "1000"]),
        )
        .await;
        let before = cluster
            .container(namespace.name(), "sleeper", "main")
            .await
            .unwrap();
        let command = fs::read_to_string(format!("/proc/{}/cmdline", before.pid())).unwrap();
        assert_eq!(command, "/bin/sleep\u{0}1000\u{0}");

        before.kill(Signal::Kill).unwrap();
        let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace.name());
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            let pod = pods.get("sleeper").await.unwrap();
            let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
            if status.restart_count == 1 && status.state.as_ref().unwrap().running.is_some() {
                break status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(
            status.last_state.unwrap().terminated.unwrap().exit_code,
            137
        );
        let after = cluster
            .container(namespace.name(), "sleeper", "main")
            .await
            .unwrap();
        assert_ne!(before.pid(), after.pid());
        assert!(!before.is_alive() && before.kill(Signal::Kill).is_err());
    });
}

#[test]
fn audit_log_has_a_request_once_it_is_answered() {
    testbed::test(async |cluster| {
        let mut audit = cluster.audit().unwrap();
        let namespace = cluster.namespace("audited").await;
        let object = json!({ "metadata": { "name": "settings" } });
        let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
            Api::namespaced(cluster.client(), namespace.name());
        maps.create(
            &PostParams::default(),
            &serde_json::from_value(object).unwrap(),
        )
        .await
        .unwrap();
        let entries = audit.read().unwrap();
        let created = entries
            .iter()
            .find(|entry| entry.resource == "configmaps" && entry.name == "settings");
        let created = created.expect("an entry for the request");
        assert_eq!(
            (created.user.as_str(), created.verb.as_str(), created.code),
            ("admin", "create", 201)
        );
        assert_eq!(created.namespace, namespace.name());
        assert!(
            audit
                .read()
                .unwrap()
                .iter()
                .all(|entry| entry.name != "settings")
        );
    });
}

#[test]
fn namespace_is_deleted_when_it_is_dropped() {
    testbed::test(async |cluster| {
        let namespace = cluster.namespace("dropped").await;
        let name = namespace.name().to_owned();
        drop(namespace);
        let all: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
        let deadline = Instant::now() + Duration::from_secs(30);
        while all.get_opt(&name).await.unwrap().is_some() {
            assert!(Instant::now() < deadline, "namespace {name} is still there");
            sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn image_build_replaces_a_stage_by_a_directory() {
    testbed::test(async |cluster| {
        let context = cluster.scratch("image-context").unwrap();
        let built = cluster.scratch("image-built").unwrap();
        let dockerfile = "FROM compiler AS build\nRUN false\n\nFROM scratch\nCOPY --from=build /answer /answer\n";
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        fs::write(built.join("answer"), "42").unwrap();
        let archive =
            image::build(&context, &[("build", &built)], "localhost/testbed-built:1").unwrap();
        cluster.load(&archive).await.unwrap();
        let images = cluster
            .kubectl(["get", "node", "node", "-o", "json"])
            .output()
            .await
            .unwrap();
        let node: Value = serde_json::from_slice(&images.stdout).unwrap();
        assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.34.4");
    });
}
