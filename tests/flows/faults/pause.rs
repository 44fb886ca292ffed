//! The leader is paused past the end of its lease, and resumes while another candidate leads.

use std::time::Duration;

use testbed::Signal;

use super::campaign::Campaign;
use super::candidate::SHORT_LEASE;

/// How many times the leader is paused, unless `STOPS` is set.
const STOPS: usize = 12;

#[test]
fn leader_paused_past_its_lease_does_nothing_when_it_resumes() {
    let stops = std::env::var("STOPS")
        .ok()
        .and_then(|stops| stops.parse().ok())
        .unwrap_or(STOPS);
    Campaign::run(
        "leader paused past its lease (SIGSTOP)",
        SHORT_LEASE,
        async |campaign| {
            for stop in 0..stops {
                if stop % 2 == 0 {
                    campaign.sleep_up_to(Duration::from_millis(1500)).await;
                } else {
                    campaign.wait_under_load().await;
                }
                pause(campaign).await;
            }
        },
    );
}

/// Pauses the leader until another candidate leads, and resumes it. Returns the seconds from its
/// last renewal to the takeover.
pub async fn pause(campaign: &mut Campaign) -> f64 {
    let leader = campaign.wait_for_renewing_leader().await;
    let stopped = campaign.record_fault();
    campaign.group.kill(&leader, Signal::Stop);
    let (_, taken) = campaign.wait_for_successor(&leader, stopped).await;
    campaign.sleep_up_to(Duration::from_millis(500)).await;
    campaign.group.kill(&leader, Signal::Cont);
    assert_eq!(
        campaign.wait_for_exit(&leader).await,
        Some(1),
        "a leader exits when it sees another leader"
    );
    let waited = campaign.since_last_renewal(&leader, taken);
    assert!(
        waited >= 3.0 / 1.05,
        "the lease was taken over {waited} s after its last renewal"
    );
    waited
}
