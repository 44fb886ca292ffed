//! Manifests that successive versions of the legacy controller accepted, with the status that it
//! wrote.

use serde_json::{Value, json};

use super::client::NAMESPACE;

const WALLET: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

/// One manifest for each version of the CRD, and one for each kind of offer that only a branch had.
pub fn manifests() -> Vec<Value> {
    vec![
        forward_auth(),
        seller_gateway(),
        identity_and_drain(),
        route_tables(),
        card(),
        skill(),
        dataset(),
    ]
}

fn manifest(name: &str, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "ServiceOffer",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "finalizers": ["monetize.obol.org/finalizer"],
        },
        "spec": spec,
        "status": status,
    })
}

/// A condition without the fields that later versions add.
fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2025-06-01T08:00:00Z",
    })
}

/// Version A: the controller registers offers itself, and stores the result in the status.
fn forward_auth() -> Value {
    let mut manifest = manifest(
        "version-a",
        json!({
            "type": "inference",
            "model": { "name": "qwen3:8b", "runtime": "ollama" },
            "upstream": { "service": "ollama", "namespace": "llm", "port": 11434, "healthPath": "/api/tags" },
            "payment": {
                "scheme": "exact",
                "network": "base-sepolia",
                "payTo": WALLET,
                "maxTimeoutSeconds": 300,
                "asset": {
                    "address": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "symbol": "USDC", "decimals": 6,
                    "transferMethod": "eip3009", "eip712Name": "USDC", "eip712Version": "2",
                },
                "price": { "perMTok": "1.25", "perRequest": "0.001", "perHour": "0.5" },
            },
            "path": "/services/version-a",
            "provenance": { "framework": "autoresearch", "metricName": "val_bpb", "metricValue": "0.9973" },
            "registration": {
                "enabled": true,
                "name": "Inference",
                "description": "Answers questions.",
                "image": "https://example.org/agent-icon.png",
                "supportedTrust": ["reputation", "tee-attestation"],
                "skills": ["natural_language_processing/text_generation"],
                "domains": ["technology"],
                "metadata": { "gpu": "A100" },
                "services": [{ "name": "A2A", "endpoint": "https://example.org/card.json", "version": "0.3.0" }],
            },
        }),
        json!({
            "conditions": [
                condition("ModelReady", "True", "Declared"),
                condition("UpstreamHealthy", "True", "Healthy"),
                condition("PaymentGateReady", "True", "Reconciled"),
                condition("RoutePublished", "True", "Reconciled"),
                condition("Registered", "True", "OffChainOnly"),
                // The schema of this version required no other field.
                { "type": "Ready", "status": "Unknown" },
            ],
            "endpoint": "/services/version-a",
            "agentId": "0",
            "registrationTxHash": HASH,
            "observedGeneration": 1,
        }),
    );
    manifest["metadata"]["annotations"] = json!({ "obol.org/paused": "true" });
    manifest
}

/// Version B: offers can sell agents, and the verifier reads the resolved reference from the
/// status.
fn seller_gateway() -> Value {
    manifest(
        "version-b",
        json!({
            "type": "agent",
            "agent": { "ref": { "name": "quant", "namespace": NAMESPACE } },
            "payment": { "network": "eip155:8453", "payTo": WALLET, "price": { "perRequest": "0.05" } },
            "registration": { "enabled": false },
        }),
        json!({
            "conditions": [
                condition("UpstreamHealthy", "False", "WaitingForAgent"),
                condition("Registered", "False", "AwaitingExternalRegistration"),
            ],
            "agentResolution": {
                "model": "qwen3:8b", "skills": ["buy-x402", "ethereum-networks"], "runtime": "hermes",
                "endpoint": "http://hermes.agent-quant.svc.cluster.local:8642",
            },
            "observedGeneration": 3,
        }),
    )
}

/// Version C: an offer can have a drain date, a listing and several payment options.
fn identity_and_drain() -> Value {
    let payment = json!({ "network": "base", "payTo": WALLET, "price": { "perEpoch": "20" } });
    manifest(
        "version-c",
        json!({
            "type": "fine-tuning",
            "model": { "name": "llama-3", "runtime": "vllm" },
            // The port has its default.
            "upstream": { "service": "tuner", "namespace": "llm" },
            "payment": payment,
            "payments": [payment, { "network": "polygon", "payTo": WALLET, "price": { "perEpoch": "21" } }],
            "listing": { "weight": -3, "category": "training" },
            "drainAt": "2026-09-01T12:00:00Z",
            "drainGracePeriod": "0s",
            "registration": { "enabled": true, "name": "Tuner" },
        }),
        json!({
            "conditions": [
                condition("Draining", "True", "Draining"),
                condition("Registered", "False", "IdentityError"),
                condition("Ready", "False", "Reconciling"),
            ],
            "endpoint": "/services/version-c",
            "observedGeneration": 7,
        }),
    )
}

/// Version D: route tables, a hostname for the offer, asynchronous results.
fn route_tables() -> Value {
    manifest(
        "version-d",
        json!({
            "upstream": { "service": "api", "namespace": "web", "port": 8080, "healthPath": "/" },
            "payment": { "network": "arbitrum-one", "payTo": WALLET, "price": { "perRequest": "0.002" } },
            "routes": [
                { "path": "/v1/chat/completions", "methods": ["POST"], "gate": "paid", "price": { "perRequest": "0.01" } },
                { "path": "/v1/models", "gate": "free", "summary": "Models that answer" },
                { "path": "/account/*", "gate": "auth", "methods": ["GET", "PUT", "DELETE"], "freeQuota": 100 },
                { "path": "/*", "price": {} },
            ],
            "hostname": "chat.example.org",
            "branding": {
                "displayName": "Chat", "tagline": "Talks back", "description": "Long text.", "logoUrl": "/logo.svg",
                "faviconUrl": "/favicon.ico", "ogImageUrl": "https://example.org/og.png", "accentColor": "#0f8",
                "theme": "obol",
            },
            "listing": { "weight": 10, "category": "chat" },
            "async": { "enabled": true, "resultVisibility": "public", "ttl": "72h" },
            "limits": { "maxInFlight": 0, "rps": 25 },
        }),
        json!({
            "conditions": [
                condition("PaymentGateReady", "False", "HostnameConflict"),
                condition("RoutePublished", "False", "WaitingForTraefikAcceptance"),
                condition("Registered", "True", "Active"),
            ],
            "endpoint": "/services/version-d",
            "observedGeneration": 2,
        }),
    )
}

fn card() -> Value {
    manifest(
        "branch-card",
        json!({
            "upstream": { "service": "api", "namespace": "web", "port": 8080 },
            "payment": {
                "method": "card",
                "card": {
                    "account": "acct_1A2b3C", "currency": "usd", "provider": "stripe", "networkId": "profile_1",
                    "paymentMethodTypes": ["card", "link"],
                },
                "price": { "perRequest": "0.50" },
            },
        }),
        json!({ "observedGeneration": 1 }),
    )
}

fn skill() -> Value {
    manifest(
        "branch-skill",
        json!({
            "type": "skill",
            "skill": {
                "name": "buy-x402", "version": "1.0.0", "displayName": "Buy", "description": "Buys.",
                "bundleConfigMap": "buy-x402", "sha256": "0a".repeat(32),
            },
            "payment": { "network": "base", "payTo": WALLET, "price": { "perRequest": "2" } },
        }),
        json!({ "observedGeneration": 1 }),
    )
}

fn dataset() -> Value {
    manifest(
        "branch-dataset",
        json!({
            "type": "dataset",
            "dataset": { "version": "2026-01", "manifestHash": "0b", "fileHash": "0c", "sizeBytes": 123_456_789_012_i64 },
            "payment": { "network": "base", "payTo": WALLET, "price": { "perMB": "0.0001" } },
        }),
        json!({ "observedGeneration": 1 }),
    )
}
