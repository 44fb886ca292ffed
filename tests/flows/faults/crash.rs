//! The leader is killed, or is terminated and shuts down.

use std::time::Duration;

use testbed::Signal;

use super::campaign::Campaign;
use super::candidate::SHORT_LEASE;

const ROUNDS: usize = 6;

#[test]
fn killed_leader_is_replaced_once_its_lease_expires() {
    Campaign::run("leader killed (SIGKILL)", SHORT_LEASE, async |campaign| {
        for _ in 0..ROUNDS {
            let waited = kill(campaign).await;
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after its last renewal"
            );
        }
    });
}

#[test]
fn terminated_leader_drains_before_another_leads() {
    Campaign::run(
        "leader terminated (SIGTERM)",
        SHORT_LEASE,
        async |campaign| {
            for _ in 0..ROUNDS {
                terminate(campaign).await;
            }
        },
    );
}

/// Kills the leader at a random moment. Returns the seconds from its last renewal to the takeover.
pub async fn kill(campaign: &mut Campaign) -> f64 {
    let leader = campaign.wait_for_leader().await;
    campaign.sleep_up_to(Duration::from_millis(1500)).await;
    let killed = campaign.record_fault();
    campaign.group.kill(&leader, Signal::Kill);
    let (_, taken) = campaign.wait_for_successor(&leader, killed).await;
    campaign.since_last_renewal(&leader, taken)
}

/// Terminates the leader at a random moment.
pub async fn terminate(campaign: &mut Campaign) {
    let leader = campaign.wait_for_leader().await;
    campaign.sleep_up_to(Duration::from_millis(1500)).await;
    let asked = campaign.record_fault();
    campaign.group.kill(&leader, Signal::Term);
    campaign.wait_for_successor(&leader, asked).await;
    assert_eq!(
        campaign.wait_for_exit(&leader).await,
        Some(0),
        "the leader shut down cleanly"
    );
}
