//! `testbed run`: a testbed for the duration of one command, always removed, even if this process
//! is killed.
//!
//! A guardian process in another session reads from a pipe. This process sends it the id of the
//! command's session. If the pipe closes without [`DONE`], this process was killed: the guardian
//! then ends the session and removes the testbed.

use std::env;
use std::io::{self, BufRead, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::interrupt;
use crate::procfs;
use crate::testbed::Testbed;

/// How long a command may take to exit after it was signaled.
const GRACE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(50);
const DONE: &str = "done";

/// Starts the testbed, runs the command in a new session, and removes the testbed. Returns the
/// command's exit code.
pub(crate) fn run(testbed: &Testbed, command: &[String]) -> Result<u8> {
    let mut guardian = Guardian::start(testbed)?;
    let outcome = testbed
        .up()
        .and_then(|()| supervise(testbed, command, &mut guardian));
    let removed = testbed.down();
    // If this failed, the guardian is not dismissed and tries again.
    removed?;
    guardian.dismiss()?;
    outcome
}

/// The guardian process. Its standard input is the pipe.
pub(crate) fn guard(testbed: &Testbed) -> Result<()> {
    let mut session = None;
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            DONE => return Ok(()),
            started => session = Some(started.parse().context("malformed session id")?),
        }
    }
    if let Some(session) = session {
        end_session(session, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while !members(session).is_empty() && Instant::now() < deadline {
            thread::sleep(INTERVAL);
        }
        end_session(session, Signal::SIGKILL);
    }
    testbed.down()
}

struct Guardian {
    process: Child,
    pipe: ChildStdin,
}

impl Guardian {
    fn start(testbed: &Testbed) -> Result<Self> {
        let mut process = Command::new("setsid")
            .arg(env::current_exe()?)
            .args(["--name", testbed.name().as_str(), "guard"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to run setsid")?;
        let pipe = process.stdin.take().context("the guardian has no pipe")?;
        Ok(Self { process, pipe })
    }

    fn watch(&mut self, session: u32) -> Result<()> {
        writeln!(self.pipe, "{session}").context("the guardian has exited")
    }

    fn dismiss(mut self) -> Result<()> {
        writeln!(self.pipe, "{DONE}").context("the guardian has exited")?;
        self.process.wait()?;
        Ok(())
    }
}

fn supervise(testbed: &Testbed, command: &[String], guardian: &mut Guardian) -> Result<u8> {
    interrupt::check()?;
    // A session also includes processes that leave the process group, as children of test runners
    // do. It has no terminal to read from, so it gets no input.
    let mut session = Command::new("setsid");
    testbed.set_environment(session.arg("--").args(command).stdin(Stdio::null()))?;
    let mut child = session.spawn().context("failed to run setsid")?;
    let outcome = guardian.watch(child.id()).and_then(|()| wait(&mut child));
    end_session(child.id(), Signal::SIGKILL);
    outcome
}

fn wait(child: &mut Child) -> Result<u8> {
    let mut deadline = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(interrupt::received().map_or_else(|| exit_code(status), by_signal));
        }
        match (interrupt::received(), deadline) {
            (Some(signal), None) => {
                end_session(child.id(), Signal::try_from(signal)?);
                deadline = Some(Instant::now() + GRACE);
            }
            (_, Some(deadline)) if Instant::now() > deadline => {
                end_session(child.id(), Signal::SIGKILL)
            }
            _ => thread::sleep(INTERVAL),
        }
    }
}

/// The exit code as a shell reports it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.or(status.signal().map(by_signal)).unwrap_or(1)
}

fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

fn members(session: u32) -> Vec<procfs::ProcessId> {
    let alive = procfs::all()
        .into_iter()
        .filter(|stat| stat.session == session && stat.id.is_alive());
    alive.map(|stat| stat.id).collect()
}

fn end_session(session: u32, signal: Signal) {
    for member in members(session) {
        // Fails if the process has already exited, which is the goal.
        let _ = member.signal(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_of_a_killed_command_is_that_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn session_ends_with_members_that_left_the_process_group() -> Result<()> {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", "sleep 60 & sleep 60; true"])
            .spawn()?;
        while members(child.id()).len() < 3 {
            thread::sleep(INTERVAL);
        }
        end_session(child.id(), Signal::SIGKILL);
        child.wait()?;
        // A killed process that is not a child of this one takes a moment to exit.
        let deadline = Instant::now() + GRACE;
        while !members(child.id()).is_empty() {
            assert!(
                Instant::now() < deadline,
                "{:?} outlived SIGKILL",
                members(child.id())
            );
            thread::sleep(INTERVAL);
        }
        Ok(())
    }
}
