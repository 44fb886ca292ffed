//! What must hold, and whether it does.

use super::{Healing, State, World};
use crate::bounds::{CANDIDATES, Fault, SECOND};

/// How long the kubelet takes to restart a process once the adversary has stopped.
const RESTART: u64 = SECOND / 10;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// I1: at no instant are two fences open.
    OneOpenFence,
    /// I2: epochs grow, and none is used twice.
    EpochsGrow,
    /// I3: once the adversary stops, a candidate leads within a bound.
    LeaderRecovers,
    /// I4: no write of an earlier term takes effect after one of a later term.
    NoLateWrite,
    /// I5: I3 holds while another client keeps changing labels of the Lease.
    LabelsDelayNothing,
    /// I6: no candidate exits as if it had lost the Lease while it still holds it.
    NoFalseLoss,
}

impl Invariant {
    /// All invariants.
    pub const ALL: [Self; 6] = [
        Self::OneOpenFence,
        Self::EpochsGrow,
        Self::LeaderRecovers,
        Self::NoLateWrite,
        Self::LabelsDelayNothing,
        Self::NoFalseLoss,
    ];

    /// Short name, as in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneOpenFence => "I1",
            Self::EpochsGrow => "I2",
            Self::LeaderRecovers => "I3",
            Self::NoLateWrite => "I4",
            Self::LabelsDelayNothing => "I5",
            Self::NoFalseLoss => "I6",
        }
    }
}

impl World {
    /// Whether a fence is open at present, by the clock of its process.
    pub(super) fn is_open(&self, state: &State, id: usize) -> bool {
        let fence = state.processes[id].fence.as_ref();
        fence.is_some_and(|fence| self.local(state, id) < fence.end)
    }

    /// Whether two fences are open at present.
    pub(super) fn has_two_open_fences(&self, state: &State) -> bool {
        (0..CANDIDATES)
            .filter(|id| self.is_open(state, *id))
            .count()
            > 1
    }

    /// Whether an invariant holds in a state. I3 and I5 concern its future: see
    /// [`World::recovers`].
    #[must_use]
    pub fn holds(&self, state: &State, invariant: Invariant) -> bool {
        match invariant {
            Invariant::OneOpenFence => !self.has_two_open_fences(state),
            _ => state.violated & (1 << invariant as u8) == 0,
        }
    }

    /// Whether any fence is open.
    #[must_use]
    pub fn is_led(&self, state: &State) -> bool {
        (0..CANDIDATES).any(|id| self.is_open(state, id))
    }

    /// Whether the horizon is reached and nothing is due.
    #[must_use]
    pub fn is_at_end(&self, state: &State) -> bool {
        self.is_quiet(state) && self.next_instant(state) > self.bounds.horizon
    }

    /// Whether nothing is due.
    #[must_use]
    pub fn is_quiet(&self, state: &State) -> bool {
        !self.due(state, &mut Vec::new())
    }

    /// Whether a candidate leads once the adversary has stopped for as long as a Lease takes to
    /// expire and to be taken over. With `labels`, another client keeps changing labels.
    #[must_use]
    pub fn recovers(&self, state: &State, within: u64, labels: bool) -> bool {
        let mut state = state.clone();
        let end = state.now + within;
        for id in 0..CANDIDATES {
            if state.processes[id].partition.is_some() {
                self.heal(&mut state, id, Healing::Late);
            }
            state.processes[id].paused = false;
            if let Some((_, is_slow)) = &mut state.processes[id].draining {
                *is_slow = false;
            }
        }
        // Dead processes stay dead, so that a dead leader must be waited out, unless all of them
        // are.
        if state
            .processes
            .iter()
            .all(|process| process.candidate.is_none())
        {
            (0..CANDIDATES).for_each(|id| self.start(&mut state, id));
        }
        let dead: Vec<usize> = (0..CANDIDATES)
            .filter(|id| state.processes[*id].candidate.is_none())
            .collect();
        state
            .in_transit
            .iter_mut()
            .for_each(|message| message.delayed = false);
        let mut next_label = state.now + SECOND;
        while state.now < end {
            self.settle(&mut state);
            // The kubelet restarts every process that exits during the recovery.
            let ended: Vec<usize> = (0..CANDIDATES)
                .filter(|id| !dead.contains(id) && state.processes[*id].candidate.is_none())
                .collect();
            let next = self.next_instant(&state).min(end);
            let next = if ended.is_empty() {
                next
            } else {
                next.min(state.now + RESTART)
            };
            state.now = if labels { next.min(next_label) } else { next };
            if state.now == next_label {
                next_label += SECOND;
                if labels {
                    self.apply_lease_fault(&mut state, Fault::Label);
                }
            }
            ended.into_iter().for_each(|id| self.start(&mut state, id));
        }
        self.settle(&mut state);
        self.is_led(&state)
    }
}
