//! Two Pods with one name: a lost node still runs the first one when another node starts the
//! second.

use jiff::Timestamp;
use testbed::Signal;

use super::campaign::{Campaign, LeasePermissions};
use super::candidate::{CandidateOptions, SHORT_LEASE};

#[test]
fn pod_with_the_same_name_is_another_candidate() {
    Campaign::run_with(
        "same POD_NAME, other POD_UID",
        SHORT_LEASE,
        LeasePermissions::Full,
        None,
        async |campaign| {
            let same_name = || CandidateOptions {
                identity: Some("same-name".into()),
                ..CandidateOptions::default()
            };
            let first = campaign.group.add(same_name()).await;
            assert_eq!(campaign.wait_for_leader().await, first);
            let begun = campaign.record_fault();
            let second = campaign.group.add(same_name()).await;
            tokio::time::sleep(3 * SHORT_LEASE.duration).await;
            let led: Vec<_> = campaign.leaders_since(begun).into_iter().collect();
            assert_eq!(
                led,
                std::slice::from_ref(&first),
                "the same name does not entitle a candidate to the lease"
            );

            let stopped = campaign.record_fault();
            campaign.group.kill(&first, Signal::Stop);
            let (_, taken) = campaign.wait_for_successor(&first, stopped).await;
            let waited = campaign.since_last_renewal(&first, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after its last renewal"
            );
            campaign.group.kill(&first, Signal::Cont);
            assert_eq!(
                campaign.wait_for_exit(&first).await,
                Some(1),
                "a record with its name and another uid is not its own"
            );

            let third = campaign.group.add(same_name()).await;
            tokio::time::sleep(SHORT_LEASE.duration).await;
            let killed = campaign.record_fault();
            campaign.group.kill(&second, Signal::Kill);
            let (next, taken) = campaign.wait_for_successor(&second, killed).await;
            assert_eq!(next, third);
            let waited = campaign.since_last_renewal(&second, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after its last renewal"
            );

            let fourth = campaign.group.add(same_name()).await;
            tokio::time::sleep(SHORT_LEASE.duration).await;
            let asked = campaign.record_fault();
            campaign.group.kill(&third, Signal::Term);
            assert_eq!(campaign.wait_for_successor(&third, asked).await.0, fourth);
            assert_eq!(campaign.wait_for_exit(&third).await, Some(0));
            campaign.wait_for_leader_since(Timestamp::now()).await;
        },
    );
}
