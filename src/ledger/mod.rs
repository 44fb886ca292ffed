//! The ledger: gives each registration one nonce, so that it can be included once and no more.
//!
//! - [`protocol`] decides (pure): START HERE for why nothing is registered twice
//! - [`freeze`] is what it does not resolve by itself, and says so
//! - [`evidence`] and [`index`] are what it decides on besides the stored objects (pure)
//! - [`money`] decides what may be spent (pure)
//! - [`store`] reads and writes ledgers and records, in the order that the protocol needs
//! - [`sender`] signs what was bound and sends what was stored
//!
//! Safety rests on compare-and-swap, on durable writes, and on an account using a nonce once: not on who leads, not on
//! clocks, not on the honesty of an RPC endpoint. Who leads decides only who does the work.

pub(crate) mod evidence;
pub(crate) mod freeze;
pub(crate) mod index;
pub(crate) mod money;
pub(crate) mod protocol;
pub(crate) mod sender;
pub(crate) mod store;

#[cfg(test)]
pub(crate) mod fixtures;

pub(crate) use freeze::Freeze;
pub(crate) use store::{BoundNonce, ReadLedger, Store};
