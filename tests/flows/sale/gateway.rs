//! Traefik before the gate, as an Ingress or an HTTPRoute of the chart leads it there. `make
//! test-gateway` builds it and runs these flows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::objects::{create, delete_if_exists};
use harness::release::printed;
use harness::upstream::{ECHO, EVENT_COUNT, EVENTS, free_port};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta};
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
const INGRESS: [&str; 2] = ["ingress.enabled=true", "ingress.className=traefik"];
/// The chart's HTTPRoute belongs to the Gateway of [`Traefik::start_gateway`].
const HTTP_ROUTE: [&str; 3] = [
    "httpRoute.enabled=true",
    "httpRoute.parentRefs[0].name=shop",
    "httpRoute.parentRefs[0].namespace=gateways",
];

/// Traefik as a process of the node. It ends when this is dropped.
struct Traefik {
    address: SocketAddr,
    _process: Child,
}

impl Traefik {
    /// Starts Traefik as an Ingress controller, and waits until it leads to the gate.
    async fn start_ingress(shop: &Shop) -> Self {
        let class = json!({
            "metadata": { "name": "traefik" },
            "spec": { "controller": "traefik.io/ingress-controller" },
        });
        let class: IngressClass = serde_json::from_value(class).unwrap();
        let classes = Api::all(shop.env.objects.client.clone());
        // An earlier flow has left it.
        delete_if_exists(&classes, "traefik").await.unwrap();
        create(&classes, &class).await.unwrap();
        Self::start(
            shop,
            free_address(shop).await,
            "--providers.kubernetesingress",
        )
        .await
    }

    /// Starts Traefik with a Gateway, and waits until it leads to the gate.
    async fn start_gateway(shop: &Shop) -> Self {
        let address = free_address(shop).await;
        let class = json!({
            "metadata": { "name": "traefik" },
            "spec": { "controllerName": "traefik.io/gateway-controller" },
        });
        create_of_gateway_api(&shop.env, "GatewayClass", &class).await;
        shop.env.objects.create_namespace("gateways", &[]).await;
        // Traefik listens where one of its entry points does.
        let gateway = json!({
            "metadata": { "name": "shop", "namespace": "gateways" },
            "spec": {
                "gatewayClassName": "traefik",
                "listeners": [{
                    "name": "web", "protocol": "HTTP", "port": address.port(),
                    "allowedRoutes": { "namespaces": { "from": "All" } },
                }],
            },
        });
        create_of_gateway_api(&shop.env, "Gateway", &gateway).await;
        Self::start(shop, address, "--providers.kubernetesgateway").await
    }

    async fn start(shop: &Shop, address: SocketAddr, provider: &str) -> Self {
        let mut program = Command::new(testbed::tools::traefik().unwrap());
        program
            .arg(format!("--entrypoints.web.address={address}"))
            .args([provider, "--log.level=ERROR"])
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

async fn free_address(shop: &Shop) -> SocketAddr {
    let host = shop.env.cluster.node_ip();
    SocketAddr::new(host, free_port(host).await.unwrap())
}

/// Defines the kinds of the Gateway API.
async fn define_gateway_api(env: &TestEnv) {
    let manifests = testbed::tools::gateway_api().unwrap();
    let manifests = manifests.to_str().unwrap();
    let apply = ["apply", "--server-side", "--filename", manifests];
    let established = [
        "wait",
        "--for=condition=Established",
        "--filename",
        manifests,
    ];
    for arguments in [apply, established] {
        let output = env.cluster.kubectl(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", printed(&output));
    }
}

async fn create_of_gateway_api(env: &TestEnv, kind: &str, manifest: &Value) {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "gateway.networking.k8s.io",
        "v1",
        kind,
    ));
    let mut object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
    object.types = Some(TypeMeta {
        api_version: kind.api_version.clone(),
        kind: kind.kind.clone(),
    });
    let client = env.objects.client.clone();
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client, &namespace, &kind),
        None => Api::all_with(client, &kind),
    };
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn names(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// Buys an answer, a slow one, a stream and a websocket.
async fn buy_everything(shop: &Shop, traefik: &Traefik) {
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

    let talked = buyer.converse(&traefik.url(ECHO), &["one", "two"]).await;
    let talked = talked.unwrap();
    assert_eq!(talked.body, r#"["one","two"]"#, "{talked:?}");
    assert_eq!(shop.transfers().await.len(), 4);
    assert_eq!(shop.upstream.count(), 4);
}

#[test]
#[ignore = "make test-gateway builds Traefik"]
fn buyer_gets_slow_answers_streams_and_websockets_through_an_ingress() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &INGRESS).await;
        shop.sell().await;
        let traefik = Traefik::start_ingress(&shop).await;
        buy_everything(&shop, &traefik).await;
    });
}

#[test]
#[ignore = "make test-gateway builds Traefik"]
fn buyer_gets_slow_answers_streams_and_websockets_through_an_http_route() {
    TestEnv::run(async |env| {
        define_gateway_api(&env).await;
        let shop = Shop::open(env, &HTTP_ROUTE).await;
        shop.sell().await;
        let traefik = Traefik::start_gateway(&shop).await;
        buy_everything(&shop, &traefik).await;
    });
}

#[test]
#[ignore = "make test-gateway builds Traefik"]
fn terms_and_preflights_pass_through_traefik_while_the_gate_is_rolled() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &INGRESS).await;
        shop.sell().await;
        let traefik = Traefik::start_ingress(&shop).await;
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
