//! The simulated world of the candidates: one Lease, a network, processes, clocks, and an adversary
//! that interferes with all of them.
//!
//! It owns what may happen next in a state and what follows from it. It must not know how schedules
//! are chosen: the checker tries all of them ([`crate::check`]), the simulation some at random
//! ([`crate::simulation`]).
//!
//! - `state` is what is so at one instant; `step` is what may happen next
//! - `process`, `network`, `server` and `clock` are the parts of the world
//! - `invariants` is what must hold; `event` counts what happened; `describe` puts schedules into
//!   words
//!
//! Whatever the adversary does not touch happens at once and in a fixed order: a message arrives, a
//! timer fires. Only races for the Lease, and between the inputs of one process, are left open.
//! Every deviation is a fault, and faults are counted ([`Bounds::limits`]). Time advances from
//! event to event, exactly: clocks run at rates of their own, and no moment is rounded to a grid.
//!
//! Assumptions about effects: a process may write at every instant at which its fence is open, and
//! a write that passed the fence may leave the process up to [`Bounds::effect_delay`] later,
//! because the process was paused in between. The guard interval covers that. A write of a killed
//! process has left or never will, and the terms of one process do not overlap.

mod clock;
mod describe;
mod event;
mod invariants;
mod network;
mod process;
mod server;
mod state;
mod step;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::bounds::{Bounds, CANDIDATES, FAULTS, Start};
use crate::core::{CoreFactory, Jitter};

pub use self::event::{EVENTS, Event};
pub use self::invariants::Invariant;
pub use self::network::{Healing, Partition};
pub use self::state::State;
pub use self::step::Step;

/// First revision of the object store, chosen so that revisions soon gain a digit.
const FIRST_REVISION: u64 = 8;

/// The rules of a world: what its candidates run, and what the adversary may do.
#[derive(Debug)]
pub struct World {
    /// The core that the candidates run.
    pub factory: CoreFactory,
    /// What the adversary may do.
    pub bounds: Bounds,
    /// How often each [`Event`] occurred, over all states.
    pub events: Arc<[AtomicU64; EVENTS]>,
}

impl World {
    /// A world of these candidates.
    #[must_use]
    pub fn new(factory: CoreFactory, bounds: Bounds) -> Self {
        Self {
            factory,
            bounds,
            events: Arc::default(),
        }
    }

    /// The initial state.
    #[must_use]
    pub fn begin(&self, start: Start) -> State {
        let mut state = State {
            now: 0,
            jitter: Jitter(0),
            jump: 0,
            lease: None,
            revision: FIRST_REVISION,
            previous: None,
            writer: (0, 0),
            processes: Default::default(),
            in_transit: Vec::new(),
            pod_marks: [const { None }; CANDIDATES],
            faults_spent: [0; FAULTS],
            highest_epoch: (0, 0, 0),
            violated: 0,
        };
        match start {
            Start::Cold => (0..CANDIDATES).for_each(|id| self.start(&mut state, id)),
            Start::Led(first) => {
                self.start(&mut state, first);
                self.settle(&mut state);
                (0..CANDIDATES)
                    .filter(|id| *id != first)
                    .for_each(|id| self.start(&mut state, id));
                self.settle(&mut state);
            }
        }
        state
    }
}
