//! The API server, the kubelet, and other clients that edit the Lease.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::network::{Body, Message, Reply, Request};
use super::state::LeaseSnapshot;
use super::{Event, State, World};
use crate::bounds::{CANDIDATES, Fault};
use crate::core::{Lease, LeaseRecord, ResourceVersion};

impl World {
    /// Edits the Lease as another client.
    pub fn apply_lease_fault(&self, state: &mut State, fault: Fault) {
        let Some(lease) = state.lease.clone() else {
            return;
        };
        if fault == Fault::Delete {
            if (0..CANDIDATES).any(|id| self.is_open(state, id)) {
                self.count_event(Event::DeletedUnderLeader);
            }
            self.commit(state, None);
            return;
        }
        let mut lease = Lease::clone(&lease);
        match fault {
            Fault::StepDown => lease.successor = Some(String::new()),
            Fault::Erase => {
                lease.record.holder.clear();
                state.writer = (CANDIDATES, 0);
            }
            _ => {}
        }
        self.commit(state, Some(lease));
    }

    /// The other Leases for which other Pods with a running container are marked.
    fn rivals(state: &State, id: usize, lease: &str) -> BTreeSet<String> {
        let others = (0..CANDIDATES)
            .filter(|other| *other != id && state.processes[*other].candidate.is_some());
        others
            .filter_map(|other| state.pod_marks[other].clone())
            .filter(|mark| mark != lease)
            .collect()
    }

    /// Sends the kubelet's report that a container has terminated, to arrive at any time.
    pub(super) fn report_termination(&self, state: &mut State, to: usize, token: String) {
        if self.bounds.evidence {
            let incarnation = state.processes[to].incarnation;
            let body = Body::Reply(None, Reply::Terminated(token));
            self.post(
                state,
                Message {
                    process: to,
                    incarnation,
                    sent: 0,
                    delayed: true,
                    orphan: false,
                    body,
                },
            );
        }
    }

    /// The API server handles a request.
    pub(super) fn deliver_request(&self, state: &mut State, index: usize) {
        let mut message = state.in_transit.remove(index);
        let Body::Request(request) = &message.body else {
            return;
        };
        if let Request::Mark(lease) = request {
            state.pod_marks[message.process] = Some(lease.clone());
            if !message.orphan {
                let rivals = Self::rivals(state, message.process, lease);
                message.delayed = false;
                message.body = Body::Reply(None, Reply::Marked(rivals));
                self.post(state, message);
            }
            return;
        }
        let writes = |record: &Arc<LeaseRecord>, uid: String| {
            let is_held = !record.holder.is_empty();
            let before = state.lease.as_ref();
            let begins =
                is_held && before.is_none_or(|before| before.record.acquired != record.acquired);
            Some(Lease {
                record: LeaseRecord::clone(record),
                pod_uid: is_held.then(|| self.bounds.candidates[message.process].pod.to_owned()),
                instance: is_held.then(|| self.token(message.process, message.incarnation)),
                successor: before
                    .filter(|_| !begins)
                    .and_then(|before| before.successor.clone()),
                coordinated: false,
                uid,
                version: ResourceVersion::default(),
            })
        };
        let stored = match (request, &state.lease) {
            (Request::Create(_, record), None) => {
                writes(record, format!("lease-{}", state.revision))
            }
            (Request::Update(_, version, record), Some(lease))
                if lease.version == *version || version.0.is_empty() =>
            {
                writes(record, lease.uid.clone())
            }
            _ => None,
        };
        let write = request.write();
        let begun = state.processes[message.process].started;
        let asked = self.reading(message.process, message.sent.saturating_sub(begun));
        let reply = match (write, stored, state.lease.clone()) {
            (None, _, Some(lease)) => Reply::Read(lease, asked),
            (None, _, None) => Reply::Absent(asked),
            (Some(_), None, _) => {
                self.count_event(Event::Conflict);
                Reply::Conflict
            }
            (Some(_), Some(lease), _) => {
                self.count_takeover(state.lease.as_deref(), &lease);
                state.writer = (message.process, message.incarnation);
                let stored = self.commit(state, Some(lease));
                stored.map_or(Reply::Conflict, Reply::Written)
            }
        };
        if message.orphan {
            if matches!(reply, Reply::Written(_)) {
                self.count_event(Event::LostReply);
            }
            return;
        }
        message.delayed = false;
        message.body = Body::Reply(write, reply);
        self.post(state, message);
    }

    fn count_takeover(&self, before: Option<&Lease>, after: &Lease) {
        let Some(before) = before.filter(|before| before.record.acquired != after.record.acquired)
        else {
            return;
        };
        if before.record.holder.is_empty() {
            self.count_event(Event::Handover);
        } else if !after.record.holder.is_empty() {
            self.count_event(if before.pod_uid == after.pod_uid {
                Event::Reclaim
            } else {
                Event::Expiry
            });
        }
    }

    /// Stores the Lease and queues the watch event for every process.
    fn commit(&self, state: &mut State, lease: Option<Lease>) -> Option<Arc<Lease>> {
        state.revision += 1;
        let version = ResourceVersion(state.revision.to_string());
        let stored = lease.map(|lease| Arc::new(Lease { version, ..lease }));
        let previous = LeaseSnapshot {
            lease: std::mem::replace(&mut state.lease, stored.clone()),
            version: state.revision - 1,
        };
        let may_be_shown = state.faults_spent[Fault::StaleWatch as usize]
            < self.bounds.limits[Fault::StaleWatch as usize];
        state.previous = may_be_shown.then_some(previous);
        let snapshot = state.snapshot();
        for process in state
            .processes
            .iter_mut()
            .filter(|process| process.candidate.is_some())
        {
            process.watch.push(snapshot.clone());
        }
        stored
    }
}
