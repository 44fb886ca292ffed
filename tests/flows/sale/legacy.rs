//! Offers as sellers of the legacy stack have stored them: each is sold, is sold after the change that its
//! condition asks for, or says why not. `docs/migrate.md` has the same rows.

use harness::objects::{create, patch};
use harness::upstream::{Upstream, point_service};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use super::shop::{SHOP, SOON, Shop};
use crate::fixture::TestEnv;
use crate::objects::merge;

/// Namespace of the model server, whose Service leads out of the cluster.
const LLM: &str = "llm";

/// One shape.
struct Row {
    /// Name of the offer.
    name: &'static str,
    /// What it has beside a price of 0.002 on Base Sepolia and the upstream `shop/backend`; null removes.
    spec: Value,
    /// Reason of `PaymentGateReady`; `Reconciled` if it is sold as it is.
    reason: &'static str,
    /// The one change after which it is sold.
    change: Option<Value>,
}

fn rows() -> Vec<Row> {
    let row = |name, spec, reason, change| Row {
        name,
        spec,
        reason,
        change,
    };
    let sold = "Reconciled";
    let bundle = json!({ "service": "so-skill-bundle", "namespace": SHOP, "port": 8080 });
    let permit2 = json!({ "asset": { "transferMethod": "permit2" } });
    let card = json!({ "method": "card", "card": { "account": "acct_1A" }, "network": null, "payTo": null });
    let skill = json!({
        "name": "summarize", "version": "0.1.0", "sha256": "ab".repeat(32), "bundleConfigMap": "so-skill-bundle",
    });
    let routes = json!([
        { "path": "/submit", "methods": ["POST"], "price": { "perRequest": "0.5" }, "summary": "Submit" },
        { "path": "/jobs/*", "gate": "free" },
        { "path": "/reports/*", "gate": "auth" },
        { "path": "/*", "gate": "paid", "price": {} },
    ]);
    vec![
        row("http", json!({ "type": "http" }), sold, None),
        row("minimal", json!({ "type": null }), sold, None),
        row(
            "absent",
            json!({ "upstream": { "service": "does-not-exist", "port": 9999 } }),
            "WaitingForUpstream",
            Some(json!({ "upstream": { "service": "backend", "port": 80 } })),
        ),
        row(
            "inference",
            json!({
                "type": "inference", "model": { "name": "qwen3:8b", "runtime": "ollama" },
                "payment": { "price": { "perRequest": null, "perMTok": "1.25" } },
            }),
            sold,
            None,
        ),
        row(
            "agent",
            json!({
                "type": "agent", "agent": { "ref": { "name": "hermes", "namespace": SHOP } }, "upstream": null,
            }),
            "MissingUpstream",
            Some(json!({ "upstream": { "service": "backend", "namespace": SHOP, "port": 80 } })),
        ),
        row(
            "eip3009",
            json!({ "payment": { "asset": { "transferMethod": "eip3009" } } }),
            sold,
            None,
        ),
        row(
            "permit2",
            json!({ "payment": permit2 }),
            "NotSupported",
            Some(json!({ "payment": { "asset": { "transferMethod": "eip3009" } } })),
        ),
        row(
            "skill",
            json!({ "type": "skill", "skill": skill, "upstream": bundle }),
            "WaitingForUpstream",
            Some(json!({ "upstream": { "service": "backend", "port": 80 } })),
        ),
        row(
            "dataset",
            json!({
                "type": "dataset", "dataset": { "version": "1" },
                "payment": { "price": { "perRequest": null, "perMB": "0.01" } },
            }),
            "NoRequestPrice",
            Some(json!({ "payment": { "price": { "perRequest": "0.25" } } })),
        ),
        row("card", json!({ "payment": card }), "NotSupported", None),
        row("routes", json!({ "routes": routes }), sold, None),
        row(
            "members",
            json!({ "routes": [{ "path": "/health/readiness", "gate": "auth" }] }),
            "SignInNotSupported",
            Some(json!({ "routes": [{ "path": "/health/readiness", "gate": "paid" }] })),
        ),
        row(
            "async",
            json!({ "async": { "enabled": true, "ttl": "15m0s", "resultVisibility": "payer" } }),
            sold,
            None,
        ),
        row(
            "limits",
            json!({ "limits": { "maxInFlight": 4, "rps": 10 }, "provenance": { "framework": "autoresearch" } }),
            sold,
            None,
        ),
        row(
            "hostname",
            json!({ "hostname": "audit.example.org" }),
            sold,
            None,
        ),
        row(
            "drained",
            json!({ "drainAt": "2026-01-01T00:00:00Z", "drainGracePeriod": "0s" }),
            "Drained",
            Some(json!({ "drainAt": null })),
        ),
        row(
            "milliseconds",
            json!({ "payment": { "price": { "perRequest": "0.0000001" } } }),
            "PriceTooFine",
            Some(json!({ "payment": { "price": { "perRequest": "0.000001" } } })),
        ),
    ]
}

#[test]
fn stored_offers_are_sold_or_say_what_to_change() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.create_facilitator().await;
        for Row { name, spec, .. } in rows() {
            let mut manifest = shop.offer(name);
            merge(&mut manifest["spec"], &spec);
            shop.env.objects.create_offer(manifest).await;
        }
        for Row {
            name,
            reason,
            change,
            ..
        } in rows()
        {
            shop.wait_gate_reason(name, reason).await;
            if let Some(change) = change {
                let change = json!({ "spec": change });
                shop.env.objects.patch_offer(SHOP, name, change).await;
                shop.wait_gate_reason(name, "Reconciled").await;
            }
        }
        let at = |path: &str| shop.url("").replace("/services/chat", path);
        for (path, expected) in [
            ("/services/routes/jobs/7", 200),
            ("/services/routes/reports/7", 403),
            ("/services/routes/else", 402),
            ("/services/card", 503),
            ("/services/http", 402),
        ] {
            let status = reqwest::get(at(path)).await.unwrap().status();
            assert_eq!(status, expected, "{path}");
        }
        let bought = shop.buyer().get(&at("/services/http/x")).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
    });
}

#[test]
fn service_that_leads_out_of_the_cluster_is_sold_once_it_is_listed() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.create_facilitator().await;
        let client = shop.env.objects.client.clone();
        shop.env.objects.create_namespace(LLM, &[]).await;
        let (_, at) = Upstream::serve(shop.env.cluster.node_ip()).await.unwrap();
        let services = Api::<Service>::namespaced(client.clone(), LLM);
        let service = json!({
            "metadata": { "name": "ollama", "namespace": LLM, "annotations": { "obol.org/offers-from": SHOP } },
            "spec": { "ports": [{ "port": 80 }] },
        });
        let service: Service = serde_json::from_value(service).unwrap();
        create(&services, &service).await.unwrap();
        point_service(client, LLM, "ollama", at).await.unwrap();
        let mut manifest = shop.offer("chat");
        manifest["spec"]["upstream"] = json!({ "service": "ollama", "namespace": LLM, "port": 80 });
        shop.env.objects.create_offer(manifest).await;
        let message = shop.wait_gate_reason("chat", "UpstreamNotAllowed").await;
        assert!(
            message.contains("gate.allowedExternalUpstreams"),
            "{message}"
        );
        let listed = ["gate.allowedExternalUpstreams={llm/ollama}"];
        shop.release.upgrade(&listed).await.unwrap();
        // The one that drains still has the former list.
        shop.release.wait_gate(SOON).await.unwrap();
        shop.wait_ready("chat").await;
        let bought = shop.buyer().get(&shop.url("/v1")).await.unwrap();
        assert_eq!(bought.status, 200, "{bought:?}");
    });
}

#[test]
fn paused_offer_is_sold_once_the_annotation_is_removed() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.create_facilitator().await;
        let mut manifest = shop.offer("chat");
        manifest["metadata"]["annotations"] = json!({ "obol.org/paused": "true" });
        shop.env.objects.create_offer(manifest).await;
        shop.wait_gate_reason("chat", "Paused").await;
        let paused = reqwest::get(shop.url("/v1")).await.unwrap();
        assert_eq!(paused.status(), 410);
        let offers = shop.env.objects.offers(SHOP);
        let change = json!({ "metadata": { "annotations": { "obol.org/paused": null } } });
        patch(&offers, "chat", change).await.unwrap();
        shop.wait_ready("chat").await;
    });
}
