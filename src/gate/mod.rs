//! The gate: sells offers. A reverse proxy that asks for a payment, takes it, calls the upstream,
//! settles, and delivers. It has no key, writes nothing to the cluster, and is no leader.
//!
//! What decides is pure:
//! - [`path`]: one canonical view of a path, for matching and for the upstream
//! - [`terms`]: what a buyer is asked to sign; prices in atomic units
//! - [`route`]: patterns of paths, and methods
//! - [`table`]: which offer answers a request, and why one is closed
//! - [`wire`]: the messages of x402, versions 1 and 2
//! - [`check`]: what can be checked of a payment without asking anyone
//! - [`payment`]: the life of a payment
//! - [`limit`], [`headers`], [`health`], [`answer`], [`breaker`], [`page`]: limits, fields, probes of
//!   upstreams, answers and outages of facilitators, pages for people
//! - [`token`]: tokens for facilitators that want one for each request
//!
//! What carries out:
//! - [`keeper`] keeps the table current
//! - [`claims`] keeps what is known of payments
//! - [`facilitator`] calls facilitators
//! - [`chains`] asks chains what became of a payment
//! - [`proxy`] calls upstreams
//! - [`serve`] answers buyers; start reading there
//! - [`report`] tells the operator what is served
//!
//! The gate's process is [`crate::app::gate`]. The operator uses [`table`] to explain in conditions
//! what the gate does.

mod answer;
mod breaker;
pub(crate) mod chains;
pub(crate) mod check;
pub(crate) mod claims;
mod facilitator;
pub(crate) mod headers;
pub(crate) mod health;
pub(crate) mod keeper;
pub(crate) mod limit;
pub(crate) mod page;
pub(crate) mod path;
pub mod payment;
pub(crate) mod proxy;
pub(crate) mod report;
pub(crate) mod route;
pub(crate) mod serve;
pub(crate) mod table;
pub(crate) mod terms;
mod token;
pub(crate) mod wire;

pub use answer::Settlement;
pub(crate) use answer::Supported;
pub(crate) use facilitator::{FacilitatorClient, FacilitatorEndpoint, FacilitatorError};

/// Seconds since the Unix epoch: the time of authorizations and tokens.
pub(crate) fn unix_seconds() -> u64 {
    let now = jiff::Timestamp::now().as_second();
    u64::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests;
