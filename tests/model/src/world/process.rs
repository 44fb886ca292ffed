//! Processes: the candidate in each of them, its fence, its work, and how they start, run and end.

use std::sync::Arc;
use std::time::Duration;

use super::network::{Healing, Message, Partition, Request};
use super::state::LeaseSnapshot;
use super::{Event, Invariant, State, World};
use crate::bounds::{CANDIDATES, Fault};
use crate::core::{Action, AsOf, Core, Exit, Input, Lease, Moment, ResourceVersion};

/// How long the elector waits for a drain.
const DRAIN_BUDGET: Duration = Duration::from_secs(4);

/// A candidate, shared between states until it changes.
#[derive(Clone, Debug)]
pub(super) struct SharedCandidate {
    pub(super) digest: u64,
    pub(super) wake: Option<Moment>,
    pub(super) core: Arc<dyn Core>,
}

impl SharedCandidate {
    pub(super) fn new(core: Box<dyn Core>) -> Self {
        Self {
            digest: core.digest(),
            wake: core.next_wake(),
            core: core.into(),
        }
    }
}

impl PartialEq for SharedCandidate {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl std::hash::Hash for SharedCandidate {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// A fence, as the last [`Action::OpenFence`] left it.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Fence {
    pub(super) epoch: u64,
    pub(super) end: Moment,
}

/// One process, or the slot of a process that is down.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub(super) struct Process {
    /// The candidate, while the process exists.
    pub(super) candidate: Option<SharedCandidate>,
    /// How often a process was started in this slot.
    pub(super) incarnation: u8,
    /// When it was started: the origin of its moments.
    pub(super) started: u64,
    pub(super) paused: bool,
    pub(super) partition: Option<Partition>,
    /// Watch events that are not delivered yet, the oldest first.
    pub(super) watch: Vec<LeaseSnapshot>,
    pub(super) fence: Option<Fence>,
    /// A drain in progress: when it times out, and whether it is too slow to finish before.
    pub(super) draining: Option<(u64, bool)>,
    /// An effect of an ended term that may still leave: its epoch, and until when.
    pub(super) late_effect: Option<(u64, u64)>,
    /// End of the last fence by the process's own clock, which shows how old the last renewal is.
    pub(super) last_fence_end: Moment,
}

impl Process {
    pub(super) fn runs(&self) -> bool {
        self.candidate.is_some() && !self.paused
    }

    pub(super) fn hears(&self) -> bool {
        self.runs()
            && !matches!(
                self.partition,
                Some(Partition::Everything | Partition::Inbound)
            )
    }

    pub(super) fn watches(&self) -> bool {
        self.runs() && self.partition.is_none()
    }
}

impl World {
    pub(super) fn apply_process_fault(&self, state: &mut State, fault: Fault, id: usize) {
        match fault {
            Fault::Pause => state.processes[id].paused = true,
            Fault::Crash => self.end(state, id),
            Fault::Restart => self.start(state, id),
            Fault::Stop => self.step_candidate(state, id, Input::Stop),
            Fault::SlowDrain => {
                if let Some((_, is_slow)) = &mut state.processes[id].draining {
                    *is_slow = true;
                }
            }
            Fault::StaleWatch => {
                if let Some(previous) = state.previous.clone() {
                    self.count_event(Event::StaleDelivery);
                    self.deliver_snapshot(state, id, previous);
                }
            }
            Fault::Delay
            | Fault::Lose
            | Fault::Partition
            | Fault::Delete
            | Fault::Label
            | Fault::StepDown
            | Fault::Erase => {}
        }
    }

    /// Token of a container.
    pub(super) fn token(&self, id: usize, incarnation: u8) -> String {
        format!("{}-{incarnation}", self.bounds.candidates[id].pod)
    }

    /// Delivers the Lease, present or past, to a candidate's watch.
    pub(super) fn deliver_snapshot(&self, state: &mut State, id: usize, snapshot: LeaseSnapshot) {
        let input = match snapshot.lease {
            Some(lease) => Input::Watched(Lease::clone(&lease)),
            None => Input::Absent(AsOf::Version(ResourceVersion(snapshot.version.to_string()))),
        };
        self.step_candidate(state, id, input);
    }

    pub(super) fn start(&self, state: &mut State, id: usize) {
        let snapshot = state.snapshot();
        let process = &mut state.processes[id];
        process.incarnation += 1;
        process.started = state.now;
        process.watch = vec![snapshot];
        let config =
            self.bounds.candidates[id].config(&self.token(id, state.processes[id].incarnation));
        let (core, actions) = (self.factory.new)(config, self.now(state, id));
        state.processes[id].candidate = Some(SharedCandidate::new(core));
        state.pod_marks[id] = None;
        self.carry_out(state, id, actions);
        // The kubelet still reports the last terminated container of each Pod.
        for other in 0..CANDIDATES {
            let process = &state.processes[other];
            let last = process.incarnation
                - u8::from(process.candidate.is_some() && process.incarnation > 0);
            if last > 0 && other != id {
                self.report_termination(state, id, self.token(other, last));
            }
        }
    }

    /// Ends a process: its connections are closed, but requests that it has sent may still arrive.
    fn end(&self, state: &mut State, id: usize) {
        let process = &mut state.processes[id];
        let (incarnation, started, partition) =
            (process.incarnation, process.started, process.partition);
        *process = Process {
            incarnation,
            started,
            partition,
            ..Process::default()
        };
        for message in state
            .in_transit
            .iter_mut()
            .filter(|message| message.process == id)
        {
            message.orphan = true;
        }
        state
            .in_transit
            .retain(|message| message.is_request() || !message.orphan);
        for other in (0..CANDIDATES).filter(|other| *other != id) {
            if state.processes[other].candidate.is_some() {
                self.report_termination(state, other, self.token(id, incarnation));
            }
        }
    }

    pub(super) fn heal(&self, state: &mut State, id: usize, healing: Healing) {
        let partition = state.processes[id].partition.take();
        if healing == Healing::Late {
            return;
        }
        state.processes[id].watch = vec![state.snapshot()];
        while let Some(index) = state.in_transit.iter().position(|message| {
            let held = match partition {
                Some(Partition::Everything) => true,
                Some(Partition::Inbound) => !message.is_request(),
                Some(Partition::Watch) | None => false,
            };
            message.process == id && held && !message.cannot_be_lost()
        }) {
            self.break_connection(state, index);
        }
    }

    /// Passes an input to a candidate and carries out its actions.
    pub(super) fn step_candidate(&self, state: &mut State, id: usize, input: Input) {
        let now = self.now(state, id);
        let drained = input == Input::Drained;
        let Some(candidate) = &state.processes[id].candidate else {
            return;
        };
        let mut core = candidate.core.boxed_clone();
        let actions = core.step(input, now);
        state.processes[id].candidate = Some(SharedCandidate::new(core));
        self.carry_out(state, id, actions);
        if drained {
            state.processes[id].late_effect = None;
        }
    }

    fn carry_out(&self, state: &mut State, id: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Read => self.send(state, id, Request::Read),
                Action::Create(write, record) => {
                    self.send(state, id, Request::Create(write, Arc::new(record)));
                }
                Action::Update(write, version, record) => {
                    self.send(state, id, Request::Update(write, version, Arc::new(record)));
                }
                Action::OpenFence {
                    epoch, hard_end, ..
                } => {
                    let epoch = epoch.version.0.parse().unwrap_or_default();
                    self.open(
                        state,
                        id,
                        Fence {
                            epoch,
                            end: hard_end,
                        },
                    );
                }
                Action::CloseFence => self.close(state, id),
                Action::Drain => {
                    let budget = u64::try_from(DRAIN_BUDGET.as_micros()).unwrap_or(u64::MAX);
                    state.processes[id].draining = Some((state.now + budget, false));
                }
                Action::AnnounceLeader(_) => {}
                Action::MarkPod(lease) => {
                    let earlier = |message: &Message| message.process == id && message.is_of_mark();
                    state
                        .in_transit
                        .retain(|message| message.is_request() || !earlier(message));
                    state
                        .in_transit
                        .iter_mut()
                        .filter(|message| earlier(message))
                        .for_each(|message| message.orphan = true);
                    self.send(state, id, Request::Mark(lease));
                }
                Action::BeginTerm { .. } => {
                    (0..CANDIDATES)
                        .filter(|other| *other != id)
                        .for_each(|other| state.pod_marks[other] = None);
                }
                Action::Exit(exit) => {
                    self.exit(state, id, exit);
                    return;
                }
            }
        }
    }

    fn open(&self, state: &mut State, id: usize, fence: Fence) {
        let owner = (id, state.processes[id].incarnation);
        let (top, top_id, top_incarnation) = state.highest_epoch;
        if fence.epoch < top || (fence.epoch == top && owner != (top_id, top_incarnation)) {
            state.violated |= 1 << Invariant::EpochsGrow as u8;
        }
        if (0..CANDIDATES).any(|other| {
            other != id
                && self
                    .last_effect(state, other)
                    .is_some_and(|(epoch, until)| epoch < fence.epoch && state.now < until)
        }) {
            state.violated |= 1 << Invariant::NoLateWrite as u8;
        }
        if fence.epoch > top {
            self.count_event(Event::Term);
            state.highest_epoch = (fence.epoch, owner.0, owner.1);
        } else if !self.is_open(state, id) {
            self.count_event(Event::Resumption);
        }
        let process = &mut state.processes[id];
        process.last_fence_end = fence.end;
        process.fence = Some(fence);
    }

    /// The epoch of a process's last effects, unless they have certainly ended, and when they end.
    fn last_effect(&self, state: &State, id: usize) -> Option<(u64, u64)> {
        let process = &state.processes[id];
        let fence = process
            .fence
            .as_ref()
            .map(|fence| (fence.epoch, self.instant(id, process, fence.end)));
        fence
            .map(|(epoch, end)| (epoch, end + self.bounds.effect_delay))
            .or(process.late_effect)
    }

    fn close(&self, state: &mut State, id: usize) {
        if let Some(fence) = state.processes[id].fence.take() {
            let end = self
                .instant(id, &state.processes[id], fence.end)
                .min(state.now);
            state.processes[id].late_effect = (self.bounds.effect_delay > 0)
                .then_some((fence.epoch, end + self.bounds.effect_delay));
        }
    }

    fn exit(&self, state: &mut State, id: usize, exit: Exit) {
        if exit == Exit::Lost {
            self.count_event(Event::Loss);
            let process = &state.processes[id];
            let mine = state.writer == (id, process.incarnation)
                && state
                    .lease
                    .as_ref()
                    .is_some_and(|lease| !lease.record.holder.is_empty());
            let config = self.bounds.candidates[id].config("");
            let expiry = process.last_fence_end + config.guard() + config.lease_duration;
            if mine && self.local(state, id) < expiry {
                state.violated |= 1 << Invariant::NoFalseLoss as u8;
            }
        }
        self.end(state, id);
    }
}
