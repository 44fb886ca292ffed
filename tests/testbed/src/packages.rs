//! Installs the Debian packages that the testbed and its tests use.
//!
//! [`crate::host`] checks for the programs of a node itself, because they may be installed from
//! another source.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use crate::progress::Progress;
use crate::subprocess;

const PACKAGES: [&str; 13] = [
    "buildah",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "faketime",
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "llvm-22",
    "runc",
    "util-linux",
];

/// Installs missing packages. If none is missing, it only queries dpkg and prints nothing.
pub(crate) fn install(progress: &Progress) -> Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    ensure!(
        geteuid().is_root(),
        "Debian packages are missing: run `sudo apt-get install {list}`"
    );
    let mut step = progress.step("debian packages");
    step.update(&format!("installing {list}"));
    apt_get(&["update"])?;
    let install = ["install", "--yes", "--no-install-recommends"];
    apt_get(&[&install[..], &missing[..]].concat())?;
    step.done("installed");
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    // Outlives this process: dpkg must never be interrupted.
    let mut command = Command::new("apt-get");
    command
        .arg("--quiet")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    subprocess::output(&mut command).map(drop)
}

fn missing() -> Result<Vec<&'static str>> {
    // dpkg-query fails if one of the packages is unknown, and still lists the others.
    let listed = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(PACKAGES)
        .stderr(Stdio::null())
        .output()
        .context("failed to run dpkg-query: the testbed needs Debian or a derivative")?;
    Ok(not_installed(&String::from_utf8_lossy(&listed.stdout)))
}

fn not_installed(listed: &str) -> Vec<&'static str> {
    let installed: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    PACKAGES
        .into_iter()
        .filter(|package| !installed.contains(package))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_package_with_config_files_counts_as_missing() {
        let mut listed: String = PACKAGES
            .iter()
            .skip(2)
            .map(|package| format!("{package} installed\n"))
            .collect();
        listed.push_str("buildah config-files\n");
        assert_eq!(not_installed(&listed), ["buildah", "ca-certificates"]);
    }
}
