//! Candidates that may not watch the Lease, because the rights are those of a client-go controller.

use super::contender::{Guise, SHORT};
use super::death::{end, kill};
use super::freeze::freeze;
use super::ground::{Ground, Rights};

const ROUNDS: usize = 3;

#[test]
fn candidates_that_may_not_watch_follow_each_other_all_the_same() {
    let fault = "watch forbidden: SIGSTOP, KILL, TERM";
    Ground::campaign_of(
        fault,
        SHORT,
        Rights::Blind,
        Some(Guise::default()),
        async |ground| {
            for _ in 0..ROUNDS {
                ground.busy_moment().await;
                freeze(ground).await;
                let waited = kill(ground).await;
                assert!(
                    waited >= 3.0,
                    "the lease was taken over {waited} s after it was renewed"
                );
                end(ground).await;
            }
        },
    );
}
