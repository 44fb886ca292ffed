//! The sale of the demo: a dollar coin, a facilitator and a buyer that this project did not write, and
//! an upstream on the node.

use std::net::SocketAddr;
use std::sync::Arc;

use alloy::primitives::{Address, B256, U256, address};
use alloy::signers::local::PrivateKeySigner;
use anyhow::{Context, Result, ensure};
use harness::chain::Chain;
use harness::objects::create;
use harness::upstream::{Upstream, free_port, point_service};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::Api;
use serde_json::json;
use testbed::Cluster;
use x402::coin::{self, Moved};
use x402::{Buyer, Facilitator, Purchase};

use crate::offers::NAMESPACES;
use crate::replicas::{self, Replicas};
use crate::sandbox::{Sandbox, Show};
use crate::summary::{Bought, SaleCounts};
use crate::{chain, output};

/// Namespace of the facilitator.
pub const NAMESPACE: &str = "payments";
/// What is bought: the README's first offer.
const OFFER: &str = "chat";
/// Number of purchases.
pub const PURCHASES: usize = 20;
/// Purchases before the leader dies, and before the gate is replaced.
const BEFORE_DEATH: usize = 5;
const BEFORE_ROLLOUT: usize = 10;
/// Wallet and price of the README's offer. The price is in atomic units.
const PAY_TO: Address = address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
const PRICE: u64 = 2000;
/// Wei that the facilitator may spend on gas.
const GAS: u128 = 1_000_000_000_000_000_000;
/// URL of the facilitator inside the cluster.
pub const FACILITATOR_URL: &str = "http://facilitator.payments.svc";

/// Everything that takes part in purchases.
pub struct Market {
    upstream: Arc<Upstream>,
    buyer: Buyer,
    buyer_address: Address,
    url: String,
    _facilitator: Facilitator,
}

impl Market {
    /// Gives a buyer coins and no gas, starts the facilitator, and leads the offer's Service to an
    /// upstream.
    pub async fn open(cluster: &Cluster, chain: &Chain) -> Result<Self> {
        let keys: [PrivateKeySigner; 3] = std::array::from_fn(|_| PrivateKeySigner::random());
        let [minter, settler, buyer] = &keys;
        for account in [minter, settler] {
            chain.set_balance(account.address(), GAS).await?;
        }
        let coins = 2 * PRICE * PURCHASES as u64;
        coin::place(chain.provider(), minter, buyer.address(), coins).await?;

        let client = || cluster.client();
        let host = cluster.node_ip();
        let at = SocketAddr::new(host, free_port(host).await?);
        let key = hex(settler);
        let rpc = url_of(cluster, chain::NAMESPACE, "anvil").await?;
        let facilitator = Facilitator::start(at, &rpc, chain.id, &key).await?;
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        create(&Api::all(client()), &namespace).await?;
        point_service(client(), NAMESPACE, "facilitator", at).await?;
        let (upstream, at) = Upstream::serve(cluster.node_ip()).await?;
        point_service(client(), NAMESPACES[0], OFFER, at).await?;

        let gate = url_of(cluster, replicas::NAMESPACE, replicas::NAME).await?;
        output::text(&format!(
            "token        {}, a copy of ours at the address of USD Coin",
            coin::USD_COIN
        ));
        output::text(&format!(
            "facilitator  {FACILITATOR_URL}, the reference implementation in TypeScript"
        ));
        output::text(&format!(
            "buyer        {}, @x402/fetch, without gas",
            buyer.address()
        ));
        Ok(Self {
            upstream,
            buyer: Buyer::start(&hex(buyer))?,
            buyer_address: buyer.address(),
            url: format!("{gate}/services/{OFFER}"),
            _facilitator: facilitator,
        })
    }

    /// Buys, while the leader dies and the gate is replaced.
    pub async fn sell(
        &mut self,
        sandbox: &Sandbox,
        replicas: &Replicas,
        chain: &Chain,
    ) -> Result<SaleCounts> {
        let mut bought = Vec::new();
        for nth in 1..=PURCHASES {
            let answer = self
                .buyer
                .post(&self.url, &format!("question {nth}"))
                .await?;
            bought.push(delivered(&answer).inspect_err(|error| {
                output::text(&format!("purchase {nth} failed: {error:#}"));
            }));
            output::progress(&format!("{nth} of {PURCHASES}"));
            if nth == BEFORE_DEATH {
                let leader = replicas.end_leader().await?;
                output::text(&format!("killed {leader}, which led"));
            }
            if nth == BEFORE_ROLLOUT {
                let (name, namespace) = (replicas::NAME, replicas::NAMESPACE);
                let command = format!(
                    "kubectl --namespace {namespace} rollout restart deployment/{name}-gate"
                );
                sandbox.run(&command, Show::Everything).await?;
            }
        }
        let transfers = coin::transfers_to(chain.provider(), PAY_TO).await?;
        let of_price = transfers.iter().filter(|moved| self.is_payment(moved));
        let counts = SaleCounts {
            bought: bought.into_iter().filter_map(Result::ok).collect(),
            executed: self.upstream.count(),
            transfers: of_price.map(|moved| moved.transaction).collect(),
            other_transfers: transfers
                .iter()
                .filter(|moved| !self.is_payment(moved))
                .count(),
        };
        output::text(&format!(
            "{} answers, {} transfers of the price to {PAY_TO}, {} calls of the upstream",
            counts.bought.len(),
            counts.transfers.len(),
            counts.executed
        ));
        Ok(counts)
    }

    fn is_payment(&self, moved: &Moved) -> bool {
        moved.from == self.buyer_address && moved.value == U256::from(PRICE)
    }
}

/// The answer and the transaction of a purchase that succeeded.
fn delivered(answer: &Purchase) -> Result<Bought> {
    ensure!(
        answer.status == 200,
        "status {}: {}",
        answer.status,
        answer.body
    );
    let body: serde_json::Value = serde_json::from_str(&answer.body)?;
    let receipt = answer.receipt.as_ref().context("no receipt")?;
    let transaction = receipt["transaction"].as_str().unwrap_or_default();
    Ok(Bought {
        answer: body["count"].as_u64().context("the answer has no count")?,
        transaction: transaction.parse::<B256>()?,
    })
}

fn hex(key: &PrivateKeySigner) -> String {
    format!("{:#x}", key.to_bytes())
}

/// URL of a Service by its address: programs on the node do not use the cluster's DNS.
async fn url_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<String> {
    let services = Api::<Service>::namespaced(cluster.client(), namespace);
    let spec = services.get(name).await?.spec.unwrap_or_default();
    let address = spec.cluster_ip.context("the Service has no address")?;
    let port = spec.ports.unwrap_or_default();
    let port = port.first().context("the Service has no port")?.port;
    Ok(format!("http://{address}:{port}"))
}
