//! Operator and gate use exactly the rights they are granted, and show no secret that they are
//! trusted with.

use std::collections::BTreeSet;
use std::time::Duration;

use aes::Aes128;
use alloy::hex;
use alloy::primitives::keccak256;
use anyhow::{Context, Result};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use harness::chain::LocalChain;
use harness::objects::delete;
use harness::release::{LEASE, Release, printed};
use harness::wait::eventually;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{ApiResource, GroupVersionKind, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pbkdf2::pbkdf2_hmac;
use serde_json::{Value, json};
use serviceoffer::api::{LEGACY_FINALIZER, PaymentFacilitator};
use sha2::Sha256;
use testbed::AuditEntry;

use crate::definitions::create_lax;
use crate::fixture::{RELEASE, TestEnv, block_every_second};
use crate::objects::{offer, registry};

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than the operator waits before it retires an agent that no offer uses.
const RETIREMENT: Duration = Duration::from_secs(100);
/// Name of the operator's service account and of its roles.
const OPERATOR: &str = "offers-serviceoffer-controller";
/// Name of the gate's service account and of its roles.
const GATE: &str = "offers-serviceoffer-controller-gate";
const PASSWORD: &str = "correct-horse-battery-staple";
/// Opens the keystore of the signer, and does not.
const KEYSTORE_PASSWORD: &str = "incorrect-donkey-engine-paperclip";
const OTHER_PASSWORD: &str = "correct-zebra-socket-envelope";

/// API group, resource with subresource, verb.
type Right = (String, String, String);

#[test]
fn full_run_uses_exactly_its_rights_and_leaks_no_secret() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let mut audit = env.cluster.audit().unwrap();
        define_reference_grants(&env).await;
        let (chain, release) = deploy_with_password(&env).await;
        objects.create_namespace("shop", &[]).await;
        objects.create_offers(&["shop"], 2).await;
        objects.assert_all_registered(&chain, 2, LIMIT).await;
        let deleted = objects.wait_key("shop", "offer-1").await;
        objects.delete_offer("shop", "offer-1").await;

        // No facilitator answers there, which the operator reports.
        create_facilitator(&env).await;

        // The operator removes the legacy controller's finalizer, so that its offers can be
        // deleted.
        let mut legacy = offer("shop", "legacy");
        legacy["metadata"]["finalizers"] = json!([LEGACY_FINALIZER]);
        objects.create_offer(legacy).await;
        delete(&objects.offers("shop"), "legacy").await.unwrap();
        eventually("the legacy offer is gone", LIMIT, async || {
            match objects.offers("shop").get_opt("legacy").await {
                Ok(None) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;

        // The same Event twice is stored as one with a count.
        for _ in 0..2 {
            chain.anvil.pause().unwrap();
            objects
                .wait_registry_reason("local", "RpcHealthy", "RpcUnreachable", LIMIT)
                .await;
            chain.anvil.resume().unwrap();
            objects
                .wait_registry_reason("local", "Ready", "Reconciled", LIMIT)
                .await;
        }
        let what = "the agent without an offer is retired";
        eventually(what, RETIREMENT, async || -> Result<()> {
            let record = objects.records().get(&deleted.record_name()).await?;
            let tombstone = record.spec.tombstone.as_ref().map(drop);
            tombstone.with_context(|| format!("{:?}", record.spec))
        })
        .await;

        let entries = audit.read().unwrap();
        for account in [OPERATOR, GATE] {
            let user = format!("system:serviceaccount:{}:{account}", release.namespace());
            let own: Vec<&AuditEntry> = entries.iter().filter(|entry| entry.user == user).collect();
            let forbidden: Vec<_> = own.iter().filter(|entry| entry.code == 403).collect();
            assert!(forbidden.is_empty(), "{forbidden:?}");
            assert_eq!(
                without_implied(used(&own)),
                without_implied(granted(&env, &release, account).await),
                "{account} must use exactly what it is granted"
            );
        }
        let leases: BTreeSet<&str> = entries
            .iter()
            .filter(|entry| entry.resource == "leases" && entry.user.ends_with(OPERATOR))
            .map(|entry| &*entry.name)
            .collect();
        assert!(
            leases.is_subset(&["", LEASE].into()),
            "one Lease and no other: {leases:?}"
        );

        let key = &chain.private_key()[2..];
        for (source, text) in outputs(&env, &release).await {
            for secret in [key, PASSWORD, KEYSTORE_PASSWORD, OTHER_PASSWORD] {
                assert!(!text.contains(secret), "{source} shows a secret");
            }
        }
    });
}

/// A chain whose RPC URL contains a password, a signer whose key is in a keystore, and a release that
/// logs as much as it can.
async fn deploy_with_password(env: &TestEnv) -> (LocalChain, Release) {
    let values = [
        "replicaCount=2",
        "controller.logLevel=trace",
        "gate.logLevel=trace",
    ];
    let (chain, release) = env.prepare(block_every_second(), &values).await;
    let credentials = format!("http://user:{PASSWORD}@");
    let url = chain.url().replace("http://", &credentials);
    env.objects
        .create_secret(release.namespace(), "rpc", "url", &url)
        .await;
    let mut manifest = registry("local", &chain, "http://agents.example");
    manifest["spec"]["rpc"] =
        json!([{ "urlFrom": { "secretKeyRef": { "name": "rpc", "key": "url" } } }]);
    let keystore = keystore(&chain, KEYSTORE_PASSWORD).to_string();
    let secret = async |name: &str, value: &str| {
        let objects = &env.objects;
        objects
            .create_secret(release.namespace(), name, "key", value)
            .await;
        json!({ "name": name, "key": "key" })
    };
    let signer = &mut manifest["spec"]["signers"][0];
    signer["secretRef"] = secret("keystore", &keystore).await;
    signer["passwordSecretRef"] = secret("password", OTHER_PASSWORD).await;
    env.objects.create_registry(manifest).await;
    // What a password does not open is reported, too.
    env.objects
        .wait_registry_reason("local", "SignersReady", "KeyUnreadable", LIMIT)
        .await;
    secret("password", KEYSTORE_PASSWORD).await;
    (chain, release)
}

/// The key of a chain's signer in the form of Web3 Secret Storage.
fn keystore(chain: &LocalChain, password: &str) -> Value {
    const ROUNDS: u32 = 1000;
    let (salt, iv) = ([0x5a; 32], [0x1f; 16]);
    let mut derived = [0; 32];
    pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, ROUNDS, &mut derived);
    let mut encrypted = chain.signer.to_bytes().0;
    let mut cipher = Ctr128BE::<Aes128>::new_from_slices(&derived[..16], &iv).unwrap();
    cipher.apply_keystream(&mut encrypted);
    json!({
        "version": 3,
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": hex::encode(iv) },
            "ciphertext": hex::encode(encrypted),
            "kdf": "pbkdf2",
            "kdfparams": { "prf": "hmac-sha256", "c": ROUNDS, "dklen": 32, "salt": hex::encode(salt) },
            "mac": hex::encode(keccak256([&derived[16..], &encrypted].concat())),
        },
    })
}

async fn create_facilitator(env: &TestEnv) {
    let facilitator = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "PaymentFacilitator",
        "metadata": { "name": "nowhere" },
        "spec": {
            "networks": ["eip155:84532"],
            "remote": { "url": "http://nowhere.serviceoffer-system.svc" },
            "allowedNamespaces": { "from": "All" },
        },
    });
    let facilitators = Api::<PaymentFacilitator>::all(env.cluster.client());
    eventually("the facilitator is applied", LIMIT, async || {
        let document = Patch::Apply(&facilitator);
        let parameters = PatchParams::apply("rights");
        facilitators.patch("nowhere", &parameters, &document).await
    })
    .await;
    eventually(
        "the facilitator has a status",
        LIMIT,
        async || -> Result<()> {
            let facilitator = facilitators.get("nowhere").await?;
            facilitator.status.map(drop).context("no status yet")
        },
    )
    .await;
}

fn used(entries: &[&AuditEntry]) -> BTreeSet<Right> {
    let resources = entries.iter().filter(|entry| !entry.resource.is_empty());
    resources
        .map(|entry| {
            let resource = match entry.subresource.as_str() {
                "" => entry.resource.clone(),
                subresource => format!("{}/{subresource}", entry.resource),
            };
            (entry.group.clone(), resource, entry.verb.clone())
        })
        .collect()
}

/// Lists show all that `get` shows, so that `get` beside `list` is no further right.
fn without_implied(rights: BTreeSet<Right>) -> BTreeSet<Right> {
    let is_implied = |(group, resource, verb): &Right| {
        let list = (group.clone(), resource.clone(), "list".to_owned());
        verb == "get" && rights.contains(&list)
    };
    let kept = rights.iter().filter(|right| !is_implied(right));
    kept.cloned().collect()
}

/// No right of the gate changes anything or reads a Secret, whether it is used or not.
#[test]
fn gate_is_granted_nothing_but_reading() {
    TestEnv::run(async |env| {
        let release = env.install(&["gate.enabled=true"]).await;
        for (group, resource, verb) in granted(&env, &release, GATE).await {
            let right = format!("{verb} {resource} of group {group:?}");
            assert!(["get", "list", "watch"].contains(&&*verb), "{right}");
            assert_ne!(resource, "secrets", "{right}");
        }
    });
}

/// The kind by which a namespace lets offers of others use its Services. It belongs to the Gateway
/// API, which no cluster needs to have.
async fn define_reference_grants(env: &TestEnv) {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant");
    let kind = ApiResource::from_gvk(&kind);
    create_lax(&env.cluster.client(), &kind).await;
}

async fn granted(env: &TestEnv, release: &Release, account: &str) -> BTreeSet<Right> {
    let cluster = Api::<ClusterRole>::all(env.cluster.client());
    let own = Api::<Role>::namespaced(env.cluster.client(), release.namespace());
    let (cluster, own) = eventually("the roles are read", LIMIT, async || {
        Ok::<_, kube::Error>((cluster.get(account).await?, own.get_opt(account).await?))
    })
    .await;
    let own = own.and_then(|role| role.rules);
    let rules = cluster.rules.into_iter().chain(own).flatten();
    rules.flat_map(rights).collect()
}

fn rights(rule: PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(
                rule.verbs
                    .iter()
                    .map(|verb| (group.clone(), resource.clone(), verb.clone())),
            );
        }
    }
    rights
}

/// Everything that people and programs see of operator and gate, apart from the Secrets themselves.
async fn outputs(env: &TestEnv, release: &Release) -> Vec<(String, String)> {
    let mut outputs = Vec::new();
    let mut pods = release.wait_ready(2, LIMIT).await.unwrap();
    pods.push(release.wait_gate(LIMIT).await.unwrap());
    for pod in pods {
        let name = pod.name_any();
        let log = release.log(&name).await.unwrap();
        outputs.push((format!("the log of {name}"), log));
        let metrics = release.admin(&pod, "/metrics").await.unwrap();
        outputs.push((format!("/metrics of {name}"), metrics));
    }
    let kinds = "events,pods,deployments,configmaps,serviceoffers,identityregistries,paymentfacilitators,agentregistrations,signerledgers";
    for arguments in [
        vec!["get", kinds, "--all-namespaces", "--output", "yaml"],
        vec!["describe", "identityregistries"],
    ] {
        let output = env.cluster.kubectl(&arguments).output().await.unwrap();
        let text = printed(&output);
        assert!(output.status.success(), "kubectl {arguments:?}: {text}");
        outputs.push((format!("kubectl {}", arguments[0]), text));
    }
    let installed = release.run_helm(&["get", "all", RELEASE], &[]).await;
    outputs.push(("helm get all".to_owned(), installed.unwrap()));
    assert!(
        outputs.iter().all(|(_, text)| text.len() > 500),
        "every output must have text to search"
    );
    outputs
}
