//! The checker: every schedule within bounds.
//!
//! It owns how a [`World`] is searched and what a search tells. What may happen is known to the world.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Path, Property as Expected};

use crate::bounds::{Bounds, Calm};
use crate::core::Make;
use crate::world::{Event, Property, State, Step, World};

/// How many threads search.
const THREADS: usize = 2;
/// Name of the property that keeps a search from being one of nothing.
const SEEN_ALL: &str = "everything expected has happened";

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
                world.holds(state, Property::OneOpenFence)
            }),
            Expected::always("I2", |world, state| {
                world.holds(state, Property::EpochsGrow)
            }),
            Expected::always("I3", |world, state| world.is_led_again(state, false)),
            Expected::always("I4", |world, state| {
                world.holds(state, Property::NoLateWrite)
            }),
            Expected::always("I5", |world, state| world.is_led_again(state, true)),
            Expected::always("I6", |world, state| {
                world.holds(state, Property::NothingGivenUp)
            }),
            Expected::sometimes(SEEN_ALL, |world, _| {
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
    /// I3, and with an outsider who changes labels I5: holds for states that the bounds do not follow into a calm.
    fn is_led_again(&self, state: &State, labels: bool) -> bool {
        let followed = match self.bounds.calm {
            Calm::Never => false,
            Calm::AtTheEnd => self.is_at_end(state),
            Calm::Everywhere => self.is_quiet(state),
        };
        !followed || self.is_led_after_a_calm(state, self.bounds.patience(), labels)
    }

    fn has_seen(&self, event: Event) -> bool {
        self.count(event) > 0
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Outcome {
    /// Different states.
    pub unique: usize,
    /// States reached, each as often as it was reached.
    pub total: usize,
    /// Length of the longest schedule.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Properties that do not hold, each with a schedule that shows it.
    pub broken: Vec<(&'static str, String)>,
    /// Expected events that never occurred.
    pub missing: Vec<Event>,
}

/// Searches everything within the bounds; for a core that is known to be broken only up to the property it breaks, by the
/// shortest schedules first.
#[must_use]
pub fn search(make: Make, bounds: Bounds, breaks: Option<&'static str>) -> Outcome {
    let begun = Instant::now();
    let title = format!("{:<10} {}", bounds.name, make.name);
    let again = bounds.clone();
    let world = World::new(make, bounds);
    let events = world.events.clone();
    let expected = world.bounds.expected;
    let builder = world.checker().threads(THREADS);
    let mut progress = Progress { title };
    // Depth first needs little memory, breadth first finds the shortest way.
    let (total, unique, depth, broken) = match breaks {
        None => {
            let found = read_off(
                &builder
                    .finish_when(HasDiscoveries::AnyFailures)
                    .spawn_dfs()
                    .report(&mut progress),
            );
            if let Some((property, _)) = found.3.first() {
                return search(make, again, Some(property));
            }
            found
        }
        Some(property) => {
            // A search that was told what to find goes on until it does.
            let wanted = HasDiscoveries::AnyOf([property].into());
            read_off(
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

/// States in all, different states, longest schedule, and what is broken.
fn read_off(checker: &impl Checker<World>) -> (usize, usize, usize, Vec<(&'static str, String)>) {
    let found = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| *name != SEEN_ALL);
    let mut broken: Vec<_> = found
        .map(|(name, path)| (name, tell(checker.model(), path)))
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
fn tell(world: &World, path: Path<State, Step>) -> String {
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

/// Shows on standard error that a search goes on.
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
