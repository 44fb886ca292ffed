//! Random schedules: longer than the checker can go, with any number of faults, clocks at any rate up to 5 % off, wall
//! clocks that jump, and all of chance.
//!
//! It owns how one schedule is drawn from one seed, so that a failure can be seen again. What may happen and what must
//! hold is known to [`crate::world`].

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::bounds::{Bounds, CANDIDATES, Calm, FAULTS, Fault, SECOND, Seat, Start, TRUE_RATE};
use crate::core::{Jitter, Make};
use crate::world::{EVENTS, Event, Property, State, Step, World};

/// How far a clock may be off: 5 %.
const DRIFT: u64 = TRUE_RATE / 20;
/// What failures and chance may add to the patience with which a leader is awaited.
const SLACK: u64 = 5 * SECOND;
/// How much time passes at most between two steps, even if nothing at all is due.
const MOST_AT_ONCE: u64 = 5 * SECOND;

/// A schedule on which something broke.
#[derive(Debug)]
pub struct Failure {
    /// What it was drawn from.
    pub seed: u64,
    /// What broke.
    pub property: &'static str,
    /// The schedule, in words.
    pub schedule: String,
}

/// A schedule on which everything held.
#[derive(Debug)]
pub struct Held {
    /// How many steps it had.
    pub steps: u64,
    /// How often each [`Event`] occurred.
    pub events: [u64; EVENTS],
}

/// Takes the schedule that is drawn from a seed.
///
/// # Errors
/// With the schedule, if something broke.
pub fn simulate(make: Make, seed: u64) -> Result<Held, Box<Failure>> {
    let outcome = Run::new(make, seed).go(false);
    outcome.map_err(|property| {
        let mut again = Run::new(make, seed);
        let _ = again.go(true);
        Box::new(Failure {
            seed,
            property,
            schedule: again.lines.join("\n"),
        })
    })
}

struct Run {
    world: World,
    chance: StdRng,
    /// One in so many steps is a fault.
    calmness: u32,
    lines: Vec<String>,
}

impl Run {
    fn new(make: Make, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let bounds = draw(&mut chance);
        let calmness = *[6, 15, 40, 120].choose(&mut chance).unwrap_or(&40);
        Self {
            world: World::new(make, bounds),
            chance,
            calmness,
            lines: Vec::new(),
        }
    }

    fn go(&mut self, tell: bool) -> Result<Held, &'static str> {
        let start = *[Start::Cold, Start::Led(0)]
            .choose(&mut self.chance)
            .unwrap_or(&Start::Cold);
        let mut state = self.world.begin(start);
        let (mut steps, mut taken) = (Vec::new(), 0);
        while state.now < self.world.bounds.horizon {
            state.refill();
            state.jitter = Jitter(self.chance.random());
            if self.chance.random_ratio(1, 500) {
                state.jump = self.chance.random_range(-7200..=7200);
            }
            steps.clear();
            self.world.steps(&state, &mut steps);
            let Some(step) = self.choose(&state, &steps) else {
                break;
            };
            if tell {
                self.lines.push(self.world.describe(&state, &step));
            }
            self.world.take(&mut state, &step);
            taken += 1;
            let broken = Property::ALL
                .into_iter()
                .find(|property| !self.world.holds(&state, *property));
            if let Some(property) = broken {
                if tell {
                    self.lines.push(self.world.summary(&state));
                }
                return Err(property.name());
            }
        }
        let patience = self.world.bounds.patience() + SLACK;
        for (labels, property) in [
            (false, Property::LedAgain),
            (true, Property::LabelsProlongNothing),
        ] {
            if !self.world.is_led_after_a_calm(&state, patience, labels) {
                if tell {
                    self.lines
                        .push(format!("nobody leads after {patience} us of calm"));
                }
                return Err(property.name());
            }
        }
        Ok(Held {
            steps: taken,
            events: Event::ALL.map(|event| self.world.count(event)),
        })
    }

    /// What happens next: mostly what is due, sometimes a fault, and time passes by a part of the way.
    fn choose(&mut self, state: &State, steps: &[Step]) -> Option<Step> {
        let (faults, others): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| step.is_fault());
        let wants_fault = self.chance.random_ratio(1, self.calmness);
        if wants_fault && let Some(fault) = faults.choose(&mut self.chance) {
            return Some((*fault).clone());
        }
        let advance = others.iter().find(|step| matches!(step, Step::Advance(_)));
        match advance {
            // What was held back, and who was stopped, waits for a while.
            Some(Step::Advance(to)) if others.len() == 1 || self.chance.random_ratio(4, 5) => {
                let partial = self.chance.random_ratio(1, 3);
                let to = (*to).min(state.now + MOST_AT_ONCE);
                Some(Step::Advance(if partial {
                    self.chance.random_range(state.now + 1..=to)
                } else {
                    to
                }))
            }
            _ => others.choose(&mut self.chance).map(|step| (*step).clone()),
        }
    }
}

/// Candidates with clocks and names drawn by chance.
fn draw(chance: &mut StdRng) -> Bounds {
    let mut seat = |identity, pod| Seat {
        identity,
        pod,
        rate: chance.random_range(TRUE_RATE - DRIFT..=TRUE_RATE + DRIFT),
        wall_offset: chance.random_range(-7200..=7200),
        lease_seconds: chance.random_range(10..=15),
        marks: chance.random(),
    };
    let evidence = true;
    let seats: [Seat; CANDIDATES] = [
        seat("pod-a", "uid-a"),
        seat("pod-b", "uid-b"),
        seat("pod-a", "uid-c"),
    ];
    let mut all = [u8::MAX; FAULTS];
    all[Fault::Delete as usize] = 0;
    all[Fault::Erase as usize] = 0;
    Bounds {
        name: "random",
        about: "random schedules",
        seats,
        starts: &[],
        horizon: chance.random_range(60..=300) * SECOND,
        stride: 0,
        limits: all,
        faults: u8::MAX,
        straggle: 0,
        evidence,
        calm: Calm::Never,
        expected: &[],
    }
}
