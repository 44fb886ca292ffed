//! The ledger: allocates one nonce per registration, so that a registration is included at most
//! once.
//!
//! - [`protocol`] decides (pure): START HERE for why no agent is registered twice
//! - [`rollback`] decides what proves that a ledger was rolled back (pure)
//! - [`freeze`] lists the evidence that stops spending for a registry
//! - [`evidence`] and [`index`] hold what the decisions rest on besides the stored objects (pure)
//! - [`money`] decides what may be spent (pure)
//! - [`foreign`] decides which transactions of the signer something else has sent (pure)
//! - [`filler`] decides when a nonce is used up without a registration (pure)
//! - [`registrants`] decides who may have registered a key, and whether it is absent (pure)
//! - [`unreadable`] finds what stored ledgers show that cannot be decoded (pure)
//! - [`store`] reads and writes ledgers and records in the order that the protocol needs
//! - [`monitor`] looks for rollbacks on every replica, and puts such a ledger in quarantine
//! - [`sender`] signs for allocated nonces and sends stored transactions
//!
//! Safety rests on compare-and-swap, on durable writes, and on an account using each nonce once. It
//! does not rest on leadership, clocks or an honest RPC endpoint. Leadership only decides which
//! replica does the work.

pub mod evidence;
pub mod filler;
pub mod foreign;
pub mod freeze;
pub mod index;
pub mod money;
pub(crate) mod monitor;
pub mod protocol;
pub mod registrants;
pub mod rollback;
pub mod sender;
pub(crate) mod store;
pub mod sweep;
pub mod unreadable;

#[cfg(test)]
pub(crate) mod fixtures;

pub use freeze::Freeze;
pub use store::ReadLedger;
pub(crate) use store::{BoundNonce, Store};
