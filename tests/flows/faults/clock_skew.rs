//! Clocks that are set, and clocks that go wrong.

use std::time::Duration;

use jiff::Timestamp;

use super::campaign::{Campaign, LeaseRights};
use super::candidate::{CandidateOptions, FakeClock, SHORT_LEASE};
use super::pause::pause;

const HOUR: i64 = 3600;
const FREEZES: usize = 4;
/// Until a candidate has looked at its clock.
const SEEN: Duration = Duration::from_millis(1500);

#[test]
fn a_clock_that_is_set_makes_no_second_leader() {
    let options = Some(CandidateOptions {
        clock: Some(FakeClock::Stepped),
        ..CandidateOptions::default()
    });
    Campaign::run_with(
        "clock stepped (libfaketime)",
        SHORT_LEASE,
        LeaseRights::Full,
        options,
        async |campaign| {
            for step in [HOUR, -HOUR, 2, -2] {
                let leader = campaign.wait_for_leader().await;
                let others: Vec<_> = campaign
                    .group
                    .present()
                    .into_iter()
                    .filter(|user| *user != leader)
                    .collect();
                let begun = campaign.record_fault();
                for standby in &others {
                    campaign
                        .group
                        .with(standby, |candidate| candidate.step_clock(step));
                }
                tokio::time::sleep(SEEN + SHORT_LEASE.duration).await;
                let led: Vec<_> = campaign.leaders_since(begun).into_iter().collect();
                assert_eq!(
                    led,
                    std::slice::from_ref(&leader),
                    "a standby waits by the time that passes, not by the clock"
                );

                campaign.record_fault();
                campaign
                    .group
                    .with(&leader, |candidate| candidate.step_clock(step));
                tokio::time::sleep(SEEN).await;
                campaign.wait_for_leader_since(Timestamp::now()).await;
                campaign.wait_under_load().await;
                pause(campaign).await;
            }
        },
    );
}

#[test]
fn a_clock_that_is_five_percent_off_makes_no_second_leader() {
    let options = Some(CandidateOptions {
        clock: Some(FakeClock::Drifting),
        ..CandidateOptions::default()
    });
    Campaign::run_with(
        "clocks 5 % fast and slow: SIGSTOP",
        SHORT_LEASE,
        LeaseRights::Full,
        options,
        async |campaign| {
            for _ in 0..FREEZES {
                campaign.wait_under_load().await;
                let waited = pause(campaign).await;
                assert!(
                    waited >= 3.0 / 1.05,
                    "the lease was taken over {waited} s after it was renewed"
                );
            }
        },
    );
}
