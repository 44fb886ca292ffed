//! Checks that the double matches the deployed ERC-8004 Identity Registry, version 2.0.0: its ABI
//! against pinned values, and its behavior on a chain.
//!
//! Each module covers one part of the contract; `chain` is their fixture.

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
