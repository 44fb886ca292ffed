//! Random schedules: longer than a search can explore, with any number of faults, clocks up to 5 %
//! off, stepped wall clocks and any jitter.
//!
//! It owns how one schedule is derived from one seed, so that a failure is reproducible. What may
//! happen and what must hold is the world's ([`crate::world`]).

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::bounds::{
    Bounds, CANDIDATES, CandidateSetup, FAULTS, Fault, RecoveryCheck, SECOND, Start, TRUE_RATE,
};
use crate::core::{CoreFactory, Jitter};
use crate::world::{EVENTS, Event, Invariant, State, Step, World};

/// Largest error of a clock's rate: 5 %.
const DRIFT: u64 = TRUE_RATE / 20;
/// What failures and jitter may add to the time until a candidate leads.
const SLACK: u64 = 5 * SECOND;
/// Longest advance of time in one step, even if nothing is due.
const MAX_ADVANCE: u64 = 5 * SECOND;

/// A schedule that violated an invariant.
#[derive(Debug)]
pub struct Failure {
    /// The seed of the schedule.
    pub seed: u64,
    /// The violated invariant.
    pub invariant: &'static str,
    /// The schedule, in words.
    pub schedule: String,
}

/// A schedule on which every invariant held.
#[derive(Debug)]
pub struct Success {
    /// How many steps it had.
    pub steps: u64,
    /// How often each [`Event`] occurred.
    pub events: [u64; EVENTS],
}

/// Runs the schedule of a seed.
///
/// # Errors
/// The schedule in words, if it violates an invariant.
pub fn simulate(factory: CoreFactory, seed: u64) -> Result<Success, Box<Failure>> {
    let outcome = Run::new(factory, seed).go(false);
    outcome.map_err(|invariant| {
        let mut again = Run::new(factory, seed);
        let _ = again.go(true);
        Box::new(Failure {
            seed,
            invariant,
            schedule: again.lines.join("\n"),
        })
    })
}

struct Run {
    world: World,
    rng: StdRng,
    /// One step in this many is a fault.
    steps_per_fault: u32,
    lines: Vec<String>,
}

impl Run {
    fn new(factory: CoreFactory, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let bounds = draw(&mut rng);
        let steps_per_fault = *[6, 15, 40, 120].choose(&mut rng).unwrap_or(&40);
        Self {
            world: World::new(factory, bounds),
            rng,
            steps_per_fault,
            lines: Vec::new(),
        }
    }

    fn go(&mut self, record: bool) -> Result<Success, &'static str> {
        let start = *[Start::Cold, Start::Led(0)]
            .choose(&mut self.rng)
            .unwrap_or(&Start::Cold);
        let mut state = self.world.begin(start);
        let (mut steps, mut taken) = (Vec::new(), 0);
        while state.now < self.world.bounds.horizon {
            state.refill();
            state.jitter = Jitter(self.rng.random());
            if self.rng.random_ratio(1, 500) {
                state.jump = self.rng.random_range(-7200..=7200);
            }
            steps.clear();
            self.world.steps(&state, &mut steps);
            let Some(step) = self.choose(&state, &steps) else {
                break;
            };
            if record {
                self.lines.push(self.world.describe(&state, &step));
            }
            self.world.take(&mut state, &step);
            taken += 1;
            let violated = Invariant::ALL
                .into_iter()
                .find(|invariant| !self.world.holds(&state, *invariant));
            if let Some(invariant) = violated {
                if record {
                    self.lines.push(self.world.summary(&state));
                }
                return Err(invariant.name());
            }
        }
        let within = self.world.bounds.recovery_time() + SLACK;
        for (labels, invariant) in [
            (false, Invariant::LeaderRecovers),
            (true, Invariant::LabelsDelayNothing),
        ] {
            if !self.world.recovers(&state, within, labels) {
                if record {
                    self.lines.push(format!(
                        "no candidate leads {within} us after the last fault"
                    ));
                }
                return Err(invariant.name());
            }
        }
        Ok(Success {
            steps: taken,
            events: Event::ALL.map(|event| self.world.occurrences(event)),
        })
    }

    /// Chooses the next step: usually what is due, sometimes a fault, and time may advance only
    /// part of the way.
    fn choose(&mut self, state: &State, steps: &[Step]) -> Option<Step> {
        let (faults, others): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| step.is_fault());
        let wants_fault = self.rng.random_ratio(1, self.steps_per_fault);
        if wants_fault && let Some(fault) = faults.choose(&mut self.rng) {
            return Some((*fault).clone());
        }
        let advance = others.iter().find(|step| matches!(step, Step::Advance(_)));
        match advance {
            // Time usually advances before a delayed message arrives or a paused process resumes.
            Some(Step::Advance(to)) if others.len() == 1 || self.rng.random_ratio(4, 5) => {
                let partial = self.rng.random_ratio(1, 3);
                let to = (*to).min(state.now + MAX_ADVANCE);
                Some(Step::Advance(if partial {
                    self.rng.random_range(state.now + 1..=to)
                } else {
                    to
                }))
            }
            _ => others.choose(&mut self.rng).map(|step| (*step).clone()),
        }
    }
}

/// Candidates with random clocks, lease durations and marks.
fn draw(rng: &mut StdRng) -> Bounds {
    let mut candidate = |identity, pod| CandidateSetup {
        identity,
        pod,
        rate: rng.random_range(TRUE_RATE - DRIFT..=TRUE_RATE + DRIFT),
        wall_offset: rng.random_range(-7200..=7200),
        lease_seconds: rng.random_range(10..=15),
        marks: rng.random(),
    };
    let evidence = true;
    let candidates: [CandidateSetup; CANDIDATES] = [
        candidate("pod-a", "uid-a"),
        candidate("pod-b", "uid-b"),
        candidate("pod-a", "uid-c"),
    ];
    let mut all = [u8::MAX; FAULTS];
    all[Fault::Delete as usize] = 0;
    all[Fault::Erase as usize] = 0;
    Bounds {
        name: "random",
        about: "random schedules",
        candidates,
        starts: &[],
        horizon: rng.random_range(60..=300) * SECOND,
        stride: 0,
        limits: all,
        faults: u8::MAX,
        effect_delay: 0,
        evidence,
        recovery: RecoveryCheck::Never,
        expected: &[],
    }
}
