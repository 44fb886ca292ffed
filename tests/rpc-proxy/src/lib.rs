//! A JSON-RPC proxy in front of a chain: it forwards, fails as its rules say, and counts.
//!
//! A test starts an [`RpcProxy`] inside the testbed's network, names it as the endpoint of an
//! IdentityRegistry, and adds and removes [`Rule`]s while the operator runs. Each rule applies to
//! single calls; the elements of a batch are judged and counted one by one. What a rule can do is
//! in `rule`, how a node that is behind its peers answers in `lag`, and HTTP in `server`. Beside it, an
//! [`UntrustedServer`] has a certificate that no client trusts. Neither knows of contracts, of
//! Kubernetes, or of what the operator should make of a fault.

mod call;
mod lag;
mod record;
mod rule;
mod server;
mod untrusted;

pub use call::Call;
pub use record::{Calls, RecordedCall};
pub use rule::{Methods, Rule, RuleId};
pub use server::RpcProxy;
pub use untrusted::{Untrusted, UntrustedServer};
