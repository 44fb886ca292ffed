//! A black hole between one candidate and the API server: packets vanish in both directions, and nobody is told.

use std::net::Ipv4Addr;
use std::process::Command;

/// A hole, closed when this is dropped.
pub struct Hole {
    wire: Ipv4Addr,
}

impl Hole {
    /// Swallows what comes over a candidate's wire.
    pub fn open(wire: Ipv4Addr) -> Self {
        rules("--insert", wire);
        Self { wire }
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        rules("--delete", self.wire);
    }
}

/// Where packets arrive: one that is dropped where it leaves would be told of to its sender.
fn rules(verb: &str, wire: Ipv4Addr) {
    let wire = wire.to_string();
    for [address, port] in [["--destination", "--dport"], ["--source", "--sport"]] {
        let rule = [
            "--wait",
            verb,
            "INPUT",
            "--protocol",
            "tcp",
            address,
            &wire,
            port,
            "6443",
            "--jump",
            "DROP",
        ];
        let done = Command::new("iptables")
            .args(rule)
            .status()
            .expect("iptables runs");
        assert!(done.success(), "iptables {rule:?}");
    }
}
