//! The operator's replicas: which one leads, what each counts, how one dies, and what each serves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::chain::Chain;
use harness::release::{LEADS, Release};
use harness::wait::until;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use serviceoffer::api::{AgentRegistration, SignerLedger};
use testbed::{Cluster, Signal};

use crate::output;
use crate::summary::count;

/// Name and namespace of the release in the README.
pub const NAME: &str = "serviceoffer-controller";
pub const NAMESPACE: &str = "serviceoffer-system";
/// Where on-chain URIs lead: the public Service by its name inside the cluster.
pub const BASE_URL: &str = "http://serviceoffer-controller.serviceoffer-system.svc.cluster.local";
/// How long a replica may take to become leader once the Lease of a dead one has expired.
const SLACK: Duration = Duration::from_secs(5);
/// How long a running replica, or the API server, may take to answer.
const SOON: Duration = Duration::from_secs(30);

/// The metrics to show, and their headings.
const SHOWN: [(&str, &str); 5] = [
    (LEADS, "LEADS"),
    ("serviceoffer_leader_transitions_total", "TRANSITIONS"),
    (
        "serviceoffer_onchain_registrations_total{chain=\"84532\",outcome=\"signed\"}",
        "SIGNED",
    ),
    (
        "serviceoffer_onchain_registrations_total{chain=\"84532\",outcome=\"sent\"}",
        "SENT",
    ),
    (
        "serviceoffer_onchain_registrations_total{chain=\"84532\",outcome=\"registered\"}",
        "REGISTERED",
    ),
];

/// The operator's replicas.
pub struct Replicas {
    release: Release,
    client: Client,
    service: reqwest::Client,
}

/// What was in flight when a leader died.
pub struct Death {
    /// The leader.
    pub leader: String,
    /// When it died.
    pub moment: Instant,
    /// Nonces in flight.
    pub in_flight: u64,
    /// Records among them that hold a signed transaction.
    pub signed: u64,
}

/// The next leader after a death.
pub struct Takeover {
    /// The replica that leads now.
    pub leader: String,
    /// From the death to the new leader.
    pub duration: Duration,
    /// The longest that this may take.
    pub limit: Duration,
    /// What it logged.
    pub line: String,
}

impl Replicas {
    /// The replicas of the release that the README installs.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let release = Release::new(cluster, NAMESPACE, NAME)?;
        let host = BASE_URL.trim_start_matches("http://");
        let service = release.service_client(NAME, host).await?;
        Ok(Self {
            release,
            client: cluster.client(),
            service,
        })
    }

    /// Waits for that many ready replicas.
    pub async fn wait_ready(&self, count: usize) -> Result<Vec<Pod>> {
        self.release
            .wait_ready(count, Duration::from_secs(60))
            .await
    }

    /// Waits until the gate is ready.
    pub async fn wait_gate(&self) -> Result<Pod> {
        self.release.wait_gate(Duration::from_secs(60)).await
    }

    /// Waits until a replica leads, and returns its name.
    pub async fn wait_leader(&self) -> Result<String> {
        self.release.wait_leader(None, SOON).await
    }

    /// Nonces in flight, and records that hold a signed transaction and no result.
    async fn in_flight(&self, chain: &Chain) -> Result<(u64, u64)> {
        let ledgers: Api<SignerLedger> = Api::all(self.client.clone());
        let name = SignerLedger::name_of(chain.id, chain.signer.address());
        let ledger = ledgers.get_opt(&name).await?;
        let records: Api<AgentRegistration> = Api::all(self.client.clone());
        let records = records.list(&ListParams::default()).await?.items;
        let signed = records
            .iter()
            .filter(|record| record.spec.result.is_none() && !record.spec.attempts.is_empty());
        Ok((
            ledger.map_or(0, |ledger| count(ledger.spec.entries.len())),
            count(signed.count()),
        ))
    }

    /// Kills the leader: its process with SIGKILL and its Pod without grace, as if the node had died.
    /// It can neither finish anything nor release its Lease. Returns its name.
    pub async fn end_leader(&self) -> Result<String> {
        let leader = self.wait_leader().await?;
        let process = until("the leader's process runs", SOON, async || {
            self.release.process(&leader).await
        })
        .await?;
        process.kill(Signal::Kill)?;
        self.release.force_delete(&leader).await?;
        Ok(leader)
    }

    /// Kills the leader once it has nonces in flight.
    pub async fn kill_leader(&self, chain: &Chain) -> Result<Death> {
        until("nonces are in flight", SOON, async || {
            let (in_flight, _) = self.in_flight(chain).await?;
            ensure!(in_flight > 0, "none");
            Ok(())
        })
        .await?;
        let leader = self.end_leader().await?;
        let moment = Instant::now();
        let (in_flight, signed) = until("the ledger is read", SOON, async || {
            self.in_flight(chain).await
        })
        .await?;
        Ok(Death {
            leader,
            moment,
            in_flight,
            signed,
        })
    }

    /// Waits until another replica holds the Lease.
    pub async fn wait_takeover(&self, death: &Death) -> Result<Takeover> {
        let spec = self.release.lease().await?.spec.unwrap_or_default();
        let seconds = spec.lease_duration_seconds.unwrap_or_default();
        let lease = Duration::from_secs(seconds.try_into().unwrap_or_default());
        let limit = lease + SLACK;
        let leader = until("another replica leads", limit * 2, async || {
            let elapsed = death.moment.elapsed().as_secs();
            output::progress(&format!("no replica leads yet, {elapsed} s"));
            let holder = self.release.holder().await?;
            let holder = holder.context("no replica holds the Lease")?;
            ensure!(
                holder != death.leader,
                "{holder}, which is dead, still holds the Lease"
            );
            Ok(holder)
        })
        .await?;
        let duration = death.moment.elapsed();
        let line = self.leader_line(&leader).await?;
        Ok(Takeover {
            leader,
            duration,
            limit,
            line,
        })
    }

    /// The line in which a replica logs that it leads.
    async fn leader_line(&self, leader: &str) -> Result<String> {
        let words = format!("new leader is {leader}");
        let what = format!("{leader} logs that it leads");
        until(&what, SOON, async || {
            let log = self.release.log(leader).await?;
            let line = log.lines().find(|line| line.contains(&words));
            line.map(str::to_owned).context("no such line")
        })
        .await
    }

    /// Shows what each replica counts.
    pub async fn show_metrics(&self) -> Result<()> {
        let rows = until("every replica serves metrics", SOON, async || {
            self.metric_rows().await
        })
        .await?;
        let headings: Vec<&str> = ["REPLICA"]
            .into_iter()
            .chain(SHOWN.iter().map(|(_, heading)| *heading))
            .collect();
        output::table(&headings, &rows);
        Ok(())
    }

    async fn metric_rows(&self) -> Result<Vec<Vec<String>>> {
        let mut rows = Vec::new();
        for pod in self.release.pods().await? {
            let metrics = self.release.try_metrics(&pod).await?;
            let values = SHOWN.iter().map(|(name, _)| {
                metrics
                    .get(*name)
                    .map_or_else(|| "-".into(), f64::to_string)
            });
            rows.push([pod.name_any()].into_iter().chain(values).collect());
        }
        Ok(rows)
    }

    /// Waits until an agent's document is served under its on-chain URI, and in the same bytes by
    /// each of these Pods.
    pub async fn check_document(&self, uri: &str, agent: &str, pods: &[Pod]) -> Result<()> {
        ensure!(uri.starts_with(BASE_URL), "{uri} is not below {BASE_URL}");
        let what = format!("the document of agent {agent} is served everywhere");
        let document = until(&what, SOON, async || {
            let served = self.release.served_alike(&self.service, uri, pods).await?;
            let document: Value = serde_json::from_slice(&served.bytes)?;
            ensure!(
                document["registrations"].is_array(),
                "{uri} names no agent yet"
            );
            anyhow::Ok(document)
        })
        .await?;
        let named = document["registrations"][0]["agentId"].to_string();
        ensure!(
            named == agent && document["active"] == true,
            "{uri} names agent {named} instead of {agent}, or is not active"
        );
        Ok(())
    }
}
