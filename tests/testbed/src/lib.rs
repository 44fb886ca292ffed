//! A real one-node Kubernetes cluster for the tests and the demo of this project.
//!
//! The node (etcd, the Kubernetes components, CoreDNS, containerd, and all pods) runs in separate
//! pid, mount and network namespaces: it cannot touch the host, several nodes can run side by side,
//! and killing one process removes a node completely. The `testbed` command ([`cli`]) starts and
//! stops it. A test enters it with [`test()`] and gets a [`Cluster`]; [`image`] builds images for
//! it, and [`Anvil`] is an EVM node.
//!
//! From bottom to top: `procfs`, `cgroup`, `state` and `cache` access the machine; `namespaces` and
//! `init` isolate the node; `settings`, `pki` and `component` configure it; `node` starts it;
//! `backup` restores its state; `testbed` and `run` implement the command.

pub mod anvil;
mod audit;
mod backup;
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
mod test_namespace;
mod testbed;
pub mod tools;

pub use anvil::{Anvil, AnvilConfig};
pub use audit::{Audit, AuditEntry};
pub use backup::EtcdBackup;
pub use cluster::{Cluster, enter, test, test_on};
pub use component::Component;
pub use name::Name;
pub use process::{Paused, Process, Signal};
pub use test_namespace::TestNamespace;
