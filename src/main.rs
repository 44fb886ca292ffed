//! The binary: reads the command line and hands over to [`serviceoffer::app`].

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use serviceoffer::app::{self, ExitReason};
use serviceoffer::cli::{Cli, Command, RunArgs};
use serviceoffer::telemetry;

fn main() -> Result<ExitCode> {
    // Two HTTP clients share one TLS library; with two providers at hand it must be told which to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Cli { command, run } = Cli::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    match command {
        Some(Command::Probe { urls }) => runtime.block_on(probe(urls)),
        None => runtime.block_on(operate(run)),
    }
}

async fn operate(run: RunArgs) -> Result<ExitCode> {
    run.validate()?;
    let filter = telemetry::init(&run.log_level, run.log_format)?;
    Ok(match app::run(run, filter).await? {
        ExitReason::Requested => ExitCode::SUCCESS,
        ExitReason::Failed => ExitCode::FAILURE,
    })
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
