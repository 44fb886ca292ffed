//! Schedules the reconciles of one loop.
//!
//! It uses [`applier`], the scheduler inside `kube::runtime::Controller`: it queues requests,
//! reconciles each object at most once at a time, and honors requeues. `Controller` itself does not
//! fit. It opens watches and keeps a store of its own, but here one cache is filled on every
//! replica (standbys serve documents from it), loops start and stop with each term, and some
//! triggers are not watch events ([`super::issues`]). A queue that ends also gives the drain its
//! meaning: nothing new starts, and running reconciles finish.
//!
//! Which objects are requested is decided in [`super::triggers`].

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::controller::{self, Action, Config, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tracing::{Instrument, debug, info_span, warn};

use super::{Context, Error};
use crate::cluster::MaybeDecoded;
use crate::leader::{Drain, Leading};
use crate::metrics::{FailureReason, Loop};
use crate::telemetry::causes;

/// Delay before a failed reconcile is retried.
const RETRY: Duration = Duration::from_secs(2);
/// Delay after a conflict: another writer was faster, and a fresh read resolves it.
const RETRY_CONFLICT: Duration = Duration::from_millis(200);

/// How one loop runs.
pub(super) struct LoopSettings {
    pub which: Loop,
    pub concurrency: u16,
    pub drain: Drain,
}

/// Reconciles every object that `triggers` names, until the drain begins and running reconciles
/// have finished.
pub(super) async fn drive<K, R>(
    settings: LoopSettings,
    context: Arc<Context>,
    triggers: impl Stream<Item = ObjectRef<MaybeDecoded<K>>> + Send + 'static,
    store: Store<MaybeDecoded<K>>,
    reconcile: R,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    R: for<'a> Fn(
        &'a Context,
        &'a Leading,
        &'a MaybeDecoded<K>,
    ) -> BoxFuture<'a, Result<Action, Error>>,
    R: Clone + Send + 'static,
{
    let LoopSettings {
        which,
        concurrency,
        drain,
    } = settings;
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
        let reconcile = reconcile.clone();
        let span = info_span!(
            "reconcile",
            kind = %K::kind(&()),
            namespace = object.namespace(),
            name = object.name_any()
        );
        async move { reconcile_once(which, &context, &object, reconcile).await }
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
    // A reconcile reports its own outcome. An object that is gone needs nothing.
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

/// Reconciles one object once, if this replica leads, and counts the outcome.
async fn reconcile_once<K, R>(
    which: Loop,
    context: &Context,
    object: &MaybeDecoded<K>,
    reconcile: R,
) -> Result<Action, Error>
where
    R: for<'a> Fn(
        &'a Context,
        &'a Leading,
        &'a MaybeDecoded<K>,
    ) -> BoxFuture<'a, Result<Action, Error>>,
{
    let Ok(leading) = context.fence.leading() else {
        return Ok(Action::requeue(RETRY));
    };
    let reconciliation = context.metrics.reconcile.begin(which);
    let result = reconcile(context, &leading, object).await;
    match &result {
        Ok(action) if *action == Action::await_change() => reconciliation.succeed(),
        Ok(_) => reconciliation.requeue(),
        Err(error) => {
            match error.reason() {
                FailureReason::Conflict | FailureReason::NotLeading => {
                    debug!(error = %causes(error), "reconcile failed, will retry")
                }
                _ => warn!(error = %causes(error), "reconcile failed, will retry"),
            }
            reconciliation.fail(error.reason());
        }
    }
    result
}
