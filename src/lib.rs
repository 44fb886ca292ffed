//! Kubernetes operator that turns ServiceOffers into x402 payment-gated routes and ERC-8004
//! registrations, exactly once, with any number of replicas.
//!
//! # Map
//! | Room | What it owns | I/O |
//! |---|---|---|
//! | [`reconcile`] | START HERE: the three loops, each `observe`, `plan`, `apply` | `observe`, `apply` |
//! | [`gate`] | the payment gate: a reverse proxy that sells what offers describe | `serve`, `proxy`, `facilitator` |
//! | [`ledger`] | exactly-once registration: nonces, attempts, evidence, freezes, budget | `store`, `sender` |
//! | [`leader`] | who may write: election, fence, drain | `elector` |
//! | [`chain`] | an EVM chain and its identity registry contract: RPC, ABI, transactions | `rpc`, `transport` |
//! | [`cluster`] | the Kubernetes API: clients, cache, reads, writes with proof of leadership | all |
//! | [`registration`] | what an offer asks for: one view of it, identity, eligibility, document | none |
//! | [`http`] | public documents, and the admin port | all |
//! | [`api`] | the five kinds and their validation rules | none |
//! | [`health`], [`metrics`], [`telemetry`] | probes, Prometheus metrics, logs | |
//! | [`cli`], [`app`] | flags; how the process is built, started and stopped | `app` |
//!
//! `docs/architecture.md` follows one offer through these rooms. `docs/glossary.md` defines every
//! term.
//!
//! # Flow
//! On every replica, watches fill the `cluster` cache, and documents are served from it. The leader
//! runs the loops. The registry loop writes a record for each offer, allocates a nonce to each
//! record by compare-and-swap on its signer's ledger, signs what it read back, stores what it
//! signed, sends what it stored, and records what became final. The offer loop reports the result
//! in the status of each offer.
//!
//! # Rules
//! Code that decides is pure: it takes values, including the time, and returns values. Code that
//! awaits only gathers them or carries them out. No write compiles without a [`leader::Leading`].
//! Dependencies point down the list `app`, `reconcile`, `gate`, `ledger`, `http`, `registration`,
//! `cluster`, `chain`, `leader`, and then `cli`, `health`, `metrics`, `telemetry`, `api`.
//! `tests/architecture.rs` enforces all of this, and `tests/language.rs` the words.

pub mod api;
pub mod app;
#[allow(
    missing_docs,
    reason = "a private room: `decisions` shows parts of it to the model"
)]
mod chain;
pub mod cli;
pub mod cluster;
#[allow(
    missing_docs,
    reason = "a private room: `decisions` shows parts of it to the model"
)]
mod gate;
mod health;
mod http;
pub mod leader;
#[allow(
    missing_docs,
    reason = "a private room: `decisions` shows parts of it to the model"
)]
mod ledger;
mod metrics;
#[allow(
    missing_docs,
    reason = "a private room: `decisions` shows parts of it to the model"
)]
mod reconcile;
mod registration;
pub mod telemetry;

/// What `tests/model` drives through every schedule: the decisions of the ledger and of payments, and
/// the values that they take and return. Nothing else may use it.
#[doc(hidden)]
pub mod decisions {
    pub use crate::chain::key::read_key;
    pub use crate::chain::{
        Block, FeeMarket, Fees, LogPage, OnChainAgent, Receipt, RegisteredEvent, RpcError,
        TransactionCounts, TransactionSigner,
    };
    pub use crate::cluster::Lenient;
    pub use crate::gate::{Settlement, payment};
    pub use crate::ledger::{
        Freeze, ReadLedger, evidence, filler, foreign, index, money, protocol, registrants,
        rollback, sender, sweep, unreadable,
    };
    pub use crate::reconcile::registry::ledger::{plan, questions};
}
