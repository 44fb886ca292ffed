//! Every choice about the cluster: addresses, and the configuration files of its components.
//!
//! Values only, written below the state directory; the command lines that use them are in
//! [`crate::component`]. The node sees the same paths as the host, because the state directory is
//! the one thing of the host that it keeps.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use serde_json::{Value, json};

use crate::state::State;

/// The node's address: in its network namespace only, so every testbed has the same one.
pub(crate) const NODE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 31, 255, 1));
pub(crate) const NODE_NAME: &str = "node";
pub(crate) const API_SERVER: &str = "https://127.0.0.1:6443";
pub(crate) const ETCD: &str = "http://127.0.0.1:2379";
pub(crate) const CLUSTER_CIDR: &str = "10.244.0.0/16";
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The first address of the Service range, which the API server takes for itself.
pub(crate) const API_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(crate) const DOMAIN: &str = "cluster.local";
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Writes the configuration file of every component.
pub(crate) fn write(state: &State) -> Result<()> {
    state.create()?;
    state.write("audit/policy.json", audit_policy().to_string())?;
    state.write("containerd/config.toml", containerd(state))?;
    state.write("cni/conf/10-pods.conflist", pod_network(state).to_string())?;
    state.write("kubelet.json", kubelet(state).to_string())?;
    state.write("Corefile", corefile(state))?;
    // For pods with `dnsPolicy: Default`: the host's resolver cannot be reached from the node.
    state.write("resolv.conf", format!("nameserver {NODE_IP}\n"))?;
    for directory in [
        "etcd",
        "kubelet/volume-plugins",
        "pods",
        "log",
        "home",
        "tmp",
        "cni/addresses",
    ] {
        state.directory(directory)?;
    }
    Ok(())
}

/// Who did what to which object; `RequestReceived` would only say the same thing earlier. Of writes
/// to Leases and to the operator's own kinds also what was sent and answered: by it a test tells
/// who held a Lease, and on what condition a write was sent.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "RequestResponse",
                "verbs": ["create", "update", "patch", "delete"],
                "resources": [{ "group": "coordination.k8s.io", "resources": ["leases"] }, { "group": "obol.org" }],
            },
            { "level": "Metadata" },
        ],
    })
}

fn containerd(state: &State) -> String {
    let root = state.path("containerd");
    let root = root.display();
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE the kernel refuses to lower it, and every
    // sandbox would die. disable_apparmor: containerd would load a profile into the host's kernel,
    // and leave it there.
    format!(
        r#"version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cni}"
"#,
        socket = state.containerd_socket().display(),
        cni = state.path("cni/conf").display(),
    )
}

fn pod_network(state: &State) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": "10.244.0.0/24" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "dataDir": state.path("cni/addresses"),
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn kubelet(state: &State) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": state.path("pki/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": state.path("pki/kubelet-server.crt"),
        "tlsPrivateKeyFile": state.path("pki/kubelet-server.key"),
        "containerRuntimeEndpoint": format!("unix://{}", state.containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", state.name()),
        "clusterDNS": [NODE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": state.path("resolv.conf"),
        "podLogsDir": state.path("pods"),
        "volumePluginDir": state.path("kubelet/volume-plugins"),
        "failSwapOn": false,
        "maxPods": 110,
        "containerLogMaxSize": "100Mi",
        "nodeStatusUpdateFrequency": "2s",
        // Tests count on images that stay and on pods that are not evicted because the host's disk
        // is nearly full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {},
    })
}

fn corefile(state: &State) -> String {
    format!(
        ".:53 {{\n  bind {NODE_IP}\n  errors\n  kubernetes {DOMAIN} in-addr.arpa {{\n    kubeconfig {}\n  }}\n  cache 5\n}}\n",
        state.path("pki/coredns.kubeconfig").display()
    )
}
