//! The command line of `testbed`: parses arguments, prints results, and sets the exit code.
//!
//! Exit codes: 0 success, 1 failure, 3 `status` of a testbed that is not up or not healthy. `exec`,
//! `kubectl`, `helm` and `run` return the exit code of the command that they run. The subcommands
//! are implemented in `testbed` and `run`.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::name::{self, Name};
use crate::node::Health;
use crate::progress::{Detail, Progress};
use crate::state::State;
use crate::testbed::{ComponentStatus, Testbed};
use crate::{image, init, interrupt, packages, run, tools};

const NOT_HEALTHY: u8 = 3;

/// Runs a real one-node Kubernetes cluster in separate Linux namespaces, for tests and experiments.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Name of the testbed. Default: derived from the path of this checkout.
    #[arg(long, global = true, env = name::VARIABLE)]
    name: Option<Name>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts the cluster, unless it is already up and healthy.
    Up,
    /// Removes the cluster and all its files.
    Down,
    /// Shows the health of every component. Exits with 3 if the cluster is not up or not healthy.
    Status,
    /// Runs a command in the cluster's network, with KUBECONFIG set, and helm and kubectl in PATH.
    Exec {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Runs kubectl against the cluster.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// kubectl's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs helm against the cluster.
    #[command(disable_help_flag = true)]
    Helm {
        /// helm's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Loads the images of a docker-archive into the node.
    Load {
        /// The archive file.
        image: PathBuf,
    },
    /// Builds an image from a Dockerfile, and prints the path of its docker-archive.
    Build {
        /// Name and tag of the image.
        #[arg(long)]
        tag: String,
        /// Replaces a stage of the Dockerfile by a directory, as NAME=DIRECTORY.
        #[arg(long, value_parser = stage)]
        stage: Vec<(String, PathBuf)>,
        /// The directory with the Dockerfile.
        context: PathBuf,
    },
    /// Installs missing Debian packages, downloads missing tools, and builds missing programs of
    /// the cluster.
    Deps {
        /// Prints the directories of the tools, to prepend to PATH.
        #[arg(long)]
        print_path: bool,
        /// Builds Traefik as well.
        #[arg(long)]
        traefik: bool,
        /// Installs Chromium as well.
        #[arg(long)]
        chromium: bool,
    },
    /// Starts the cluster, runs a command, and always removes the cluster afterwards.
    Run {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// The first process of the cluster's namespaces.
    #[command(hide = true)]
    Init {
        #[arg(long)]
        cache: PathBuf,
    },
    /// The process that cleans up after a `run` that was killed.
    #[command(hide = true)]
    Guard,
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    match run_action(Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_action(Arguments { name, action }: Arguments) -> Result<u8> {
    let name = name.map_or_else(Name::current, Ok)?;
    let testbed = Testbed::of(name.clone());
    match action {
        Action::Up => {
            interrupt::listen()?;
            testbed.up()?;
        }
        Action::Down => testbed.down()?,
        Action::Status => return status(&testbed),
        Action::Exec { command } => match exec(&testbed, &command)? {},
        Action::Kubectl { arguments } => {
            match exec(&testbed, &[vec!["kubectl".to_owned()], arguments].concat())? {}
        }
        Action::Helm { arguments } => {
            match exec(&testbed, &[vec!["helm".to_owned()], arguments].concat())? {}
        }
        Action::Load { image } => testbed.load(&image)?,
        Action::Build {
            tag,
            stage,
            context,
        } => {
            let stages: Vec<_> = stage
                .iter()
                .map(|(name, directory)| (name.as_str(), directory.as_path()))
                .collect();
            println!("{}", image::build(&context, &stages, &tag)?.display());
        }
        Action::Deps {
            print_path,
            traefik,
            chromium,
        } => {
            interrupt::listen()?;
            testbed.install()?;
            if traefik {
                tools::traefik()?;
            }
            if chromium {
                packages::install_chromium(&Progress::new(Detail::Changes))?;
            }
            if print_path {
                println!("{}", tools::path(&Cache::open()?)?);
            }
        }
        Action::Run { command } => {
            interrupt::listen()?;
            return run::run(&testbed, &command);
        }
        Action::Init { cache } => match init::run(&State::of(name), &cache)? {},
        Action::Guard => run::guard(&testbed)?,
    }
    Ok(0)
}

fn stage(text: &str) -> Result<(String, PathBuf), String> {
    let (name, directory) = text.split_once('=').ok_or("expected NAME=DIRECTORY")?;
    Ok((name.to_owned(), PathBuf::from(directory)))
}

/// Replaces this process by the command, so that it receives signals and sets the exit code itself.
fn exec(testbed: &Testbed, command: &[String]) -> Result<Infallible> {
    Err(testbed.command_in_network(command)?.exec()).context("failed to run nsenter")
}

fn status(testbed: &Testbed) -> Result<u8> {
    let Some(lines) = testbed.status()? else {
        println!("testbed {} is not up", testbed.name());
        return Ok(NOT_HEALTHY);
    };
    println!(
        "{:<24} {:<10} {:>8} {:>8}",
        testbed.name(),
        "STATE",
        "PID",
        "RSS"
    );
    for ComponentStatus {
        component,
        health,
        pid,
        resident,
    } in &lines
    {
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        println!(
            "{:<24} {health:<10} {pid:>8} {:>5} MB",
            component.name(),
            resident >> 20
        );
    }
    let healthy = lines.iter().all(|line| line.health == Health::Healthy);
    Ok(if healthy { 0 } else { NOT_HEALTHY })
}
