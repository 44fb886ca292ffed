//! Holds the double to what is known of the deployed ERC-8004 Identity Registry, version 2.0.0: first its ABI against
//! pinned values, then its behaviour on a chain.
//!
//! Each module is one face of it; the means they share are in `chain`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abi;
mod chain;
mod deployment;
mod metadata;
mod permission;
mod proxy;
mod registration;
mod transfer;
mod wallet;
