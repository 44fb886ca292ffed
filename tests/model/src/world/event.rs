//! Events that are counted, so that a search which proves something has also seen it happen.

use std::sync::atomic::Ordering;

use super::World;

/// Something that is counted when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fence opened for a new term.
    Term,
    /// A released Lease was taken.
    Handover,
    /// A Lease that was not released was taken over.
    Expiry,
    /// A process took over the Lease of an earlier process of the same Pod.
    Reclaim,
    /// A fence that had closed opened again for the same term.
    Resumption,
    /// A write was committed, and its reply was lost or came too late.
    LostReply,
    /// A write conflicted.
    Conflict,
    /// A candidate hedged an unanswered write.
    Hedge,
    /// The watch of a candidate delivered something older than before.
    StaleDelivery,
    /// A Lease was deleted while a fence was open.
    DeletedUnderLeader,
    /// A candidate exited because it had lost the Lease.
    Loss,
    /// A drain timed out.
    DrainTimedOut,
    /// The kubelet's report of a terminated container reached a candidate.
    TerminationReported,
}

/// Number of kinds of event.
pub const EVENTS: usize = 13;

impl Event {
    /// All events.
    pub const ALL: [Self; EVENTS] = [
        Self::Term,
        Self::Handover,
        Self::Expiry,
        Self::Reclaim,
        Self::Resumption,
        Self::LostReply,
        Self::Conflict,
        Self::Hedge,
        Self::StaleDelivery,
        Self::DeletedUnderLeader,
        Self::Loss,
        Self::DrainTimedOut,
        Self::TerminationReported,
    ];
}

impl World {
    /// How often an event occurred.
    #[must_use]
    pub fn occurrences(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_event(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }
}
