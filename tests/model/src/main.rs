//! `make model`: runs every search, many random schedules and every broken variant, and prints the
//! results.
//!
//! Arguments select bounds or variants by name, or `random`. It fails if the shipped core violates
//! an invariant, if an expected event never occurred, or if a variant is not refuted.

use std::process::ExitCode;
use std::time::Instant;

use model::bounds::{PLAN, SECOND, bounds};
use model::check::{Outcome, search};
use model::core::{SHIPPED, core};
use model::simulation::simulate;
use model::variants::VARIANTS;
use model::world::EVENTS;

/// Number of random schedules.
const SCHEDULES: u64 = 50_000;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut sound = check_the_shipped_core(&is_wanted);
    if is_wanted("random") {
        sound &= try_random_schedules();
    }
    sound &= refute_the_variants(&is_wanted);
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check_the_shipped_core(is_wanted: &impl Fn(&str) -> bool) -> bool {
    println!("The shipped core under every schedule within bounds");
    println!(
        "{:<10} {:>6} {:>7} {:>10} {:>11} {:>5} {:>7}  {:<7} what is explored",
        "bounds", "faults", "horizon", "unique", "states", "depth", "time", "result"
    );
    let mut sound = true;
    for bounds in PLAN
        .iter()
        .map(|make| make())
        .filter(|bounds| is_wanted(bounds.name))
    {
        let (faults, horizon, about) = (bounds.faults, bounds.horizon / SECOND, bounds.about);
        let outcome = search(SHIPPED, bounds.clone(), None);
        let Outcome {
            unique,
            total,
            depth,
            time,
            broken,
            missing,
        } = outcome;
        let result = if broken.is_empty() && missing.is_empty() {
            "holds"
        } else {
            "FAILS"
        };
        println!(
            "{:<10} {faults:>6} {horizon:>5} s {unique:>10} {total:>11} {depth:>5} {:>5.1} s  {result:<7} {about}",
            bounds.name,
            time.as_secs_f64()
        );
        for (invariant, schedule) in &broken {
            println!("\n{invariant} is violated:\n{schedule}");
        }
        if broken.is_empty() && !missing.is_empty() {
            println!("never occurred: {missing:?}");
        }
        sound &= result == "holds";
    }
    sound
}

fn try_random_schedules() -> bool {
    println!("\nThe shipped core under random schedules");
    let begun = Instant::now();
    let (mut events, mut steps) = ([0; EVENTS], 0);
    for seed in 0..SCHEDULES {
        match simulate(SHIPPED, seed) {
            Ok(run) => {
                steps += run.steps;
                events
                    .iter_mut()
                    .zip(run.events)
                    .for_each(|(sum, count)| *sum += count);
            }
            Err(failure) => {
                println!(
                    "{}\n{} is violated by seed {}",
                    failure.schedule, failure.invariant, failure.seed
                );
                return false;
            }
        }
    }
    println!(
        "{SCHEDULES} schedules, {steps} steps, {:.1} s: all hold",
        begun.elapsed().as_secs_f64()
    );
    true
}

fn refute_the_variants(is_wanted: &impl Fn(&str) -> bool) -> bool {
    println!("\nBroken variants");
    println!(
        "{:<36} {:<6} {:<10} {:>8} {:>7}  flaw",
        "variant", "breaks", "within", "unique", "time"
    );
    let mut sound = true;
    for variant in VARIANTS.iter().filter(|variant| is_wanted(variant.name)) {
        let (Some(core), Some(bounds)) = (core(variant.name), bounds(variant.within)) else {
            return false;
        };
        let Outcome {
            unique,
            time,
            broken,
            ..
        } = search(core, bounds, Some(variant.breaks));
        let refuted = broken
            .iter()
            .any(|(invariant, _)| *invariant == variant.breaks);
        println!(
            "{:<36} {:<6} {:<10} {unique:>8} {:>5.1} s  {}",
            variant.name,
            if refuted { variant.breaks } else { "NO" },
            variant.within,
            time.as_secs_f64(),
            variant.flaw
        );
        sound &= refuted;
    }
    sound
}
