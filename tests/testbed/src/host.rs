//! Checks the machine's prerequisites before a node starts. Each failure is one line that says what
//! to change.
//!
//! Nothing here changes the machine: [`crate::packages`] installs packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use crate::cgroup;
use crate::state;

/// Programs that a node needs, each with its Debian package.
const PROGRAMS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];

/// The PATH of a node's processes. The caller's PATH may lack the `sbin` directories.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a node writes while all flows run on it (images, etcd, logs), with room to spare, in bytes.
const NEEDED_SPACE: u64 = 4 << 30;

/// Checks all prerequisites. The error is the first one that is missing.
pub(crate) fn check() -> Result<()> {
    check_rights()?;
    cgroup::check()?;
    check_programs(SYSTEM_PATH)
}

/// Checks that a node that starts has room for what it will write. A full disk stops etcd, and
/// every request to the API server then waits until it times out.
pub(crate) fn check_disk() -> Result<()> {
    let directory = state::EXISTING_PARENT;
    let disk =
        statvfs(directory).with_context(|| format!("reading the free space of {directory}"))?;
    check_space(disk.blocks_available() * disk.fragment_size())
}

fn check_space(free: u64) -> Result<()> {
    ensure!(
        free >= NEEDED_SPACE,
        "the testbed needs {} MiB of free disk space in {}, but only {} MiB are free: delete files that you do not need",
        NEEDED_SPACE >> 20,
        state::EXISTING_PARENT,
        free >> 20
    );
    Ok(())
}

/// Checks that this process may create namespaces and configure their network.
pub(crate) fn check_rights() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "the testbed needs Linux");
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the testbed needs an x86-64 machine: some of its tools are x86-64 binaries"
    );
    ensure!(
        geteuid().is_root(),
        "the testbed needs root: run the command with sudo"
    );
    let status = fs::read_to_string("/proc/self/status")?;
    check_capabilities(&status)
}

fn check_capabilities(status: &str) -> Result<()> {
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("/proc/self/status has no CapEff")?;
    let held = u64::from_str_radix(held.trim(), 16)?;
    for (bit, name) in [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN")] {
        ensure!(
            held & (1 << bit) != 0,
            "{name} is missing: run on a host, or in a container with --privileged"
        );
    }
    Ok(())
}

fn check_programs(path: &str) -> Result<()> {
    for (program, package) in PROGRAMS {
        if find(program, path).is_none() {
            bail!("{program} is missing: run `make deps`, or install the Debian package {package}");
        }
    }
    Ok(())
}

/// Finds a program in the caller's PATH.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    find(name, &env::var("PATH").unwrap_or_default())
}

fn find(program: &str, path: &str) -> Option<PathBuf> {
    // Joining an absolute path replaces the directory, so an absolute name is used unchanged.
    env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|file| Path::new(file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_a_missing_program_with_its_package() {
        let error = check_programs("/nonexistent").unwrap_err().to_string();
        assert_eq!(
            error,
            "containerd is missing: run `make deps`, or install the Debian package containerd"
        );
    }

    #[test]
    fn error_names_the_free_disk_space() {
        assert!(check_space(NEEDED_SPACE).is_ok());
        let error = check_space(NEEDED_SPACE - 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "the testbed needs 4096 MiB of free disk space in /var/lib, but only 4095 MiB are free: delete files that you do not need"
        );
    }

    #[test]
    fn error_names_a_missing_capability() {
        let error = check_capabilities("CapEff:\t0000000000001000\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("CAP_SYS_ADMIN is missing"), "{error}");
        let error = check_capabilities("CapEff:\t0000000000200000\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("CAP_NET_ADMIN is missing"), "{error}");
        assert!(check_capabilities("CapEff:\t0000000000201000\n").is_ok());
    }
}
