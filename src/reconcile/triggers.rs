//! Which objects to reconcile when something changes.
//!
//! Every stream begins with all objects, since a new leader cannot know what its predecessor
//! finished. It repeats all of them every [`RESYNC`], and when changes were lost because the
//! receiver lagged. In between, each change triggers only the objects that depend on it.
//! [`super::driver`] deduplicates and schedules them.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Context;
use super::issues::OfferName;
use crate::api::{IdentityRegistry, ServiceOffer};
use crate::cluster::CacheChange;
use crate::cluster::MaybeDecoded;

/// How often everything is reconciled, whether or not it changed.
const RESYNC: Duration = Duration::from_secs(300);

/// Triggers of the offer loop.
pub(super) fn offers(
    context: &Arc<Context>,
    store: Store<MaybeDecoded<ServiceOffer>>,
) -> impl Stream<Item = ObjectRef<MaybeDecoded<ServiceOffer>>> + Send + 'static {
    let all = {
        let (store, applied) = (store.clone(), context.applied.clone());
        move || {
            let offers = store.state();
            applied.retain(|uid| {
                offers
                    .iter()
                    .any(|offer| offer.meta().uid.as_deref() == Some(uid))
            });
            offers
                .iter()
                .map(|offer| ObjectRef::from_obj(&**offer))
                .collect::<Vec<_>>()
        }
    };
    let named = |(namespace, name): OfferName| ObjectRef::new(&name).within(&namespace);
    let dependents = {
        let all = all.clone();
        move |change: CacheChange| match change {
            CacheChange::Offer { namespace, name } => vec![named((namespace, name))],
            CacheChange::Record { offers, .. } => offers.into_iter().map(named).collect(),
            CacheChange::Registry(_) => all(),
            CacheChange::Namespace(namespace) => all()
                .into_iter()
                .filter(|offer| offer.namespace.as_ref() == Some(&namespace))
                .collect(),
            CacheChange::Service { namespace, name } => {
                offers_of_service(&store, &namespace, &name)
            }
        }
    };
    let changes = batches(context.cache.changes(), all.clone(), dependents);
    let issues = batches(context.issues.changes(), all, move |offer| {
        vec![named(offer)]
    });
    stream::select(changes, issues)
}

/// Offers whose upstream is this Service.
fn offers_of_service(
    store: &Store<MaybeDecoded<ServiceOffer>>,
    namespace: &str,
    name: &str,
) -> Vec<ObjectRef<MaybeDecoded<ServiceOffer>>> {
    let has_upstream = |offer: &MaybeDecoded<ServiceOffer>| {
        let upstream = offer
            .0
            .as_ref()
            .ok()
            .and_then(|offer| offer.spec.upstream.as_ref());
        upstream.is_some_and(|upstream| upstream.namespace == namespace && upstream.service == name)
    };
    store
        .state()
        .iter()
        .filter(|offer| has_upstream(offer))
        .map(|offer| ObjectRef::from_obj(&**offer))
        .collect()
}

/// Triggers of the registry loop: a change of anything but a registry triggers all registries.
/// There are few, and a pass without work is cheap.
pub(super) fn registries(
    context: &Arc<Context>,
    store: Store<MaybeDecoded<IdentityRegistry>>,
) -> impl Stream<Item = ObjectRef<MaybeDecoded<IdentityRegistry>>> + Send + 'static {
    let all = move || {
        store
            .state()
            .iter()
            .map(|registry| ObjectRef::from_obj(&**registry))
            .collect::<Vec<_>>()
    };
    let dependents = {
        let all = all.clone();
        move |change| match change {
            CacheChange::Registry(name) => vec![ObjectRef::new(&name)],
            _ => all(),
        }
    };
    batches(context.cache.changes(), all, dependents)
}

/// All objects at first, at each resync, and after lost changes; otherwise the dependents of each
/// change.
fn batches<T, O>(
    changes: broadcast::Receiver<T>,
    all: impl Fn() -> Vec<O> + Send + 'static,
    dependents: impl Fn(T) -> Vec<O> + Send + 'static,
) -> impl Stream<Item = O> + Send + 'static
where
    T: Clone + Send + 'static,
    O: Send + 'static,
{
    // The first tick completes immediately.
    let state = (changes, tokio::time::interval(RESYNC), all, dependents);
    let batches = stream::unfold(
        state,
        |(mut changes, mut resync, all, dependents)| async move {
            let batch = tokio::select! {
                _ = resync.tick() => all(),
                change = changes.recv() => match change {
                    Ok(change) => dependents(change),
                    Err(RecvError::Lagged(_)) => all(),
                    Err(RecvError::Closed) => return None,
                },
            };
            Some((stream::iter(batch), (changes, resync, all, dependents)))
        },
    );
    batches.flatten()
}
