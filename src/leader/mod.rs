//! Leader election: one replica acts, and its fence has closed before another may.
//!
//! - [`lease`] decides (pure): how one candidate answers to what it sees of the Lease and to the passing of time
//! - [`clock`] reads the clocks of the process
//! - [`record`] is what it speaks of: moments, terms, the Lease, the epoch
//! - [`elector`] does: reads, watches and writes the Lease, marks the leader's Pod, moves the fence
//! - [`fence`] stands between every write and the world: no write compiles without a [`Leading`], and a client
//!   of the API server is stopped down to the last step before the socket
//! - [`drain`] is how the work is asked to come to rest before the fence closes
//!
//! Election makes the work efficient and takeover quick. That nothing is registered twice does not rest on it: that is
//! kept by [`crate::ledger`], whoever leads.

pub mod clock;
pub mod drain;
pub mod elector;
pub mod fence;
pub mod lease;
pub mod record;

pub use drain::Drain;
pub use fence::{Fence, Leading, NotLeading};
