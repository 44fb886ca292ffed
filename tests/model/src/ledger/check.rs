//! Checks the shipped core within bounds, and refutes variants.

use super::bounds::{Bounds, bounds};
use super::cores::{SHIPPED, core};
use super::search::{Outcome, Report, search};
use super::variants::{Change, Variant};
use super::world::World;

/// Searches every schedule of the shipped core within bounds. `None` if there is no such world.
#[must_use]
pub fn check(bounds: Bounds, limit: usize, report: Report<'_>) -> Option<Outcome> {
    let world = World::new(SHIPPED, None, bounds)?;
    Some(search(&world, limit, report))
}

/// Searches for a schedule in which a variant violates an invariant. `None` if there is no such
/// world.
#[must_use]
pub fn refute(variant: &Variant, limit: usize, report: Report<'_>) -> Option<Outcome> {
    let (core, flaw) = match variant.change {
        Change::Core(_) => (core(variant.name)?, None),
        Change::Shell(flaw) => (SHIPPED, Some(flaw)),
        Change::Both(_, flaw) => (core(variant.name)?, Some(flaw)),
    };
    let world = World::new(core, flaw, bounds(variant.within)?)?;
    Some(search(&world, limit, report))
}
