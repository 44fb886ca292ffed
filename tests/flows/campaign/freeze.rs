//! The leader is stopped past the end of its lease, and goes on when another leads.

use std::time::Duration;

use testbed::Signal;

use super::contender::SHORT;
use super::ground::Ground;

/// How often, unless `STOPS` says otherwise.
const STOPS: usize = 12;

#[test]
fn a_leader_that_is_frozen_past_its_lease_does_nothing_when_it_thaws() {
    let stops = std::env::var("STOPS")
        .ok()
        .and_then(|stops| stops.parse().ok())
        .unwrap_or(STOPS);
    Ground::campaign("frozen past the lease (SIGSTOP)", SHORT, async |ground| {
        for stop in 0..stops {
            match stop % 2 {
                0 => ground.moment(Duration::from_millis(1500)).await,
                _ => ground.busy_moment().await,
            }
            freeze(ground).await;
        }
    });
}

/// Freezes the leader, waits for the next one, and lets the first one thaw.
pub async fn freeze(ground: &mut Ground) -> f64 {
    let leader = ground.leader().await;
    let stopped = ground.inject();
    ground.group.kill(&leader, Signal::Stop);
    let (_, taken) = ground.successor(&leader, stopped).await;
    ground.moment(Duration::from_millis(500)).await;
    ground.group.kill(&leader, Signal::Cont);
    assert_eq!(
        ground.exit_code(&leader).await,
        Some(1),
        "a leader that sees another one ends"
    );
    let waited = ground.waited(&leader, taken);
    assert!(
        waited >= 3.0 / 1.05,
        "the lease was taken over {waited} s after it was renewed"
    );
    waited
}
