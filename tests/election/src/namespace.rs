//! A namespace for the candidates of one test, with a separate Kubernetes user for each candidate.
//!
//! The user identifies a candidate in the API server's audit log: it follows from the token, not
//! from the identity that the candidate chooses.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::candidate;
use harness::wait::until;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::Value;
use testbed::Cluster;

/// The operator's CRDs. A candidate leads only once its caches of these kinds are synced.
const DEFINITIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../charts/serviceoffer-controller/files/crds"
);
/// How long the API server may take to serve them.
const ESTABLISHED: Duration = Duration::from_secs(60);
/// The first port of a candidate's servers.
const FIRST_PORT: u16 = 20_000;

/// A namespace in which candidates compete, on one testbed.
#[derive(Debug)]
pub struct ElectionNamespace {
    cluster: Cluster,
    namespace: testbed::TestNamespace,
    directory: PathBuf,
    /// Loopback address of this process, for the candidates to listen on. Outgoing connections do
    /// not use its ports.
    address: Ipv4Addr,
    next_port: AtomicU16,
}

/// A candidate's user.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name in the audit log.
    pub user: String,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
}

impl ElectionNamespace {
    /// Creates a namespace whose candidates are cluster admins.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn new(cluster: &Cluster, prefix: &str) -> Result<Self> {
        Self::with_role(cluster, prefix, "cluster-admin").await
    }

    /// Creates a namespace whose candidates have a ClusterRole, cluster-wide.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn with_role(cluster: &Cluster, prefix: &str, role: &str) -> Result<Self> {
        define(cluster).await.context("installing the CRDs")?;
        let namespace = cluster.namespace(prefix).await;
        let directory = cluster.scratch(&format!("election/{}", namespace.name()))?;
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, high, low, 1);
        let next_port = AtomicU16::new(FIRST_PORT);
        let namespace = Self {
            cluster: cluster.clone(),
            namespace,
            directory,
            address,
            next_port,
        };
        namespace
            .bind(role)
            .await
            .with_context(|| format!("binding candidates to the role {role}"))?;
        Ok(namespace)
    }

    /// Binds all service accounts of the namespace to the role. The binding is deleted with the
    /// namespace.
    async fn bind(&self, role: &str) -> Result<()> {
        let client = self.cluster.client();
        let namespace = Api::<Namespace>::all(client.clone())
            .get(self.name())
            .await?;
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            name: namespace.name_any(),
            uid: namespace.uid().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let binding = ClusterRoleBinding {
            metadata: ObjectMeta {
                name: Some(format!("candidates:{}", self.name())),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "ClusterRole".to_owned(),
                name: role.to_owned(),
            },
            subjects: Some(vec![Subject {
                api_group: Some("rbac.authorization.k8s.io".to_owned()),
                kind: "Group".to_owned(),
                name: format!("system:serviceaccounts:{}", self.name()),
                namespace: None,
            }]),
        };
        Api::<ClusterRoleBinding>::all(client)
            .create(&PostParams::default(), &binding)
            .await?;
        Ok(())
    }

    /// The testbed.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Name of the namespace.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Directory of the candidates' logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The Leases of the namespace.
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.client(), self.name())
    }

    /// An address that no other candidate listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(
            IpAddr::V4(self.address),
            self.next_port.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// Creates the account of a candidate, or a new token for an existing one.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn account(&self, identity: &str) -> Result<Account> {
        let token = candidate::token(self.cluster.client(), self.name(), identity).await?;
        let kubeconfig = self.directory.join(format!("{identity}.kubeconfig"));
        let admin: Value = serde_json::from_slice(&fs::read(self.cluster.kubeconfig())?)?;
        let content = candidate::kubeconfig(&admin, self.name(), identity, &token, None);
        fs::write(&kubeconfig, content.to_string())
            .with_context(|| format!("writing {}", kubeconfig.display()))?;
        Ok(Account {
            user: candidate::user(self.name(), identity),
            kubeconfig,
        })
    }
}

/// Installs the CRDs. They stay when the namespace is deleted.
async fn define(cluster: &Cluster) -> Result<()> {
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        DEFINITIONS,
    ];
    kubectl(cluster, &apply).await?;
    // kubectl fails as long as there is no condition at all.
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "--filename",
        DEFINITIONS,
    ];
    until("the CRDs are established", ESTABLISHED, async || {
        kubectl(cluster, &wait).await
    })
    .await
}

async fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let output = cluster.kubectl(arguments).output().await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
