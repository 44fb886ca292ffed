//! The process behind a chain: its birth, what it says then, and its death, which never comes later than that of the
//! process that started it. It knows nothing of what a chain does.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, PipeReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use alloy::signers::local::PrivateKeySigner;
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{self, Signal},
        wait::{self, Id, WaitPidFlag, WaitStatus},
    },
    unistd::Pid,
};
use tokio::{sync::oneshot, time};

/// How long anvil may take to listen, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of anvil's output a failed start is explained with.
const LINES_OF_OUTPUT: usize = 20;

/// What anvil says when it starts.
#[derive(Debug, Default)]
pub(super) struct Banner {
    pub(super) port: u16,
    pub(super) keys: Vec<PrivateKeySigner>,
}

/// A running anvil, killed on drop. That also ends a stopped one.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Runs a command that becomes anvil, until it listens.
    pub(super) async fn start(command: Command) -> Result<(Self, Banner)> {
        let (announce, announced) = oneshot::channel();
        let (process, keeper) = Self::spawn(command, announce)?;
        match time::timeout(PATIENCE, announced).await {
            Ok(Ok(banner)) => Ok((process, banner)),
            Ok(Err(_)) => bail!("{}", keeper.join().unwrap_or_default()),
            Err(_) => bail!("it does not listen after {PATIENCE:?}"),
        }
    }

    /// Spawns on a thread that stays for as long as the process does: the kernel takes the death of the spawning
    /// *thread* for that of the parent, and a test may end its threads before its chain.
    fn spawn(
        mut command: Command,
        announce: oneshot::Sender<Banner>,
    ) -> Result<(Self, JoinHandle<String>)> {
        let (output, input) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input);
        let (born, birth) = mpsc::channel();
        let keeper = thread::Builder::new()
            .name("anvil".to_owned())
            .spawn(move || {
                let child = command.spawn();
                // It holds the writing end of the pipe, which would never end otherwise.
                drop(command);
                let _ = born.send(child);
                follow(output, announce)
            })?;
        let child = birth.recv()??;
        Ok((Self { child }, keeper))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.pid()?, signal).with_context(|| format!("{signal} to anvil"))
    }

    /// Stops all its threads, and returns once they stand still: on a busy machine one may go on for a moment.
    pub(super) fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let question = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while !matches!(
            wait::waitid(Id::Pid(self.pid()?), question).context("anvil is gone")?,
            WaitStatus::Stopped(..)
        ) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one.
    pub(super) async fn wait(&mut self) -> Result<()> {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    ensure!(status.success(), "anvil ended with {status}");
                    return Ok(());
                }
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        time::timeout(PATIENCE, ended)
            .await
            .with_context(|| format!("anvil did not end within {PATIENCE:?}"))?
    }

    /// The pid is still its own, because nobody has waited for the child.
    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads anvil's output to its end, as anvil would block on a full pipe. Without a whole banner in it, returns its last
/// lines.
fn follow(output: PipeReader, announce: oneshot::Sender<Banner>) -> String {
    let mut output = BufReader::new(output);
    let mut banner = Banner::default();
    let mut last = VecDeque::new();
    let mut line = String::new();
    while output.read_line(&mut line).is_ok_and(|length| length > 0) {
        if banner.take(line.trim_end()) {
            let _ = announce.send(banner);
            let _ = io::copy(&mut output, &mut io::sink());
            return String::new();
        }
        last.push_back(std::mem::take(&mut line));
        if last.len() > LINES_OF_OUTPUT {
            last.pop_front();
        }
    }
    last.into_iter().collect()
}

impl Banner {
    /// Takes in a line; true once it was the last one.
    fn take(&mut self, line: &str) -> bool {
        if let Some(key) = line
            .strip_prefix('(')
            .and_then(|line| line.split_once(") ")?.1.parse().ok())
        {
            self.keys.push(key);
        }
        let address = line
            .strip_prefix("Listening on ")
            .and_then(|address| address.parse::<SocketAddr>().ok());
        self.port = address.map_or(self.port, |address| address.port());
        address.is_some()
    }
}
