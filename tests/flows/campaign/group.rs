//! Candidates that compete for one Lease. One that ends is replaced, as a Deployment would.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use election::campaign::recorder::Recorder;
use testbed::Signal;
use tokio::task::JoinHandle;

use super::contender::{Contender, Guise, Nursery};

/// How often it is looked who has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// A group. It ends when this is dropped.
pub struct Group {
    members: Arc<Members>,
    keeper: Option<JoinHandle<()>>,
}

struct Members {
    nursery: Nursery,
    recorder: Arc<Recorder>,
    present: Mutex<Vec<Contender>>,
    ended: Mutex<Vec<(Contender, ExitStatus)>>,
}

impl Group {
    /// A group without members.
    pub fn new(nursery: Nursery, recorder: Arc<Recorder>) -> Self {
        let members = Members {
            nursery,
            recorder,
            present: Mutex::default(),
            ended: Mutex::default(),
        };
        Self {
            members: Arc::new(members),
            keeper: None,
        }
    }

    /// Fills it up to a size whenever somebody has ended, with members of one guise.
    pub fn keep(&mut self, size: usize, guise: Guise) {
        let members = Arc::clone(&self.members);
        self.keeper = Some(tokio::spawn(async move {
            loop {
                members.bury();
                if members.present().len() < size {
                    // The API server may be away, and then nobody can be given a user: it is tried again.
                    let _ =
                        tokio::time::timeout(Duration::from_secs(5), members.enlist(guise.clone()))
                            .await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }));
    }

    /// Adds a member that is not replaced. Answers with its user.
    pub async fn add(&self, guise: Guise) -> String {
        self.members
            .enlist(guise)
            .await
            .expect("a candidate is started")
    }

    /// Users of those that have not ended.
    pub fn present(&self) -> Vec<String> {
        self.members.bury();
        self.members
            .present()
            .iter()
            .map(|contender| contender.user.clone())
            .collect()
    }

    /// Looks at a member that has not ended.
    pub fn with<T>(&self, user: &str, look: impl FnOnce(&Contender) -> T) -> Option<T> {
        self.members
            .present()
            .iter()
            .find(|contender| contender.user == user)
            .map(look)
    }

    /// Sends a member a signal, unless it has ended.
    pub fn kill(&self, user: &str, signal: Signal) {
        self.with(user, |contender| contender.kill(signal));
    }

    /// How a member ended, if it has, and what it had logged.
    pub fn ended(&self, user: &str) -> Option<(ExitStatus, String)> {
        self.members.bury();
        let ended = lock(&self.members.ended);
        ended
            .iter()
            .find(|(contender, _)| contender.user == user)
            .map(|(contender, exit)| (*exit, contender.log()))
    }

    /// Everything that every member has logged, of those that have ended as well, by their users.
    pub fn logs(&self) -> Vec<(String, String)> {
        let log = |contender: &Contender| (contender.user.clone(), contender.log());
        let ended: Vec<_> = lock(&self.members.ended)
            .iter()
            .map(|(contender, _)| log(contender))
            .collect();
        ended
            .into_iter()
            .chain(self.members.present().iter().map(log))
            .collect()
    }
}

impl Members {
    async fn enlist(&self, guise: Guise) -> anyhow::Result<String> {
        let contender = self.nursery.start(guise).await?;
        self.recorder.know(contender.process.pid(), &contender.user);
        let user = contender.user.clone();
        self.present().push(contender);
        Ok(user)
    }

    fn bury(&self) {
        let mut present = self.present();
        let all = std::mem::take(&mut *present);
        for mut contender in all {
            match contender.ended() {
                Some(exit) => lock(&self.ended).push((contender, exit)),
                None => present.push(contender),
            }
        }
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Vec<Contender>> {
        lock(&self.present)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        for contender in self.members.present().iter() {
            contender.kill(Signal::Kill);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
