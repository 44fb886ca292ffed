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

/// A browser, and a font that its pages are drawn with.
const CHROMIUM: [&str; 2] = ["chromium", "fonts-dejavu-core"];

/// Installs what every testbed uses.
pub(crate) fn install(progress: &Progress) -> Result<()> {
    install_missing(&PACKAGES, progress)
}

/// Installs Chromium.
pub(crate) fn install_chromium(progress: &Progress) -> Result<()> {
    install_missing(&CHROMIUM, progress)
}

/// If no package is missing, it only queries dpkg and prints nothing.
fn install_missing(packages: &'static [&'static str], progress: &Progress) -> Result<()> {
    let missing = missing(packages)?;
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

fn missing(packages: &'static [&'static str]) -> Result<Vec<&'static str>> {
    // dpkg-query fails if one of the packages is unknown, and still lists the others.
    let listed = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .context("failed to run dpkg-query: the testbed needs Debian or a derivative")?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    Ok(not_installed(packages, &listed))
}

fn not_installed(packages: &[&'static str], listed: &str) -> Vec<&'static str> {
    let installed: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    let packages = packages.iter().copied();
    packages
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
        let missing = not_installed(&PACKAGES, &listed);
        assert_eq!(missing, ["buildah", "ca-certificates"]);
    }
}
