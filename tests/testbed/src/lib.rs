//! A real one-node Kubernetes cluster for the tests and the demo of this project.
//!
//! The node (etcd, the Kubernetes components, CoreDNS, containerd, and all pods) lives in pid, mount and network namespaces of
//! its own, so that it cannot touch the host, two of them can run side by side, and killing one process removes it without a
//! trace. The `testbed` command ([`cli`]) starts and stops it. A test enters it with [`test()`] and works with the
//! [`Cluster`] that it gets; images for it come from [`image`], an EVM node from [`tools::anvil`].
//!
//! From bottom to top: `procfs`, `cgroup`, `state`, `cache` know the machine; `namespaces` and `init` make the place to run;
//! `settings`, `pki` and `component` say what runs; `node` starts it; `testbed` and `run` are the command's verbs.

pub mod anvil;
mod audit;
mod cache;
mod cgroup;
pub mod cli;
mod cluster;
mod component;
mod digest;
mod host;
pub mod image;
mod init;
mod interrupt;
mod name;
mod namespace;
mod namespaces;
mod node;
mod packages;
mod pki;
mod probe;
mod process;
mod procfs;
mod progress;
mod run;
mod settings;
mod state;
mod subprocess;
mod testbed;
pub mod tools;

pub use anvil::{Anvil, AnvilConfig};
pub use audit::{Audit, AuditEntry};
pub use cluster::{Cluster, enter, test, test_on};
pub use component::Component;
pub use name::Name;
pub use namespace::Namespace;
pub use process::{Paused, Process, Signal};
