//! The sequence of measurements.
//!
//! 1. The operator registers one agent, which creates the signer's ledger, and is stopped
//! 2. For each window: the program sends; then offers are created while no operator runs, and the
//!    operator starts on them, so that all are eligible from the moment it leads
//! 3. The program without a window

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use election::{Candidate, ElectionNamespace, candidate};
use harness::bench::{Environment, Progress};
use harness::chain::LocalChain;
use harness::metrics;
use jiff::Timestamp;
use scale::cost::Meter;
use scale::offers::{Kind, Offers};
use scale::replicas::{Contender, Replicas};
use scale::requests::{OfferStatus, RequestLog};
use testbed::{AnvilConfig, Cluster, Component};
use tokio::time::{Instant, sleep};

use crate::inclusion::InclusionWatch;
use crate::raw::RawSender;
use crate::report::{Operator, Raw, Report, Results};
use crate::{Plan, WINDOWS};

/// Time after the last registration in which what follows from it is counted as well.
const SETTLE: Duration = Duration::from_secs(15);
/// How long the operator may take to answer a request.
const REQUEST: Duration = Duration::from_secs(10);
/// Accounts of the chain before those of the program: the deployer and the operator's signer.
const OTHER_ACCOUNTS: usize = 2;

/// Runs the benchmark, prints the report, and writes it to `target/bench`. A full run also redraws
/// `docs/chain.svg`. The exit code says whether every target was met.
///
/// # Errors
/// If something could not be measured.
pub async fn run(cluster: &Cluster, plan: Plan) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let begun = (Timestamp::now(), Instant::now());
    let config = AnvilConfig {
        block_time: Some(Duration::from_secs(plan.block_seconds.into())),
        ..AnvilConfig::default()
    };
    let mut bench = Bench {
        namespace: Arc::new(ElectionNamespace::new(cluster, "chain").await?),
        offers: Offers::prepare(cluster.client()).await?,
        api_server: cluster.component(Component::ApiServer)?.pid(),
        chain: LocalChain::start(cluster.node_ip(), config).await?,
        progress: Progress::new(),
        results: Results::default(),
        created: 0,
        plan,
    };
    bench.measure().await?;
    let report = Report {
        begun: begun.0,
        seconds: begun.1.elapsed().as_secs_f64(),
        environment: Environment::read(cluster, &root, &candidate::operator()?).await?,
        plan,
        targets: bench.results.targets(),
        results: bench.results,
    };
    let output = root.join("target/bench");
    fs::create_dir_all(&output)?;
    fs::write(
        output.join("chain.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    let drawn = output.join("chain.svg");
    crate::plot::draw(&drawn, &report.results)?;
    println!("{}", report.text());
    println!(
        "Took {:.0} s. All results: target/bench/chain.json; plot: target/bench/chain.svg.",
        report.seconds
    );
    if plan.is_full() {
        fs::copy(drawn, root.join("docs/chain.svg"))?;
    }
    Ok(if report.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Bench {
    namespace: Arc<ElectionNamespace>,
    offers: Offers,
    /// Pid of the API server.
    api_server: u32,
    chain: LocalChain,
    progress: Progress,
    results: Results,
    /// Offers so far.
    created: usize,
    plan: Plan,
}

impl Bench {
    async fn measure(&mut self) -> Result<()> {
        self.register_first().await?;
        for window in WINDOWS {
            self.send(Some(window)).await?;
            self.register(window).await?;
        }
        self.send(None).await?;
        // Also fails if an agent was registered twice.
        let agents = self.chain.agents().await?.len();
        ensure!(
            agents == self.created,
            "{agents} agents of the operator on the chain, not {}",
            self.created
        );
        Ok(())
    }

    /// Creates the registry, and lets the operator create its signer's ledger with a registration.
    async fn register_first(&mut self) -> Result<()> {
        let secrets = self.namespace.name();
        self.offers.create_registry(&self.chain, secrets).await?;
        self.create(1).await?;
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let replicas = self.start("first", WINDOWS[0]).await?;
        let track = self.progress.track("operator: first registration", 1);
        log.until(replicas.leader.user(), 1, &track, |status| {
            status.is_registered
        })
        .await
        .context("the first registration")?;
        sleep(SETTLE).await;
        replicas.stop().await
    }

    async fn create(&mut self, count: usize) -> Result<()> {
        let numbers = self.created..self.created + count;
        let track = self.progress.track("creating offers", count);
        self.offers
            .create(Kind::Registered, numbers, &track)
            .await?;
        self.created += count;
        Ok(())
    }

    async fn start(&self, lease: &str, window: u16) -> Result<Replicas> {
        Replicas::start(&self.namespace, Contender::Operator, lease, window).await
    }

    /// Measures the program.
    async fn send(&mut self, window: Option<u16>) -> Result<()> {
        let count = usize::from(self.plan.registrations);
        let account = self
            .chain
            .anvil
            .keys()
            .get(OTHER_ACCOUNTS + self.results.raw.len());
        let account = account.context("too few accounts")?.clone();
        let owner = account.address();
        let sender = RawSender::sign(&self.chain, account, count).await?;
        let name = match window {
            Some(window) => format!("alloy: window {window}"),
            None => "alloy: no window".to_owned(),
        };
        let track = self.progress.track(name, count);
        let watch = InclusionWatch::start(&self.chain, owner).await?;
        // As if every block had only one of them.
        let limit = Duration::from_secs(u64::from(self.plan.block_seconds)) * u32::try_from(count)?;
        sender.send(window, limit, &track).await?;
        let inclusion = watch.read(&self.chain, count).await?;
        self.results.raw.push(Raw { window, inclusion });
        Ok(())
    }

    /// Measures the operator.
    async fn register(&mut self, window: u16) -> Result<()> {
        let count = usize::from(self.plan.registrations);
        self.create(count).await?;
        let track = self
            .progress
            .track(format!("operator: window {window}"), count);
        let watch = InclusionWatch::start(&self.chain, self.chain.signer.address()).await?;
        let mut log = RequestLog::from_now(self.namespace.cluster())?;
        let meter = Meter::start(self.api_server)?;
        let replicas = self.start(&format!("window-{window}"), window).await?;
        let leader = &replicas.leader;
        replicas.leads().await?;
        let eligible = leader.leading_since().context("it led")?;
        // Reading the audit log takes processor time, so it waits until all are in blocks.
        watch.until(&self.chain, count, &track).await?;
        let track = self
            .progress
            .track(format!("operator: window {window}, statuses"), count);
        let mut registered = HashSet::new();
        let is_new = |status: OfferStatus| status.is_registered && registered.insert(status.offer);
        let last = log
            .until(leader.user(), count, &track, is_new)
            .await
            .with_context(|| format!("registering with window {window}"))?;
        let cost = meter.read(leader.pid())?;
        let inclusion = watch.read(&self.chain, count).await?;
        sleep(SETTLE).await;
        log.read(leader.user())?;
        let calls = metrics::sum_by(
            &metrics::parse(&served_metrics(leader).await?),
            "serviceoffer_chain_requests_total",
            "method",
        );
        self.results.operator.push(Operator {
            window,
            registrations: count,
            inclusion,
            until_final: last.duration_since(eligible).as_secs_f64(),
            requests: log.of(leader.user()),
            calls,
            cost,
        });
        replicas.stop().await
    }
}

/// The metrics that a replica serves.
async fn served_metrics(replica: &Candidate) -> Result<String> {
    let address = replica.argument("--admin-bind").context("--admin-bind")?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(REQUEST)
        .build()?;
    let response = client.get(format!("http://{address}/metrics")).send();
    Ok(response.await?.error_for_status()?.text().await?)
}
