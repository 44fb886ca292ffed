//! Tests that start, break and remove testbeds of their own, so that nobody else's is disturbed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod host;
mod lifecycle;
mod outage;
mod own;
