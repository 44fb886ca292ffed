//! The API server is down, or accepts requests and never answers.

use std::time::Duration;

use election::campaign::verdict::Allowance;
use jiff::Timestamp;
use testbed::{Component, Signal};

use super::campaign::Campaign;
use super::candidate::LONGER_LEASE;

/// How long the load continues after the outage: delayed requests arrive meanwhile.
const AFTERMATH: Duration = Duration::from_secs(5);

#[test]
fn api_server_outage_leaves_at_most_one_leader() {
    Campaign::run(
        "API server down 10, 25, 60 s (SIGKILL)",
        LONGER_LEASE,
        async |campaign| {
            campaign.allowance = Allowance::Delayed;
            let mut server = campaign
                .env
                .cluster
                .component(Component::ApiServer)
                .unwrap();
            for seconds in [10, 25, 60] {
                campaign.wait_for_leader().await;
                campaign.wait_under_load().await;
                campaign.record_fault();
                server.kill(Signal::Kill).unwrap();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                server.restart().await.unwrap();
                campaign.wait_for_leader_since(Timestamp::now()).await;
                tokio::time::sleep(AFTERMATH).await;
            }
        },
    );
}

#[test]
fn paused_api_server_leaves_at_most_one_leader() {
    Campaign::run(
        "API server paused 10, 25 s (SIGSTOP)",
        LONGER_LEASE,
        async |campaign| {
            campaign.allowance = Allowance::Delayed;
            for seconds in [10, 25] {
                campaign.wait_for_leader().await;
                campaign.wait_under_load().await;
                campaign.record_fault();
                let paused = campaign
                    .env
                    .cluster
                    .component(Component::ApiServer)
                    .unwrap()
                    .pause()
                    .unwrap();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                paused.resume();
                campaign.wait_for_leader_since(Timestamp::now()).await;
                tokio::time::sleep(AFTERMATH).await;
            }
        },
    );
}
