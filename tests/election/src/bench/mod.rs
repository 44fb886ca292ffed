//! The bench: the operator's elector side by side with client-go's and with controller-runtime's manager.
//!
//! One API server, three candidates per group, each candidate a process of its own. Groups whose leader dies without a word
//! wait for their leases all at the same time; what is a matter of milliseconds is measured while all others are idle.
//! [`takeover`] and [`container`] end leaders, [`idle`] looks at those that do nothing, [`report`] says what came of it.

mod container;
mod distribution;
mod idle;
mod plot;
mod progress;
mod report;
mod takeover;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use jiff::Timestamp;
use testbed::{Cluster, Signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use self::container::Deployed;
use self::progress::Progress;
use self::report::{BenchCase, Environment, Measure, Report, Series};
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
/// The manager's defaults.
const MANAGER_SHORT: BenchCase = BenchCase {
    kind: Implementation::ControllerRuntime,
    timing: Timing::SHORT,
    release: false,
};

/// Those that are looked at while they do nothing, and whose graceful handover is measured.
const IDLE: [BenchCase; 4] = [OPERATOR, CLIENT_GO, MANAGER, MANAGER_SHORT];
/// Those whose crash is measured.
const CRASHING: [BenchCase; 6] = [
    OPERATOR,
    OPERATOR_SHORT,
    CLIENT_GO,
    CLIENT_GO_SHORT,
    MANAGER,
    MANAGER_SHORT,
];
/// Groups of one case that wait for their leases at the same time.
const GROUPS: usize = 10;
/// Processes that start at the same time would keep each other from starting.
const CONCURRENT_STARTS: usize = 3;
/// Until a group that has just started does nothing but renew.
const SETTLE: Duration = Duration::from_secs(30);
/// Length of one of the steps in which idle candidates are looked at.
const STEPS_PER_MINUTE: usize = 12;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct BenchPlan {
    /// Graceful handovers of each case.
    pub graceful: usize,
    /// Crashes of each.
    pub crashes: usize,
    /// Killed containers of each.
    pub containers: usize,
    /// Minutes in which nothing happens.
    pub minutes: usize,
}

impl BenchPlan {
    /// What the figures in the documentation come from.
    pub const FULL: Self = Self {
        graceful: 100,
        crashes: 30,
        containers: 20,
        minutes: 2,
    };

    /// Whether at least as much is measured as for the documentation.
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

/// Runs the bench, prints what came of it, and writes it to `target/bench`. A full run draws `docs/election.svg` anew.
///
/// # Errors
/// If something could not be measured. A bar that was missed is no error.
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
    // The last part must not cost what the others have found.
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
        environment: environment(&cluster, &root).await?,
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
    let containers = containers.context("containers could not be measured");
    println!(
        "{:.0} s. target/bench/election.json has every sample, election.svg beside it shows them.",
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

/// A group and what is measured on it.
struct Job {
    case: BenchCase,
    lease: String,
    crashes: usize,
    graceful: usize,
}

impl Bench {
    /// What needs quiet: the costs of doing nothing, and our graceful handover.
    async fn measure_quiet(&self) -> Result<(Vec<Series>, Vec<report::IdleUsage>)> {
        self.progress.say("starting one group of each kind");
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

    /// What mostly waits, many groups at the same time: crashes of all, and then graceful handovers of the others.
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
            .takeover(groups, Signal::Kill, |job| job.crashes)
            .await?;
        writes.read()?;
        let mut series = collect(Measure::Crash, takeovers, Some(&writes));
        let (groups, takeovers) = self
            .takeover(groups, Signal::Term, |job| job.graceful)
            .await?;
        series.extend(collect(Measure::Graceful, takeovers, None));
        try_join_all(groups.into_iter().map(|(_, group)| group.end())).await?;
        Ok(series)
    }

    /// Ends the leaders of all groups, each as often as its job says.
    async fn takeover(
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

    /// What needs a kubelet.
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

/// What one of the groups has to do of a whole.
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

async fn environment(cluster: &Cluster, root: &Path) -> Result<Environment> {
    let version = cluster.client().apiserver_version().await?;
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let kibibytes: u64 = field(&memory, "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0);
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(root)
        .output();
    let commit = git
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    // A path below the checkout is the same for everybody.
    let binary = candidate::operator()?;
    let root = root.canonicalize().context("the checkout")?;
    let binary = binary.strip_prefix(&root).unwrap_or(&binary);
    Ok(Environment {
        commit,
        binary: binary.display().to_string(),
        kubernetes: version.git_version,
        processor: field(&cpu, "model name"),
        processors: std::thread::available_parallelism()?.get(),
        memory: kibibytes / 1000,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_groups_are_the_whole() {
        for whole in [0, 3, 30, 101] {
            assert_eq!(
                (0..GROUPS).map(|group| share(whole, group)).sum::<usize>(),
                whole
            );
        }
    }
}
