//! The cores that a world can run: the shipped one, and variants of its source text.
//!
//! The shipped core is the operator's own library. `build.rs` generates the variants from the
//! sources of `protocol`, `registrants` and `plan`; everything else they share with it. Each has its
//! own copy of `pass.rs`, so that one shell drives them all.

use std::fmt;

use alloy::primitives::Address;
use serviceoffer::api::{AgentRegistrationSpec, SignerLedgerSpec};

use super::flaws::Flaw;
use super::view::{Decision, Request, View};

/// The operator's own library.
#[path = "."]
pub mod shipped {
    pub use serviceoffer::decisions::{plan, protocol, registrants};

    pub mod pass;
}

#[allow(
    dead_code,
    unused_imports,
    unused_variables,
    unreachable_patterns,
    unreachable_code,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "these are sources that are broken on purpose"
)]
#[macro_use]
mod variants {
    include!(concat!(env!("OUT_DIR"), "/ledger_cores.rs"));
}

/// What a replica does after it has read a former signer's ledger.
type TakeOver =
    fn(Option<&SignerLedgerSpec>, &[AgentRegistrationSpec], Address, Option<Flaw>) -> Vec<Request>;
/// What retires a record.
type Retire = fn(Option<&SignerLedgerSpec>, &AgentRegistrationSpec, Option<Flaw>) -> Vec<Request>;

/// The functions of one core.
#[derive(Clone, Copy)]
pub struct Core {
    /// Name of the core: `shipped`, or the variant's.
    pub name: &'static str,
    /// What a replica does after it has read everything.
    pub decide: fn(&View<'_>, Option<Flaw>) -> Decision,
    /// What it does after it has read a former signer's ledger.
    pub take_over: TakeOver,
    /// What retires a record.
    pub retire: Retire,
    /// The record that is used again.
    pub revive: fn(&AgentRegistrationSpec) -> AgentRegistrationSpec,
}

impl fmt::Debug for Core {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The core that the operator ships.
pub const SHIPPED: Core = Core {
    name: "shipped",
    decide: shipped::pass::decide,
    take_over: shipped::pass::take_over,
    retire: shipped::pass::retire,
    revive: shipped::pass::revive,
};

macro_rules! make_cores {
    ($($name:ident)*) => {
        /// The variants.
        pub const CORES: &[Core] = &[$(Core {
            name: stringify!($name),
            decide: variants::$name::pass::decide,
            take_over: variants::$name::pass::take_over,
            retire: variants::$name::pass::retire,
            revive: variants::$name::pass::revive,
        }),*];
    };
}

for_each_ledger_core!(make_cores);

/// The core of that name.
#[must_use]
pub fn core(name: &str) -> Option<Core> {
    CORES.iter().copied().find(|core| core.name == name)
}
