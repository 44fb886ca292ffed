//! Proof of the ledger core: every schedule within bounds.
//!
//! | module | what it owns |
//! |---|---|
//! | [`cores`] | the shipped core, and its broken variants |
//! | [`variants`], [`flaws`] | the flaw of each variant, and what must refute it |
//! | [`view`] | what a replica reads and what it does, in the real types |
//! | [`cast`] | the accounts, keys and agents of every world |
//! | [`admission`] | the rules of the API server |
//! | [`bounds`] | what the adversary may do |
//! | [`world`] | replicas, objects, chain, adversary, and the invariants |
//! | [`check`] | what is searched for the shipped core, and for a variant |
//! | [`search`] | the search through all schedules, and the one for states that cannot recover |
//!
//! `pass.rs` is the shell around a core. It is compiled once per core.

mod admission;
pub mod bounds;
mod cast;
pub mod check;
mod cores;
pub mod flaws;
pub mod search;
pub mod variants;
mod view;
mod world;
