//! Messages between the candidates and the API server, and what can become of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, State, World};
use crate::core::{AsOf, Input, Lease, LeaseRecord, Moment, ResourceVersion, WriteId};

/// How long the elector waits for a read.
const READ_BUDGET: Duration = Duration::from_secs(3);

/// Which traffic between a candidate and the API server is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partition {
    /// Both directions.
    Everything,
    /// Replies and watch events; requests arrive.
    Inbound,
    /// Watch events only.
    Watch,
}

/// How a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Healing {
    /// The blocked messages arrive.
    Late,
    /// The blocked messages are lost, the connections are reset, and the watch restarts.
    Reset,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) enum Request {
    Read,
    Create(WriteId, Arc<LeaseRecord>),
    Update(WriteId, ResourceVersion, Arc<LeaseRecord>),
    /// Mark the Pod as the leader of a Lease, and look for other marked Pods. The elector retries
    /// until it has an answer, so this request is late at worst.
    Mark(String),
}

impl Request {
    pub(super) fn write(&self) -> Option<WriteId> {
        match self {
            Self::Read | Self::Mark(_) => None,
            Self::Create(write, _) | Self::Update(write, ..) => Some(*write),
        }
    }
}

/// A reply of the API server, or a report of the kubelet.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) enum Reply {
    /// The Lease, and when it was requested.
    Read(Arc<Lease>, Moment),
    /// There is no Lease, and when that was requested.
    Absent(Moment),
    /// The Pod is marked, and other Pods are marked for these Leases.
    Marked(BTreeSet<String>),
    /// The kubelet reports that this container has terminated.
    Terminated(String),
    Written(Arc<Lease>),
    Conflict,
    /// The connection was broken.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) enum Body {
    Request(Request),
    Reply(Option<WriteId>, Reply),
}

/// One message in transit.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Message {
    pub(super) process: usize,
    pub(super) incarnation: u8,
    /// When the request was sent.
    pub(super) sent: u64,
    /// The adversary delays it.
    pub(super) delayed: bool,
    /// No process waits for the reply any more.
    pub(super) orphan: bool,
    pub(super) body: Body,
}

impl Message {
    pub(super) fn write(&self) -> Option<WriteId> {
        match &self.body {
            Body::Request(request) => request.write(),
            Body::Reply(write, _) => *write,
        }
    }

    pub(super) fn is_request(&self) -> bool {
        matches!(self.body, Body::Request(_))
    }

    pub(super) fn is_of_mark(&self) -> bool {
        matches!(
            self.body,
            Body::Request(Request::Mark(_)) | Body::Reply(_, Reply::Marked(_))
        )
    }

    pub(super) fn cannot_be_lost(&self) -> bool {
        self.is_of_mark()
            || matches!(
                self.body,
                Body::Reply(_, Reply::Broken | Reply::Terminated(_))
            )
    }
}

/// The input that the elector makes of a reply.
pub(super) fn input(write: Option<WriteId>, reply: Reply) -> Input {
    match (reply, write) {
        (Reply::Read(lease, asked), _) => Input::Read(Lease::clone(&lease), asked),
        (Reply::Absent(asked), _) => Input::Absent(AsOf::Asked(asked)),
        (Reply::Marked(rivals), _) => Input::Marked { rivals },
        (Reply::Terminated(token), _) => Input::ContainerTerminated(token),
        (Reply::Written(lease), Some(write)) => Input::Written(write, Lease::clone(&lease)),
        (Reply::Conflict, Some(write)) => Input::Conflict(write),
        (Reply::Broken, Some(write)) => Input::OutcomeUnknown(write),
        (Reply::Written(_) | Reply::Conflict | Reply::Broken, None) => Input::ReadFailed,
    }
}

impl World {
    /// Breaks the connection that carries a message.
    pub(super) fn break_connection(&self, state: &mut State, index: usize) {
        self.count_lost_reply(&state.in_transit[index]);
        let message = state.in_transit.remove(index);
        if !message.orphan {
            let body = Body::Reply(message.write(), Reply::Broken);
            self.post(
                state,
                Message {
                    delayed: false,
                    body,
                    ..message
                },
            );
        }
    }

    pub(super) fn count_lost_reply(&self, message: &Message) {
        if matches!(message.body, Body::Reply(_, Reply::Written(_))) {
            self.count_event(Event::LostReply);
        }
    }

    /// Adds a message in transit, in an order that does not depend on how the state was reached.
    pub(super) fn post(&self, state: &mut State, message: Message) {
        let key = |message: &Message| {
            (
                message.process,
                message.incarnation,
                message.write(),
                message.sent,
            )
        };
        let index = state
            .in_transit
            .partition_point(|other| key(other) <= key(&message));
        state.in_transit.insert(index, message);
    }

    pub(super) fn send(&self, state: &mut State, id: usize, request: Request) {
        let incarnation = state.processes[id].incarnation;
        let is_unanswered_write = |other: &Message| {
            other.process == id
                && other.incarnation == incarnation
                && !other.orphan
                && other.write().is_some()
        };
        if request.write().is_some() && state.in_transit.iter().any(is_unanswered_write) {
            self.count_event(Event::Hedge);
        }
        let message = Message {
            process: id,
            incarnation,
            sent: state.now,
            delayed: false,
            orphan: false,
            body: Body::Request(request),
        };
        self.post(state, message);
    }

    /// When the elector of a running process stops waiting for the reply to a message.
    pub(super) fn timeout_at(&self, state: &State, message: &Message) -> Option<u64> {
        let process = &state.processes[message.process];
        if message.orphan || !process.runs() {
            return None;
        }
        let config = self.bounds.candidates[message.process].config("");
        let budget = match &message.body {
            _ if message.is_of_mark() => return None,
            Body::Reply(_, Reply::Terminated(_)) => return None,
            _ if message.write().is_some() => config.renew_deadline,
            _ => READ_BUDGET,
        };
        let sent = self.reading(message.process, message.sent - process.started);
        Some(self.instant(message.process, process, sent + budget))
    }

    pub(super) fn has_timed_out(&self, state: &State, message: &Message) -> bool {
        self.timeout_at(state, message)
            .is_some_and(|at| at <= state.now)
    }
}
