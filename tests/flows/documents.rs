//! Where an on-chain URI leads: to the same valid document on every replica, and on the gate.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use alloy::primitives::U256;
use anyhow::{Result, ensure};
use axum::body::Bytes;
use boon::{Compiler, SchemaIndex, Schemas};
use contracts::abi::IdentityRegistry;
use harness::chain::{Chain, LocalChain};
use harness::release::Release;
use harness::wait::eventually;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{TestEnv, block_every_second};
use crate::objects::{offer, registry};

const LIMIT: Duration = Duration::from_secs(60);
/// How long a change may take to show in a document.
const SOON: Duration = Duration::from_secs(5);
/// Name of the public Service.
const SERVICE: &str = "offers-serviceoffer-controller";
/// Host name of the public Service inside the cluster.
const HOST: &str = "offers-serviceoffer-controller.operator.svc";
const WELL_KNOWN: &str = "/.well-known/agent-registration.json";
/// What is counted of requests that got no answer.
const REFUSED: &str = "no answer";

#[test]
fn on_chain_uri_serves_the_same_document_on_every_replica() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let values = ["replicaCount=3", "gate.enabled=false"];
        let (chain, release) = deploy(&env, &values).await;
        let schema = Schema::new();
        for manifest in variety() {
            objects.create_offer(manifest).await;
        }
        let count = variety().len();
        objects.assert_all_registered(&chain, count, LIMIT).await;

        let service = release.service_client(SERVICE, HOST).await.unwrap();
        let pods = release.wait_ready(3, LIMIT).await.unwrap();
        let contract = IdentityRegistry::new(chain.registry, chain.provider());
        for event in chain.registrations().await.unwrap() {
            let uri = contract.tokenURI(event.agent_id).call().await.unwrap();
            let expected = json!([agent_reference(&chain, event.agent_id)]);
            let what = format!("the Service and every replica serve the same {uri}");
            let (served, document) = eventually(&what, LIMIT, async || -> Result<_> {
                let served = release.served_alike(&service, &uri, &pods).await?;
                let document: Value = serde_json::from_slice(&served.bytes)?;
                ensure!(document["registrations"].is_array(), "{document}");
                Ok((served, document))
            })
            .await;
            assert_eq!(document["registrations"], expected);
            assert_eq!(served.headers[CONTENT_TYPE], "application/json");
            assert_eq!(served.headers["x-content-type-options"], "nosniff");
            schema.assert_valid(&document);
            assert_eq!(document["active"], true);

            let tag = &served.headers[ETAG];
            let conditional = service.get(&uri).header(IF_NONE_MATCH, tag);
            let unchanged = conditional.send().await.unwrap();
            assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
            assert!(unchanged.bytes().await.unwrap().is_empty());
        }

        let registrations = chain.registrations().await.unwrap();
        let listed = registrations
            .iter()
            .map(|event| agent_reference(&chain, event.agent_id));
        let listed = Value::Array(listed.collect());
        let url = format!("http://{HOST}{WELL_KNOWN}");
        let what = "the Service and every replica list all agents in the same bytes";
        let all: Value = eventually(what, LIMIT, async || -> Result<_> {
            let served = release.served_alike(&service, &url, &pods).await?;
            let all: Value = serde_json::from_slice(&served.bytes)?;
            let count = all["registrations"].as_array().map_or(0, Vec::len);
            ensure!(count >= registrations.len(), "{count} are listed: {all}");
            Ok(all)
        })
        .await;
        assert_eq!(all["registrations"], listed);
        schema.assert_valid(&all);
        let unknown = format!("http://{HOST}/agents/aaaaaaaaaaaaaaaa.json");
        let missing = service.get(unknown).send().await.unwrap();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    });
}

#[test]
fn document_follows_registration_base_url_and_disabling() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (_chain, release) = deploy(&env, &["gate.enabled=true"]).await;
        let schema = Schema::new();
        let suspend = json!({ "spec": { "suspend": "Spending" } });
        objects.patch_registry("local", suspend).await;
        objects.create_offer(offer("shop", "chat")).await;
        let key = objects.wait_key("shop", "chat").await;
        let path = format!("/agents/{key}.json");
        let document = async || -> Result<Value> {
            let gate = release.wait_gate(LIMIT).await?;
            let response = release.document(&gate, &path).await?;
            let document = response.error_for_status()?.json().await?;
            schema.assert_valid(&document);
            Ok(document)
        };

        // The gate may see the record before the offer.
        let pending = eventually("the document is served and active", LIMIT, async || {
            let document = document().await?;
            ensure!(document["active"] == true, "{document}");
            Ok(document)
        })
        .await;
        assert_eq!(pending["registrations"], Value::Null);

        let resume = json!({ "spec": { "suspend": "None" } });
        objects.patch_registry("local", resume).await;
        objects.wait_registered("shop", "chat", LIMIT).await;
        let active = eventually("the document names the agent", LIMIT, async || {
            let document = document().await?;
            ensure!(document["registrations"].is_array(), "{document}");
            Ok(document)
        })
        .await;
        assert_eq!(active["active"], true);
        assert_eq!(active["registrations"][0]["agentId"].as_u64(), Some(0));
        let endpoint = &active["services"][0]["endpoint"];
        assert_eq!(*endpoint, format!("http://{HOST}/services/chat"));

        let moved = json!({ "spec": { "baseUrl": "http://moved.example" } });
        objects.patch_registry("local", moved).await;
        eventually("the document follows the base URL", SOON, async || {
            let document = document().await?;
            let endpoint = &document["services"][0]["endpoint"];
            ensure!(
                endpoint == "http://moved.example/services/chat",
                "{endpoint}"
            );
            Ok(())
        })
        .await;

        let disabled = json!({ "spec": { "registration": { "enabled": false } } });
        objects.patch_offer("shop", "chat", disabled).await;
        let inactive = eventually("the document is inactive", SOON, async || {
            let document = document().await?;
            ensure!(document["active"] == false, "{document}");
            Ok(document)
        })
        .await;
        assert_eq!(inactive["services"], json!([]));
        let id = &inactive["registrations"][0]["agentId"];
        assert_eq!(*id, 0, "the agent id must stay");
    });
}

/// A document as a client sees it: its bytes and its entity tag.
type Served = (Bytes, Option<HeaderValue>);

async fn read(service: &reqwest::Client, url: &str) -> reqwest::Result<Served> {
    let response = service.get(url).send().await?.error_for_status()?;
    let tag = response.headers().get(ETAG).cloned();
    Ok((response.bytes().await?, tag))
}

/// Reads documents all the time, checks that they stay as they are, and counts what failed.
async fn read_on(
    service: &reqwest::Client,
    documents: &[(String, Served)],
    failed: &mut BTreeMap<String, usize>,
) -> Infallible {
    loop {
        for (url, original) in documents {
            match read(service, url).await {
                Ok(served) => assert_eq!(served, *original, "{url}"),
                Err(error) => {
                    let status = error.status().map(|status| status.to_string());
                    let what = status.unwrap_or_else(|| REFUSED.to_owned());
                    *failed.entry(what).or_default() += 1;
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn documents_stay_byte_equal_when_the_gate_serves_them_instead_of_the_operator() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = deploy(&env, &["gate.enabled=false"]).await;
        for manifest in variety() {
            objects.create_offer(manifest).await;
        }
        let count = variety().len();
        objects.assert_all_registered(&chain, count, LIMIT).await;
        let contract = IdentityRegistry::new(chain.registry, chain.provider());
        let mut urls = vec![(format!("http://{HOST}{WELL_KNOWN}"), count)];
        for event in chain.registrations().await.unwrap() {
            urls.push((contract.tokenURI(event.agent_id).call().await.unwrap(), 1));
        }
        let service = release.service_client(SERVICE, HOST).await.unwrap();
        let mut documents = Vec::new();
        for (url, agents) in urls {
            let whole = eventually("every agent has its id", LIMIT, async || -> Result<_> {
                let served = read(&service, &url).await?;
                let document: Value = serde_json::from_slice(&served.0)?;
                let named = document["registrations"].as_array().map_or(0, Vec::len);
                ensure!(named == agents && served.1.is_some(), "{served:?}");
                Ok(served)
            })
            .await;
            documents.push((url, whole));
        }

        for (value, is_rollout) in [
            ("gate.enabled=true", false),
            ("gate.podAnnotations.rollout=r1", true),
            ("podAnnotations.rollout=r1", true),
            ("gate.enabled=false", false),
        ] {
            let (values, mut failed) = ([value], BTreeMap::new());
            tokio::select! {
                upgraded = release.upgrade(&values) => upgraded.unwrap(),
                never = read_on(&service, &documents, &mut failed) => match never {},
            }
            println!("{value}: failed requests {failed:?}");
            assert!(!is_rollout || failed.is_empty(), "{failed:?}");
            for (url, original) in &documents {
                let served = async || read(&service, url).await;
                let after = eventually("the document is served", LIMIT, served).await;
                assert_eq!(after, *original, "after {value}: {url}");
            }
        }
    });
}

/// The operator, with a registry whose documents are served by the Service of the release.
async fn deploy(env: &TestEnv, values: &[&str]) -> (LocalChain, Release) {
    let (chain, release) = env.prepare(block_every_second(), values).await;
    let manifest = registry("local", &chain, &format!("http://{HOST}"));
    env.objects.create_registry(manifest).await;
    env.objects.create_namespace("shop", &[]).await;
    (chain, release)
}

/// Offers that fill every part of a document.
fn variety() -> Vec<Value> {
    let plain = offer("shop", "plain");
    let mut described = offer("shop", "described");
    described["spec"]["registration"] = json!({
        "enabled": true,
        "name": "Fully described",
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

/// An agent as a document refers to it.
fn agent_reference(chain: &Chain, agent: U256) -> Value {
    let registry = format!("eip155:{}:{}", chain.id, chain.registry);
    json!({ "agentId": agent.to::<u64>(), "agentRegistry": registry })
}

/// The JSON Schema of registration files.
struct Schema {
    schemas: Schemas,
    root: SchemaIndex,
}

impl Schema {
    fn new() -> Self {
        const NAME: &str = "registration-file.schema.json";
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let schema = serde_json::from_str(include_str!("registration-file.schema.json")).unwrap();
        compiler.add_resource(NAME, schema).unwrap();
        let root = compiler.compile(NAME, &mut schemas).unwrap();
        Self { schemas, root }
    }

    fn assert_valid(&self, document: &Value) {
        if let Err(error) = self.schemas.validate(document, self.root) {
            panic!("{error}: {document}");
        }
    }
}
