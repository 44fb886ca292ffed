//! A leader and a standby of one contender, as bare processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use election::{Candidate, CandidateOptions, ElectionNamespace, Implementation, Timing};
use serde::Serialize;
use testbed::Signal;

/// How long a process may take to list everything, and to lead or stand by.
const START: Duration = Duration::from_secs(180);
/// How long it may take to exit after SIGTERM.
const STOP: Duration = Duration::from_secs(60);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// This operator.
    Operator,
    /// The reconciler in `tests/peers/reconcile.go`.
    ControllerRuntime,
}

impl Contender {
    /// Display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::ControllerRuntime => "controller-runtime",
        }
    }

    fn options(self, max_in_flight: u16) -> CandidateOptions {
        match self {
            Self::Operator => CandidateOptions::new(Implementation::Operator, Timing::LONG)
                .with_argument(format!("--max-in-flight={max_in_flight}")),
            Self::ControllerRuntime => {
                CandidateOptions::new(Implementation::ControllerRuntime, Timing::LONG)
                    .with_argument("--kind=reconciler")
            }
        }
    }
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It writes.
    Leader,
    /// It follows the cluster.
    Standby,
}

impl Role {
    /// Display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
        }
    }
}

/// The replicas of one contender. They are killed when this is dropped.
pub struct Replicas {
    namespace: Arc<ElectionNamespace>,
    lease: String,
    options: CandidateOptions,
    /// The first that was started.
    pub leader: Candidate,
    standby: Option<Candidate>,
}

impl Replicas {
    /// Starts a process that will lead, for a Lease that does not exist yet.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(
        namespace: &Arc<ElectionNamespace>,
        contender: Contender,
        lease: &str,
        max_in_flight: u16,
    ) -> Result<Self> {
        let options = contender.options(max_in_flight);
        let identity = format!("{lease}-leader");
        let leader = Candidate::start(namespace, lease, &identity, options.clone()).await?;
        Ok(Self {
            namespace: Arc::clone(namespace),
            lease: lease.to_owned(),
            options,
            leader,
            standby: None,
        })
    }

    /// Waits until the leader leads, and returns how long it took from its start, in seconds.
    ///
    /// # Errors
    /// If it does not lead in time.
    pub async fn leads(&self) -> Result<f64> {
        let since = self.leader.leading(START).await?;
        Ok(since.duration_since(self.leader.started()).as_secs_f64())
    }

    /// Starts a standby, and waits until it could take over.
    ///
    /// # Errors
    /// If it does not start in time.
    pub async fn add_standby(&mut self) -> Result<()> {
        let identity = format!("{}-standby", self.lease);
        let options = self.options.clone();
        let standby = Candidate::start(&self.namespace, &self.lease, &identity, options).await?;
        standby.ready(START).await?;
        self.standby = Some(standby);
        Ok(())
    }

    /// All replicas that run.
    pub fn all(&self) -> impl Iterator<Item = (Role, &Candidate)> {
        let standby = self.standby.as_ref();
        [(Role::Leader, &self.leader)]
            .into_iter()
            .chain(standby.map(|standby| (Role::Standby, standby)))
    }

    /// Asks all replicas to exit, and waits until they have.
    ///
    /// # Errors
    /// If one of them does not exit in time.
    pub async fn stop(self) -> Result<()> {
        // The standby first, so that it does not take over.
        for mut replica in self.standby.into_iter().chain([self.leader]) {
            if replica.ended()?.is_none() {
                replica.signal(Signal::Term)?;
                let identity = replica.identity().to_owned();
                let stopped = replica.wait(STOP).await;
                stopped.with_context(|| format!("stopping {identity}"))?;
            }
        }
        Ok(())
    }
}
