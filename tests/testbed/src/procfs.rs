//! Processes as the host's `/proc` shows them.
//!
//! A pid alone does not identify a process, because the kernel reuses pids: [`ProcessId`] adds the
//! start time. Nothing here depends on the purpose of a process; [`crate::process`] is the handle
//! that tests use.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One process: its pid on the host, and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    start: u64,
}

impl ProcessId {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| stat.id)
    }

    /// The state letter of `/proc/PID/stat`, or none if this process has exited, reaped or not.
    pub(crate) fn state(self) -> Option<char> {
        let stat = Stat::read(self.pid)?;
        (stat.id == self && !stat.has_exited()).then_some(stat.state)
    }

    pub(crate) fn is_alive(self) -> bool {
        self.state().is_some()
    }

    pub(crate) fn signal(self, signal: signal::Signal) -> Result<()> {
        ensure!(self.is_alive(), "process {} has exited", self.pid);
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        signal::kill(pid, signal).with_context(|| format!("{signal} to process {}", self.pid))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(self) -> Option<u64> {
        let kilobytes = status_field(self.pid, "VmRSS:")?;
        Some(
            kilobytes
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()?
                * 1024,
        )
    }
}

/// The fields of `/proc/PID/stat` that the testbed reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) id: ProcessId,
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    /// Threads that have not exited, the first one included.
    threads: u32,
}

impl Stat {
    /// Whether every thread has exited. The first one can be a zombie while others still hold what
    /// the process had open, such as the port that its successor needs.
    fn has_exited(self) -> bool {
        match self.state {
            'Z' => self.threads <= 1,
            state => state == 'X',
        }
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name may contain spaces and parentheses, so fields are counted from the last
    /// closing parenthesis.
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let threads = fields.nth(13)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        Some(Self {
            id: ProcessId { pid, start },
            state,
            parent,
            session,
            threads,
        })
    }
}

/// Every process of the machine, zombies included.
pub(crate) fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Stat::read).collect()
}

/// The pid of a process in its innermost pid namespace.
pub(crate) fn innermost_pid(pid: u32) -> Option<u32> {
    status_field(pid, "NSpid:")?
        .split_ascii_whitespace()
        .last()?
        .parse()
        .ok()
}

/// The command line of a process.
pub(crate) fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// The identity of a process's namespace of a kind (`pid`, `net`, ...).
pub(crate) fn namespace(pid: u32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

fn status_field(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_name_with_parentheses_does_not_shift_the_fields() -> Result<()> {
        let line = "7 (a) b) S 3 7 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(7, line).context("no parse")?;
        assert_eq!(
            (stat.state, stat.parent, stat.session, stat.id.start),
            ('S', 3, 5, 4242)
        );
        Ok(())
    }

    #[test]
    fn process_has_exited_when_its_last_thread_has() -> Result<()> {
        for (state, threads, exited) in [
            ("S", 3, false),
            ("Z", 3, false),
            ("Z", 1, true),
            ("X", 1, true),
        ] {
            let line =
                format!("7 (a) {state} 3 7 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0");
            let stat = Stat::parse(7, &line).context("no parse")?;
            assert_eq!(stat.has_exited(), exited, "{line}");
        }
        Ok(())
    }

    #[test]
    fn pid_with_another_start_time_is_another_process() -> Result<()> {
        let own = ProcessId::of(std::process::id()).context("no own process")?;
        assert!(own.is_alive());
        assert!(
            !ProcessId {
                start: own.start + 1,
                ..own
            }
            .is_alive()
        );
        Ok(())
    }
}
