//! Judges a fault campaign by what the API server and the chain received, not by what candidates
//! log about themselves.
//!
//! - [`verdict`] judges who held the Lease and what arrived when (pure)
//! - [`history`] extracts that from an audit log and from the recorded transactions (pure)
//! - [`recorder`] is a proxy before the chain that records who sends what
//!
//! The faults themselves are flows: `tests/flows/faults`.

pub mod history;
pub mod recorder;
pub mod verdict;
