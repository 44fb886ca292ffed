//! Clocks that are set, and clocks that go wrong.

use std::time::Duration;

use jiff::Timestamp;

use super::contender::{Clock, Guise, SHORT};
use super::freeze::freeze;
use super::ground::{Ground, Rights};

const HOUR: i64 = 3600;
const FREEZES: usize = 4;
/// Until a candidate has looked at its clock.
const SEEN: Duration = Duration::from_millis(1500);

#[test]
fn a_clock_that_is_set_makes_no_second_leader() {
    let guise = Some(Guise {
        clock: Some(Clock::Steps),
        ..Guise::default()
    });
    Ground::campaign_of(
        "clock stepped (libfaketime)",
        SHORT,
        Rights::All,
        guise,
        async |ground| {
            for step in [HOUR, -HOUR, 2, -2] {
                let leader = ground.leader().await;
                let others: Vec<_> = ground
                    .group
                    .present()
                    .into_iter()
                    .filter(|user| *user != leader)
                    .collect();
                let begun = ground.inject();
                for standby in &others {
                    ground
                        .group
                        .with(standby, |contender| contender.step_clock(step));
                }
                tokio::time::sleep(SEEN + SHORT.duration).await;
                let led: Vec<_> = ground.leaders_since(begun).into_iter().collect();
                assert_eq!(
                    led,
                    std::slice::from_ref(&leader),
                    "a standby waits by the time that passes, not by the clock"
                );

                ground.inject();
                ground
                    .group
                    .with(&leader, |contender| contender.step_clock(step));
                tokio::time::sleep(SEEN).await;
                ground.leader_since(Timestamp::now()).await;
                ground.busy_moment().await;
                freeze(ground).await;
            }
        },
    );
}

#[test]
fn a_clock_that_is_five_percent_off_makes_no_second_leader() {
    let guise = Some(Guise {
        clock: Some(Clock::Drifts),
        ..Guise::default()
    });
    Ground::campaign_of(
        "clocks 5 % fast and slow: SIGSTOP",
        SHORT,
        Rights::All,
        guise,
        async |ground| {
            for _ in 0..FREEZES {
                ground.busy_moment().await;
                let waited = freeze(ground).await;
                assert!(
                    waited >= 3.0 / 1.05,
                    "the lease was taken over {waited} s after it was renewed"
                );
            }
        },
    );
}
