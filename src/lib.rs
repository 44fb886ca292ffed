//! Kubernetes operator that turns ServiceOffers into x402 payment-gated routes and ERC-8004 registrations.

pub mod api;
pub mod chain;
pub mod leader;
pub mod ledger;
pub mod metrics;
pub mod registration;
