//! Clocks that are stepped, and clocks that drift.

use std::time::Duration;

use jiff::Timestamp;

use super::campaign::{Campaign, LeasePermissions};
use super::candidate::{CandidateOptions, FakeClock, SHORT_LEASE};
use super::pause::pause;

const HOUR: i64 = 3600;
const FREEZES: usize = 4;
/// How long a candidate may take to read its clock again.
const CLOCK_READ: Duration = Duration::from_millis(1500);

#[test]
fn stepped_clock_makes_no_second_leader() {
    let options = Some(CandidateOptions {
        clock: Some(FakeClock::Stepped),
        ..CandidateOptions::default()
    });
    Campaign::run_with(
        "clock stepped (libfaketime)",
        SHORT_LEASE,
        LeasePermissions::Full,
        options,
        async |campaign| {
            for step in [HOUR, -HOUR, 2, -2] {
                let leader = campaign.wait_for_leader().await;
                let others: Vec<_> = campaign
                    .group
                    .running()
                    .into_iter()
                    .filter(|user| *user != leader)
                    .collect();
                let begun = campaign.record_fault();
                for standby in &others {
                    campaign
                        .group
                        .with(standby, |candidate| candidate.step_clock(step));
                }
                tokio::time::sleep(CLOCK_READ + SHORT_LEASE.duration).await;
                let led: Vec<_> = campaign.leaders_since(begun).into_iter().collect();
                assert_eq!(
                    led,
                    std::slice::from_ref(&leader),
                    "a standby measures the wait with the monotonic clock"
                );

                campaign.record_fault();
                campaign
                    .group
                    .with(&leader, |candidate| candidate.step_clock(step));
                tokio::time::sleep(CLOCK_READ).await;
                campaign.wait_for_leader_since(Timestamp::now()).await;
                campaign.wait_under_load().await;
                pause(campaign).await;
            }
        },
    );
}

#[test]
fn clock_drift_of_five_percent_makes_no_second_leader() {
    let options = Some(CandidateOptions {
        clock: Some(FakeClock::Drifting),
        ..CandidateOptions::default()
    });
    Campaign::run_with(
        "clocks drift 5 %, leader paused",
        SHORT_LEASE,
        LeasePermissions::Full,
        options,
        async |campaign| {
            for _ in 0..FREEZES {
                campaign.wait_under_load().await;
                let waited = pause(campaign).await;
                assert!(
                    waited >= 3.0 / 1.05,
                    "the lease was taken over {waited} s after its last renewal"
                );
            }
        },
    );
}
