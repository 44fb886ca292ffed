//! Which objects to reconcile when something changes.
//!
//! Every stream begins with all objects, since a new leader cannot know what its predecessor
//! finished. It repeats all of them every [`RESYNC`], and when changes were lost because the
//! receiver lagged. In between, each change triggers only the objects that it matters to
//! ([`matter`]). Triggers of registries and facilitators are collected for [`COALESCE`], since their
//! passes send requests. [`super::driver`] deduplicates and schedules what is left.

mod matter;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval, sleep_until};

use self::matter::{
    RegistryChange, RegistryDigest, awaits_registry, has_upstream, is_in_namespace, needs_pass,
};
use super::Context;
use super::facilitator::plan::{lacks, tokens_of};
use super::issues::OfferName;
use crate::api::{IdentityRegistry, PaymentFacilitator, ServiceOffer};
use crate::cluster::{Cache, CacheChange, MaybeDecoded};
use crate::ledger::rollback::is_stopped;
use crate::registration::contract::Contract;
use crate::registration::view::OfferView;

/// How often everything is reconciled, whether or not it changed.
const RESYNC: Duration = Duration::from_secs(300);
/// Least time between two triggers of one registry or facilitator. The first one is immediate.
const COALESCE: Duration = Duration::from_millis(300);

/// Digests of registries at their last change.
#[derive(Default)]
struct KnownRegistries(BTreeMap<String, RegistryDigest>);

impl KnownRegistries {
    fn all(store: &Store<MaybeDecoded<IdentityRegistry>>) -> Self {
        let registries = store.state();
        let digests = registries
            .iter()
            .map(|registry| (registry.name_any(), RegistryDigest::of(Some(&**registry))));
        Self(digests.collect())
    }

    /// How a registry changed since it was last asked about.
    fn change(
        &mut self,
        store: &Store<MaybeDecoded<IdentityRegistry>>,
        name: &str,
    ) -> RegistryChange {
        let registry = store.get(&ObjectRef::new(name));
        let after = RegistryDigest::of(registry.as_deref());
        let before = self.0.insert(name.to_owned(), after.clone());
        before.unwrap_or_default().change_to(&after)
    }
}

/// Triggers of the offer loop.
pub(super) fn offers(
    context: &Arc<Context>,
    store: Store<MaybeDecoded<ServiceOffer>>,
) -> impl Stream<Item = ObjectRef<MaybeDecoded<ServiceOffer>>> + Send + 'static {
    let all = {
        let (store, states) = (store.clone(), context.offer_states.clone());
        move || {
            let offers = store.state();
            let uids: HashSet<&str> = offers
                .iter()
                .filter_map(|offer| offer.meta().uid.as_deref())
                .collect();
            states.retain(|uid| uids.contains(uid));
            refs(&offers)
        }
    };
    let named = |(namespace, name): OfferName| ObjectRef::new(&name).within(&namespace);
    let registries = context.cache.registry_store();
    let mut known = KnownRegistries::all(&registries);
    let dependents = {
        let all = all.clone();
        move |change: CacheChange| match change {
            CacheChange::Offer { namespace, name } => vec![named((namespace, name))],
            CacheChange::Record { offers, .. } => offers.into_iter().map(named).collect(),
            CacheChange::Registry(name) => match known.change(&registries, &name) {
                RegistryChange::Nothing => Vec::new(),
                RegistryChange::Ready => those(&store, awaits_registry),
                RegistryChange::Spec => all(),
            },
            // What a facilitator or a grant changes for an offer shows in the table.
            CacheChange::Ledger(_)
            | CacheChange::LedgersInterrupted
            | CacheChange::Facilitator(_)
            | CacheChange::Grant { .. } => Vec::new(),
            CacheChange::Namespace(namespace) => {
                those(&store, |offer| is_in_namespace(offer, &namespace))
            }
            CacheChange::Service { namespace, name } => {
                those(&store, |offer| has_upstream(offer, &namespace, &name))
            }
        }
    };
    let issues = batches(
        context.issues.changes(),
        Duration::ZERO,
        all.clone(),
        move |offer| vec![named(offer)],
    );
    let sales = match &context.gate {
        Some(gate) => batches(gate.changes(), Duration::ZERO, all.clone(), move |offer| {
            vec![named(offer)]
        })
        .left_stream(),
        None => stream::pending().right_stream(),
    };
    let changes = batches(context.cache.changes(), Duration::ZERO, all, dependents);
    stream::select(stream::select(changes, issues), sales)
}

fn refs<K>(objects: &[Arc<MaybeDecoded<K>>]) -> Vec<ObjectRef<MaybeDecoded<K>>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let objects = objects.iter();
    objects
        .map(|object| ObjectRef::from_obj(&**object))
        .collect()
}

/// Offers that can be decoded and for which `is_wanted` holds.
fn those(
    store: &Store<MaybeDecoded<ServiceOffer>>,
    is_wanted: impl Fn(&ServiceOffer) -> bool,
) -> Vec<ObjectRef<MaybeDecoded<ServiceOffer>>> {
    let mut offers = store.state();
    offers.retain(|offer| offer.decoded().is_some_and(|offer| is_wanted(offer)));
    refs(&offers)
}

/// Triggers of the facilitator loop.
pub(super) fn facilitators(
    context: &Arc<Context>,
    store: Store<MaybeDecoded<PaymentFacilitator>>,
) -> impl Stream<Item = ObjectRef<MaybeDecoded<PaymentFacilitator>>> + Send + 'static {
    let cache = context.cache.clone();
    let registries = cache.registry_store();
    let mut known = KnownRegistries::all(&registries);
    // An object that was deleted and created again may have the same generation.
    let spec = |object: &MaybeDecoded<PaymentFacilitator>| {
        (object.meta().uid.clone(), object.meta().generation)
    };
    let facilitators = store.state();
    let mut specs: BTreeMap<String, _> = facilitators
        .iter()
        .map(|object| (object.name_any(), Some(spec(object))))
        .collect();
    let all = {
        let store = store.clone();
        move || refs(&store.state())
    };
    let dependents = {
        let all = all.clone();
        move |change| match change {
            // The loop itself writes the status, which is no news to it.
            CacheChange::Facilitator(name) => {
                let object = ObjectRef::new(&name);
                let after = store.get(&object).as_deref().map(spec);
                let before = specs.insert(name, after.clone());
                if before == Some(after) {
                    Vec::new()
                } else {
                    vec![object]
                }
            }
            CacheChange::Offer { namespace, name } => {
                let offer = cache.offer(&namespace, &name);
                let tokens = offer.map(|offer| tokens_of(&offer)).unwrap_or_default();
                let mut facilitators = cache.facilitators();
                facilitators
                    .retain(|facilitator| tokens.iter().any(|token| lacks(facilitator, token)));
                let names = facilitators
                    .iter()
                    .map(|facilitator| facilitator.name_any());
                names.map(|name| ObjectRef::new(&name)).collect()
            }
            // It may have an endpoint that tokens can be asked through.
            CacheChange::Registry(name) => match known.change(&registries, &name) {
                RegistryChange::Spec => all(),
                RegistryChange::Ready | RegistryChange::Nothing => Vec::new(),
            },
            CacheChange::Record { .. }
            | CacheChange::Ledger(_)
            | CacheChange::LedgersInterrupted
            | CacheChange::Namespace(_)
            | CacheChange::Grant { .. }
            | CacheChange::Service { .. } => Vec::new(),
        }
    };
    batches(context.cache.changes(), COALESCE, all, dependents)
}

/// Triggers of the registry loop.
pub(super) fn registries(
    context: &Arc<Context>,
    store: Store<MaybeDecoded<IdentityRegistry>>,
) -> impl Stream<Item = ObjectRef<MaybeDecoded<IdentityRegistry>>> + Send + 'static {
    let cache = context.cache.clone();
    let mut known = KnownRegistries::all(&store);
    let all = {
        let store = store.clone();
        move || refs(&store.state())
    };
    let dependents = {
        let all = all.clone();
        move |change| {
            let names = match change {
                CacheChange::Registry(name) => match known.change(&store, &name) {
                    // Others may share its contract or its signers.
                    RegistryChange::Spec => return all(),
                    RegistryChange::Ready | RegistryChange::Nothing => return Vec::new(),
                },
                CacheChange::Offer { namespace, name } => {
                    registries_of_offers(&cache, &[(namespace, name)])
                }
                CacheChange::Record { contract, offers } => match contract {
                    Some((chain_id, address)) => {
                        registries_for(&cache, &[Contract { chain_id, address }].into())
                    }
                    None if offers.is_empty() => return all(),
                    None => registries_of_offers(&cache, &offers),
                },
                // The loop itself writes ledgers, and only a quarantine is news to it.
                CacheChange::Ledger(name) => match cache.ledger(&name) {
                    Some(ledger) if is_stopped(&ledger.spec) => {
                        registries_of_chain(&cache, ledger.spec.chain_id)
                    }
                    _ => BTreeSet::new(),
                },
                CacheChange::LedgersInterrupted
                | CacheChange::Facilitator(_)
                | CacheChange::Grant { .. } => BTreeSet::new(),
                CacheChange::Namespace(namespace) => {
                    let is_wanted = |offer: &ServiceOffer| is_in_namespace(offer, &namespace);
                    registries_of_offers(&cache, &names_of(&cache, is_wanted))
                }
                CacheChange::Service { namespace, name } => {
                    let is_wanted = |offer: &ServiceOffer| has_upstream(offer, &namespace, &name);
                    registries_of_offers(&cache, &names_of(&cache, is_wanted))
                }
            };
            names.iter().map(|name| ObjectRef::new(name)).collect()
        }
    };
    batches(context.cache.changes(), COALESCE, all, dependents)
}

fn names_of(cache: &Cache, is_wanted: impl Fn(&ServiceOffer) -> bool) -> Vec<OfferName> {
    let offers = cache.offers();
    let offers = offers.iter().filter(|offer| is_wanted(offer));
    offers
        .map(|offer| (offer.namespace().unwrap_or_default(), offer.name_any()))
        .collect()
}

/// Names of the registries that have anything to do for these offers.
fn registries_of_offers(cache: &Cache, offers: &[OfferName]) -> BTreeSet<String> {
    let registries = cache.registries();
    let now = Timestamp::now();
    let (mut names, mut contracts) = (BTreeSet::new(), BTreeSet::new());
    for name in offers {
        let records = match cache.offer(&name.0, &name.1) {
            Some(offer) => {
                let view = OfferView::among(&registries, cache, &offer, now);
                if !needs_pass(&view) {
                    continue;
                }
                names.extend(view.agent().map(|agent| agent.registry.name_any()));
                view.records
            }
            None => cache.records_of(name),
        };
        contracts.extend(records.iter().map(|record| Contract::of_record(record)));
    }
    names.extend(registries_for(cache, &contracts));
    names
}

/// Names of the registries of a chain.
fn registries_of_chain(cache: &Cache, chain_id: u64) -> BTreeSet<String> {
    let registries = cache.registries();
    let of_chain = registries
        .iter()
        .filter(|registry| registry.spec.chain_id == chain_id);
    of_chain.map(|registry| registry.name_any()).collect()
}

/// Names of the registries that configure these contracts.
fn registries_for(cache: &Cache, contracts: &BTreeSet<Contract>) -> BTreeSet<String> {
    let registries = cache.registries();
    let is_wanted = |registry: &&Arc<IdentityRegistry>| {
        Contract::of(registry).is_some_and(|contract| contracts.contains(&contract))
    };
    registries
        .iter()
        .filter(is_wanted)
        .map(|registry| registry.name_any())
        .collect()
}

/// All objects at first, at each resync, and after lost changes; otherwise the dependents of each
/// change. What is triggered within `period` after a batch is one batch.
fn batches<T, O>(
    changes: broadcast::Receiver<T>,
    period: Duration,
    all: impl Fn() -> Vec<O> + Send + 'static,
    dependents: impl FnMut(T) -> Vec<O> + Send + 'static,
) -> impl Stream<Item = O> + Send + 'static
where
    T: Clone + Send + 'static,
    O: Eq + Hash + Send + 'static,
{
    // The first tick completes immediately.
    let state = (changes, interval(RESYNC), all, dependents, Instant::now());
    let batches = stream::unfold(
        state,
        move |(mut changes, mut resync, all, mut dependents, mut due)| async move {
            let mut batch = HashSet::new();
            loop {
                tokio::select! {
                    () = sleep_until(due), if !batch.is_empty() => break,
                    _ = resync.tick() => batch.extend(all()),
                    change = changes.recv() => match change {
                        Ok(change) => batch.extend(dependents(change)),
                        Err(RecvError::Lagged(_)) => batch.extend(all()),
                        Err(RecvError::Closed) => return None,
                    },
                }
            }
            due = Instant::now() + period;
            Some((stream::iter(batch), (changes, resync, all, dependents, due)))
        },
    );
    batches.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_within_the_period_are_one_batch() {
        let (sender, changes) = broadcast::channel(64);
        let triggers = batches(changes, COALESCE, || vec![0], |change: u8| vec![change]);
        let mut triggers = std::pin::pin!(triggers);
        assert_eq!(triggers.next().await, Some(0), "all at first");
        let begun = Instant::now();
        for change in [1, 2, 1, 2, 1] {
            sender.send(change).unwrap();
        }
        let mut batch = [
            triggers.next().await.unwrap(),
            triggers.next().await.unwrap(),
        ];
        batch.sort_unstable();
        assert_eq!(batch, [1, 2], "each once");
        assert!(begun.elapsed() >= COALESCE && begun.elapsed() < 2 * COALESCE);
        tokio::time::sleep(COALESCE).await;
        let begun = Instant::now();
        sender.send(3).unwrap();
        assert_eq!(triggers.next().await, Some(3));
        assert!(begun.elapsed() < COALESCE, "the first change is immediate");
        drop(sender);
        assert_eq!(triggers.next().await, None);
    }
}
