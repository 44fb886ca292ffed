//! The operator, as Helm puts it into the cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use testbed::Cluster;

use harness::wait::eventually;

/// Name of the release in every flow.
pub const NAME: &str = "offers";
/// Name of the Lease that replicas compete for.
pub const LEASE: &str = "serviceoffer-controller";
/// The series by which a replica says whether it leads.
pub const LEADS: &str = r#"leader_election_master_status{name="serviceoffer-controller"}"#;
/// How long Helm may wait for Pods.
const WAIT: &str = "120s";
/// How long a Pod that was seen may take to have an address, to serve, or to show its log, and the API server to answer.
const SOON: Duration = Duration::from_secs(30);

/// The chart of this checkout.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/serviceoffer-controller")
}

/// A release of the operator.
pub struct Release {
    cluster: Cluster,
    namespace: String,
}

impl Release {
    /// Installs the operator and waits until it is ready. Its image is the one that the chart names, from `make image`.
    pub async fn install(cluster: &Cluster, namespace: &str, values: &[&str]) -> Self {
        let release = Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
        };
        let output = release.try_install(values).await;
        assert!(output.status.success(), "helm install: {}", said(&output));
        release
    }

    /// Installs the operator, and answers with what Helm said.
    pub async fn try_install(&self, values: &[&str]) -> Output {
        let chart = chart();
        let chart = chart.to_str().expect("a path in UTF-8");
        let arguments = [
            "install",
            NAME,
            chart,
            "--create-namespace",
            "--wait",
            "--timeout",
            WAIT,
        ];
        self.helm(&arguments, values).await
    }

    /// A release that is not installed yet.
    pub fn of(cluster: &Cluster, namespace: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
        }
    }

    /// Upgrades the release: values that are not given keep what they are.
    pub async fn upgrade(&self, values: &[&str]) {
        let chart = chart();
        let chart = chart.to_str().expect("a path in UTF-8");
        let arguments = [
            "upgrade",
            NAME,
            chart,
            "--reset-then-reuse-values",
            "--wait",
            "--timeout",
            WAIT,
        ];
        let output = self.helm(&arguments, values).await;
        assert!(output.status.success(), "helm upgrade: {}", said(&output));
    }

    /// Removes the release, as a user would.
    pub async fn uninstall(&self) -> Output {
        self.helm(&["uninstall", NAME, "--wait", "--timeout", WAIT], &[])
            .await
    }

    /// Calls Helm in the namespace of the release.
    pub async fn helm(&self, arguments: &[&str], values: &[&str]) -> Output {
        let sets = values.iter().flat_map(|value| ["--set", value]);
        let arguments: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(["--namespace", &self.namespace])
            .chain(sets)
            .collect();
        self.cluster
            .helm(&arguments)
            .output()
            .await
            .expect("helm runs")
    }

    /// Namespace of the release.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    pub fn lease_api(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Replicas that are not being deleted. They may still be starting.
    pub async fn pods(&self) -> Vec<Pod> {
        eventually("the replicas are listed", SOON, async || {
            self.try_pods().await
        })
        .await
    }

    async fn try_pods(&self) -> kube::Result<Vec<Pod>> {
        let selector = format!(
            "app.kubernetes.io/name=serviceoffer-controller,app.kubernetes.io/instance={NAME}"
        );
        let pods = self
            .pod_api()
            .list(&ListParams::default().labels(&selector))
            .await?;
        Ok(pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    }

    /// Waits for that many ready replicas.
    pub async fn ready(&self, count: usize, limit: Duration) -> Vec<Pod> {
        eventually(&format!("{count} replicas are ready"), limit, async || {
            let pods = self.try_pods().await.map_err(|error| error.to_string())?;
            let ready: Vec<Pod> = pods.into_iter().filter(is_ready).collect();
            if ready.len() == count {
                Ok(ready)
            } else {
                let names: Vec<_> = ready.iter().map(ResourceExt::name_any).collect();
                Err(format!("ready: {names:?}"))
            }
        })
        .await
    }

    /// The Lease, once there is one.
    pub async fn lease(&self) -> Lease {
        eventually("the Lease is read", SOON, async || {
            self.lease_api().get(LEASE).await
        })
        .await
    }

    /// The holder of the Lease, if there is one.
    async fn holder(&self) -> kube::Result<Option<String>> {
        let lease = self.lease_api().get_opt(LEASE).await?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    }

    /// Waits until a replica that holds the Lease, and is not `not`, says itself that it leads.
    pub async fn leader(&self, not: Option<&str>, limit: Duration) -> String {
        eventually("a replica leads", limit, async || {
            let holder = self.holder().await.map_err(|error| error.to_string())?;
            let holder = holder.ok_or("no replica holds the Lease")?;
            if Some(holder.as_str()) == not {
                return Err(format!("{holder} still holds the Lease"));
            }
            let pods = self.try_pods().await.map_err(|error| error.to_string())?;
            let pod = pods
                .iter()
                .find(|pod| pod.name_any() == holder)
                .ok_or(format!("{holder} holds the Lease and is gone"))?;
            let metrics = self.try_metrics(pod).await;
            let metrics = metrics.map_err(|error| format!("{holder}: {error:#}"))?;
            match metrics.get(LEADS) {
                Some(1.0) => Ok(holder),
                seen => Err(format!("{holder} holds the Lease; {LEADS} {seen:?}")),
            }
        })
        .await
    }

    /// Deletes a Pod without grace, as a node that dies would.
    pub async fn force_delete(&self, pod: &str) -> anyhow::Result<()> {
        self.pod_api()
            .delete(pod, &DeleteParams::default().grace_period(0))
            .await?;
        Ok(())
    }

    /// Ends the operator's process in a Pod with SIGKILL.
    pub async fn kill(&self, pod: &str) -> anyhow::Result<()> {
        self.cluster
            .container(&self.namespace, pod, "controller")
            .await?
            .kill(testbed::Signal::Kill)
    }

    /// Everything that a replica has logged since its container started.
    pub async fn logs(&self, pod: &str) -> String {
        let what = format!("{pod} has a log");
        eventually(&what, SOON, async || {
            self.pod_api().logs(pod, &LogParams::default()).await
        })
        .await
    }

    /// A path of a replica's admin port, once it serves it.
    pub async fn admin(&self, pod: &Pod, path: &str) -> String {
        let what = format!("{} serves {path}", pod.name_any());
        eventually(&what, SOON, async || self.try_admin(pod, path).await).await
    }

    async fn try_admin(&self, pod: &Pod, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}:8081{path}", self.address(pod).await?);
        let request = reqwest::Client::new().get(url);
        let response = request.timeout(Duration::from_secs(2)).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }

    /// What a replica serves under a path of its public port.
    pub async fn document(&self, pod: &Pod, path: &str) -> anyhow::Result<reqwest::Response> {
        let url = format!("http://{}:8080{path}", self.address(pod).await?);
        let request = reqwest::Client::new().get(url);
        Ok(request.timeout(Duration::from_secs(2)).send().await?)
    }

    /// Address of a Pod. One that was listed before it had an address is read again.
    async fn address(&self, pod: &Pod) -> anyhow::Result<String> {
        if let Some(address) = address_of(pod) {
            return Ok(address);
        }
        let name = pod.name_any();
        let pod = self.pod_api().get(&name).await?;
        address_of(&pod).with_context(|| format!("{name} has no address yet"))
    }

    /// A replica's series, by name and labels.
    pub async fn try_metrics(&self, pod: &Pod) -> anyhow::Result<BTreeMap<String, f64>> {
        let text = self.try_admin(pod, "/metrics").await?;
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = series.filter_map(|line| line.rsplit_once(' '));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap_or(f64::NAN)))
            .collect())
    }

    /// A series, summed over all ready replicas. Fails if one of them is gone a moment later.
    pub async fn sum(&self, series: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for pod in self.try_pods().await?.iter().filter(|pod| is_ready(pod)) {
            let metrics = self.try_metrics(pod).await?;
            sum += metrics.get(series).copied().unwrap_or_default();
        }
        Ok(sum)
    }
}

fn address_of(pod: &Pod) -> Option<String> {
    let address = pod.status.as_ref()?.pod_ip.clone();
    address.filter(|address| !address.is_empty())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True")
}

/// What a command said.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
