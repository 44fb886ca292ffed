//! Starts the components of a node in order, and reports their health.
//!
//! Independent components start concurrently: the container runtime alongside the API server, then
//! everything that needs the API server. All functions must run in the node's network namespace,
//! see [`NodeNamespaces::in_network`]. Taking a node down needs no order, see
//! [`crate::namespaces`].

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node, ServiceAccount};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::sleep;
use tokio::try_join;

use crate::component::Component;
use crate::host::SYSTEM_PATH;
use crate::interrupt;
use crate::namespaces::NodeNamespaces;
use crate::probe;
use crate::procfs::ProcessId;
use crate::progress::Progress;
use crate::settings::NODE_NAME;
use crate::state::State;
use crate::subprocess;
use crate::tools::NodeTools;

const TIMEOUT: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_millis(50);

/// The record of a started component: enough to find its process and to restart it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartedProcess {
    pub(crate) id: ProcessId,
    command: Vec<String>,
}

/// A node whose namespaces exist. Its components may be down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningNode<'a> {
    pub(crate) state: &'a State,
    pub(crate) namespaces: NodeNamespaces,
}

/// The health of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Healthy,
    /// It runs, and its probe fails.
    Unhealthy,
    /// Stopped by a signal.
    Paused,
    Dead,
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Paused => "paused",
            Self::Dead => "dead",
        })
    }
}

impl RunningNode<'_> {
    /// Starts all components, and returns once pods can run and names resolve.
    pub(crate) async fn start_all(
        self,
        tools: &NodeTools,
        cache: &Path,
        progress: &Progress,
    ) -> Result<()> {
        let start = |component: Component| async move {
            let mut step = progress.step(component.name());
            step.update("starting");
            self.start(component, component.command(self.state, tools, cache))
                .await?;
            step.done("ready");
            Ok::<_, anyhow::Error>(())
        };
        let storage_and_api =
            async { try_join!(start(Component::Etcd), start(Component::ApiServer)) };
        let runtime = async {
            start(Component::Containerd).await?;
            import(self.state, &tools.pause_image).await
        };
        try_join!(storage_and_api, runtime)?;
        try_join!(
            start(Component::ControllerManager),
            start(Component::Scheduler),
            start(Component::Kubelet),
            start(Component::Proxy),
            start(Component::CoreDns),
        )?;
        let mut step = progress.step("node");
        step.update("waiting until pods can run");
        self.wait_until_pods_can_run().await?;
        step.done("ready");
        Ok(())
    }

    /// Restarts one component with the same command.
    pub(crate) async fn restart(self, component: Component) -> Result<ProcessId> {
        let started = self
            .started(component)
            .with_context(|| format!("{} was not started", component.name()))?;
        self.start(component, started.command).await
    }

    /// The record of a component, if it was started.
    pub(crate) fn started(self, component: Component) -> Option<StartedProcess> {
        self.state.read_json(record(component))
    }

    pub(crate) async fn health(self, component: Component) -> Health {
        match self
            .started(component)
            .and_then(|started| started.id.state())
        {
            None => Health::Dead,
            Some('T') => Health::Paused,
            Some(_) if probe::ask(component, self.state).await.is_ok() => Health::Healthy,
            Some(_) => Health::Unhealthy,
        }
    }

    async fn start(self, component: Component, command: Vec<String>) -> Result<ProcessId> {
        let log = self.state.log(component.name());
        let id = self
            .namespaces
            .start(&command, &log)
            .with_context(|| component.name())?;
        self.state
            .write_json(record(component), &StartedProcess { id, command })?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = probe::ask(component, self.state).await;
            interrupt::check()?;
            match answer {
                // Checked first: another process that holds the port may have answered the probe.
                _ if !id.is_alive() => {
                    bail!(
                        "{} died; its log ends with\n{}",
                        component.name(),
                        subprocess::tail(&log)
                    )
                }
                Ok(()) => return Ok(id),
                Err(error) if Instant::now() > deadline => {
                    let last = subprocess::tail(&log);
                    return Err(error.context(format!(
                        "{} is not healthy; its log ends with\n{last}",
                        component.name()
                    )));
                }
                Err(_) => sleep(INTERVAL).await,
            }
        }
    }

    async fn wait_until_pods_can_run(self) -> Result<()> {
        let client = Client::try_from(probe::admin(self.state).await?)?;
        let deadline = Instant::now() + TIMEOUT;
        while let Err(error) = check_pods_can_run(&client).await {
            interrupt::check()?;
            if Instant::now() > deadline {
                let log = subprocess::tail(&self.state.log(Component::Kubelet.name()));
                return Err(error.context(format!(
                    "pods cannot run; the kubelet's log ends with\n{log}"
                )));
            }
            sleep(INTERVAL).await;
        }
        Ok(())
    }
}

/// Loads the images of an archive into the node.
pub(crate) async fn import(state: &State, archive: &Path) -> Result<()> {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(state.containerd_socket())
        .args(["--namespace", "k8s.io", "images", "import"]);
    let output = command
        .arg(archive)
        .env("PATH", SYSTEM_PATH)
        .kill_on_drop(true)
        .output()
        .await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "importing {}: {}",
        archive.display(),
        stderr.trim()
    );
    Ok(())
}

fn record(component: Component) -> String {
    format!("components/{}.json", component.name())
}

/// The node is ready and has no taints, and the objects that every pod needs exist.
async fn check_pods_can_run(client: &Client) -> Result<()> {
    let node = Api::<Node>::all(client.clone()).get(NODE_NAME).await?;
    let conditions = node
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ensure!(ready, "the node is not ready");
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    ensure!(
        taints.is_empty(),
        "the node is tainted with {}",
        taints[0].key
    );
    Api::<ServiceAccount>::default_namespaced(client.clone())
        .get("default")
        .await?;
    Api::<ConfigMap>::default_namespaced(client.clone())
        .get("kube-root-ca.crt")
        .await
        .map(drop)
        .map_err(|e| anyhow!(e))
}
