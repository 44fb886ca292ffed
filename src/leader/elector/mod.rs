//! The elector: carries out what [`super::candidate`] decides on the Lease of a real API server.
//!
//! It runs on a thread and a connection pool of its own, so that nothing a reconciler does can delay a renewal. It never
//! decides: each event of the world becomes one input, each action one effect. What the fence protects is not its
//! business, and its own writes, to the Lease and to the marks of Pods, are the only ones that need no proof of leadership:
//! they make it.
//!
//! - [`lease_object`] is how values stand in the Lease object (pure)
//! - [`read`] and [`mod@watch`] tell how the Lease stands
//! - [`pods`] marks the leader's Pod, and tells of containers that ended

mod lease_object;
mod pods;
mod read;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::PostParams;
use kube::runtime::events::{self, EventType, Recorder, Reporter};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, info, warn};

use self::pods::Pods;
use self::read::LeaseReader;
use self::watch::LeaseWatch;
use super::candidate::{Action, Candidate, ElectionConfig, Exit, Input, WriteId};
use super::clock::Clock;
use super::drain::Drain;
use super::fence::{Fence, TermEnd};
use super::lease::TakeoverCause;
use super::time::Moment;
use crate::health::Health;
use crate::metrics::{ElectionMetrics, RenewError, Takeover};
use crate::telemetry::causes;

pub use self::pods::write_termination_log;

/// How often the elector goes round at least, to show that it is alive and to see that the work is.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long telling people about an election may take.
const EVENT_BUDGET: Duration = Duration::from_secs(1);
/// Name under which events are told.
const REPORTER: &str = "serviceoffer-controller";

/// Everything an elector needs.
#[derive(Debug)]
pub struct Elector {
    /// How this candidate takes part.
    pub config: ElectionConfig,
    /// Name of the Lease.
    pub name: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Namespace of the Pods of all candidates.
    pub pod_namespace: String,
    /// Whether the kubelet's word that the holder's container terminated is listened to.
    pub early_takeover: bool,
    /// What it opens and closes.
    pub fence: Fence,
    /// How it asks the work to come to rest.
    pub drain: Drain,
    /// How long it waits for that.
    pub drain_budget: Duration,
    /// What it tells of itself.
    pub metrics: ElectionMetrics,
    /// Whom it tells that it is alive, and whom it asks whether the work is.
    pub health: Arc<Health>,
}

/// How an elector ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectorExit {
    /// What became of the Lease.
    pub exit: Exit,
    /// It left because the work had come to a standstill.
    pub stalled: bool,
}

impl Elector {
    /// Takes part until the process should end, and says why. `leave` resolves when the process is asked to end.
    ///
    /// `client` must have no retry layer: a write that is repeated behind the elector's back is one whose moment of
    /// sending it does not know.
    pub async fn run(self, client: Client, leave: impl Future<Output = ()>) -> ElectorExit {
        let (sender, events) = mpsc::channel(16);
        let (attended, holder) = tokio::sync::watch::channel(None);
        let pods = Pods {
            api: Api::namespaced(client.clone(), &self.pod_namespace),
            own: self.config.identity.clone(),
        };
        let reader = LeaseReader {
            api: Api::namespaced(client.clone(), &self.namespace),
            name: self.name.clone(),
            clock: self.fence.clock(),
        };
        let watch = LeaseWatch {
            reader: reader.clone(),
            period: self.config.retry_period,
            silence: self.config.lease_duration,
            events: sender.clone(),
            metrics: self.metrics.clone(),
        };
        let mut background = JoinSet::new();
        background.spawn(watch.run());
        if self.early_takeover {
            background.spawn(pods.clone().attend(holder, sender));
        }
        let reporter = Reporter {
            controller: REPORTER.into(),
            instance: Some(self.config.identity.clone()),
        };
        let world = ElectorContext {
            reader,
            pods,
            recorder: Recorder::new(client, reporter),
            clock: self.fence.clock(),
            latest: None,
            replies: FuturesUnordered::new(),
            clearing: None,
            marking: None,
            draining: None,
            attended,
            has_led: false,
            stalled: false,
            background,
            elector: self,
        };
        world.take_part(events, leave).await
    }
}

/// Sleeps until then, or for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits for work, which is then gone, or for ever.
async fn done<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    let result = match work {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    };
    *work = None;
    result
}

/// What happened, with the object that came with it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few are alive at a time")]
enum ElectorEvent {
    Seen(Box<LeaseObject>),
    Read(Box<LeaseObject>, Moment),
    Written(WriteId, Box<LeaseObject>, Duration),
    Input(Input),
}

/// The elector's hands: everything it holds between two steps of the candidate.
struct ElectorContext {
    elector: Elector,
    reader: LeaseReader,
    pods: Pods,
    recorder: Recorder,
    clock: Clock,
    /// The newest object that came in, and when. A write starts from it, so that fields of others are kept.
    latest: Option<(LeaseObject, Moment)>,
    replies: FuturesUnordered<BoxFuture<'static, ElectorEvent>>,
    /// Takes an earlier container's mark from the Pod of this replica: to be done before it is marked anew.
    clearing: Option<JoinHandle<()>>,
    /// Marks the Pod of this replica, for the last term that asked for it, and finds out whether there are rivals.
    marking: Option<BoxFuture<'static, BTreeSet<String>>>,
    /// The end of the patience with the work, once it has been asked to come to rest.
    draining: Option<Instant>,
    /// Tells whose Pod is attended to.
    attended: tokio::sync::watch::Sender<Option<String>>,
    has_led: bool,
    stalled: bool,
    /// What ends with the elector.
    background: JoinSet<()>,
}

impl ElectorContext {
    async fn take_part(
        mut self,
        mut events: mpsc::Receiver<ElectorEvent>,
        leave: impl Future<Output = ()>,
    ) -> ElectorExit {
        if self.elector.config.marks {
            // An earlier container of this Pod may have led.
            let pods = self.pods.clone();
            self.clearing = Some(tokio::spawn(async move {
                pods.unmark(|name| name == pods.own).await
            }));
        }
        let (mut candidate, mut actions) =
            Candidate::new(self.elector.config.clone(), self.clock.now());
        let leave = leave.fuse();
        tokio::pin!(leave);
        // Counted whatever else happens: a leader that renews more often than that has to look as well.
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for action in actions {
                if let Some(exit) = self.carry_out(action) {
                    return self.depart(exit).await;
                }
            }
            self.elector.health.heartbeat();
            let (clock, draining, drain) = (self.clock, self.draining, self.elector.drain.clone());
            let event = tokio::select! {
                biased;
                () = &mut leave => ElectorEvent::Input(Input::Stop),
                Some(event) = self.replies.next() => event,
                rivals = done(&mut self.marking) => ElectorEvent::Input(Input::Marked { rivals }),
                Some(event) = events.recv() => event,
                Some(ended) = self.background.join_next() => {
                    // An elector that does not hear any more must not look alive.
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    ElectorEvent::Input(Input::Tick)
                }
                () = drain.finished(), if draining.is_some() => ElectorEvent::Input(Input::Drained),
                () = until(draining) => ElectorEvent::Input(Input::DrainTimedOut),
                () = until(candidate.next_wake().map(|wake| clock.instant(wake))) => ElectorEvent::Input(Input::Tick),
                _ = heartbeat.tick() => ElectorEvent::Input(self.look_after_the_work()),
            };
            let input = self.take_in(event);
            debug!(?input, "election input");
            actions = candidate.step(input, clock.now());
        }
    }

    /// A leader whose loops stand still while work waits makes room for one whose loops move.
    fn look_after_the_work(&mut self) -> Input {
        match self.elector.health.stalled_for() {
            Some(standstill) if !self.stalled => {
                warn!(
                    seconds = standstill.as_secs(),
                    "work waits and nothing has been done: stepping down"
                );
                self.stalled = true;
                Input::Stop
            }
            _ => Input::Tick,
        }
    }

    fn take_in(&mut self, event: ElectorEvent) -> Input {
        match event {
            ElectorEvent::Seen(stored) => {
                let lease = lease_object::parse(&stored);
                self.keep(*stored, None);
                Input::Watched(lease)
            }
            ElectorEvent::Read(stored, asked) => {
                let lease = lease_object::parse(&stored);
                self.keep(*stored, Some(asked));
                Input::Read(lease, asked)
            }
            ElectorEvent::Written(write_id, stored, took) => {
                let lease = lease_object::parse(&stored);
                self.keep(*stored, None);
                self.elector.metrics.renewed(took);
                Input::Written(write_id, lease)
            }
            ElectorEvent::Input(input) => {
                if matches!(input, Input::Drained | Input::DrainTimedOut) {
                    self.draining = None;
                }
                input
            }
        }
    }

    /// Keeps an object, unless it is older than the one at hand. If it was asked for after that one came in, it is not older:
    /// the store went back.
    fn keep(&mut self, stored: LeaseObject, asked: Option<Moment>) {
        let older = self.latest.as_ref().is_some_and(|(latest, since)| {
            lease_object::resource_version(&stored)
                .precedes(&lease_object::resource_version(latest))
                && asked.is_none_or(|asked| asked <= *since)
        });
        if !older {
            let lease = lease_object::parse(&stored);
            let stranger = lease.record.holder != self.elector.config.identity;
            let attended = lease
                .instance
                .filter(|_| stranger)
                .map(|_| lease.record.holder);
            self.attended
                .send_if_modified(|name| std::mem::replace(name, attended.clone()) != attended);
            self.latest = Some((stored, self.clock.moment()));
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Exit> {
        debug!(?action, "election action");
        let elector = &self.elector;
        match action {
            Action::Read => {
                if !elector.fence.remaining().is_zero() {
                    elector.metrics.slow_path();
                }
                let reader = self.reader.clone();
                self.replies
                    .push(async move { reader.read().await }.boxed());
            }
            Action::Create(write_id, record) => {
                let lease = lease_object::build(
                    &elector.config,
                    (&elector.namespace, &elector.name),
                    None,
                    record,
                );
                let api = self.reader.api.clone();
                self.send(write_id, true, async move {
                    api.create(&PostParams::default(), &lease).await
                });
            }
            Action::Update(write_id, expected, record) => {
                let latest = self.latest.as_ref().map(|(latest, _)| latest);
                let Some(latest) =
                    latest.filter(|latest| lease_object::resource_version(latest) == expected)
                else {
                    // The object at hand is newer than the decision: the API server would refuse the write as well.
                    self.replies.push(
                        std::future::ready(ElectorEvent::Input(Input::Conflict(write_id))).boxed(),
                    );
                    return None;
                };
                let lease = lease_object::build(
                    &elector.config,
                    (&elector.namespace, &elector.name),
                    Some(latest),
                    record,
                );
                let (api, name) = (self.reader.api.clone(), elector.name.clone());
                self.send(write_id, false, async move {
                    api.replace(&name, &PostParams::default(), &lease).await
                });
            }
            Action::MarkPod(lease) => {
                let (pods, clearing) = (self.pods.clone(), self.clearing.take());
                let marking = async move {
                    if let Some(clearing) = clearing {
                        // Whether it went well does not matter, only that it is over.
                        let _ = clearing.await;
                    }
                    pods.mark(&lease).await;
                    pods.rivals(&lease).await
                };
                self.marking = Some(marking.boxed());
            }
            Action::BeginTerm { cause, waited } => {
                info!(?cause, milliseconds = waited.as_millis(), "a term begins");
                elector.metrics.acquired(takeover(cause), waited);
                self.begin();
            }
            Action::OpenFence {
                epoch,
                soft_end,
                hard_end,
                wall_end,
            } => {
                elector.metrics.leads(true);
                elector.metrics.epoch(&epoch.version.0);
                elector.fence.open(
                    epoch,
                    TermEnd {
                        soft_end,
                        hard_end,
                        wall_end,
                    },
                );
            }
            Action::CloseFence => {
                elector.fence.close();
                elector.metrics.leads(false);
            }
            Action::Drain => {
                elector.drain.begin();
                self.draining = Some(Instant::now() + elector.drain_budget);
            }
            Action::AnnounceLeader(holder) => {
                elector.metrics.transition();
                info!(leader = holder, "new leader is {holder}");
            }
            Action::Exit(exit) => {
                match exit {
                    Exit::Clean => info!("no longer a candidate"),
                    Exit::Unreleased => {
                        warn!(
                            "no longer a candidate; a lease that it holds was not released and runs out by itself"
                        )
                    }
                    Exit::Lost => warn!("the lease is lost"),
                }
                return Some(exit);
            }
        }
        None
    }

    /// `creates` tells a namespace that is not there from a Lease that is gone.
    fn send(
        &mut self,
        write_id: WriteId,
        creates: bool,
        write: impl Future<Output = Result<LeaseObject, kube::Error>> + Send + 'static,
    ) {
        // Slow is not dead: the candidate sends a twin long before, and this one keeps its chance.
        let budget = self.elector.config.renew_deadline;
        let metrics = self.elector.metrics.clone();
        self.replies.push(
            async move {
                let begun = Instant::now();
                match timeout(budget, write).await {
                    Ok(Ok(lease)) => {
                        ElectorEvent::Written(write_id, Box::new(lease), begun.elapsed())
                    }
                    // A conflict, an object that exists already, or one that is gone: all say that a read is due.
                    Ok(Err(kube::Error::Api(status)))
                        if status.code == 409 || status.code == 404 && !creates =>
                    {
                        metrics.renewal_failed(RenewError::Conflict);
                        ElectorEvent::Input(Input::Conflict(write_id))
                    }
                    Ok(Err(error)) => {
                        metrics.renewal_failed(match error {
                            kube::Error::Api(_) => RenewError::Refused,
                            _ => RenewError::Unreachable,
                        });
                        warn!(error = %causes(&error), "the lease was not written");
                        ElectorEvent::Input(Input::OutcomeUnknown(write_id))
                    }
                    Err(_) => {
                        metrics.renewal_failed(RenewError::Timeout);
                        warn!(
                            seconds = budget.as_secs(),
                            "the API server did not answer a write to the lease"
                        );
                        ElectorEvent::Input(Input::OutcomeUnknown(write_id))
                    }
                }
            }
            .boxed(),
        );
    }

    /// A term begins: people are told, and the mark is taken from whoever led before.
    fn begin(&mut self) {
        self.has_led = true;
        let (recorder, event, lease) = (
            self.recorder.clone(),
            self.event("Acquire", "became leader"),
            self.reference(),
        );
        self.background
            .spawn(async move { publish(recorder, event, lease).await });
        if self.elector.config.marks {
            let (pods, fence) = (self.pods.clone(), self.elector.fence.clone());
            // Once another leads, the mark is that one's.
            self.background.spawn(async move {
                pods.unmark(|name| name != pods.own && !fence.remaining().is_zero())
                    .await;
            });
        }
    }

    async fn depart(self, exit: Exit) -> ElectorExit {
        if self.has_led {
            publish(
                self.recorder.clone(),
                self.event("Release", "stopped leading"),
                self.reference(),
            )
            .await;
        }
        ElectorExit {
            exit,
            stalled: self.stalled,
        }
    }

    /// What client-go tells about an election, in its words. Events of one action are taken for repetitions of the first.
    fn event(&self, action: &str, what: &str) -> events::Event {
        events::Event {
            type_: EventType::Normal,
            reason: "LeaderElection".into(),
            note: Some(format!("{} {what}", self.elector.config.identity)),
            action: action.into(),
            secondary: None,
        }
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("coordination.k8s.io/v1".into()),
            kind: Some("Lease".into()),
            namespace: Some(self.elector.namespace.clone()),
            name: Some(self.elector.name.clone()),
            uid: self
                .latest
                .as_ref()
                .and_then(|(lease, _)| lease.metadata.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

fn takeover(cause: TakeoverCause) -> Takeover {
    match cause {
        TakeoverCause::Creation => Takeover::Creation,
        TakeoverCause::Release => Takeover::Release,
        TakeoverCause::Expiry => Takeover::Expiry,
        TakeoverCause::Termination => Takeover::Termination,
        TakeoverCause::Reclaim => Takeover::Reclaim,
    }
}

/// Tells people, if that is quickly done.
async fn publish(recorder: Recorder, event: events::Event, lease: ObjectReference) {
    match timeout(EVENT_BUDGET, recorder.publish(&event, &lease)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = %causes(&error), "an event was not told"),
        Err(_) => debug!("an event was not told in time"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
