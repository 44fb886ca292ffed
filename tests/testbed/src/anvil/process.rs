//! The anvil process: starts it, parses its banner, signals it, and kills it at the latest when the
//! process that started it dies. It does not use the chain.

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

/// How long anvil may take to start listening, and to shut down.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many lines of anvil's output the error of a failed start contains.
const LINES_OF_OUTPUT: usize = 20;

/// What anvil prints when it starts.
#[derive(Debug, Default)]
pub(super) struct Banner {
    pub(super) port: u16,
    pub(super) keys: Vec<PrivateKeySigner>,
}

/// A running anvil, paused or not. It is killed on drop.
#[derive(Debug)]
pub(super) struct AnvilProcess {
    child: Child,
}

impl AnvilProcess {
    /// Starts a command that becomes anvil, and waits until it listens.
    pub(super) async fn start(command: Command) -> Result<(Self, Banner)> {
        let (announce, announced) = oneshot::channel();
        let (process, keeper) = Self::spawn(command, announce)?;
        match time::timeout(TIMEOUT, announced).await {
            Ok(Ok(banner)) => Ok((process, banner)),
            Ok(Err(_)) => bail!("{}", keeper.join().unwrap_or_default()),
            Err(_) => bail!("anvil does not listen after {TIMEOUT:?}"),
        }
    }

    /// Spawns on a thread that lives as long as the process: for `--pdeathsig` the kernel considers
    /// the spawning *thread* the parent, and a test's threads may end before its chain.
    fn spawn(
        mut command: Command,
        announce: oneshot::Sender<Banner>,
    ) -> Result<(Self, JoinHandle<String>)> {
        let (output, input) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input);
        let (sender, spawned) = mpsc::channel();
        let keeper = thread::Builder::new()
            .name("anvil".to_owned())
            .spawn(move || {
                let child = command.spawn();
                // The command holds the writing end of the pipe; the pipe would stay open.
                drop(command);
                let _ = sender.send(child);
                follow(output, announce)
            })?;
        let child = spawned.recv()??;
        Ok((Self { child }, keeper))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.pid()?, signal).with_context(|| format!("{signal} to anvil"))
    }

    /// Stops all threads, and returns once they have stopped: on a busy machine a thread may run
    /// for a moment longer.
    pub(super) fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let options = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while !matches!(
            wait::waitid(Id::Pid(self.pid()?), options).context("anvil has exited")?,
            WaitStatus::Stopped(..)
        ) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until it exits, and fails unless its exit status is 0.
    pub(super) async fn wait(&mut self) -> Result<()> {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    ensure!(status.success(), "anvil exited with {status}");
                    return Ok(());
                }
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        time::timeout(TIMEOUT, ended)
            .await
            .with_context(|| format!("anvil did not exit within {TIMEOUT:?}"))?
    }

    /// The pid has not been reused, because the child has not been reaped.
    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for AnvilProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads anvil's output to its end, because anvil would block on a full pipe. Returns the last
/// lines if the banner is incomplete.
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
    /// Parses a line. Returns true for the last line of the banner.
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
