//! What a run of the bench found, and whether it is what was target. Values and text only.

use jiff::Timestamp;
use serde::Serialize;

use super::distribution::Distribution;
use crate::candidate::{Implementation, Timing};

/// How long another may take beyond the lease of a leader that died.
pub const SLACK: f64 = 0.3;

/// Whose time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BenchCase {
    /// What it is.
    pub kind: Implementation,
    /// Its times.
    pub timing: Timing,
    /// Whether it releases its Lease when it is asked to end.
    pub release: bool,
}

impl std::fmt::Display for BenchCase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept = if self.release { "" } else { ", no release" };
        write!(formatter, "{} {}{kept}", self.kind.name(), self.timing)
    }
}

impl Serialize for BenchCase {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is done to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// It is asked to end.
    Graceful,
    /// Its process is killed.
    Crash,
    /// Its container's process is killed on the node, where the kubelet sees it.
    Container,
}

impl Measure {
    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Graceful => "graceful handover",
            Self::Crash => "crash of a process",
            Self::Container => "container killed",
        }
    }
}

/// One leader's end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// From the signal to the next begin of leading.
    pub seconds: f64,
    /// From the arrival of the dead leader's last renewal to the next begin of leading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_renewal: Option<f64>,
}

/// All samples of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// What was done.
    pub measure: Measure,
    /// To whom.
    pub case: BenchCase,
    /// How long it took, in the order of the run.
    pub samples: Vec<Sample>,
}

impl Series {
    /// From the signal to the next begin of leading.
    pub fn distribution(&self) -> Distribution {
        Distribution::of(self.samples.iter().map(|sample| sample.seconds))
    }
}

/// What one candidate costs while nothing happens.
#[derive(Clone, Debug, Serialize)]
pub struct IdleUsage {
    /// What it is.
    pub case: BenchCase,
    /// Its name.
    pub identity: String,
    /// Whether it leads.
    pub leads: bool,
    /// Writes to the Lease per minute.
    pub lease_writes: f64,
    /// Reads of the Lease per minute, watches not counted.
    pub lease_reads: f64,
    /// Other requests per minute, watches not counted.
    pub others: f64,
    /// Watches begun per minute, of the Lease and of everything else.
    pub watches: f64,
    /// Milliseconds of processor time per minute.
    pub cpu: f64,
    /// Resident memory in megabytes of 1,000,000 bytes.
    pub resident: f64,
}

impl IdleUsage {
    /// Requests per minute besides watches.
    pub fn requests(&self) -> f64 {
        self.lease_writes + self.lease_reads + self.others
    }
}

/// Something that was target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// Of what.
    pub measure: &'static str,
    /// What was target.
    pub target: String,
    /// What was seen; none if it was not measured.
    pub seen: Option<String>,
    /// Whether it was kept; not, if it was not measured.
    pub met: bool,
}

/// Everything that a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When it began.
    pub begun: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// What was measured, and on what.
    pub environment: Environment,
    /// How long takeovers took.
    pub series: Vec<Series>,
    /// What candidates cost.
    pub usage: Vec<IdleUsage>,
    /// What was target.
    pub targets: Vec<Target>,
}

/// What was measured, and on what.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// The commit of this checkout, and whether files differ from it.
    pub commit: String,
    /// The operator's binary.
    pub binary: String,
    /// Version of the API server, and of client-go.
    pub kubernetes: String,
    /// The processor.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Memory in megabytes.
    pub memory: u64,
    /// Version of the kernel.
    pub kernel: String,
}

/// Compares what was found with what was target.
pub fn targets(series: &[Series], usage: &[IdleUsage]) -> Vec<Target> {
    let of = |measure, kind, timing| {
        let found = series.iter().find(|one| {
            one.measure == measure && one.case.kind == kind && one.case.timing == timing
        });
        found.filter(|one| !one.samples.is_empty())
    };
    let graceful =
        of(Measure::Graceful, Implementation::Operator, Timing::LONG).map(Series::distribution);
    let peer =
        of(Measure::Graceful, Implementation::ClientGo, Timing::LONG).map(Series::distribution);
    let quantile =
        |of: &Option<Distribution>, share| of.as_ref().and_then(|found| found.quantile(share));
    let mut targets = vec![
        at_most("graceful handover p50", 0.05, "s", quantile(&graceful, 0.5)),
        at_most(
            "graceful handover p99",
            0.25,
            "s",
            quantile(&graceful, 0.99),
        ),
    ];
    let ratio = graceful.and_then(|ours| Some(peer?.mean()? / ours.mean()?));
    targets.push(Target {
        measure: "graceful handover, mean of client-go / ours",
        target: ">= 20".to_owned(),
        seen: ratio.map(|ratio| format!("{ratio:.0}")),
        met: ratio.is_some_and(|ratio| ratio >= 20.0),
    });
    for (timing, latest, earliest) in [
        (
            Timing::LONG,
            "crash at 30/20/5, longest from the last renewal",
            "crash at 30/20/5, shortest, fence end",
        ),
        (
            Timing::SHORT,
            "crash at 15/10/2, longest from the last renewal",
            "crash at 15/10/2, shortest, fence end",
        ),
    ] {
        let found = of(Measure::Crash, Implementation::Operator, timing);
        let renewed = found.map(|one| {
            Distribution::of(one.samples.iter().filter_map(|sample| sample.since_renewal))
        });
        let fence = (timing.lease - timing.guard()).as_secs_f64();
        targets.push(at_most(
            latest,
            timing.lease.as_secs_f64() + SLACK,
            "s",
            quantile(&renewed, 1.0),
        ));
        targets.push(at_least(
            earliest,
            fence,
            "s",
            renewed.and_then(|found| found.min()),
        ));
    }
    let container =
        of(Measure::Container, Implementation::Operator, Timing::LONG).map(Series::distribution);
    targets.push(at_most(
        "container killed p50",
        1.2,
        "s",
        quantile(&container, 0.5),
    ));
    targets.push(at_most(
        "container killed max",
        2.5,
        "s",
        quantile(&container, 1.0),
    ));
    let standbys = |kind| {
        usage
            .iter()
            .filter(move |one| one.case.kind == kind && !one.leads)
    };
    let most = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::max);
    let requests = most(&mut standbys(Implementation::Operator).map(IdleUsage::requests));
    targets.push(at_most(
        "standby's requests per minute besides watches",
        0.0,
        "",
        requests,
    ));
    let resident = most(&mut standbys(Implementation::Operator).map(|one| one.resident));
    targets.push(at_most(
        "idle standby's resident memory",
        20.0,
        "MB",
        resident,
    ));
    let half = standbys(Implementation::ControllerRuntime)
        .map(|one| one.resident / 2.0)
        .reduce(f64::min);
    if let Some(half) = half {
        targets.push(at_most(
            "the same, half of controller-runtime's",
            half,
            "MB",
            resident,
        ));
    }
    targets
}

fn at_most(measure: &'static str, most: f64, unit: &str, seen: Option<f64>) -> Target {
    bar(
        measure,
        "<=",
        most,
        unit,
        seen,
        seen.is_some_and(|seen| seen <= most),
    )
}

fn at_least(measure: &'static str, least: f64, unit: &str, seen: Option<f64>) -> Target {
    bar(
        measure,
        ">=",
        least,
        unit,
        seen,
        seen.is_some_and(|seen| seen >= least),
    )
}

fn bar(
    measure: &'static str,
    relation: &str,
    bound: f64,
    unit: &str,
    seen: Option<f64>,
    met: bool,
) -> Target {
    let text = |value: f64| format!("{} {unit}", number(value)).trim_end().to_owned();
    Target {
        measure,
        target: format!("{relation} {}", text(bound)),
        seen: seen.map(text),
        met,
    }
}

/// Three digits after the point for what is small, fewer for what is large.
fn number(value: f64) -> String {
    match value {
        value if value.abs() < 10.0 && value.fract() != 0.0 => format!("{value:.3}"),
        value if value.fract() != 0.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

impl Report {
    /// Everything as text, for a person.
    pub fn text(&self) -> String {
        let mut times = vec![
            [
                "TAKEOVER",
                "CANDIDATES",
                "N",
                "MIN",
                "MEAN",
                "P50",
                "P90",
                "P99",
                "MAX",
            ]
            .map(str::to_owned),
        ];
        for one in &self.series {
            let found = one.distribution();
            let figures = [
                found.min(),
                found.mean(),
                found.quantile(0.5),
                found.quantile(0.9),
                found.quantile(0.99),
                found.max(),
            ];
            let [min, mean, p50, p90, p99, max] =
                figures.map(|value| value.map_or("-".to_owned(), |s| format!("{s:.3}")));
            let name = one.measure.name().to_owned();
            times.push([
                name,
                one.case.to_string(),
                found.count().to_string(),
                min,
                mean,
                p50,
                p90,
                p99,
                max,
            ]);
        }
        let mut costs = vec![
            [
                "PER MINUTE",
                "ROLE",
                "LEASE WRITES",
                "LEASE READS",
                "OTHERS",
                "WATCHES",
                "CPU MS",
                "RSS MB",
            ]
            .map(str::to_owned),
        ];
        for one in &self.usage {
            let role = if one.leads { "leader" } else { "standby" };
            let figures = [
                one.lease_writes,
                one.lease_reads,
                one.others,
                one.watches,
                one.cpu,
                one.resident,
            ];
            let [writes, reads, others, watches, cpu, resident] =
                figures.map(|value| format!("{value:.1}"));
            costs.push([
                one.case.to_string(),
                role.to_owned(),
                writes,
                reads,
                others,
                watches,
                cpu,
                resident,
            ]);
        }
        let mut targets = vec![["BAR", "PROMISED", "SEEN", ""].map(str::to_owned)];
        for bar in &self.targets {
            let (seen, met) = match &bar.seen {
                None => ("not measured", "-"),
                Some(seen) => (seen.as_str(), if bar.met { "met" } else { "MISSED" }),
            };
            targets.push([
                bar.measure.to_owned(),
                bar.target.clone(),
                seen.to_owned(),
                met.to_owned(),
            ]);
        }
        [table(&times), table(&costs), table(&targets)].join("\n")
    }
}

/// Columns as wide as their widest cell: the first two to the left, because they are words, the others to the right.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 | 1 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(measure: Measure, kind: Implementation, timing: Timing, seconds: &[f64]) -> Series {
        let sample = |seconds: &f64| Sample {
            seconds: *seconds,
            since_renewal: Some(*seconds + 1.0),
        };
        let case = BenchCase {
            kind,
            timing,
            release: true,
        };
        Series {
            measure,
            case,
            samples: seconds.iter().map(sample).collect(),
        }
    }

    fn usage(kind: Implementation, leads: bool, lease_reads: f64, resident: f64) -> IdleUsage {
        IdleUsage {
            case: BenchCase {
                kind,
                timing: Timing::LONG,
                release: true,
            },
            identity: "a".to_owned(),
            leads,
            lease_writes: 0.0,
            lease_reads,
            others: 0.0,
            watches: 9.0,
            cpu: 1.0,
            resident,
        }
    }

    fn find<'a>(targets: &'a [Target], measure: &str) -> &'a Target {
        targets.iter().find(|bar| bar.measure == measure).unwrap()
    }

    #[test]
    fn nothing_that_was_not_measured_counts_as_met() {
        let targets = targets(&[], &[]);
        assert!(
            targets.iter().all(|bar| !bar.met && bar.seen.is_none()),
            "{targets:?}"
        );
    }

    #[test]
    fn a_handover_is_compared_with_the_bars_and_with_client_go() {
        let ours = series(
            Measure::Graceful,
            Implementation::Operator,
            Timing::LONG,
            &[0.02, 0.04, 0.3],
        );
        let peer = series(
            Measure::Graceful,
            Implementation::ClientGo,
            Timing::LONG,
            &[1.0, 3.0],
        );
        let targets = targets(&[ours, peer], &[]);
        assert!(find(&targets, "graceful handover p50").met);
        let p99 = find(&targets, "graceful handover p99");
        assert_eq!((p99.met, p99.seen.as_deref()), (false, Some("0.300 s")));
        let ratio = find(&targets, "graceful handover, mean of client-go / ours");
        assert_eq!((ratio.met, ratio.seen.as_deref()), (false, Some("17")));
    }

    #[test]
    fn a_crash_is_counted_from_the_last_renewal_and_may_be_neither_late_nor_early() {
        let verdict = |seconds: &[f64]| {
            let targets = targets(
                &[series(
                    Measure::Crash,
                    Implementation::Operator,
                    Timing::LONG,
                    seconds,
                )],
                &[],
            );
            let met = |measure| find(&targets, measure).met;
            (
                met("crash at 30/20/5, longest from the last renewal"),
                met("crash at 30/20/5, shortest, fence end"),
            )
        };
        assert_eq!(verdict(&[26.1, 29.2]), (true, true));
        assert_eq!(verdict(&[26.1, 29.4]), (false, true));
        assert_eq!(verdict(&[25.9, 29.2]), (true, false));
    }

    #[test]
    fn the_worst_standby_counts_and_watches_and_leaders_do_not() {
        let all = [
            usage(Implementation::Operator, true, 12.0, 50.0),
            usage(Implementation::Operator, false, 0.0, 12.0),
            usage(Implementation::Operator, false, 0.5, 15.0),
            usage(Implementation::ControllerRuntime, false, 7.0, 28.0),
        ];
        let targets = targets(&[], &all);
        let requests = find(&targets, "standby's requests per minute besides watches");
        assert_eq!(
            (requests.met, requests.seen.as_deref()),
            (false, Some("0.500"))
        );
        assert!(find(&targets, "idle standby's resident memory").met);
        assert!(!find(&targets, "the same, half of controller-runtime's").met);
    }

    #[test]
    fn a_table_has_straight_columns() {
        let rows = [["a", "bb", "1"], ["aaa", "b", "22"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a    bb   1\naaa  b   22\n");
    }
}
