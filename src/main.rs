//! The binary: parses the flags and runs [`serviceoffer::app`], or the command that replaces it.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use serviceoffer::app::{self, ExitReason};
use serviceoffer::cli::{Cli, Command, GateArgs, RunArgs};
use serviceoffer::telemetry;
use tikv_jemallocator::Jemalloc;

/// Gives back within seconds what a list of thousands of objects took, which glibc keeps.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> Result<ExitCode> {
    // Two HTTP clients share rustls. With two crypto providers compiled in, it needs one selected.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Cli { command, run } = Cli::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    match command {
        Some(Command::Probe { urls }) => runtime.block_on(probe(urls)),
        Some(Command::Gate(args)) => runtime.block_on(run_gate(*args)),
        None => runtime.block_on(run_operator(run)),
    }
}

async fn run_operator(args: RunArgs) -> Result<ExitCode> {
    args.validate()?;
    let filter = telemetry::init(&args.process.log_level, args.process.log_format)?;
    Ok(exit_code(app::run(args, filter).await?))
}

async fn run_gate(args: GateArgs) -> Result<ExitCode> {
    let filter = telemetry::init(&args.process.log_level, args.process.log_format)?;
    Ok(exit_code(app::gate::run(args, filter).await?))
}

fn exit_code(reason: ExitReason) -> ExitCode {
    match reason {
        ExitReason::Requested => ExitCode::SUCCESS,
        ExitReason::Failed => ExitCode::FAILURE,
    }
}

async fn probe(urls: Vec<String>) -> Result<ExitCode> {
    let client = reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(10))
        .build()?;
    for url in urls {
        let status = client.get(&url).send().await?.status();
        println!("{status} {url}");
        if status != reqwest::StatusCode::OK {
            bail!("{url} answered {status}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
