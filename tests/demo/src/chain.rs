//! The chain of the demo: anvil in a Pod, and what the chain holds at the end.

use std::net::IpAddr;
use std::time::Duration;

use alloy::primitives::{Address, utils::parse_ether};
use alloy::providers::{Provider, ProviderBuilder};
use alloy::signers::local::PrivateKeySigner;
use anyhow::{Context, Result};
use harness::chain::{Chain, key_in};
use harness::objects::create;
use harness::wait::until;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::Api;
use serde_json::{Value, json};
use testbed::{AnvilConfig, Cluster, image, tools};

use crate::summary::{ChainCounts, Cost, Minted};

/// Namespace of the chain.
pub const NAMESPACE: &str = "chain";
/// The chain id in the README's IdentityRegistry, so that it can be applied as it is.
pub const CHAIN_ID: u64 = 84_532;
const IMAGE: &str = "localhost/anvil:demo";
const PORT: u16 = 8545;
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// How long anvil may take to start.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts a chain and deploys a registry. Deployer and signer are as new as a user's wallets would
/// be. Returns the chain and the deployer's address.
pub async fn start(cluster: &Cluster) -> Result<(Chain, Address)> {
    let anvil = tools::anvil()?;
    let archive = image::from_programs(&[&anvil], &["/bin/anvil"], IMAGE)?;
    cluster
        .load(&archive)
        .await
        .context("loading the image of anvil")?;
    let address = create_pod(cluster).await?;
    let client = alloy::transports::http::reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .no_proxy()
        .build()?;
    let provider = ProviderBuilder::new()
        .disable_recommended_fillers()
        .connect_reqwest(client, format!("http://{address}:{PORT}").parse()?);
    until("anvil answers", LIMIT, async || {
        provider.get_block_number().await
    })
    .await?;
    let (deployer, signer) = (PrivateKeySigner::random(), PrivateKeySigner::random());
    for account in [&deployer, &signer] {
        let grant = json!([account.address(), parse_ether("1")?]);
        provider
            .raw_request::<_, Value>("anvil_setBalance".into(), grant)
            .await
            .context("anvil_setBalance")?;
    }
    let url = format!("http://anvil.{NAMESPACE}.svc:{PORT}");
    let chain = Chain::deploy(provider, url, &deployer, signer).await?;
    Ok((chain, deployer.address()))
}

/// What the chain holds.
pub async fn counts(chain: &Chain) -> Result<ChainCounts> {
    let registrations = chain.all_registrations().await?;
    let minted = registrations.iter().map(|event| Minted {
        key: key_in(&event.uri).to_owned(),
        agent: event.agent_id.to_string(),
    });
    Ok(ChainCounts {
        minted: minted.collect(),
        owned: chain.owned_agents().await?,
        sent: chain.mined_transactions().await?,
    })
}

/// What all registrations cost.
pub async fn cost(chain: &Chain) -> Result<Cost> {
    let registrations = chain.all_registrations().await?;
    Ok(Cost::of(&chain.fees(&registrations).await?))
}

/// Creates the Pod and its Service, and returns the Service's address.
async fn create_pod(cluster: &Cluster) -> Result<IpAddr> {
    let client = cluster.client();
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    create(&Api::all(client.clone()), &namespace).await?;
    // The API server refuses Pods until the namespace has its service account.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    until("the namespace has a service account", LIMIT, async || {
        accounts.get("default").await
    })
    .await?;
    let pod: Pod = serde_json::from_value(pod())?;
    create(&Api::namespaced(client.clone(), NAMESPACE), &pod).await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "anvil" },
        "spec": { "selector": { "app": "anvil" }, "ports": [{ "port": PORT }] },
    }))?;
    let service = create(&Api::namespaced(client, NAMESPACE), &service).await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the Service of anvil has no address")?;
    Ok(address.parse()?)
}

fn pod() -> Value {
    let config = AnvilConfig {
        block_time: Some(BLOCK_TIME),
        chain_id: CHAIN_ID,
        port: PORT,
        ..AnvilConfig::default()
    };
    json!({
        "metadata": { "name": "anvil", "labels": { "app": "anvil" } },
        "spec": {
            // There is nothing to save.
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "anvil",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "args": config.arguments(),
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}
