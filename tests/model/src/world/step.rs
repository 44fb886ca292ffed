//! What may happen next in a state, and the dispatch of one step.

use super::network::{Body, Healing, Partition, Reply, input};
use super::{Event, State, World};
use crate::bounds::Fault;
use crate::core::Input;

/// More steps at one instant mean an endless loop.
const STEPS_PER_INSTANT: usize = 200;

/// One step of the world, with the index of a message in transit or of a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A request arrives at the API server.
    DeliverRequest(usize),
    /// A reply arrives at its process.
    DeliverReply(usize),
    /// The oldest pending watch event arrives at a process.
    DeliverWatchEvent(usize),
    /// A timer of a candidate fires.
    Tick(usize),
    /// The elector stops waiting for a reply.
    TimeOut(usize),
    /// A drain has finished.
    Drained(usize),
    /// A drain has timed out.
    DrainTimedOut(usize),
    /// A paused process resumes.
    Resume(usize),
    /// A partition ends.
    Heal(usize, Healing),
    /// A fault of a message.
    MessageFault(Fault, usize),
    /// A fault of a process.
    ProcessFault(Fault, usize),
    /// A partition begins.
    Partition(usize, Partition),
    /// An edit of the Lease by another client.
    LeaseFault(Fault),
    /// Time advances to this instant.
    Advance(u64),
}

impl Step {
    /// Whether the adversary causes it. The end of a fault is not one.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::ProcessFault(fault, _) => !matches!(fault, Fault::Restart),
            Self::MessageFault(..) | Self::Partition(..) | Self::LeaseFault(_) => true,
            _ => false,
        }
    }
}

impl World {
    /// Everything that may happen next.
    pub fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.violated != 0 || self.has_two_open_fences(state) {
            return;
        }
        if !self.due(state, steps) {
            self.choices(state, steps);
        }
    }

    /// Adds what is due at this instant and the faults that may interfere; returns whether anything
    /// is.
    pub(super) fn due(&self, state: &State, steps: &mut Vec<Step>) -> bool {
        for (id, process) in state
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| process.runs())
        {
            let before = steps.len();
            for (index, message) in state
                .in_transit
                .iter()
                .enumerate()
                .filter(|(_, message)| message.process == id)
            {
                if !message.is_request() && !message.delayed && process.hears() {
                    steps.push(Step::DeliverReply(index));
                    self.message_faults(state, index, steps);
                }
                if self.has_timed_out(state, message) {
                    steps.push(Step::TimeOut(index));
                }
            }
            if process.watches() && !process.watch.is_empty() {
                steps.push(Step::DeliverWatchEvent(id));
            }
            match process.draining {
                Some((_, false)) => {
                    steps.push(Step::Drained(id));
                    if self.allows(state, Fault::SlowDrain) {
                        steps.push(Step::ProcessFault(Fault::SlowDrain, id));
                    }
                }
                Some((until, true)) if until <= state.now => steps.push(Step::DrainTimedOut(id)),
                Some(_) | None => {}
            }
            if self.wake(id, process).is_some_and(|wake| wake <= state.now) {
                steps.push(Step::Tick(id));
            }
            if steps.len() > before {
                return true;
            }
        }
        // Requests come last, so that those sent at one instant race at the server.
        for (index, message) in state.in_transit.iter().enumerate() {
            let held = state.processes[message.process].partition == Some(Partition::Everything);
            if message.is_request() && !message.delayed && !held {
                steps.push(Step::DeliverRequest(index));
                self.message_faults(state, index, steps);
            }
        }
        !steps.is_empty()
    }

    /// The faults of a message that is about to arrive.
    fn message_faults(&self, state: &State, index: usize, steps: &mut Vec<Step>) {
        let message = &state.in_transit[index];
        if self.allows(state, Fault::Delay) {
            steps.push(Step::MessageFault(Fault::Delay, index));
        }
        if self.allows(state, Fault::Lose) && !message.cannot_be_lost() {
            steps.push(Step::MessageFault(Fault::Lose, index));
        }
        let crash = Step::ProcessFault(Fault::Crash, message.process);
        if !message.orphan && self.allows(state, Fault::Crash) && !steps.contains(&crash) {
            steps.push(crash);
        }
    }

    /// What may happen when nothing is due.
    fn choices(&self, state: &State, steps: &mut Vec<Step>) {
        for (index, message) in state
            .in_transit
            .iter()
            .enumerate()
            .filter(|(_, message)| message.delayed)
        {
            let process = &state.processes[message.process];
            if message.is_request() && process.partition != Some(Partition::Everything) {
                steps.push(Step::DeliverRequest(index));
            } else if !message.is_request() && process.hears() {
                steps.push(Step::DeliverReply(index));
            }
        }
        for (id, process) in state.processes.iter().enumerate() {
            match process.partition {
                None if self.allows(state, Fault::Partition) => {
                    steps.extend(
                        [Partition::Everything, Partition::Inbound, Partition::Watch]
                            .map(|partition| Step::Partition(id, partition)),
                    );
                }
                None => {}
                Some(_) => steps
                    .extend([Healing::Late, Healing::Reset].map(|healing| Step::Heal(id, healing))),
            }
            if process.candidate.is_none() {
                if self.allows(state, Fault::Restart) {
                    steps.push(Step::ProcessFault(Fault::Restart, id));
                }
                continue;
            }
            let awake = if process.paused {
                steps.push(Step::Resume(id));
                [Fault::Crash].as_slice()
            } else {
                &[Fault::Pause, Fault::Crash, Fault::Stop]
            };
            steps.extend(
                awake
                    .iter()
                    .filter(|fault| self.allows(state, **fault))
                    .map(|fault| Step::ProcessFault(*fault, id)),
            );
            if process.watches()
                && state.previous.is_some()
                && self.allows(state, Fault::StaleWatch)
            {
                steps.push(Step::ProcessFault(Fault::StaleWatch, id));
            }
        }
        if state.lease.is_some() {
            let edits = [Fault::Delete, Fault::Label, Fault::StepDown, Fault::Erase]
                .into_iter()
                .filter(|fault| self.allows(state, *fault));
            steps.extend(edits.map(Step::LeaseFault));
        }
        let next = self.next_instant(state);
        if next <= self.bounds.horizon {
            steps.push(Step::Advance(next));
        }
    }

    /// The state after a step.
    #[must_use]
    pub fn after(&self, state: &State, step: &Step) -> State {
        let mut state = state.clone();
        self.take(&mut state, step);
        state
    }

    /// Takes a step.
    pub fn take(&self, state: &mut State, step: &Step) {
        match *step {
            Step::DeliverRequest(index) => self.deliver_request(state, index),
            Step::DeliverReply(index) => {
                let message = state.in_transit.remove(index);
                if let Body::Reply(write, reply) = message.body {
                    if let Reply::Terminated(_) = reply {
                        self.count_event(Event::TerminationReported);
                    }
                    self.step_candidate(state, message.process, input(write, reply));
                }
            }
            Step::DeliverWatchEvent(id) => {
                let snapshot = state.processes[id].watch.remove(0);
                self.deliver_snapshot(state, id, snapshot);
            }
            Step::Tick(id) => self.step_candidate(state, id, Input::Tick),
            Step::TimeOut(index) => {
                let (write, id) = (
                    state.in_transit[index].write(),
                    state.in_transit[index].process,
                );
                if state.in_transit[index].is_request() {
                    state.in_transit[index].orphan = true;
                } else {
                    self.count_lost_reply(&state.in_transit[index]);
                    state.in_transit.remove(index);
                }
                self.step_candidate(state, id, input(write, Reply::Broken));
            }
            Step::Drained(id) => {
                state.processes[id].draining = None;
                // Nothing is in flight: every effect that passed the fence has left.
                let late_effect = state.processes[id].late_effect.take();
                self.step_candidate(state, id, Input::Drained);
                state.processes[id].late_effect = late_effect;
            }
            Step::DrainTimedOut(id) => {
                self.count_event(Event::DrainTimedOut);
                state.processes[id].draining = None;
                self.step_candidate(state, id, Input::DrainTimedOut);
            }
            Step::Resume(id) => state.processes[id].paused = false,
            Step::Heal(id, healing) => self.heal(state, id, healing),
            Step::MessageFault(fault, index) => {
                state.faults_spent[fault as usize] += 1;
                if fault == Fault::Delay {
                    state.in_transit[index].delayed = true;
                } else {
                    self.break_connection(state, index);
                }
            }
            Step::ProcessFault(fault, id) => {
                state.faults_spent[fault as usize] += 1;
                self.apply_process_fault(state, fault, id);
            }
            Step::Partition(id, partition) => {
                state.faults_spent[Fault::Partition as usize] += 1;
                state.processes[id].partition = Some(partition);
            }
            Step::LeaseFault(fault) => {
                state.faults_spent[fault as usize] += 1;
                self.apply_lease_fault(state, fault);
            }
            Step::Advance(to) => state.now = to,
        }
    }

    /// Takes every step that is due, without faults.
    pub fn settle(&self, state: &mut State) {
        let mut steps = Vec::new();
        for _ in 0..STEPS_PER_INSTANT {
            steps.clear();
            self.due(state, &mut steps);
            let undisturbed = steps
                .iter()
                .find(|step| !matches!(step, Step::MessageFault(..) | Step::ProcessFault(..)));
            let Some(step) = undisturbed else { return };
            self.take(state, &step.clone());
        }
    }

    fn allows(&self, state: &State, fault: Fault) -> bool {
        let within = state.faults_spent[fault as usize] < self.bounds.limits[fault as usize];
        let faults: u8 =
            state.faults_spent.iter().sum::<u8>() - state.faults_spent[Fault::Restart as usize];
        within && (fault == Fault::Restart || faults < self.bounds.faults)
    }
}
