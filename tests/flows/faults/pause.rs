//! The leader is stopped past the end of its lease, and goes on when another leads.

use std::time::Duration;

use testbed::Signal;

use super::campaign::Campaign;
use super::candidate::SHORT_LEASE;

/// How often, unless `STOPS` says otherwise.
const STOPS: usize = 12;

#[test]
fn a_leader_that_is_frozen_past_its_lease_does_nothing_when_it_thaws() {
    let stops = std::env::var("STOPS")
        .ok()
        .and_then(|stops| stops.parse().ok())
        .unwrap_or(STOPS);
    Campaign::run(
        "frozen past the lease (SIGSTOP)",
        SHORT_LEASE,
        async |campaign| {
            for stop in 0..stops {
                match stop % 2 {
                    0 => campaign.sleep_up_to(Duration::from_millis(1500)).await,
                    _ => campaign.wait_under_load().await,
                }
                pause(campaign).await;
            }
        },
    );
}

/// Freezes the leader, waits for the next one, and lets the first one thaw.
pub async fn pause(campaign: &mut Campaign) -> f64 {
    let leader = campaign.wait_for_leader().await;
    let stopped = campaign.record_fault();
    campaign.group.kill(&leader, Signal::Stop);
    let (_, taken) = campaign.wait_for_successor(&leader, stopped).await;
    campaign.sleep_up_to(Duration::from_millis(500)).await;
    campaign.group.kill(&leader, Signal::Cont);
    assert_eq!(
        campaign.wait_for_exit(&leader).await,
        Some(1),
        "a leader that sees another one ends"
    );
    let waited = campaign.since_last_renewal(&leader, taken);
    assert!(
        waited >= 3.0 / 1.05,
        "the lease was taken over {waited} s after it was renewed"
    );
    waited
}
