//! The API server is away, or answers nobody.

use std::time::Duration;

use election::campaign::verdict::Allowance;
use jiff::Timestamp;
use testbed::{Component, Signal};

use super::contender::LONGER;
use super::ground::Ground;

/// How long work goes on afterwards: what was on its way arrives.
const AFTERMATH: Duration = Duration::from_secs(5);

#[test]
fn an_api_server_that_is_away_leaves_at_most_one_leader() {
    Ground::campaign("API server stopped 10, 25, 60 s", LONGER, async |ground| {
        ground.allowance = Allowance::HeldUp;
        let mut server = ground
            .stage
            .cluster
            .component(Component::ApiServer)
            .unwrap();
        for seconds in [10, 25, 60] {
            ground.leader().await;
            ground.busy_moment().await;
            ground.inject();
            server.kill(Signal::Kill).unwrap();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            server.restart().await.unwrap();
            ground.leader_since(Timestamp::now()).await;
            tokio::time::sleep(AFTERMATH).await;
        }
    });
}

#[test]
fn an_api_server_that_hangs_leaves_at_most_one_leader() {
    Ground::campaign(
        "API server paused 10, 25 s (SIGSTOP)",
        LONGER,
        async |ground| {
            ground.allowance = Allowance::HeldUp;
            for seconds in [10, 25] {
                ground.leader().await;
                ground.busy_moment().await;
                ground.inject();
                let paused = ground
                    .stage
                    .cluster
                    .component(Component::ApiServer)
                    .unwrap()
                    .pause()
                    .unwrap();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                paused.resume();
                ground.leader_since(Timestamp::now()).await;
                tokio::time::sleep(AFTERMATH).await;
            }
        },
    );
}
