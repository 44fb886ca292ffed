//! Leaders die while transactions are under way.

use std::time::Duration;

use harness::wait::eventually;

use crate::release::Release;
use crate::stage::Stage;

/// A lease that is taken over soon, and few enough registrations at a time that every death finds some under way.
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
    /// Its process is killed.
    Killed,
}

#[test]
fn no_death_of_a_leader_doubles_or_loses_a_registration() {
    Stage::play(async |stage| {
        let (chain, release) = stage.open(&VALUES).await;
        for namespace in ["one", "two", "three"] {
            stage.objects.shop(namespace, &[]).await;
        }
        stage
            .objects
            .create_offers(&["one", "two", "three"], OFFERS)
            .await;
        for (at, death) in [Death::Deleted, Death::Killed]
            .into_iter()
            .cycle()
            .take(DEATHS)
            .enumerate()
        {
            let (leader, in_flight) = end_leader(&stage, &release, death).await;
            println!(
                "death {}: {leader} was {death:?} with {in_flight} registrations under way",
                at + 1
            );
        }
        let agents = stage
            .objects
            .all_registered(&chain, OFFERS, Duration::from_secs(240))
            .await;
        assert_eq!(agents.len(), OFFERS);
    });
}

/// Ends the leader while registrations are under way, which they still are when it is dead.
async fn end_leader(stage: &Stage, release: &Release, death: Death) -> (String, usize) {
    eventually(
        "a leader dies with registrations under way",
        Duration::from_secs(120),
        async || {
            let leader = release.leader(None, TAKEOVER).await;
            if stage.objects.in_flight().await == 0 {
                return Err(format!("{leader} has nothing under way"));
            }
            let ended = match death {
                Death::Deleted => release.force_delete(&leader).await,
                Death::Killed => release.kill(&leader).await,
            };
            ended.map_err(|error| format!("{leader}: {error:#}"))?;
            match stage.objects.in_flight().await {
                0 => Err(format!("{leader} had come to rest when it died")),
                in_flight => Ok((leader, in_flight)),
            }
        },
    )
    .await
}
