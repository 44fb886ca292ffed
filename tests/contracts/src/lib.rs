//! The ERC-8004 Identity Registry for tests: a double of the deployed contract, its bindings and
//! its deployment.
//!
//! The double is `solidity/IdentityRegistry.sol`; `tests/registry` checks that it behaves like the
//! deployed contract. This crate deploys it and reads its events. It starts no chain
//! (`testbed::anvil` does) and holds no keys. See [`abi`] for the bindings and [`artifact`] for the
//! compiled code.

pub mod abi;
pub mod artifact;
mod deployment;
mod registration;

pub use deployment::{deploy, included};
pub use registration::{Registered, registered_events};
