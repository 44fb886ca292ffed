//! A black hole between one candidate and the API server: packets are dropped in both directions,
//! and neither side is notified.

use std::net::Ipv4Addr;
use std::process::Command;

/// Drops a candidate's packets until this is dropped.
pub struct Blackhole {
    address: Ipv4Addr,
}

impl Blackhole {
    /// Drops all packets from and to the API server address of a candidate.
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

/// The rules are in `INPUT`: dropping a packet in `OUTPUT` would report an error to its sender.
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
            .expect("failed to run iptables");
        assert!(done.success(), "iptables {rule:?}");
    }
}
