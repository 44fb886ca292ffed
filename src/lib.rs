//! Kubernetes operator that turns ServiceOffers into ERC-8004 registrations, exactly once, at any number of replicas.
//!
//! # Map
//! | Room | What it owns | Touches the world in |
//! |---|---|---|
//! | [`reconcile`] | START HERE: the two loops, `observe`, `plan`, `apply` | `observe`, `apply` |
//! | [`ledger`] | one nonce for each registration: the exactly-once protocol, money, evidence | `store`, `sender` |
//! | [`leader`] | who may write: election, fence, drain | `elector` |
//! | [`chain`] | an EVM chain and the identity registry on it | `rpc` |
//! | [`cluster`] | the API server: cache, reads, writes with proof of leadership | all of it |
//! | [`registration`] | what an offer means: identity, standing, document | nowhere |
//! | [`http`] | documents for the public, the admin port | both |
//! | [`api`] | the four kinds and their rules | nowhere |
//! | [`health`], [`metrics`], [`telemetry`] | what the process tells of itself | |
//! | [`cli`], [`app`] | flags, and how everything is put together and ended | `app` |
//!
//! # Flow
//! Watches fill the `cluster` cache on every replica, and documents are served from it. Whoever leads runs the loops: the
//! registry loop enrols offers as records, gives each a nonce by compare-and-swap on its signer's ledger, signs what it read
//! back, stores what it signed, sends what it stored, and records what became final; the offer loop tells people.
//!
//! # Rules
//! What decides takes values and returns values, with the time passed in; what awaits only gathers or carries out. No write
//! compiles without a [`leader::Leading`]. Dependencies point down the list `app`, `http`, `reconcile`, `ledger`,
//! `registration`, `cluster`, `chain`, `leader`, and then `cli`, `health`, `metrics`, `telemetry`, `api`. Tests hold all of this
//! (`tests/architecture.rs`).

pub mod api;
pub mod app;
pub mod chain;
pub mod cli;
pub mod cluster;
pub mod health;
pub mod http;
pub mod leader;
pub mod ledger;
pub mod metrics;
pub mod reconcile;
pub mod registration;
pub mod telemetry;
