//! Leaders die while transactions are in flight.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::release::Release;
use harness::wait::eventually;

use crate::fixture::TestEnv;

/// A Lease that expires soon, and so few registrations at a time that some are in flight at every
/// death.
const VALUES: [&str; 5] = [
    "replicaCount=3",
    "leaderElection.leaseDuration=6s",
    "leaderElection.renewDeadline=4s",
    "leaderElection.retryPeriod=1s",
    "controller.maxInFlight=4",
];
const OFFERS: usize = 60;
const DEATHS: usize = 6;
const TAKEOVER: Duration = Duration::from_secs(30);

/// How a leader dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its Pod is deleted without grace.
    Deleted,
    /// Its process receives SIGKILL.
    Killed,
}

#[test]
fn killed_leaders_neither_double_nor_lose_registrations() {
    TestEnv::run(async |env| {
        let (chain, release) = env.deploy(&VALUES).await;
        for namespace in ["one", "two", "three"] {
            env.objects.create_namespace(namespace, &[]).await;
        }
        env.objects
            .create_offers(&["one", "two", "three"], OFFERS)
            .await;
        for number in 1..=DEATHS {
            let death = if number % 2 == 1 {
                Death::Deleted
            } else {
                Death::Killed
            };
            let (leader, in_flight) = end_leader(&env, &release, death).await;
            println!("death {number}: {leader} {death:?} with {in_flight} nonces in flight");
        }
        let agents = env
            .objects
            .assert_all_registered(&chain, OFFERS, Duration::from_secs(240))
            .await;
        assert_eq!(agents.len(), OFFERS);
    });
}

/// Ends the leader while nonces are in flight, and makes sure that some still are when it is dead.
async fn end_leader(env: &TestEnv, release: &Release, death: Death) -> (String, usize) {
    let what = "a leader dies with nonces in flight";
    eventually(what, Duration::from_secs(120), async || -> Result<_> {
        // A takeover that takes longer fails the flow, and is not tried again.
        let leader = release.wait_leader(None, TAKEOVER).await.unwrap();
        let in_flight = env.objects.in_flight().await?;
        ensure!(in_flight > 0, "{leader} has no nonce in flight");
        match death {
            Death::Deleted => release.force_delete(&leader).await,
            Death::Killed => release.kill(&leader).await,
        }
        .with_context(|| leader.clone())?;
        let in_flight = env.objects.in_flight().await?;
        ensure!(in_flight > 0, "{leader} had finished when it died");
        Ok((leader, in_flight))
    })
    .await
}
