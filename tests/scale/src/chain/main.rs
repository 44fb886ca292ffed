//! `make bench-chain`: measures how fast the operator's registrations reach a chain, beside an
//! alloy program that only signs and sends, on the running testbed.
//!
//! Both use one node and one contract, one at a time, with an account each, and have at most the
//! same number of transactions that are in no block. [`mod@bench`] is the sequence of measurements;
//! [`raw`] is the program, [`inclusion`] observes the chain in the same way for both, [`report`]
//! compares the results with their targets, and [`plot`] draws them. It exits with 1 if a target is
//! missed.

mod bench;
mod inclusion;
mod plot;
mod raw;
mod report;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use testbed::Name;

/// Transactions that may be in no block: the operator's default, and its maximum.
pub const WINDOWS: [u16; 2] = [16, 64];

/// Measures how fast registrations reach a chain, beside an alloy program that only signs and sends.
#[derive(Clone, Copy, Debug, Parser, Serialize)]
pub struct Plan {
    /// Registrations of each contender with each window
    #[arg(long, env = "REGISTRATIONS", default_value_t = 300, value_parser = clap::value_parser!(u16).range(130..))]
    pub registrations: u16,
    /// Seconds between two blocks; Ethereum has 12
    #[arg(long, env = "BLOCK_SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    pub block_seconds: u16,
}

impl Plan {
    /// Whether it measures what the documentation reports.
    pub const fn is_full(self) -> bool {
        self.registrations >= 300 && self.block_seconds == 12
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
    fn registrations_fill_more_than_two_of_the_largest_windows() {
        let least = Plan::try_parse_from(["bench-chain", "--registrations=130"]).unwrap();
        assert!(
            WINDOWS
                .iter()
                .all(|window| least.registrations > 2 * window)
        );
        assert!(Plan::try_parse_from(["bench-chain", "--registrations=129"]).is_err());
    }
}
