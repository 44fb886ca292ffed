//! A black hole between one candidate and the API server: packets vanish in both directions, and nobody is told.

use std::net::Ipv4Addr;
use std::process::Command;

/// A blackhole, closed when this is dropped.
pub struct Blackhole {
    address: Ipv4Addr,
}

impl Blackhole {
    /// Swallows what comes over a candidate's address.
    pub fn open(address: Ipv4Addr) -> Self {
        rules("--insert", address);
        Self { address }
    }
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        rules("--delete", self.address);
    }
}

/// Where packets arrive: one that is dropped where it leaves would be told of to its sender.
fn rules(verb: &str, address: Ipv4Addr) {
    let address = address.to_string();
    for [address_flag, port_flag] in [["--destination", "--dport"], ["--source", "--sport"]] {
        let rule = [
            "--wait",
            verb,
            "INPUT",
            "--protocol",
            "tcp",
            address_flag,
            &address,
            port_flag,
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
