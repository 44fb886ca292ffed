//! The upstream is killed, or its Service replaced, while buyers pay.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::objects::{create, delete, patch};
use harness::release::is_ready;
use harness::upstream::{Upstream, point_service};
use harness::wait::eventually;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::json;
use testbed::{Signal, image};
use tokio::time::sleep;

use super::failure::{PATIENCE, buy_until, transactions, wait_resolved};
use super::shop::{SHOP, SOON, Shop};
use crate::fixture::TestEnv;

const IMAGE: &str = "localhost/upstream:1";
/// Answers one request at a time, after 0.5 seconds. It needs no module.
const SERVER: &str = r#"
    $SIG{PIPE} = "IGNORE";
    socket(my $listener, 2, 1, 6) or die;
    setsockopt($listener, 1, 2, 1) or die;
    bind($listener, pack("S n x12", 2, 8080)) && listen($listener, 128) or die;
    while (accept(my $buyer, $listener)) {
        my $text = "";
        until ($text =~ /\r\n\r\n(.*)/s && length $1 >= ($text =~ /content-length: (\d+)/i ? $1 : 0)) {
            sysread($buyer, $text, 65536, length $text) or last;
        }
        select(undef, undef, undef, 0.5) unless $text =~ m{^GET /health };
        syswrite($buyer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nanswer\n");
        close $buyer;
    }
"#;
/// Purchases that are in flight when the container is killed begin before.
const WORK: Duration = Duration::from_secs(5);
/// How long there is no Service.
const AWAY: Duration = Duration::from_secs(10);
/// Longest time from a Service to its first request. kube-proxy may learn of it later than the gate,
/// which gives up a connection to its address after 3 seconds.
const RETURN: Duration = Duration::from_secs(5);

/// Leads the Service of the upstream to a container, and waits until it is ready.
async fn start_container(shop: &Shop) {
    let perl = Path::new("/usr/bin/perl");
    let archive = image::from_programs(&[perl], &["/bin/perl"], IMAGE).unwrap();
    shop.env.cluster.load(&archive).await.unwrap();
    let client = || shop.env.objects.client.clone();
    let pod = json!({
        "metadata": { "name": "backend", "labels": { "app": "backend" } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["/bin/perl", "-e", SERVER],
            }],
        },
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let pods = Api::<Pod>::namespaced(client(), SHOP);
    create(&pods, &pod).await.unwrap();
    let slices = Api::<EndpointSlice>::namespaced(client(), SHOP);
    delete(&slices, "backend-node").await.unwrap();
    let services = Api::<Service>::namespaced(client(), SHOP);
    let ports = json!({ "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] } });
    patch(&services, "backend", ports).await.unwrap();
    eventually("the container is ready", SOON, async || {
        let pod = pods.get("backend").await?;
        ensure!(is_ready(&pod), "{:?}", pod.status);
        Ok(())
    })
    .await;
}

#[test]
fn upstream_whose_container_is_killed_twice_is_paid_once_for_each_answer() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        start_container(&shop).await;
        shop.sell().await;
        let stop = AtomicBool::new(false);
        let kill = async {
            for _ in 0..2 {
                sleep(WORK).await;
                let cluster = &shop.env.cluster;
                eventually("the container is killed", PATIENCE, async || {
                    let main = cluster.container(SHOP, "backend", "main").await?;
                    main.kill(Signal::Kill)
                })
                .await;
            }
            shop.wait_status(&shop.url("/v1"), 402).await;
            // kubelet waits 10 seconds before it starts a container again that ended twice.
            sleep(WORK + Duration::from_secs(15)).await;
            stop.store(true, Ordering::SeqCst);
        };
        let (bought, ()) = tokio::join!(buy_until(&shop, &stop, PATIENCE), kill);
        wait_resolved(&shop).await;
        let pods = Api::<Pod>::namespaced(shop.env.objects.client.clone(), SHOP);
        let pod = pods.get("backend").await.unwrap();
        let containers = pod.status.unwrap().container_statuses.unwrap();
        assert_eq!(containers[0].restart_count, 2);
        let refused: Vec<_> = bought
            .iter()
            .filter(|answer| answer.status != 200)
            .collect();
        let failed = r#"serviceoffer_gate_requests_total{outcome="upstream_failed"}"#;
        let failed = shop.count(failed).await;
        println!("{} purchases, {failed} were cut off", bought.len());
        assert!(failed > 0.0, "no container was killed at work");
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(transactions(&bought, 200).len(), bought.len());
        assert_eq!(shop.transfers().await.len(), bought.len());
    });
}

/// Creates a Service that has the address of one that was deleted, and waits until it answers there.
async fn take_address(shop: &Shop, address: &str, to: SocketAddr) {
    let client = || shop.env.objects.client.clone();
    let service = json!({
        "metadata": { "name": "stranger", "namespace": SHOP },
        "spec": {
            "clusterIP": address, "ports": [{ "port": 80 }], "selector": { "app": "stranger" },
        },
    });
    let service: Service = serde_json::from_value(service).unwrap();
    let services = Api::<Service>::namespaced(client(), SHOP);
    create(&services, &service).await.unwrap();
    point_service(client(), SHOP, "stranger", to).await.unwrap();
    // An upstream does not count what its health is asked.
    let health = format!("http://{address}/health");
    shop.wait_status(&health, 200).await;
}

#[test]
fn service_that_is_recreated_under_load_is_sold_again_and_its_former_address_gets_nothing() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let services = Api::<Service>::namespaced(shop.env.objects.client.clone(), SHOP);
        let address = async || {
            let service = services.get("backend").await.unwrap();
            service.spec.unwrap().cluster_ip.unwrap()
        };
        let former = address().await;
        let host = shop.env.cluster.node_ip();
        let (stranger, strange_at) = Upstream::serve(host).await.unwrap();
        let (moved, moved_at) = Upstream::serve(host).await.unwrap();
        let stop = AtomicBool::new(false);
        let replace = async {
            sleep(WORK).await;
            delete(&services, "backend").await.unwrap();
            take_address(&shop, &former, strange_at).await;
            shop.wait_status(&shop.url("/v1"), 503).await;
            // Payments in flight are settled.
            sleep(WORK).await;
            let before = shop.transfers().await.len();
            sleep(AWAY).await;
            assert_eq!(shop.transfers().await.len(), before, "charged for nothing");
            let client = shop.env.objects.client.clone();
            point_service(client, SHOP, "backend", moved_at)
                .await
                .unwrap();
            let recreated = Instant::now();
            shop.wait_status(&shop.url("/v1"), 402).await;
            let open = recreated.elapsed();
            while moved.count() == 0 {
                assert!(recreated.elapsed() < SOON, "the Service is not called");
                sleep(Duration::from_millis(20)).await;
            }
            let took = recreated.elapsed();
            println!("402 after {open:?}, the first request after {took:?}");
            sleep(WORK).await;
            stop.store(true, Ordering::SeqCst);
            (before, took)
        };
        let (bought, (before, took)) = tokio::join!(buy_until(&shop, &stop, PATIENCE), replace);
        assert!(took < RETURN, "{took:?}");
        assert_ne!(address().await, former);
        let refused: Vec<_> = bought
            .iter()
            .filter(|answer| answer.status != 200)
            .collect();
        println!("{} purchases, {before} of them before", bought.len());
        assert!(refused.is_empty(), "{refused:?}");
        assert!(before > 0 && bought.len() > before);
        assert_eq!(shop.transfers().await.len(), bought.len());
        assert_eq!(shop.upstream.count() + moved.count(), bought.len());
        assert_eq!(stranger.count(), 0);
    });
}
