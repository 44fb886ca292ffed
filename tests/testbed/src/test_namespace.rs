//! A Kubernetes namespace that belongs to one test.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::time::{Duration, Instant, sleep};

use crate::cluster::Cluster;

/// A namespace, deleted when this is dropped. Kubernetes deletes its objects in the background.
#[derive(Debug)]
pub struct TestNamespace {
    name: String,
    cluster: Cluster,
}

impl TestNamespace {
    pub(crate) async fn create(
        cluster: &Cluster,
        prefix: &str,
        labels: &[(&str, &str)],
    ) -> Result<Self> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let object = Namespace {
            metadata: ObjectMeta {
                generate_name: Some(format!("{prefix}-")),
                labels: Some(labels.collect::<BTreeMap<_, _>>()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let created = Api::<Namespace>::all(cluster.client())
            .create(&PostParams::default(), &object)
            .await?;
        let name = created.metadata.name.context("the namespace has no name")?;
        let namespace = Self {
            name,
            cluster: cluster.clone(),
        };
        namespace.wait_until_pods_can_run().await?;
        Ok(namespace)
    }

    /// The name that the API server generated: the prefix and five random characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes it and waits until everything in it is gone.
    ///
    /// # Errors
    /// If it is not gone within two minutes.
    pub async fn delete(self) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.cluster.client());
        api.delete(&self.name, &DeleteParams::default()).await?;
        let deadline = Instant::now() + Duration::from_secs(120);
        while api.get_opt(&self.name).await?.is_some() {
            anyhow::ensure!(
                Instant::now() < deadline,
                "namespace {} was not deleted in time",
                self.name
            );
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// A pod cannot be created before its ServiceAccount exists, nor start before the CA
    /// certificate exists.
    async fn wait_until_pods_can_run(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let client: Client = self.cluster.client();
        loop {
            let account = Api::<ServiceAccount>::namespaced(client.clone(), &self.name)
                .get_opt("default")
                .await?;
            let ca_certificate = Api::<ConfigMap>::namespaced(client.clone(), &self.name)
                .get_opt("kube-root-ca.crt")
                .await?;
            if account.and(ca_certificate.map(drop)).is_some() {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the ServiceAccount of namespace {} was not created in time",
                self.name
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for TestNamespace {
    /// Uses kubectl, because the test's async runtime may be shutting down. Deleting it twice is
    /// harmless.
    fn drop(&mut self) {
        let arguments = [
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
            "--request-timeout=5s",
        ];
        let mut kubectl = self.cluster.kubectl(arguments);
        let _ = kubectl
            .as_std_mut()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
