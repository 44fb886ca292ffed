//! Two Pods of one name: a node that was lost still runs the one, another node the next.

use jiff::Timestamp;
use testbed::Signal;

use super::campaign::{Campaign, LeaseRights};
use super::candidate::{CandidateOptions, SHORT_LEASE};

#[test]
fn a_namesake_is_a_stranger() {
    Campaign::run_with(
        "same POD_NAME, other POD_UID",
        SHORT_LEASE,
        LeaseRights::Full,
        None,
        async |campaign| {
            let twin = || CandidateOptions {
                identity: Some("twin".into()),
                ..CandidateOptions::default()
            };
            let first = campaign.group.add(twin()).await;
            assert_eq!(campaign.wait_for_leader().await, first);
            let begun = campaign.record_fault();
            let second = campaign.group.add(twin()).await;
            tokio::time::sleep(3 * SHORT_LEASE.duration).await;
            let led: Vec<_> = campaign.leaders_since(begun).into_iter().collect();
            assert_eq!(
                led,
                std::slice::from_ref(&first),
                "a name is no reason to take a lease over"
            );

            let stopped = campaign.record_fault();
            campaign.group.kill(&first, Signal::Stop);
            let (_, taken) = campaign.wait_for_successor(&first, stopped).await;
            let waited = campaign.since_last_renewal(&first, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );
            campaign.group.kill(&first, Signal::Cont);
            assert_eq!(
                campaign.wait_for_exit(&first).await,
                Some(1),
                "the record under its name is not its own"
            );

            let third = campaign.group.add(twin()).await;
            tokio::time::sleep(SHORT_LEASE.duration).await;
            let killed = campaign.record_fault();
            campaign.group.kill(&second, Signal::Kill);
            let (next, taken) = campaign.wait_for_successor(&second, killed).await;
            assert_eq!(next, third);
            let waited = campaign.since_last_renewal(&second, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );

            let fourth = campaign.group.add(twin()).await;
            tokio::time::sleep(SHORT_LEASE.duration).await;
            let asked = campaign.record_fault();
            campaign.group.kill(&third, Signal::Term);
            assert_eq!(campaign.wait_for_successor(&third, asked).await.0, fourth);
            assert_eq!(campaign.wait_for_exit(&third).await, Some(0));
            campaign.wait_for_leader_since(Timestamp::now()).await;
        },
    );
}
