//! What a URI on chain leads to: the same valid document on every replica.

use std::net::SocketAddr;
use std::time::Duration;

use alloy::primitives::U256;
use anyhow::ensure;
use boon::{Compiler, SchemaIndex, Schemas};
use contracts::abi::IdentityRegistry;
use harness::wait::eventually;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt};
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testbed::AnvilConfig;

use crate::chain::Chain;
use crate::objects::{offer, registry};
use crate::release::Release;
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
/// The documents' Service, as Pods of the cluster know it.
const HOST: &str = "offers-serviceoffer-controller.operator.svc";
const WELL_KNOWN: &str = "/.well-known/agent-registration.json";

#[test]
fn a_uri_on_chain_leads_to_the_same_valid_document_on_every_replica() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, release) = open(&stage, &["replicaCount=3"]).await;
        let shape = Shape::new();
        for manifest in variety() {
            objects.create_offer(manifest).await;
        }
        objects.all_registered(&chain, variety().len(), LIMIT).await;

        let service = service(&stage, &release).await;
        let pods = release.ready(3, LIMIT).await;
        let contract = IdentityRegistry::new(chain.registry, chain.anvil.provider());
        for event in chain.registered().await {
            let uri = contract.tokenURI(event.agent_id).call().await.unwrap();
            let path = uri.strip_prefix(&format!("http://{HOST}")).unwrap();
            let expected = json!([place(&chain, event.agent_id)]);
            let what = format!("the Service and every replica serve the same {path}");
            let (headers, bytes) = eventually(&what, LIMIT, async || {
                let answers = everywhere(&service, &release, &pods, path).await?;
                let document: Value = serde_json::from_slice(&answers.bytes)?;
                ensure!(document["registrations"] == expected, "{document}");
                Ok((answers.headers, answers.bytes))
            })
            .await;
            let tag = headers[ETAG].to_str().unwrap();
            assert_eq!(headers[CONTENT_TYPE], "application/json");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            shape.check(&document);
            assert_eq!(document["active"], true);
            let again = service
                .get(&uri)
                .header(IF_NONE_MATCH, tag)
                .send()
                .await
                .unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
            assert!(again.bytes().await.unwrap().is_empty());
        }

        let listed: Vec<Value> = chain
            .registered()
            .await
            .iter()
            .map(|event| place(&chain, event.agent_id))
            .collect();
        let what = "the Service and every replica list all agents in the same bytes";
        let all: Value = eventually(what, LIMIT, async || {
            let answers = everywhere(&service, &release, &pods, WELL_KNOWN).await?;
            let all: Value = serde_json::from_slice(&answers.bytes)?;
            ensure!(all["registrations"] == json!(listed), "{all}");
            Ok(all)
        })
        .await;
        shape.check(&all);
        let missing = service
            .get(format!("http://{HOST}/agents/aaaaaaaaaaaaaaaa.json"))
            .send()
            .await
            .unwrap();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    });
}

#[test]
fn a_document_is_pending_then_active_then_inactive_and_follows_its_base_url() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (_chain, release) = open(&stage, &[]).await;
        let shape = Shape::new();
        objects
            .change_registry("local", json!({ "spec": { "suspend": "Spending" } }))
            .await;
        objects.create_offer(offer("shop", "chat")).await;
        let key = objects.offer_key("shop", "chat").await;
        let path = format!("/agents/{key}.json");
        let document = async || -> anyhow::Result<Value> {
            let pods = release.ready(1, LIMIT).await;
            let answer = release.document(&pods[0], &path).await?;
            let document = answer.error_for_status()?.json().await?;
            shape.check(&document);
            Ok(document)
        };

        let pending = eventually("the document is served", LIMIT, async || document().await).await;
        assert_eq!(
            (&pending["active"], &pending["registrations"]),
            (&json!(true), &Value::Null)
        );

        objects
            .change_registry("local", json!({ "spec": { "suspend": "None" } }))
            .await;
        objects.registered("shop", "chat", LIMIT).await;
        let active = eventually("the document names the agent", LIMIT, async || {
            let document = document().await?;
            ensure!(document["registrations"].is_array(), "{document}");
            Ok(document)
        })
        .await;
        assert_eq!(
            (
                &active["active"],
                active["registrations"][0]["agentId"].as_u64()
            ),
            (&json!(true), Some(0))
        );
        assert_eq!(
            active["services"][0]["endpoint"],
            format!("http://{HOST}/services/chat")
        );

        objects
            .change_registry(
                "local",
                json!({ "spec": { "baseUrl": "http://moved.example" } }),
            )
            .await;
        let shown = async || {
            let document = document().await?;
            let endpoint = &document["services"][0]["endpoint"];
            ensure!(
                endpoint == "http://moved.example/services/chat",
                "{endpoint}"
            );
            Ok(())
        };
        eventually(
            "the document follows the base URL",
            Duration::from_secs(5),
            shown,
        )
        .await;

        objects
            .change_offer(
                "shop",
                "chat",
                json!({ "spec": { "registration": { "enabled": false } } }),
            )
            .await;
        let inactive = async || {
            let document = document().await?;
            ensure!(document["active"] == false, "{document}");
            Ok(document)
        };
        let inactive =
            eventually("the document is inactive", Duration::from_secs(5), inactive).await;
        assert_eq!(inactive["services"], json!([]));
        assert_eq!(inactive["registrations"][0]["agentId"], 0, "the id is kept");
    });
}

/// A registry whose documents are under the Service of the release.
async fn open(stage: &Stage, values: &[&str]) -> (Chain, Release) {
    let config = AnvilConfig {
        block_time: Some(Duration::from_secs(1)),
        ..AnvilConfig::default()
    };
    let (chain, release) = tokio::join!(
        Chain::start(stage.cluster.node_ip(), config),
        stage.install(values)
    );
    stage.objects.signer_secret(&release, &chain).await;
    stage
        .objects
        .create_registry(registry("local", &chain, &format!("http://{HOST}")))
        .await;
    stage.objects.shop("shop", &[]).await;
    (chain, release)
}

/// Offers that fill every part of a document.
fn variety() -> Vec<Value> {
    let plain = offer("shop", "plain");
    let mut described = offer("shop", "described");
    described["spec"]["registration"] = json!({
        "enabled": true,
        "name": "Told in full",
        "description": "An agent that has every field.",
        "image": "https://pictures.example/agent.png",
        "supportedTrust": ["reputation"],
        "skills": ["natural_language_processing/summarization"],
        "domains": ["technology/software_engineering"],
        "services": [{ "name": "A2A", "endpoint": "https://a2a.example/card.json", "version": "0.3.0" }],
        "metadata": { "tier": "gold" },
    });
    described["spec"]["provenance"] = json!({ "framework": "none" });
    let mut model = offer("shop", "model");
    model["spec"]["type"] = json!("inference");
    model["spec"]["model"] = json!({ "name": "qwen3", "runtime": "ollama" });
    vec![plain, described, model]
}

/// A client that reaches the documents' Service under its name.
async fn service(stage: &Stage, release: &Release) -> Client {
    let services = Api::<Service>::namespaced(stage.cluster.client(), release.namespace());
    let ip = eventually("the Service has an address", LIMIT, async || {
        let service = services.get("offers-serviceoffer-controller").await;
        let spec = service.map_err(|error| error.to_string())?.spec;
        let ip = spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
        ip.ok_or(format!("{spec:?}"))
    })
    .await;
    let address = SocketAddr::new(ip.parse().unwrap(), 80);
    Client::builder()
        .resolve(HOST, address)
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

/// An agent's place, as a document names it.
fn place(chain: &Chain, agent: U256) -> Value {
    let registry = format!("eip155:{}:{}", chain.anvil.chain_id(), chain.registry);
    json!({ "agentId": agent.to::<u64>(), "agentRegistry": registry })
}

/// What the Service and every replica answer alike.
struct Answers {
    headers: HeaderMap,
    bytes: Vec<u8>,
}

/// Asks the Service and every replica for one path. Replicas follow the cluster each for itself: one may be a moment behind.
async fn everywhere(
    service: &Client,
    release: &Release,
    pods: &[Pod],
    path: &str,
) -> anyhow::Result<Answers> {
    let answer = service.get(format!("http://{HOST}{path}")).send().await?;
    ensure!(
        answer.status() == StatusCode::OK,
        "the Service answers {}",
        answer.status()
    );
    let headers = answer.headers().clone();
    let bytes = answer.bytes().await?.to_vec();
    for pod in pods {
        let name = pod.name_any();
        let own = release.document(pod, path).await?;
        ensure!(
            own.headers().get(ETAG) == headers.get(ETAG),
            "{name} serves another ETag"
        );
        ensure!(own.bytes().await? == bytes, "{name} serves other bytes");
    }
    Ok(Answers { headers, bytes })
}

/// What every registration file must be.
struct Shape {
    schemas: Schemas,
    root: SchemaIndex,
}

impl Shape {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let schema = serde_json::from_str(include_str!("registration-file.schema.json")).unwrap();
        compiler
            .add_resource("registration-file.schema.json", schema)
            .unwrap();
        let root = compiler
            .compile("registration-file.schema.json", &mut schemas)
            .unwrap();
        Self { schemas, root }
    }

    /// # Panics
    /// If the document has another shape.
    fn check(&self, document: &Value) {
        if let Err(error) = self.schemas.validate(document, self.root) {
            panic!("{error}: {document}");
        }
    }
}
