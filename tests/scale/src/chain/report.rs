//! The results of a run, compared with their targets. Values and text only.

use std::collections::BTreeMap;

use harness::bench::{Environment, Target, table, target};
use jiff::Timestamp;
use scale::cost::Cost;
use scale::requests::Requests;
use serde::Serialize;

use crate::inclusion::Inclusion;
use crate::{Plan, WINDOWS};

/// Registrations per second, compared with the program's.
const RATE: f64 = 0.95;
/// Writes to the status of an offer per registration.
pub const OFFER_STATUSES: f64 = 4.0;
/// RPC calls per registration.
pub const CALLS: f64 = 12.0;

/// Writes to records and ledgers per registration: a record is created, gets its transaction and
/// its result; and the ledger gets and loses the entries of a window in one write each. The last
/// window need not be full.
pub fn most_writes(window: u16, registrations: usize) -> f64 {
    let windows = registrations.div_ceil(window.into());
    3.0 + 2.0 * windows as f64 / registrations as f64
}

/// How the program's registrations were included.
#[derive(Clone, Debug, Serialize)]
pub struct Raw {
    /// Transactions that may be in no block; none if that is not limited.
    pub window: Option<u16>,
    #[serde(flatten)]
    pub inclusion: Inclusion,
}

/// How the operator's registrations were included, and what they took.
#[derive(Clone, Debug, Serialize)]
pub struct Operator {
    /// Transactions that may be in no block.
    pub window: u16,
    pub registrations: usize,
    #[serde(flatten)]
    pub inclusion: Inclusion,
    /// From the moment the operator led until the last offer had its agent id, in seconds.
    pub until_final: f64,
    /// Its API requests, from its start until nothing followed.
    pub requests: Requests,
    /// Its RPC calls by method, likewise.
    pub calls: BTreeMap<String, f64>,
    /// From the start of its process until the last offer had its agent id.
    pub cost: Cost,
}

impl Operator {
    fn each(&self, count: f64) -> f64 {
        count / self.registrations as f64
    }

    /// Writes to records and ledgers per registration.
    pub fn stored_each(&self) -> f64 {
        self.each(f64::from(self.requests.records + self.requests.ledgers))
    }

    /// Writes to offers' statuses per registration.
    pub fn statuses_each(&self) -> f64 {
        self.each(f64::from(self.requests.offer_statuses))
    }

    /// RPC calls per registration.
    pub fn calls_each(&self) -> f64 {
        self.each(self.calls.values().sum())
    }
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    pub raw: Vec<Raw>,
    pub operator: Vec<Operator>,
}

/// A run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub begun: Timestamp,
    pub seconds: f64,
    pub environment: Environment,
    pub plan: Plan,
    pub targets: Vec<Target>,
    #[serde(flatten)]
    pub results: Results,
}

impl Results {
    /// The operator with a window.
    pub fn operator_with(&self, window: u16) -> Option<&Operator> {
        self.operator.iter().find(|run| run.window == window)
    }

    /// The program with a window, or without one.
    pub fn raw_with(&self, window: Option<u16>) -> Option<&Raw> {
        self.raw.iter().find(|run| run.window == window)
    }

    /// Registrations of each run.
    fn registrations(&self) -> usize {
        let mut runs = self.operator.iter().map(|run| run.registrations);
        runs.next().unwrap_or(1)
    }

    /// Compares the results with their targets.
    pub fn targets(&self) -> Vec<Target> {
        let windows = WINDOWS.into_iter();
        windows
            .flat_map(|window| {
                let operator = self.operator_with(window);
                [
                    self.rate_target(window),
                    each_target(
                        format!("record and ledger writes each, window {window}"),
                        rounded(most_writes(window, self.registrations())),
                        operator.map(Operator::stored_each),
                    )
                    .because(operator.map_or_else(String::new, explain_writes)),
                    each_target(
                        format!("offer status writes each, window {window}"),
                        OFFER_STATUSES,
                        operator.map(Operator::statuses_each),
                    )
                    .because(operator.map_or_else(String::new, explain_writes)),
                    each_target(
                        format!("RPC calls each, window {window}"),
                        CALLS,
                        operator.map(Operator::calls_each),
                    )
                    .because(operator.map_or_else(String::new, explain_calls)),
                ]
            })
            .collect()
    }

    fn rate_target(&self, window: u16) -> Target {
        let (operator, raw) = (self.operator_with(window), self.raw_with(Some(window)));
        let rates = operator.zip(raw).and_then(|(operator, raw)| {
            Some((
                operator.inclusion.per_second()?,
                raw.inclusion.per_second()?,
            ))
        });
        let measure = format!("registrations per second, operator / alloy, window {window}");
        let ratio = rates.map(|(ours, theirs)| rounded(ours / theirs));
        let facts = operator.map_or_else(String::new, explain_rate);
        Target::at_least(measure, RATE, "", ratio).because(facts)
    }
}

fn each_target(measure: String, most: f64, each: Option<f64>) -> Target {
    Target::at_most(measure, most, "", each.map(rounded))
}

fn explain_rate(run: &Operator) -> String {
    let blocks = run.inclusion.blocks.iter();
    let per_block: Vec<_> = blocks
        .map(|block| block.registrations.to_string())
        .collect();
    let Cost {
        leader,
        api_server,
        machine,
        seconds,
    } = run.cost;
    format!(
        "registrations by block: {}; CPU of the operator {leader:.1} s, the API server's {api_server:.1} s, all of the machine's {machine:.1} s in {seconds:.1} s",
        per_block.join(" ")
    )
}

fn explain_writes(run: &Operator) -> String {
    let Requests {
        offer_statuses,
        records,
        ledgers,
        other_writes,
        failed,
        ..
    } = run.requests;
    format!(
        "{records} of records, {ledgers} of ledgers, {offer_statuses} of offer statuses, {other_writes} others; {failed} requests failed"
    )
}

fn explain_calls(run: &Operator) -> String {
    let calls = run.calls.iter().filter(|(_, count)| **count > 0.0);
    let calls: Vec<_> = calls
        .map(|(method, count)| format!("{method} {count}"))
        .collect();
    calls.join(", ")
}

/// As it is shown, so that a value and its verdict agree.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Report {
    /// Whether every target was met.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }

    /// The report as text tables, and what explains the targets that were missed.
    pub fn text(&self) -> String {
        let results = &self.results;
        let mut text = [
            rate_table(results),
            cost_table(&results.operator),
            target::table(&self.targets),
        ]
        .join("\n");
        for missed in self.targets.iter().filter(|target| !target.met) {
            let because = missed.because.as_deref().unwrap_or_default();
            text.push_str(&format!("\nMISSED {}: {because}\n", missed.measure));
        }
        text
    }
}

fn rate_table(results: &Results) -> String {
    let mut rows = vec![
        [
            "REGISTRATIONS",
            "WINDOW",
            "COUNT",
            "BLOCKS",
            "PER SECOND",
            "FROM FIRST SEND S",
            "UNTIL FINAL S",
        ]
        .map(str::to_owned),
    ];
    let mut add = |name: &str, window: Option<u16>, found: &Inclusion, until_final| {
        let count: usize = found.blocks.iter().map(|block| block.registrations).sum();
        let decimal =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        rows.push([
            name.to_owned(),
            window.map_or("none".to_owned(), |window| window.to_string()),
            count.to_string(),
            found.blocks.len().to_string(),
            decimal(found.per_second()),
            decimal(Some(found.from_first_send)),
            decimal(until_final),
        ]);
    };
    for run in &results.raw {
        add("alloy", run.window, &run.inclusion, None);
        if let Some(operator) = run.window.and_then(|window| results.operator_with(window)) {
            let until_final = Some(operator.until_final);
            add("operator", run.window, &operator.inclusion, until_final);
        }
    }
    table(&rows)
}

fn cost_table(all: &[Operator]) -> String {
    let mut rows = vec![
        [
            "OPERATOR, EACH",
            "WINDOW",
            "RECORD WRITES",
            "LEDGER WRITES",
            "STATUS WRITES",
            "OTHER WRITES",
            "READS",
            "FAILED",
            "RPC CALLS",
            "CPU MS",
            "API SERVER MS",
        ]
        .map(str::to_owned),
    ];
    for run in all {
        let each = |count: u32| format!("{:.2}", run.each(f64::from(count)));
        let milliseconds = |seconds: f64| format!("{:.1}", run.each(seconds * 1000.0));
        rows.push([
            "registration".to_owned(),
            run.window.to_string(),
            each(run.requests.records),
            each(run.requests.ledgers),
            each(run.requests.offer_statuses),
            each(run.requests.other_writes),
            each(run.requests.reads),
            each(run.requests.failed),
            format!("{:.2}", run.calls_each()),
            milliseconds(run.cost.leader),
            milliseconds(run.cost.api_server),
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use crate::inclusion::IncludedIn;

    use super::*;

    fn inclusion(per_block: usize) -> Inclusion {
        let block = |(number, registrations)| IncludedIn {
            seconds: number,
            registrations,
        };
        Inclusion {
            blocks: [(0.0, 5), (1.0, per_block)].map(block).into(),
            from_first_send: 2.0,
        }
    }

    fn operator(per_block: usize) -> Operator {
        Operator {
            window: 16,
            registrations: 100,
            inclusion: inclusion(per_block),
            until_final: 10.0,
            requests: Requests::default(),
            calls: BTreeMap::new(),
            cost: Cost::default(),
        }
    }

    fn results(operator: Operator) -> Results {
        let raw = Raw {
            window: Some(16),
            inclusion: inclusion(100),
        };
        Results {
            raw: vec![raw],
            operator: vec![operator],
        }
    }

    fn verdict(results: &Results, measure: &str) -> (bool, Option<String>) {
        let targets = results.targets();
        let found = targets.iter().find(|target| target.measure == measure);
        let found = found.unwrap();
        (found.met, found.measured.clone())
    }

    #[test]
    fn target_without_a_measurement_is_not_met() {
        let targets = Results::default().targets();
        let is_open = |target: &Target| !target.met && target.measured.is_none();
        assert_eq!(targets.len(), 4 * WINDOWS.len());
        assert!(targets.iter().all(is_open), "{targets:?}");
    }

    #[test]
    fn rates_with_the_same_window_are_compared() {
        let measure = "registrations per second, operator / alloy, window 16";
        let measured = |per_block| verdict(&results(operator(per_block)), measure);
        assert_eq!(measured(95), (true, Some("0.950".into())));
        assert_eq!(measured(94), (false, Some("0.940".into())));
    }

    #[test]
    fn writes_and_calls_are_counted_per_registration() {
        let mut run = operator(100);
        run.requests.records = 300;
        // 100 are six full windows and a part of one.
        run.requests.ledgers = 14;
        run.requests.offer_statuses = 400;
        run.calls = [("a".to_owned(), 700.0), ("b".to_owned(), 501.0)].into();
        let results = results(run);
        let stored = verdict(&results, "record and ledger writes each, window 16");
        assert_eq!(stored, (true, Some("3.140".into())));
        let statuses = verdict(&results, "offer status writes each, window 16");
        assert_eq!(statuses, (true, Some("4".into())));
        let calls = verdict(&results, "RPC calls each, window 16");
        assert_eq!(calls, (false, Some("12.01".into())));
    }
}
