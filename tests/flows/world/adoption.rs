//! Agents that exist already: whose they are, and who may have them.

use std::time::{Duration, Instant};

use alloy::primitives::U256;
use alloy::sol_types::SolValue;
use anyhow::{anyhow, ensure};
use harness::objects::delete;
use harness::wait::{eventually, throughout};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use rpc_proxy::Rule;
use serde_json::{Value, json};

use super::{OTHERS, SHOWN, World};
use crate::definitions::create_lax;

/// How long an offer waits for its first nonce where the legacy controller was.
const LEGACY_WAIT: Duration = Duration::from_secs(60);

#[test]
fn owner_and_uri_of_an_adopted_agent_are_shown() {
    World::run("owner", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let stranger = world.stranger();
        let uri = "https://stranger.example.org/card.json";
        let named = world
            .chain
            .register_for(stranger, Some(uri.as_bytes()))
            .await;
        let unnamed = world.chain.register_for(stranger, None).await;
        let agents = [("named", named.unwrap()), ("unnamed", unnamed.unwrap())];
        for (name, agent) in &agents {
            world
                .offer_with(0, &shop, name, json!({ "agentId": agent }))
                .await;
        }
        let owner = format!("{stranger:#x}");
        for (name, agent) in &agents {
            let what = format!("the owner of {name} is shown");
            let message = eventually(&what, OTHERS, async || {
                let (reason, message) = world.read_offer(&shop, name).await?;
                let is_shown = message.to_lowercase().contains(&owner);
                ensure!(is_shown, "{reason}: {message}");
                Ok(message)
            })
            .await;
            println!("{message}");
            assert!(message.contains(agent), "{message}");
        }
        let (_, message) = world.read_offer(&shop, "named").await.unwrap();
        assert!(message.contains(uri), "what the chain points to: {message}");
        world.assert_minted(registry.owner(), 0).await;
    });
}

#[test]
fn agent_without_key_of_the_signer_is_adopted_or_ignored_before_anything_is_registered() {
    World::run("keyless", async |world| {
        let owner = world.signer(0).address();
        let first = world.chain.anvil.block_number().await.unwrap();
        let uri = "https://old.example/card.json";
        let old = world.chain.register_for(owner, Some(uri.as_bytes())).await;
        let old = old.unwrap();
        let other = world.chain.register_for(owner, None).await.unwrap();
        let proxy = world.proxy().await;
        let mut manifest = world.manifest(0, &[&proxy]).await;
        manifest["spec"]["bootstrap"] = json!({ "atNonce": 2, "fromBlock": first });
        world.objects().create_registry(manifest).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "old").await;
        let message = world.wait_registry(0, "AgentWithoutKey").await;
        assert!(
            message.contains(uri) && message.contains("1 more"),
            "{message}"
        );
        world.assert_quiet(owner, Duration::from_secs(10)).await;

        let objects = world.objects();
        delete(&objects.offers(&shop), "old").await.unwrap();
        world
            .offer_with(0, &shop, "old", json!({ "agentId": old }))
            .await;
        assert_eq!(world.wait_other(&shop, "old").await, old);
        world.offer(0, &shop, "new").await;
        let message = world.wait_registry(0, "AgentWithoutKey").await;
        assert!(message.contains(&format!("agent {other} ")), "{message}");
        let ignore = json!({ "spec": { "bootstrap": { "ignoreAgents": { "ids": [other] } } } });
        objects.patch_registry(&world.name(0), ignore).await;
        world.wait_other(&shop, "new").await;
        world.wait_ready(0).await;
        let minted = world.chain.registrations_of(owner).await.unwrap();
        assert_eq!(minted.len(), 3, "two of before, and one: {minted:?}");
    });
}

#[test]
fn agents_that_strangers_transfer_to_the_signer_stop_nothing() {
    World::run("strangers", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        // Ten strangers give five agents each.
        let give = async |nth: usize| {
            let stranger = world.chain.anvil.keys()[nth].address();
            for _ in 0..5 {
                let agent = world.chain.register_for(stranger, None).await?;
                world.chain.give(&agent, stranger, registry.owner()).await?;
            }
            anyhow::Ok(())
        };
        let gifts = futures::future::join_all((10..20).map(give));
        let offers = async {
            for nth in 0..5 {
                let name = format!("offer-{nth}");
                world.offer(0, &shop, &name).await;
                world.wait_other(&shop, &name).await;
            }
        };
        let (gifts, ()) = futures::join!(gifts, offers);
        assert!(gifts.iter().all(Result::is_ok), "{gifts:?}");
        let what = "the registry says that it holds agents of others";
        eventually(what, SHOWN, async || {
            let conditions = world.read_conditions(0).await?;
            let ready = conditions.iter().find(|(type_, ..)| type_ == "Ready");
            let (_, reason, message) = ready.ok_or_else(|| anyhow!("{conditions:?}"))?;
            let is_reported = reason == "Reconciled" && message.contains("transferred to it");
            ensure!(is_reported, "{reason}: {message}");
            anyhow::Ok(())
        })
        .await;
        world.offer(0, &shop, "last").await;
        world.wait_other(&shop, "last").await;
        world.assert_minted(registry.owner(), 6).await;
    });
}

#[test]
fn agent_id_beyond_uint256_is_refused() {
    World::run("huge-id", async |world| {
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let nines = "9".repeat(78);
        let ids = [
            // 2^256
            "115792089237316195423570985008687907853269984665640564039457584007913129639936",
            nines.as_str(),
        ];
        for (nth, id) in ids.into_iter().enumerate() {
            let name = format!("a-{nth}");
            let adopt = json!({ "agentId": id });
            let manifest = world.offer_manifest(0, &shop, &name, adopt);
            let created = serde_json::from_value(manifest).unwrap();
            let offers = world.objects().offers(&shop);
            match offers.create(&PostParams::default(), &created).await {
                Ok(_) => {
                    world.wait_offer(&shop, &name, "AdoptionRefused").await;
                }
                Err(kube::Error::Api(status)) if status.code == 422 => {}
                Err(error) => panic!("{error}"),
            }
        }
        world.offer(0, &shop, "other").await;
        world.wait_other(&shop, "other").await;
        world.assert_minted(registry.owner(), 1).await;
    });
}

#[test]
fn agent_id_beyond_2_53_is_no_json_number() {
    World::run("long-id", async |world| {
        const ID: u64 = 9_007_199_254_740_993;
        let proxy = world.proxy().await;
        let calldata = |selector: &str| format!("0x{selector}{:064x}", ID);
        let owner = world.stranger().abi_encode();
        let uri = "https://big.example/card.json".abi_encode();
        // ownerOf and tokenURI of an agent that the contract does not have.
        for (selector, answer) in [("6352211e", owner), ("c87b56dd", uri)] {
            let calldata = calldata(selector);
            let is_asked = move |call: &rpc_proxy::Call| {
                let fields = ["input", "data"].map(|field| call.params[0][field].as_str());
                fields.contains(&Some(&calldata))
            };
            let answer = json!(alloy::hex::encode_prefixed(answer));
            proxy.add(Rule::result("eth_call", answer).when(is_asked));
        }
        let mut manifest = world.manifest(0, &[&proxy]).await;
        manifest["spec"]["signers"] = json!([]);
        world.objects().create_registry(manifest).await;
        let shop = world.namespace("shop").await;
        let adopt = json!({ "agentId": ID.to_string() });
        world.offer_with(0, &shop, "big", adopt).await;
        let agent = world.wait_other(&shop, "big").await;
        assert_eq!(agent, ID.to_string());

        let key = world.objects().wait_key(&shop, "big").await;
        let path = format!("/agents/{key}.json");
        let pods = world.release.wait_ready(1, OTHERS).await.unwrap();
        let document = eventually("the document names the agent", OTHERS, async || {
            let response = world.release.document(&pods[0], &path).await?;
            let document: Value = response.error_for_status()?.json().await?;
            ensure!(document["registrations"].is_array(), "{document}");
            anyhow::Ok(document)
        })
        .await;
        let id = &document["registrations"][0]["agentId"];
        // JavaScript would read the number as 9007199254740992.
        assert_eq!(*id, json!(ID.to_string()));
    });
}

#[test]
fn offers_of_one_legacy_agent_share_an_identity() {
    World::run_alone("legacy", async |world| {
        define(world, "AgentIdentity", "agentidentities").await;
        world.objects().create_namespace("x402", &[]).await;
        let registry = world.registry(0).await;
        let uri = b"https://old.example/.well-known/agent-registration.json";
        let agent = world.chain.register_for(world.stranger(), Some(uri)).await;
        let agent = agent.unwrap();
        let network = format!("eip155:{}", world.chain.id);
        let identity = json!({
            "metadata": { "name": "default", "namespace": "x402" },
            "spec": {},
            "status": { "registrations": [{ "chain": network, "agentId": agent }] },
        });
        create_legacy(world, "AgentIdentity", "agentidentities", identity).await;
        let shop = world.namespace("shop").await;
        let names = ["a", "b"];
        for name in names {
            world.offer(0, &shop, name).await;
        }
        for name in names {
            let message = world.wait_offer(&shop, name, "AdoptionRequired").await;
            assert!(message.contains(&agent), "which agent: {message}");
        }
        let adopt = json!({ "spec": { "registration": { "agentId": agent } } });
        for name in names {
            world
                .objects()
                .patch_offer(&shop, name, adopt.clone())
                .await;
        }
        let what = "one offer has the agent, and the other says what to do";
        eventually(what, SHOWN, async || {
            let mut adopted = 0;
            let mut remedies = 0;
            for name in names {
                let (reason, message) = world.read_offer(&shop, name).await?;
                adopted += usize::from(reason == "Registered");
                remedies += usize::from(message.contains("registration.identity"));
            }
            ensure!(
                adopted == 1 && remedies == 1,
                "{adopted} adopted, {remedies} remedies"
            );
            anyhow::Ok(())
        })
        .await;
        // The remedy: the identity of the one that has it.
        let (reason, _) = world.read_offer(&shop, "a").await.unwrap();
        let holder = if reason == "Registered" { "a" } else { "b" };
        let shared = json!({ "agentId": agent, "identity": holder });
        world.offer_with(0, &shop, "shared", shared).await;
        assert_eq!(world.wait_other(&shop, "shared").await, agent);
        // An offer that the legacy controller never saw is registered, or says how it can be.
        world.offer(0, &shop, "fresh").await;
        let limit = LEGACY_WAIT + SHOWN;
        eventually("the fresh offer has a way on", limit, async || {
            let (reason, message) = world.read_offer(&shop, "fresh").await?;
            let is_explained = reason == "AdoptionRequired" && message.contains("AgentIdentity");
            ensure!(
                reason == "Registered" || is_explained,
                "{reason}: {message}"
            );
            anyhow::Ok(())
        })
        .await;
        assert!(
            world
                .chain
                .registrations_of(registry.owner())
                .await
                .unwrap()
                .len()
                <= 1
        );
    });
}

#[test]
fn requests_that_follow_their_offers_prevent_mints() {
    World::run_alone("requests", async |world| {
        define(world, "RegistrationRequest", "registrationrequests").await;
        let registry = world.registry(0).await;
        let shop = world.namespace("shop").await;
        let start = Instant::now();
        for name in ["a", "b", "fresh"] {
            world.offer(0, &shop, name).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        for name in ["a", "b"] {
            let request = json!({
                "metadata": { "name": format!("so-{name}-registration"), "namespace": shop },
                "spec": {
                    "serviceOfferName": name,
                    "serviceOfferNamespace": shop,
                    "desiredState": "Active",
                },
            });
            let plural = "registrationrequests";
            create_legacy(world, "RegistrationRequest", plural, request).await;
        }
        let rest = (LEGACY_WAIT - Duration::from_secs(5)).saturating_sub(start.elapsed());
        world.assert_quiet(registry.owner(), rest).await;
        let limit = Duration::from_secs(60);
        world.objects().wait_registered(&shop, "fresh", limit).await;
        for name in ["a", "b"] {
            let message = world.wait_offer(&shop, name, "AdoptionRequired").await;
            assert!(message.contains("agentId"), "what to do: {message}");
        }
        world.assert_minted(registry.owner(), 1).await;
    });
}

#[test]
fn claims_of_two_namespaces_are_decided_by_the_admin() {
    World::run("claims", async |world| {
        let (bank, thief) = (
            world.namespace("bank").await,
            world.namespace("thief").await,
        );
        let mut agents = Vec::new();
        for uri in ["https://old.example/1", "https://old.example/2"] {
            let uri = Some(uri.as_bytes());
            let agent = world.chain.register_for(world.stranger(), uri).await;
            agents.push(agent.unwrap());
        }
        // The legacy controller left an agent to the bank, and the thief asks for it first.
        let (legacy, contested) = (&agents[0], &agents[1]);
        world.offer(0, &bank, "legacy").await;
        let status = Patch::Merge(json!({ "status": { "agentId": legacy } }));
        let offers = world.objects().offers(&bank);
        eventually("the legacy status is written", OTHERS, async || {
            let parameters = PatchParams::default();
            offers.patch_status("legacy", &parameters, &status).await
        })
        .await;
        let registry = world.registry(0).await;
        world.wait_offer(&bank, "legacy", "AdoptionRequired").await;
        world
            .offer_with(0, &thief, "legacy", json!({ "agentId": legacy }))
            .await;
        let message = world.wait_offer(&thief, "legacy", "AdoptionConflict").await;
        for name in [&bank, &thief] {
            assert!(message.contains(name.as_str()), "both offers: {message}");
        }
        let adopt = json!({ "spec": { "registration": { "agentId": legacy } } });
        world.objects().patch_offer(&bank, "legacy", adopt).await;
        let found = world
            .objects()
            .wait_registered(&bank, "legacy", SHOWN)
            .await;
        assert_eq!(found, *legacy);

        // Nothing shows whose the other one is, until the admin says it.
        let decision = json!([{ "agentId": contested, "namespace": bank }]);
        let decision = json!({ "spec": { "adoptions": decision } });
        world
            .objects()
            .patch_registry(&registry.name, decision)
            .await;
        let observed = world
            .objects()
            .wait_registry_observed(&registry.name, OTHERS);
        observed.await;
        let adopt = json!({ "agentId": contested });
        world
            .offer_with(0, &thief, "contested", adopt.clone())
            .await;
        throughout(
            "the thief has no agent",
            Duration::from_secs(8),
            async || {
                let (reason, message) = world.read_offer(&thief, "contested").await?;
                ensure!(reason != "Registered", "{message}");
                anyhow::Ok(())
            },
        )
        .await;
        let (reason, message) = world.read_offer(&thief, "contested").await.unwrap();
        assert!(
            ["AdoptionConflict", "AdoptionRefused"].contains(&reason.as_str()),
            "{reason}: {message}"
        );
        world.offer_with(0, &bank, "contested", adopt).await;
        assert_eq!(world.wait_other(&bank, "contested").await, *contested);
        world.assert_minted(registry.owner(), 0).await;
    });
}

/// Creates the CRD of a kind of the legacy controller, without a schema.
async fn define(world: &World, kind: &str, plural: &str) {
    let kind = GroupVersionKind::gvk("obol.org", "v1alpha1", kind);
    let kind = ApiResource::from_gvk_with_plural(&kind, plural);
    create_lax(&world.env.cluster.client(), &kind).await;
}

/// Creates an object of a kind of the legacy controller, as soon as the kind is served.
async fn create_legacy(world: &World, kind: &str, plural: &str, mut manifest: Value) {
    let kind = GroupVersionKind::gvk("obol.org", "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    manifest["apiVersion"] = json!("obol.org/v1alpha1");
    manifest["kind"] = json!(resource.kind);
    let object: DynamicObject = serde_json::from_value(manifest).unwrap();
    let namespace = object.metadata.namespace.clone().unwrap();
    let client = world.env.cluster.client();
    let objects = Api::<DynamicObject>::namespaced_with(client, &namespace, &resource);
    eventually("the legacy object is created", OTHERS, async || {
        let created = objects.create(&PostParams::default(), &object).await;
        created.map(drop).map_err(|error| anyhow!("{error}"))
    })
    .await;
}

#[test]
fn id_of_no_agent_is_refused_by_its_number() {
    World::run("noagent", async |world| {
        world.registry(0).await;
        let shop = world.namespace("shop").await;
        let id = (U256::MAX - U256::from(1)).to_string();
        world
            .offer_with(0, &shop, "a", json!({ "agentId": id }))
            .await;
        let message = world.wait_offer(&shop, "a", "AdoptionRefused").await;
        assert!(message.contains(&id), "{message}");
    });
}
