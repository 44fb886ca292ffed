//! Private keys in the forms in which people store them.

use alloy::primitives::{Address, U256, address, hex};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

use super::{OTHERS, World};
use harness::objects::create;

/// Key and account of the test vectors of the Web3 Secret Storage definition.
const KEY: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
const ACCOUNT: Address = address!("008aeeda4d805471df9b2a5b0f38a0c3bcba786b");

/// A keystore of geth with an empty password, and its account.
const GETH: Address = address!("45dea0fb0bba44f4fcf290bba71fd57d7117cbb8");

fn keystore() -> Value {
    json!({
        "address": "45dea0fb0bba44f4fcf290bba71fd57d7117cbb8",
        "crypto": {
            "cipher": "aes-128-ctr",
            "ciphertext": "b87781948a1befd247bff51ef4063f716cf6c2d3481163e9a8f42e1f9bb74145",
            "cipherparams": { "iv": "dc4926b48a105133d2f16b96833abf1e" },
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32, "n": 2, "p": 1, "r": 8,
                "salt": "004244bbdc51cadda545b1cfa43cff9ed2ae88e08c61f1479dbb45410722f8f0"
            },
            "mac": "39990c1684557447940d4c69e06b1b82b2aceacb43f284df65c956daf3046b85"
        },
        "id": "ce541d8d-c79b-40f8-9f8c-20f59616faba",
        "version": 3
    })
}

impl World {
    /// Creates a Secret of any bytes under the key `key`, and returns how a signer names it.
    async fn key_secret(&self, name: &str, bytes: &[u8]) -> Value {
        let name = format!("{}-{name}", self.case);
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.clone());
        secret.data = Some([("key".to_owned(), ByteString(bytes.to_vec()))].into());
        let client = self.env.cluster.client();
        let secrets = Api::<Secret>::namespaced(client, super::NAMESPACE);
        create(&secrets, &secret).await.unwrap();
        json!({ "name": name, "key": "key" })
    }

    /// Creates the first registry for that account, which is funded.
    async fn registry_of(&self, account: Address, secret: Value, password: Option<Value>) {
        let funds = json!([account, U256::from(10).pow(U256::from(18))]);
        self.chain.rpc("anvil_setBalance", funds).await.unwrap();
        let proxy = self.proxy().await;
        let mut manifest = self.manifest(0, &[&proxy]).await;
        let mut signer = json!({ "address": account, "secretRef": secret });
        if let Some(password) = password {
            signer["passwordSecretRef"] = password;
        }
        manifest["spec"]["signers"] = json!([signer]);
        self.objects().create_registry(manifest).await;
    }
}

#[test]
fn json_keystore_is_opened_and_registers() {
    World::run("keystore", async |world| {
        let text = keystore().to_string();
        let secret = world.key_secret("key", text.as_bytes()).await;
        world.registry_of(GETH, secret.clone(), None).await;
        let message = world.wait_registry(0, "KeyUnreadable").await;
        assert!(message.contains("set passwordSecretRef"), "{message}");

        let password = world.key_secret("password", b"\n").await;
        let signer = json!({
            "address": GETH, "secretRef": secret, "passwordSecretRef": password,
        });
        let change = json!({ "spec": { "signers": [signer] } });
        world.objects().patch_registry(&world.name(0), change).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "chat").await;
        world.wait_other(&shop, "chat").await;
        world.assert_minted(GETH, 1).await;
    });
}

#[test]
fn keystore_that_takes_too_much_memory_is_refused_by_name() {
    World::run("costly", async |world| {
        let mut costly = keystore();
        costly["crypto"]["kdfparams"]["n"] = json!(262_144);
        let text = costly.to_string();
        let secret = world.key_secret("key", text.as_bytes()).await;
        let password = world.key_secret("password", b"\n").await;
        world.registry_of(GETH, secret, Some(password)).await;
        let message = world.wait_registry(0, "KeyUnreadable").await;
        let says = |word: &str| message.contains(word);
        assert!(says("256 MiB") && says("--lightkdf"), "{message}");
        world.assert_no_crash().await;
    });
}

#[test]
fn key_is_read_however_it_was_saved() {
    World::run("saved", async |world| {
        let windows = format!("\u{feff}0X{}\r\n", KEY.to_uppercase());
        let secret = world.key_secret("windows", windows.as_bytes()).await;
        world.registry_of(ACCOUNT, secret, None).await;
        let shop = world.namespace("shop").await;
        world.offer(0, &shop, "a").await;
        world.wait_other(&shop, "a").await;

        let raw = world.key_secret("raw", &hex::decode(KEY).unwrap()).await;
        let signer = json!({ "address": ACCOUNT, "secretRef": raw });
        let change = json!({ "spec": { "signers": [signer] } });
        world.objects().patch_registry(&world.name(0), change).await;
        world.offer(0, &shop, "b").await;
        world.objects().wait_registered(&shop, "b", OTHERS).await;
        world.assert_minted(ACCOUNT, 2).await;
    });
}

#[test]
fn memory_of_the_process_cannot_be_read_by_its_user() {
    World::run("memory", async |world| {
        use std::os::unix::fs::MetadataExt;
        for pod in world.release.pods().await.unwrap() {
            let name = kube::ResourceExt::name_any(&pod);
            let pid = world.release.process(&name).await.unwrap().pid();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            let user = uid.and_then(|uids| uids.split_whitespace().next()).unwrap();
            assert_ne!(user, "0", "it does not run as root");
            let owner = std::fs::metadata(format!("/proc/{pid}/environ")).unwrap();
            assert_eq!(owner.uid(), 0, "its files belong to root");
            let metrics = world.release.metrics(&pod).await.unwrap();
            for series in ["process_open_fds", "process_resident_memory_bytes"] {
                assert!(
                    metrics.get(series).is_some_and(|value| *value > 0.0),
                    "{series}"
                );
            }
        }
    });
}
