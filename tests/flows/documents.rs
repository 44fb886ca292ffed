//! What a URI on chain leads to: the same valid document on every replica.

use std::net::SocketAddr;
use std::time::Duration;

use alloy::primitives::U256;
use boon::{Compiler, SchemaIndex, Schemas};
use contracts::abi::IdentityRegistry;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use reqwest::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use testbed::AnvilConfig;

use crate::chain::Chain;
use crate::objects::{offer, registry};
use crate::patience::eventually;
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
            let answer = service.get(&uri).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{uri}");
            let (headers, tag) = (answer.headers().clone(), tag_of(&answer));
            assert_eq!(headers[CONTENT_TYPE], "application/json");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            let bytes = answer.bytes().await.unwrap();
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            shape.check(&document);
            assert_eq!(document["active"], true);
            assert_eq!(
                document["registrations"],
                json!([place(&chain, event.agent_id)])
            );

            let path = uri.strip_prefix(&format!("http://{HOST}")).unwrap();
            for pod in &pods {
                let answer = release.document(pod, path).await.unwrap();
                assert_eq!(tag_of(&answer), tag);
                assert_eq!(
                    answer.bytes().await.unwrap(),
                    bytes,
                    "every replica serves the same bytes"
                );
            }
            let again = service
                .get(&uri)
                .header(IF_NONE_MATCH, tag)
                .send()
                .await
                .unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
            assert!(again.bytes().await.unwrap().is_empty());
        }

        let all: Value = service
            .get(format!("http://{HOST}{WELL_KNOWN}"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        shape.check(&all);
        let listed: Vec<Value> = chain
            .registered()
            .await
            .iter()
            .map(|event| place(&chain, event.agent_id))
            .collect();
        assert_eq!(all["registrations"], json!(listed));
        let mut bodies = Vec::new();
        for pod in &pods {
            bodies.push(
                release
                    .document(pod, WELL_KNOWN)
                    .await
                    .unwrap()
                    .bytes()
                    .await
                    .unwrap(),
            );
        }
        assert!(
            bodies.windows(2).all(|pair| pair[0] == pair[1]),
            "every replica serves the same bytes"
        );
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
        let key = eventually("the agent has a key", LIMIT, async || {
            let offer = objects
                .offers("shop")
                .get("chat")
                .await
                .map_err(|error| error.to_string())?;
            offer
                .status
                .and_then(|status| status.registration?.key)
                .ok_or("it has none".to_owned())
        })
        .await;
        let path = format!("/agents/{key}.json");
        let document = async || -> Value {
            let pods = release.ready(1, LIMIT).await;
            let answer = release
                .document(&pods[0], &path)
                .await
                .unwrap()
                .error_for_status()
                .unwrap();
            let document = answer.json().await.unwrap();
            shape.check(&document);
            document
        };

        let pending = document().await;
        assert_eq!(
            (&pending["active"], &pending["registrations"]),
            (&json!(true), &Value::Null)
        );

        objects
            .change_registry("local", json!({ "spec": { "suspend": "None" } }))
            .await;
        objects.registered("shop", "chat", LIMIT).await;
        let active = document().await;
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
        let shown = async || match document().await["services"][0]["endpoint"].as_str() {
            Some("http://moved.example/services/chat") => Ok(()),
            seen => Err(format!("{seen:?}")),
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
            let document = document().await;
            if document["active"] == false {
                Ok(document)
            } else {
                Err(document)
            }
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
    let spec = services
        .get("offers-serviceoffer-controller")
        .await
        .unwrap()
        .spec
        .unwrap();
    let address = SocketAddr::new(spec.cluster_ip.unwrap().parse().unwrap(), 80);
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

fn tag_of(answer: &Response) -> String {
    answer.headers()[ETAG].to_str().unwrap().to_owned()
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
