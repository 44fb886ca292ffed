//! The `testbed` command: arguments in, exit codes and a few lines of text out.
//!
//! Exit codes: 0 done, 1 failed, 3 `status` of a testbed that is not up or not healthy; `exec`, `kubectl`, `helm` and `run` pass
//! on the code of the command they run. What the subcommands do is in `testbed` and `run`.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::name::{self, Name};
use crate::node::Condition;
use crate::state::State;
use crate::testbed::{Line, Testbed};
use crate::{image, init, interrupt, run, tools};

const NOT_HEALTHY: u8 = 3;

/// A real one-node Kubernetes cluster in namespaces of its own, for tests and for trying things out.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which testbed; the default is one that belongs to this checkout.
    #[arg(long, global = true, env = name::VARIABLE)]
    name: Option<Name>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts the cluster, unless it is up and healthy.
    Up,
    /// Removes the cluster and everything it left.
    Down,
    /// Shows every component; exit code 3 if the cluster is not up or not healthy.
    Status,
    /// Runs a command in the cluster's network, with KUBECONFIG set and helm and kubectl in PATH.
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
    /// Puts the images of a docker-archive on the node.
    Load {
        /// The archive.
        image: PathBuf,
    },
    /// Builds the image of a Dockerfile, and prints the docker-archive that holds it.
    Build {
        /// Name and tag of the image.
        #[arg(long)]
        tag: String,
        /// Replaces a stage of the Dockerfile with a directory, as NAME=DIRECTORY.
        #[arg(long, value_parser = stage)]
        stage: Vec<(String, PathBuf)>,
        /// The directory of the Dockerfile.
        context: PathBuf,
    },
    /// Installs Debian packages, downloads tools and builds the cluster's programs, where something is missing.
    Deps {
        /// Prints the tools' directories, to be put in front of PATH.
        #[arg(long)]
        print_path: bool,
    },
    /// Starts the cluster, runs a command, and removes the cluster whatever happens.
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
    /// The process that cleans up after a killed `run`.
    #[command(hide = true)]
    Guard,
}

/// Reads the command line and carries it out.
pub fn main() -> ExitCode {
    match carry_out(Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(Arguments { name, action }: Arguments) -> Result<u8> {
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
        Action::Deps { print_path } => {
            interrupt::listen()?;
            testbed.install()?;
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
    let (name, directory) = text.split_once('=').ok_or("write NAME=DIRECTORY")?;
    Ok((name.to_owned(), PathBuf::from(directory)))
}

/// Becomes the command, so that signals and the exit code need no passing on.
fn exec(testbed: &Testbed, command: &[String]) -> Result<Infallible> {
    Err(testbed.command_in_network(command)?.exec()).context("cannot run nsenter")
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
    for Line {
        component,
        condition,
        pid,
        resident,
    } in &lines
    {
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        println!(
            "{:<24} {condition:<10} {pid:>8} {:>5} MB",
            component.name(),
            resident >> 20
        );
    }
    let healthy = lines
        .iter()
        .all(|line| line.condition == Condition::Healthy);
    Ok(if healthy { 0 } else { NOT_HEALTHY })
}
