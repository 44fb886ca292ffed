//! The ERC-8004 Identity Registry of the tests: a double of the deployed contract, its bindings, and what a test of an
//! operator asks it.
//!
//! The double is `solidity/IdentityRegistry.sol`; `tests/registry` holds it to what is known of the real one. This crate
//! puts it on a chain and reads its events; it starts no chain (`testbed::anvil` does) and keeps no keys.
//! Bindings are in [`abi`], the compiled code in [`artifact`].

pub mod abi;
pub mod artifact;
mod deployment;
mod registration;

pub use deployment::{deploy, included};
pub use registration::{Registered, registered_events};
