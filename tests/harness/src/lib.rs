//! What flows, demo, campaigns and election tests share. It runs the operator and looks at it; it
//! asserts nothing.
//!
//! - [`wait`] polls a running cluster until it reaches a state. Nothing else may look at a state
//!   that a cluster reaches only a moment later.
//! - [`release`] is the operator as Helm installs it: its replicas, its Lease, and what each
//!   replica serves.
//! - [`chain`] is an EVM node with an identity registry on it.
//! - [`objects`] writes Kubernetes objects and reads the status of offers.
//! - [`candidate`] prepares a bare process that competes for a Lease: its user, its kubeconfig, its
//!   end.

pub mod candidate;
pub mod chain;
pub mod objects;
pub mod release;
pub mod wait;
