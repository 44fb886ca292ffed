//! The search through every schedule within bounds.
//!
//! It owns how a [`World`] is searched and what a search returns.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path, Property as Expected};

use super::bounds::Bounds;
use super::core::{Core, SHIPPED};
use super::properties::Property;
use super::variants::{Change, Flaw, Variant};
use super::world::{State, Step, World};

/// A property as the checker takes it: a function that carries no value.
macro_rules! expected {
    ($($property:ident)*) => {
        vec![$(Expected::always(Property::$property.name(), |world: &World, state: &State| {
            world.holds(Property::$property, state)
        })),*]
    };
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        self.beginnings().map(|moment| self.begin(moment)).collect()
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.steps(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(self.after(state, step))
    }

    fn properties(&self) -> Vec<Expected<Self>> {
        expected!(
            ChargedOnce DeliveredOnce FewExecutions OwnAnswer NoLateAsk SettledFirst NoLateRelease
            Expires HolderRuns UnknownIsAsked Ends NoSecondAsk NoChargeForNothing
        )
    }
}

/// The result of a search.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Length of the longest shortest schedule.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// What is violated, each with the shortest schedule.
    pub broken: Vec<(Property, Vec<String>)>,
    /// Whether every state within the bounds was reached.
    pub is_complete: bool,
}

impl Outcome {
    /// Names of what is violated.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let broken = self.broken.iter();
        broken.map(|(property, _)| property.name()).collect()
    }
}

/// Searches every schedule of the shipped core and shell.
#[must_use]
pub fn check(bounds: Bounds, limit: usize) -> Outcome {
    search(SHIPPED, None, bounds, HasDiscoveries::All, limit)
}

/// Searches until a schedule of a variant violates its property.
#[must_use]
pub fn refute(variant: &Variant, bounds: Bounds, limit: usize) -> Outcome {
    let (core, flaw) = match variant.change {
        Change::Core(core) => (core, None),
        Change::Shell(flaw) => (SHIPPED, Some(flaw)),
    };
    let wanted = HasDiscoveries::AnyOf([variant.breaks.name()].into());
    search(core, flaw, bounds, wanted, limit)
}

fn search(
    core: Core,
    flaw: Option<Flaw>,
    bounds: Bounds,
    until: HasDiscoveries,
    limit: usize,
) -> Outcome {
    let begun = Instant::now();
    let builder = World::new(core, flaw, bounds).checker();
    // One thread and breadth first: the schedules that are found are the shortest ones.
    let builder = builder.finish_when(until).target_state_count(limit);
    let checker = builder.spawn_bfs().join();
    let broken = Property::ALL.into_iter().filter_map(|property| {
        let path = checker.discovery(property.name())?;
        Some((property, schedule(checker.model(), path)))
    });
    Outcome {
        broken: broken.collect(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        time: begun.elapsed(),
        is_complete: checker.state_count() < limit,
    }
}

/// A schedule in words, one step per line.
fn schedule(world: &World, path: Path<State, Step>) -> Vec<String> {
    let steps = path.into_vec().into_iter();
    let lines = steps.filter_map(|(state, step)| Some(world.describe(&state, step?)));
    lines.collect()
}
