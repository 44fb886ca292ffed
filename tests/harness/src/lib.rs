//! What flows, demo, election tests and benchmarks share: it runs the operator and observes it, and leaves
//! assertions to the tests.
//!
//! - [`wait`] polls a running cluster until it reaches a state. Use it for every state that a
//!   cluster reaches only a moment later.
//! - [`release`] is the operator as Helm installs it: its replicas, its Lease, and what each
//!   replica serves.
//! - [`chain`] is an EVM node with an identity registry on it.
//! - [`objects`] writes Kubernetes objects and reads the status of offers.
//! - [`metrics`] reads what a replica counts.
//! - [`upstream`] answers requests on the node, and leads Services to programs there.
//! - [`candidate`] prepares a bare process that competes for a Lease: user, kubeconfig, command.
//! - [`mod@bench`] is what benchmarks measure and report with.

pub mod bench;
pub mod candidate;
pub mod chain;
pub mod metrics;
pub mod objects;
pub mod release;
pub mod upstream;
pub mod wait;
