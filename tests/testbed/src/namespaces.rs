//! The Linux pid, mount and network namespaces of a node, as the host sees them.
//!
//! They exist exactly as long as their first process ([`crate::init`]). Every process of a node is
//! started here, and [`destroy`] kills all of them. [`crate::node`] decides which processes a node
//! has.

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
const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a program inside, so that the first process adopts it, and prints its pid in the pid
/// namespace.
const START: &str = r#"log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!"#;

/// The existing namespaces of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeNamespaces {
    init: ProcessId,
}

impl NodeNamespaces {
    /// Creates the namespaces. If this process is killed meanwhile, they end by themselves or
    /// [`Self::find`] finds them.
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
            .context("failed to run unshare")?;
        let pipes = starter
            .stdin
            .take()
            .zip(starter.stdout.take())
            .context("init has no pipes")?;
        let created = first_child(starter.id()).and_then(|init| {
            handshake(pipes, state)?;
            Ok(Self { init })
        });
        if created.is_err() {
            // Init exits when its pipe closes; `unshare` must still be reaped.
            starter.kill()?;
            starter.wait()?;
        }
        created
    }

    /// The namespaces of a testbed that is up, found by the command line of their first process.
    /// There is no pid file that could be stale.
    pub(crate) fn find(state: &State) -> Option<Self> {
        let processes = procfs::all()
            .into_iter()
            .map(|stat| stat.id)
            .filter(|id| id.is_alive());
        let mut inits =
            processes.filter(|id| procfs::arguments(id.pid).get(1..4) == Some(&arguments(state)));
        inits.next().map(|init| Self { init })
    }

    /// The pid of the first process on the host.
    pub(crate) fn init(self) -> u32 {
        self.init.pid
    }

    /// Runs `body` on a thread in the network namespace. Threads and processes that it starts
    /// inherit the namespace.
    pub(crate) fn in_network<T: Send>(self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = || -> Result<T> {
            let path = format!("/proc/{}/ns/net", self.init.pid);
            let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .context("entering the testbed's network needs root")?;
            Ok(body())
        };
        // Named like the calling thread, because a panic message starts with the thread's name.
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

    /// Starts a program in all namespaces, detached from this process.
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
        // Files in the home and the temporary directory must be removed with the testbed.
        let root = log
            .parent()
            .and_then(Path::parent)
            .context("the log is outside the state directory")?;
        enter
            .env("HOME", root.join("home"))
            .env("TMPDIR", root.join("tmp"));
        let inner: u32 = subprocess::output(&mut enter)?
            .trim()
            .parse()
            .context("malformed pid of a started program")?;
        self.outer(inner).ok_or_else(|| {
            anyhow!(
                "exited at once; its log ends with\n{}",
                subprocess::tail(log)
            )
        })
    }

    /// The process whose pid in the pid namespace is `inner`.
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

/// Kills all processes in the namespaces of a testbed, which removes the namespaces. They may be
/// absent.
pub(crate) fn destroy(state: &State) -> Result<()> {
    let Some(namespaces) = NodeNamespaces::find(state) else {
        return Ok(());
    };
    let namespace = procfs::namespace(namespaces.init.pid, "pid");
    namespaces.init.signal(Signal::SIGKILL)?;
    // The first process exits last: the kernel makes it wait for all others.
    let deadline = Instant::now() + TIMEOUT;
    while namespaces.init.is_alive() {
        ensure!(
            Instant::now() < deadline,
            "the node's processes ({namespace:?}) did not exit in time"
        );
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The arguments of the first process.
fn arguments(state: &State) -> [String; 3] {
    ["--name", state.name().as_str(), "init"].map(str::to_owned)
}

fn first_child(parent: u32) -> Result<ProcessId> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(child) = procfs::all().into_iter().find(|stat| stat.parent == parent) {
            return Ok(child.id);
        }
        ensure!(
            fs::exists(format!("/proc/{parent}"))? && Instant::now() < deadline,
            "unshare started no process"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn handshake((mut to, from): (ChildStdin, ChildStdout), state: &State) -> Result<()> {
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
