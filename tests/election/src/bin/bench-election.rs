//! `make bench-election`: compares the operator's elector with others, on the running testbed.

use anyhow::Result;
use clap::Parser;
use election::bench::{self, BenchPlan};
use testbed::Name;

/// Compares the operator's elector with client-go's and with controller-runtime's manager.
#[derive(Debug, Parser)]
struct Arguments {
    /// Graceful handovers of each kind
    #[arg(long, default_value_t = BenchPlan::FULL.graceful)]
    graceful: usize,
    /// Crashes of each kind and timing
    #[arg(long, default_value_t = BenchPlan::FULL.crashes)]
    crashes: usize,
    /// Killed containers of each kind
    #[arg(long, default_value_t = BenchPlan::FULL.containers)]
    containers: usize,
    /// Minutes of the idle measurement
    #[arg(long, default_value_t = BenchPlan::FULL.minutes)]
    minutes: usize,
    /// Upper limit of samples per series, for a short run
    #[arg(long, env = "SAMPLES")]
    samples: Option<usize>,
}

fn main() -> Result<()> {
    let Arguments {
        graceful,
        crashes,
        containers,
        minutes,
        samples,
    } = Arguments::parse();
    let most = |count: usize| samples.map_or(count, |samples| count.min(samples));
    let plan = BenchPlan {
        graceful: most(graceful),
        crashes: most(crashes),
        containers: most(containers),
        minutes,
    };
    testbed::enter(Name::current()?, async |cluster| {
        bench::run(cluster, plan).await
    })?
}
