//! The writes to the Lease: which record each one carries, and what its outcome means.

use std::time::Duration;

use jiff::Timestamp;

use super::super::lease::{Epoch, Lease, LeaseRecord};
use super::super::time::{Moment, Now};
use super::observation::Observed;
use super::role::{FirstOpening, Role, Term};
use super::{Action, Candidate, Exit, WriteId};

/// The instant at which a write was sent, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SentAt {
    pub(super) moment: Moment,
    pub(super) wall: Timestamp,
}

impl Candidate {
    /// Sends the write that the role asks for, based on the Lease last seen.
    pub(super) fn send_write(&mut self, now: Now, actions: &mut Vec<Action>) {
        let record = match &self.role {
            // The first of these writes was seen to succeed. A hedge that repeated it would not
            // show others that this candidate is alive, and yet count as a renewal.
            Role::Acquiring { record, .. } if self.lease_of_term(record.acquired).is_some() => {
                self.renewal_record(now)
            }
            Role::Acquiring { record, .. } => record.clone(),
            Role::Following => self.takeover_record(now),
            Role::Releasing { .. } => self.release_record(now),
            Role::Leading(_) | Role::Draining(_) | Role::Suspended(_) | Role::Ended => {
                self.renewal_record(now)
            }
        };
        if let (Role::Following, Some((free, cause))) = (&self.role, self.free_at()) {
            self.claimed_acquire_time = record.acquired;
            self.role = Role::Acquiring {
                record: record.clone(),
                stop_by: None,
                cause,
                free_since: free.max(self.last_news),
            };
        }
        self.writes += 1;
        let id = WriteId(self.writes);
        self.in_flight.insert(
            id,
            SentAt {
                moment: now.moment,
                wall: now.wall,
            },
        );
        actions.push(match &self.observed {
            Observed::Present { lease, .. } => Action::Update(id, lease.version.clone(), record),
            Observed::Absent { .. } | Observed::Unknown => Action::Create(id, record),
        });
    }

    fn takeover_record(&self, now: Now) -> LeaseRecord {
        let known = self.observed.record().map(|(record, _)| record);
        // A takeover whose reply was lost has begun a term already: continue that one.
        let claimed = known.filter(|record| {
            record.acquired.is_some() && record.acquired == self.claimed_acquire_time
        });
        LeaseRecord {
            holder: self.config.identity.clone(),
            duration: self.config.lease_duration,
            acquired: claimed.map_or(Some(now.wall), |record| record.acquired),
            renewed: Some(now.wall),
            transitions: match (claimed, known) {
                (Some(record), _) => record.transitions,
                (None, Some(record)) => record.transitions.saturating_add(1),
                (None, None) => 0,
            },
        }
    }

    fn renewal_record(&self, now: Now) -> LeaseRecord {
        let known = self.last_record();
        // client-go compares whole seconds: it would not see a renewal within the second of the
        // last one.
        let earliest = known
            .renewed
            .and_then(|last| last.checked_add(Duration::from_secs(1)).ok());
        LeaseRecord {
            duration: self.config.lease_duration,
            renewed: Some(earliest.map_or(now.wall, |earliest| earliest.max(now.wall))),
            ..known
        }
    }

    fn release_record(&self, now: Now) -> LeaseRecord {
        LeaseRecord {
            holder: String::new(),
            duration: LeaseRecord::RELEASED,
            acquired: Some(now.wall),
            renewed: Some(now.wall),
            ..self.last_record()
        }
    }

    fn last_record(&self) -> LeaseRecord {
        self.observed
            .record()
            .map(|(record, _)| record.clone())
            .unwrap_or_default()
    }

    /// Handles [`super::Input::Written`]. The reply to a write that is no longer awaited is only
    /// news of the Lease.
    pub(super) fn on_written(
        &mut self,
        id: WriteId,
        lease: Lease,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let sent = self.in_flight.remove(&id);
        self.observe(lease.clone(), now, actions);
        if let Some(sent) = sent {
            self.failures = 0;
            self.unexplained_conflict = false;
            self.write_succeeded(sent, lease, now, actions);
        }
        self.check_term(actions);
    }

    /// Handles [`super::Input::Conflict`].
    pub(super) fn on_conflict(&mut self, id: WriteId, now: Now, actions: &mut Vec<Action>) {
        if self.in_flight.remove(&id).is_some() {
            self.must_read = true;
            // The first conflict proves that the API server is answering: re-read at once, whatever
            // failed before. A second one without a visible change backs off.
            if std::mem::replace(&mut self.unexplained_conflict, true) {
                self.back_off(now.moment, now.jitter);
            } else {
                self.failures = 0;
                self.not_before = now.moment;
            }
            self.write_failed(now, actions);
        }
    }

    /// Handles [`super::Input::OutcomeUnknown`].
    pub(super) fn on_outcome_unknown(&mut self, id: WriteId, now: Now, actions: &mut Vec<Action>) {
        if let Some(sent) = self.in_flight.remove(&id) {
            // Counted from the sending: a write that took long to fail has been a pause already.
            self.back_off(sent.moment, now.jitter);
            if self.in_flight.is_empty() {
                self.write_failed(now, actions);
            }
        }
    }

    /// A write sent at `sent` was committed as `lease`: a term is renewed, begins, or is released.
    fn write_succeeded(&mut self, sent: SentAt, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        // Every write in flight carries the version that this one has just replaced: none of them
        // can succeed any more.
        self.in_flight.clear();
        let period = self.config.retry_period;
        let renew_at = sent.moment + period * 9 / 10 + now.jitter.of(period / 5);
        match &mut self.role {
            Role::Leading(term) | Role::Draining(term) | Role::Suspended(term) => {
                term.renewed = sent;
                term.renew_at = renew_at;
                let safe_at = term
                    .first_opening
                    .as_ref()
                    .and_then(|opening| opening.safe_at);
                if safe_at.is_some_and(|safe_at| safe_at > now.moment) {
                    actions.push(Action::MarkPod(term.epoch.lease_uid.clone()));
                }
            }
            Role::Acquiring {
                stop_by,
                cause,
                free_since,
                ..
            } => {
                let (stops, acquired) = (stop_by.is_some(), lease.record.acquired);
                let safe_at = (!self.config.marks).then_some(now.moment);
                let first_opening = Some(FirstOpening {
                    cause: *cause,
                    free_since: *free_since,
                    safe_at,
                });
                self.claimed_acquire_time = None;
                match (self.lease_of_term(acquired).is_some(), stops) {
                    (false, false) => self.role = Role::Following,
                    (false, true) => return self.exit(Exit::Clean, actions),
                    (true, true) => return self.release(acquired, now),
                    (true, false) => {
                        let transitions = lease.record.transitions;
                        let epoch = Epoch {
                            lease_uid: lease.uid,
                            version: lease.version,
                            transitions,
                        };
                        let term = Term {
                            epoch,
                            acquired,
                            renewed: sent,
                            renew_at,
                            first_opening,
                        };
                        self.begin_term(term, actions);
                    }
                }
            }
            // A follower has nothing in flight, so what succeeded is the release.
            Role::Releasing { .. } | Role::Following | Role::Ended => {
                return self.exit(Exit::Clean, actions);
            }
        }
        self.open_fence(now, actions);
    }

    /// A write conflicted, or the outcome of every write in flight is unknown.
    fn write_failed(&mut self, now: Now, actions: &mut Vec<Action>) {
        match &mut self.role {
            Role::Acquiring { stop_by, .. } => {
                let stops = stop_by.is_some();
                self.role = Role::Following;
                self.in_flight.clear();
                self.must_read = true;
                if stops {
                    self.exit(Exit::Unreleased, actions);
                }
            }
            Role::Leading(term) | Role::Draining(term) | Role::Suspended(term) => {
                term.renew_at = now.moment;
            }
            Role::Following | Role::Releasing { .. } | Role::Ended => {}
        }
    }
}
