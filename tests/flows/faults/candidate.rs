//! One candidate of a campaign: a process of the operator outside the cluster, with a user and a address of its own.
//!
//! The user tells it from all others in the audit log, whatever name it goes by in the election. The address is an address of the
//! API server that nobody else uses, so that it can be cut off alone.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::{Cluster, Process, Signal};
use tokio::process::{Child, Command};

/// What the names of all candidates' users begin with, in a namespace.
const USER: &str = "candidate-";
/// The Lease that they compete for.
pub const LEASE: &str = "campaign";
/// A preloaded library that tells a process another time.
const FAKE_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// How long a lease lasts, how long it is held without a renewal, and how often it is renewed.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    pub duration: Duration,
    pub deadline: Duration,
    pub period: Duration,
}

/// The shortest lease that there is room for.
pub const SHORT_LEASE: Timings = Timings {
    duration: Duration::from_secs(3),
    deadline: Duration::from_millis(1500),
    period: Duration::from_millis(500),
};

/// A lease that outlives an outage of ten seconds without a new process: one gives up after twice its duration.
pub const LONGER_LEASE: Timings = Timings {
    duration: Duration::from_secs(6),
    deadline: Duration::from_secs(4),
    period: Duration::from_secs(1),
};

/// What is special about a candidate.
#[derive(Clone, Debug, Default)]
pub struct CandidateOptions {
    /// Its name in the election; its user's when not given.
    pub identity: Option<String>,
    /// The clock that it looks at; the real one when not given.
    pub clock: Option<FakeClock>,
    /// Whether there is a Pod of its name and uid.
    pub pod: bool,
}

/// A clock that a test sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeClock {
    /// Time of day can be stepped; time that passes is the real one, as on a machine whose clock is set.
    Stepped,
    /// All time goes faster or slower by a twentieth: every second one is fast, the others are slow.
    Drifting,
}

/// Where candidates come from.
pub struct CandidateFactory {
    cluster: Cluster,
    namespace: String,
    timings: Timings,
    authority: Value,
    next_id: AtomicU32,
}

impl CandidateFactory {
    pub fn new(cluster: &Cluster, namespace: &str, timings: Timings) -> Result<Self> {
        let kubeconfig: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
        let authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"].clone();
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.into(),
            timings,
            authority,
            next_id: AtomicU32::new(0),
        })
    }

    /// What the API server's names of all candidates begin with.
    pub fn users(&self) -> String {
        format!("system:serviceaccount:{}:{USER}", self.namespace)
    }

    /// Starts a candidate. The API server has to answer.
    pub async fn start(&self, options: CandidateOptions) -> Result<Candidate> {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let name = format!("{USER}{number}");
        let [high, low] = u16::try_from(number + 1)?.to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        let token = self.token(&name).await?;
        let directory = self.cluster.scratch(&format!("campaign/{name}"))?;
        let kubeconfig = directory.join("kubeconfig");
        std::fs::write(&kubeconfig, self.kubeconfig(address, &token).to_string())?;

        let identity = options.identity.unwrap_or_else(|| name.clone());
        let pod_uid = match options.pod {
            true => self.pod(&identity).await?,
            false => format!("00000000-0000-4000-8000-{number:012}"),
        };
        let log = directory.join("log");
        // The kernel ends it with the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary());
        command
            .args(self.arguments())
            .env_clear()
            .env("KUBECONFIG", &kubeconfig);
        command
            .env("POD_NAME", &identity)
            .env("POD_UID", &pod_uid)
            .env("POD_NAMESPACE", &self.namespace);
        let clock_file = directory.join("clock");
        match options.clock {
            Some(FakeClock::Stepped) => {
                std::fs::write(&clock_file, "+0")?;
                command
                    .env("LD_PRELOAD", FAKE_TIME)
                    .env("DONT_FAKE_MONOTONIC", "1");
                command
                    .env("FAKETIME_TIMESTAMP_FILE", &clock_file)
                    .env("FAKETIME_CACHE_DURATION", "1");
            }
            Some(FakeClock::Drifting) => {
                let rate = if number.is_multiple_of(2) {
                    "+0 x1.05"
                } else {
                    "+0 x0.95"
                };
                command.env("LD_PRELOAD", FAKE_TIME).env("FAKETIME", rate);
            }
            None => {}
        }
        let file = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        let child = command.spawn().context("setpriv does not run")?;
        let process = Process::started(&name, child.id().context("it has ended at once")?)?;
        let user = format!("system:serviceaccount:{}:{name}", self.namespace);
        Ok(Candidate {
            user,
            identity,
            address,
            process,
            child,
            log,
            clock_file,
        })
    }

    fn arguments(&self) -> Vec<String> {
        let Timings {
            duration,
            deadline,
            period,
        } = self.timings;
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        vec![
            format!("--lease-name={LEASE}"),
            format!("--lease-namespace={}", self.namespace),
            format!("--lease-duration={}s", duration.as_secs()),
            format!("--renew-deadline={}", milliseconds(deadline)),
            format!("--retry-period={}", milliseconds(period)),
            "--http-bind=127.0.0.1:0".into(),
            "--admin-bind=127.0.0.1:0".into(),
            "--log-format=json".into(),
        ]
    }

    /// Makes a Pod that no node will ever run, and answers with its uid.
    async fn pod(&self, name: &str) -> Result<String> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "serviceoffer-controller" } },
            "spec": { "schedulerName": "nobody", "containers": [{ "name": "controller", "image": "none" }] },
        }))?;
        let created = pods.create(&PostParams::default(), &pod).await?;
        created.metadata.uid.context("a Pod without a uid")
    }

    async fn token(&self, name: &str) -> Result<String> {
        let accounts = Api::<ServiceAccount>::namespaced(self.cluster.client(), &self.namespace);
        let account: ServiceAccount =
            serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        accounts.create(&PostParams::default(), &account).await?;
        let spec = TokenRequestSpec {
            expiration_seconds: Some(4 * 3600),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        Ok(answer.status.context("no token")?.token)
    }

    fn kubeconfig(&self, address: Ipv4Addr, token: &str) -> Value {
        let server = format!("https://{address}:6443");
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "campaign",
            "clusters": [{ "name": "campaign", "cluster": {
                "server": server, "tls-server-name": "localhost", "certificate-authority-data": self.authority,
            } }],
            "contexts": [{ "name": "campaign", "context": { "cluster": "campaign", "user": "candidate" } }],
            "users": [{ "name": "candidate", "user": { "token": token } }],
        })
    }
}

/// The operator. Another build of it can be given, to see the campaign find what is broken in it.
fn binary() -> PathBuf {
    std::env::var_os("CAMPAIGN_BINARY").map_or_else(
        || env!("CARGO_BIN_EXE_serviceoffer-controller").into(),
        Into::into,
    )
}

/// A candidate that was started.
pub struct Candidate {
    /// The API server's name of it.
    pub user: String,
    /// Its name in the election.
    pub identity: String,
    /// The address at which only it reaches the API server.
    pub address: Ipv4Addr,
    /// Its process.
    pub process: Process,
    child: Child,
    log: PathBuf,
    clock_file: PathBuf,
}

impl Candidate {
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn kill(&self, signal: Signal) {
        // One that has just ended is what a test may meet at any time.
        let _ = self.process.kill(signal);
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Steps its clock, if it has one that can be stepped, to that many seconds before or after the true time. It looks at its
    /// clock anew within a second.
    pub fn step_clock(&self, seconds: i64) {
        let to = format!("{seconds:+}");
        let partial = self.clock_file.with_extension("partial");
        std::fs::write(&partial, to).expect("the clock is written");
        std::fs::rename(partial, &self.clock_file).expect("the clock is set");
    }
}
