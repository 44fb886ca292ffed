//! Whole flows on real parts: a real API server, kubelet, Helm and EVM node, and the image that users build.
//!
//! One file per flow. What they are played on:
//! - [`stage`] makes the cluster as if nothing had ever been installed, and is where a flow begins
//! - [`chain`] is an EVM node of the flow's own, with an identity registry on it
//! - [`release`] is the operator, as `helm install` puts it there
//! - [`faults`] does without its Pods: candidates are bare processes there, and faults are injected into them
//! - [`objects`] makes offers and registries; [`tally`] counts what came of it
//!
//! Flows share one cluster and take turns; they need `make testbed-up` and `make image`, which `make test` does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

mod chain;
mod objects;
mod release;
mod stage;
mod tally;

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
mod shutdown;
mod tenancy;
mod undecodable;
