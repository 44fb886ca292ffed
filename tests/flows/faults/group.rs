//! Candidates that compete for one Lease. A candidate that exits is replaced, as in a Deployment.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use election::campaign::recorder::TransactionRecorder;
use testbed::Signal;
use tokio::task::JoinHandle;

use super::candidate::{Candidate, CandidateFactory, CandidateOptions};

/// How often exited candidates are reaped and replaced.
const INTERVAL: Duration = Duration::from_millis(50);

/// A group of candidates. Dropping it kills them.
pub struct Group {
    members: Arc<Members>,
    keeper: Option<JoinHandle<()>>,
}

struct Members {
    factory: CandidateFactory,
    recorder: Arc<TransactionRecorder>,
    running: Mutex<Vec<Candidate>>,
    exited: Mutex<Vec<(Candidate, ExitStatus)>>,
}

impl Group {
    /// A group without candidates.
    pub fn new(factory: CandidateFactory, recorder: Arc<TransactionRecorder>) -> Self {
        let members = Members {
            factory,
            recorder,
            running: Mutex::default(),
            exited: Mutex::default(),
        };
        Self {
            members: Arc::new(members),
            keeper: None,
        }
    }

    /// Keeps the group at this size: replaces every candidate that exits with one of these options.
    pub fn keep(&mut self, size: usize, options: CandidateOptions) {
        let members = Arc::clone(&self.members);
        self.keeper = Some(tokio::spawn(async move {
            loop {
                members.reap();
                if members.running().len() < size {
                    // Fails while the API server is unavailable: a candidate needs a
                    // ServiceAccount. The next round retries.
                    let _ =
                        tokio::time::timeout(Duration::from_secs(5), members.add(options.clone()))
                            .await;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        }));
    }

    /// Adds a candidate that is not replaced when it exits. Returns its user.
    pub async fn add(&self, options: CandidateOptions) -> String {
        self.members
            .add(options)
            .await
            .expect("failed to spawn a candidate")
    }

    /// The users of the candidates that are running.
    pub fn running(&self) -> Vec<String> {
        self.members.reap();
        self.members
            .running()
            .iter()
            .map(|candidate| candidate.user.clone())
            .collect()
    }

    /// Applies a function to a running candidate.
    pub fn with<T>(&self, user: &str, apply: impl FnOnce(&Candidate) -> T) -> Option<T> {
        self.members
            .running()
            .iter()
            .find(|candidate| candidate.user == user)
            .map(apply)
    }

    /// Sends a signal to a candidate, unless it has exited.
    pub fn kill(&self, user: &str, signal: Signal) {
        self.with(user, |candidate| candidate.kill(signal));
    }

    /// The exit status and the log of a candidate, if it has exited.
    pub fn exited(&self, user: &str) -> Option<(ExitStatus, String)> {
        self.members.reap();
        let exited = lock(&self.members.exited);
        exited
            .iter()
            .find(|(candidate, _)| candidate.user == user)
            .map(|(candidate, exit)| (*exit, candidate.log()))
    }

    /// The user and the log of every candidate, running or exited.
    pub fn logs(&self) -> Vec<(String, String)> {
        let log = |candidate: &Candidate| (candidate.user.clone(), candidate.log());
        let exited: Vec<_> = lock(&self.members.exited)
            .iter()
            .map(|(candidate, _)| log(candidate))
            .collect();
        exited
            .into_iter()
            .chain(self.members.running().iter().map(log))
            .collect()
    }
}

impl Members {
    async fn add(&self, options: CandidateOptions) -> anyhow::Result<String> {
        let candidate = self.factory.spawn(options).await?;
        self.recorder
            .add_candidate(candidate.process.pid(), &candidate.user);
        let user = candidate.user.clone();
        self.running().push(candidate);
        Ok(user)
    }

    fn reap(&self) {
        let mut running = self.running();
        let all = std::mem::take(&mut *running);
        for mut candidate in all {
            match candidate.try_wait() {
                Some(exit) => lock(&self.exited).push((candidate, exit)),
                None => running.push(candidate),
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Candidate>> {
        lock(&self.running)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        for candidate in self.members.running().iter() {
            candidate.kill(Signal::Kill);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
