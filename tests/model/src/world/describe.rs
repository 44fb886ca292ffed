//! Schedules in words, for a person who reads a counterexample.

use jiff::Timestamp;

use super::clock::EPOCH;
use super::network::{Body, Message, Reply, Request};
use super::{State, Step, World};
use crate::bounds::{CANDIDATES, SECOND};
use crate::core::{Lease, LeaseRecord};

pub(super) fn describe_lease(lease: &Lease) -> String {
    format!(
        "version {} {}",
        lease.version.0,
        describe_record(&lease.record)
    )
}

pub(super) fn describe_record(record: &LeaseRecord) -> String {
    let second = |time: Option<Timestamp>| {
        time.map_or(0.0, |time| {
            time.as_millisecond() as f64 / 1000.0 - EPOCH as f64
        })
    };
    let (acquired, renewed) = (second(record.acquired), second(record.renewed));
    format!(
        "holder {:?} acquired {acquired} renewed {renewed} for {:?}",
        record.holder, record.duration
    )
}

impl World {
    /// A step in words, taken in this state.
    #[must_use]
    pub fn describe(&self, state: &State, step: &Step) -> String {
        let letter = |id: usize| char::from(b'A' + u8::try_from(id).unwrap_or_default());
        let what = match step {
            Step::DeliverRequest(index) => format!(
                "the server receives: {}",
                self.describe_message(&state.in_transit[*index])
            ),
            Step::DeliverReply(index) => {
                format!(
                    "delivered: {}",
                    self.describe_message(&state.in_transit[*index])
                )
            }
            Step::DeliverWatchEvent(id) => {
                let word = state.processes[*id]
                    .watch
                    .first()
                    .and_then(|snapshot| snapshot.lease.as_deref());
                format!(
                    "the watch of {} delivers: {}",
                    letter(*id),
                    word.map_or("no Lease".into(), describe_lease)
                )
            }
            Step::TimeOut(index) => format!(
                "timed out: {}",
                self.describe_message(&state.in_transit[*index])
            ),
            Step::MessageFault(fault, index) => format!(
                "{fault:?} of {}",
                self.describe_message(&state.in_transit[*index])
            ),
            Step::Tick(id) => format!("the timer of {} fires", letter(*id)),
            Step::Drained(id) => format!("the work of {} has drained", letter(*id)),
            Step::DrainTimedOut(id) => format!("the drain of {} has timed out", letter(*id)),
            Step::Resume(id) => format!("{} resumes", letter(*id)),
            Step::Heal(id, healing) => {
                format!(
                    "the partition of {} heals, blocked messages: {healing:?}",
                    letter(*id)
                )
            }
            Step::ProcessFault(fault, id) => format!("{fault:?} of {}", letter(*id)),
            Step::Partition(id, partition) => {
                format!("{} is partitioned: {partition:?}", letter(*id))
            }
            Step::LeaseFault(fault) => format!("{fault:?} of the Lease by another client"),
            Step::Advance(to) => format!("time advances to {:.3} s", *to as f64 / SECOND as f64),
        };
        let open: String = (0..CANDIDATES)
            .filter(|id| self.is_open(state, *id))
            .map(letter)
            .collect();
        format!(
            "{:8.3} s  [{open:1}]  {what}",
            state.now as f64 / SECOND as f64
        )
    }

    /// The open fences, and the violated invariants.
    #[must_use]
    pub fn summary(&self, state: &State) -> String {
        let fences = (0..CANDIDATES).filter_map(|id| {
            let process = &state.processes[id];
            let fence = process.fence.as_ref().filter(|_| self.is_open(state, id))?;
            let end = self.instant(id, process, fence.end) as f64 / SECOND as f64;
            Some(format!(
                "fence of process {id} open for epoch {} until {end:.3} s",
                fence.epoch
            ))
        });
        format!(
            "{:?}, violated {:b}",
            fences.collect::<Vec<_>>(),
            state.violated
        )
    }

    fn describe_message(&self, message: &Message) -> String {
        let sent = message.sent as f64 / SECOND as f64;
        let what = match &message.body {
            Body::Request(Request::Read) => "read".to_owned(),
            Body::Request(Request::Create(write, record)) => {
                format!("write {}: create {}", write.0, describe_record(record))
            }
            Body::Request(Request::Update(write, version, record)) => {
                format!(
                    "write {}: update version {} to {}",
                    write.0,
                    version.0,
                    describe_record(record)
                )
            }
            Body::Reply(None, Reply::Read(lease, _)) => {
                format!("reply to a read: {}", describe_lease(lease))
            }
            Body::Reply(None, reply) => format!("reply: {reply:?}"),
            Body::Request(Request::Mark(lease)) => format!("mark Pod for {lease}"),
            Body::Reply(write, Reply::Written(lease)) => {
                format!(
                    "reply to write {}: {}",
                    write.map_or(0, |write| write.0),
                    describe_lease(lease)
                )
            }
            Body::Reply(write, reply) => {
                format!(
                    "reply to write {}: {reply:?}",
                    write.map_or(0, |write| write.0)
                )
            }
        };
        let letter = char::from(b'A' + u8::try_from(message.process).unwrap_or_default());
        format!("{letter}'s (sent at {sent:.3} s) {what}")
    }
}
