//! One candidate: the operator's binary as a process outside the cluster, with its own user and its
//! own API server address.
//!
//! The user identifies it in the audit log, independently of its identity in the election. No other
//! candidate uses its API server address, so that it can be partitioned alone.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::candidate::{token, user};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::{Cluster, Process, Signal};
use tokio::process::Child;

/// Prefix of every candidate's ServiceAccount.
const USER: &str = "candidate-";
/// The Lease that the candidates compete for.
pub const LEASE: &str = "campaign";
/// A library that shows the process that preloads it another time.
const FAKE_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// `leaseDuration`, `renewDeadline` and `retryPeriod`.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    pub duration: Duration,
    pub deadline: Duration,
    pub period: Duration,
}

/// The shortest lease whose margins still exceed the machine's scheduling delays.
pub const SHORT_LEASE: Timings = Timings {
    duration: Duration::from_secs(3),
    deadline: Duration::from_millis(1500),
    period: Duration::from_millis(500),
};

/// A lease with which candidates survive an outage of ten seconds: a candidate exits after twice
/// the lease duration.
pub const LONGER_LEASE: Timings = Timings {
    duration: Duration::from_secs(6),
    deadline: Duration::from_secs(4),
    period: Duration::from_secs(1),
};

/// How a candidate differs from the default.
#[derive(Clone, Debug, Default)]
pub struct CandidateOptions {
    /// The identity in the election. Default: the name of its ServiceAccount.
    pub identity: Option<String>,
    /// The clock that the process reads. Default: the real one.
    pub clock: Option<FakeClock>,
    /// Whether a Pod with its name and uid exists.
    pub pod: bool,
}

/// A clock that the test controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeClock {
    /// The wall clock can be stepped; the monotonic clock is real, as on a machine whose clock is
    /// set.
    Stepped,
    /// Both clocks run 5 % fast (every second candidate) or slow (the others).
    Drifting,
}

/// Spawns candidates.
pub struct CandidateFactory {
    cluster: Cluster,
    namespace: String,
    timings: Timings,
    /// The administrator's kubeconfig.
    admin: Value,
    next_id: AtomicU32,
}

impl CandidateFactory {
    pub fn new(cluster: &Cluster, namespace: &str, timings: Timings) -> Result<Self> {
        let admin = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.into(),
            timings,
            admin,
            next_id: AtomicU32::new(0),
        })
    }

    /// Prefix of every candidate's user name in the audit log.
    pub fn users(&self) -> String {
        user(&self.namespace, USER)
    }

    /// Spawns a candidate. The API server must be reachable.
    pub async fn spawn(&self, options: CandidateOptions) -> Result<Candidate> {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let name = format!("{USER}{number}");
        let [high, low] = u16::try_from(number + 1)?.to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        let token = token(self.cluster.client(), &self.namespace, &name).await?;
        let directory = self.cluster.scratch(&format!("campaign/{name}"))?;
        let kubeconfig = directory.join("kubeconfig");
        let server = format!("https://{address}:6443");
        let config = harness::candidate::kubeconfig(
            &self.admin,
            &self.namespace,
            &name,
            &token,
            Some(&server),
        );
        std::fs::write(&kubeconfig, config.to_string())?;

        let identity = options.identity.unwrap_or_else(|| name.clone());
        let pod_uid = if options.pod {
            self.pod(&identity).await?
        } else {
            format!("00000000-0000-4000-8000-{number:012}")
        };
        let log = directory.join("log");
        let mut command = harness::candidate::command(binary());
        command
            .args(self.arguments())
            .env("KUBECONFIG", &kubeconfig)
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
            .stderr(file);
        let child = command.spawn().context("failed to run setpriv")?;
        let process = Process::started(&name, child.id().context("the candidate exited at once")?)?;
        Ok(Candidate {
            user: user(&self.namespace, &name),
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

    /// Creates a Pod that no scheduler will bind, and returns its uid.
    async fn pod(&self, name: &str) -> Result<String> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "serviceoffer-controller" } },
            "spec": { "schedulerName": "none", "containers": [{ "name": "controller", "image": "none" }] },
        }))?;
        let created = pods.create(&PostParams::default(), &pod).await?;
        created.metadata.uid.context("the Pod has no uid")
    }
}

/// The operator's binary. `CAMPAIGN_BINARY` names another build, for example a broken one that the
/// campaign must detect.
fn binary() -> PathBuf {
    std::env::var_os("CAMPAIGN_BINARY").map_or_else(
        || env!("CARGO_BIN_EXE_serviceoffer-controller").into(),
        Into::into,
    )
}

/// A spawned candidate.
pub struct Candidate {
    /// Its user name in the audit log.
    pub user: String,
    /// Its identity in the election.
    pub identity: String,
    /// The API server address that only this candidate uses.
    pub address: Ipv4Addr,
    pub process: Process,
    child: Child,
    log: PathBuf,
    clock_file: PathBuf,
}

impl Candidate {
    /// Its exit status, if it has exited.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("failed to wait for the candidate")
    }

    pub fn kill(&self, signal: Signal) {
        // The candidate may have exited a moment ago.
        let _ = self.process.kill(signal);
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sets a [`FakeClock::Stepped`] to this many seconds after (or before) the true time. The
    /// process reads it again within a second.
    pub fn step_clock(&self, seconds: i64) {
        let to = format!("{seconds:+}");
        let partial = self.clock_file.with_extension("partial");
        std::fs::write(&partial, to).expect("failed to write the clock file");
        std::fs::rename(partial, &self.clock_file).expect("failed to set the clock");
    }
}
