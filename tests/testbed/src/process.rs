//! A handle with which a test kills, pauses or restarts a process.
//!
//! The handle refers to one process. After a restart of the component or container there is another
//! process with another pid, and operations on the old handle fail.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal;

use crate::component::Component;
use crate::namespaces::NodeNamespaces;
use crate::node::RunningNode;
use crate::procfs::ProcessId;
use crate::state::State;

/// A signal that a test may send to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: exits at once.
    Kill,
    /// SIGTERM: is asked to shut down.
    Term,
    /// SIGSTOP: pauses.
    Stop,
    /// SIGCONT: resumes.
    Cont,
}

impl From<Signal> for signal::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Kill => Self::SIGKILL,
            Signal::Term => Self::SIGTERM,
            Signal::Stop => Self::SIGSTOP,
            Signal::Cont => Self::SIGCONT,
        }
    }
}

/// A component of the node, the main process of a container, or a process that a test started
/// itself.
#[derive(Clone, Debug)]
pub struct Process {
    name: String,
    id: ProcessId,
    origin: Option<(State, Component)>,
}

impl Process {
    pub(crate) fn of_component(state: &State, component: Component, id: ProcessId) -> Self {
        Self {
            name: component.name().to_owned(),
            id,
            origin: Some((state.clone(), component)),
        }
    }

    pub(crate) fn of_container(name: String, pid: u32) -> Result<Self> {
        let id = ProcessId::of(pid).with_context(|| format!("{name} has already exited"))?;
        Ok(Self {
            name,
            id,
            origin: None,
        })
    }

    /// A process that a test started itself.
    ///
    /// # Errors
    /// If it has exited.
    pub fn started(name: &str, pid: u32) -> Result<Self> {
        Self::of_container(name.to_owned(), pid)
    }

    /// The pid on the host.
    pub fn pid(&self) -> u32 {
        self.id.pid
    }

    /// Whether it has not exited. A paused process is alive.
    pub fn is_alive(&self) -> bool {
        self.id.is_alive()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has exited.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        self.id
            .signal(signal.into())
            .with_context(|| self.name.clone())
    }

    /// Sends a signal that ends the process, and waits until it has exited.
    ///
    /// # Errors
    /// If the process has exited before.
    pub async fn kill_and_wait(&self, signal: Signal) -> Result<()> {
        self.kill(signal)?;
        while self.is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Pauses it until the returned guard is dropped.
    ///
    /// # Errors
    /// If the process has exited.
    pub fn pause(&self) -> Result<Paused> {
        self.kill(Signal::Stop)?;
        Ok(Paused {
            process: self.clone(),
        })
    }

    /// Kills a component if it is running, restarts it, and waits until it is healthy. The handle
    /// then refers to the new process.
    ///
    /// # Errors
    /// If it is not a component of the node, or fails to start.
    pub async fn restart(&mut self) -> Result<()> {
        let (state, component) = self.origin.clone().with_context(|| {
            format!(
                "{} is not a component: only its own starter can restart it",
                self.name
            )
        })?;
        let namespaces = NodeNamespaces::find(&state).context("the testbed is not up")?;
        if self.is_alive() {
            self.kill_and_wait(Signal::Kill).await?;
        }
        self.id = RunningNode {
            state: &state,
            namespaces,
        }
        .restart(component)
        .await?;
        Ok(())
    }
}

/// A paused process. Dropping this resumes it.
#[derive(Debug)]
#[must_use = "the process resumes when this is dropped"]
pub struct Paused {
    process: Process,
}

impl Paused {
    /// Resumes the process.
    pub fn resume(self) {}
}

impl Drop for Paused {
    fn drop(&mut self) {
        // Fails if the process was killed while it was paused, which is fine.
        let _ = self.process.kill(Signal::Cont);
    }
}
