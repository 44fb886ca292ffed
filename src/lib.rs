//! Kubernetes operator that turns ServiceOffers into x402 payment-gated routes and ERC-8004 registrations.

pub mod api;
pub mod leader;
