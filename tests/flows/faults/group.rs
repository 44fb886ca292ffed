//! Candidates that compete for one Lease. One that ends is replaced, as a Deployment would.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use election::campaign::recorder::Recorder;
use testbed::Signal;
use tokio::task::JoinHandle;

use super::candidate::{Candidate, CandidateFactory, CandidateOptions};

/// How often it is looked who has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// A group. It ends when this is dropped.
pub struct Group {
    members: Arc<Members>,
    keeper: Option<JoinHandle<()>>,
}

struct Members {
    factory: CandidateFactory,
    recorder: Arc<Recorder>,
    present: Mutex<Vec<Candidate>>,
    ended: Mutex<Vec<(Candidate, ExitStatus)>>,
}

impl Group {
    /// A group without members.
    pub fn new(factory: CandidateFactory, recorder: Arc<Recorder>) -> Self {
        let members = Members {
            factory,
            recorder,
            present: Mutex::default(),
            ended: Mutex::default(),
        };
        Self {
            members: Arc::new(members),
            keeper: None,
        }
    }

    /// Fills it up to a size whenever somebody has ended, with members of one options.
    pub fn keep(&mut self, size: usize, options: CandidateOptions) {
        let members = Arc::clone(&self.members);
        self.keeper = Some(tokio::spawn(async move {
            loop {
                members.reap();
                if members.present().len() < size {
                    // The API server may be away, and then nobody can be given a user: it is tried again.
                    let _ =
                        tokio::time::timeout(Duration::from_secs(5), members.add(options.clone()))
                            .await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }));
    }

    /// Adds a member that is not replaced. Answers with its user.
    pub async fn add(&self, options: CandidateOptions) -> String {
        self.members
            .add(options)
            .await
            .expect("a candidate is started")
    }

    /// Users of those that have not ended.
    pub fn present(&self) -> Vec<String> {
        self.members.reap();
        self.members
            .present()
            .iter()
            .map(|candidate| candidate.user.clone())
            .collect()
    }

    /// Looks at a member that has not ended.
    pub fn with<T>(&self, user: &str, look: impl FnOnce(&Candidate) -> T) -> Option<T> {
        self.members
            .present()
            .iter()
            .find(|candidate| candidate.user == user)
            .map(look)
    }

    /// Sends a member a signal, unless it has ended.
    pub fn kill(&self, user: &str, signal: Signal) {
        self.with(user, |candidate| candidate.kill(signal));
    }

    /// How a member ended, if it has, and what it had logged.
    pub fn ended(&self, user: &str) -> Option<(ExitStatus, String)> {
        self.members.reap();
        let ended = lock(&self.members.ended);
        ended
            .iter()
            .find(|(candidate, _)| candidate.user == user)
            .map(|(candidate, exit)| (*exit, candidate.log()))
    }

    /// Everything that every member has logged, of those that have ended as well, by their users.
    pub fn logs(&self) -> Vec<(String, String)> {
        let log = |candidate: &Candidate| (candidate.user.clone(), candidate.log());
        let ended: Vec<_> = lock(&self.members.ended)
            .iter()
            .map(|(candidate, _)| log(candidate))
            .collect();
        ended
            .into_iter()
            .chain(self.members.present().iter().map(log))
            .collect()
    }
}

impl Members {
    async fn add(&self, options: CandidateOptions) -> anyhow::Result<String> {
        let candidate = self.factory.start(options).await?;
        self.recorder.know(candidate.process.pid(), &candidate.user);
        let user = candidate.user.clone();
        self.present().push(candidate);
        Ok(user)
    }

    fn reap(&self) {
        let mut present = self.present();
        let all = std::mem::take(&mut *present);
        for mut candidate in all {
            match candidate.ended() {
                Some(exit) => lock(&self.ended).push((candidate, exit)),
                None => present.push(candidate),
            }
        }
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Vec<Candidate>> {
        lock(&self.present)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        for candidate in self.members.present().iter() {
            candidate.kill(Signal::Kill);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
