//! What a campaign of faults is judged by: real processes, a real API server, a real chain, and nothing that they say of
//! themselves.
//!
//! - [`verdict`] is the judgement, over who held the Lease and what arrived when (pure)
//! - [`history`] reads these values off an audit log and off what a chain was sent (pure)
//! - [`recorder`] stands before the chain and notes who sends what
//!
//! The faults themselves are flows: `tests/flows/faults`.

pub mod history;
pub mod recorder;
pub mod verdict;
