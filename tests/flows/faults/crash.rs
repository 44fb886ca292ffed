//! The leader dies, or is asked to end.

use std::time::Duration;

use testbed::Signal;

use super::campaign::Campaign;
use super::candidate::SHORT_LEASE;

const DEATHS: usize = 6;

#[test]
fn a_leader_that_is_killed_is_followed_once_its_lease_has_run_out() {
    Campaign::run("killed (SIGKILL)", SHORT_LEASE, async |campaign| {
        for _ in 0..DEATHS {
            let waited = kill(campaign).await;
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );
        }
    });
}

#[test]
fn a_leader_that_is_asked_to_end_finishes_its_work_before_another_begins() {
    Campaign::run("asked to end (SIGTERM)", SHORT_LEASE, async |campaign| {
        for _ in 0..DEATHS {
            terminate(campaign).await;
        }
    });
}

/// Kills the leader at a random moment. Answers with how long after its last renewal it was followed.
pub async fn kill(campaign: &mut Campaign) -> f64 {
    let leader = campaign.wait_for_leader().await;
    campaign.sleep_up_to(Duration::from_millis(1500)).await;
    let killed = campaign.record_fault();
    campaign.group.kill(&leader, Signal::Kill);
    let (_, taken) = campaign.wait_for_successor(&leader, killed).await;
    campaign.since_last_renewal(&leader, taken)
}

/// Asks the leader to end at a random moment.
pub async fn terminate(campaign: &mut Campaign) {
    let leader = campaign.wait_for_leader().await;
    campaign.sleep_up_to(Duration::from_millis(1500)).await;
    let asked = campaign.record_fault();
    campaign.group.kill(&leader, Signal::Term);
    campaign.wait_for_successor(&leader, asked).await;
    assert_eq!(
        campaign.wait_for_exit(&leader).await,
        Some(0),
        "it ended in good order"
    );
}
