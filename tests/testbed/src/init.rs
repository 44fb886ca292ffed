//! The first process of a node's namespaces: prepares their mounts and network, then only reaps.
//!
//! Killing it makes the kernel kill everything else in its pid namespace and drop the mounts and
//! the network, which is all that `down` relies on. It knows nothing of Kubernetes. The other side
//! of the pipes is in [`crate::namespaces`].

use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::settings::NODE_IP;
use crate::state::State;

/// What the starter writes once it knows this process.
pub(crate) const GO: &str = "go";
/// What this process answers when the namespaces are prepared.
pub(crate) const READY: &str = "ready";

/// Kernel settings of the whole machine that a kubelet insists on, and would change.
const KUBELET_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Runs until it is killed.
pub(crate) fn run(state: &State, cache: &Path) -> Result<Infallible> {
    // Without the word the starter died. It may have been cleaned up after already, and this
    // process be overlooked because it was not this program yet.
    let mut word = String::new();
    io::stdin().read_line(&mut word)?;
    ensure!(word.trim() == GO, "the starter is gone");

    prepare_mounts(state, cache).context("preparing the mounts")?;
    prepare_network().context("preparing the network")?;
    println!("{READY}");
    io::stdout().flush()?;
    reap()
}

/// Hides what the node would write to or read from the host. Everything stays in this mount
/// namespace.
fn prepare_mounts(state: &State, cache: &Path) -> Result<()> {
    bind(cache, &state.cache_mount(), MsFlags::empty())?;
    for (name, value) in KUBELET_SETTINGS {
        let file = state.write(Path::new("sysctl").join(name), value)?;
        bind(&file, &Path::new("/proc/sys").join(name), MsFlags::empty())?;
    }
    hide("/run", &["lock", "netns"])?;
    hide("/var/log", &["containers", "pods"])?;
    // The state directory is below the directory that is hidden, so it is moved out of the way and
    // back.
    let aside = Path::new("/run/state");
    bind(state.root(), aside, MsFlags::MS_REC)?;
    hide("/var/lib", &[])?;
    fs::create_dir_all(state.root())?;
    change(Some(aside), state.root(), None, MsFlags::MS_MOVE)?;
    // Mounts of pods have to reach their containers.
    change(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
    )
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target)?;
    }
    change(Some(source), target, None, MsFlags::MS_BIND | flags)
}

fn hide(target: &str, directories: &[&str]) -> Result<()> {
    let target = Path::new(target);
    change(
        Some(Path::new("tmpfs")),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
    )?;
    for directory in directories {
        fs::create_dir(target.join(directory))?;
    }
    Ok(())
}

fn change(source: Option<&Path>, target: &Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(source, target, kind, flags, None::<&str>)
        .with_context(|| format!("mounting {}", target.display()))
}

/// An empty bridge carries the node's address, because not every kernel has dummy links.
fn prepare_network() -> Result<()> {
    let batch = format!(
        "link set lo up\nlink add node0 type bridge\naddress add {NODE_IP}/32 dev node0\nlink set node0 up\nroute add default dev node0\n"
    );
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    ip.stdin
        .take()
        .context("no pipe to ip")?
        .write_all(batch.as_bytes())?;
    let status = ip.wait()?;
    ensure!(status.success(), "ip: {status}");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("enabling forwarding")
}

fn reap() -> Result<Infallible> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    // Blocked before the first look, so that a child that ends between the look and the wait is not
    // missed.
    children.thread_block()?;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => drop(children.wait()?),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("waiting for a child: {error}"),
        }
    }
}
