//! The part of the ledger model that every build checks; `make model-ledger` checks more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use model::ledger::bounds::{bounds, known_violation};
use model::ledger::check::{check, refute};
use model::ledger::variants::VARIANTS;

/// States at which a search gives up.
const LIMIT: usize = 2_000_000;

#[test]
fn shipped_core_holds_within_small_bounds() {
    for name in [
        "birth",
        "base",
        "used-wallet",
        "omitted-logs",
        "reverted+tombstone",
        "gift+no-status",
    ] {
        let outcome = check(bounds(name).expect("they exist"), LIMIT, &|_, _| {}).unwrap();
        if let Some((invariant, schedule)) = outcome.broken {
            panic!(
                "{invariant:?} is violated within {name}:\n{}",
                schedule.join("\n")
            );
        }
        assert!(outcome.is_complete, "{name}");
    }
}

#[test]
fn known_violation_of_retired_key_is_found() {
    let bounds = bounds("retiring-race").unwrap();
    let breaks = known_violation(&bounds.name);
    let outcome = check(bounds, LIMIT, &|_, _| {}).unwrap();
    assert_eq!(
        outcome.broken.map(|(invariant, _)| invariant.name()),
        breaks
    );
}

#[test]
fn variants_within_small_bounds_are_refuted() {
    for name in [
        "nonce_from_the_chain",
        "second_entry",
        "absence_assumed",
        "coverage_unchecked",
        "reverted_on_latest",
        "retired_registers",
        "conflict_retried",
        "prune_before_result",
        "agents_without_key_ignored",
    ] {
        let variant = VARIANTS
            .iter()
            .find(|variant| variant.name == name)
            .unwrap();
        let outcome = refute(variant, LIMIT, &|_, _| {}).unwrap();
        let found = outcome.broken.map(|(invariant, _)| invariant.name());
        assert_eq!(found, variant.breaks, "{name}");
    }
}
