//! Kills the leader's container process on the node, where the kubelet reports it, and measures the
//! takeover.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::bench::ProgressTrack;
use harness::wait::until;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use rand::RngExt as _;
use serde_json::json;
use testbed::{Cluster, Signal, image, tools};
use tokio::time::sleep;

use super::report::Sample;
use super::takeover::CANDIDATES;
use crate::candidate::{self, Implementation, Timing};
use crate::event::{Event, EventKind};
use crate::namespace::ElectionNamespace;

/// The chart of this checkout.
const CHART: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../charts/serviceoffer-controller"
);
/// Name of the release and of its namespace. The chart has cluster-scoped objects, so it is
/// installed once.
const RELEASE: &str = "election-bench";
/// Name of the Lease in the chart.
const LEASE: &str = "serviceoffer-controller";
const LIMIT: Duration = Duration::from_secs(120);

/// Replicas of one implementation, in Pods.
pub struct Deployed {
    cluster: Cluster,
    kind: Implementation,
    namespace: String,
    selector: &'static str,
    container: &'static str,
    lease: &'static str,
}

impl Deployed {
    /// The operator, installed by the chart with default values except for the number of replicas.
    ///
    /// # Errors
    /// If Helm fails.
    pub async fn ours(cluster: &Cluster) -> Result<Self> {
        let program = "/bin/serviceoffer-controller";
        load(
            cluster,
            &candidate::operator()?,
            program,
            "localhost/election-bench/ours:built",
        )
        .await?;
        uninstall(cluster).await?;
        let install = [
            "install",
            RELEASE,
            CHART,
            "--namespace",
            RELEASE,
            "--create-namespace",
            "--wait",
        ];
        let values = [
            "image.repository=localhost/election-bench/ours".to_owned(),
            "image.tag=built".to_owned(),
            format!("replicaCount={CANDIDATES}"),
            // Already installed for the candidates outside of Pods.
            "crds.enabled=false".to_owned(),
        ];
        let values = values.iter().flat_map(|value| ["--set", value]);
        helm(cluster, install.into_iter().chain(values)).await?;
        Ok(Self {
            cluster: cluster.clone(),
            kind: Implementation::Operator,
            namespace: RELEASE.to_owned(),
            selector: "app.kubernetes.io/name=serviceoffer-controller",
            container: "controller",
            lease: LEASE,
        })
    }

    /// client-go's leader election with the Pod's name as identity, as in a typical Go operator.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn client_go(namespace: &ElectionNamespace) -> Result<Self> {
        let cluster = namespace.cluster();
        load(
            cluster,
            &tools::peers()?,
            "/bin/peers",
            "localhost/election-bench/peers:built",
        )
        .await?;
        let Timing {
            lease,
            deadline,
            period,
        } = Timing::LONG;
        let deployment = serde_json::from_value(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "peers" },
            "spec": {
                "replicas": CANDIDATES,
                "selector": { "matchLabels": { "app": "peers" } },
                "template": {
                    "metadata": { "labels": { "app": "peers" } },
                    "spec": {
                        "terminationGracePeriodSeconds": 30,
                        "containers": [{
                            "name": "peer",
                            "image": "localhost/election-bench/peers:built",
                            "imagePullPolicy": "Never",
                            "args": [
                                "--identity=$(POD_NAME)",
                                format!("--namespace={}", namespace.name()),
                                "--lease=peers",
                                "--release-on-cancel",
                                format!("--lease-duration={}s", lease.as_secs()),
                                format!("--renew-deadline={}s", deadline.as_secs()),
                                format!("--retry-period={}s", period.as_secs()),
                            ],
                            "env": [{ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                        }],
                    },
                },
            },
        }))?;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace.name());
        deployments
            .create(&PostParams::default(), &deployment)
            .await?;
        Ok(Self {
            cluster: cluster.clone(),
            kind: Implementation::ClientGo,
            namespace: namespace.name().to_owned(),
            selector: "app=peers",
            container: "peer",
            lease: "peers",
        })
    }

    /// Kills the leader's container process `times` times.
    ///
    /// # Errors
    /// If no replica takes over, or a Pod is not replaced.
    pub async fn run(&self, times: usize, track: &ProgressTrack) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for _ in 0..times {
            let pods = self.ready().await?;
            let leader = self.leader(&pods).await?;
            sleep(
                Timing::LONG
                    .period
                    .mul_f64(rand::rng().random_range(0.2..0.6)),
            )
            .await;
            let process = self
                .cluster
                .container(&self.namespace, &leader, self.container)
                .await?;
            let transitions = self.record().await?.1;
            let at = Timestamp::now();
            process.kill(Signal::Kill)?;
            let next = self.successor(&leader, transitions, at).await?;
            let seconds = next.duration_since(at).as_secs_f64();
            track.step(&format!("{seconds:.3} s"));
            samples.push(Sample {
                seconds,
                since_renewal: None,
            });
            // Restarts of the same Pod are delayed by CrashLoopBackOff; a new Pod starts without
            // delay.
            let gone = DeleteParams::default();
            self.pods().delete(&leader, &gone).await?;
            until(&format!("{leader} is deleted"), LIMIT, async || {
                let pod = self.pods().get_opt(&leader).await?;
                ensure!(pod.is_none(), "it still exists");
                Ok(())
            })
            .await?;
        }
        Ok(samples)
    }

    /// Uninstalls the replicas.
    ///
    /// # Errors
    /// If Helm fails or the API server refuses.
    pub async fn remove(self) -> Result<()> {
        match self.kind {
            Implementation::Operator => uninstall(&self.cluster).await,
            _ => {
                let deployments: Api<Deployment> =
                    Api::namespaced(self.cluster.client(), &self.namespace);
                deployments
                    .delete("peers", &DeleteParams::default())
                    .await?;
                Ok(())
            }
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Waits until all replicas are ready and none is terminating.
    async fn ready(&self) -> Result<Vec<String>> {
        until("all replicas are ready", LIMIT, async || {
            let pods = self
                .pods()
                .list(&ListParams::default().labels(self.selector))
                .await?
                .items;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(
                pods.len() == CANDIDATES && ready == CANDIDATES,
                "{ready} of {} Pods are ready",
                pods.len()
            );
            Ok(pods.iter().map(ResourceExt::name_any).collect())
        })
        .await
    }

    /// Waits until one of the Pods holds the Lease and reports that it leads.
    async fn leader(&self, pods: &[String]) -> Result<String> {
        until("a replica leads", LIMIT, async || {
            let (holder, _) = self.record().await?;
            let leads = pods.contains(&holder) && self.begins(&holder).await?.is_some();
            ensure!(leads, "the Lease names {holder:?}");
            Ok(holder)
        })
        .await
    }

    /// Waits until another Pod, or the next container of the same Pod, leads.
    async fn successor(&self, dead: &str, transitions: i32, since: Timestamp) -> Result<Timestamp> {
        let what = format!("a replica takes over from {dead}");
        until(&what, LIMIT, async || {
            let record = self.record().await?;
            // With client-go the next container continues the Lease of the same identity and counts
            // no transition.
            let is_other =
                record != (dead.to_owned(), transitions) || self.kind == Implementation::ClientGo;
            ensure!(is_other, "the Lease is unchanged");
            self.begins(&record.0)
                .await?
                .filter(|at| *at >= since)
                .with_context(|| format!("{} does not lead yet", record.0))
        })
        .await
    }

    /// When the running container of a Pod last started leading.
    async fn begins(&self, pod: &str) -> Result<Option<Timestamp>> {
        // There is no log between two containers.
        let Ok(log) = self.pods().logs(pod, &LogParams::default()).await else {
            return Ok(None);
        };
        let mut events = log.lines().filter_map(|line| match self.kind {
            Implementation::Operator => Event::of_operator(line),
            _ => Event::of_peer(line, Timestamp::now()),
        });
        Ok(events
            .rfind(|event| event.kind == EventKind::StartedLeading)
            .map(|event| event.at))
    }

    /// Holder and transitions of the Lease.
    async fn record(&self) -> Result<(String, i32)> {
        let leases: Api<Lease> = Api::namespaced(self.cluster.client(), &self.namespace);
        let spec = leases
            .get_opt(self.lease)
            .await?
            .and_then(|lease| lease.spec)
            .unwrap_or_default();
        Ok((
            spec.holder_identity.unwrap_or_default(),
            spec.lease_transitions.unwrap_or_default(),
        ))
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Loads a program onto the node as an image.
async fn load(cluster: &Cluster, program: &Path, inside: &str, tag: &str) -> Result<()> {
    // A statically linked program needs no libraries.
    let libraries = image::shared_libraries(program).unwrap_or_default();
    let libraries: Vec<_> = libraries
        .iter()
        .map(|library| (library.as_path(), library.to_string_lossy()))
        .collect();
    let beside = libraries
        .iter()
        .map(|(outside, inside)| (*outside, inside.as_ref()));
    let files: Vec<_> = [(program, inside)].into_iter().chain(beside).collect();
    cluster
        .load(&image::from_files(&files, &[inside], tag)?)
        .await
}

async fn uninstall(cluster: &Cluster) -> Result<()> {
    helm(
        cluster,
        [
            "uninstall",
            RELEASE,
            "--namespace",
            RELEASE,
            "--ignore-not-found",
            "--wait",
        ],
    )
    .await
}

async fn helm<'a>(cluster: &Cluster, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let output = cluster.helm(arguments).output().await.context("helm")?;
    if !output.status.success() {
        bail!("helm: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
