//! Runs external programs to completion: `go build`, `pip download`, `apt-get`, `ctr`, `buildah`.
//!
//! A failure becomes an error with the end of the program's output. A slow program is killed when
//! this process is interrupted or dies. [`crate::namespaces`] starts the processes of a node
//! instead.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::interrupt;

const SHOWN_LINES: usize = 20;

/// A command that the kernel terminates when this process dies, however it dies.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// Runs a quick command and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let what = describe(command);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {what}"))?;
    if !status.success() {
        bail!(
            "{what}: {status}\n{}",
            last_lines(&String::from_utf8_lossy(&stderr))
        );
    }
    String::from_utf8(stdout).with_context(|| format!("{what}: output"))
}

/// Runs a slow command, with its output in a log file.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let what = describe(command);
    let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut child = command
        .spawn()
        .with_context(|| format!("failed to run {what}"))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted);
        }
        thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        bail!("{what}: {status}\n{}", tail(log));
    }
    Ok(())
}

/// The last lines of a log file.
pub(crate) fn tail(log: &Path) -> String {
    match fs::read(log) {
        Ok(content) => last_lines(&String::from_utf8_lossy(&content)),
        Err(error) => format!("{}: {error}", log.display()),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// The program and its first arguments, without the wrapper of [`bound`].
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let start = if words[0] == "setpriv" {
        let separator = words.iter().position(|word| word == "--");
        separator.map_or(0, |at| at + 1)
    } else {
        0
    };
    format!(
        "`{}`",
        words[start..]
            .iter()
            .take(3)
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_failed_command_and_its_last_output() {
        let error = output(Command::new("sh").args(["-c", "echo seen >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`sh -c echo seen") && error.contains("exit status: 3\nseen"),
            "{error}"
        );
    }

    #[test]
    fn long_log_is_cut_to_its_end() {
        let text: String = (1..=50).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_lines(&text).lines().next(), Some("31"));
        assert_eq!(last_lines("one"), "one");
    }
}
