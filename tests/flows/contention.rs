//! Without a Lease every replica works as if it were alone; only the ledger keeps them apart.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::release::Release;
use kube::ResourceExt;
use rand::RngExt;
use rand::seq::SliceRandom;
use testbed::AuditEntry;

use crate::fixture::TestEnv;

const VALUES: [&str; 3] = [
    "replicaCount=3",
    "leaderElection.enabled=false",
    "controller.maxInFlight=1",
];
const OFFERS: usize = 40;
/// Ledger writes that every replica must have made; with fewer there was no contention.
const COMMITS: usize = 5;

#[test]
fn three_replicas_without_a_lease_register_each_offer_once() {
    TestEnv::run(async |env| {
        let mut audit = env.cluster.audit().unwrap();
        let (chain, release) = env.deploy(&VALUES).await;
        for namespace in ["one", "two"] {
            env.objects.create_namespace(namespace, &[]).await;
        }
        env.objects.create_offers(&["one", "two"], OFFERS).await;
        let kills = AtomicUsize::new(0);
        let limit = Duration::from_secs(240);
        let agents = tokio::select! {
            agents = env.objects.assert_all_registered(&chain, OFFERS, limit) => agents,
            never = kill_at_random(&release, &kills) => match never {},
        };
        assert_eq!(agents.len(), OFFERS);

        let kills = kills.load(Ordering::Relaxed);
        let mut writes: Vec<AuditEntry> = audit.read().unwrap();
        writes.retain(is_ledger_write);
        let conflicts = writes.iter().filter(|entry| entry.code == 409).count();
        let mut commits = BTreeMap::<&str, usize>::new();
        for entry in writes.iter().filter(|entry| entry.code == 200) {
            *commits.entry(&entry.pod).or_default() += 1;
        }
        println!("{kills} kills, ledger commits {commits:?}, {conflicts} conflicts");
        assert_eq!(
            commits.len(),
            3,
            "every replica must take part: {commits:?}"
        );
        assert!(
            commits.values().all(|count| *count >= COMMITS),
            "every replica must have its share: {commits:?}"
        );
        assert!(conflicts > 0, "replicas must have met on the ledger");
        assert!(kills >= 3, "replicas must have been killed");
    });
}

fn is_ledger_write(entry: &AuditEntry) -> bool {
    entry.resource == "signerledgers" && entry.verb == "update" && entry.stage == "ResponseComplete"
}

/// Kills every replica twice, in random order and at random times. After a third kill the kubelet
/// would restart it too late to take part.
async fn kill_at_random(release: &Release, kills: &AtomicUsize) -> Infallible {
    let pods = release.wait_ready(3, Duration::from_secs(60)).await;
    let pods = pods.unwrap();
    let mut victims: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    for _ in 0..2 {
        victims.shuffle(&mut rand::rng());
        for victim in &victims {
            let pause = rand::rng().random_range(2000..6000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // A container that waits to be restarted cannot be killed.
            if release.kill(victim).await.is_ok() {
                kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    std::future::pending().await
}
