//! The offers of the demo: the README's first one, and more like it in three namespaces.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use harness::wait::until;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use serviceoffer::api::ServiceOffer;

use crate::screen;
use crate::summary::Told;

/// Namespaces that sell; the README's first offer is in the first one.
pub const NAMESPACES: [&str; 3] = ["shop", "studio", "workshop"];
/// What each of them sells.
const FIRST: [&str; 4] = ["chat", "images", "search", "speech"];
/// What each of them sells later.
const LATER: [&str; 4] = ["embeddings", "maps", "translation", "weather"];

/// Which offers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Those that are there before anything goes wrong, without the first, which the README makes.
    First,
    /// Those that are made while the leader dies.
    Later,
}

impl Batch {
    /// Namespace and name of each offer.
    fn names(self) -> Vec<(&'static str, &'static str)> {
        let names = match self {
            Self::First => FIRST,
            Self::Later => LATER,
        };
        let all = NAMESPACES
            .iter()
            .flat_map(|namespace| names.map(|name| (*namespace, name)));
        all.filter(|name| *name != (NAMESPACES[0], FIRST[0]))
            .collect()
    }
}

/// Offers of one cluster.
pub struct Offers {
    client: Client,
    /// Offers that have been shown as registered.
    shown: BTreeSet<String>,
}

impl Offers {
    /// Offers of the cluster that the client reaches.
    pub fn of(client: Client) -> Self {
        Self {
            client,
            shown: BTreeSet::new(),
        }
    }

    /// Makes the namespaces, and a Service behind each offer.
    pub async fn prepare(&self) -> Result<()> {
        for name in NAMESPACES {
            let namespace: Namespace =
                serde_json::from_value(json!({ "metadata": { "name": name } }))?;
            Api::all(self.client.clone())
                .create(&PostParams::default(), &namespace)
                .await?;
            let services: Api<Service> = Api::namespaced(self.client.clone(), name);
            for name in FIRST.iter().chain(&LATER) {
                let service: Service = serde_json::from_value(json!({
                    "metadata": { "name": name },
                    "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
                }))?;
                services.create(&PostParams::default(), &service).await?;
            }
        }
        Ok(())
    }

    /// Makes the offers of a batch, all at once, each like the first one.
    pub async fn make(&self, batch: Batch) -> Result<()> {
        let first = self
            .within(NAMESPACES[0])
            .get(FIRST[0])
            .await
            .context("the README's first offer")?;
        let create = async |(namespace, name)| {
            self.within(namespace)
                .create(&PostParams::default(), &like(&first, namespace, name))
                .await
        };
        try_join_all(batch.names().into_iter().map(create)).await?;
        Ok(())
    }

    fn within(&self, namespace: &str) -> Api<ServiceOffer> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Shows a table of offers that grows as their agents arrive, until that many have one.
    pub async fn watch(&mut self, wanted: usize, limit: Duration) -> Result<()> {
        screen::output(&format!(
            "{:<24}  {:<6}  {:<6}  TRANSACTION",
            "OFFER", "AGENT", "BLOCK"
        ));
        self.registered(wanted, limit).await
    }

    /// Waits until that many offers have an agent; one that has not been shown with it is.
    pub async fn registered(&mut self, wanted: usize, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        until(
            &format!("{wanted} offers are registered"),
            limit,
            async || {
                let all = self.list().await?;
                for offer in &all {
                    if is_registered(offer) && self.shown.insert(name_of(offer)) {
                        screen::output(&row(offer));
                    }
                }
                let registered = all.iter().filter(|offer| is_registered(offer)).count();
                screen::passing(&format!(
                    "{registered} of {wanted}, {} s",
                    begun.elapsed().as_secs()
                ));
                match registered >= wanted {
                    true => Ok(()),
                    false => bail!("{registered} are; the others say: {}", waiting(&all)),
                }
            },
        )
        .await
    }

    /// What the status of every offer tells.
    pub async fn told(&self) -> Result<Vec<Told>> {
        let told = |offer: &ServiceOffer| {
            let status = offer.status.as_ref();
            let key = status.and_then(|status| status.registration.as_ref()?.key);
            let agent = status.and_then(|status| status.agent_id.clone());
            Told {
                name: name_of(offer),
                key: key.map(|key| key.to_string()),
                agent,
            }
        };
        Ok(self.list().await?.iter().map(told).collect())
    }

    async fn list(&self) -> Result<Vec<ServiceOffer>> {
        Ok(Api::all(self.client.clone())
            .list(&ListParams::default())
            .await?
            .items)
    }
}

/// The same offer for another Service.
fn like(pattern: &ServiceOffer, namespace: &str, name: &str) -> ServiceOffer {
    let mut offer = ServiceOffer::new(name, pattern.spec.clone());
    offer.metadata.namespace = Some(namespace.to_owned());
    if let Some(upstream) = &mut offer.spec.upstream {
        namespace.clone_into(&mut upstream.namespace);
        name.clone_into(&mut upstream.service);
    }
    offer
}

fn name_of(offer: &ServiceOffer) -> String {
    format!(
        "{}/{}",
        offer.namespace().unwrap_or_default(),
        offer.name_any()
    )
}

fn is_registered(offer: &ServiceOffer) -> bool {
    offer
        .status
        .as_ref()
        .is_some_and(|status| status.agent_id.is_some())
}

fn row(offer: &ServiceOffer) -> String {
    let registration = offer
        .status
        .as_ref()
        .and_then(|status| status.registration.clone())
        .unwrap_or_default();
    let block = registration
        .block
        .map(|block| block.to_string())
        .unwrap_or_default();
    let transaction = registration.transaction.unwrap_or_default();
    let agent = registration.agent_id.unwrap_or_default();
    format!(
        "{:<24}  {agent:<6}  {block:<6}  {transaction}",
        name_of(offer)
    )
}

/// Why offers wait, each reason once.
fn waiting(offers: &[ServiceOffer]) -> String {
    let ready = |offer: &ServiceOffer| {
        let conditions = &offer.status.as_ref()?.conditions;
        serviceoffer::api::condition::find(conditions, "Ready")?
            .message
            .clone()
    };
    let reasons: BTreeSet<String> = offers
        .iter()
        .filter(|offer| !is_registered(offer))
        .filter_map(ready)
        .collect();
    reasons.into_iter().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manual::Manual;

    #[test]
    fn the_batches_and_the_first_offer_are_twenty_four_in_three_namespaces() {
        let mut names: Vec<_> = Batch::First
            .names()
            .into_iter()
            .chain(Batch::Later.names())
            .collect();
        names.push((NAMESPACES[0], FIRST[0]));
        assert_eq!(
            (names.len(), names.iter().collect::<BTreeSet<_>>().len()),
            (24, 24)
        );
        assert_eq!(
            names
                .iter()
                .map(|(namespace, _)| namespace)
                .collect::<BTreeSet<_>>()
                .len(),
            3
        );
    }

    #[test]
    fn the_first_offer_is_the_one_that_the_readme_makes() {
        let file = Manual::readme().file("offer.yaml").unwrap();
        for line in [
            format!("namespace: {}", NAMESPACES[0]),
            format!("name: {}", FIRST[0]),
        ] {
            assert!(
                file.contains(&line),
                "offer.yaml in README.md has no `{line}`"
            );
        }
    }
}
