//! Proof of the life of a payment: one gate process, concurrent copies of one payment, and a restart
//! between any two steps.
//!
//! | module | what it owns |
//! |---|---|
//! | [`core`] | the functions of the shipped core, each of which a variant may replace |
//! | [`variants`] | broken variants of core and shell, and the property that refutes each |
//! | [`bounds`] | which facilitator, flow and faults a search has, and what is known to be violated |
//! | [`properties`] | what must hold |
//! | [`world`] | the process, its shell, the facilitator, the token, the buyer and the clock |
//! | [`check`] | the search through all schedules |
//!
//! `world/shell.rs` and `world/settlement.rs` follow `src/gate/serve/purchase.rs`,
//! `src/gate/serve/settlement.rs` and `src/gate/claims.rs`: whatever runs there without waiting is one
//! step here.

pub mod bounds;
pub mod check;
pub mod core;
pub mod properties;
pub mod variants;
pub mod world;
