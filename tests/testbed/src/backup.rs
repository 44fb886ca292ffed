//! Backs up and restores the cluster's state, as the operator of a cluster does.
//!
//! Components that follow the API server keep waiting for a version that a restored one does not
//! have for a long time, so all of them are restarted with it. Pods continue to run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::component::Component;
use crate::process::Signal;
use crate::state::State;
use crate::subprocess;

/// Components that follow the API server, in the order in which they are restarted.
const FOLLOWERS: [Component; 5] = [
    Component::ControllerManager,
    Component::Scheduler,
    Component::Kubelet,
    Component::Proxy,
    Component::CoreDns,
];

/// A copy of etcd's data.
#[derive(Clone, Debug)]
pub struct EtcdBackup(PathBuf);

/// Replaces a directory by a copy of another one.
fn replace(target: &PathBuf, source: &PathBuf) -> Result<()> {
    if target.exists() {
        std::fs::remove_dir_all(target)?;
    }
    let mut copy = Command::new("cp");
    subprocess::output(copy.arg("--archive").arg(source).arg(target)).map(|_| ())
}

fn data(state: &State) -> PathBuf {
    state.path("etcd")
}

impl Cluster {
    /// Copies etcd's data, in place of an earlier copy of that name. etcd is stopped for a moment.
    ///
    /// # Errors
    /// If etcd does not start again, or its data cannot be copied.
    pub async fn back_up_etcd(&self, name: &str) -> Result<EtcdBackup> {
        let backup = self.state().directory("backup")?.join(name);
        let mut etcd = self.component(Component::Etcd)?;
        etcd.kill_and_wait(Signal::Kill).await?;
        replace(&backup, &data(self.state())).context("copying etcd's data")?;
        etcd.restart().await?;
        Ok(EtcdBackup(backup))
    }

    /// Replaces etcd's data by a copy, and restarts etcd, the API server and all that follows it.
    ///
    /// # Errors
    /// If a component does not start again, or the data cannot be replaced.
    pub async fn restore_etcd(&self, backup: &EtcdBackup) -> Result<()> {
        let mut server = self.component(Component::ApiServer)?;
        let mut etcd = self.component(Component::Etcd)?;
        server.kill_and_wait(Signal::Kill).await?;
        etcd.kill_and_wait(Signal::Kill).await?;
        replace(&data(self.state()), &backup.0).context("restoring etcd's data")?;
        etcd.restart().await?;
        server.restart().await?;
        for component in FOLLOWERS {
            self.component(component)?.restart().await?;
        }
        Ok(())
    }
}
