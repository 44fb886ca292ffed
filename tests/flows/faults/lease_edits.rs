//! The Lease is deleted, or edited by hand.

use std::time::Duration;

use election::campaign::verdict::Allowance;
use harness::objects::{delete, patch};
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::Signal;

use super::blackhole::Blackhole;
use super::campaign::{Campaign, LeasePermissions};
use super::candidate::{CandidateOptions, LEASE, SHORT_LEASE};

const DELETIONS: usize = 6;
const CUTS: usize = 4;

#[test]
fn deleted_lease_is_recreated_and_no_candidate_acts_in_between() {
    Campaign::run("Lease deleted", SHORT_LEASE, async |campaign| {
        for _ in 0..DELETIONS {
            campaign.wait_for_leader().await;
            campaign.sleep_up_to(Duration::from_millis(1500)).await;
            campaign.record_fault();
            delete(&campaign.leases(), LEASE).await.unwrap();
            // A renewal may arrive right before the deletion; the leader to wait for holds the
            // recreated Lease.
            campaign.wait_for_leader_since(Timestamp::now()).await;
        }
    });
}

#[test]
fn deleted_lease_of_a_partitioned_leader_is_waited_out() {
    Campaign::run(
        "Lease deleted, leader partitioned",
        SHORT_LEASE,
        async |campaign| {
            campaign.allowance = Allowance::Delayed;
            for _ in 0..CUTS {
                let leader = campaign.wait_for_leader().await;
                campaign.wait_under_load().await;
                let cut = campaign.record_fault();
                let blackhole = campaign
                    .group
                    .with(&leader, |candidate| Blackhole::open(candidate.address))
                    .unwrap();
                campaign.sleep_up_to(Duration::from_millis(1000)).await;
                delete(&campaign.leases(), LEASE).await.unwrap();
                let (_, taken) = campaign.wait_for_successor(&leader, cut).await;
                let waited = campaign.since_last_renewal(&leader, taken);
                assert!(
                    waited >= 3.0,
                    "the lease was recreated {waited} s after its last renewal"
                );
                campaign.sleep_up_to(Duration::from_secs(1)).await;
                drop(blackhole);
                // It exits if it sees the new leader first, and becomes a standby if it sees the
                // deletion first.
                tokio::time::sleep(SHORT_LEASE.duration).await;
            }
        },
    );
}

#[test]
fn new_candidate_without_a_lease_waits_for_the_marked_leader() {
    let fault = "Lease deleted, partition, new candidate";
    Campaign::run_with(
        fault,
        SHORT_LEASE,
        LeasePermissions::Full,
        None,
        async |campaign| {
            campaign.allowance = Allowance::Delayed;
            let pod = || CandidateOptions {
                pod: true,
                ..CandidateOptions::default()
            };
            let mut leader = campaign.group.add(pod()).await;
            for _ in 0..CUTS {
                campaign.wait_for_leader_since(Timestamp::now()).await;
                campaign.wait_under_load().await;
                let cut = campaign.record_fault();
                let blackhole = campaign
                    .group
                    .with(&leader, |candidate| Blackhole::open(candidate.address))
                    .unwrap();
                delete(&campaign.leases(), LEASE).await.unwrap();
                let newcomer = campaign.group.add(pod()).await;
                let (next, _) = campaign.wait_for_successor(&leader, cut).await;
                assert_eq!(next, newcomer);
                let waited = campaign
                    .since_last_renewal(&leader, campaign.wait_until_acting(&newcomer).await);
                assert!(
                    waited >= 3.0,
                    "it acted {waited} s after the last renewal of the deleted lease"
                );
                campaign.group.kill(&leader, Signal::Kill);
                drop(blackhole);
                leader = newcomer;
            }
        },
    );
}

#[test]
fn leader_steps_down_when_its_lease_record_is_edited() {
    let edits = [
        json!({ "holderIdentity": "another-client", "leaseDurationSeconds": 2 }),
        json!({ "leaseDurationSeconds": 1 }),
        json!({ "acquireTime": "2001-01-01T00:00:00.000000Z" }),
    ];
    Campaign::run(
        "Lease holder, duration, acquireTime edited",
        SHORT_LEASE,
        async |campaign| {
            for edit in edits.iter().cycle().take(2 * edits.len()) {
                let leader = campaign.wait_for_renewing_leader().await;
                campaign.sleep_up_to(Duration::from_millis(1500)).await;
                let edited = campaign.record_fault();
                edit_lease(campaign, json!({ "spec": edit })).await;
                assert_eq!(
                    campaign.wait_for_exit(&leader).await,
                    Some(1),
                    "{edit}: the record is no longer its own"
                );
                campaign.wait_for_successor(&leader, edited).await;
            }
        },
    );
}

#[test]
fn leader_keeps_leading_when_renew_time_or_labels_are_edited() {
    Campaign::run(
        "Lease renewTime, labels edited",
        SHORT_LEASE,
        async |campaign| {
            let leader = campaign.wait_for_leader().await;
            let begun = Timestamp::now();
            for year in [2001, 2101, 2001] {
                campaign.sleep_up_to(Duration::from_millis(1500)).await;
                campaign.record_fault();
                edit_lease(
                    campaign,
                    json!({ "spec": { "renewTime": format!("{year}-01-01T00:00:00.000000Z") } }),
                )
                .await;
                tokio::time::sleep(2 * SHORT_LEASE.duration).await;
            }
            campaign.record_fault();
            churn(campaign, 2 * SHORT_LEASE.duration).await;
            assert_eq!(
                campaign
                    .leaders_since(begun)
                    .into_iter()
                    .collect::<Vec<_>>(),
                std::slice::from_ref(&leader)
            );

            // New labels and resource versions do not extend a dead leader's lease.
            let killed = campaign.record_fault();
            campaign.group.kill(&leader, Signal::Kill);
            let (followed, ()) = tokio::join!(
                campaign.wait_for_successor(&leader, killed),
                churn(campaign, 2 * SHORT_LEASE.duration)
            );
            let waited = campaign.since_last_renewal(&leader, followed.1);
            assert!(
                (3.0..3.5).contains(&waited),
                "the lease was taken over {waited} s after its last renewal"
            );
        },
    );
}

async fn edit_lease(campaign: &Campaign, change: Value) {
    patch(&campaign.leases(), LEASE, change).await.unwrap();
}

/// Changes a label of the Lease every 50 ms.
async fn churn(campaign: &Campaign, duration: Duration) {
    let end = Timestamp::now() + duration;
    while Timestamp::now() < end {
        let label = Timestamp::now().as_microsecond().to_string();
        edit_lease(
            campaign,
            json!({ "metadata": { "labels": { "churn": label } } }),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
