//! Fields of an IdentityRegistry that are wrong in a way that admission cannot see. What it can see
//! is in [`crate::admission`].

use std::time::{Duration, Instant};

use alloy::primitives::{Address, Bytes, address, hex};
use alloy::providers::Provider;
use alloy::sol_types::SolValue;
use anyhow::ensure;
use futures::future::{join, join_all};
use harness::objects::read_condition;
use harness::wait::eventually;
use rpc_proxy::{Rule, Untrusted, UntrustedServer};
use serde_json::{Value, json};

use super::{NAMESPACE, World};

/// How long a registry may take to say what is wrong.
const SAID: Duration = Duration::from_secs(15);
/// A contract that is no registry.
const REVERTING: Address = address!("00000000000000000000000000000000000a0001");
/// PUSH0, PUSH0, REVERT.
const REVERT: [u8; 3] = hex!("5f5ffd");
/// Selector of `getVersion()`.
const GET_VERSION: &str = "0x0d8e6e2c";
/// The registry that is right. Its number is above those of the others.
const RIGHT: usize = 20;

/// A registry with one wrong field, and a signer of its own.
struct Case {
    manifest: Value,
    owner: Address,
    reason: &'static str,
    /// Words of the message that say what to do.
    remedy: &'static str,
    /// Transactions that the signer had sent before.
    before: u64,
}

/// Writes one letter of an address in the other case, so that its checksum does not match.
fn mistype(address: &mut Value) {
    let right: Address = serde_json::from_value(address.take()).unwrap();
    let right = right.to_checksum(None);
    let upper = right.rfind(char::is_uppercase).unwrap();
    let letter = right[upper..=upper].to_lowercase();
    *address = json!([&right[..upper], &letter, &right[upper + 1..]].concat());
}

struct Cases<'a> {
    world: &'a World,
    cases: Vec<Case>,
}

impl Cases<'_> {
    /// The signer of the next registry.
    fn next_signer(&self) -> Address {
        self.world.signer(self.cases.len()).address()
    }

    /// Adds a registry that is right but for what `spoil` does to its spec.
    async fn add(
        &mut self,
        reason: &'static str,
        remedy: &'static str,
        spoil: impl FnOnce(&mut Value),
    ) {
        let (world, nth) = (self.world, self.cases.len());
        assert!(nth < RIGHT, "there is no account for it");
        let proxy = world.proxy().await;
        let mut manifest = world.manifest(nth, &[&proxy]).await;
        spoil(&mut manifest["spec"]);
        let owner = self.next_signer();
        let before = world.chain.mined_transactions_of(owner).await.unwrap();
        self.cases.push(Case {
            manifest,
            owner,
            reason,
            remedy,
            before,
        });
    }

    async fn add_contracts(&mut self) {
        let chain = &self.world.chain;
        let (other_chain, nowhere) = (json!(chain.id + 1), json!(self.world.stranger()));
        self.add("WrongChain", "correct one of them", |spec| {
            spec["chainId"] = other_chain;
        })
        .await;
        self.add("NoContract", "correct spec.address", |spec| {
            spec["address"] = nowhere;
        })
        .await;
        self.add("InvalidAddress", "write it in lower case", |spec| {
            mistype(&mut spec["address"]);
        })
        .await;
        let code = Bytes::from_static(&REVERT);
        chain.set_code(REVERTING, &code).await.unwrap();
        self.add("NotARegistry", "Correct spec.address", |spec| {
            spec["address"] = json!(REVERTING);
        })
        .await;
        let earlier = self.world.proxy().await;
        let answer = json!(Bytes::from("1.0.0".abi_encode()));
        let rule = Rule::result("eth_call", answer);
        earlier.add(rule.when(|call| call.params[0].to_string().contains(GET_VERSION)));
        let url = self.world.url(&earlier);
        self.add("VersionNotSupported", "correct spec.address", |spec| {
            spec["rpc"][0]["url"] = json!(url);
        })
        .await;
    }

    async fn add_endpoints(&mut self, untrusted: &str) {
        let closed = format!("http://{}:9", self.world.env.cluster.node_ip());
        for url in [&closed, "http://rpc.invalid"] {
            self.add(
                "RpcUnreachable",
                "Check the endpoint and spec.rpc",
                |spec| {
                    spec["rpc"][0]["url"] = json!(url);
                },
            )
            .await;
        }
        self.add("RpcUnreachable", "must serve https", |spec| {
            let url = spec["rpc"][0]["url"].as_str().unwrap();
            spec["rpc"][0]["url"] = json!(url.replace("http://", "https://"));
        })
        .await;
        self.add("RpcUnreachable", "certificate is not trusted", |spec| {
            spec["rpc"][0]["url"] = json!(untrusted);
        })
        .await;
        self.add("EndpointUnknown", "create it", |spec| {
            let key = json!({ "name": "missing", "key": "url" });
            spec["rpc"] = json!([{ "urlFrom": { "secretKeyRef": key } }]);
        })
        .await;
        self.add("QuorumNotSupported", "Set quorum: 1", |spec| {
            let second = json!({ "url": closed });
            spec["rpc"].as_array_mut().unwrap().push(second);
            spec["quorum"] = json!(2);
        })
        .await;
    }

    async fn add_signers(&mut self) {
        let (world, chain) = (self.world, &self.world.chain);
        let other = format!("{:#x}", chain.anvil.keys()[0].to_bytes());
        for (name, key) in [("words", "correct horse"), ("other", &other)] {
            let objects = world.objects();
            objects.create_secret(NAMESPACE, name, "key", key).await;
        }
        for (secret, reason, remedy) in [
            ("missing", "SecretMissing", "create it in the namespace"),
            ("words", "KeyUnreadable", "store it as 64 hex digits"),
            ("other", "KeyMismatch", "Correct the address or the Secret"),
        ] {
            self.add(reason, remedy, |spec| {
                spec["signers"][0]["secretRef"]["name"] = json!(secret);
            })
            .await;
        }
        self.add("InvalidSignerAddress", "write it in lower case", |spec| {
            mistype(&mut spec["signers"][0]["address"]);
        })
        .await;
        let delegation = [&hex!("ef0100")[..], chain.registry.as_slice()].concat();
        for code in [&delegation[..], &REVERT] {
            let code = Bytes::copy_from_slice(code);
            let signer = self.next_signer();
            chain.set_code(signer, &code).await.unwrap();
            self.add("SignerHasCode", "Use an account without code", |_| {})
                .await;
        }
        let used = chain.register_for(self.next_signer(), Some(b"https://old.example"));
        used.await.unwrap();
        self.add("WalletUsed", "set spec.bootstrap.atNonce to 1", |_| {})
            .await;
        chain.set_balance(self.next_signer(), 0).await.unwrap();
        self.add("InsufficientFunds", "fund the signer", |_| {})
            .await;
        self.add("FeeAboveLimit", "limits.perRegistration", |spec| {
            spec["limits"]["perRegistration"] = json!("0.000000001");
        })
        .await;
    }
}

impl World {
    /// Creates a wrong registry with an offer, and waits until it says what to do.
    async fn assert_said(&self, nth: usize, case: &Case, namespace: &str) {
        let (objects, name) = (self.objects(), self.name(nth));
        objects.create_registry(case.manifest.clone()).await;
        let start = Instant::now();
        self.offer(nth, namespace, &format!("offer-{nth}")).await;
        let what = format!("{name} says {}", case.reason);
        let message = eventually(&what, SAID, async || {
            let registry = objects.registries().get(&name).await?;
            let status = registry.status.unwrap_or_default();
            let (ready, reason, message) = read_condition(&status.conditions, "Ready");
            ensure!(
                ready == "False" && reason == case.reason,
                "{ready} {reason}: {message}"
            );
            Ok(message)
        })
        .await;
        let elapsed = start.elapsed().as_secs_f64();
        println!("{} after {elapsed:.1} s: {message}", case.reason);
        assert!(message.contains(case.remedy), "what to do: {message}");
    }
}

#[test]
fn wrong_registry_says_what_to_do_and_sends_nothing() {
    World::run("input", async |world| {
        let (shop, other) = (
            world.namespace("shop").await,
            world.namespace("other").await,
        );
        let mut cases = Cases {
            world,
            cases: Vec::new(),
        };
        cases.add_contracts().await;
        let node = world.env.cluster.node_ip();
        let untrusted = UntrustedServer::start(node, Untrusted::SelfSigned);
        let untrusted = untrusted.await.unwrap();
        cases.add_endpoints(&untrusted.url()).await;
        cases.add_signers().await;
        let cases = cases.cases;

        // An address without a checksum is one all the same.
        let proxy = world.proxy().await;
        let mut right = world.manifest(RIGHT, &[&proxy]).await;
        let lower = |address: &Value| json!(address.as_str().unwrap().to_lowercase());
        let spec = &mut right["spec"];
        spec["address"] = lower(&spec["address"]);
        spec["signers"][0]["address"] = lower(&spec["signers"][0]["address"]);
        world.objects().create_registry(right).await;
        world.offer(RIGHT, &other, "before").await;
        world.wait_other(&other, "before").await;

        let all = cases.iter().enumerate();
        let all = join_all(all.map(|(nth, case)| world.assert_said(nth, case, &shop)));
        let meanwhile = async {
            world.offer(RIGHT, &other, "during").await;
            world.wait_other(&other, "during").await;
        };
        join(all, meanwhile).await;
        world.offer(RIGHT, &other, "after").await;
        world.wait_other(&other, "after").await;

        world.assert_minted(world.signer(RIGHT).address(), 3).await;
        for case in &cases {
            let sent = world.chain.provider().get_transaction_count(case.owner);
            let sent = sent.pending().await.unwrap();
            assert_eq!(sent, case.before, "{} must send nothing", case.reason);
        }
        world.assert_no_crash().await;
    });
}
