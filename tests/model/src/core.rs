//! The cores that a world can run: the shipped one and its broken variants, behind one trait.
//!
//! It owns how they are named and called; `build.rs` generates them. It decides nothing.

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

/// One candidate for leadership, of any core.
pub trait Core: Debug + Send + Sync {
    /// A copy of this candidate.
    fn boxed_clone(&self) -> Box<dyn Core>;
    /// Handles one input and returns what is to be done, in order.
    fn step(&mut self, input: Input, now: Now) -> Vec<Action>;
    /// When the next step is due, if no input comes before.
    fn next_wake(&self) -> Option<Moment>;
    /// A hash of the whole candidate. Two different candidates collide with a probability of 2^-64.
    fn digest(&self) -> u64;
}

/// Creates the candidates of one core.
#[derive(Clone, Copy)]
pub struct CoreFactory {
    /// Name of the core: `shipped`, or the variant's.
    pub name: &'static str,
    /// Creates a candidate that knows nothing.
    pub new: fn(ElectionConfig, Now) -> NewCandidate,
}

/// A new candidate, with its first actions.
pub type NewCandidate = (Box<dyn Core>, Vec<Action>);

impl Debug for CoreFactory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

macro_rules! make_cores {
    ($($name:ident)*) => {
        $(
            impl Core for cores::$name::candidate::Candidate {
                fn boxed_clone(&self) -> Box<dyn Core> {
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
        pub const CORES: &[CoreFactory] = &[$(CoreFactory {
            name: stringify!($name),
            new: |config, now| {
                let (candidate, actions) = cores::$name::candidate::Candidate::new(config, now);
                (Box::new(candidate), actions)
            },
        }),*];
    };
}

for_each_core!(make_cores);

/// The core that the operator ships.
pub const SHIPPED: CoreFactory = CORES[0];

/// The core of that name.
#[must_use]
pub fn core(name: &str) -> Option<CoreFactory> {
    CORES.iter().copied().find(|factory| factory.name == name)
}
