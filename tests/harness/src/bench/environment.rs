//! What was measured, and on which machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;
use testbed::Cluster;

/// What was measured, and on which machine.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Commit of this checkout, marked if there are local changes.
    pub commit: String,
    /// The operator's binary.
    pub binary: String,
    /// Version of the API server, and of client-go.
    pub kubernetes: String,
    /// The processor.
    pub processor: String,
    /// Number of processors.
    pub processors: usize,
    /// Memory in megabytes.
    pub memory: u64,
    /// Version of the kernel.
    pub kernel: String,
}

impl Environment {
    /// Reads it, for a binary of the checkout in `root`.
    ///
    /// # Errors
    /// If the API server does not answer, or the machine does not describe itself.
    pub async fn read(cluster: &Cluster, root: &Path, binary: &Path) -> Result<Self> {
        let version = cluster.client().apiserver_version().await?;
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let field = |text: &str, name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.split_once(':')
                .map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let kibibytes: u64 = field(&memory, "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0);
        let git = Command::new("git")
            .args(["describe", "--always", "--dirty", "--abbrev=12"])
            .current_dir(root)
            .output();
        let commit = git
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default();
        // Reported relative to the checkout, which makes it the same on every machine.
        let root = root.canonicalize().context("the checkout")?;
        let binary = binary.strip_prefix(&root).unwrap_or(binary);
        Ok(Self {
            commit,
            binary: binary.display().to_string(),
            kubernetes: version.git_version,
            processor: field(&cpu, "model name"),
            processors: std::thread::available_parallelism()?.get(),
            memory: kibibytes / 1000,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
        })
    }
}
