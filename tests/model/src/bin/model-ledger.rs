//! `make model-ledger`: searches every configuration and every broken variant, two at a time, and
//! prints the results.
//!
//! Arguments select configurations or variants by name. It fails if the shipped core violates an
//! invariant that it is not known to violate, if a search did not reach every state, or if a variant
//! ends otherwise than its row says.

use std::process::ExitCode;

use model::ledger::bounds::{Bounds, bounds, findings, known_violation, others, pairs, singles};
use model::ledger::check::{check, refute};
use model::ledger::search::Outcome;
use model::ledger::variants::{VARIANTS, Variant};
use model::table;

/// States at which a search gives up; two such searches fit into 16 GiB.
const LIMIT: usize = 25_000_000;

/// One row of the table.
enum Row {
    Shipped(Bounds),
    Variant(Variant),
}

impl Row {
    fn name(&self) -> &str {
        match self {
            Self::Shipped(bounds) => &bounds.name,
            Self::Variant(variant) => variant.name,
        }
    }
}

fn rows() -> Vec<Row> {
    let all = singles().into_iter().chain(others()).chain(findings());
    let shipped = all.chain(pairs()).map(Row::Shipped);
    let variants = VARIANTS.iter().copied().map(Row::Variant);
    shipped.chain(variants).collect()
}

fn main() -> ExitCode {
    let rows = rows();
    println!(
        "{:<28} {:<14} {:>9} {:>5} {:>7}  {:<9} what is explored, or what is broken",
        "configuration or variant", "bounds", "states", "depth", "time", "result"
    );
    table::print(rows, Row::name, run)
}

/// Runs one row. Returns its line, and whether it ends as expected.
fn run(row: &Row) -> (String, bool) {
    let report = |states: usize, done: usize| {
        if done.is_multiple_of(1 << 20) {
            eprintln!("{}: {states} states, {done} explored", row.name());
        }
    };
    match row {
        Row::Shipped(bounds) => {
            let breaks = known_violation(&bounds.name);
            let Some(outcome) = check(bounds.clone(), LIMIT, &report) else {
                return (format!("{}: no world", bounds.name), false);
            };
            let found = outcome
                .broken
                .as_ref()
                .map(|(invariant, _)| invariant.name());
            let result = match (found, breaks) {
                (None, None) if outcome.is_complete => "holds".to_owned(),
                (None, None) => "TOO LARGE".to_owned(),
                (Some(found), Some(breaks)) if found == breaks => format!("KNOWN {found}"),
                (found, _) => format!("FAILS {}", found.unwrap_or("not")),
            };
            let holds = result == "holds" || result.starts_with("KNOWN");
            let mut line = line(row.name(), bounds, &outcome, &result, &bounds.about);
            for step in outcome.broken.iter().flat_map(|(_, schedule)| schedule) {
                line.push_str("\n    ");
                line.push_str(step);
            }
            (line, holds)
        }
        Row::Variant(variant) => {
            let bounds = bounds(variant.within);
            let (Some(bounds), Some(outcome)) = (bounds, refute(variant, LIMIT, &report)) else {
                return (format!("{}: no world", variant.name), false);
            };
            let found = outcome
                .broken
                .as_ref()
                .map(|(invariant, _)| invariant.name());
            let result = match found {
                Some(found) => format!("killed {found}"),
                None => "survives".to_owned(),
            };
            let about = format!("{}: {}", variant.within, variant.about);
            (
                line(variant.name, &bounds, &outcome, &result, &about),
                found == variant.breaks,
            )
        }
    }
}

fn line(name: &str, bounds: &Bounds, outcome: &Outcome, result: &str, about: &str) -> String {
    format!(
        "{name:<28} {:<14} {:>9} {:>5} {:>5.1} s  {result:<9} {about}",
        bounds.summary(),
        outcome.states,
        outcome.depth,
        outcome.time.as_secs_f64()
    )
}
