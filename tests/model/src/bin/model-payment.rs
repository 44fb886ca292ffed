//! `make model-payment`: searches every configuration and every broken variant, two at a time, and
//! prints the results.
//!
//! Arguments select configurations or variants by name. It fails if the shipped core and shell
//! violate a property that they are not known to violate, or do not violate one that they are, if a
//! search did not reach every state, or if a variant survives.

use std::process::ExitCode;

use model::payment::bounds::{Bounds, all, bounds};
use model::payment::check::{Outcome, check, refute};
use model::payment::variants::{VARIANTS, Variant};
use model::table;

/// Steps at which a search gives up.
const LIMIT: usize = 100_000_000;

/// One row of the table.
enum Row {
    Shipped(Bounds),
    Variant(Variant),
}

impl Row {
    fn name(&self) -> &str {
        match self {
            Self::Shipped(bounds) => bounds.name,
            Self::Variant(variant) => variant.name,
        }
    }
}

fn main() -> ExitCode {
    let shipped = all().map(Row::Shipped);
    let variants = VARIANTS.iter().copied().map(Row::Variant);
    let rows: Vec<Row> = shipped.chain(variants).collect();
    println!(
        "{:<26} {:>9} {:>5} {:>7}  {:<34} what is explored, or what is broken",
        "configuration or variant", "states", "depth", "time", "result"
    );
    table::print(rows, Row::name, run)
}

/// Runs one row. Returns its line, and whether it ends as expected.
fn run(row: &Row) -> (String, bool) {
    match row {
        Row::Shipped(bounds) => shipped(bounds),
        Row::Variant(variant) => refuted(variant),
    }
}

fn shipped(bounds: &Bounds) -> (String, bool) {
    let outcome = check(*bounds, LIMIT);
    let found = outcome.names();
    let is_expected = outcome.is_complete && found == bounds.known_names();
    let result = match (is_expected, found.is_empty()) {
        _ if !outcome.is_complete => "TOO LARGE".to_owned(),
        (true, true) => "holds".to_owned(),
        (true, false) => format!("KNOWN {}", found.join(" ")),
        (false, true) => "FAILS not".to_owned(),
        (false, false) => format!("FAILS {}", found.join(" ")),
    };
    let mut text = line(bounds.name, &outcome, &result, bounds.about);
    for (property, schedule) in &outcome.broken {
        text.push_str("\n    ");
        text.push_str(property.name());
        let mut known = bounds.known.iter();
        if let Some(known) = known.find(|known| known.property == *property) {
            text.push_str(": ");
            text.push_str(known.why);
        }
        for step in schedule {
            text.push_str("\n        ");
            text.push_str(step);
        }
    }
    (text, is_expected)
}

fn refuted(variant: &Variant) -> (String, bool) {
    let Some(bounds) = bounds(variant.within) else {
        return (format!("{}: no bounds", variant.name), false);
    };
    let outcome = refute(variant, bounds, LIMIT);
    let is_killed = outcome.names().contains(&variant.breaks.name());
    let result = match is_killed {
        true => format!("killed {}", variant.breaks.name()),
        false => "survives".to_owned(),
    };
    let about = format!("{}: {}", variant.within, variant.about);
    (line(variant.name, &outcome, &result, &about), is_killed)
}

fn line(name: &str, outcome: &Outcome, result: &str, about: &str) -> String {
    format!(
        "{name:<26} {:>9} {:>5} {:>5.1} s  {result:<34} {about}",
        outcome.states,
        outcome.depth,
        outcome.time.as_secs_f64()
    )
}
