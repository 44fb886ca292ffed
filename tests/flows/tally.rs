//! Counts what chain, records, ledger and offers say of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::wait::eventually;
use kube::ResourceExt;
use kube::api::ListParams;
use serviceoffer::api::{Phase, ServiceOffer, SignerLedger};

use crate::chain::Chain;
use crate::objects::{Objects, condition};

/// How long the API server may take to answer.
const SOON: Duration = Duration::from_secs(30);

/// Agent ids by namespace and name of their offers.
pub type Agents = BTreeMap<(String, String), String>;

impl Objects {
    /// Waits until that many offers are all registered and nothing is under way any more, and makes sure that everybody
    /// tells the same story: one registration per offer on the chain, under one key each, and its id in record and status.
    pub async fn all_registered(&self, chain: &Chain, count: usize, limit: Duration) -> Agents {
        let offers = eventually(
            &format!("{count} offers are registered"),
            limit,
            async || {
                let offers = self.offers_everywhere().await?;
                let open: Vec<_> = offers
                    .iter()
                    .filter(|offer| agent_of(offer).is_none())
                    .map(told)
                    .collect();
                let entries: usize = self
                    .ledgers_now()
                    .await?
                    .iter()
                    .map(|ledger| ledger.spec.entries.len())
                    .sum();
                let records = self.records().list(&ListParams::default()).await;
                let unfinished = records
                    .map_err(|error| error.to_string())?
                    .iter()
                    .filter(|record| record.spec.phase != Phase::Registered)
                    .count();
                match (offers.len(), open.len(), entries, unfinished) {
                    (all, 0, 0, 0) if all == count => Ok(offers),
                    (all, ..) => Err(format!(
                        "{all} offers, {} open, {entries} entries, {unfinished} records without agent: {:?}",
                        open.len(),
                        open.first()
                    )),
                }
            },
        )
        .await;
        self.agree(chain, &offers).await
    }

    /// Makes sure that chain, records and status name the same agent for every offer, and nobody names another one.
    async fn agree(&self, chain: &Chain, offers: &[ServiceOffer]) -> Agents {
        let on_chain = chain.agents().await;
        let records = eventually("the records are listed", SOON, async || {
            self.records().list(&ListParams::default()).await
        })
        .await
        .items;
        let recorded: BTreeMap<String, String> = records
            .iter()
            .map(|record| {
                assert_eq!(
                    record.spec.phase,
                    Phase::Registered,
                    "record {}",
                    record.name_any()
                );
                let result = record
                    .spec
                    .result
                    .as_ref()
                    .expect("a registered agent has an id");
                (record.spec.key.to_string(), result.agent_id.clone())
            })
            .collect();
        assert_eq!(
            recorded, on_chain,
            "the records and the chain name the same agents"
        );
        let mut keys = BTreeSet::new();
        let mut agents = Agents::new();
        for offer in offers {
            let registration = offer
                .status
                .as_ref()
                .and_then(|status| status.registration.as_ref());
            let key = registration
                .and_then(|registration| registration.key)
                .expect("a key")
                .to_string();
            let agent = agent_of(offer).expect("an agent id");
            assert_eq!(
                on_chain.get(&key),
                Some(&agent),
                "offer {} and the chain name the same agent",
                offer.name_any()
            );
            keys.insert(key);
            agents.insert(name_of(offer), agent);
        }
        assert_eq!(keys.len(), offers.len(), "every offer has a key of its own");
        assert_eq!(
            on_chain.len(),
            offers.len(),
            "the chain has one registration for each offer, and no other"
        );
        agents
    }

    /// Every offer, or why they cannot be listed.
    pub async fn offers_everywhere(&self) -> Result<Vec<ServiceOffer>, String> {
        let list = self.all_offers().list(&ListParams::default()).await;
        Ok(list.map_err(|error| error.to_string())?.items)
    }

    /// Every ledger, or why they cannot be listed.
    pub async fn ledgers_now(&self) -> Result<Vec<SignerLedger>, String> {
        let list = self.ledgers().list(&ListParams::default()).await;
        Ok(list.map_err(|error| error.to_string())?.items)
    }

    /// How many registrations are under way.
    pub async fn in_flight(&self) -> usize {
        self.ledgers_now()
            .await
            .unwrap_or_default()
            .iter()
            .map(|ledger| ledger.spec.entries.len())
            .sum()
    }
}

/// Namespace and name of an offer.
pub fn name_of(offer: &ServiceOffer) -> (String, String) {
    (offer.namespace().unwrap_or_default(), offer.name_any())
}

/// Agent id of an offer that is registered, and not merely sent.
pub fn agent_of(offer: &ServiceOffer) -> Option<String> {
    let (status, reason, _) = condition(offer, "Registered");
    let agent = offer
        .status
        .as_ref()
        .and_then(|status| status.agent_id.clone());
    agent.filter(|_| status == "True" && reason == "Registered")
}

fn told(offer: &ServiceOffer) -> String {
    let (_, reason, message) = condition(offer, "Registered");
    format!("{}: {reason}: {message}", offer.name_any())
}
