//! What chain, records, ledger and offers must agree on at the end of a flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use harness::chain::Chain;
use harness::objects::{agent_of, condition_of, key_of, name_of};
use harness::wait::eventually;
use kube::ResourceExt;
use kube::api::ListParams;
use serviceoffer::api::{AgentRegistration, Phase, ServiceOffer};

use crate::objects::Objects;

/// Agent ids by namespace and name of their offers.
pub type Agents = BTreeMap<(String, String), String>;

impl Objects {
    /// Waits until that many offers are registered and no registration is in flight, and asserts
    /// that chain, records and status agree: one registration per offer on the chain, each under a
    /// key of its own, with the agent id that record and status name.
    pub async fn assert_all_registered(
        &self,
        chain: &Chain,
        count: usize,
        limit: Duration,
    ) -> Agents {
        let what = format!("{count} offers are registered");
        let (offers, records) = eventually(&what, limit, async || {
            let offers = self.list_offers().await?;
            let open: Vec<_> = offers
                .iter()
                .filter(|offer| agent_of(offer).is_none())
                .map(describe)
                .collect();
            let in_flight = self.in_flight().await?;
            // Read last: an offer must not be reported as registered before its record is.
            let records = self.records().list(&ListParams::default()).await?.items;
            ensure!(
                offers.len() == count && open.is_empty() && in_flight == 0,
                "{} offers, {} not registered, {in_flight} in flight: {:?}",
                offers.len(),
                open.len(),
                open.first()
            );
            Ok((offers, records))
        })
        .await;
        assert_agreement(chain, &records, &offers).await
    }

    /// Every offer.
    pub async fn list_offers(&self) -> kube::Result<Vec<ServiceOffer>> {
        Ok(self.all_offers().list(&ListParams::default()).await?.items)
    }

    /// How many nonces are in flight.
    pub async fn in_flight(&self) -> kube::Result<usize> {
        let ledgers = self.ledgers().list(&ListParams::default()).await?;
        let entries = ledgers.iter().map(|ledger| ledger.spec.entries.len());
        Ok(entries.sum())
    }

    /// Waits until nonces are in flight, and returns how many.
    pub async fn wait_in_flight(&self, limit: Duration) -> usize {
        eventually("registrations are in flight", limit, async || {
            let in_flight = self.in_flight().await?;
            ensure!(in_flight > 0, "none");
            Ok(in_flight)
        })
        .await
    }
}

/// Asserts that chain, records and status name the same agent for every offer, and no other agent.
async fn assert_agreement(
    chain: &Chain,
    records: &[AgentRegistration],
    offers: &[ServiceOffer],
) -> Agents {
    let on_chain = chain.agents().await.unwrap();
    let recorded: BTreeMap<String, String> = records
        .iter()
        .map(|record| {
            assert_eq!(record.spec.phase, Phase::Registered, "{}", record.spec.key);
            let result = record.spec.result.as_ref();
            let agent = &result.expect("a registered record has a result").agent_id;
            (record.spec.key.to_string(), agent.clone())
        })
        .collect();
    assert_eq!(
        recorded, on_chain,
        "records and chain must name the same agents"
    );
    let mut keys = BTreeSet::new();
    let mut agents = Agents::new();
    for offer in offers {
        let name = name_of(offer);
        let key = key_of(offer).expect("a registered offer has a key");
        let key = key.to_string();
        let agent = agent_of(offer).expect("a registered offer has an agent id");
        assert_eq!(
            on_chain.get(&key),
            Some(&agent),
            "status of {name:?} and chain must name the same agent"
        );
        keys.insert(key);
        agents.insert(name, agent);
    }
    assert_eq!(
        keys.len(),
        offers.len(),
        "every offer must have its own key"
    );
    assert_eq!(
        on_chain.len(),
        offers.len(),
        "the chain must hold one registration per offer and no other"
    );
    agents
}

fn describe(offer: &ServiceOffer) -> String {
    let (_, reason, message) = condition_of(offer, "Registered");
    format!("{}: {reason}: {message}", offer.name_any())
}
