//! The sequence of measurements.
//!
//! 1. The operator with a tenth of the offers: processor time per change
//! 2. The operator with all offers: time, requests, processor time, memory, a minute without
//!    changes, processor time per change
//! 3. The same of the peer, on the same offers without their statuses
//! 4. The operator on the statuses of the peer, which it must not change; then registrations, a
//!    minute without changes, and documents

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use election::{ElectionNamespace, candidate};
use harness::bench::process::{most_resident, resident};
use harness::bench::{Environment, Progress};
use harness::chain::LocalChain;
use jiff::Timestamp;
use scale::cost::Meter;
use scale::offers::{Kind, Offers};
use scale::replicas::{Contender, Replicas};
use scale::requests::{RequestLog, Requests};
use testbed::{AnvilConfig, Cluster, Component};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::Plan;
use crate::plot;
use crate::report::{
    ChangeCost, Memory, Registrations, Report, Results, State, SteadyMinute, Work,
};
use crate::serving::{self, Document};

/// Time after which a contender only does what it always does.
const SETTLE: Duration = Duration::from_secs(15);
/// The minute without changes, and its progress steps.
const STEADY: (Duration, usize) = (Duration::from_secs(5), 12);
/// Changes per second while their processor time is measured.
const CHANGES_PER_SECOND: u32 = 25;

/// Runs the benchmark, prints the report, and writes it to `target/bench`. A full run also redraws
/// `docs/scale.svg`. The exit code says whether every target was met.
///
/// # Errors
/// If something could not be measured.
pub async fn run(cluster: &Cluster, plan: Plan) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let begun = (Timestamp::now(), Instant::now());
    let environment = Environment::read(cluster, &root, &candidate::operator()?).await?;
    let mut bench = Bench {
        namespace: Arc::new(ElectionNamespace::new(cluster, "scale").await?),
        offers: Arc::new(Offers::prepare(cluster.client()).await?),
        api_server: cluster.component(Component::ApiServer)?.pid(),
        progress: Progress::new(),
        chain: None,
        results: Results::default(),
        plan,
    };
    bench.measure().await?;
    let report = Report {
        begun: begun.0,
        seconds: begun.1.elapsed().as_secs_f64(),
        environment,
        plan,
        targets: bench.results.targets(),
        results: bench.results,
    };
    let output = root.join("target/bench");
    fs::create_dir_all(&output)?;
    fs::write(
        output.join("scale.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    let drawn = output.join("scale.svg");
    plot::draw(&drawn, &report.results)?;
    println!("{}", report.text());
    println!(
        "Took {:.0} s. All results: target/bench/scale.json; plot: target/bench/scale.svg.",
        report.seconds
    );
    if plan.is_full() {
        fs::copy(drawn, root.join("docs/scale.svg"))?;
    }
    Ok(if report.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Bench {
    namespace: Arc<ElectionNamespace>,
    offers: Arc<Offers>,
    /// Pid of the API server.
    api_server: u32,
    progress: Progress,
    /// The operator reads it until the end.
    chain: Option<LocalChain>,
    results: Results,
    plan: Plan,
}

impl Bench {
    async fn measure(&mut self) -> Result<()> {
        let Plan { offers, .. } = self.plan;
        let few = self.plan.few_offers();
        self.create(Kind::Plain, 0..few).await?;
        let replicas = self.work(Contender::Operator, few).await?;
        self.change(Contender::Operator, &replicas, few).await?;
        replicas.stop().await?;

        self.create(Kind::Plain, few..offers).await?;
        self.clear_statuses(few).await?;
        self.measure_all(Contender::Operator).await?;
        self.clear_statuses(offers).await?;
        self.measure_all(Contender::ControllerRuntime).await?;

        let replicas = self.take_over().await?;
        self.register(&replicas).await?;
        self.steady(Contender::Operator, State::Registrations, &replicas)
            .await?;
        self.serve(&replicas).await?;
        self.note_memory(Contender::Operator, State::Documents, &replicas)?;
        replicas.stop().await
    }

    /// Everything that is measured of both contenders.
    async fn measure_all(&mut self, contender: Contender) -> Result<()> {
        let offers = self.plan.offers;
        let mut replicas = self.work(contender, offers).await?;
        replicas.add_standby().await?;
        self.steady(contender, State::Offers, &replicas).await?;
        self.change(contender, &replicas, offers).await?;
        replicas.stop().await
    }

    async fn create(&self, kind: Kind, numbers: std::ops::Range<usize>) -> Result<()> {
        let what = match kind {
            Kind::Plain => "creating offers",
            Kind::Registered => "creating offers with a registration",
        };
        let track = self.progress.track(what, numbers.len());
        self.offers.create(kind, numbers, &track).await
    }

    async fn clear_statuses(&self, offers: usize) -> Result<()> {
        let track = self.progress.track("clearing statuses", offers);
        self.offers.clear_statuses(0..offers, &track).await
    }

    /// Starts a contender on offers without a status, and measures until all have one.
    async fn work(&mut self, contender: Contender, offers: usize) -> Result<Replicas> {
        let name = contender.name();
        let track = self
            .progress
            .track(format!("{name}: {offers} offers"), offers);
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let meter = Meter::start(self.api_server)?;
        let lease = format!("{name}-{offers}");
        let replicas = self.start(contender, &lease).await?;
        let leader = &replicas.leader;
        let mut written = HashSet::new();
        let last = log
            .until(leader.user(), offers, &track, |status| {
                written.insert(status.offer)
            })
            .await
            .with_context(|| format!("{name} writes the status of {offers} offers"))?;
        let work = Work {
            contender,
            offers,
            seconds: last.duration_since(leader.started()).as_secs_f64(),
            until_leading: replicas.leads().await?,
            cost: meter.read(leader.pid())?,
            requests: log.of(leader.user()),
        };
        self.progress
            .say(&format!("{name}: {offers} offers in {:.1} s", work.seconds));
        self.results.work.push(work);
        Ok(replicas)
    }

    async fn start(&self, contender: Contender, lease: &str) -> Result<Replicas> {
        Replicas::start(&self.namespace, contender, lease, self.plan.max_in_flight).await
    }

    /// Changes one offer after the other, and measures the processor time of each change.
    async fn change(
        &mut self,
        contender: Contender,
        replicas: &Replicas,
        offers: usize,
    ) -> Result<()> {
        sleep(SETTLE).await;
        let (name, changes) = (contender.name(), self.plan.changes);
        let track = self
            .progress
            .track(format!("{name}: changes of {offers} offers"), changes);
        let leader = &replicas.leader;
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let meter = Meter::start_beside(self.api_server, leader.pid())?;
        let mut running = JoinSet::new();
        let mut ticks = interval(Duration::from_secs(1) / CHANGES_PER_SECOND);
        for change in 0..changes {
            ticks.tick().await;
            let owned = Arc::clone(&self.offers);
            // Spread over all offers, and so that changes of one offer are far apart.
            let number = if changes <= offers {
                change * offers / changes
            } else {
                change % offers
            };
            running.spawn(async move { owned.change(Kind::Plain, number).await });
        }
        while let Some(changed) = running.join_next().await {
            changed??;
        }
        log.until(leader.user(), changes, &track, |_| true)
            .await
            .with_context(|| format!("{name} follows {changes} changes"))?;
        let cost = meter.read(leader.pid())?;
        self.results.changes.push(ChangeCost {
            contender,
            offers,
            changes,
            milliseconds: cost.leader * 1000.0 / changes as f64,
            cost,
            requests: log.of(leader.user()),
        });
        Ok(())
    }

    /// Measures a minute in which nothing changes.
    async fn steady(
        &mut self,
        contender: Contender,
        state: State,
        replicas: &Replicas,
    ) -> Result<()> {
        sleep(SETTLE).await;
        let (step, steps) = STEADY;
        let name = format!("{}: a minute without changes", contender.name());
        let track = self.progress.track(name, steps);
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let mut meters = Vec::new();
        for (role, replica) in replicas.all() {
            let meter = Meter::start_beside(self.api_server, replica.pid())?;
            meters.push((role, replica, meter));
        }
        for _ in 0..steps {
            sleep(step).await;
            track.step("");
        }
        log.read(replicas.leader.user())?;
        for (role, replica, meter) in meters {
            let cost = meter.read(replica.pid())?;
            self.results.steady.push(SteadyMinute {
                contender,
                state,
                role,
                requests: log.of(replica.user()),
                cpu: cost.leader,
                api_server: cost.api_server,
            });
        }
        self.note_memory(contender, state, replicas)
    }

    fn note_memory(
        &mut self,
        contender: Contender,
        state: State,
        replicas: &Replicas,
    ) -> Result<()> {
        for (role, replica) in replicas.all() {
            self.results.memory.push(Memory {
                contender,
                state,
                role,
                resident: resident(replica.pid())?,
                most_resident: most_resident(replica.pid())?,
            });
        }
        Ok(())
    }

    /// Starts the operator on the statuses that the peer wrote, and counts those that it changes.
    async fn take_over(&mut self) -> Result<Replicas> {
        self.progress
            .say("operator: takes over what the peer wrote");
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let mut replicas = self.start(Contender::Operator, "operator-records").await?;
        replicas.leads().await?;
        replicas.add_standby().await?;
        sleep(SETTLE).await;
        let user = replicas.leader.user();
        log.read(user)?;
        self.results.corrected = Some(log.of(user).offer_statuses);
        Ok(replicas)
    }

    /// Registers offers in four parts, of which the second and the last are compared.
    async fn register(&mut self, replicas: &Replicas) -> Result<()> {
        let config = AnvilConfig {
            block_time: Some(Duration::from_secs(1)),
            ..AnvilConfig::default()
        };
        let cluster = self.namespace.cluster();
        let chain = LocalChain::start(cluster.node_ip(), config).await?;
        self.offers
            .create_registry(&chain, self.namespace.name())
            .await?;
        let (all, first, wave) = (
            self.plan.registrations,
            self.plan.first_registrations(),
            self.plan.wave(),
        );
        for (from, to) in [
            (0, first),
            (first, first + wave),
            (first + wave, all - wave),
            (all - wave, all),
        ] {
            let part = self.register_part(replicas, from, to).await?;
            self.progress.say(&format!(
                "registrations {from} to {to}: {:.1} per second",
                part.per_second
            ));
            self.results.registrations.push(part);
        }
        // Also fails if an agent was registered twice.
        let agents = chain.agents().await?;
        ensure!(
            agents.len() == all,
            "{} agents on the chain, not {all}",
            agents.len()
        );
        self.chain = Some(chain);
        Ok(())
    }

    async fn register_part(
        &self,
        replicas: &Replicas,
        from: usize,
        to: usize,
    ) -> Result<Registrations> {
        let (leader, count) = (&replicas.leader, to - from);
        let track = self
            .progress
            .track(format!("registrations {from} to {to}"), count);
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let meter = Meter::start_beside(self.api_server, leader.pid())?;
        let begun = Timestamp::now();
        self.create(Kind::Registered, from..to).await?;
        let mut registered = HashSet::new();
        let last = log
            .until(leader.user(), count, &track, |status| {
                status.is_registered && registered.insert(status.offer)
            })
            .await
            .with_context(|| format!("registering offers {from} to {to}"))?;
        let seconds = last.duration_since(begun).as_secs_f64();
        Ok(Registrations {
            from,
            to,
            seconds,
            per_second: count as f64 / seconds,
            cost: meter.read(leader.pid())?,
            requests: log.of(leader.user()),
        })
    }

    /// Requests documents of each replica.
    async fn serve(&mut self, replicas: &Replicas) -> Result<()> {
        let agents = self.offers.agent_paths().await?;
        let seconds = self.plan.serve_seconds;
        for (role, replica) in replicas.all() {
            for document in [Document::Agent, Document::Listing] {
                let name = format!("{} from the {}", document.name(), role.name());
                let track = self.progress.track(name, seconds);
                let replica = (role, replica);
                let serving =
                    serving::measure(&self.offers, replica, document, &agents, seconds, &track)
                        .await?;
                self.results.serving.push(serving);
            }
        }
        Ok(())
    }
}

/// Requests of several parts.
pub fn total(parts: impl IntoIterator<Item = Requests>) -> Requests {
    parts.into_iter().fold(Requests::default(), |mut sum, one| {
        sum += one;
        sum
    })
}
