//! Where the README's commands are run: a directory with the chart and the files that they name, inside the cluster's network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::wait::until;
use testbed::Cluster;

use crate::manual::{Chapter, Manual};
use crate::screen;

/// How long a command that only reads may fail.
const SOON: Duration = Duration::from_secs(30);

/// A directory to run commands in.
pub struct Workplace {
    cluster: Cluster,
    manual: Manual,
    directory: PathBuf,
}

/// Whether what a command says is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As it is.
    Shown,
    /// Not: it is long, and of use to whoever asks for it.
    Hidden,
}

impl Workplace {
    /// A workplace with the chart of this checkout.
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
            manual: Manual::readme(),
            directory,
        })
    }

    /// Writes a file that commands name.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.directory.join(name), content).with_context(|| format!("writing {name}"))
    }

    /// Writes a file of the manual, with some of its text replaced by what fits this place.
    ///
    /// # Errors
    /// If the manual does not hold each of those texts once.
    pub fn write_changed(&self, name: &str, changes: &[(&str, &str)]) -> Result<()> {
        let mut text = self.manual.file(name)?;
        for (stated, fitting) in changes {
            let count = text.matches(stated).count();
            ensure!(
                count == 1,
                "{name} in README.md holds `{stated}` {count} times: the demo replaces one"
            );
            text = text.replace(stated, fitting);
        }
        self.write(name, text)
    }

    /// Runs all commands of a chapter.
    pub async fn follow(&self, chapter: Chapter, answer: Answer) -> Result<()> {
        for line in self.manual.commands(chapter)? {
            self.run(&line, answer)
                .await
                .with_context(|| format!("README.md, {:?}", chapter.heading()))?;
        }
        Ok(())
    }

    /// Runs a command and shows it.
    pub async fn run(&self, line: &str, answer: Answer) -> Result<()> {
        screen::command(line);
        // A Service leads to a Pod a moment after the Pod is ready.
        let said = match line.starts_with("kubectl get ") {
            true => {
                until(&format!("`{line}` succeeds"), SOON, async || {
                    self.ask(line).await
                })
                .await?
            }
            false => self.ask(line).await?,
        };
        match answer {
            Answer::Shown => screen::output(said.trim_end()),
            Answer::Hidden => {
                ensure!(!said.trim().is_empty(), "`{line}` said nothing");
                screen::output(&format!("({} lines)", said.lines().count()));
            }
        }
        Ok(())
    }

    /// Runs a command, and returns what it says.
    pub async fn ask(&self, line: &str) -> Result<String> {
        let output = self
            .cluster
            .shell(line)
            .current_dir(&self.directory)
            .output()
            .await
            .context("cannot run bash")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{line}` failed: {}",
            complaint.trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
