//! Proof of the election core: every schedule within bounds, and thousands beyond them at random.
//!
//! | module | what it owns |
//! |---|---|
//! | [`core`] | the shipped core, word for word, and its broken variants |
//! | [`variants`] | the flaw of each variant, and the invariant that must refute it |
//! | [`bounds`] | what the adversary may do |
//! | [`world`] | the Lease, the network, processes, clocks, and the invariants |
//! | [`check`] | the search through all schedules |
//! | [`simulation`] | random schedules |

pub mod bounds;
pub mod check;
pub mod core;
pub mod simulation;
pub mod variants;
pub mod world;
