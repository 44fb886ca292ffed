//! A testbed that belongs to one test, driven through the command line like a person does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use testbed::Name;

/// Removed when it is dropped, also by a test that failed.
pub struct Own {
    name: Name,
    _turn: Option<File>,
}

impl Own {
    /// A name that is this test's alone. Tests that start testbeds take turns: two nodes starting on a small machine at the
    /// same time prove nothing but patience.
    pub fn named(name: &str) -> Self {
        let turn =
            File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("own-testbeds.lock")).unwrap();
        turn.lock().unwrap();
        Self::create(name, Some(turn))
    }

    /// A second testbed of the same test.
    pub fn beside(name: &str) -> Self {
        Self::create(name, None)
    }

    fn create(name: &str, turn: Option<File>) -> Self {
        let own = Self {
            name: name.parse().unwrap(),
            _turn: turn,
        };
        assert!(own.run(&["down"]).status.success());
        own
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib/serviceoffer-testbed").join(self.name.as_str())
    }

    /// The `testbed` command with arguments for this testbed.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        command.args(["--name", self.name.as_str()]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the command, which must succeed, and returns what it wrote to standard output and error.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = said(&output);
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let output = self.run(&["down"]);
        if !output.status.success() && !thread::panicking() {
            panic!("down: {}", said(&output));
        }
    }
}

/// What a command wrote, errors last.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Waits for something that must come true.
pub fn until(what: &str, patience: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
