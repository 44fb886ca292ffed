//! The Lease is deleted, and edited by hand.

use std::time::Duration;

use election::campaign::verdict::Allowance;
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::Signal;

use super::blackhole::Blackhole;
use super::campaign::{Campaign, LeaseRights};
use super::candidate::{CandidateOptions, LEASE, SHORT_LEASE};
use crate::objects::{delete, patch};

const DELETIONS: usize = 6;
const CUTS: usize = 4;

#[test]
fn a_lease_that_is_deleted_is_made_anew_and_nobody_acts_in_between() {
    Campaign::run("Lease deleted", SHORT_LEASE, async |campaign| {
        for _ in 0..DELETIONS {
            campaign.wait_for_leader().await;
            campaign.sleep_up_to(Duration::from_millis(1500)).await;
            let deleted = campaign.record_fault();
            delete(&campaign.leases(), LEASE).await;
            campaign.wait_for_leader_since(deleted).await;
        }
    });
}

#[test]
fn a_lease_that_is_deleted_under_a_leader_that_is_cut_off_is_waited_for_as_if_it_stood() {
    Campaign::run(
        "Lease deleted, leader in a black hole",
        SHORT_LEASE,
        async |campaign| {
            campaign.allowance = Allowance::HeldUp;
            for _ in 0..CUTS {
                let leader = campaign.wait_for_leader().await;
                campaign.wait_under_load().await;
                let cut = campaign.record_fault();
                let blackhole = campaign
                    .group
                    .with(&leader, |candidate| Blackhole::open(candidate.address))
                    .unwrap();
                campaign.sleep_up_to(Duration::from_millis(1000)).await;
                delete(&campaign.leases(), LEASE).await;
                let (_, taken) = campaign.wait_for_successor(&leader, cut).await;
                let waited = campaign.since_last_renewal(&leader, taken);
                assert!(
                    waited >= 3.0,
                    "the lease was made anew {waited} s after it was renewed"
                );
                campaign.sleep_up_to(Duration::from_secs(1)).await;
                drop(blackhole);
                // It ends or follows, by whether it first hears of the deletion or of the other leader.
                tokio::time::sleep(SHORT_LEASE.duration).await;
            }
        },
    );
}

#[test]
fn a_candidate_that_finds_no_lease_does_not_act_before_a_leader_that_is_marked_has_ended() {
    let fault = "Lease deleted, black hole, newcomer";
    Campaign::run_with(
        fault,
        SHORT_LEASE,
        LeaseRights::Full,
        None,
        async |campaign| {
            campaign.allowance = Allowance::HeldUp;
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
                delete(&campaign.leases(), LEASE).await;
                let newcomer = campaign.group.add(pod()).await;
                let (next, _) = campaign.wait_for_successor(&leader, cut).await;
                assert_eq!(next, newcomer);
                let waited = campaign
                    .since_last_renewal(&leader, campaign.wait_until_acting(&newcomer).await);
                assert!(
                    waited >= 3.0,
                    "it wait_until_acting {waited} s after the lease that was deleted was renewed"
                );
                campaign.group.kill(&leader, Signal::Kill);
                drop(blackhole);
                leader = newcomer;
            }
        },
    );
}

#[test]
fn a_leader_whose_record_is_changed_by_hand_ends_before_another_begins() {
    let edits = [
        json!({ "holderIdentity": "somebody-else", "leaseDurationSeconds": 2 }),
        json!({ "leaseDurationSeconds": 1 }),
        json!({ "acquireTime": "2001-01-01T00:00:00.000000Z" }),
    ];
    Campaign::run(
        "Lease edited: holder, duration, acquired",
        SHORT_LEASE,
        async |campaign| {
            for edit in edits.iter().cycle().take(2 * edits.len()) {
                let leader = campaign.wait_for_leader().await;
                campaign.sleep_up_to(Duration::from_millis(1500)).await;
                let edited = campaign.record_fault();
                edit_lease(campaign, json!({ "spec": edit })).await;
                assert_eq!(
                    campaign.wait_for_exit(&leader).await,
                    Some(1),
                    "{edit}: that is not its record any more"
                );
                campaign.wait_for_successor(&leader, edited).await;
            }
        },
    );
}

#[test]
fn a_leader_goes_on_whatever_time_and_labels_the_lease_is_given() {
    Campaign::run(
        "Lease edited: renewed, labels",
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

            // New labels and new versions do not keep a dead leader's lease alive.
            let killed = campaign.record_fault();
            campaign.group.kill(&leader, Signal::Kill);
            let (followed, ()) = tokio::join!(
                campaign.wait_for_successor(&leader, killed),
                churn(campaign, 2 * SHORT_LEASE.duration)
            );
            let waited = campaign.since_last_renewal(&leader, followed.1);
            assert!(
                (3.0..3.5).contains(&waited),
                "the lease was taken over {waited} s after it was renewed"
            );
        },
    );
}

async fn edit_lease(campaign: &Campaign, change: Value) {
    patch(&campaign.leases(), LEASE, change).await;
}

/// Changes a label of the Lease all the time.
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
