//! A running testbed as tests use it, and how tests enter it.
//!
//! Every thread of a test is in the testbed's network namespace, so that a plain socket reaches the
//! API server, pods and Services. Tests do not start or stop testbeds: the `testbed` command does.

use std::env;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::process::Command;
use tokio::runtime::Builder;

use crate::audit::Audit;
use crate::cache::Cache;
use crate::cgroup;
use crate::component::Component;
use crate::name::Name;
use crate::namespaces::NodeNamespaces;
use crate::node::{self, RunningNode};
use crate::probe;
use crate::process::Process;
use crate::settings::NODE_IP;
use crate::state::State;
use crate::test_namespace::TestNamespace;
use crate::testbed::{self, PROXIES};
use crate::tools;

/// A testbed that is up.
#[derive(Clone)]
pub struct Cluster {
    state: State,
    namespaces: NodeNamespaces,
    client: Client,
    clients: PathBuf,
}

/// Runs a test in the network of this checkout's testbed.
///
/// ```no_run
/// testbed::test(async |cluster| {
///     let namespace = cluster.namespace("example").await;
///     assert!(cluster.kubectl(["get", "pods", "-n", namespace.name()]).status().await.unwrap().success());
/// });
/// ```
///
/// # Panics
/// If no testbed is up, or the body panics.
pub fn test<F, T>(body: F) -> T
where
    F: AsyncFnOnce(Cluster) -> T + Send,
    T: Send,
{
    unwrap_or_panic(Name::current().and_then(|name| enter(name, body)))
}

/// Runs a test in the network of the testbed with this name. For tests that must not share a
/// testbed, because they disrupt it.
///
/// # Panics
/// If that testbed is not up, or the body panics.
pub fn test_on<F, T>(name: &Name, body: F) -> T
where
    F: AsyncFnOnce(Cluster) -> T + Send,
    T: Send,
{
    unwrap_or_panic(enter(name.clone(), body))
}

/// Runs part of a program in the network of the testbed with this name.
///
/// # Errors
/// If that testbed is not up.
pub fn enter<F, T>(name: Name, body: F) -> Result<T>
where
    F: AsyncFnOnce(Cluster) -> T + Send,
    T: Send,
{
    let state = State::of(name);
    let namespaces =
        NodeNamespaces::find(&state).context("no testbed is up: run `make testbed-up`")?;
    namespaces.in_network(|| {
        // Built here because its threads inherit the network namespace of the thread that builds
        // it.
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async { Ok(body(Cluster::connect(state, namespaces).await?).await) })
    })?
}

#[allow(clippy::panic, reason = "a test reports by panicking")]
fn unwrap_or_panic<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

impl Cluster {
    async fn connect(state: State, namespaces: NodeNamespaces) -> Result<Self> {
        let client = Client::try_from(probe::admin(&state).await?)?;
        let clients = tools::clients(&Cache::open()?)?;
        Ok(Self {
            state,
            namespaces,
            client,
            clients,
        })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// A client with cluster-admin permissions.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.kubeconfig()
    }

    /// The testbed's name.
    pub fn name(&self) -> &str {
        self.state.name().as_str()
    }

    /// The address at which pods reach a server that a test runs, if it listens on this address or
    /// on all.
    pub fn node_ip(&self) -> IpAddr {
        NODE_IP
    }

    /// A directory for files of a test. It is removed with the testbed.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        self.state.directory(&format!("scratch/{name}"))
    }

    /// A new namespace with a name that begins with `prefix`.
    ///
    /// # Panics
    /// If the API server does not create it.
    pub async fn namespace(&self, prefix: &str) -> TestNamespace {
        self.namespace_with_labels(prefix, &[]).await
    }

    /// A new namespace with labels.
    ///
    /// # Panics
    /// If the API server does not create it.
    pub async fn namespace_with_labels(
        &self,
        prefix: &str,
        labels: &[(&str, &str)],
    ) -> TestNamespace {
        unwrap_or_panic(
            TestNamespace::create(self, prefix, labels)
                .await
                .with_context(|| format!("creating a namespace {prefix}-*")),
        )
    }

    /// Loads the images of a `docker-archive` into the node, see [`crate::image`].
    ///
    /// # Errors
    /// If the container runtime rejects it.
    pub async fn load(&self, image_tar: &Path) -> Result<()> {
        node::import(&self.state, image_tar).await
    }

    /// A reader of the audit log that starts at its current end.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn audit(&self) -> Result<Audit> {
        Audit::from_now(self.state.audit_log())
    }

    /// The process of a component.
    ///
    /// # Errors
    /// If it was never started.
    pub fn component(&self, component: Component) -> Result<Process> {
        let node = RunningNode {
            state: &self.state,
            namespaces: self.namespaces,
        };
        let started = node
            .started(component)
            .with_context(|| format!("{} was not started", component.name()))?;
        Ok(Process::of_component(&self.state, component, started.id))
    }

    /// The main process of a running container.
    ///
    /// # Errors
    /// If there is no such pod, or the container does not run.
    pub async fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<Process> {
        let name = format!("container {namespace}/{pod}/{container}");
        let object = Api::<Pod>::namespaced(self.client(), namespace)
            .get(pod)
            .await
            .with_context(|| name.clone())?;
        let status = object.status.unwrap_or_default();
        let all = status
            .container_statuses
            .into_iter()
            .chain(status.init_container_statuses)
            .flatten();
        let status = all
            .into_iter()
            .find(|status| status.name == container)
            .with_context(|| format!("no {name}"))?;
        let id = status
            .container_id
            .with_context(|| format!("{name} has not run yet"))?;
        let id = id.rsplit_once('/').map_or(id.as_str(), |(_, id)| id);
        let pid = cgroup::main_process(self.state.name(), id).with_context(|| name.clone())?;
        Process::of_container(name, pid)
    }

    /// A helm command with the administrator's kubeconfig, and with its caches in the testbed's
    /// directory.
    pub fn helm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command("helm", arguments)
    }

    /// A bash script with helm and kubectl in PATH, as in `testbed exec`. It ends at the first
    /// failure.
    pub fn shell(&self, script: &str) -> Command {
        let inherited = env::var("PATH").unwrap_or_default();
        let mut command = self.prepared("bash");
        command.args(["-euo", "pipefail", "-c", script]);
        command.env("PATH", format!("{}:{inherited}", self.clients.display()));
        command
    }

    /// A kubectl command with the administrator's kubeconfig.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command("kubectl", arguments)
    }

    fn command<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.prepared(self.clients.join(program));
        command.args(arguments);
        command
    }

    fn prepared(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .envs(testbed::client_variables(&self.state))
            .kill_on_drop(true);
        for variable in PROXIES {
            command.env_remove(variable);
        }
        command
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Cluster")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
