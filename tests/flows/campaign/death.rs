//! The leader dies, or is asked to end.

use std::time::Duration;

use testbed::Signal;

use super::contender::SHORT;
use super::ground::Ground;

const DEATHS: usize = 6;

#[test]
fn a_leader_that_is_killed_is_followed_once_its_lease_has_run_out() {
    Ground::campaign("killed (SIGKILL)", SHORT, async |ground| {
        for _ in 0..DEATHS {
            let waited = kill(ground).await;
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );
        }
    });
}

#[test]
fn a_leader_that_is_asked_to_end_finishes_its_work_before_another_begins() {
    Ground::campaign("asked to end (SIGTERM)", SHORT, async |ground| {
        for _ in 0..DEATHS {
            end(ground).await;
        }
    });
}

/// Kills the leader at a random moment. Answers with how long after its last renewal it was followed.
pub async fn kill(ground: &mut Ground) -> f64 {
    let leader = ground.leader().await;
    ground.moment(Duration::from_millis(1500)).await;
    let killed = ground.inject();
    ground.group.kill(&leader, Signal::Kill);
    let (_, taken) = ground.successor(&leader, killed).await;
    ground.waited(&leader, taken)
}

/// Asks the leader to end at a random moment.
pub async fn end(ground: &mut Ground) {
    let leader = ground.leader().await;
    ground.moment(Duration::from_millis(1500)).await;
    let asked = ground.inject();
    ground.group.kill(&leader, Signal::Term);
    ground.successor(&leader, asked).await;
    assert_eq!(
        ground.exit_code(&leader).await,
        Some(0),
        "it ended in good order"
    );
}
