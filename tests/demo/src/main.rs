//! `make demo`: the main job, shown on a real node and counted on the chain.
//!
//! [`scenario`] is what happens, step by step; [`summary`] decides whether the numbers are as
//! promised. The operator is installed and used with the commands of the README ([`readme`],
//! [`sandbox`]).

mod chain;
mod offers;
mod output;
mod readme;
mod replicas;
mod sale;
mod sandbox;
mod scenario;
mod summary;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testbed::Name;

use crate::output::Steps;
use crate::summary::Summary;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!(
                "error: {error:#}\n\
                 The cluster is still up: `make demo` starts over, `make demo-down` removes it."
            );
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo, and returns whether every promise was kept.
fn run() -> Result<bool> {
    let start = Instant::now();
    // Clients of the API server and of Pods share one TLS library. If there is a default already,
    // it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut steps = Steps::default();
    steps.run_blocking("Start a Kubernetes node", start_testbed)?;
    let summary = testbed::enter(Name::current()?, async |cluster| {
        scenario::run(&cluster, steps).await
    })??;
    let file = write(&summary)?;
    let broken = summary.broken();
    scenario::show_verdict(&summary, &broken);
    let seconds = start.elapsed().as_secs_f64();
    output::line(&format!(
        "\nThe demo took {seconds:.0} s. Its numbers are in {file}."
    ));
    scenario::show_next_steps();
    Ok(broken.is_empty())
}

/// Starts the node with the `testbed` command, which is built beside this program and shows its own
/// progress.
fn start_testbed() -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("testbed");
    let status = Command::new(&program).arg("up").status();
    let status = status.with_context(|| {
        format!(
            "cannot run {}: run `make demo`, which builds it",
            program.display()
        )
    })?;
    ensure!(status.success(), "the node did not start");
    Ok(())
}

fn write(summary: &Summary) -> Result<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/demo");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let file = directory.join("summary.json");
    fs::write(&file, serde_json::to_vec_pretty(summary)?)
        .with_context(|| format!("writing {}", file.display()))?;
    Ok("target/demo/summary.json".to_owned())
}
