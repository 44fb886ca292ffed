//! The ledger.
pub mod evidence;
pub mod freeze;
pub mod index;
pub mod money;
pub mod protocol;
