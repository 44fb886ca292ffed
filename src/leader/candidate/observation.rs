//! What a candidate knows of the Lease: which answers are news, and when the Lease is free to be
//! taken over.
//!
//! Remote timestamps are never compared with a local clock: only that they change shows that the
//! holder is alive. A wait ends early only on proof that the holder has ended: its own release, or
//! the kubelet's report that its container terminated. A holder whose record another client erased,
//! shortened or deleted is waited out as it was last seen.

use std::time::Duration;

use jiff::Timestamp;

use super::super::lease::{Lease, LeaseRecord, ResourceVersion, TakeoverCause};
use super::super::time::{Moment, Now};
use super::{Action, AsOf, Candidate, Exit, Role};

/// How long a released Lease is left to the candidate that its holder was asked to step down for.
const SUCCESSOR_HEAD_START: Duration = Duration::from_secs(2);

/// What is known of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Observed {
    /// Nothing yet.
    Unknown,
    /// The Lease as last seen, and since when its record has not changed.
    Present { lease: Lease, since: Moment },
    /// There is no Lease as of this version or a later one. If there was one: its last record, and
    /// since when that had not changed.
    Absent {
        version: ResourceVersion,
        last: Option<(LeaseRecord, Moment)>,
    },
}

impl Observed {
    pub(super) fn record(&self) -> Option<(&LeaseRecord, Moment)> {
        match self {
            Self::Unknown => None,
            Self::Present { lease, since } => Some((&lease.record, *since)),
            Self::Absent { last, .. } => last.as_ref().map(|(record, since)| (record, *since)),
        }
    }

    /// Whether this Lease is older than what is known. A lagging watch carries no news, however
    /// often it delivers.
    fn is_stale(&self, lease: &Lease) -> bool {
        match self {
            Self::Unknown => false,
            Self::Present { lease: known, .. } => lease.version.precedes(&known.version),
            Self::Absent { version, .. } => !version.precedes(&lease.version),
        }
    }
}

impl Candidate {
    /// Handles [`super::Input::Watched`].
    pub(super) fn on_lease(&mut self, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        self.observe(lease, now, actions);
        self.abandon_takeover_unless_free(now, actions);
        self.check_term(actions);
    }

    /// Handles [`super::Input::Read`].
    pub(super) fn on_read(
        &mut self,
        lease: Lease,
        asked: Moment,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.reading = false;
        if self.observed.is_stale(&lease) && asked > self.last_heard {
            // The API server's store was rolled back, so versions prove nothing. The last holder
            // seen is waited out.
            self.observed = Observed::Unknown;
        }
        self.on_lease(lease, now, actions);
    }

    /// Handles [`super::Input::Absent`].
    pub(super) fn on_absent(&mut self, as_of: &AsOf, now: Now, actions: &mut Vec<Action>) {
        self.reading = false;
        self.observe_absence(as_of, now, actions);
        self.abandon_takeover_unless_free(now, actions);
    }

    /// Handles [`super::Input::ContainerTerminated`].
    pub(super) fn on_container_terminated(&mut self, instance: String, now: Now) {
        // Once the holder's own container has terminated, a report of an earlier one must not
        // replace that.
        if !self.has_holder_terminated() {
            self.terminated_instance = Some(instance);
            self.last_news = now.moment;
        }
    }

    /// Records the Lease as delivered, unless something newer is known.
    pub(super) fn observe(&mut self, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        if self.observed.is_stale(&lease) {
            return;
        }
        self.last_heard = now.moment;
        let is_known = matches!(&self.observed, Observed::Present { lease: known, .. } if known.uid == lease.uid);
        if !is_known {
            self.note_deletion(now);
            self.first_seen = now.moment;
        }
        let since = match &self.observed {
            // Only a change of the record proves that its holder is alive: not a new label, not a
            // new version.
            Observed::Present {
                lease: known,
                since,
            } if known.record == lease.record && is_known => *since,
            _ => {
                self.expiry_jitter = now.jitter;
                self.last_news = now.moment;
                self.failures = 0;
                self.unexplained_conflict = false;
                self.holder_expiry = match &lease.record {
                    record if record.is_released() => Moment::default(),
                    // An erased holder is waited out as it was last seen; one that never was, from
                    // this moment on.
                    record if record.holder.is_empty() && is_known => self.holder_expiry,
                    record => self.holder_expiry.max(now.moment + record.duration),
                };
                now.moment
            }
        };
        let term = |record: &LeaseRecord| (record.holder.clone(), record.transitions);
        let before = self.observed.record().map(|(record, _)| term(record));
        if !lease.record.holder.is_empty() && before != Some(term(&lease.record)) {
            actions.push(Action::AnnounceLeader(lease.record.holder.clone()));
        }
        self.must_read = false;
        self.last_seen = now.moment;
        self.observed = Observed::Present { lease, since };
    }

    /// Records that there is no Lease, unless something newer is known.
    fn observe_absence(&mut self, as_of: &AsOf, now: Now, actions: &mut Vec<Action>) {
        self.last_heard = now.moment;
        if let Observed::Present { lease, .. } = &self.observed {
            match as_of {
                AsOf::Version(version) if version.precedes(&lease.version) => return,
                // The answer may be older than the Lease that was seen in between: only another
                // read can tell.
                AsOf::Asked(moment) if *moment <= self.last_seen => {
                    self.must_read = true;
                    return;
                }
                AsOf::Version(_) | AsOf::Asked(_) => {}
            }
        }
        self.must_read = false;
        if !matches!(self.observed, Observed::Absent { .. }) {
            self.last_news = now.moment;
            self.note_deletion(now);
            // The Lease that a takeover was to update is gone, and with it any takeover that was
            // committed.
            self.abandon_takeover(actions);
        }
        let heard = match as_of {
            AsOf::Version(version) => version.clone(),
            AsOf::Asked(_) => ResourceVersion::default(),
        };
        let known = match &self.observed {
            Observed::Unknown => ResourceVersion::default(),
            Observed::Present { lease, .. } => lease.version.clone(),
            Observed::Absent { version, .. } => version.clone(),
        };
        let last = self
            .observed
            .record()
            .map(|(record, since)| (record.clone(), since));
        self.observed = Observed::Absent {
            version: if known.precedes(&heard) { heard } else { known },
            last,
        };
        match &self.role {
            // Other candidates wait out the term that they saw, and so does this one: a Lease
            // created again is a new term.
            Role::Leading(_) | Role::Suspended(_) => {
                actions.push(Action::CloseFence);
                self.role = Role::Following;
                self.in_flight.clear();
            }
            Role::Draining(_) | Role::Releasing { .. } => {
                actions.push(Action::CloseFence);
                self.exit(Exit::Clean, actions);
            }
            Role::Following | Role::Acquiring { .. } | Role::Ended => {}
        }
    }

    /// Notes that the Lease last seen, if any, is gone. Its holder is still waited out.
    fn note_deletion(&mut self, now: Now) {
        self.deleted_holder_expiry = self.deleted_holder_expiry.max(self.holder_expiry);
        if let Observed::Present { lease, .. } = &self.observed {
            self.deleted_lease = Some((lease.uid.clone(), now.moment));
        }
    }

    /// Since when a Lease other than the current one has certainly been gone.
    pub(super) fn deleted_since(&self, lease: &str) -> Moment {
        match &self.deleted_lease {
            Some((deleted, since)) if deleted == lease => *since,
            _ => self.first_seen,
        }
    }

    /// Abandons a takeover as soon as the Lease is not free any more: a hedge of a write based on
    /// what was seen then must not be sent based on what is seen now.
    fn abandon_takeover_unless_free(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.free_at().is_none_or(|(free, _)| free > now.moment) {
            self.abandon_takeover(actions);
        }
    }

    /// Abandons a takeover in flight, if any. A late reply to its writes is news of the Lease and
    /// begins no term.
    fn abandon_takeover(&mut self, actions: &mut Vec<Action>) {
        let Role::Acquiring { stop_by, .. } = self.role else {
            return;
        };
        self.role = Role::Following;
        self.in_flight.clear();
        if stop_by.is_some() {
            self.exit(Exit::Clean, actions);
        }
    }

    /// When the Lease may be taken over as far as is known, and why.
    pub(super) fn free_at(&self) -> Option<(Moment, TakeoverCause)> {
        let at_once = Moment::default();
        let (free, cause) = match &self.observed {
            Observed::Unknown => return None,
            Observed::Absent { .. } => (at_once, TakeoverCause::Creation),
            Observed::Present { lease, .. } if self.is_own(lease) => {
                (at_once, TakeoverCause::Reclaim)
            }
            // Only the candidate that the API server has chosen takes the Lease.
            Observed::Present { lease, .. } if lease.coordinated => {
                if lease.record.holder != self.config.identity {
                    return None;
                }
                (at_once, TakeoverCause::Release)
            }
            Observed::Present { lease, since } if lease.record.is_released() => {
                match &lease.successor {
                    Some(successor)
                        if !successor.is_empty() && *successor != self.config.identity =>
                    {
                        (*since + SUCCESSOR_HEAD_START, TakeoverCause::Release)
                    }
                    _ => (at_once, TakeoverCause::Release),
                }
            }
            Observed::Present { .. } if self.has_holder_terminated() => {
                (at_once, TakeoverCause::Termination)
            }
            Observed::Present { lease, .. } => {
                let spread = Duration::from_millis(100).min(lease.record.duration / 60);
                let expiry = self.holder_expiry + self.expiry_jitter.of(spread);
                (expiry, TakeoverCause::Expiry)
            }
        };
        Some((free.max(self.deleted_holder_expiry), cause))
    }

    /// Whether the container that wrote the current record is known to have terminated.
    fn has_holder_terminated(&self) -> bool {
        match &self.observed {
            Observed::Present { lease, .. } => {
                lease.instance.is_some() && lease.instance == self.terminated_instance
            }
            Observed::Unknown | Observed::Absent { .. } => false,
        }
    }

    /// Whether a record under this candidate's name was written by it, or by an earlier container
    /// of its Pod. Containers of one Pod run one after another, so no other process can act on that
    /// record.
    fn is_own(&self, lease: &Lease) -> bool {
        let same_pod = self.config.pod_uid.is_some() && lease.pod_uid == self.config.pod_uid;
        let claimed = self.claimed_acquire_time.is_some()
            && lease.record.acquired == self.claimed_acquire_time;
        lease.record.holder == self.config.identity && (same_pod || claimed)
    }

    /// The Lease, if its record is still the one that a term wrote. A record whose duration was
    /// shortened is not: other candidates may take it over before the fence ends.
    pub(super) fn lease_of_term(&self, acquired: Option<Timestamp>) -> Option<&Lease> {
        match &self.observed {
            Observed::Present { lease, .. }
                if lease.record.holder == self.config.identity
                    && lease.record.acquired == acquired
                    && lease.record.duration >= self.config.lease_duration =>
            {
                Some(lease)
            }
            _ => None,
        }
    }

    /// Whether this holder is asked to step down for another candidate.
    pub(super) fn is_asked_to_step_down(&self, lease: &Lease) -> bool {
        lease
            .successor
            .as_ref()
            .is_some_and(|successor| *successor != self.config.identity)
    }
}
