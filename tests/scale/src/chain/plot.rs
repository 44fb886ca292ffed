//! Draws the results.

use std::path::Path;

use anyhow::Result;
use scale::bars::{self, Bar, Group, Side};

use crate::WINDOWS;
use crate::report::{CALLS, OFFER_STATUSES, Operator, Results, most_writes};

/// Writes the plot as SVG.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(file: &Path, results: &Results) -> Result<()> {
    let title = "Registrations of the operator and of an alloy program that only sends; what each takes (line: most)";
    bars::draw(file, title, &groups(results))
}

fn groups(results: &Results) -> Vec<Group> {
    let mut rates = Vec::new();
    for run in &results.raw {
        let operator = run.window.and_then(|window| results.operator_with(window));
        let window = run
            .window
            .map_or("no window".to_owned(), |window| format!("window {window}"));
        let sides = [
            (
                Side::Operator,
                "operator",
                operator.map(|run| &run.inclusion),
            ),
            (Side::Peer, "alloy", Some(&run.inclusion)),
        ];
        for (side, name, inclusion) in sides {
            let value = inclusion.and_then(|inclusion| inclusion.per_second());
            rates.extend(value.map(|value| Bar {
                label: format!("{name}, {window}"),
                side,
                value,
            }));
        }
    }
    let each = |title: &str, value: fn(&Operator) -> f64, bound: Option<f64>| Group {
        title: title.to_owned(),
        unit: "",
        bars: bars_of(&results.operator, value),
        bound,
    };
    let mut groups = vec![Group {
        title: "registrations per second".to_owned(),
        unit: "",
        bars: rates,
        bound: None,
    }];
    for window in WINDOWS {
        let run = results.operator_with(window);
        groups.push(Group {
            title: format!("record and ledger writes, window {window}"),
            unit: "",
            bars: bars_of(run, Operator::stored_each),
            bound: run.map(|run| most_writes(window, run.registrations)),
        });
    }
    groups.push(each(
        "offer status writes",
        Operator::statuses_each,
        Some(OFFER_STATUSES),
    ));
    groups.push(each("RPC calls", Operator::calls_each, Some(CALLS)));
    groups
}

fn bars_of<'run>(
    runs: impl IntoIterator<Item = &'run Operator>,
    value: fn(&Operator) -> f64,
) -> Vec<Bar> {
    let bars = runs.into_iter().map(|run| Bar {
        label: format!("operator, window {}", run.window),
        side: Side::Operator,
        value: value(run),
    });
    bars.collect()
}
