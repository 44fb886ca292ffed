//! A shop: a chain with a dollar coin, the reference facilitator, an upstream that counts
//! its requests, and an operator whose gate sells it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, U256};
use alloy::signers::local::PrivateKeySigner;
use anyhow::ensure;
use harness::chain::LocalChain;
use harness::objects::{condition_of, create, patch};
use harness::release::Release;
use harness::upstream::{Upstream, free_port, point_service};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};
use serviceoffer::api::PaymentFacilitator;
use testbed::AnvilConfig;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;
use x402::coin::{self, CHAIN_ID, Moved};
use x402::{Buyer, Call, Facilitator};

use crate::fixture::{TestEnv, block_every_second};
use crate::objects::{offer, registry};

/// Namespace of offers and upstream.
pub const SHOP: &str = "shop";
/// Namespace of the facilitator's Service.
const PAYMENTS: &str = "payments";
/// Price of a request in atomic units.
pub const PRICE: u64 = 2000;
/// How long a state may take that needs no block.
pub const SOON: Duration = Duration::from_secs(30);

/// Everything that a purchase needs.
pub struct Shop {
    pub env: TestEnv,
    pub chain: LocalChain,
    pub release: Release,
    facilitator: Mutex<Facilitator>,
    /// Where the facilitator listens, and the key that pays for its gas.
    facilitator_at: (SocketAddr, String),
    pub upstream: Arc<Upstream>,
    pub buyer_key: PrivateKeySigner,
    /// Wallet that buyers pay.
    pub pay_to: Address,
    /// Address of the gate's Service.
    pub gate: IpAddr,
}

impl Shop {
    /// Opens a shop that sells `shop/chat`.
    pub async fn open(env: TestEnv, values: &[&str]) -> Self {
        let config = AnvilConfig {
            chain_id: CHAIN_ID,
            ..block_every_second()
        };
        let values = [&["gate.enabled=true"], values].concat();
        let (chain, release) = env.prepare(config, &values).await;
        // The gate asks its endpoint what became of a payment.
        let manifest = registry("sepolia", &chain, "http://gate.example");
        env.objects.create_registry(manifest).await;
        let keys = chain.anvil.keys().to_vec();
        let [minter, _, facilitator_key, buyer_key, seller, ..] = keys.as_slice() else {
            panic!("anvil has too few accounts");
        };
        let provider = chain.provider();
        coin::place(provider, minter, buyer_key.address(), 1_000_000_000)
            .await
            .unwrap();
        let host = env.cluster.node_ip();
        let at = SocketAddr::new(host, free_port(host).await.unwrap());
        let key = format!("{:#x}", facilitator_key.to_bytes());
        let facilitator = start_facilitator(at, &chain, &key).await;
        let (upstream, backend) = Upstream::serve(host).await.unwrap();
        env.objects.create_namespace(SHOP, &[]).await;
        env.objects.create_namespace(PAYMENTS, &[]).await;
        let shop = Self {
            gate: gate_address(&env, &release).await,
            pay_to: seller.address(),
            buyer_key: buyer_key.clone(),
            env,
            chain,
            release,
            facilitator: Mutex::new(facilitator),
            facilitator_at: (at, key),
            upstream,
        };
        let client = || shop.env.objects.client.clone();
        for (namespace, name, at) in [(PAYMENTS, "facilitator", at), (SHOP, "backend", backend)] {
            point_service(client(), namespace, name, at).await.unwrap();
        }
        shop
    }

    /// Creates the facilitator's object and the offer `shop/chat`, and waits until it is sold.
    pub async fn sell(&self) {
        self.create_facilitator().await;
        self.env.objects.create_offer(self.offer("chat")).await;
        self.wait_ready("chat").await;
    }

    pub fn facilitators(&self) -> Api<PaymentFacilitator> {
        Api::all(self.env.objects.client.clone())
    }

    pub async fn create_facilitator(&self) {
        let manifest = json!({
            "apiVersion": "obol.org/v1alpha1",
            "kind": "PaymentFacilitator",
            "metadata": { "name": "sepolia" },
            "spec": {
                "networks": ["eip155:84532"],
                "remote": { "url": "http://facilitator.payments.svc" },
                "allowedNamespaces": { "from": "All" },
            },
        });
        let manifest: PaymentFacilitator = serde_json::from_value(manifest).unwrap();
        create(&self.facilitators(), &manifest).await.unwrap();
    }

    /// A manifest of an offer that is sold and not registered.
    pub fn offer(&self, name: &str) -> Value {
        let mut manifest = offer(SHOP, name);
        let spec = &mut manifest["spec"];
        spec["registration"] = json!({ "enabled": false });
        spec["payment"] = json!({
            "network": "base-sepolia",
            "payTo": self.pay_to.to_string(),
            "price": { "perRequest": "0.002" },
        });
        manifest
    }

    pub async fn wait_ready(&self, name: &str) {
        let offers = self.env.objects.offers(SHOP);
        eventually(&format!("{SHOP}/{name} is sold"), SOON, async || {
            let offer = offers.get(name).await?;
            let (status, reason, message) = condition_of(&offer, "Ready");
            ensure!(status == "True", "{reason}: {message}");
            Ok(())
        })
        .await;
    }

    /// Waits until requests without a payment for that URL are answered so.
    pub async fn wait_status(&self, url: &str, expected: u16) {
        eventually(&format!("{url} answers {expected}"), SOON, async || {
            let status = reqwest::get(url).await?.status();
            ensure!(status == expected, "{status}");
            Ok(())
        })
        .await;
    }

    /// Waits until a request for `chat` asks for that price, in atomic units.
    pub async fn wait_price(&self, expected: &str) {
        let url = self.url("/");
        eventually("the price follows", SOON, async || {
            let asked = asked_price(&url).await?;
            ensure!(asked == expected, "{asked}");
            Ok(())
        })
        .await;
    }

    pub async fn wait_gate_reason(&self, name: &str, reason: &str) -> String {
        let offers = self.env.objects.offers(SHOP);
        eventually(&format!("{SHOP}/{name} says {reason}"), SOON, async || {
            let offer = offers.get(name).await?;
            let (_, found, message) = condition_of(&offer, "PaymentGateReady");
            ensure!(found == reason, "{found}: {message}");
            Ok(message)
        })
        .await
    }

    pub async fn patch_facilitator(&self, change: Value) {
        patch(&self.facilitators(), "sepolia", change)
            .await
            .unwrap();
    }

    /// Kills the facilitator, and starts another one in its place after a while.
    pub async fn replace_facilitator(&self, after: Duration) {
        let mut facilitator = self.facilitator.lock().await;
        facilitator.kill().await.unwrap();
        sleep(after).await;
        let (at, key) = &self.facilitator_at;
        *facilitator = start_facilitator(*at, &self.chain, key).await;
    }

    /// Puts another facilitator in the place of the reference one.
    pub async fn use_facilitator(&self, program: Command) {
        let mut facilitator = self.facilitator.lock().await;
        facilitator.kill().await.unwrap();
        let (at, key) = &self.facilitator_at;
        let started = Facilitator::start_program(program, *at, self.chain.url(), CHAIN_ID, key);
        *facilitator = started.await.unwrap();
    }

    /// What the facilitator was asked so far.
    pub async fn calls(&self, path: &str) -> Vec<Call> {
        self.facilitator.lock().await.calls(path)
    }

    /// URL of a path of the offer `chat`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/services/chat{path}", self.gate)
    }

    pub fn buyer(&self) -> Buyer {
        Buyer::start(&format!("{:#x}", self.buyer_key.to_bytes())).unwrap()
    }

    /// Payments that reached the seller, each checked to be of the price and of its own.
    pub async fn transfers(&self) -> Vec<Moved> {
        let moved = coin::transfers_to(self.chain.provider(), self.pay_to)
            .await
            .unwrap();
        for transfer in &moved {
            assert_eq!(transfer.value, U256::from(PRICE), "{transfer:?}");
        }
        moved
    }

    /// Sum of a counter over all gates.
    pub async fn count(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for gate in self.release.list_gates().await.unwrap() {
            let metrics = self.release.metrics(&gate).await.unwrap();
            sum += metrics.get(series).copied().unwrap_or_default();
        }
        sum
    }
}

/// The price in the answer to a request without a payment, in atomic units.
pub async fn asked_price(url: &str) -> anyhow::Result<String> {
    let unpaid = reqwest::get(url).await?;
    ensure!(unpaid.status() == 402, "{}", unpaid.status());
    let terms: Value = unpaid.json().await?;
    let amount = terms["accepts"][0]["maxAmountRequired"].as_str();
    Ok(amount.unwrap_or_default().to_owned())
}

async fn start_facilitator(at: SocketAddr, chain: &LocalChain, key: &str) -> Facilitator {
    let started = Facilitator::start(at, chain.url(), CHAIN_ID, key).await;
    started.unwrap()
}

/// Address of the Service that buyers reach.
async fn gate_address(env: &TestEnv, release: &Release) -> IpAddr {
    release.wait_gate(Duration::from_secs(60)).await.unwrap();
    let services = Api::<Service>::namespaced(env.objects.client.clone(), release.namespace());
    let list = services.list(&Default::default()).await.unwrap();
    let public = list.items.into_iter().find(|service| {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        name == format!("{}-serviceoffer-controller", release.name())
    });
    let spec = public.expect("the public Service exists").spec.unwrap();
    spec.cluster_ip.unwrap().parse().unwrap()
}
