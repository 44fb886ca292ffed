//! Fault injection against real candidates: in each test, a group competes for one Lease and works
//! while one kind of fault is injected again and again. `election::campaign` judges what the
//! candidates did, from the audit log and from the transactions that the chain received; their logs
//! only explain a verdict.
//!
//! - [`campaign`] sets up the cluster, injects, and ends with the verdict
//! - [`group`] keeps candidates running, each a [`candidate`]; [`load`] keeps the leader busy
//! - [`blackhole`] cuts one candidate off; [`table`] reports the results
//!
//! Faults: [`pause`], [`crash`], [`api_server`], [`partition`], [`lease_edits`], [`rbac`],
//! [`split_brain`], [`pod_status`], [`clock_skew`].

mod blackhole;
mod campaign;
mod candidate;
mod group;
mod load;
mod table;

mod api_server;
mod clock_skew;
mod crash;
mod lease_edits;
mod partition;
mod pause;
mod pod_status;
mod rbac;
mod split_brain;
