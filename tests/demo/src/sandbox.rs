//! Where the README's commands run: a directory with the chart and the files that they name, inside
//! the cluster's network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::wait::until;
use testbed::Cluster;

use crate::output;
use crate::readme::{Readme, Section};

/// How long a command that only reads may keep failing.
const SOON: Duration = Duration::from_secs(30);

/// A directory in which the README's commands run.
pub struct Sandbox {
    cluster: Cluster,
    readme: Readme,
    directory: PathBuf,
}

/// How much of a command's output is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// All of it.
    Everything,
    /// How many lines it has.
    LineCount,
}

impl Sandbox {
    /// A sandbox with the chart of this checkout.
    pub fn open(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.scratch("demo")?;
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
        let link = directory.join("charts");
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(&charts, &link)
                .with_context(|| format!("linking {}", charts.display()))?;
        }
        Ok(Self {
            cluster: cluster.clone(),
            readme: Readme::load(),
            directory,
        })
    }

    /// Writes a file for commands to use.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.directory.join(name), content).with_context(|| format!("writing {name}"))
    }

    /// Writes a file that the README shows, with some of its text replaced to fit the demo. Each
    /// text must occur once.
    pub fn write_changed(&self, name: &str, changes: &[(&str, &str)]) -> Result<()> {
        let mut text = self.readme.file(name)?;
        for (original, replacement) in changes {
            let count = text.matches(original).count();
            ensure!(
                count == 1,
                "{name} in README.md contains `{original}` {count} times instead of once"
            );
            text = text.replace(original, replacement);
        }
        self.write(name, text)
    }

    /// Runs all commands of a section.
    pub async fn follow(&self, section: Section, show: Show) -> Result<()> {
        for line in self.readme.commands(section)? {
            self.run(&line, show)
                .await
                .with_context(|| format!("README.md, {:?}", section.heading()))?;
        }
        Ok(())
    }

    /// Prints a command, runs it, and prints its output.
    pub async fn run(&self, line: &str, show: Show) -> Result<()> {
        output::command(line);
        // A Service leads to a Pod only a moment after the Pod is ready.
        let stdout = if line.starts_with("kubectl get ") {
            let what = format!("`{line}` succeeds");
            until(&what, SOON, async || self.capture(line).await).await?
        } else {
            self.capture(line).await?
        };
        match show {
            Show::Everything => output::text(stdout.trim_end()),
            Show::LineCount => {
                ensure!(!stdout.trim().is_empty(), "`{line}` printed nothing");
                output::text(&format!("({} lines)", stdout.lines().count()));
            }
        }
        Ok(())
    }

    /// Runs a command and returns its output.
    pub async fn capture(&self, line: &str) -> Result<String> {
        let output = self
            .cluster
            .shell(line)
            .current_dir(&self.directory)
            .output()
            .await
            .context("starting bash")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{line}` failed: {}",
            stderr.trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
