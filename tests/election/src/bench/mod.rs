//! The bench: compares the operator's elector with client-go's and with controller-runtime's
//! manager.
//!
//! One API server, three candidates per group, one process per candidate. Groups whose leader
//! crashes wait for lease expiry at the same time; handovers that take milliseconds are measured
//! while all other groups are idle. [`takeover`] and [`container`] end leaders, [`idle`] measures
//! idle candidates, [`report`] compares the results with their targets.

mod container;
mod idle;
mod plot;
mod report;
mod takeover;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use harness::bench::{Environment, Progress};
use jiff::Timestamp;
use testbed::{Cluster, Signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use self::container::Deployed;
use self::report::{BenchCase, Measure, Report, Series};
use self::takeover::Takeover;
use crate::candidate::{self, Implementation, Timing};
use crate::group::CandidateGroup;
use crate::lease_writes::LeaseWrites;
use crate::namespace::ElectionNamespace;

const OPERATOR: BenchCase = BenchCase {
    kind: Implementation::Operator,
    timing: Timing::LONG,
    release: true,
};
const OPERATOR_SHORT: BenchCase = BenchCase {
    timing: Timing::SHORT,
    ..OPERATOR
};
const CLIENT_GO: BenchCase = BenchCase {
    kind: Implementation::ClientGo,
    ..OPERATOR
};
const CLIENT_GO_SHORT: BenchCase = BenchCase {
    kind: Implementation::ClientGo,
    ..OPERATOR_SHORT
};
const MANAGER: BenchCase = BenchCase {
    kind: Implementation::ControllerRuntime,
    ..OPERATOR
};
/// controller-runtime's defaults.
const MANAGER_SHORT: BenchCase = BenchCase {
    kind: Implementation::ControllerRuntime,
    timing: Timing::SHORT,
    release: false,
};

/// Cases whose idle usage and graceful handover are measured.
const IDLE: [BenchCase; 4] = [OPERATOR, CLIENT_GO, MANAGER, MANAGER_SHORT];
/// Cases whose crash takeover is measured.
const CRASHING: [BenchCase; 6] = [
    OPERATOR,
    OPERATOR_SHORT,
    CLIENT_GO,
    CLIENT_GO_SHORT,
    MANAGER,
    MANAGER_SHORT,
];
/// Groups per case, which wait for lease expiry at the same time.
const GROUPS: usize = 10;
/// Groups that start at the same time. More would slow each other down.
const CONCURRENT_STARTS: usize = 3;
/// Time after which a new group only renews.
const SETTLE: Duration = Duration::from_secs(30);
/// Progress steps per minute of the idle measurement.
const STEPS_PER_MINUTE: usize = 12;

/// Number of samples per case.
#[derive(Clone, Copy, Debug)]
pub struct BenchPlan {
    /// Graceful handovers of each case.
    pub graceful: usize,
    /// Crashes of each case.
    pub crashes: usize,
    /// Killed containers of each case.
    pub containers: usize,
    /// Minutes of the idle measurement.
    pub minutes: usize,
}

impl BenchPlan {
    /// The plan behind the figures in the documentation.
    pub const FULL: Self = Self {
        graceful: 100,
        crashes: 30,
        containers: 20,
        minutes: 2,
    };

    /// Whether it measures at least as much as [`Self::FULL`].
    const fn is_full(self) -> bool {
        let Self {
            graceful,
            crashes,
            containers,
            minutes,
        } = Self::FULL;
        self.graceful >= graceful
            && self.crashes >= crashes
            && self.containers >= containers
            && self.minutes >= minutes
    }
}

/// Runs the bench, prints the report, and writes it to `target/bench`. A full run also redraws
/// `docs/election.svg`.
///
/// # Errors
/// If something could not be measured. A missed target is not an error.
pub async fn run(cluster: Cluster, plan: BenchPlan) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let begun = (Timestamp::now(), Instant::now());
    let namespace = Arc::new(ElectionNamespace::new(&cluster, "bench").await?);
    let bench = Bench {
        namespace,
        progress: Progress::new(),
        starts: Semaphore::new(CONCURRENT_STARTS),
        plan,
    };
    let (mut series, usage) = bench.measure_quiet().await?;
    series.extend(bench.measure_waiting().await?);
    // A failure here must not discard the results of the other parts.
    let containers = bench.measure_containers(&mut series).await;
    series.retain(|one| !one.samples.is_empty());
    series.sort_by_key(|one| {
        (
            one.measure,
            one.case.timing.lease < Timing::LONG.lease,
            one.case,
        )
    });
    let report = Report {
        begun: begun.0,
        seconds: begun.1.elapsed().as_secs_f64(),
        environment: Environment::read(&cluster, &root, &candidate::operator()?).await?,
        targets: report::targets(&series, &usage),
        series,
        usage,
    };
    let output = root.join("target/bench");
    fs::create_dir_all(&output)?;
    fs::write(
        output.join("election.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    let plot = output.join("election.svg");
    plot::draw(&plot, &report.series)?;
    println!("{}", report.text());
    let containers = containers.context("measuring containers");
    println!(
        "Took {:.0} s. All samples: target/bench/election.json; plot: target/bench/election.svg.",
        report.seconds
    );
    containers?;
    if plan.is_full() {
        fs::copy(plot, root.join("docs/election.svg"))?;
    }
    Ok(())
}

struct Bench {
    namespace: Arc<ElectionNamespace>,
    progress: Progress,
    starts: Semaphore,
    plan: BenchPlan,
}

/// A group and its number of samples.
struct Job {
    case: BenchCase,
    lease: String,
    crashes: usize,
    graceful: usize,
}

impl Bench {
    /// Measures on an otherwise idle machine: idle usage, and the operator's graceful handover.
    async fn measure_quiet(&self) -> Result<(Vec<Series>, Vec<report::IdleUsage>)> {
        self.progress.say("starting one group per case");
        let mut groups = Vec::new();
        for (number, case) in IDLE.into_iter().enumerate() {
            let group = takeover::start(
                &self.namespace,
                &format!("idle-{number}"),
                case,
                &self.starts,
            )
            .await?;
            groups.push((case, group));
        }
        let mut usage = Vec::new();
        if self.plan.minutes > 0 {
            sleep(SETTLE).await;
            let steps = self.plan.minutes * STEPS_PER_MINUTE;
            let track = self
                .progress
                .track("idle: requests, processor time, memory", steps);
            usage = idle::measure(&self.namespace, &mut groups, steps, &track).await?;
        }
        let track = self
            .progress
            .track(format!("graceful: {OPERATOR}"), self.plan.graceful);
        let mut samples = Vec::new();
        for (case, group) in &mut groups {
            if *case == OPERATOR {
                let takeovers =
                    takeover::run(group, Signal::Term, self.plan.graceful, &track).await?;
                samples.extend(takeovers.iter().map(|takeover| takeover.sample(None)));
            }
        }
        try_join_all(groups.into_iter().map(|(_, group)| group.end())).await?;
        Ok((
            vec![Series {
                measure: Measure::Graceful,
                case: OPERATOR,
                samples,
            }],
            usage,
        ))
    }

    /// Measures many waiting groups at once: crashes of all cases, then graceful handovers of the
    /// peers.
    async fn measure_waiting(&self) -> Result<Vec<Series>> {
        let mut writes = LeaseWrites::from_now(&self.namespace)?;
        let BenchPlan {
            crashes, graceful, ..
        } = self.plan;
        let mut jobs = Vec::new();
        for (number, case) in CRASHING.into_iter().enumerate() {
            let graceful = if IDLE.contains(&case) && case != OPERATOR {
                graceful
            } else {
                0
            };
            for group in 0..GROUPS {
                let job = Job {
                    case,
                    lease: format!("takeover-{number}-{group}"),
                    crashes: share(crashes, group),
                    graceful: share(graceful, group),
                };
                if job.crashes + job.graceful > 0 {
                    jobs.push(job);
                }
            }
        }
        let started = self.progress.track("starting groups", jobs.len());
        let start = |job: Job| {
            let started = &started;
            async move {
                let group =
                    takeover::start(&self.namespace, &job.lease, job.case, &self.starts).await?;
                started.step(&job.lease);
                Ok::<_, anyhow::Error>((job, group))
            }
        };
        let groups = try_join_all(jobs.into_iter().map(start)).await?;
        let (groups, takeovers) = self
            .end_leaders(groups, Signal::Kill, |job| job.crashes)
            .await?;
        writes.read()?;
        let mut series = collect(Measure::Crash, takeovers, Some(&writes));
        let (groups, takeovers) = self
            .end_leaders(groups, Signal::Term, |job| job.graceful)
            .await?;
        series.extend(collect(Measure::Graceful, takeovers, None));
        try_join_all(groups.into_iter().map(|(_, group)| group.end())).await?;
        Ok(series)
    }

    /// Ends the leader of every group as often as its job asks for.
    async fn end_leaders(
        &self,
        groups: Vec<(Job, CandidateGroup)>,
        signal: Signal,
        times: impl Fn(&Job) -> usize,
    ) -> Result<(Vec<(Job, CandidateGroup)>, Vec<(BenchCase, Takeover)>)> {
        let word = if signal == Signal::Kill {
            "crash"
        } else {
            "graceful"
        };
        let total = |case| {
            groups
                .iter()
                .filter(|(job, _)| job.case == case)
                .map(|(job, _)| times(job))
                .sum::<usize>()
        };
        let tracks: Vec<_> = CRASHING
            .into_iter()
            .filter(|case| total(*case) > 0)
            .map(|case| {
                (
                    case,
                    self.progress.track(format!("{word}: {case}"), total(case)),
                )
            })
            .collect();
        let (tracks, times) = (&tracks, &times);
        let runs = groups.into_iter().map(|(job, mut group)| async move {
            let track = tracks.iter().find(|(case, _)| *case == job.case);
            let takeovers = match track {
                Some((_, track)) => takeover::run(&mut group, signal, times(&job), track).await?,
                None => Vec::new(),
            };
            Ok::<_, anyhow::Error>((job, group, takeovers))
        });
        let mut takeovers = Vec::new();
        let mut groups = Vec::new();
        for (job, group, found) in try_join_all(runs).await? {
            takeovers.extend(found.into_iter().map(|takeover| (job.case, takeover)));
            groups.push((job, group));
        }
        Ok((groups, takeovers))
    }

    /// Measures takeovers that need a kubelet.
    async fn measure_containers(&self, series: &mut Vec<Series>) -> Result<()> {
        if self.plan.containers == 0 {
            return Ok(());
        }
        for case in [OPERATOR, CLIENT_GO] {
            let track = self
                .progress
                .track(format!("container killed: {case}"), self.plan.containers);
            let replicas = match case.kind {
                Implementation::Operator => Deployed::ours(self.namespace.cluster()).await?,
                _ => Deployed::client_go(&self.namespace).await?,
            };
            let samples = replicas.run(self.plan.containers, &track).await?;
            replicas.remove().await?;
            series.push(Series {
                measure: Measure::Container,
                case,
                samples,
            });
        }
        Ok(())
    }
}

/// One group's share of the samples of a case.
fn share(whole: usize, group: usize) -> usize {
    whole / GROUPS + usize::from(group < whole % GROUPS)
}

fn collect(
    measure: Measure,
    takeovers: Vec<(BenchCase, Takeover)>,
    writes: Option<&LeaseWrites>,
) -> Vec<Series> {
    let of = |case| {
        let own = takeovers.iter().filter(move |(one, _)| *one == case);
        Series {
            measure,
            case,
            samples: own.map(|(_, takeover)| takeover.sample(writes)).collect(),
        }
    };
    CRASHING.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_groups_add_up() {
        for whole in [0, 3, 30, 101] {
            assert_eq!(
                (0..GROUPS).map(|group| share(whole, group)).sum::<usize>(),
                whole
            );
        }
    }
}
