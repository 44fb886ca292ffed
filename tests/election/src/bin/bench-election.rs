//! `make bench-election`: measures the operator's elector against others, on the testbed that is up.

use anyhow::Result;
use clap::Parser;
use election::bench::{self, BenchPlan};
use testbed::Name;

/// Measures the operator's elector side by side with client-go's and with controller-runtime's manager.
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
    /// Minutes in which idle candidates are looked at
    #[arg(long, default_value_t = BenchPlan::FULL.minutes)]
    minutes: usize,
    /// The most samples of anything, for a short run
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
