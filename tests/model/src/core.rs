//! The cores that a world can drive: the shipped one and its broken variants, behind one trait.
//!
//! It owns how they are told apart and called; what they are is made by `build.rs`. Nothing here may decide anything.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

pub use cores::shipped::candidate::{Action, AsOf, ElectionConfig, Exit, Input, WriteId};
pub use cores::shipped::lease::{Epoch, Lease, LeaseRecord, ResourceVersion};
pub use cores::shipped::time::{Jitter, Moment, Now};

#[allow(
    dead_code,
    unused_imports,
    unused_variables,
    unreachable_patterns,
    unreachable_pub,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "these are the operator's sources, and sources that are broken on purpose"
)]
#[macro_use]
mod cores {
    include!(concat!(env!("OUT_DIR"), "/cores.rs"));
}

/// One candidate for leadership, whatever core it is made of.
pub trait Core: Debug + Send + Sync {
    /// The same candidate once more.
    fn copy(&self) -> Box<dyn Core>;
    /// Takes in one input and answers with what is to be done, in order.
    fn step(&mut self, input: Input, now: Now) -> Vec<Action>;
    /// When the next step is due, if no input comes before.
    fn next_wake(&self) -> Option<Moment>;
    /// A number that two candidates share only if they are equal, but for a chance of 2^-64.
    fn digest(&self) -> u64;
}

/// What candidates are made of.
#[derive(Clone, Copy)]
pub struct Make {
    /// Name of the core: `shipped`, or that of a variant.
    pub name: &'static str,
    /// Makes a candidate that knows nothing.
    pub begin: fn(ElectionConfig, Now) -> Beginning,
}

/// A candidate, with its first actions.
pub type Beginning = (Box<dyn Core>, Vec<Action>);

impl Debug for Make {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

macro_rules! make_cores {
    ($($name:ident)*) => {
        $(
            impl Core for cores::$name::candidate::Candidate {
                fn copy(&self) -> Box<dyn Core> {
                    Box::new(self.clone())
                }

                fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
                    self.step(input, now)
                }

                fn next_wake(&self) -> Option<Moment> {
                    self.next_wake()
                }

                fn digest(&self) -> u64 {
                    let mut hasher = DefaultHasher::new();
                    self.hash(&mut hasher);
                    hasher.finish()
                }
            }
        )*

        /// Every core, the shipped one first.
        pub const CORES: &[Make] = &[$(Make {
            name: stringify!($name),
            begin: |config, now| {
                let (candidate, actions) = cores::$name::candidate::Candidate::new(config, now);
                (Box::new(candidate), actions)
            },
        }),*];
    };
}

for_each_core!(make_cores);

/// The core that the operator ships.
pub const SHIPPED: Make = CORES[0];

/// The core of that name.
#[must_use]
pub fn core(name: &str) -> Option<Make> {
    CORES.iter().copied().find(|make| make.name == name)
}
