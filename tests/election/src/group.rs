//! The candidates of one Lease, and the replacements of those that exit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::{select_ok, try_join_all};
use jiff::Timestamp;
use testbed::Signal;

use crate::candidate::{Candidate, CandidateOptions, Implementation};
use crate::namespace::ElectionNamespace;

/// How long a process may take to join the election.
const START: Duration = Duration::from_secs(60);
/// How long a killed process may take to exit.
const END: Duration = Duration::from_secs(10);

/// Candidates that compete for one Lease.
#[derive(Debug)]
pub struct CandidateGroup {
    namespace: Arc<ElectionNamespace>,
    lease: String,
    members: Vec<Candidate>,
    next_id: usize,
}

/// A candidate that leads, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLeader {
    /// Its index in the group.
    pub member: usize,
    /// Its identity.
    pub identity: String,
    /// When it reported that it leads.
    pub at: Timestamp,
}

impl CandidateGroup {
    /// Starts one candidate per element of `specs`, and waits until all take part. Identities start
    /// with the Lease's name.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start(
        namespace: &Arc<ElectionNamespace>,
        lease: &str,
        specs: &[CandidateOptions],
    ) -> Result<Self> {
        let mut group = Self {
            namespace: Arc::clone(namespace),
            lease: lease.to_owned(),
            members: Vec::new(),
            next_id: 0,
        };
        for spec in specs {
            let candidate = group.spawn(spec.clone()).await?;
            group.members.push(candidate);
        }
        try_join_all(group.members.iter().map(|member| member.joined(START))).await?;
        Ok(group)
    }

    async fn spawn(&mut self, spec: CandidateOptions) -> Result<Candidate> {
        self.next_id += 1;
        let kind = match spec.kind {
            Implementation::Operator => "o",
            Implementation::ClientGo => "g",
            Implementation::ControllerRuntime => "r",
        };
        Candidate::start(
            &self.namespace,
            &self.lease,
            &format!("{}-{kind}{}", self.lease, self.next_id),
            spec,
        )
        .await
    }

    /// Name of the Lease.
    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// Namespace of the candidates.
    pub fn namespace(&self) -> &Arc<ElectionNamespace> {
        &self.namespace
    }

    /// All candidates, including those that exited and were not replaced.
    pub fn members(&self) -> &[Candidate] {
        &self.members
    }

    /// One candidate.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn member(&mut self, member: usize) -> &mut Candidate {
        &mut self.members[member]
    }

    /// Waits for the first member that starts leading at or after `since`.
    ///
    /// # Errors
    /// If none does in time.
    pub async fn successor(&self, since: Timestamp, limit: Duration) -> Result<NewLeader> {
        self.first(async |candidate| candidate.leads(since, limit).await)
            .await
    }

    /// Waits until a member leads, and returns the first that is found.
    ///
    /// # Errors
    /// If none does in time.
    pub async fn leader(&self, limit: Duration) -> Result<NewLeader> {
        self.first(async |candidate| candidate.leading(limit).await)
            .await
    }

    async fn first(
        &self,
        begun: impl AsyncFn(&Candidate) -> Result<Timestamp>,
    ) -> Result<NewLeader> {
        let begun = &begun;
        let waits = self.members.iter().enumerate().map(|(member, candidate)| {
            Box::pin(async move {
                let at = begun(candidate).await?;
                Ok::<_, anyhow::Error>(NewLeader {
                    member,
                    identity: candidate.identity().to_owned(),
                    at,
                })
            })
        });
        let (successor, _) = select_ok(waits)
            .await
            .with_context(|| format!("no candidate leads {} in time", self.lease))?;
        Ok(successor)
    }

    /// Waits until every running member that reports leaders reports this one.
    ///
    /// # Errors
    /// If one of them does not in time.
    pub async fn agrees(&mut self, leader: &str, since: Timestamp, limit: Duration) -> Result<()> {
        let mut alive = Vec::new();
        for member in &mut self.members {
            if member.kind() != Implementation::ControllerRuntime && member.ended()?.is_none() {
                alive.push(&*member);
            }
        }
        try_join_all(
            alive
                .into_iter()
                .map(|member| member.names(leader, since, limit)),
        )
        .await?;
        Ok(())
    }

    /// Replaces a member with a candidate of the same options and another identity. Kills the
    /// member if it still runs. The new candidate may not take part yet, see [`Candidate::joined`].
    ///
    /// # Errors
    /// If it does not start.
    pub async fn replace(&mut self, member: usize) -> Result<&Candidate> {
        let candidate = self.spawn(self.members[member].spec().clone()).await?;
        let mut old = std::mem::replace(&mut self.members[member], candidate);
        if old.ended()?.is_none() {
            old.signal(Signal::Kill)?;
            old.wait(END).await?;
        }
        Ok(&self.members[member])
    }

    /// Kills all members.
    ///
    /// # Errors
    /// If one of them does not end.
    pub async fn end(mut self) -> Result<()> {
        for member in &mut self.members {
            if member.ended()?.is_none() {
                member.signal(Signal::Kill)?;
                member.wait(END).await?;
            }
        }
        Ok(())
    }
}
