//! The Lease is deleted, and edited by hand.

use std::time::Duration;

use election::campaign::verdict::Allowance;
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::Signal;

use super::contender::{Guise, LEASE, SHORT};
use super::ground::{Ground, Rights};
use super::hole::Hole;
use crate::objects::{delete, patch};

const DELETIONS: usize = 6;
const CUTS: usize = 4;

#[test]
fn a_lease_that_is_deleted_is_made_anew_and_nobody_acts_in_between() {
    Ground::campaign("Lease deleted", SHORT, async |ground| {
        for _ in 0..DELETIONS {
            ground.leader().await;
            ground.moment(Duration::from_millis(1500)).await;
            let deleted = ground.inject();
            delete(&ground.leases(), LEASE).await;
            ground.leader_since(deleted).await;
        }
    });
}

#[test]
fn a_lease_that_is_deleted_under_a_leader_that_is_cut_off_is_waited_for_as_if_it_stood() {
    Ground::campaign(
        "Lease deleted, leader in a black hole",
        SHORT,
        async |ground| {
            ground.allowance = Allowance::HeldUp;
            for _ in 0..CUTS {
                let leader = ground.leader().await;
                ground.busy_moment().await;
                let cut = ground.inject();
                let hole = ground
                    .group
                    .with(&leader, |contender| Hole::open(contender.wire))
                    .unwrap();
                ground.moment(Duration::from_millis(1000)).await;
                delete(&ground.leases(), LEASE).await;
                let (_, taken) = ground.successor(&leader, cut).await;
                let waited = ground.waited(&leader, taken);
                assert!(
                    waited >= 3.0,
                    "the lease was made anew {waited} s after it was renewed"
                );
                ground.moment(Duration::from_secs(1)).await;
                drop(hole);
                // It ends or follows, by whether it first hears of the deletion or of the other leader.
                tokio::time::sleep(SHORT.duration).await;
            }
        },
    );
}

#[test]
fn a_candidate_that_finds_no_lease_does_not_act_before_a_leader_that_is_marked_has_ended() {
    let fault = "Lease deleted, black hole, newcomer";
    Ground::campaign_of(fault, SHORT, Rights::All, None, async |ground| {
        ground.allowance = Allowance::HeldUp;
        let pod = || Guise {
            pod: true,
            ..Guise::default()
        };
        let mut leader = ground.group.add(pod()).await;
        for _ in 0..CUTS {
            ground.leader_since(Timestamp::now()).await;
            ground.busy_moment().await;
            let cut = ground.inject();
            let hole = ground
                .group
                .with(&leader, |contender| Hole::open(contender.wire))
                .unwrap();
            delete(&ground.leases(), LEASE).await;
            let newcomer = ground.group.add(pod()).await;
            let (next, _) = ground.successor(&leader, cut).await;
            assert_eq!(next, newcomer);
            let waited = ground.waited(&leader, ground.acted(&newcomer).await);
            assert!(
                waited >= 3.0,
                "it acted {waited} s after the lease that was deleted was renewed"
            );
            ground.group.kill(&leader, Signal::Kill);
            drop(hole);
            leader = newcomer;
        }
    });
}

#[test]
fn a_leader_whose_record_is_changed_by_hand_ends_before_another_begins() {
    let edits = [
        json!({ "holderIdentity": "somebody-else", "leaseDurationSeconds": 2 }),
        json!({ "leaseDurationSeconds": 1 }),
        json!({ "acquireTime": "2001-01-01T00:00:00.000000Z" }),
    ];
    Ground::campaign(
        "Lease edited: holder, duration, acquired",
        SHORT,
        async |ground| {
            for edit in edits.iter().cycle().take(2 * edits.len()) {
                let leader = ground.leader().await;
                ground.moment(Duration::from_millis(1500)).await;
                let edited = ground.inject();
                change(ground, json!({ "spec": edit })).await;
                assert_eq!(
                    ground.exit_code(&leader).await,
                    Some(1),
                    "{edit}: that is not its record any more"
                );
                ground.successor(&leader, edited).await;
            }
        },
    );
}

#[test]
fn a_leader_goes_on_whatever_time_and_labels_the_lease_is_given() {
    Ground::campaign("Lease edited: renewed, labels", SHORT, async |ground| {
        let leader = ground.leader().await;
        let begun = Timestamp::now();
        for year in [2001, 2101, 2001] {
            ground.moment(Duration::from_millis(1500)).await;
            ground.inject();
            change(
                ground,
                json!({ "spec": { "renewTime": format!("{year}-01-01T00:00:00.000000Z") } }),
            )
            .await;
            tokio::time::sleep(2 * SHORT.duration).await;
        }
        ground.inject();
        churn(ground, 2 * SHORT.duration).await;
        assert_eq!(
            ground.leaders_since(begun).into_iter().collect::<Vec<_>>(),
            std::slice::from_ref(&leader)
        );

        // New labels and new versions do not keep a dead leader's lease alive.
        let killed = ground.inject();
        ground.group.kill(&leader, Signal::Kill);
        let (followed, ()) = tokio::join!(
            ground.successor(&leader, killed),
            churn(ground, 2 * SHORT.duration)
        );
        let waited = ground.waited(&leader, followed.1);
        assert!(
            (3.0..3.5).contains(&waited),
            "the lease was taken over {waited} s after it was renewed"
        );
    });
}

async fn change(ground: &Ground, change: Value) {
    patch(&ground.leases(), LEASE, change).await;
}

/// Changes a label of the Lease all the time.
async fn churn(ground: &Ground, duration: Duration) {
    let end = Timestamp::now() + duration;
    while Timestamp::now() < end {
        let label = Timestamp::now().as_microsecond().to_string();
        change(
            ground,
            json!({ "metadata": { "labels": { "churn": label } } }),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
