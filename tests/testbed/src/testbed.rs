//! One testbed, as the command line sees it: up, down, status, and commands against it. Tests use
//! [`crate::Cluster`].
//!
//! `up` leaves either a healthy node or nothing. `down` removes everything, also after a partial
//! start.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result};
use futures::future::join_all;
use tokio::runtime::{Builder, Runtime};

use crate::cache::Cache;
use crate::cgroup;
use crate::component::Component;
use crate::digest;
use crate::host;
use crate::name::Name;
use crate::namespaces::{self, NodeNamespaces};
use crate::node::{self, Health, RunningNode};
use crate::packages;
use crate::progress::{Detail, Progress};
use crate::settings;
use crate::state::State;
use crate::{name, pki, tools};

/// The file with the inputs from which the node was started.
const IDENTITY: &str = "identity";

/// Variables that would route requests for the cluster through a proxy of the host.
pub(crate) const PROXIES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// One line of the status table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ComponentStatus {
    pub(crate) component: Component,
    pub(crate) health: Health,
    pub(crate) pid: Option<u32>,
    pub(crate) resident: u64,
}

/// The testbed with a name, up or not.
#[derive(Debug)]
pub(crate) struct Testbed {
    state: State,
    progress: Progress,
}

impl Testbed {
    pub(crate) fn of(name: Name) -> Self {
        Self {
            state: State::of(name),
            progress: Progress::new(Detail::All),
        }
    }

    pub(crate) fn name(&self) -> &Name {
        self.state.name()
    }

    /// Installs, downloads and builds everything that is missing.
    pub(crate) fn install(&self) -> Result<()> {
        let progress = Progress::new(Detail::Changes);
        packages::install(&progress)?;
        tools::all(&Cache::open()?, &progress)
    }

    /// Starts the node, unless it is up and healthy.
    pub(crate) fn up(&self) -> Result<()> {
        host::check()?;
        let lock = self.state.lock()?;
        let outcome = self.up_locked();
        if !self.state.root().exists() {
            self.state.remove(lock)?;
        }
        outcome
    }

    /// Starts the node while the lock is held. Removes everything if the start fails; a node that
    /// is up stays untouched if preparing the tools fails.
    fn up_locked(&self) -> Result<()> {
        let begun = Instant::now();
        if self.is_current()? {
            self.progress
                .print(&format!("testbed {} is already up", self.name()));
            return Ok(());
        }
        if self.state.root().exists() {
            self.progress.print(&format!(
                "testbed {} is unhealthy or out of date, restarting",
                self.name()
            ));
        }
        host::check_disk()?;
        let cache = Cache::open()?;
        let tools = tools::node(&cache, &self.progress)?;
        self.take_down()?;
        if let Err(error) = self.start(&tools, &cache) {
            self.take_down()
                .context("cleaning up after a failed start")?;
            return Err(error);
        }
        let seconds = begun.elapsed().as_secs_f32();
        self.progress
            .print(&format!("testbed {} is up ({seconds:.1} s)", self.name()));
        Ok(())
    }

    /// Removes everything that belongs to this testbed. It may be absent.
    pub(crate) fn down(&self) -> Result<()> {
        host::check_rights()?;
        let lock = self.state.lock()?;
        self.take_down()?;
        self.state.remove(lock)
    }

    /// The health of every component, or none if the testbed is not up.
    pub(crate) fn status(&self) -> Result<Option<Vec<ComponentStatus>>> {
        let Some(namespaces) = NodeNamespaces::find(&self.state) else {
            return Ok(None);
        };
        let node = RunningNode {
            state: &self.state,
            namespaces,
        };
        let line = |component| async move {
            let id = node
                .started(component)
                .map(|started| started.id)
                .filter(|id| id.is_alive());
            let resident = id.and_then(|id| id.resident()).unwrap_or_default();
            ComponentStatus {
                component,
                health: node.health(component).await,
                pid: id.map(|id| id.pid),
                resident,
            }
        };
        let all = || Ok(runtime()?.block_on(join_all(Component::ALL.map(line))));
        namespaces.in_network(all)?.map(Some)
    }

    /// Loads the images of an archive into the node.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        self.namespaces()?;
        runtime()?.block_on(node::import(&self.state, archive))
    }

    /// A command that runs in the testbed's network namespace, and otherwise in the host's
    /// namespaces.
    pub(crate) fn command_in_network(&self, command: &[String]) -> Result<Command> {
        let init = self.namespaces()?.init();
        let mut enter = Command::new("nsenter");
        enter
            .arg(format!("--net=/proc/{init}/ns/net"))
            .arg("--")
            .args(command);
        self.set_environment(&mut enter)?;
        Ok(enter)
    }

    /// Points a command at this testbed, its kubeconfig and the tools.
    pub(crate) fn set_environment(&self, command: &mut Command) -> Result<()> {
        let inherited = env::var("PATH").unwrap_or_default();
        command.env(
            "PATH",
            format!("{}:{inherited}", tools::path(&Cache::open()?)?),
        );
        command.env(name::VARIABLE, self.name().as_str());
        command.envs(client_variables(&self.state));
        for variable in PROXIES {
            command.env_remove(variable);
        }
        Ok(())
    }

    fn namespaces(&self) -> Result<NodeNamespaces> {
        NodeNamespaces::find(&self.state)
            .with_context(|| format!("testbed {} is not up", self.name()))
    }

    /// Whether the node is up and healthy, and was started from the current inputs.
    fn is_current(&self) -> Result<bool> {
        let started_from = fs::read_to_string(self.state.path(IDENTITY)).unwrap_or_default();
        if started_from != identity()? {
            return Ok(false);
        }
        let lines = self.status()?.unwrap_or_default();
        Ok(!lines.is_empty() && lines.iter().all(|line| line.health == Health::Healthy))
    }

    fn start(&self, tools: &tools::NodeTools, cache: &Cache) -> Result<()> {
        let mut step = self.progress.step("namespaces");
        step.update("creating");
        settings::write(&self.state)?;
        pki::write(&self.state)?;
        cgroup::create(self.name())?;
        let namespaces = NodeNamespaces::create(&self.state, cache.root())?;
        step.done("ready");
        let node = RunningNode {
            state: &self.state,
            namespaces,
        };
        namespaces.in_network(|| {
            runtime()?.block_on(node.start_all(tools, cache.root(), &self.progress))
        })??;
        self.state.write(IDENTITY, identity()?)?;
        Ok(())
    }

    fn take_down(&self) -> Result<()> {
        namespaces::destroy(&self.state)?;
        cgroup::remove(self.name())?;
        self.state.clear()
    }
}

/// Identifies the inputs of a node: its programs, and the files of this crate that configure them.
fn identity() -> Result<String> {
    let sources = [
        include_str!("component.rs"),
        include_str!("settings.rs"),
        include_str!("pki.rs"),
        include_str!("init.rs"),
    ];
    Ok(format!(
        "{} {}",
        tools::node_identity()?,
        digest::of_bytes(sources.concat().as_bytes())
    ))
}

/// Environment variables that make helm and kubectl use this testbed, and write nowhere else.
pub(crate) fn client_variables(state: &State) -> [(&'static str, PathBuf); 5] {
    [
        ("KUBECONFIG", state.kubeconfig()),
        ("KUBECACHEDIR", state.path("clients/kubectl")),
        ("HELM_CACHE_HOME", state.path("clients/helm/cache")),
        ("HELM_CONFIG_HOME", state.path("clients/helm/config")),
        ("HELM_DATA_HOME", state.path("clients/helm/data")),
    ]
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to build the async runtime")
}
