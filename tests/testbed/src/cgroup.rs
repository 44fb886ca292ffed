//! The cgroups of a testbed: one directory with its name in each hierarchy (v1 and hybrid), or in
//! the only one (v2).
//!
//! A kubelet kills the pods of any other kubelet below its cgroup root, so each testbed has a
//! separate root. These directories are the only kernel state that outlives the node's namespaces,
//! so `down` must never skip [`remove`].

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::name::Name;
use crate::procfs;

const MOUNT: &str = "/sys/fs/cgroup";
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Checks that the machine has the controllers that a kubelet needs.
pub(crate) fn check() -> Result<()> {
    let present = if is_unified() {
        unified_controllers()?
    } else {
        legacy_controllers()?
    };
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|needed| !present.iter().any(|have| have == needed))
        .collect();
    ensure!(
        missing.is_empty(),
        "the cgroup controllers {} are not available below {MOUNT}: mount cgroup v2 there, or these v1 hierarchies",
        missing.join(", ")
    );
    Ok(())
}

/// Creates the directories.
pub(crate) fn create(name: &Name) -> Result<()> {
    if is_unified() {
        let control = Path::new(MOUNT).join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control)?;
        for controller in NEEDED
            .into_iter()
            .filter(|needed| !enabled.split_whitespace().any(|have| have == *needed))
        {
            fs::write(&control, format!("+{controller}"))
                .with_context(|| format!("enabling the cgroup controller {controller}"))?;
        }
    }
    for hierarchy in hierarchies()? {
        let directory = hierarchy.join(name.as_str());
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        if !is_unified() && hierarchy.join("cpuset.cpus").exists() {
            // A v1 cpuset starts empty and accepts no process until both are set.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(directory.join(file), fs::read(hierarchy.join(file))?)
                    .with_context(|| format!("setting {file}"))?;
            }
        }
    }
    Ok(())
}

/// Removes the directories. Waits for the processes in them, which were killed before, to exit.
pub(crate) fn remove(name: &Name) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(4);
    for hierarchy in hierarchies()? {
        let directory = hierarchy.join(name.as_str());
        while let Err(error) = remove_tree(&directory) {
            if error.kind() == ErrorKind::NotFound {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "failed to remove {}: {error}",
                directory.display()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// The pid on the host of a container's main process.
pub(crate) fn main_process(name: &Name, container_id: &str) -> Result<u32> {
    let hierarchy = if is_unified() {
        PathBuf::from(MOUNT)
    } else {
        Path::new(MOUNT).join("pids")
    };
    let directory = find(&hierarchy.join(name.as_str()), container_id)
        .with_context(|| format!("container {container_id} has no cgroup"))?;
    let listed = fs::read_to_string(directory.join("cgroup.procs"))?;
    let pids: Vec<u32> = listed
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    // If the pod shares its pid namespace, the oldest process of the container is its main process.
    let main = pids
        .iter()
        .find(|pid| procfs::innermost_pid(**pid) == Some(1))
        .or(pids.iter().min());
    main.copied()
        .with_context(|| format!("container {container_id} has no process"))
}

fn is_unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

fn unified_controllers() -> Result<Vec<String>> {
    let listed = fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers"))?;
    Ok(listed.split_ascii_whitespace().map(str::to_owned).collect())
}

fn legacy_controllers() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(MOUNT) else {
        bail!("no cgroups at {MOUNT}: mount cgroup v2 there")
    };
    let mounted = entries
        .flatten()
        .filter(|entry| entry.path().join("cgroup.procs").exists());
    Ok(mounted
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_unified() {
        return Ok(vec![PathBuf::from(MOUNT)]);
    }
    let entries = fs::read_dir(MOUNT).with_context(|| format!("reading {MOUNT}"))?;
    // Combined controllers have symbolic links beside the real directory (`cpu` to `cpu,cpuacct`).
    let real = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(real
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect())
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

fn find(directory: &Path, container_id: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(container_id) {
            return Some(entry.path());
        }
        if let Some(found) = find(&entry.path(), container_id) {
            return Some(found);
        }
    }
    None
}
