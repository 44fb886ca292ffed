//! The elector: carries out on the Lease of a real API server what [`super::candidate`] decides.
//!
//! It runs on its own thread and connection pool, so that nothing a reconciler does can delay a
//! renewal. It must not decide: every event becomes one input of the candidate, every action one
//! effect. It does not know what the fence protects. Its own writes, to the Lease and to the labels
//! of Pods, are the only ones that need no proof of leadership: they establish it.
//!
//! - [`lease_object`] maps the Lease object to the candidate's values (pure)
//! - [`read`], [`mod@watch`] and [`mod@write`] talk to the API server about the Lease
//! - [`pods`] marks the leader's Pod and reports containers that terminated
//! - [`publish`] records Kubernetes Events on the Lease

mod lease_object;
mod pods;
mod publish;
mod read;
mod watch;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use self::pods::Pods;
use self::publish::EventPublisher;
use self::read::LeaseReader;
use self::watch::LeaseWatch;
use self::write::LeaseWriter;
use super::candidate::{Action, Candidate, ElectionConfig, Exit, Input, WriteId};
use super::clock::Clock;
use super::drain::Drain;
use super::fence::{Fence, TermEnd};
use super::lease::{LeaseRecord, ResourceVersion, TakeoverCause};
use super::time::Moment;
use crate::health::Health;
use crate::metrics::{ElectionMetrics, Takeover};

pub use self::pods::write_termination_log;

/// Longest time between two rounds of the elector, in which it reports its heartbeat and checks
/// that the work makes progress.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// One candidate's configuration, and what it controls and reports to.
#[derive(Debug)]
pub struct Elector {
    /// Identity and timing.
    pub config: ElectionConfig,
    /// Name of the Lease.
    pub name: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Namespace of the Pods of all candidates.
    pub pod_namespace: String,
    /// Whether to take over as soon as the kubelet reports that the holder's container terminated.
    pub early_takeover: bool,
    /// Opened while this replica leads.
    pub fence: Fence,
    /// Started when this replica must step down gracefully.
    pub drain: Drain,
    /// How long a drain may take.
    pub drain_budget: Duration,
    /// Metrics of the election.
    pub metrics: ElectionMetrics,
    /// Receives the elector's heartbeat, and reports whether the work makes progress.
    pub health: Arc<Health>,
}

/// How an elector ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectorExit {
    /// What became of the Lease.
    pub exit: Exit,
    /// Whether it left because the work made no progress.
    pub stalled: bool,
}

impl Elector {
    /// Runs until the process should exit, and returns why. `leave` resolves when the process is
    /// asked to exit.
    ///
    /// `client` must have no retry layer: the elector counts a term from the moment it sent a
    /// write, and does not know that moment if the client repeats the write.
    pub async fn run(self, client: Client, leave: impl Future<Output = ()>) -> ElectorExit {
        let (sender, events) = mpsc::channel(16);
        let (watched_holder, holder) = tokio::sync::watch::channel(None);
        let pods = Pods {
            api: Api::namespaced(client.clone(), &self.pod_namespace),
            own: self.config.identity.clone(),
        };
        let reader = LeaseReader {
            api: Api::namespaced(client.clone(), &self.namespace),
            name: self.name.clone(),
            clock: self.fence.clock(),
        };
        let writer = LeaseWriter {
            api: reader.api.clone(),
            budget: self.config.renew_deadline,
            metrics: self.metrics.clone(),
        };
        let watch = LeaseWatch {
            reader: reader.clone(),
            poll_period: self.config.retry_period,
            silence: self.config.lease_duration,
            events: sender.clone(),
            metrics: self.metrics.clone(),
        };
        let mut background = JoinSet::new();
        background.spawn(watch.run());
        if self.early_takeover {
            background.spawn(pods.clone().watch_holders(holder, sender));
        }
        let context = ElectorContext {
            reader,
            writer,
            pods,
            publisher: EventPublisher::new(client, &self.config.identity),
            clock: self.fence.clock(),
            latest: None,
            replies: FuturesUnordered::new(),
            unmarking: None,
            marking: None,
            drain_deadline: None,
            watched_holder,
            has_led: false,
            stalled: false,
            background,
            elector: self,
        };
        context.run(events, leave).await
    }
}

/// Waits until an instant; indefinitely if there is none.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits for the work and removes it; waits indefinitely if there is none.
async fn finished<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    let result = match work {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    *work = None;
    result
}

/// An input of the candidate, with the Lease object that came with it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few are alive at a time")]
enum ElectorEvent {
    /// The watch delivered the Lease.
    Seen(Box<LeaseObject>),
    /// A read that was sent at this moment returned the Lease.
    Read(Box<LeaseObject>, Moment),
    /// A write succeeded after this time.
    Written(WriteId, Box<LeaseObject>, Duration),
    /// Anything that comes without an object.
    Input(Input),
}

/// Everything the elector holds between two steps of the candidate.
struct ElectorContext {
    elector: Elector,
    reader: LeaseReader,
    writer: LeaseWriter,
    pods: Pods,
    publisher: EventPublisher,
    clock: Clock,
    /// The newest object received, and when. Every write starts from it, so that fields owned by
    /// others are kept.
    latest: Option<(LeaseObject, Moment)>,
    replies: FuturesUnordered<BoxFuture<'static, ElectorEvent>>,
    /// Removes the leader label that an earlier container of this Pod may have left. Has to finish
    /// before the Pod is marked again.
    unmarking: Option<JoinHandle<()>>,
    /// Marks the Pod of this replica for the last term that asked for it, then looks for rivals.
    marking: Option<BoxFuture<'static, BTreeSet<String>>>,
    /// When a drain that has begun times out.
    drain_deadline: Option<Instant>,
    /// Name of the holder whose Pod is watched.
    watched_holder: tokio::sync::watch::Sender<Option<String>>,
    has_led: bool,
    stalled: bool,
    /// Tasks that end with the elector.
    background: JoinSet<()>,
}

impl ElectorContext {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<ElectorEvent>,
        leave: impl Future<Output = ()>,
    ) -> ElectorExit {
        if self.elector.config.marks {
            self.unmark_own_pod();
        }
        let (mut candidate, mut actions) =
            Candidate::new(self.elector.config.clone(), self.clock.now());
        let leave = leave.fuse();
        tokio::pin!(leave);
        // Ticks regardless of other events: a leader that renews more often than this has to check
        // the work as well.
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for action in actions {
                if let Some(exit) = self.carry_out(action) {
                    return self.exit(exit).await;
                }
            }
            self.elector.health.heartbeat();
            let (clock, drain_deadline) = (self.clock, self.drain_deadline);
            let drain = self.elector.drain.clone();
            let event = tokio::select! {
                biased;
                () = &mut leave => ElectorEvent::Input(Input::Stop),
                Some(event) = self.replies.next() => event,
                rivals = finished(&mut self.marking) => ElectorEvent::Input(Input::Marked { rivals }),
                Some(event) = events.recv() => event,
                Some(ended) = self.background.join_next() => {
                    // An elector whose watch panicked receives nothing any more and must not look
                    // alive.
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    ElectorEvent::Input(Input::Tick)
                }
                () = drain.finished(), if drain_deadline.is_some() => ElectorEvent::Input(Input::Drained),
                () = until(drain_deadline) => ElectorEvent::Input(Input::DrainTimedOut),
                () = until(candidate.next_wake().map(|wake| clock.instant(wake))) => ElectorEvent::Input(Input::Tick),
                _ = heartbeat.tick() => ElectorEvent::Input(self.check_progress()),
            };
            let input = self.take_in(event);
            debug!(?input, "election input");
            actions = candidate.step(input, clock.now());
        }
    }

    /// Steps down if work is waiting and the reconcile loops make no progress, so that another
    /// replica can do it.
    fn check_progress(&mut self) -> Input {
        match self.elector.health.stalled_for() {
            Some(stalled_for) if !self.stalled => {
                warn!(
                    seconds = stalled_for.as_secs(),
                    "work is waiting but the reconcile loops make no progress, stepping down"
                );
                self.stalled = true;
                Input::Stop
            }
            _ => Input::Tick,
        }
    }

    fn take_in(&mut self, event: ElectorEvent) -> Input {
        match event {
            ElectorEvent::Seen(object) => {
                let lease = lease_object::parse(&object);
                self.keep_latest(*object, None);
                Input::Watched(lease)
            }
            ElectorEvent::Read(object, asked) => {
                let lease = lease_object::parse(&object);
                self.keep_latest(*object, Some(asked));
                Input::Read(lease, asked)
            }
            ElectorEvent::Written(write_id, object, took) => {
                let lease = lease_object::parse(&object);
                self.keep_latest(*object, None);
                self.elector.metrics.renewed(took);
                Input::Written(write_id, lease)
            }
            ElectorEvent::Input(input) => {
                if matches!(input, Input::Drained | Input::DrainTimedOut) {
                    self.drain_deadline = None;
                }
                input
            }
        }
    }

    /// Keeps an object unless it is older than the one already kept. An object with a lower version
    /// that was requested after the kept one had arrived is not older: the API server's storage was
    /// restored.
    fn keep_latest(&mut self, object: LeaseObject, asked: Option<Moment>) {
        let is_older = self.latest.as_ref().is_some_and(|(latest, since)| {
            lease_object::resource_version(&object)
                .precedes(&lease_object::resource_version(latest))
                && asked.is_none_or(|asked| asked <= *since)
        });
        if is_older {
            return;
        }
        let lease = lease_object::parse(&object);
        let held_by_other = lease.record.holder != self.elector.config.identity;
        let holder = if held_by_other && lease.instance.is_some() {
            Some(lease.record.holder)
        } else {
            None
        };
        self.watched_holder.send_if_modified(|watched| {
            let is_other = *watched != holder;
            *watched = holder;
            is_other
        });
        self.latest = Some((object, self.clock.moment()));
    }

    /// Carries out one action. Returns the reason if it was to exit.
    fn carry_out(&mut self, action: Action) -> Option<Exit> {
        debug!(?action, "election action");
        let elector = &self.elector;
        match action {
            Action::Read => self.read_lease(),
            Action::Create(write_id, record) => self.create_lease(write_id, record),
            Action::Update(write_id, expected, record) => {
                self.update_lease(write_id, &expected, record)
            }
            Action::MarkPod(lease_uid) => self.mark_own_pod(lease_uid),
            Action::BeginTerm { cause, waited } => self.begin_term(cause, waited),
            Action::OpenFence {
                epoch,
                soft_end,
                hard_end,
                wall_end,
            } => {
                elector.metrics.leads(true);
                elector.metrics.epoch(&epoch.version.0);
                let end = TermEnd {
                    soft_end,
                    hard_end,
                    wall_end,
                };
                elector.fence.open(epoch, end);
            }
            Action::CloseFence => {
                elector.fence.close();
                elector.metrics.leads(false);
            }
            Action::Drain => {
                elector.drain.begin();
                self.drain_deadline = Some(Instant::now() + elector.drain_budget);
            }
            Action::AnnounceLeader(holder) => {
                elector.metrics.transition();
                info!(leader = holder, "new leader is {holder}");
            }
            Action::Exit(exit) => return Some(exit),
        }
        None
    }

    fn read_lease(&self) {
        if !self.elector.fence.remaining().is_zero() {
            self.elector.metrics.slow_path();
        }
        let reader = self.reader.clone();
        self.replies
            .push(async move { reader.read().await }.boxed());
    }

    fn create_lease(&self, write_id: WriteId, record: LeaseRecord) {
        let object = self.lease_object(None, record);
        self.replies
            .push(self.writer.create_lease(write_id, object));
    }

    fn update_lease(&self, write_id: WriteId, expected: &ResourceVersion, record: LeaseRecord) {
        let reply = match &self.latest {
            Some((latest, _)) if lease_object::resource_version(latest) == *expected => {
                let object = self.lease_object(Some(latest), record);
                self.writer.update_lease(write_id, object)
            }
            // The object changed after the candidate decided: the API server would answer with a
            // conflict as well.
            _ => std::future::ready(ElectorEvent::Input(Input::Conflict(write_id))).boxed(),
        };
        self.replies.push(reply);
    }

    fn lease_object(&self, latest: Option<&LeaseObject>, record: LeaseRecord) -> LeaseObject {
        let Elector {
            config,
            namespace,
            name,
            ..
        } = &self.elector;
        lease_object::build(config, (namespace, name), latest, record)
    }

    /// An earlier container of this Pod may have led and left its mark.
    fn unmark_own_pod(&mut self) {
        let pods = self.pods.clone();
        self.unmarking = Some(tokio::spawn(async move {
            pods.unmark(|name| name == pods.own).await
        }));
    }

    fn mark_own_pod(&mut self, lease_uid: String) {
        let (pods, unmarking) = (self.pods.clone(), self.unmarking.take());
        let marking = async move {
            if let Some(unmarking) = unmarking {
                // Only its end matters, not its result.
                let _ = unmarking.await;
            }
            pods.mark(&lease_uid).await;
            pods.rivals(&lease_uid).await
        };
        self.marking = Some(marking.boxed());
    }

    /// Reports a new term, and unmarks the Pods of earlier leaders.
    fn begin_term(&mut self, cause: TakeoverCause, waited: Duration) {
        info!(?cause, milliseconds = waited.as_millis(), "started leading");
        self.elector.metrics.acquired(takeover(cause), waited);
        self.has_led = true;
        let publish = self
            .publisher
            .publish("Acquire", "became leader", self.reference());
        self.background.spawn(publish);
        if self.elector.config.marks {
            let (pods, fence) = (self.pods.clone(), self.elector.fence.clone());
            // Once another replica leads, the mark belongs to that replica.
            self.background.spawn(async move {
                pods.unmark(|name| name != pods.own && !fence.remaining().is_zero())
                    .await;
            });
        }
    }

    async fn exit(self, exit: Exit) -> ElectorExit {
        match exit {
            Exit::Clean => info!("left the election"),
            Exit::Unreleased => {
                warn!(
                    "left the election without releasing the lease; a lease that it holds expires on its own"
                )
            }
            Exit::Lost => warn!("lost the lease"),
        }
        if self.has_led {
            info!("stopped leading");
            self.publisher
                .publish("Release", "stopped leading", self.reference())
                .await;
        }
        ElectorExit {
            exit,
            stalled: self.stalled,
        }
    }

    fn reference(&self) -> publish::ObjectReference {
        let uid = self
            .latest
            .as_ref()
            .and_then(|(lease, _)| lease.metadata.uid.clone());
        publish::lease_reference(&self.elector.namespace, &self.elector.name, uid)
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

#[cfg(test)]
pub(crate) mod tests;
