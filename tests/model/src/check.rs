//! The search through every schedule within bounds.
//!
//! It owns how a [`World`] is searched and what a search returns. What may happen is the world's.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Path, Property as Expected};

use crate::bounds::{Bounds, RecoveryCheck};
use crate::core::CoreFactory;
use crate::world::{Event, Invariant, State, Step, World};

/// How many threads search.
const THREADS: usize = 2;
/// Name of the invariant that makes sure a search is not vacuous.
const ALL_EXPECTED_SEEN: &str = "every expected event has occurred";

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        self.bounds
            .starts
            .iter()
            .map(|start| self.begin(*start))
            .collect()
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.steps(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(self.after(state, &step))
    }

    fn properties(&self) -> Vec<Expected<Self>> {
        vec![
            Expected::always("I1", |world, state| {
                world.holds(state, Invariant::OneOpenFence)
            }),
            Expected::always("I2", |world, state| {
                world.holds(state, Invariant::EpochsGrow)
            }),
            Expected::always("I3", |world, state| {
                world.recovers_if_followed(state, false)
            }),
            Expected::always("I4", |world, state| {
                world.holds(state, Invariant::NoLateWrite)
            }),
            Expected::always("I5", |world, state| world.recovers_if_followed(state, true)),
            Expected::always("I6", |world, state| {
                world.holds(state, Invariant::NoFalseLoss)
            }),
            Expected::sometimes(ALL_EXPECTED_SEEN, |world, _| {
                world
                    .bounds
                    .expected
                    .iter()
                    .all(|event| world.has_seen(*event))
            }),
        ]
    }
}

impl World {
    /// I3, or I5 with `labels`. It holds trivially for states for which the bounds check no
    /// recovery.
    fn recovers_if_followed(&self, state: &State, labels: bool) -> bool {
        let followed = match self.bounds.recovery {
            RecoveryCheck::Never => false,
            RecoveryCheck::AtTheEnd => self.is_at_end(state),
            RecoveryCheck::Everywhere => self.is_quiet(state),
        };
        !followed || self.recovers(state, self.bounds.recovery_time(), labels)
    }

    fn has_seen(&self, event: Event) -> bool {
        self.occurrences(event) > 0
    }
}

/// The result of a search.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states.
    pub unique: usize,
    /// States reached, counted each time.
    pub total: usize,
    /// Length of the longest schedule.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Violated invariants, each with a schedule as its counterexample.
    pub broken: Vec<(&'static str, String)>,
    /// Expected events that never occurred.
    pub missing: Vec<Event>,
}

/// Searches every schedule within the bounds. For a core that is known to break an invariant, it
/// stops at the first counterexample, shortest schedules first.
#[must_use]
pub fn search(factory: CoreFactory, bounds: Bounds, breaks: Option<&'static str>) -> Outcome {
    let begun = Instant::now();
    let title = format!("{:<10} {}", bounds.name, factory.name);
    let again = bounds.clone();
    let world = World::new(factory, bounds);
    let events = world.events.clone();
    let expected = world.bounds.expected;
    let builder = world.checker().threads(THREADS);
    let mut progress = Progress { title };
    // Depth first needs little memory, breadth first finds the shortest counterexample.
    let (total, unique, depth, broken) = match breaks {
        None => {
            let found = results(
                &builder
                    .finish_when(HasDiscoveries::AnyFailures)
                    .spawn_dfs()
                    .report(&mut progress),
            );
            if let Some((invariant, _)) = found.3.first() {
                return search(factory, again, Some(invariant));
            }
            found
        }
        Some(invariant) => {
            // The search continues until it finds the wanted counterexample.
            let wanted = HasDiscoveries::AnyOf([invariant].into());
            results(
                &builder
                    .finish_when(wanted)
                    .spawn_bfs()
                    .report(&mut progress),
            )
        }
    };
    let missing = expected
        .iter()
        .copied()
        .filter(|event| events[*event as usize].load(Ordering::Relaxed) == 0)
        .collect();
    Outcome {
        unique,
        total,
        depth,
        time: begun.elapsed(),
        broken,
        missing,
    }
}

/// Total states, distinct states, longest schedule, and violated invariants.
fn results(checker: &impl Checker<World>) -> (usize, usize, usize, Vec<(&'static str, String)>) {
    let found = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| *name != ALL_EXPECTED_SEEN);
    let mut broken: Vec<_> = found
        .map(|(name, path)| (name, describe_path(checker.model(), path)))
        .collect();
    broken.sort();
    (
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        broken,
    )
}

/// A schedule in words, one step per line.
fn describe_path(world: &World, path: Path<State, Step>) -> String {
    let mut text = String::new();
    for (state, step) in path.into_vec() {
        match step {
            Some(step) => {
                let _ = writeln!(text, "{}", world.describe(&state, &step));
            }
            None => {
                let _ = writeln!(text, "{}", world.summary(&state));
            }
        }
    }
    text
}

/// Shows the progress of a search on standard error.
struct Progress {
    title: String,
}

impl Progress {
    fn line(&self, data: &ReportData) -> String {
        let rate = data.total_states as f64 / data.duration.as_secs_f64().max(0.001);
        format!(
            "{}: {} states, {} unique, depth {}, {:.0} s, {rate:.0} states/s",
            self.title,
            data.total_states,
            data.unique_states,
            data.max_depth,
            data.duration.as_secs_f64()
        )
    }
}

impl Reporter<World> for Progress {
    fn report_checking(&mut self, data: ReportData) {
        let mut out = std::io::stderr().lock();
        if out.is_terminal() {
            let end = if data.done { "\r\x1b[K" } else { "" };
            let _ = write!(out, "\r\x1b[K{}{end}", self.line(&data));
        } else if !data.done && data.duration.as_secs() % 10 == 9 {
            let _ = writeln!(out, "{}", self.line(&data));
        }
        let _ = out.flush();
    }

    fn report_discoveries(
        &mut self,
        _: &World,
        _: std::collections::BTreeMap<&'static str, ReportDiscovery<World>>,
    ) {
    }
}
