//! `make demo`: the main job, shown on a real node and counted on the chain.
//!
//! [`story`] is what happens, step by step; [`summary`] decides whether the numbers hold. The operator is installed and used
//! with the commands of the README ([`manual`], [`workplace`]).

mod chain;
mod manual;
mod offers;
mod release;
mod screen;
mod story;
mod summary;
mod workplace;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testbed::Name;

use crate::screen::{Screen, say};
use crate::summary::Summary;

fn main() -> ExitCode {
    match play() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!(
                "error: {error:#}\nThe cluster is left as it is: `make demo` starts over, `make demo-down` removes it."
            );
            ExitCode::FAILURE
        }
    }
}

/// Plays the demo, and says whether the numbers held.
fn play() -> Result<bool> {
    let begun = Instant::now();
    // Clients of the API server and of Pods share one TLS library; another default can only be the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut screen = Screen::default();
    screen.shown("A Kubernetes node", start_testbed)?;
    let summary = testbed::enter(Name::current()?, async |cluster| {
        story::play(&cluster, screen).await
    })??;
    let file = write(&summary)?;
    let broken = summary.broken();
    story::show_verdict(&summary, &broken);
    say(&format!(
        "\nAll of it took {:.0} s; the numbers are in {file}.",
        begun.elapsed().as_secs_f64()
    ));
    story::show_where_to_look();
    Ok(broken.is_empty())
}

/// Starts the node with the `testbed` command, which is built beside this one and shows its own progress.
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
