//! What every build is told of the election core; `make model` goes further.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::sync::Mutex;

use model::bounds::{PLAN, bounds};
use model::check::search;
use model::core::{CORES, SHIPPED, core};
use model::simulation::simulate;
use model::variants::VARIANTS;

/// A search takes every processor and much memory: one at a time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn the_shipped_core_keeps_its_promises_under_every_schedule_within_small_bounds() {
    let _turn = TURN.lock();
    for bounds in PLAN.iter().map(|make| make().quick()) {
        let name = bounds.name;
        let outcome = search(SHIPPED, bounds, None);
        if let Some((property, schedule)) = outcome.broken.first() {
            panic!("{property} is broken within the bounds {name}:\n{schedule}");
        }
    }
}

#[test]
fn the_shipped_core_keeps_its_promises_under_random_schedules() {
    for seed in 0..3000 {
        if let Err(failure) = simulate(SHIPPED, seed) {
            panic!(
                "{} is broken by seed {}:\n{}",
                failure.property, failure.seed, failure.schedule
            );
        }
    }
}

#[test]
fn random_schedules_find_flaws_too() {
    let mut found = 0;
    for name in [
        "belief_anchored_at_the_response",
        "no_guard",
        "taken_over_without_a_wait",
        "blind_write",
    ] {
        found += usize::from((0..3000).any(|seed| simulate(core(name).unwrap(), seed).is_err()));
    }
    assert_eq!(found, 4);
}

#[test]
fn every_broken_variant_is_refuted_by_the_property_that_it_breaks() {
    let _turn = TURN.lock();
    assert_eq!(CORES.len(), VARIANTS.len() + 1);
    for variant in VARIANTS {
        let bounds = bounds(variant.within).expect("bounds of that name");
        let outcome = search(core(variant.name).unwrap(), bounds, Some(variant.breaks));
        let found: Vec<_> = outcome
            .broken
            .iter()
            .map(|(property, _)| *property)
            .collect();
        assert!(
            found.contains(&variant.breaks),
            "{}: {} was expected, and {found:?} found",
            variant.name,
            variant.breaks
        );
    }
}
