//! Whole flows on real parts: a real API server, kubelet, Helm and EVM node, and the image that
//! users build.
//!
//! One file per flow. A flow begins in a [`fixture::TestEnv`]: a cluster as if nothing had ever
//! been installed. It creates offers and registries with [`objects`] and ends with [`assertions`]
//! on what chain, records, ledger and status say. How the operator, the chain and waiting work is
//! in the crate `harness`. [`faults`] runs candidates as bare processes and injects faults into
//! them; [`world`] puts a proxy that fails on request before the chain; [`admission`] needs the
//! CRDs alone, and [`definitions`] changes them.
//!
//! Flows share one cluster and take turns; they need `make testbed-up` and `make image`, which
//! `make test` runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

mod assertions;
mod definitions;
mod fixture;
mod objects;

mod admission;
mod contention;
mod documents;
mod election;
mod failover;
mod faults;
mod install;
mod once;
mod outage;
mod registration;
mod rights;
mod rollout;
mod sale;
mod shutdown;
mod skew;
mod tenancy;
mod undecodable;
mod world;
