//! Only the leader is cut off from the API server, and not told.

use std::time::Duration;

use election::campaign::verdict::Allowance;

use super::contender::SHORT;
use super::ground::Ground;
use super::hole::Hole;

const TIMES: usize = 5;
/// Longer than a connection waits before it sends again what was swallowed.
const AFTERMATH: Duration = Duration::from_secs(8);

#[test]
fn a_leader_that_is_cut_off_does_nothing_once_another_leads() {
    Ground::campaign("black hole before the leader", SHORT, async |ground| {
        ground.allowance = Allowance::HeldUp;
        for _ in 0..TIMES {
            let leader = ground.leader().await;
            ground.busy_moment().await;
            let cut = ground.inject();
            let hole = ground
                .group
                .with(&leader, |contender| Hole::open(contender.wire))
                .unwrap();
            let (_, taken) = ground.successor(&leader, cut).await;
            let waited = ground.waited(&leader, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );
            ground.moment(Duration::from_secs(2)).await;
            drop(hole);
            assert_eq!(
                ground.exit_code(&leader).await,
                Some(1),
                "it ends when it sees another leader"
            );
            tokio::time::sleep(AFTERMATH).await;
        }
    });
}
