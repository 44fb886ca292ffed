//! The lease is taken away: every replica works as if it were alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::ResourceExt;
use rand::RngExt;
use rand::seq::SliceRandom;
use testbed::AuditEntry;

use crate::release::Release;
use crate::stage::Stage;

const VALUES: [&str; 3] = [
    "replicaCount=3",
    "leaderElection.enabled=false",
    "controller.maxInFlight=1",
];
const OFFERS: usize = 40;
/// Writes of the ledger that every replica must have made, so that this was a contest.
const COMMITS: usize = 5;

#[test]
fn without_a_lease_three_replicas_register_every_offer_once() {
    Stage::play(async |stage| {
        let mut audit = stage.cluster.audit().unwrap();
        let (chain, release) = stage.open(&VALUES).await;
        for namespace in ["one", "two"] {
            stage.objects.shop(namespace, &[]).await;
        }
        stage.objects.create_offers(&["one", "two"], OFFERS).await;
        let kills = AtomicUsize::new(0);
        let agents = tokio::select! {
            agents = stage.objects.all_registered(&chain, OFFERS, Duration::from_secs(240)) => agents,
            never = kill_at_random(&release, &kills) => match never {},
        };
        assert_eq!(agents.len(), OFFERS);

        let writes: Vec<AuditEntry> = audit
            .read()
            .unwrap()
            .into_iter()
            .filter(is_ledger_write)
            .collect();
        let refused = writes.iter().filter(|entry| entry.code == 409).count();
        let mut commits = BTreeMap::<&str, usize>::new();
        for entry in writes.iter().filter(|entry| entry.code == 200) {
            *commits.entry(&entry.pod).or_default() += 1;
        }
        println!(
            "{} kills, ledger commits {commits:?}, {refused} refused",
            kills.load(Ordering::Relaxed)
        );
        assert_eq!(commits.len(), 3, "every replica took part: {commits:?}");
        assert!(
            commits.values().all(|count| *count >= COMMITS),
            "every replica had its share: {commits:?}"
        );
        assert!(refused > 0, "the replicas got into each other's way");
        assert!(kills.load(Ordering::Relaxed) >= 3, "replicas were killed");
    });
}

fn is_ledger_write(entry: &AuditEntry) -> bool {
    entry.resource == "signerledgers" && entry.verb == "update" && entry.stage == "ResponseComplete"
}

/// Kills every replica twice, in random order and at random times; a third time, the kubelet would keep it away for so long
/// that it has no share in the contest.
async fn kill_at_random(release: &Release, kills: &AtomicUsize) -> std::convert::Infallible {
    let mut victims: Vec<String> = release
        .ready(3, Duration::from_secs(60))
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    for _ in 0..2 {
        victims.shuffle(&mut rand::rng());
        for victim in &victims {
            let pause = rand::rng().random_range(2000..6000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // One that waits to be started again cannot be killed.
            if release.kill(victim).await.is_ok() {
                kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    std::future::pending().await
}
