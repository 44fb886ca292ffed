//! The elector: carries out what [`super::lease`] decides on the Lease of a real API server.
//!
//! It runs on a thread and a connection pool of its own, so that nothing a reconciler does can delay a renewal. It never
//! decides: each event of the world becomes one input, each action one effect. What the fence protects is not its
//! business, and its own writes to the Lease are the only ones that need no proof of leadership: they make it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryStreamExt};
use jiff::{Timestamp, Unit};
use k8s_openapi::api::coordination::v1::{Lease as StoredLease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::drain::Drain;
use super::fence::Fence;
use super::lease::{Action, Attempt, Candidate, Exit, Input};
use super::record::{Chance, Config, Lease, Moment, Now, Record, Version};
use crate::health::Health;
use crate::metrics::Election;
use crate::telemetry::causes;

/// Uid of the Pod that wrote the record: what tells a Pod's next container from a stranger of the same name.
const POD_UID_ANNOTATION: &str = "obol.org/holder-pod-uid";
/// How often the elector goes round at least, to show that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a read of one small object may take.
const READ_BUDGET: Duration = Duration::from_secs(3);
/// Delays between two attempts to watch: doubling from the first to the second, shortened by chance.
const WATCH_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Everything an elector needs.
#[derive(Debug)]
pub struct Elector {
    /// How this candidate takes part.
    pub config: Config,
    /// Name of the Lease.
    pub name: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// What it opens and closes.
    pub fence: Fence,
    /// How it asks the work to come to rest.
    pub drain: Drain,
    /// How long it waits for that.
    pub drain_budget: Duration,
    /// What it tells of itself.
    pub metrics: Election,
    /// Whom it tells that it is alive.
    pub health: Arc<Health>,
}

impl Elector {
    /// Takes part until the process should end, and says why. `leave` resolves when the process is asked to end.
    ///
    /// `client` must have no retry layer: a write that is repeated behind the elector's back is one whose moment of
    /// sending it does not know.
    pub async fn run(self, client: Client, leave: impl Future<Output = ()>) -> Exit {
        let api: Api<StoredLease> = Api::namespaced(client, &self.namespace);
        let (sender, mut sightings) = mpsc::channel(16);
        let watching = tokio::spawn(watch(api.clone(), self.name.clone(), self.config.lease_duration, sender));
        let exit = self.take_part(api, &mut sightings, leave).await;
        watching.abort();
        exit
    }

    async fn take_part(
        self,
        api: Api<StoredLease>,
        sightings: &mut mpsc::Receiver<Event>,
        leave: impl Future<Output = ()>,
    ) -> Exit {
        let clock = Clock { origin: Instant::now() };
        let (mut candidate, mut actions) = Candidate::new(self.config.clone(), clock.now());
        let mut world =
            World { elector: &self, api, clock, latest: None, replies: FuturesUnordered::new(), draining: None };
        let leave = leave.fuse();
        tokio::pin!(leave);
        loop {
            for action in actions {
                if let Some(exit) = world.carry_out(action) {
                    return exit;
                }
            }
            self.health.beat();
            let draining = world.draining;
            let event = tokio::select! {
                biased;
                () = &mut leave => Event::Input(Input::Leave),
                Some(event) = world.replies.next() => event,
                Some(event) = sightings.recv() => event,
                () = self.drain.finished(), if draining.is_some() => Event::Input(Input::Drained),
                () = until(draining) => Event::Input(Input::DrainTimedOut),
                () = until(candidate.wake().map(|wake| clock.instant(wake))) => Event::Input(Input::Tick),
                () = sleep(HEARTBEAT) => Event::Input(Input::Tick),
            };
            let input = world.take_in(event);
            debug!(?input, "election input");
            actions = candidate.step(input, clock.now());
        }
    }
}

/// Sleeps until then, or for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What happened, with the object that came with it.
#[derive(Debug)]
enum Event {
    Seen(Box<StoredLease>),
    Written(Attempt, Box<StoredLease>),
    Input(Input),
}

/// The elector's hands: everything it holds between two steps of the candidate.
struct World<'a> {
    elector: &'a Elector,
    api: Api<StoredLease>,
    clock: Clock,
    /// The newest object that came in. A write starts from it, so that fields of others are kept.
    latest: Option<StoredLease>,
    replies: FuturesUnordered<BoxFuture<'static, Event>>,
    /// The end of the patience with the work, once it has been asked to come to rest.
    draining: Option<Instant>,
}

impl World<'_> {
    fn take_in(&mut self, event: Event) -> Input {
        match event {
            Event::Seen(stored) => {
                let lease = read(&stored);
                self.keep(*stored);
                Input::Seen(lease)
            }
            Event::Written(attempt, stored) => {
                let lease = read(&stored);
                self.keep(*stored);
                self.elector.metrics.renewed();
                Input::Written(attempt, lease)
            }
            Event::Input(input) => {
                if matches!(input, Input::Unanswered(_) | Input::Refused(_)) {
                    self.elector.metrics.renewal_failed();
                }
                if matches!(input, Input::Drained | Input::DrainTimedOut) {
                    self.draining = None;
                }
                input
            }
        }
    }

    fn keep(&mut self, stored: StoredLease) {
        let older = self.latest.as_ref().is_some_and(|latest| version(&stored).precedes(&version(latest)));
        if !older {
            self.latest = Some(stored);
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Exit> {
        debug!(?action, "election action");
        let elector = self.elector;
        match action {
            Action::Read => {
                let (api, name) = (self.api.clone(), elector.name.clone());
                self.replies.push(async move { look(&api, &name).await }.boxed());
            }
            Action::Create(attempt, record) => {
                let lease = write(elector, None, record);
                let api = self.api.clone();
                self.send(attempt, async move { api.create(&PostParams::default(), &lease).await });
            }
            Action::Replace(attempt, expected, record) => {
                let Some(latest) = self.latest.as_ref().filter(|latest| version(latest) == expected) else {
                    // The object at hand is newer than the decision: the API server would refuse the write as well.
                    self.replies.push(std::future::ready(Event::Input(Input::Refused(attempt))).boxed());
                    return None;
                };
                let lease = write(elector, Some(latest), record);
                let (api, name) = (self.api.clone(), elector.name.clone());
                self.send(attempt, async move { api.replace(&name, &PostParams::default(), &lease).await });
            }
            Action::Open { epoch, soft_end, hard_end } => {
                elector.metrics.leads(true);
                elector.fence.open(epoch, self.clock.instant(soft_end), self.clock.instant(hard_end));
            }
            Action::Close => {
                elector.fence.close();
                elector.metrics.leads(false);
            }
            Action::Drain => {
                elector.drain.begin();
                self.draining = Some(Instant::now() + elector.drain_budget);
            }
            Action::Announce(holder) => {
                elector.metrics.transition();
                info!(leader = holder, "new leader is {holder}");
            }
            Action::Exit(exit) => {
                match exit {
                    Exit::Clean => info!("no longer a candidate"),
                    Exit::Unreleased => {
                        warn!("no longer a candidate; the lease was not released and runs out by itself")
                    }
                    Exit::Lost => warn!("the lease is lost"),
                }
                return Some(exit);
            }
        }
        None
    }

    fn send(
        &mut self,
        attempt: Attempt,
        write: impl Future<Output = Result<StoredLease, kube::Error>> + Send + 'static,
    ) {
        // Slow is not dead: the candidate sends a twin long before, and this one keeps its chance.
        let budget = self.elector.config.renew_deadline;
        self.replies.push(
            async move {
                match timeout(budget, write).await {
                    Ok(Ok(lease)) => Event::Written(attempt, Box::new(lease)),
                    // A conflict, an object that exists already, or one that is gone: all say that a read is due.
                    Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                        Event::Input(Input::Refused(attempt))
                    }
                    Ok(Err(error)) => {
                        warn!(error = %causes(&error), "the lease was not written");
                        Event::Input(Input::Unanswered(attempt))
                    }
                    Err(_) => {
                        warn!(seconds = budget.as_secs(), "the API server did not answer a write to the lease");
                        Event::Input(Input::Unanswered(attempt))
                    }
                }
            }
            .boxed(),
        );
    }
}

/// Reads the Lease as the API server has it at this moment.
async fn look(api: &Api<StoredLease>, name: &str) -> Event {
    match timeout(READ_BUDGET, api.get_opt(name)).await {
        Ok(Ok(Some(lease))) => Event::Seen(Box::new(lease)),
        Ok(Ok(None)) => Event::Input(Input::Absent),
        Ok(Err(error)) => {
            warn!(error = %causes(&error), "the lease was not read");
            Event::Input(Input::ReadFailed)
        }
        Err(_) => {
            warn!(seconds = READ_BUDGET.as_secs(), "the API server did not answer a read of the lease");
            Event::Input(Input::ReadFailed)
        }
    }
}

/// Tells every change of the Lease, for as long as anyone listens.
async fn watch(api: Api<StoredLease>, name: String, lease_duration: Duration, sightings: mpsc::Sender<Event>) {
    let mut failures = 0;
    while !sightings.is_closed() {
        let begun = Instant::now();
        if let Err(error) = watch_once(&api, &name, lease_duration, &sightings).await {
            debug!(error = %causes(&error), "the watch of the lease broke");
        }
        failures = if begun.elapsed() > WATCH_BACKOFF.1 { 0 } else { failures + 1 };
        let ceiling = WATCH_BACKOFF.0.saturating_mul(1 << failures.min(8)).min(WATCH_BACKOFF.1);
        sleep(chance().of(ceiling)).await;
    }
}

/// Lists, so that nothing between two watches is missed, and then watches until the stream ends.
async fn watch_once(
    api: &Api<StoredLease>,
    name: &str,
    lease_duration: Duration,
    sightings: &mpsc::Sender<Event>,
) -> Result<(), kube::Error> {
    let selector = format!("metadata.name={name}");
    let list = api.list(&ListParams::default().fields(&selector)).await?;
    let first = match list.items.into_iter().next() {
        Some(lease) => Event::Seen(Box::new(lease)),
        None => Event::Input(Input::Absent),
    };
    let _ = sightings.send(first).await;
    let seconds = u32::try_from(lease_duration.as_secs()).unwrap_or(u32::MAX).clamp(1, 290);
    let parameters = WatchParams::default().fields(&selector).timeout(seconds);
    let version = list.metadata.resource_version.unwrap_or_default();
    let mut stream = api.watch(&parameters, &version).await?.boxed();
    while let Some(event) = stream.try_next().await? {
        let event = match event {
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => Event::Seen(Box::new(lease)),
            WatchEvent::Deleted(_) => Event::Input(Input::Absent),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        };
        let _ = sightings.send(event).await;
    }
    Ok(())
}

/// The process's monotonic clock, as moments since the elector started.
#[derive(Clone, Copy)]
struct Clock {
    origin: Instant,
}

impl Clock {
    fn now(self) -> Now {
        let wall = Timestamp::now().round(Unit::Microsecond).unwrap_or_default();
        Now { moment: Moment(self.origin.elapsed()), wall, chance: chance() }
    }

    fn instant(self, moment: Moment) -> Instant {
        self.origin + moment.0
    }
}

fn chance() -> Chance {
    Chance(rand::rng().random())
}

fn version(stored: &StoredLease) -> Version {
    Version(stored.metadata.resource_version.clone().unwrap_or_default())
}

/// The Lease as the candidate knows it. Absent fields read as client-go reads them: no holder, no time, no transition.
fn read(stored: &StoredLease) -> Lease {
    let spec = stored.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    let annotations = stored.metadata.annotations.as_ref();
    Lease {
        record: Record {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        },
        pod_uid: annotations.and_then(|annotations| annotations.get(POD_UID_ANNOTATION).cloned()),
        uid: stored.metadata.uid.clone().unwrap_or_default(),
        version: version(stored),
    }
}

/// The Lease to store. Everything that is not this elector's business stays as it was.
fn write(elector: &Elector, latest: Option<&StoredLease>, record: Record) -> StoredLease {
    let mut lease = latest.cloned().unwrap_or_else(|| StoredLease {
        metadata: ObjectMeta {
            name: Some(elector.name.clone()),
            namespace: Some(elector.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    // The server keeps those; a stale copy of them would only make the request larger.
    lease.metadata.managed_fields = None;
    let annotations = lease.metadata.annotations.get_or_insert_default();
    match elector.config.pod_uid.as_ref().filter(|_| !record.holder.is_empty()) {
        Some(uid) => annotations.insert(POD_UID_ANNOTATION.into(), uid.clone()),
        None => annotations.remove(POD_UID_ANNOTATION),
    };
    let kept = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder),
        lease_duration_seconds: Some(i32::try_from(record.duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..kept
    });
    lease
}
