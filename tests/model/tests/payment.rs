//! The part of the model of payments that every build checks; `make model-payment` checks more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use model::payment::bounds::bounds;
use model::payment::check::{check, refute};
use model::payment::variants::VARIANTS;

/// Steps at which a search gives up.
const LIMIT: usize = 10_000_000;

#[test]
fn shipped_core_and_shell_violate_only_what_is_known() {
    for name in [
        "authorization",
        "upfront-once",
        "restart-steady",
        "restart-steady-upfront",
        "restart-steady-asked",
        "restart-blind",
        "restart-blind-asked",
        "balance-first",
        "restart-balance-blind",
    ] {
        let bounds = bounds(name).expect("they exist");
        let outcome = check(bounds, LIMIT);
        let known = bounds.known_names();
        assert_eq!(outcome.names(), known, "{name}: {:#?}", outcome.broken);
        assert!(outcome.is_complete, "{name}");
    }
}

#[test]
fn every_variant_is_refuted_by_the_property_that_it_violates() {
    for variant in VARIANTS {
        let bounds = bounds(variant.within).expect("they exist");
        assert!(!bounds.knows(variant.breaks), "{}", variant.name);
        let found = refute(variant, bounds, LIMIT).names();
        let breaks = variant.breaks.name();
        assert!(found.contains(&breaks), "{}: {found:?}", variant.name);
    }
}
