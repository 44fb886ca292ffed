//! Proof of the cores that decide: the election's, whose modules are here, the ledger's in
//! [`mod@ledger`], and that of payments in [`mod@payment`]. Every schedule within bounds is tried, and
//! for the election thousands beyond them at random.
//!
//! | module | what it owns |
//! |---|---|
//! | [`core`] | the shipped core, word for word, and its broken variants |
//! | [`variants`] | the flaw of each variant, and the invariant that must refute it |
//! | [`bounds`] | what the adversary may do |
//! | [`world`] | the Lease, the network, processes, clocks, and the invariants |
//! | [`check`] | the search through all schedules |
//! | [`simulation`] | random schedules |
//! | [`table`] | how the searches of ledger and payments are run and printed |
//! | [`mod@ledger`] | the same for the ledger: its own world, invariants, search and variants |
//! | [`mod@payment`] | the same for the gate's payments |

pub mod bounds;
pub mod check;
pub mod core;
pub mod ledger;
pub mod payment;
pub mod simulation;
pub mod table;
pub mod variants;
pub mod world;
