//! The operator's elector and its peers (client-go, controller-runtime) as real processes on a real
//! API server.
//!
//! From bottom to top: [`event`] parses what a candidate logs, [`namespace`] holds their namespace
//! and accounts, [`candidate`] is one process, [`group`] the candidates of one Lease.
//! [`lease_writes`] reads the audit log, [`term`] finds terms that overlap. The tests of this
//! package use these; [`mod@bench`] measures with them. [`campaign`] judges what candidates did
//! while faults were injected.
//!
//! Nothing here starts a testbed: everything runs in the network of a running one, see
//! `testbed::enter`.

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
