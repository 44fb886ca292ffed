//! Snapshots of everything on the host that a testbed could change, as comparable lines of text.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Directories that container software writes to unless it is prevented.
const WATCHED: [&str; 7] = [
    "/etc/cni",
    "/opt",
    "/run",
    "/usr/libexec",
    "/var/lib",
    "/var/log",
    "/var/cache/containers",
];

/// Package managers and other testbeds may change these at any time.
const IGNORED: [&str; 6] = [
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/serviceoffer-testbed",
    "/var/log/journal",
    "/run/systemd",
    "/run/udev",
];

const SETTINGS: [&str; 8] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// A snapshot of the host: one line per item.
pub fn snapshot() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for directory in WATCHED {
        walk(Path::new(directory), &mut lines);
    }
    for setting in SETTINGS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(setting)).unwrap_or_default();
        lines.insert(format!("setting {setting} {value}"));
    }
    lines.extend(list("/sys/class/net").map(|link| format!("link {link}")));
    for hierarchy in list("/sys/fs/cgroup") {
        lines.extend(
            list(&hierarchy)
                .filter(|path| Path::new(path).is_dir())
                .map(|path| format!("cgroup {path}")),
        );
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    lines.extend(mounts.lines().map(|mount| format!("mount {mount}")));
    for program in ["iptables-save", "ip6tables-save"] {
        let output = Command::new(program).output().unwrap();
        let rules = String::from_utf8_lossy(&output.stdout).into_owned();
        // Comments contain the time, and chain lines contain counters.
        lines.extend(
            rules
                .lines()
                .filter(|rule| rule.starts_with("-A"))
                .map(|rule| format!("{program} {rule}")),
        );
    }
    lines
}

/// The pids of all processes whose command line contains a word.
pub fn processes_with(word: &str) -> Vec<u32> {
    let own = std::process::id();
    let pids = list("/proc").filter_map(|path| path.strip_prefix("/proc/")?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own && command_line(*pid).contains(word))
        .collect()
}

fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
        .into_owned()
}

/// The pid and network namespaces of processes that are not the host's.
pub fn foreign_namespaces() -> BTreeSet<String> {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let (net, pid) = (own("net"), own("pid"));
    let mut found = BTreeSet::new();
    for process in list("/proc") {
        for (kind, ours) in [("net", &net), ("pid", &pid)] {
            match fs::read_link(format!("{process}/ns/{kind}")) {
                Ok(namespace) if namespace != *ours => {
                    found.insert(namespace.display().to_string())
                }
                _ => false,
            };
        }
    }
    found
}

fn list(directory: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string())
}

fn walk(path: &Path, lines: &mut BTreeSet<String>) {
    if IGNORED.iter().any(|ignored| path == Path::new(ignored)) {
        return;
    }
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    // With the inode, because a file may have been replaced.
    lines.insert(format!("file {} {}", path.display(), metadata.ino()));
    if metadata.is_dir() {
        for entry in list(path) {
            walk(Path::new(&entry), lines);
        }
    }
}
