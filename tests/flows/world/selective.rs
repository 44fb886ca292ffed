//! Kinds of objects that were restored without the others, or without their status, as backup tools
//! do it: what was lost is noticed and stops the signer, and else it continues.
//!
//! Each registry is one case. They share the moment at which the operator is stopped and objects are
//! replaced.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use harness::objects::{create, delete};
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Resource, ResourceExt};
use rpc_proxy::{Methods, Rule};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serviceoffer::api::{AgentRegistration, IdentityRegistry, ServiceOffer, SignerLedger};

use super::{ProxiedRegistry, SHOWN, World, delete_protected};

/// How long nothing may be sent by a registry that stopped.
const QUIET: Duration = Duration::from_secs(15);
/// Uid of another cluster's `kube-system`.
const OTHER_CLUSTER: &str = "11111111-2222-3333-4444-555555555555";

/// Records of a time before a nonce was given to one of them.
const RECORDS_UNBEGUN: usize = 0;
/// Records of a time when one of them was in flight. That its nonce has no entry looks the same as
/// if the ledger were the older one.
const RECORDS_IN_FLIGHT: usize = 1;
/// Records of a time before one that is in flight.
const RECORDS_MISSING: usize = 2;
/// A ledger of a time when a registration was in flight; the registry still names the one before.
const LEDGER_REPLACED: usize = 3;
/// The same, and the registry has lost its status.
const LEDGER_IN_FLIGHT: usize = 4;
/// Everything, without status.
const NO_STATUS: usize = 5;
/// The same, in another cluster.
const OTHER_UID: usize = 6;

/// Registries whose second registration was final when something older was restored.
const FINISHED: [usize; 4] = [
    RECORDS_UNBEGUN,
    RECORDS_IN_FLIGHT,
    LEDGER_REPLACED,
    LEDGER_IN_FLIGHT,
];
/// Registries that have everything that they need, in their objects or on the chain.
const CONTINUES: [usize; 4] = [
    RECORDS_UNBEGUN,
    RECORDS_MISSING,
    LEDGER_IN_FLIGHT,
    NO_STATUS,
];

/// A registry whose offers have a namespace of their own: `done`, and `late`, whose registration
/// was under way at the time of the backup.
struct Shop {
    registry: ProxiedRegistry,
    namespace: String,
    /// Agent of `done`.
    agent: String,
    backup: Backup,
}

/// What a backup has of one registry.
struct Backup {
    registry: IdentityRegistry,
    ledger: SignerLedger,
    records: Vec<AgentRegistration>,
    offers: Vec<ServiceOffer>,
}

impl World {
    /// Creates a registry for each case, and takes its backup.
    async fn shops(&self) -> Vec<Shop> {
        let mut begun = Vec::new();
        for nth in 0..=OTHER_UID {
            let namespace = self.namespace(&format!("shop-{nth}")).await;
            begun.push((self.registry(nth).await, namespace));
            self.offer(nth, &begun[nth].1, "done").await;
        }
        let mut shops = Vec::new();
        for (nth, (registry, namespace)) in begun.into_iter().enumerate() {
            let agent = self.wait_other(&namespace, "done").await;
            registry.proxy.add(Rule::swallow());
            if nth == RECORDS_UNBEGUN {
                self.suspend(&registry, "Spending").await;
            }
            self.offer(nth, &namespace, "late").await;
            if nth == RECORDS_UNBEGUN {
                self.objects().wait_key(&namespace, "late").await;
            } else {
                self.wait_signed(&namespace, "late").await;
            }
            let backup = self.back_up(nth, &namespace).await;
            shops.push(Shop {
                registry,
                namespace,
                agent,
                backup,
            });
        }
        shops
    }

    async fn suspend(&self, registry: &ProxiedRegistry, suspend: &str) {
        let change = json!({ "spec": { "suspend": suspend } });
        self.objects().patch_registry(&registry.name, change).await;
    }

    /// Everything that belongs to the nth registry and a namespace of its own.
    async fn back_up(&self, nth: usize, namespace: &str) -> Backup {
        let objects = self.objects();
        let (registries, ledgers) = (objects.registries(), objects.ledgers());
        let offers = objects.offers(namespace).list(&ListParams::default()).await;
        Backup {
            registry: registries.get(&self.name(nth)).await.unwrap(),
            ledger: ledgers.get(&self.ledger_name(nth)).await.unwrap(),
            records: self.records_of(nth).await,
            offers: offers.unwrap().items,
        }
    }

    /// Records of the nth signer.
    async fn records_of(&self, nth: usize) -> Vec<AgentRegistration> {
        let owner = self.signer(nth).address();
        let records = self.objects().records().list(&ListParams::default()).await;
        let mut records = records.unwrap().items;
        records.retain(|record| record.spec.signer == Some(owner));
        records
    }

    async fn restore_ledger(&self, backup: &Backup) {
        let ledgers = self.objects().ledgers();
        delete_protected(&ledgers, &backup.ledger.name_any()).await;
        create_again(&ledgers, &backup.ledger).await;
    }

    /// Deletes the records of the nth signer, and creates those of its backup.
    async fn restore_records(&self, nth: usize, backup: &Backup) {
        let records = self.objects().records();
        for record in self.records_of(nth).await {
            delete_protected(&records, &record.name_any()).await;
        }
        for record in &backup.records {
            create_again(&records, record).await;
        }
    }

    async fn restore_registry(&self, backup: &Backup) {
        let registries = self.objects().registries();
        delete(&registries, &backup.registry.name_any())
            .await
            .unwrap();
        create_again(&registries, &backup.registry).await;
    }

    async fn restore_all(&self, nth: usize, shop: &Shop) {
        let offers = self.objects().offers(&shop.namespace);
        for offer in &shop.backup.offers {
            delete(&offers, &offer.name_any()).await.unwrap();
        }
        self.restore_ledger(&shop.backup).await;
        self.restore_records(nth, &shop.backup).await;
        self.restore_registry(&shop.backup).await;
        for offer in &shop.backup.offers {
            create_again(&offers, offer).await;
        }
    }
}

/// Creates an object as a backup has it: with another uid, and without status, which the API server
/// drops.
async fn create_again<K>(api: &Api<K>, backup: &K)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let mut object = backup.clone();
    *object.meta_mut() = ObjectMeta {
        name: backup.meta().name.clone(),
        namespace: backup.meta().namespace.clone(),
        ..ObjectMeta::default()
    };
    create(api, &object).await.unwrap();
}

#[test]
fn partial_restore_continues_or_says_what_was_lost() {
    World::run_alone("selective", async |world| {
        let mut shops = world.shops().await;
        world
            .suspend(&shops[RECORDS_UNBEGUN].registry, "None")
            .await;
        for nth in FINISHED {
            shops[nth].registry.proxy.clear();
        }
        for nth in FINISHED {
            world.wait_other(&shops[nth].namespace, "late").await;
            world.settled_ledger(nth).await;
        }

        world.stop().await;
        let without = &mut shops[RECORDS_MISSING].backup.records;
        without.retain(|record| record.spec.result.is_some());
        for nth in [RECORDS_UNBEGUN, RECORDS_IN_FLIGHT, RECORDS_MISSING] {
            world.restore_records(nth, &shops[nth].backup).await;
        }
        for nth in [LEDGER_REPLACED, LEDGER_IN_FLIGHT] {
            world.restore_ledger(&shops[nth].backup).await;
        }
        let without_status = &shops[LEDGER_IN_FLIGHT].backup;
        world.restore_registry(without_status).await;
        shops[OTHER_UID].backup.ledger.spec.cluster_uid = OTHER_CLUSTER.into();
        for nth in [NO_STATUS, OTHER_UID] {
            world.restore_all(nth, &shops[nth]).await;
        }
        let start = Instant::now();
        for shop in &shops {
            shop.registry.proxy.clear();
            // Else the agent may be adopted before its nonce is looked at.
            let refuse = Rule::http(Methods::all(), 503, "Service Unavailable");
            shop.registry.proxy.add(refuse);
        }
        world.start().await;
        world.wait_quarantine(RECORDS_IN_FLIGHT).await;
        for (nth, shop) in shops.iter().enumerate() {
            shop.registry.proxy.clear();
            world.offer(nth, &shop.namespace, "new").await;
        }

        world.assert_quarantined(RECORDS_IN_FLIGHT).await;
        for (nth, reason, remedy) in [
            (LEDGER_REPLACED, "LedgerLost", "Restore etcd"),
            (OTHER_UID, "LedgerCloned", "set spec.bootstrap"),
        ] {
            let message = world.wait_registry(nth, reason).await;
            assert!(message.contains(remedy), "what to do: {message}");
        }
        for nth in CONTINUES {
            let shop = &shops[nth];
            for name in ["done", "late", "new"] {
                let objects = world.objects();
                objects.wait_registered(&shop.namespace, name, SHOWN).await;
            }
            world.wait_ready(nth).await;
            let agent = world.wait_other(&shop.namespace, "done").await;
            assert_eq!(agent, shop.agent);
            world.assert_minted(shop.registry.owner(), 3).await;
        }
        let stopped = [(RECORDS_IN_FLIGHT, 2), (LEDGER_REPLACED, 2), (OTHER_UID, 1)];
        tokio::time::sleep(QUIET).await;
        for (nth, minted) in stopped {
            let ProxiedRegistry { proxy, .. } = &shops[nth].registry;
            let calls = proxy.calls_since(start);
            assert_eq!(calls.of("eth_sendRawTransaction"), 0, "registry {nth}");
            world
                .assert_minted(shops[nth].registry.owner(), minted)
                .await;
        }
    });
}
