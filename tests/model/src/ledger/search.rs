//! The search through every schedule within bounds, breadth first, and the search for states that
//! cannot recover.
//!
//! It owns how a [`World`] is searched. Liveness is "from every reachable state a goal is reachable
//! without another fault" (AG EF): the steps that are no faults are kept as edges, and the goals are
//! followed backwards. A checker that looks for a goal on every path would take each cycle of
//! retries for a violation, or miss it.

use std::time::{Duration, Instant};

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::world::invariants::Invariant;
use super::world::state::State;
use super::world::{Step, World};

/// The result of a search.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Length of the longest shortest schedule.
    pub depth: u32,
    /// How long it took.
    pub time: Duration,
    /// What is violated, with the shortest schedule.
    pub broken: Option<(Invariant, Vec<String>)>,
    /// Whether every state within the bounds was reached.
    pub is_complete: bool,
    /// States whose only goal is a freeze that says why.
    pub frozen: usize,
}

/// Progress of a search: distinct states, and states whose successors are known.
pub type Report<'a> = &'a dyn Fn(usize, usize);

struct Graph {
    states: IndexSet<State, FxBuildHasher>,
    parents: Vec<u32>,
    depths: Vec<u32>,
    /// Edges without faults: those of state `i` end at `ends[i]`.
    edges: Vec<u32>,
    ends: Vec<usize>,
}

impl Graph {
    fn add(&mut self, state: State, parent: u32) -> u32 {
        let (at, is_new) = self.states.insert_full(state);
        if is_new {
            let depth = self
                .depths
                .get(parent as usize)
                .map_or(0, |depth| depth + 1);
            self.parents.push(parent);
            self.depths.push(depth);
        }
        at as u32
    }

    fn edges_of(&self, at: usize) -> &[u32] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.edges[from..self.ends[at]]
    }
}

/// Searches every schedule, until one violates an invariant or `limit` states are known.
pub(super) fn search(world: &World, limit: usize, report: Report<'_>) -> Outcome {
    let begun = Instant::now();
    let mut graph = Graph {
        states: IndexSet::default(),
        parents: Vec::new(),
        depths: Vec::new(),
        edges: Vec::new(),
        ends: Vec::new(),
    };
    graph.add(world.begin(), 0);
    let (mut steps, mut at, mut broken) = (Vec::new(), 0, None);
    while let Some(state) = graph.states.get_index(at).copied() {
        if state.broken != 0 {
            broken = Some((at, state.broken));
            break;
        }
        if graph.states.len() >= limit {
            break;
        }
        steps.clear();
        world.steps(&state, &mut steps);
        for step in &steps {
            let next = graph.add(world.after(&state, *step), at as u32);
            if world.bounds.liveness && !step.is_fault() && next as usize != at {
                graph.edges.push(next);
            }
        }
        graph.ends.push(graph.edges.len());
        at += 1;
        if at % 65_536 == 0 {
            report(graph.states.len(), at);
        }
    }
    let is_complete = at == graph.states.len();
    let broken = broken.and_then(|(at, broken)| {
        let found = Invariant::ALL
            .iter()
            .find(|invariant| **invariant as u8 == broken);
        found.map(|invariant| (*invariant, at))
    });
    let mut frozen = 0;
    let broken = if broken.is_none() && is_complete && world.bounds.liveness {
        let stuck;
        (stuck, frozen) = stuck_state(world, &graph);
        stuck.map(|at| (Invariant::Live, at))
    } else {
        broken
    };
    Outcome {
        states: graph.states.len(),
        depth: graph.depths.last().copied().unwrap_or_default(),
        time: begun.elapsed(),
        broken: broken.map(|(invariant, at)| (invariant, schedule(world, &graph, at))),
        is_complete,
        frozen,
    }
}

/// The first state from which no goal is reachable, and how many can only reach a freeze.
fn stuck_state(world: &World, graph: &Graph) -> (Option<usize>, usize) {
    let mut reaches: Vec<bool> = graph
        .states
        .iter()
        .map(|state| world.is_done(state))
        .collect();
    spread(graph, &mut reaches);
    let unfinished: Vec<usize> = (0..reaches.len()).filter(|at| !reaches[*at]).collect();
    for at in &unfinished {
        reaches[*at] = graph
            .states
            .get_index(*at)
            .is_some_and(|state| world.is_stopped(state));
    }
    spread(graph, &mut reaches);
    (
        reaches.iter().position(|reaches| !reaches),
        unfinished.len(),
    )
}

/// Follows the edges backwards, until nothing changes.
fn spread(graph: &Graph, reaches: &mut [bool]) {
    loop {
        let mut changed = false;
        for at in (0..reaches.len()).rev() {
            if !reaches[at] && graph.edges_of(at).iter().any(|to| reaches[*to as usize]) {
                reaches[at] = true;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// The shortest schedule to a state, one step per line.
fn schedule(world: &World, graph: &Graph, at: usize) -> Vec<String> {
    let mut path = vec![at];
    while let Some(last) = path.last().copied().filter(|last| *last != 0) {
        path.push(graph.parents[last] as usize);
    }
    path.reverse();
    let mut lines = Vec::new();
    for pair in path.windows(2) {
        let (Some(from), Some(to)) = (
            graph.states.get_index(pair[0]),
            graph.states.get_index(pair[1]),
        ) else {
            continue;
        };
        let mut steps: Vec<Step> = Vec::new();
        world.steps(from, &mut steps);
        let step = steps
            .into_iter()
            .find(|step| world.after(from, *step) == *to);
        lines.extend(step.map(|step| world.describe(from, step)));
    }
    lines
}
