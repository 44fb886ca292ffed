//! A testbed that belongs to one test, controlled through the command line as a user would.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use testbed::Name;

/// A testbed that is removed when this is dropped, even if the test failed.
pub struct OwnTestbed {
    name: Name,
    _turn: Option<File>,
}

impl OwnTestbed {
    /// A testbed with a name that no other test uses. Only one test at a time gets one: two nodes
    /// that start at the same time on a small machine would only test timeouts.
    pub fn named(name: &str) -> Self {
        let turn =
            File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("own-testbeds.lock")).unwrap();
        turn.lock().unwrap();
        Self::create(name, Some(turn))
    }

    /// A second testbed for the same test.
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

    /// The `testbed` command for this testbed.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        command.args(["--name", self.name.as_str()]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the command, asserts that it succeeds, and returns its standard output and standard
    /// error.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = output_text(&output);
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }
}

impl Drop for OwnTestbed {
    fn drop(&mut self) {
        let output = self.run(&["down"]);
        if !output.status.success() && !thread::panicking() {
            panic!("down: {}", output_text(&output));
        }
    }
}

/// The standard output of a command, followed by its standard error.
pub fn output_text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Waits until a condition holds.
pub fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
