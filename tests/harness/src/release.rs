//! The operator as Helm installs it: its replicas, its Lease, its gate, and what each of them serves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use reqwest::header::{ETAG, HeaderMap};
use testbed::{Cluster, Process, Signal};

use crate::metrics;
use crate::wait::until;

/// Name of the Lease that replicas compete for.
pub const LEASE: &str = "serviceoffer-controller";
/// The series by which a replica reports that it leads.
pub const LEADS: &str = r#"leader_election_master_status{name="serviceoffer-controller"}"#;
/// Name of the container in each Pod of the operator.
const CONTAINER: &str = "controller";
/// How long Helm may wait for Pods. A busy machine needs a minute and more; no test asserts it.
const HELM_TIMEOUT: &str = "120s";
/// How long a running replica may take to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a replica may take to get its address, serve, or show its log, and the API server to
/// answer.
const SOON: Duration = Duration::from_secs(30);

/// The chart of this checkout.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/serviceoffer-controller")
}

/// A release of the operator, installed or not.
pub struct Release {
    cluster: Cluster,
    namespace: String,
    name: String,
    chart: PathBuf,
    http: reqwest::Client,
}

/// One answer that the Service and every replica gave.
#[derive(Debug)]
pub struct Served {
    /// Headers that the Service sent.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Release {
    /// A release of that name. Nothing is installed.
    ///
    /// # Errors
    /// If there is no HTTP client.
    pub fn new(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            chart: chart(),
            http: http_client().build()?,
        })
    }

    /// The same release, installed and upgraded from another chart than this checkout's.
    #[must_use]
    pub fn of_chart(self, chart: &Path) -> Self {
        Self {
            chart: chart.to_owned(),
            ..self
        }
    }

    /// Installs the operator and waits until it is ready. Its image is the one that the chart
    /// names, from `make image`.
    ///
    /// # Errors
    /// With what Helm printed.
    pub async fn install(&self, values: &[&str]) -> Result<()> {
        let chart = self.chart_path()?;
        let arguments = ["install", &self.name, chart, "--create-namespace"];
        self.run_helm(&waiting(&arguments), values).await.map(drop)
    }

    /// Upgrades the release. Values that are not given keep what they are.
    ///
    /// # Errors
    /// With what Helm printed.
    pub async fn upgrade(&self, values: &[&str]) -> Result<()> {
        let arguments = [
            "upgrade",
            &self.name,
            self.chart_path()?,
            "--reset-then-reuse-values",
        ];
        self.run_helm(&waiting(&arguments), values).await.map(drop)
    }

    /// Rolls the release back to an earlier revision.
    ///
    /// # Errors
    /// With what Helm printed.
    pub async fn rollback(&self, revision: u32) -> Result<()> {
        let arguments = ["rollback", &self.name, &revision.to_string()];
        self.run_helm(&waiting(&arguments), &[]).await.map(drop)
    }

    /// Removes the release, as a user would, and returns what Helm printed.
    ///
    /// # Errors
    /// With what Helm printed.
    pub async fn uninstall(&self) -> Result<String> {
        self.run_helm(&waiting(&["uninstall", &self.name]), &[])
            .await
    }

    /// Runs Helm in the namespace of the release, and returns what it printed.
    ///
    /// # Errors
    /// With what Helm printed, if it failed.
    pub async fn run_helm(&self, arguments: &[&str], values: &[&str]) -> Result<String> {
        let output = self.helm(arguments, values).await?;
        let printed = printed(&output);
        ensure!(
            output.status.success(),
            "helm {}: {printed}",
            arguments.join(" ")
        );
        Ok(printed)
    }

    /// Runs Helm in the namespace of the release. The exit status may be a failure.
    ///
    /// # Errors
    /// If Helm cannot be started.
    pub async fn helm(&self, arguments: &[&str], values: &[&str]) -> Result<Output> {
        let set = values.iter().flat_map(|value| ["--set", value]);
        let arguments = arguments
            .iter()
            .copied()
            .chain(["--namespace", &self.namespace])
            .chain(set);
        self.cluster
            .helm(arguments)
            .output()
            .await
            .context("starting helm")
    }

    fn chart_path(&self) -> Result<&str> {
        let chart = self.chart.to_str();
        chart.context("the path of the chart is not UTF-8")
    }

    /// Name of the release.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Namespace of the release.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Pods in the namespace of the release.
    pub fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Leases in the namespace of the release.
    pub fn lease_api(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Replicas that are not being deleted. They may still be starting.
    ///
    /// # Errors
    /// If the API server does not list them in time.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        until("the replicas are listed", SOON, async || {
            self.list_pods().await
        })
        .await
    }

    async fn list_pods(&self) -> kube::Result<Vec<Pod>> {
        let mut pods = self.list_replicas().await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Replicas, those that are being deleted included.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn list_replicas(&self) -> kube::Result<Vec<Pod>> {
        self.list("!=gate").await
    }

    /// Pods of the gate, those that are being deleted included.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn list_gates(&self) -> kube::Result<Vec<Pod>> {
        self.list("=gate").await
    }

    /// Pods of the release whose component is, or is not, one.
    async fn list(&self, component: &str) -> kube::Result<Vec<Pod>> {
        let selector = format!(
            "app.kubernetes.io/name=serviceoffer-controller,app.kubernetes.io/instance={},app.kubernetes.io/component{component}",
            self.name
        );
        let parameters = ListParams::default().labels(&selector);
        Ok(self.pod_api().list(&parameters).await?.items)
    }

    /// Waits until one Pod of the gate is left and ready.
    ///
    /// # Errors
    /// If there is another number of them when the limit is reached.
    pub async fn wait_gate(&self, limit: Duration) -> Result<Pod> {
        until("the gate is ready", limit, async || {
            let mut gates = self.list_gates().await?;
            let names: Vec<_> = gates.iter().map(ResourceExt::name_any).collect();
            let one_is_ready = gates.len() == 1 && gates.iter().all(is_ready);
            ensure!(one_is_ready, "Pods of the gate: {names:?}");
            gates.pop().context("there is no gate")
        })
        .await
    }

    async fn list_ready_pods(&self) -> kube::Result<Vec<Pod>> {
        let mut pods = self.list_pods().await?;
        pods.retain(is_ready);
        Ok(pods)
    }

    /// Waits for that many ready replicas.
    ///
    /// # Errors
    /// If there are more or fewer when the limit is reached.
    pub async fn wait_ready(&self, count: usize, limit: Duration) -> Result<Vec<Pod>> {
        until(&format!("{count} replicas are ready"), limit, async || {
            let ready = self.list_ready_pods().await?;
            let names: Vec<_> = ready.iter().map(ResourceExt::name_any).collect();
            ensure!(ready.len() == count, "ready: {names:?}");
            Ok(ready)
        })
        .await
    }

    /// The Lease, once there is one.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn lease(&self) -> Result<Lease> {
        until("the Lease is read", SOON, async || {
            self.lease_api().get(LEASE).await
        })
        .await
    }

    /// The holder of the Lease, if there is one.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn holder(&self) -> kube::Result<Option<String>> {
        let lease = self.lease_api().get_opt(LEASE).await?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    }

    /// Waits until a replica other than `previous` holds the Lease and reports that it leads.
    ///
    /// # Errors
    /// If none does in time.
    pub async fn wait_leader(&self, previous: Option<&str>, limit: Duration) -> Result<String> {
        until("a replica leads", limit, async || {
            let holder = self.holder().await?;
            let holder = holder.context("no replica holds the Lease")?;
            ensure!(
                Some(holder.as_str()) != previous,
                "{holder} still holds the Lease"
            );
            let pods = self.list_pods().await?;
            let pod = pods.iter().find(|pod| pod.name_any() == holder);
            let pod = pod.with_context(|| format!("{holder} holds the Lease and is gone"))?;
            let leads = self.try_metrics(pod).await?.get(LEADS).copied();
            ensure!(
                leads == Some(1.0),
                "{holder} holds the Lease and reports {leads:?}"
            );
            Ok(holder)
        })
        .await
    }

    /// Deletes a Pod without grace, as if its node had died.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn force_delete(&self, pod: &str) -> Result<()> {
        let parameters = DeleteParams::default().grace_period(0);
        self.pod_api().delete(pod, &parameters).await?;
        Ok(())
    }

    /// The operator's process in a Pod.
    ///
    /// # Errors
    /// If it does not run now.
    pub async fn process(&self, pod: &str) -> Result<Process> {
        self.cluster
            .container(&self.namespace, pod, CONTAINER)
            .await
    }

    /// Ends the operator's process in a Pod with SIGKILL.
    ///
    /// # Errors
    /// If it does not run now.
    pub async fn kill(&self, pod: &str) -> Result<()> {
        self.process(pod).await?.kill(Signal::Kill)
    }

    /// Ends the gate's process in a Pod with SIGKILL and deletes the Pod without grace, as if its node
    /// had died.
    ///
    /// # Errors
    /// If it does not run now.
    pub async fn kill_gate(&self, pod: &str) -> Result<()> {
        self.gate_process(pod).await?.kill(Signal::Kill)?;
        self.force_delete(pod).await
    }

    /// The gate's process in a Pod.
    ///
    /// # Errors
    /// If it does not run now.
    pub async fn gate_process(&self, pod: &str) -> Result<Process> {
        self.cluster.container(&self.namespace, pod, "gate").await
    }

    /// Everything that a replica has logged since its container started.
    ///
    /// # Errors
    /// If the log does not become available.
    pub async fn log(&self, pod: &str) -> Result<String> {
        until(&format!("{pod} has a log"), SOON, async || {
            self.pod_api().logs(pod, &LogParams::default()).await
        })
        .await
    }

    /// Waits until a replica answers on its admin port, and returns what it serves under that path.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub async fn admin(&self, pod: &Pod, path: &str) -> Result<String> {
        let what = format!("{} serves {path}", pod.name_any());
        until(&what, SOON, async || self.try_admin(pod, path).await).await
    }

    async fn try_admin(&self, pod: &Pod, path: &str) -> Result<String> {
        let url = format!("http://{}:8081{path}", self.address(pod).await?);
        let response = self.http.get(url).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }

    /// What a Pod serves under a path of its public port. Of the two workloads, the gate has one, or
    /// without a gate the operator.
    ///
    /// # Errors
    /// If it does not answer now.
    pub async fn document(&self, pod: &Pod, path: &str) -> Result<reqwest::Response> {
        let url = format!("http://{}:8080{path}", self.address(pod).await?);
        Ok(self.http.get(url).send().await?)
    }

    /// What the Service and each of these Pods serve alike under a URL of the Service. Every
    /// Pod follows the cluster on its own and may be a moment behind: see [`until`].
    ///
    /// # Errors
    /// If one of them does not answer with 200 now, or serves other bytes or another ETag.
    pub async fn served_alike(
        &self,
        service: &reqwest::Client,
        url: &str,
        pods: &[Pod],
    ) -> Result<Served> {
        let path = url
            .strip_prefix("http://")
            .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
            .with_context(|| format!("{url} has no path"))?;
        let response = service.get(url).send().await?.error_for_status()?;
        let headers = response.headers().clone();
        let bytes = response.bytes().await?.to_vec();
        for pod in pods {
            let name = pod.name_any();
            let own = self.document(pod, path).await?.error_for_status()?;
            ensure!(
                own.headers().get(ETAG) == headers.get(ETAG),
                "{name} serves {path} with another ETag than the Service"
            );
            ensure!(
                own.bytes().await? == bytes,
                "{name} serves other bytes of {path} than the Service"
            );
        }
        Ok(Served { headers, bytes })
    }

    /// A client that reaches a Service of the release by a host name.
    ///
    /// # Errors
    /// If the Service gets no address.
    pub async fn service_client(&self, service: &str, host: &str) -> Result<reqwest::Client> {
        let services = Api::<Service>::namespaced(self.cluster.client(), &self.namespace);
        let what = format!("the Service {service} has an address");
        let address: IpAddr = until(&what, SOON, async || {
            let spec = services.get(service).await?.spec;
            let address = spec.and_then(|spec| spec.cluster_ip);
            Ok::<_, anyhow::Error>(address.context("it has none")?.parse()?)
        })
        .await?;
        let client = http_client().resolve(host, SocketAddr::new(address, 80));
        Ok(client.timeout(Duration::from_secs(5)).build()?)
    }

    /// Address of a Pod. One that was listed before it had an address is read again.
    async fn address(&self, pod: &Pod) -> Result<String> {
        if let Some(address) = address_of(pod) {
            return Ok(address);
        }
        let name = pod.name_any();
        let pod = self.pod_api().get(&name).await?;
        address_of(&pod).with_context(|| format!("{name} has no address yet"))
    }

    /// Waits until a replica serves metrics, and returns them by name and labels.
    ///
    /// # Errors
    /// If it does not serve them in time.
    pub async fn metrics(&self, pod: &Pod) -> Result<BTreeMap<String, f64>> {
        let what = format!("{} serves metrics", pod.name_any());
        until(&what, SOON, async || self.try_metrics(pod).await).await
    }

    /// A replica's metrics by name and labels.
    ///
    /// # Errors
    /// If it does not answer now.
    pub async fn try_metrics(&self, pod: &Pod) -> Result<BTreeMap<String, f64>> {
        let text = self.try_admin(pod, "/metrics").await?;
        Ok(metrics::parse(&text))
    }

    /// The sum of a series over all ready replicas.
    ///
    /// # Errors
    /// If one of them does not answer now.
    pub async fn sum(&self, series: &str) -> Result<f64> {
        let mut sum = 0.0;
        for pod in self.list_ready_pods().await? {
            let metrics = self.try_metrics(&pod).await?;
            sum += metrics.get(series).copied().unwrap_or_default();
        }
        Ok(sum)
    }
}

/// Without proxies, and with a new connection for each request: a replica that was killed must not
/// be taken for one that hangs.
fn http_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(REQUEST_TIMEOUT)
}

fn waiting<'argument>(arguments: &[&'argument str]) -> Vec<&'argument str> {
    [arguments, &["--wait", "--timeout", HELM_TIMEOUT]].concat()
}

fn address_of(pod: &Pod) -> Option<String> {
    let address = pod.status.as_ref()?.pod_ip.clone();
    address.filter(|address| !address.is_empty())
}

/// Whether a Pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut conditions = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What a command printed.
pub fn printed(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    format!("{stdout}{stderr}")
}
