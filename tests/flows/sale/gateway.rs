//! Traefik before the gate, as an Ingress of the chart leads it there. `make test-gateway` builds it
//! and runs these flows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::objects::{create, delete_if_exists};
use harness::upstream::{EVENT_COUNT, EVENTS, free_port};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::{Api, ResourceExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::shop::Shop;
use crate::fixture::TestEnv;

/// Longer than proxies wait by default for an answer.
const SLOW: Duration = Duration::from_secs(40);
/// The chart's Ingress belongs to Traefik.
const VALUES: [&str; 2] = ["ingress.enabled=true", "ingress.className=traefik"];

/// Traefik as a process of the node. It ends when this is dropped.
struct Traefik {
    address: SocketAddr,
    _process: Child,
}

impl Traefik {
    /// Starts Traefik, and waits until it leads to the gate.
    async fn start(shop: &Shop) -> Self {
        let class = json!({
            "metadata": { "name": "traefik" },
            "spec": { "controller": "traefik.io/ingress-controller" },
        });
        let class: IngressClass = serde_json::from_value(class).unwrap();
        let classes = Api::all(shop.env.objects.client.clone());
        // An earlier flow has left it.
        delete_if_exists(&classes, "traefik").await.unwrap();
        create(&classes, &class).await.unwrap();
        let host = shop.env.cluster.node_ip();
        let address = SocketAddr::new(host, free_port(host).await.unwrap());
        let mut program = Command::new(testbed::tools::traefik().unwrap());
        program
            .arg(format!("--entrypoints.web.address={address}"))
            .args(["--providers.kubernetesingress", "--log.level=ERROR"])
            .args([
                "--global.checknewversion=false",
                "--global.sendanonymoususage=false",
            ])
            .env("KUBECONFIG", shop.env.cluster.kubeconfig())
            .kill_on_drop(true);
        let process = program.spawn().unwrap();
        let traefik = Self {
            address,
            _process: process,
        };
        shop.wait_status(&traefik.url("/v1"), 402).await;
        traefik
    }

    /// URL of a path of the offer `chat`.
    fn url(&self, path: &str) -> String {
        format!("http://{}/services/chat{path}", self.address)
    }
}

fn names(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

#[test]
#[ignore = "make test-gateway builds Traefik"]
fn buyer_gets_slow_answers_and_streams_through_traefik() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &VALUES).await;
        shop.sell().await;
        let traefik = Traefik::start(&shop).await;
        let mut buyer = shop.buyer();
        let bought = buyer
            .post(&traefik.url("/v1?a=b"), "question")
            .await
            .unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        let answer: Value = serde_json::from_str(&bought.body).unwrap();
        assert_eq!(answer["target"], "/v1?a=b");

        shop.upstream
            .delay
            .store(SLOW.as_millis() as usize, Ordering::SeqCst);
        let bought = buyer.get(&traefik.url("/v1")).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        shop.upstream.delay.store(0, Ordering::SeqCst);

        let bought = buyer.get(&traefik.url(EVENTS)).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
        assert_eq!(bought.body.matches("data: ").count(), EVENT_COUNT);
        assert_eq!(shop.transfers().await.len(), 3);
        assert_eq!(shop.upstream.count(), 3);
    });
}

#[test]
#[ignore = "make test-gateway builds Traefik"]
fn terms_and_preflights_pass_through_traefik_while_the_gate_is_rolled() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &VALUES).await;
        shop.sell().await;
        let traefik = Traefik::start(&shop).await;
        let http = reqwest::Client::new();
        let ask = |method: Method, path: &str| http.request(method, traefik.url(path));
        let unpaid = ask(Method::GET, "/v1").send().await.unwrap();
        assert_eq!(unpaid.status(), StatusCode::PAYMENT_REQUIRED);
        let terms: Value = unpaid.json().await.unwrap();
        let resource = "http://gate.example/services/chat/v1";
        assert_eq!(terms["accepts"][0]["resource"], resource);

        let preflight = ask(Method::OPTIONS, "/v1")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "payment-signature, x-payment",
            )
            .send()
            .await
            .unwrap();
        assert!(preflight.status().is_success(), "{preflight:?}");
        let allowed = &preflight.headers()["access-control-allow-headers"];
        let allowed = allowed.to_str().unwrap().to_lowercase();
        assert!(allowed.contains("payment-signature"), "{allowed}");
        let head = ask(Method::HEAD, "/v1").send().await.unwrap();
        assert_eq!(head.status(), StatusCode::PAYMENT_REQUIRED);
        assert_eq!(shop.upstream.count(), 0);

        let before = shop.release.list_gates().await.unwrap();
        let asked = async {
            loop {
                let status = ask(Method::GET, "/v1").send().await.unwrap().status();
                assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            rolled = shop.release.upgrade(&["gate.podAnnotations.rolled=once"]) => rolled.unwrap(),
            () = asked => {}
        }
        let after = shop.release.list_gates().await.unwrap();
        assert_ne!(names(&before), names(&after));
    });
}
