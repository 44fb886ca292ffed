//! Only the leader is cut off from the API server, and its connections are not reset.

use std::time::Duration;

use election::campaign::verdict::Allowance;

use super::blackhole::Blackhole;
use super::campaign::Campaign;
use super::candidate::SHORT_LEASE;

const TIMES: usize = 5;
/// Longer than TCP waits before it retransmits the dropped packets.
const AFTERMATH: Duration = Duration::from_secs(8);

#[test]
fn partitioned_leader_stops_acting_before_another_leads() {
    Campaign::run(
        "leader partitioned (packets dropped)",
        SHORT_LEASE,
        async |campaign| {
            campaign.allowance = Allowance::Delayed;
            for _ in 0..TIMES {
                let leader = campaign.wait_for_renewing_leader().await;
                campaign.wait_under_load().await;
                let cut = campaign.record_fault();
                let blackhole = campaign
                    .group
                    .with(&leader, |candidate| Blackhole::open(candidate.address))
                    .unwrap();
                let (_, taken) = campaign.wait_for_successor(&leader, cut).await;
                let waited = campaign.since_last_renewal(&leader, taken);
                assert!(
                    waited >= 3.0,
                    "the lease was taken over {waited} s after its last renewal"
                );
                campaign.sleep_up_to(Duration::from_secs(2)).await;
                drop(blackhole);
                assert_eq!(
                    campaign.wait_for_exit(&leader).await,
                    Some(1),
                    "a leader exits when it sees another leader"
                );
                tokio::time::sleep(AFTERMATH).await;
            }
        },
    );
}
