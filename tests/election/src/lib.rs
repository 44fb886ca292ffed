//! The operator's elector among others, as real processes on a real API server.
//!
//! From bottom to top: [`event`] is what a candidate says, [`namespace`] where candidates compete and as whom, [`candidate`] one
//! process, [`group`] the candidates of one Lease. [`writes`] is what the API server knows of them, [`term`] what follows for
//! who led when. What is shown with all this is in the tests of this package. Apart from them, [`campaign`] judges what
//! candidates did while faults were injected.
//!
//! Nothing here starts a testbed: everything runs in the network of one that is up, see `testbed::enter`.

pub mod bench;
pub mod campaign;
pub mod candidate;
pub mod event;
pub mod group;
pub mod lease_writes;
pub mod namespace;
pub mod term;

pub use candidate::{Candidate, CandidateOptions, Implementation, Timing};
pub use event::{Event, EventKind};
pub use group::CandidateGroup;
pub use lease_writes::{LeaseWrite, LeaseWrites};
pub use namespace::ElectionNamespace;
