//! The results of a bench run, compared with their targets. Values and text only.

use harness::bench::{Distribution, Environment, Target, table, target};
use jiff::Timestamp;
use serde::Serialize;

use crate::candidate::{Implementation, Timing};

/// Allowance in seconds beyond the lease duration for a takeover after a crash.
pub const SLACK: f64 = 0.3;

/// An implementation and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BenchCase {
    /// Implementation and settings.
    pub kind: Implementation,
    /// Lease duration, renew deadline and retry period.
    pub timing: Timing,
    /// Whether it releases its Lease on SIGTERM.
    pub release: bool,
}

impl std::fmt::Display for BenchCase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let no_release = if self.release { "" } else { ", no release" };
        write!(
            formatter,
            "{} {}{no_release}",
            self.kind.name(),
            self.timing
        )
    }
}

impl Serialize for BenchCase {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a leader is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// By SIGTERM.
    Graceful,
    /// By SIGKILL.
    Crash,
    /// By SIGKILL to its container's process on the node, where the kubelet reports it.
    Container,
}

impl Measure {
    /// Display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Graceful => "graceful handover",
            Self::Crash => "crash of a process",
            Self::Container => "container killed",
        }
    }
}

/// One takeover.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// From the signal until the next leader starts leading.
    pub seconds: f64,
    /// From the arrival of the former leader's last renewal until the next leader starts leading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_renewal: Option<f64>,
}

/// All samples of one measure and case.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// How leaders were ended.
    pub measure: Measure,
    /// Implementation and settings.
    pub case: BenchCase,
    /// Samples in the order of the run.
    pub samples: Vec<Sample>,
}

impl Series {
    /// Distribution of the time from the signal until the next leader starts leading.
    pub fn distribution(&self) -> Distribution {
        Distribution::of(self.samples.iter().map(|sample| sample.seconds))
    }
}

/// Resource usage of one idle candidate.
#[derive(Clone, Debug, Serialize)]
pub struct IdleUsage {
    /// Implementation and settings.
    pub case: BenchCase,
    /// Identity of the candidate.
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

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Start time.
    pub begun: Timestamp,
    /// Duration in seconds.
    pub seconds: f64,
    /// What was measured, and on which machine.
    pub environment: Environment,
    /// Takeover times.
    pub series: Vec<Series>,
    /// Usage of idle candidates.
    pub usage: Vec<IdleUsage>,
    /// The target.
    pub targets: Vec<Target>,
}

/// Compares the measurements with their targets.
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
        Target::at_most("graceful handover p50", 0.05, "s", quantile(&graceful, 0.5)),
        Target::at_most(
            "graceful handover p99",
            0.25,
            "s",
            quantile(&graceful, 0.99),
        ),
    ];
    let ratio = graceful.and_then(|ours| Some(peer?.mean()? / ours.mean()?));
    targets.push(Target {
        measure: "graceful handover, mean of client-go / operator".to_owned(),
        target: ">= 20".to_owned(),
        measured: ratio.map(|ratio| format!("{ratio:.0}")),
        met: ratio.is_some_and(|ratio| ratio >= 20.0),
        because: None,
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
        targets.push(Target::at_most(
            latest,
            timing.lease.as_secs_f64() + SLACK,
            "s",
            quantile(&renewed, 1.0),
        ));
        targets.push(Target::at_least(
            earliest,
            fence,
            "s",
            renewed.and_then(|found| found.min()),
        ));
    }
    let container =
        of(Measure::Container, Implementation::Operator, Timing::LONG).map(Series::distribution);
    targets.push(Target::at_most(
        "container killed p50",
        1.2,
        "s",
        quantile(&container, 0.5),
    ));
    targets.push(Target::at_most(
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
    targets.push(Target::at_most(
        "standby's requests per minute besides watches",
        0.0,
        "",
        requests,
    ));
    let resident = most(&mut standbys(Implementation::Operator).map(|one| one.resident));
    targets.push(Target::at_most(
        "idle standby's resident memory",
        20.0,
        "MB",
        resident,
    ));
    let half = standbys(Implementation::ControllerRuntime)
        .map(|one| one.resident / 2.0)
        .reduce(f64::min);
    if let Some(half) = half {
        targets.push(Target::at_most(
            "idle standby's memory, half of controller-runtime's",
            half,
            "MB",
            resident,
        ));
    }
    targets
}

impl Report {
    /// The report as text tables.
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
        [table(&times), table(&costs), target::table(&self.targets)].join("\n")
    }
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
        targets
            .iter()
            .find(|target| target.measure == measure)
            .unwrap()
    }

    #[test]
    fn target_without_a_measurement_is_not_met() {
        let targets = targets(&[], &[]);
        assert!(
            targets
                .iter()
                .all(|target| !target.met && target.measured.is_none()),
            "{targets:?}"
        );
    }

    #[test]
    fn handover_is_compared_with_targets_and_with_client_go() {
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
        assert_eq!((p99.met, p99.measured.as_deref()), (false, Some("0.300 s")));
        let ratio = find(&targets, "graceful handover, mean of client-go / operator");
        assert_eq!((ratio.met, ratio.measured.as_deref()), (false, Some("17")));
    }

    #[test]
    fn crash_takeover_may_be_neither_late_nor_early() {
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
    fn worst_standby_counts_without_watches_and_leaders() {
        let all = [
            usage(Implementation::Operator, true, 12.0, 50.0),
            usage(Implementation::Operator, false, 0.0, 12.0),
            usage(Implementation::Operator, false, 0.5, 15.0),
            usage(Implementation::ControllerRuntime, false, 7.0, 28.0),
        ];
        let targets = targets(&[], &all);
        let requests = find(&targets, "standby's requests per minute besides watches");
        assert_eq!(
            (requests.met, requests.measured.as_deref()),
            (false, Some("0.500"))
        );
        assert!(find(&targets, "idle standby's resident memory").met);
        assert!(
            !find(
                &targets,
                "idle standby's memory, half of controller-runtime's"
            )
            .met
        );
    }
}
