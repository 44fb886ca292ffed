//! A process in a test's hand: to end it, to freeze it, to start it again.
//!
//! It is the process that it was when the handle was made: after a restart, or once a container runs again, the pid is
//! another one, and a handle of the old process does nothing but fail.

use anyhow::{Context, Result};
use nix::sys::signal;

use crate::component::Component;
use crate::namespaces::Namespaces;
use crate::node::Parts;
use crate::procfs::ProcessId;
use crate::state::State;

/// What a test may send to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: gone at once.
    Kill,
    /// SIGTERM: asked to end.
    Term,
    /// SIGSTOP: frozen.
    Stop,
    /// SIGCONT: goes on.
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

/// A component of the node, the main process of a container, or a process that a test started itself.
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
        let id = ProcessId::of(pid).with_context(|| format!("{name} has just ended"))?;
        Ok(Self {
            name,
            id,
            origin: None,
        })
    }

    /// A process that a test started itself.
    ///
    /// # Errors
    /// If it has ended.
    pub fn started(name: &str, pid: u32) -> Result<Self> {
        Self::of_container(name.to_owned(), pid)
    }

    /// The pid on the host.
    pub fn pid(&self) -> u32 {
        self.id.pid
    }

    /// Whether it still runs; a frozen process does.
    pub fn is_alive(&self) -> bool {
        self.id.is_alive()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        self.id
            .signal(signal.into())
            .with_context(|| self.name.clone())
    }

    /// Freezes it until the returned guard is dropped.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn pause(&self) -> Result<Paused> {
        self.kill(Signal::Stop)?;
        Ok(Paused {
            process: self.clone(),
        })
    }

    /// Kills a component if it still runs, starts it again and waits until it works. The handle is the new process then.
    ///
    /// # Errors
    /// If it is not a component's process, or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        let (state, component) = self
            .origin
            .clone()
            .with_context(|| format!("{} is restarted by whoever started it", self.name))?;
        let namespaces = Namespaces::find(&state).context("the testbed is gone")?;
        if self.is_alive() {
            self.kill(Signal::Kill)?;
        }
        while self.is_alive() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.id = Parts {
            state: &state,
            namespaces,
        }
        .restart(component)
        .await?;
        Ok(())
    }
}

/// A process that does not run until this is dropped.
#[derive(Debug)]
#[must_use = "the process goes on when this is dropped"]
pub struct Paused {
    process: Process,
}

impl Paused {
    /// Lets the process go on.
    pub fn resume(self) {}
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed in the meantime, which is no reason to fail.
        let _ = self.process.kill(Signal::Cont);
    }
}
