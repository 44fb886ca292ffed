//! The part of the model that every build checks; `make model` checks more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Mutex;

use model::bounds::{PLAN, bounds};
use model::check::search;
use model::core::{CORES, SHIPPED, core};
use model::simulation::simulate;
use model::variants::VARIANTS;

/// A search uses every processor and much memory, so they run one at a time.
static SEARCH: Mutex<()> = Mutex::new(());

#[test]
fn shipped_core_holds_under_every_schedule_within_small_bounds() {
    let _search = SEARCH.lock();
    for bounds in PLAN.iter().map(|make| make().quick()) {
        let name = bounds.name;
        let outcome = search(SHIPPED, bounds, None);
        if let Some((invariant, schedule)) = outcome.broken.first() {
            panic!("{invariant} is violated within the bounds {name}:\n{schedule}");
        }
    }
}

#[test]
fn shipped_core_holds_under_random_schedules() {
    for seed in 0..3000 {
        if let Err(failure) = simulate(SHIPPED, seed) {
            panic!(
                "{} is violated by seed {}:\n{}",
                failure.invariant, failure.seed, failure.schedule
            );
        }
    }
}

#[test]
fn random_schedules_find_flaws_too() {
    let mut found = 0;
    for name in [
        "term_counted_from_the_reply",
        "no_guard",
        "takeover_without_a_wait",
        "unconditional_write",
    ] {
        found += usize::from((0..3000).any(|seed| simulate(core(name).unwrap(), seed).is_err()));
    }
    assert_eq!(found, 4);
}

#[test]
fn every_variant_is_refuted_by_the_invariant_that_it_violates() {
    let _search = SEARCH.lock();
    assert_eq!(CORES.len(), VARIANTS.len() + 1);
    for variant in VARIANTS {
        let bounds = bounds(variant.within).expect("its bounds exist");
        let outcome = search(core(variant.name).unwrap(), bounds, Some(variant.breaks));
        let found: Vec<_> = outcome
            .broken
            .iter()
            .map(|(invariant, _)| *invariant)
            .collect();
        assert!(
            found.contains(&variant.breaks),
            "{}: expected {}, found {found:?}",
            variant.name,
            variant.breaks
        );
    }
}
