//! Health probes of components, over the node's network.
//!
//! Every probe has a short timeout, because the kernel still accepts connections for a paused
//! process. The calling thread must be in the node's network namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::time::timeout;

use crate::component::{Component, Probe};
use crate::host::SYSTEM_PATH;
use crate::settings::{API_SERVICE_IP, DOMAIN, NODE_IP};
use crate::state::State;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The administrator's client configuration, without the proxy of the caller's environment.
pub(crate) async fn admin(state: &State) -> Result<Config> {
    // Fails if the process has already installed a provider; any provider works.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(state.kubeconfig()).context("reading the kubeconfig")?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(config)
}

/// Probes a component once.
pub(crate) async fn ask(component: Component, state: &State) -> Result<()> {
    let probe = async {
        match component.probe() {
            Probe::Http(address, path) => http(state, address, path).await,
            Probe::Dns => dns().await,
            Probe::ContainerRuntime => container_runtime(state).await,
        }
    };
    timeout(TIMEOUT, probe)
        .await
        .context("the probe timed out")?
}

async fn http(state: &State, address: &str, path: &str) -> Result<()> {
    let mut config = admin(state).await?;
    config.cluster_url = address.parse()?;
    Client::try_from(config)?
        .request_text(Request::get(path).body(Vec::new())?)
        .await?;
    Ok(())
}

async fn container_runtime(state: &State) -> Result<()> {
    let mut version = Command::new("ctr");
    version
        .arg("--address")
        .arg(state.containerd_socket())
        .arg("version")
        .env("PATH", SYSTEM_PATH);
    let status = version
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    ensure!(status.status().await?.success(), "ctr version failed");
    Ok(())
}

async fn dns() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(SocketAddr::new(NODE_IP, 53)).await?;
    socket
        .send(&address_query(&format!("kubernetes.default.svc.{DOMAIN}")))
        .await?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await?;
    // The address is the last field of the answer. An error or an empty answer does not contain it.
    let contained = answer[..length]
        .windows(4)
        .any(|bytes| bytes == API_SERVICE_IP.octets());
    ensure!(
        contained,
        "the DNS answer does not contain {API_SERVICE_IP}"
    );
    Ok(())
}

/// A DNS query for the IPv4 address of `name`.
fn address_query(name: &str) -> Vec<u8> {
    const HEADER: [u8; 12] = [0x50, 0x43, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut query = HEADER.to_vec();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_contains_the_labels_of_the_name() {
        assert_eq!(
            address_query("ab.c")[12..],
            [2, b'a', b'b', 1, b'c', 0, 0, 1, 0, 1]
        );
    }
}
