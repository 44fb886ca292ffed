//! The operator's elector among others, as real processes on a real API server.
//!
//! From bottom to top: [`event`] is what a candidate says, [`place`] where candidates compete and as whom, [`candidate`] one
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
pub mod place;
pub mod term;
pub mod writes;

pub use candidate::{Candidate, Kind, Spec, Timing};
pub use event::{Event, Said};
pub use group::Group;
pub use place::Place;
pub use writes::{Write, Writes};
