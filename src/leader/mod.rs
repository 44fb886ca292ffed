//! Leader election: one replica acts, and its fence closes before another replica may act.
//!
//! - [`candidate`] decides (pure): when one candidate takes over, renews, drains and releases
//! - [`lease`] and [`time`] are its values: the Lease, the epoch of a leadership, moments
//! - [`clock`] reads the clocks of the process
//! - [`elector`] acts: it reads, watches and writes the Lease, marks the leader's Pod, opens and
//!   closes the fence
//! - [`fence`] gates every side effect on a live leadership term: no write compiles without a
//!   [`Leading`], and a client of the API server is stopped down to the last step before the socket
//! - [`drain`] asks the work to finish before the fence closes
//!
//! Election makes the work efficient and takeovers quick. It is not what prevents double
//! registration: that is [`crate::ledger`], which holds even with two leaders.

pub mod candidate;
pub mod clock;
pub mod drain;
pub mod elector;
pub mod fence;
pub mod lease;
pub mod time;

pub use drain::Drain;
pub use fence::{Fence, Leading, NotLeading};
