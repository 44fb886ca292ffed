//! Tests that start, break and remove separate testbeds, so that no other test is affected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod host_snapshot;
mod lifecycle;
mod outage;
mod own_testbed;
