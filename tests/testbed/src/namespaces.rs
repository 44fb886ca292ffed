//! The pid, mount and network namespaces of a node, seen from the host.
//!
//! They live exactly as long as their first process ([`crate::init`]). Everything that a node consists of is started through
//! here, and [`destroy`] ends all of it whatever it was. Which processes make up a node is in [`crate::node`].

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::host::SYSTEM_PATH;
use crate::init;
use crate::procfs::{self, ProcessId};
use crate::state::State;
use crate::subprocess;

const LOG: &str = "init";
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a program from inside, so that the first process adopts it, and prints the pid that it has there.
const START: &str = r#"log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!"#;

/// Namespaces that exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespaces {
    init: ProcessId,
}

impl Namespaces {
    /// Creates them; if this process dies half-way, they end by themselves or can be found.
    pub(crate) fn create(state: &State, cache: &Path) -> Result<Self> {
        let log = File::create(state.log(LOG)).context("creating the log of init")?;
        let mut starter = Command::new("setsid")
            .args([
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "slave", "--"])
            .arg(env::current_exe()?)
            .args(arguments(state))
            .arg("--cache")
            .arg(cache)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot run unshare")?;
        let pipes = starter
            .stdin
            .take()
            .zip(starter.stdout.take())
            .context("no pipes to init")?;
        let created = first_child(starter.id()).and_then(|init| {
            converse(pipes, state)?;
            Ok(Self { init })
        });
        if created.is_err() {
            // It ends by itself when its pipe closes; here it only has to be waited for.
            starter.kill()?;
            starter.wait()?;
        }
        created
    }

    /// The namespaces of a testbed that is up, found by what their first process was started with. No file says it, so no file
    /// can be wrong about it.
    pub(crate) fn find(state: &State) -> Option<Self> {
        let processes = procfs::all()
            .into_iter()
            .map(|stat| stat.id)
            .filter(|id| id.is_alive());
        let mut inits =
            processes.filter(|id| procfs::arguments(id.pid).get(1..4) == Some(&arguments(state)));
        inits.next().map(|init| Self { init })
    }

    /// The host's pid of the first process.
    pub(crate) fn init(self) -> u32 {
        self.init.pid
    }

    /// Runs `body` on a thread in the network namespace. Threads and processes that it starts are there as well.
    pub(crate) fn in_network<T: Send>(self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = || -> Result<T> {
            let path = format!("/proc/{}/ns/net", self.init.pid);
            let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .context("entering the testbed's network: this needs root")?;
            Ok(body())
        };
        // Under the caller's name, because a panic's message begins with it.
        let name = thread::current().name().unwrap_or("testbed").to_owned();
        let joined = thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, entered)?;
            Ok::<_, io::Error>(thread.join())
        });
        match joined? {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts a program in all the namespaces, detached from this process.
    pub(crate) fn start(self, command: &[String], log: &Path) -> Result<ProcessId> {
        let mut enter = Command::new("nsenter");
        enter.args([
            "--target",
            &self.init.pid.to_string(),
            "--mount",
            "--net",
            "--pid",
            "--",
            "sh",
            "-c",
            START,
            "sh",
        ]);
        enter
            .arg(log)
            .args(command)
            .current_dir("/")
            .env_clear()
            .env("PATH", SYSTEM_PATH);
        // What a program writes to its home or its temporary directory has to go away with the testbed.
        let root = log
            .parent()
            .and_then(Path::parent)
            .context("a log outside the state directory")?;
        enter
            .env("HOME", root.join("home"))
            .env("TMPDIR", root.join("tmp"));
        let inner: u32 = subprocess::output(&mut enter)?
            .trim()
            .parse()
            .context("pid of a started program")?;
        self.outer(inner).ok_or_else(|| {
            anyhow!(
                "ended at once; its log ends with\n{}",
                subprocess::tail(log)
            )
        })
    }

    /// The process on the host that has the pid `inner` in the pid namespace.
    fn outer(self, inner: u32) -> Option<ProcessId> {
        let namespace = procfs::namespace(self.init.pid, "pid");
        let here = |pid| {
            procfs::innermost_pid(pid) == Some(inner) && procfs::namespace(pid, "pid") == namespace
        };
        procfs::all()
            .into_iter()
            .map(|stat| stat.id)
            .find(|id| id.is_alive() && here(id.pid))
    }
}

/// Ends everything in the namespaces of a testbed, and the namespaces with it. Nothing to end is fine.
pub(crate) fn destroy(state: &State) -> Result<()> {
    let Some(namespaces) = Namespaces::find(state) else {
        return Ok(());
    };
    let namespace = procfs::namespace(namespaces.init.pid, "pid");
    namespaces.init.signal(Signal::SIGKILL)?;
    // The first process ends last: the kernel makes it wait until the others are gone.
    let deadline = Instant::now() + PATIENCE;
    while namespaces.init.is_alive() {
        ensure!(
            Instant::now() < deadline,
            "the node's processes ({namespace:?}) do not end"
        );
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What the first process is started with, after the program.
fn arguments(state: &State) -> [String; 3] {
    ["--name", state.name().as_str(), "init"].map(str::to_owned)
}

fn first_child(parent: u32) -> Result<ProcessId> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(child) = procfs::all().into_iter().find(|stat| stat.parent == parent) {
            return Ok(child.id);
        }
        ensure!(
            fs::exists(format!("/proc/{parent}"))? && Instant::now() < deadline,
            "unshare started nothing"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn converse((mut to, from): (ChildStdin, ChildStdout), state: &State) -> Result<()> {
    writeln!(to, "{}", init::GO)?;
    let mut answer = String::new();
    BufReader::new(from).read_line(&mut answer)?;
    ensure!(
        answer.trim() == init::READY,
        "init: {}",
        subprocess::tail(&state.log(LOG))
    );
    Ok(())
}
