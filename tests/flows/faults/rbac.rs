//! Candidates without permission to watch the Lease, as with the RBAC rules of a client-go
//! controller.

use super::campaign::{Campaign, LeasePermissions};
use super::candidate::{CandidateOptions, SHORT_LEASE};
use super::crash::{kill, terminate};
use super::pause::pause;

const ROUNDS: usize = 3;

#[test]
fn candidates_without_watch_permission_replace_each_other() {
    let fault = "watch forbidden: SIGSTOP, KILL, TERM";
    Campaign::run_with(
        fault,
        SHORT_LEASE,
        LeasePermissions::NoWatch,
        Some(CandidateOptions::default()),
        async |campaign| {
            for _ in 0..ROUNDS {
                campaign.wait_under_load().await;
                pause(campaign).await;
                let waited = kill(campaign).await;
                assert!(
                    waited >= 3.0,
                    "the lease was taken over {waited} s after its last renewal"
                );
                terminate(campaign).await;
            }
        },
    );
}
