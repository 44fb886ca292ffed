//! The parts of the node: their command lines, and how one tells that a part works.
//!
//! No process is started here. The files that the command lines name are written by
//! [`crate::settings`] and [`crate::pki`]; [`crate::node`] starts the parts in the right order.

use std::path::{Path, PathBuf};

use crate::settings::{CLUSTER_CIDR, ETCD, NODE_IP, NODE_NAME, SERVICE_CIDR};
use crate::state::State;
use crate::tools::NodeTools;

/// A part of the node that runs as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The API server's database.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The container runtime.
    Containerd,
    /// The node agent.
    Kubelet,
    /// kube-proxy, which makes Services reachable.
    Proxy,
    /// The cluster's name server.
    CoreDns,
}

/// How to ask a component whether it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// An HTTP request with the administrator's certificate.
    Http(&'static str, &'static str),
    /// A query for the API server's own Service.
    Dns,
    /// A version request on its socket.
    ContainerRuntime,
}

impl Component {
    /// Every component.
    pub const ALL: [Self; 8] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Containerd,
        Self::Kubelet,
        Self::Proxy,
        Self::CoreDns,
    ];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::CoreDns => "coredns",
        }
    }

    pub(crate) fn probe(self) -> Probe {
        match self {
            Self::Etcd => Probe::Http(ETCD, "/health"),
            Self::ApiServer => Probe::Http("https://127.0.0.1:6443", "/readyz"),
            Self::ControllerManager => Probe::Http("https://127.0.0.1:10257", "/healthz"),
            Self::Scheduler => Probe::Http("https://127.0.0.1:10259", "/healthz"),
            Self::Containerd => Probe::ContainerRuntime,
            Self::Kubelet => Probe::Http("http://127.0.0.1:10248", "/healthz"),
            Self::Proxy => Probe::Http("http://127.0.0.1:10256", "/healthz"),
            Self::CoreDns => Probe::Dns,
        }
    }

    /// The program and its arguments.
    pub(crate) fn command(self, state: &State, tools: &NodeTools, cache: &Path) -> Vec<String> {
        let inside = |directory: &PathBuf| {
            let relative = directory.strip_prefix(cache).unwrap_or(directory);
            state
                .cache_mount()
                .join(relative)
                .join(self.name())
                .display()
                .to_string()
        };
        let files = Files(state);
        let (program, arguments) = match self {
            Self::Etcd => (inside(&tools.etcd), etcd(&files)),
            Self::ApiServer => (inside(&tools.kubernetes), api_server(&files)),
            Self::ControllerManager => (inside(&tools.kubernetes), controller_manager(&files)),
            Self::Scheduler => (inside(&tools.kubernetes), scheduler(&files)),
            Self::Containerd => (
                self.name().to_owned(),
                vec![format!("--config={}", files.at("containerd/config.toml"))],
            ),
            Self::Kubelet => (inside(&tools.kubernetes), kubelet(&files)),
            Self::Proxy => (inside(&tools.kubernetes), proxy(&files)),
            Self::CoreDns => (
                inside(&tools.coredns),
                vec![format!("-conf={}", files.at("Corefile"))],
            ),
        };
        [vec![program], arguments].concat()
    }
}

/// Paths as text for command lines.
struct Files<'a>(&'a State);

impl Files<'_> {
    fn at(&self, relative: &str) -> String {
        self.0.path(relative).display().to_string()
    }

    fn kubeconfig(&self, component: Component) -> String {
        format!(
            "--kubeconfig={}",
            self.at(&format!("pki/{}.kubeconfig", component.name()))
        )
    }

    fn serving(&self, certificate: &str) -> [String; 2] {
        let path = self.at(&format!("pki/{certificate}"));
        [
            format!("--tls-cert-file={path}.crt"),
            format!("--tls-private-key-file={path}.key"),
        ]
    }
}

fn etcd(files: &Files) -> Vec<String> {
    vec![
        format!("--data-dir={}", files.at("etcd")),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        // A testbed that loses power is built anew.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(files: &Files) -> Vec<String> {
    let mut arguments = vec![
        format!("--etcd-servers={ETCD}"),
        "--secure-port=6443".into(),
        format!("--advertise-address={NODE_IP}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--client-ca-file={}", files.at("pki/ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!(
            "--service-account-key-file={}",
            files.at("pki/service-accounts.pub")
        ),
        format!(
            "--service-account-signing-key-file={}",
            files.at("pki/service-accounts.key")
        ),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--kubelet-certificate-authority={}", files.at("pki/ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            files.at("pki/apiserver-to-kubelet.crt")
        ),
        format!(
            "--kubelet-client-key={}",
            files.at("pki/apiserver-to-kubelet.key")
        ),
        format!("--audit-policy-file={}", files.at("audit/policy.json")),
        format!("--audit-log-path={}", files.at("audit/audit.log")),
        // A request whose entry is not in the log yet must not be answered.
        "--audit-log-mode=blocking".into(),
        // Megabytes; 0 would mean 100, and a rotated log would lose a reader its place.
        "--audit-log-maxsize=1048576".into(),
        "--profiling=false".into(),
    ];
    arguments.extend(files.serving("kube-apiserver"));
    arguments
}

fn controller_manager(files: &Files) -> Vec<String> {
    let mut arguments = vec![
        files.kubeconfig(Component::ControllerManager),
        format!("--root-ca-file={}", files.at("pki/ca.crt")),
        format!(
            "--service-account-private-key-file={}",
            files.at("pki/service-accounts.key")
        ),
        format!("--cluster-signing-cert-file={}", files.at("pki/ca.crt")),
        format!("--cluster-signing-key-file={}", files.at("pki/ca.key")),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        "--allocate-node-cidrs=true".into(),
        format!("--cluster-cidr={CLUSTER_CIDR}"),
        // A test may stop the API server for a minute; the node must not count as lost after that.
        "--node-monitor-grace-period=5m".into(),
        // At the default of 20 requests a second its own start would take three seconds longer.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        // A node that became ready gets its first pods that much sooner; the default is 5 s.
        "--node-monitor-period=1s".into(),
        "--bind-address=127.0.0.1".into(),
        "--profiling=false".into(),
    ];
    arguments.extend(files.serving("loopback"));
    arguments
}

fn scheduler(files: &Files) -> Vec<String> {
    let mut arguments = vec![
        files.kubeconfig(Component::Scheduler),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        "--profiling=false".into(),
    ];
    arguments.extend(files.serving("loopback"));
    arguments
}

fn kubelet(files: &Files) -> Vec<String> {
    vec![
        format!("--config={}", files.at("kubelet.json")),
        files.kubeconfig(Component::Kubelet),
        format!("--hostname-override={NODE_NAME}"),
        format!("--node-ip={NODE_IP}"),
        format!("--root-dir={}", files.at("kubelet")),
        format!("--cert-dir={}", files.at("kubelet/pki")),
    ]
}

fn proxy(files: &Files) -> Vec<String> {
    vec![
        files.kubeconfig(Component::Proxy),
        format!("--hostname-override={NODE_NAME}"),
        format!("--cluster-cidr={CLUSTER_CIDR}"),
        "--proxy-mode=iptables".into(),
        "--healthz-bind-address=127.0.0.1:10256".into(),
        "--metrics-bind-address=127.0.0.1:10249".into(),
        // The kernel lets only the host's own network namespace change the limit.
        "--conntrack-max-per-core=0".into(),
    ]
}
