//! `make bench-scale`: measures the operator with many offers and registrations, beside a
//! controller-runtime reconciler, on the running testbed.
//!
//! Both are bare processes, one at a time, on one API server. [`mod@bench`] is the sequence of
//! measurements; [`serving`] requests documents, [`report`] compares the results with their targets,
//! and [`plot`] draws them. It exits with 1 if a target is missed.

mod bench;
mod plot;
mod report;
mod serving;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use testbed::Name;

/// Measures the operator with many offers and registrations, beside a controller-runtime reconciler.
#[derive(Clone, Copy, Debug, Parser, Serialize)]
pub struct Plan {
    /// Offers without a registration
    #[arg(long, env = "OFFERS", default_value_t = 10_000, value_parser = at_least_20)]
    pub offers: usize,
    /// Offers that are registered after that
    #[arg(long, env = "REGISTRATIONS", default_value_t = 4_000, value_parser = at_least_20)]
    pub registrations: usize,
    /// Changes of offers over which the processor time per change is measured
    #[arg(long, env = "CHANGES", default_value_t = 1_000, value_parser = at_least_20)]
    pub changes: usize,
    /// Transactions in flight per signer
    #[arg(long, env = "MAX_IN_FLIGHT", default_value_t = 64)]
    pub max_in_flight: u16,
    /// Seconds for which each document is requested
    #[arg(long, env = "SERVE_SECONDS", default_value_t = 30)]
    pub serve_seconds: usize,
}

impl Plan {
    /// Whether it measures what the documentation reports.
    pub const fn is_full(&self) -> bool {
        self.offers >= 10_000 && self.registrations >= 4_000 && self.changes >= 1_000
    }

    /// The smaller number of offers at which changes are measured.
    pub const fn few_offers(&self) -> usize {
        self.offers / 10
    }

    /// Offers that are registered before the registration rate is measured.
    pub const fn first_registrations(&self) -> usize {
        let tenth = self.registrations / 10;
        if tenth < 100 { tenth } else { 100 }
    }

    /// Registrations over which a rate is measured.
    pub const fn wave(&self) -> usize {
        self.registrations / 10
    }
}

fn at_least_20(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= 20 => Ok(count),
        _ => Err("at least 20".to_owned()),
    }
}

fn main() -> Result<ExitCode> {
    let plan = Plan::parse();
    testbed::enter(Name::current()?, async |cluster| {
        bench::run(&cluster, plan).await
    })?
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_accepts_the_definition_of_the_flags() {
        Plan::command().debug_assert();
    }

    #[test]
    fn waves_fit_into_the_registrations() {
        for registrations in [20, 100, 999, 4_000, 20_000] {
            let plan = Plan {
                offers: 20,
                registrations,
                changes: 20,
                max_in_flight: 64,
                serve_seconds: 1,
            };
            assert!(plan.first_registrations() > 0 && plan.wave() > 0);
            assert!(plan.first_registrations() + 2 * plan.wave() < registrations);
        }
    }
}
