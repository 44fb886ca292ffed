//! Starting and removing testbeds: what stays on the host, and which failures are survived. Each
//! test has separate testbeds.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host_snapshot::{foreign_namespaces, processes_with, snapshot};
use crate::own_testbed::{OwnTestbed, output_text, until};

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// Starts `testbed run` with a command that prints a line and sleeps, and waits for the line.
/// `mark` identifies the command's processes.
fn start_run(own: &OwnTestbed, mark: &str) -> Child {
    let script = format!("echo begun; : {mark}; sleep 1000 & sleep 1000");
    let mut run = own
        .command(&["run", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Printed by the command. Progress output goes to standard error.
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "begun\n");
    assert!(!processes_with(mark).is_empty());
    run
}

fn assert_gone(own: &OwnTestbed) {
    assert!(!own.state().exists());
    assert!(processes_with(&own.state().display().to_string()).is_empty());
    let output = own.run(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{}", output_text(&output));
}

#[test]
fn testbed_changes_nothing_on_the_host_and_leaves_nothing() {
    let own = OwnTestbed::named("soc-t-leaves");
    let (host, namespaces) = (snapshot(), foreign_namespaces());
    own.succeed(&["up"]);
    let status = own.succeed(&["status"]);
    assert_eq!(status.matches("healthy").count(), 8, "{status}");
    // The pause image is the only one that every node has.
    let image = ["--image=localhost/pause:1", "--image-pull-policy=Never"];
    own.succeed(&[&["kubectl", "run", "pod"], &image[..]].concat());
    own.succeed(&[
        "kubectl",
        "wait",
        "pod/pod",
        "--for=condition=Ready",
        "--timeout=30s",
    ]);

    let added: BTreeSet<_> = snapshot().difference(&host).cloned().collect();
    let foreign: Vec<_> = added
        .iter()
        .filter(|line| !line.contains(own.name().as_str()))
        .collect();
    assert!(
        foreign.is_empty(),
        "changed while the testbed was up: {foreign:#?}"
    );

    let begun = Instant::now();
    own.succeed(&["down"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let after = snapshot();
    let changed: Vec<_> = after.symmetric_difference(&host).collect();
    assert!(
        changed.is_empty(),
        "changed after the testbed was removed: {changed:#?}"
    );
    assert_eq!(foreign_namespaces(), namespaces);
    assert_gone(&own);
    own.succeed(&["down"]);
}

#[test]
fn second_up_is_quick_and_changes_nothing() {
    let own = OwnTestbed::named("soc-t-twice");
    own.succeed(&["up"]);
    let before = own.succeed(&["status"]);
    let begun = Instant::now();
    assert!(own.succeed(&["up"]).contains("already up"));
    assert!(begun.elapsed() < Duration::from_secs(2));
    let pids = |status: &str| {
        status
            .lines()
            .map(|line| line.split_whitespace().nth(2).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(pids(&before), pids(&own.succeed(&["status"])));
}

#[test]
fn two_testbeds_run_side_by_side_independently() {
    let first = OwnTestbed::named("soc-t-first");
    let second = OwnTestbed::beside("soc-t-second");
    first.succeed(&["up"]);
    second.succeed(&["up"]);
    first.succeed(&["kubectl", "create", "namespace", "only-here"]);
    let seen = second.run(&["kubectl", "get", "namespace", "only-here"]);
    assert!(
        !seen.status.success() && output_text(&seen).contains("NotFound"),
        "{}",
        output_text(&seen)
    );
    first.succeed(&["down"]);
    second.succeed(&["status"]);
    second.succeed(&["kubectl", "get", "node", "node"]);
}

#[test]
fn up_succeeds_after_a_killed_up() {
    let own = OwnTestbed::named("soc-t-killed-up");
    let mut up = own.command(&["up"]).stderr(Stdio::null()).spawn().unwrap();
    until("a component", Duration::from_secs(60), || {
        own.state().join("components/etcd.json").exists()
    });
    send(&up, Signal::SIGKILL);
    up.wait().unwrap();
    assert!(own.succeed(&["up"]).contains("restarting"));
    own.succeed(&["status"]);
}

#[test]
fn status_shows_a_dead_component_and_up_restarts() {
    let own = OwnTestbed::named("soc-t-dead");
    own.succeed(&["up"]);
    testbed::test_on(own.name(), async |cluster| {
        cluster
            .component(testbed::Component::Scheduler)
            .unwrap()
            .kill(testbed::Signal::Kill)
            .unwrap();
        let paused = cluster
            .component(testbed::Component::Kubelet)
            .unwrap()
            .pause()
            .unwrap();
        let status = own.run(&["status"]);
        assert_eq!(status.status.code(), Some(3));
        let text = output_text(&status);
        let line = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert!(
            line("kube-scheduler").contains("dead") && line("kubelet").contains("paused"),
            "{text}"
        );
        drop(paused);
    });
    assert!(own.succeed(&["up"]).contains("restarting"));
    own.succeed(&["status"]);
}

#[test]
fn run_returns_the_exit_code_and_removes_the_testbed() {
    let own = OwnTestbed::named("soc-t-run");
    let script = format!(
        "{} exec -- kubectl get --raw /readyz; exit 7",
        env!("CARGO_BIN_EXE_testbed")
    );
    let output = own.run(&["run", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(7), "{}", output_text(&output));
    assert_eq!(output.stdout, b"ok");
    assert_gone(&own);
}

#[test]
fn interrupted_run_ends_its_command_and_removes_the_testbed() {
    let own = OwnTestbed::named("soc-t-interrupt");
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut run = start_run(&own, "soc-t-interrupt-mark");
        send(&run, signal);
        assert_eq!(run.wait().unwrap().code(), Some(code));
        assert!(processes_with("soc-t-interrupt-mark").is_empty());
        assert_gone(&own);
    }
}

#[test]
fn guardian_of_a_killed_run_removes_command_and_testbed() {
    let own = OwnTestbed::named("soc-t-guarded");
    let (host, namespaces) = (snapshot(), foreign_namespaces());
    let mut run = start_run(&own, "soc-t-guarded-mark");
    send(&run, Signal::SIGKILL);
    run.wait().unwrap();
    until("cleanup by the guardian", Duration::from_secs(15), || {
        processes_with(own.name().as_str()).is_empty()
    });
    assert!(processes_with("soc-t-guarded-mark").is_empty());
    assert_gone(&own);
    assert_eq!(snapshot(), host);
    assert_eq!(foreign_namespaces(), namespaces);
}

#[test]
fn interrupted_up_leaves_nothing() {
    let own = OwnTestbed::named("soc-t-up-int");
    let mut up = own.command(&["up"]).stderr(Stdio::piped()).spawn().unwrap();
    until("a component", Duration::from_secs(60), || {
        own.state().join("components/etcd.json").exists()
    });
    send(&up, Signal::SIGINT);
    assert_eq!(up.wait().unwrap().code(), Some(1));
    assert_gone(&own);
}

/// `testbed up` in a separate mount namespace in which `source` is mounted at `target`.
fn with_mount(own: &OwnTestbed, source: &str, target: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-ec",
        "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"",
        "sh",
        source,
        target,
    ]);
    command
        .arg(env!("CARGO_BIN_EXE_testbed"))
        .args(["--name", own.name().as_str(), "up"]);
    command
}

#[test]
fn error_names_a_failed_component_with_the_end_of_its_log() {
    let own = OwnTestbed::named("soc-t-broken");
    let broken = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken-containerd");
    fs::write(
        &broken,
        "#!/bin/sh\nsleep 0.2\necho cannot find my configuration\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&broken, PermissionsExt::from_mode(0o755)).unwrap();
    let output = with_mount(&own, &broken.display().to_string(), "/usr/bin/containerd")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = output_text(&output);
    assert!(
        text.contains("containerd died; its log ends with\ncannot find my configuration"),
        "{text}"
    );
    assert_gone(&own);
}

#[test]
fn missing_program_is_reported_before_anything_changes() {
    let own = OwnTestbed::named("soc-t-missing");
    let output = with_mount(&own, "/mnt", "/usr/lib/cni").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let advice = "run `make deps`, or install the Debian package containernetworking-plugins";
    assert_eq!(
        output_text(&output),
        format!("error: /usr/lib/cni/bridge is missing: {advice}\n")
    );
    assert_gone(&own);
}

#[test]
fn exec_runs_on_the_host_except_for_its_network() {
    let own = OwnTestbed::named("soc-t-exec");
    own.succeed(&["up"]);
    let addresses = own.succeed(&["exec", "--", "ip", "-brief", "address"]);
    assert!(
        addresses.contains("node0") && addresses.contains("172.31.255.1/32"),
        "{addresses}"
    );
    for kind in ["pid", "mnt"] {
        let namespace = format!("/proc/self/ns/{kind}");
        let inside = own.succeed(&["exec", "--", "readlink", &namespace]);
        assert_eq!(Path::new(inside.trim()), fs::read_link(namespace).unwrap());
    }
    assert_eq!(
        own.run(&["exec", "--", "sh", "-c", "exit 5"]).status.code(),
        Some(5)
    );
    assert!(own.succeed(&["helm", "version"]).contains("v4.3.1"));
    assert!(
        own.succeed(&["kubectl", "version"])
            .contains("Server Version: v1.34.4")
    );
}
