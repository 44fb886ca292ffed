//! START HERE. What the operator does all day: two loops, each of which looks at one object, decides, and acts.
//!
//! - [`offer`] keeps the status of each ServiceOffer true. It spends nothing.
//! - [`registry`] works for each IdentityRegistry: it writes records and ledgers, signs and sends.
//! - [`issues`] is what the second tells the first about single offers.
//! - [`legacy`] tells registrations of the controller that this one replaces (pure).
//!
//! In both, what gathers is called `observe`, what decides is called `plan` (pure), what carries out is called `apply`, and
//! what people are told follows from what was found and applied. Loops run while this replica leads; [`run`] begins and ends
//! them. They are driven by the [`crate::cluster::Cache`]'s changes, and begin by looking at everything.

pub mod issues;
pub mod legacy;
pub mod offer;
pub mod registry;

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::controller::{self, Action, Config, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, error, info_span, warn};

use self::issues::{OfferIssues, OfferName};
pub use self::offer::eligibility_of;
use crate::api::{IdentityRegistry, ServiceOffer};
use crate::cluster::MaybeDecoded;
use crate::cluster::{self, Cache, CacheChange, Reader, Writer};
use crate::health::Health;
use crate::leader::{Drain, Fence, Leading};
use crate::ledger;
use crate::metrics::{FailureReason, Loop, Metrics};
use crate::telemetry::causes;

/// Until a reconciliation that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The same after a conflict: somebody else was quicker, and everything is read anew.
const RETRY_CONFLICT: Duration = Duration::from_millis(200);
/// Everything is looked at this often, whatever has changed.
const RESYNC: Duration = Duration::from_secs(300);

/// What decisions of the loops depend on besides objects.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Offers that are reconciled at once.
    pub concurrency: u16,
    /// Unmined transactions of one signer that may be under way at once.
    pub max_in_flight: usize,
}

/// Everything that the loops work with.
pub struct Context {
    /// Copies of objects.
    pub cache: Cache,
    /// Reads of this moment.
    pub reader: Reader,
    /// Writes.
    pub writer: Writer,
    /// Ledgers and records.
    pub store: ledger::Store,
    /// What stands before every write.
    pub fence: Fence,
    /// What is told to Prometheus.
    pub metrics: Metrics,
    /// Whom the loops tell what they are asked and what they have done.
    pub health: Arc<Health>,
    /// What the registry loop tells the offer loop.
    pub issues: OfferIssues,
    /// What the registry loop remembers.
    pub registry_states: registry::RegistryStates,
    /// What the offer loop remembers.
    pub applied: offer::Applied,
    /// Uid of the namespace kube-system: tells this cluster from a copy of it.
    pub cluster_uid: String,
    /// Settings.
    pub settings: Settings,
}

/// A reconciliation failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] cluster::Error);

impl Error {
    fn reason(&self) -> FailureReason {
        self.0.reason()
    }
}

/// Runs both loops until the drain begins and what was under way has come to rest. Dropped, it ends at once.
pub async fn run(context: Arc<Context>, drain: &Drain) {
    let mut loops = JoinSet::new();
    let registries = context.cache.registry_store();
    let offers = context.cache.offer_store();
    loops.spawn(drive(
        Drive {
            which: Loop::Offer,
            concurrency: context.settings.concurrency,
            drain: drain.clone(),
        },
        Arc::clone(&context),
        offer_triggers(&context, offers.clone()),
        offers,
        |context, leading, offer| offer::reconcile(context, leading, offer).boxed(),
    ));
    loops.spawn(drive(
        // Registries do not wait for each other: a chain that hangs must not hold up another.
        Drive {
            which: Loop::Registry,
            concurrency: u16::MAX,
            drain: drain.clone(),
        },
        Arc::clone(&context),
        registry_triggers(&context, registries.clone()),
        registries,
        |context, leading, registry| registry::reconcile(context, leading, registry).boxed(),
    ));
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            // A panic must not leave one loop running without the other.
            error!(error = %causes(&error), "a reconcile loop broke");
            return;
        }
    }
}

/// How a loop runs.
struct Drive {
    which: Loop,
    concurrency: u16,
    drain: Drain,
}

async fn drive<K, W>(
    how: Drive,
    context: Arc<Context>,
    triggers: impl Stream<Item = ObjectRef<MaybeDecoded<K>>> + Send + 'static,
    store: Store<MaybeDecoded<K>>,
    work: W,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    W: for<'a> Fn(
        &'a Context,
        &'a Leading,
        &'a MaybeDecoded<K>,
    ) -> BoxFuture<'a, Result<Action, Error>>,
    W: Clone + Send + 'static,
{
    let Drive {
        which,
        concurrency,
        drain,
    } = how;
    let health = Arc::clone(&context.health);
    let requests = triggers.map({
        let health = Arc::clone(&health);
        move |object| {
            health.work_queued((which, object.namespace.clone(), object.name.clone()));
            Ok::<_, Infallible>(ReconcileRequest::from(object))
        }
    });
    let queue = requests.take_until(async move { drain.begun().await });
    let reconcile = move |object: Arc<MaybeDecoded<K>>, context: Arc<Context>| {
        let work = work.clone();
        let span = info_span!("reconcile", kind = %K::kind(&()), namespace = object.namespace(), name = object.name_any());
        async move { once(which, &context, &object, work).await }
            .instrument(span)
            .boxed()
    };
    let retry = |_: Arc<_>, error: &Error, _: Arc<_>| {
        Action::requeue(if error.reason() == FailureReason::Conflict {
            RETRY_CONFLICT
        } else {
            RETRY
        })
    };
    let config = Config::default().concurrency(concurrency);
    let results = applier(reconcile, retry, context, store, queue, config);
    // What a reconciliation has to say it has said itself; an object that is gone has nothing to be done about.
    results
        .for_each(|result| {
            let work = match result {
                Ok((object, _)) => Some((which, object.namespace, object.name)),
                Err(
                    controller::Error::ReconcilerFailed(_, object)
                    | controller::Error::ObjectNotFound(object),
                ) => Some((which, object.namespace, object.name)),
                Err(controller::Error::QueueError(_) | controller::Error::RunnerError(_)) => None,
            };
            work.inspect(|work| health.work_done(work));
            std::future::ready(())
        })
        .await;
}

/// One reconciliation of one object, if this replica leads.
async fn once<K, W>(
    which: Loop,
    context: &Context,
    object: &MaybeDecoded<K>,
    work: W,
) -> Result<Action, Error>
where
    W: for<'a> Fn(
        &'a Context,
        &'a Leading,
        &'a MaybeDecoded<K>,
    ) -> BoxFuture<'a, Result<Action, Error>>,
{
    let Ok(leading) = context.fence.leading() else {
        return Ok(Action::requeue(RETRY));
    };
    let reconciliation = context.metrics.reconcile.begin(which);
    let result = work(context, &leading, object).await;
    match &result {
        Ok(action) if *action == Action::await_change() => reconciliation.succeed(),
        Ok(_) => reconciliation.requeue(),
        Err(error) => {
            match error.reason() {
                FailureReason::Conflict | FailureReason::NotLeading => {
                    debug!(error = %causes(error), "tried again")
                }
                _ => warn!(error = %causes(error), "tried again"),
            }
            reconciliation.fail(error.reason());
        }
    }
    result
}

/// Which offers to look at: all of them at first, and then those that a change concerns.
fn offer_triggers(
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
    let concerned = {
        let all = all.clone();
        move |change: CacheChange| match change {
            CacheChange::Offer { namespace, name } => vec![named((namespace, name))],
            CacheChange::Record { offers, .. } => offers.into_iter().map(named).collect(),
            CacheChange::Registry(_) => all(),
            CacheChange::Namespace(namespace) => all()
                .into_iter()
                .filter(|offer| offer.namespace.as_ref() == Some(&namespace))
                .collect(),
            CacheChange::Service { namespace, name } => sold_by(&store, &namespace, &name),
        }
    };
    let changes = triggers(context.cache.changes(), all.clone(), concerned);
    let issues = triggers(context.issues.changes(), all, move |offer| {
        vec![named(offer)]
    });
    stream::select(changes, issues)
}

/// Offers whose upstream is a Service.
fn sold_by(
    store: &Store<MaybeDecoded<ServiceOffer>>,
    namespace: &str,
    name: &str,
) -> Vec<ObjectRef<MaybeDecoded<ServiceOffer>>> {
    let sells = |offer: &MaybeDecoded<ServiceOffer>| {
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
        .filter(|offer| sells(offer))
        .map(|offer| ObjectRef::from_obj(&**offer))
        .collect()
}

/// Which registries to look at: all of them, whatever changes. There are few, and a turn without work is cheap.
fn registry_triggers(
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
    let concerned = {
        let all = all.clone();
        move |change| match change {
            CacheChange::Registry(name) => vec![ObjectRef::new(&name)],
            _ => all(),
        }
    };
    triggers(context.cache.changes(), all, concerned)
}

/// Everything at first, every now and then, and when changes were missed; otherwise what a change concerns.
fn triggers<T, O>(
    changes: broadcast::Receiver<T>,
    all: impl Fn() -> Vec<O> + Send + 'static,
    concerned: impl Fn(T) -> Vec<O> + Send + 'static,
) -> impl Stream<Item = O> + Send + 'static
where
    T: Clone + Send + 'static,
    O: Send + 'static,
{
    // The first tick comes at once.
    let state = (changes, tokio::time::interval(RESYNC), all, concerned);
    let batches = stream::unfold(
        state,
        |(mut changes, mut resync, all, concerned)| async move {
            let batch = tokio::select! {
                _ = resync.tick() => all(),
                change = changes.recv() => match change {
                    Ok(change) => concerned(change),
                    Err(RecvError::Lagged(_)) => all(),
                    Err(RecvError::Closed) => return None,
                },
            };
            Some((stream::iter(batch), (changes, resync, all, concerned)))
        },
    );
    batches.flatten()
}
