//! The offers of the demo: the README's first offer, and more like it in three namespaces.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use harness::objects::{create, key_of};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use serviceoffer::api::ServiceOffer;

use crate::output;
use crate::summary::OfferStatus;

/// Namespaces that sell. The README's first offer is in the first one.
pub const NAMESPACES: [&str; 3] = ["shop", "studio", "workshop"];
/// What each namespace sells.
const FIRST: [&str; 4] = ["chat", "images", "search", "speech"];
/// What each namespace sells later.
const LATER: [&str; 4] = ["embeddings", "maps", "translation", "weather"];

/// A set of offers that is created at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Offers that exist before anything fails, without the one that the README creates.
    First,
    /// Offers that are created while the leader dies.
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

/// The offers of one cluster.
pub struct Offers {
    client: Client,
    /// Offers that have been printed as registered.
    shown: BTreeSet<String>,
}

impl Offers {
    pub fn of(client: Client) -> Self {
        Self {
            client,
            shown: BTreeSet::new(),
        }
    }

    /// Creates the namespaces, and a Service for each offer.
    pub async fn prepare(&self) -> Result<()> {
        for name in NAMESPACES {
            let namespace: Namespace =
                serde_json::from_value(json!({ "metadata": { "name": name } }))?;
            create(&Api::all(self.client.clone()), &namespace).await?;
            let services: Api<Service> = Api::namespaced(self.client.clone(), name);
            for name in FIRST.iter().chain(&LATER) {
                let service: Service = serde_json::from_value(json!({
                    "metadata": { "name": name },
                    "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
                }))?;
                create(&services, &service).await?;
            }
        }
        Ok(())
    }

    /// Creates the offers of a batch at once, each like the README's first offer.
    pub async fn create(&self, batch: Batch) -> Result<()> {
        let first = self
            .within(NAMESPACES[0])
            .get(FIRST[0])
            .await
            .context("the README's first offer")?;
        let create_like = async |(namespace, name)| {
            let offer = like(&first, namespace, name);
            create(&self.within(namespace), &offer).await
        };
        try_join_all(batch.names().into_iter().map(create_like)).await?;
        Ok(())
    }

    fn within(&self, namespace: &str) -> Api<ServiceOffer> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Prints a table of offers that grows as they are registered, until that many are.
    pub async fn show_registered(&mut self, wanted: usize, limit: Duration) -> Result<()> {
        output::text(&format!(
            "{:<24}  {:<6}  {:<6}  TRANSACTION",
            "OFFER", "AGENT", "BLOCK"
        ));
        self.wait_registered(wanted, limit).await
    }

    /// Waits until that many offers are registered, and prints each as it is.
    pub async fn wait_registered(&mut self, wanted: usize, limit: Duration) -> Result<()> {
        let start = Instant::now();
        let what = format!("{wanted} offers are registered");
        until(&what, limit, async || {
            let all = self.list().await?;
            for offer in &all {
                if is_registered(offer) && self.shown.insert(name_of(offer)) {
                    output::text(&row(offer));
                }
            }
            let registered = all.iter().filter(|offer| is_registered(offer)).count();
            output::progress(&format!(
                "{registered} of {wanted}, {} s",
                start.elapsed().as_secs()
            ));
            ensure!(
                registered >= wanted,
                "{registered} are; the others wait: {}",
                waiting(&all)
            );
            Ok(())
        })
        .await
    }

    /// The status of every offer.
    pub async fn statuses(&self) -> Result<Vec<OfferStatus>> {
        let status_of = |offer: &ServiceOffer| {
            let status = offer.status.as_ref();
            let agent = status.and_then(|status| status.agent_id.clone());
            OfferStatus {
                name: name_of(offer),
                key: key_of(offer).map(|key| key.to_string()),
                agent,
            }
        };
        Ok(self.list().await?.iter().map(status_of).collect())
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
    // Offers with the same name in other namespaces need a path of their own.
    offer.spec.path = Some(format!("/{namespace}/{name}"));
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

/// Why offers are not registered, each message once.
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
    use crate::readme::Readme;

    #[test]
    fn batches_and_first_offer_are_24_in_three_namespaces() {
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
    fn first_offer_is_the_one_in_the_readme() {
        let file = Readme::load().file("offer.yaml").unwrap();
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
