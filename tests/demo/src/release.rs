//! The operator's replicas: who leads, what each counts, how one dies, and what each serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use anyhow::{Context, Result, bail, ensure};
use harness::wait::until;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use serviceoffer::api::{AgentRegistration, SignerLedger};
use testbed::{Cluster, Signal};

use crate::screen;
use crate::summary::count;

/// The release and its namespace, as the README names them.
pub const NAME: &str = "serviceoffer-controller";
pub const NAMESPACE: &str = "serviceoffer-system";
/// Where on-chain URIs lead to: the documents Service, by its name inside the cluster.
pub const BASE_URL: &str = "http://serviceoffer-controller.serviceoffer-system.svc.cluster.local";
/// How long another replica may take once the Lease of a dead one has run out.
const SLACK: Duration = Duration::from_secs(5);
/// How long a replica that runs, or the API server, may take to answer.
const SOON: Duration = Duration::from_secs(30);

/// The metrics that are shown, and their headings.
const SHOWN: [(&str, &str); 5] = [
    (
        "leader_election_master_status{name=\"serviceoffer-controller\"}",
        "LEADS",
    ),
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
pub struct Release {
    cluster: Cluster,
    http: reqwest::Client,
}

/// What was under way when a leader died.
pub struct Death {
    /// Who died.
    pub leader: String,
    /// When.
    pub moment: Instant,
    /// Nonces in use.
    pub in_flight: u64,
    /// Records among them that hold a signed transaction.
    pub signed: u64,
}

/// Who leads after a death, and since when.
pub struct Takeover {
    /// The survivor.
    pub leader: String,
    /// From the death to the new leader.
    pub duration: Duration,
    /// The longest that this may take.
    pub limit: Duration,
    /// What the survivor logged.
    pub line: String,
}

impl Release {
    /// The release of a cluster. Requests go to Pods and Services, never through a proxy of the host.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let services: Api<Service> = Api::namespaced(cluster.client(), NAMESPACE);
        let address = until("the documents Service has an address", SOON, async || {
            let spec = services.get(NAME).await?.spec;
            spec.and_then(|spec| spec.cluster_ip).context("it has none")
        })
        .await?;
        let host = BASE_URL.trim_start_matches("http://");
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .resolve(host, SocketAddr::new(address.parse()?, 80))
            .build()?;
        Ok(Self {
            cluster: cluster.clone(),
            http,
        })
    }

    fn client(&self) -> Client {
        self.cluster.client()
    }

    fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// Replicas that are ready.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let selector = format!("app.kubernetes.io/name={NAME},app.kubernetes.io/instance={NAME}");
        let pods = self
            .pod_api()
            .list(&ListParams::default().labels(&selector))
            .await?;
        Ok(pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
            .collect())
    }

    /// Waits for that many ready replicas.
    pub async fn ready(&self, replicas: usize) -> Result<Vec<Pod>> {
        until(
            &format!("{replicas} replicas are ready"),
            Duration::from_secs(60),
            async || {
                let pods = self.pods().await?;
                match pods.len() == replicas {
                    true => Ok(pods),
                    false => bail!("{} are ready", pods.len()),
                }
            },
        )
        .await
    }

    async fn lease(&self) -> Result<(String, Duration)> {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        let spec = leases.get(NAME).await?.spec.unwrap_or_default();
        let seconds = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or_default();
        Ok((
            spec.holder_identity.unwrap_or_default(),
            Duration::from_secs(seconds),
        ))
    }

    /// Waits until a ready replica leads, and says which.
    pub async fn leader(&self) -> Result<String> {
        until("a ready replica leads", SOON, async || {
            let (holder, _) = self.lease().await?;
            let pods = self.pods().await?;
            ensure!(
                pods.iter().any(|pod| pod.name_any() == holder),
                "the Lease is held by {holder:?}"
            );
            Ok(holder)
        })
        .await
    }

    /// Nonces in use, and records that hold a signed transaction and no result.
    pub async fn in_flight(&self, signer: Address, chain_id: u64) -> Result<(u64, u64)> {
        let ledgers: Api<SignerLedger> = Api::all(self.client());
        let ledger = ledgers
            .get_opt(&SignerLedger::name_of(chain_id, signer))
            .await?;
        let records: Api<AgentRegistration> = Api::all(self.client());
        let records = records.list(&ListParams::default()).await?.items;
        let signed = records
            .iter()
            .filter(|one| one.spec.result.is_none() && !one.spec.attempts.is_empty());
        Ok((
            ledger.map_or(0, |ledger| count(ledger.spec.entries.len())),
            count(signed.count()),
        ))
    }

    /// Waits for the leader to have nonces in use, and kills it: its process at once, and its Pod without grace, as if the
    /// node had died. It can neither finish anything nor release its Lease.
    pub async fn kill_leader_in_flight(&self, signer: Address, chain_id: u64) -> Result<Death> {
        let leader = self.leader().await?;
        let process = until("the leader's process runs", SOON, async || {
            self.cluster
                .container(NAMESPACE, &leader, "controller")
                .await
        })
        .await?;
        until(
            "nonces are in flight",
            Duration::from_secs(30),
            async || match self.in_flight(signer, chain_id).await? {
                (0, _) => bail!("none"),
                some => Ok(some),
            },
        )
        .await?;
        process.kill(Signal::Kill)?;
        let moment = Instant::now();
        self.pod_api()
            .delete(&leader, &DeleteParams::default().grace_period(0))
            .await?;
        let (in_flight, signed) = until("the ledger is read", SOON, async || {
            self.in_flight(signer, chain_id).await
        })
        .await?;
        Ok(Death {
            leader,
            moment,
            in_flight,
            signed,
        })
    }

    /// Waits until a survivor leads.
    pub async fn takeover(&self, death: &Death) -> Result<Takeover> {
        let (_, lease) = until("the Lease is read", SOON, async || self.lease().await).await?;
        let limit = lease + SLACK;
        let leader = until("a survivor leads", limit * 2, async || {
            screen::passing(&format!(
                "nobody leads, {} s",
                death.moment.elapsed().as_secs()
            ));
            let (leader, _) = self.lease().await?;
            ensure!(
                !leader.is_empty() && leader != death.leader,
                "the Lease is held by {leader:?}"
            );
            Ok(leader)
        })
        .await?;
        let duration = death.moment.elapsed();
        let line = self.announced(&leader).await?;
        Ok(Takeover {
            leader,
            duration,
            limit,
            line,
        })
    }

    /// The line in which a replica announces itself.
    async fn announced(&self, leader: &str) -> Result<String> {
        let words = format!("new leader is {leader}");
        until(&format!("{leader} logs that it leads"), SOON, async || {
            let log = self.pod_api().logs(leader, &LogParams::default()).await?;
            log.lines()
                .find(|line| line.contains(&words))
                .map(str::to_owned)
                .context("it does not")
        })
        .await
    }

    /// Shows what each replica counts.
    pub async fn show_metrics(&self) -> Result<()> {
        let rows = until("every replica serves metrics", SOON, async || {
            let mut rows: Vec<Vec<String>> = Vec::new();
            for pod in self.pods().await? {
                let series = self.metrics(&pod).await?;
                let values = SHOWN
                    .iter()
                    .map(|(name, _)| series.get(*name).map_or_else(|| "-".into(), f64::to_string));
                rows.push([pod.name_any()].into_iter().chain(values).collect());
            }
            anyhow::Ok(rows)
        })
        .await?;
        let headings: Vec<&str> = ["REPLICA"]
            .into_iter()
            .chain(SHOWN.iter().map(|(_, heading)| *heading))
            .collect();
        screen::table(&headings, &rows);
        Ok(())
    }

    async fn metrics(&self, pod: &Pod) -> Result<BTreeMap<String, f64>> {
        let bytes = self
            .fetch(&format!("http://{}:8081/metrics", ip(pod)?))
            .await?;
        let text = String::from_utf8(bytes)?;
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Ok(series
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// Waits until an agent's document is served under its on-chain URI, and in the same bytes by each replica: a replica
    /// follows the cluster for itself, and may be a moment behind. Says what is wrong with it otherwise.
    pub async fn document(&self, uri: &str, agent: &str, pods: &[Pod]) -> Result<()> {
        let what = format!("the document of agent {agent}");
        until(&what, SOON, async || {
            self.check_document(uri, agent, pods).await
        })
        .await
    }

    async fn check_document(&self, uri: &str, agent: &str, pods: &[Pod]) -> Result<()> {
        let path = uri
            .strip_prefix(BASE_URL)
            .with_context(|| format!("{uri} is not below {BASE_URL}"))?;
        let served = self.fetch(uri).await?;
        for pod in pods {
            let own = self
                .fetch(&format!("http://{}:8080{path}", ip(pod)?))
                .await?;
            if own != served {
                bail!(
                    "{} serves other bytes of {path} than the Service",
                    pod.name_any()
                );
            }
        }
        let document: Value = serde_json::from_slice(&served)?;
        let named = document["registrations"][0]["agentId"].to_string();
        if named != agent || document["active"] != true {
            bail!("{path} names agent {named} instead of {agent}, or is not active");
        }
        Ok(())
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>> {
        Ok(self
            .http
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?
            .to_vec())
    }
}

fn ip(pod: &Pod) -> Result<&str> {
    let ip = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    ip.with_context(|| format!("pod {} has no address", pod.name_any()))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True")
}
