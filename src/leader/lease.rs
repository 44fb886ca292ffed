//! Who leads: the decision core of the elector. Values in, values out, time passed in.
//!
//! It owns the state machine of one candidate (research: client-go `tools/leaderelection`, whose Lease record it shares)
//! and must not know a clock, a network or a task. [`super::elector`] gathers its inputs and carries out its actions;
//! [`super::fence`] is what an [`Action::Open`] opens.
//!
//! What keeps two leaders apart, in the order of trust:
//! 1. Every write to the Lease is conditional on the version that was read, so at most one candidate's write succeeds.
//! 2. A leader counts its time from the moment it *sent* the last write that succeeded, a follower from the moment it
//!    *received* the last change. So a leader's clock starts no later and a follower's no earlier than the commit.
//! 3. A leader's fence ends [`Config::guard`] before the Lease may be taken over.
//!
//! Remote timestamps are never compared with a local clock: only that they change says that a holder lives. What may shorten
//! a wait is proof that the holder has ended: its own release, or the kubelet's report that its very container terminated.
//! A holder that somebody else erased, shortened or deleted is waited out as it was last seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::record::{Chance, Config, Epoch, Lease, Moment, Now, Record, Version, Way};

/// Unanswered writes under way at once: a second connection outlives a dead first one, a third a dead second.
const MAX_IN_FLIGHT: usize = 3;
/// A write that is unanswered for so long gets a twin on another connection; the first keeps its chance.
const HEDGE_AFTER: Duration = Duration::from_secs(3);
/// Delays after failures: doubling from the first to the second, then shortened by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long a release may take; after that the Lease runs out by itself.
const RELEASE_BUDGET: Duration = Duration::from_secs(3);
/// How long a follower that hears nothing trusts its watch, beyond the period in which a holder renews.
const SILENCE: Duration = Duration::from_secs(3);
/// How long others leave a Lease to the candidate for which its holder was asked to step down.
const HEAD_START: Duration = Duration::from_secs(2);

/// Names one write to the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// What the world tells a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The Lease stands like this, by the watch.
    Seen(Lease),
    /// The Lease stood like this at some moment after this one, at which it was asked for.
    Read(Lease, Moment),
    /// There is no Lease, by a read or by the watch, and as of when that is known.
    Absent(AsOf),
    /// The container with this token has terminated.
    Terminated(String),
    /// The Pod of this candidate is marked as the leader's, or cannot be. Others, whose containers are not reported
    /// terminated, are marked as those of leaders of other Leases of the name: these may have been deleted under leaders
    /// that hear nothing.
    Marked {
        /// Uids of those Leases; an empty one for any that is not known.
        rivals: BTreeSet<String>,
    },
    /// A read failed.
    ReadFailed,
    /// A write was committed; the Lease stands like this.
    Written(Attempt, Lease),
    /// A write was refused, because the Lease is not what it was thought to be.
    Refused(Attempt),
    /// Whether a write was committed is not known.
    Unanswered(Attempt),
    /// Time has passed.
    Tick,
    /// The process is asked to end.
    Leave,
    /// Nothing that a leader may do is under way any more.
    Drained,
    /// Something is still under way, and the patience with it is over.
    DrainTimedOut,
}

/// How old the knowledge is that there is no Lease: an object that is not there has no version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AsOf {
    /// It is as of this version of the cluster's store.
    Version(Version),
    /// It was asked for at this moment, and is not older.
    Asked(Moment),
}

/// What a candidate wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the Lease, as the API server has it at this moment.
    Read,
    /// Create the Lease.
    Create(Attempt, Record),
    /// Replace the Lease if it still has this version.
    Replace(Attempt, Version, Record),
    /// Mark the Pod of this candidate as that of the leader of the Lease with this uid, then look for others, and say
    /// [`Input::Marked`]. Of two that do so in this order, one at least sees the other.
    Mark(String),
    /// A term begins: its fence opens for the first time.
    Begin {
        /// How this candidate came to it.
        way: Way,
        /// Since the Lease was known to be free.
        waited: Duration,
    },
    /// Open the fence, or move its end.
    Open {
        /// The term.
        epoch: Epoch,
        /// From then on nothing is started.
        soft_end: Moment,
        /// From then on nothing is under way.
        hard_end: Moment,
        /// The same by the wall clock, for a machine whose other clocks stood still.
        wall_end: Timestamp,
    },
    /// Close the fence. It is closed before any later action is carried out.
    Close,
    /// Let the work come to rest at a safe point, then say [`Input::Drained`].
    Drain,
    /// This holder began a term.
    Announce(String),
    /// Nothing is left to do.
    Exit(Exit),
}

/// Why a candidate ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Asked to, while it held nothing, or after a release.
    Clean,
    /// Asked to; it may hold the Lease, which was not released and runs out by itself.
    Unreleased,
    /// Another candidate leads, or may lead.
    Lost,
}

/// The part that a candidate plays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Nobody leads, or somebody else does, or nothing is known.
    Following,
    /// A write that would take the Lease over is under way. If the candidate is asked to end, it is waited for until then.
    Acquiring {
        record: Record,
        leaving: Option<Moment>,
        way: Way,
        free: Moment,
    },
    /// The fence is open.
    Leading(Term),
    /// The fence is closed, because it has not been opened yet or because renewals failed; nobody else has been seen.
    Suspended(Term),
    /// The fence is open until the work has come to rest.
    Draining(Term),
    /// The fence is closed, and the Lease is being given back until then.
    Releasing {
        acquired: Option<Timestamp>,
        until: Moment,
    },
    /// It has ended.
    Over,
}

/// What a leader knows of its term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    epoch: Epoch,
    /// What tells this term's record from any other under the same name.
    acquired: Option<Timestamp>,
    /// When the last write that succeeded was sent.
    renewed: Sent,
    /// When the next renewal is due.
    due: Moment,
    /// What stands before the first opening of the fence.
    opening: Option<Opening>,
}

/// A term whose fence has never been open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Opening {
    way: Way,
    /// When the Lease was known to be free.
    free: Moment,
    /// From when on no leader of a Lease that was deleted can act, once that is known.
    clear: Option<Moment>,
}

/// The instant at which a write was sent, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sent {
    moment: Moment,
    wall: Timestamp,
}

/// What is known of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Sight {
    /// Nothing.
    Unknown,
    /// It stands like this, and its record has not changed since.
    Present { lease: Lease, since: Moment },
    /// It is gone, as of this version or a later one. If it was ever seen: its last record, and since when that stood.
    Gone {
        version: Version,
        last: Option<(Record, Moment)>,
    },
}

impl Sight {
    fn record(&self) -> Option<(&Record, Moment)> {
        match self {
            Self::Unknown => None,
            Self::Present { lease, since } => Some((&lease.record, *since)),
            Self::Gone { last, .. } => last.as_ref().map(|(record, since)| (record, *since)),
        }
    }

    /// Whether this Lease is older than what is known: a watch that lags tells nothing, however often.
    fn is_past(&self, lease: &Lease) -> bool {
        match self {
            Self::Unknown => false,
            Self::Present { lease: known, .. } => lease.version.precedes(&known.version),
            Self::Gone { version, .. } => !version.precedes(&lease.version),
        }
    }
}

/// What time alone brings about, the weightiest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The fence has reached its end.
    FenceEnd,
    /// Patience is over.
    GiveUp,
    /// The Lease must be read.
    Read,
    /// The Lease must be written.
    Write,
}

/// One candidate for leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    config: Config,
    role: Role,
    sight: Sight,
    /// When a live holder that was seen may have ended at the earliest, whatever the Lease says of it by now.
    floor: Moment,
    /// The same for holders of Leases that were deleted.
    wary: Moment,
    /// When this Lease, by its uid, was first seen: no leader of an earlier one has renewed that one since.
    first_seen: Moment,
    /// Uid of the Lease that was seen before, and when it was first known to be gone: its leader has not renewed it since.
    gone: Option<(String, Moment)>,
    /// Token of the last container that is known to have terminated.
    ended: Option<String>,
    /// When anything was last heard of the Lease, when it was last seen, and when that was news.
    heard: Moment,
    seen: Moment,
    news: Moment,
    /// Writes under way, and when each was sent.
    in_flight: BTreeMap<Attempt, Sent>,
    attempts: u64,
    /// Acquire time of a write of ours that may have been committed unseen.
    claimed: Option<Timestamp>,
    /// Failures in a row, and the moment before which nothing is tried again.
    failures: u32,
    not_before: Moment,
    /// A write was refused, and nothing has changed since.
    quarrels: bool,
    /// A read is under way.
    reading: bool,
    /// The Lease is not what it was thought to be: it must be read before it is written.
    stale: bool,
    /// Share of chance for the wait for the expiry of the record in sight.
    chance: Chance,
}

impl Candidate {
    /// A candidate that knows nothing, and its first action.
    #[must_use]
    pub fn new(config: Config, now: Now) -> (Self, Vec<Action>) {
        let mut candidate = Self {
            config,
            role: Role::Following,
            sight: Sight::Unknown,
            floor: Moment::default(),
            wary: Moment::default(),
            first_seen: now.moment,
            gone: None,
            ended: None,
            heard: now.moment,
            seen: now.moment,
            news: now.moment,
            in_flight: BTreeMap::new(),
            attempts: 0,
            claimed: None,
            failures: 0,
            quarrels: false,
            not_before: now.moment,
            reading: false,
            stale: true,
            chance: now.chance,
        };
        let actions = candidate.step(Input::Tick, now);
        (candidate, actions)
    }

    /// Takes in one input and answers with what is to be done, in order.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Tick => {}
            Input::Seen(lease) => self.follow(lease, now, &mut actions),
            Input::Read(lease, asked) => {
                self.reading = false;
                if self.sight.is_past(&lease) && asked > self.heard {
                    // The API server's store went back. Versions tell nothing any more; whoever was seen is waited out.
                    self.sight = Sight::Unknown;
                }
                self.follow(lease, now, &mut actions);
            }
            Input::Absent(as_of) => {
                self.reading = false;
                self.miss(&as_of, now, &mut actions);
                self.reconsider(now, &mut actions);
            }
            Input::Terminated(instance) => {
                // That an earlier container has ended as well is no news where the holder's own has.
                if !self.has_holder_ended() {
                    self.ended = Some(instance);
                    self.news = now.moment;
                }
            }
            Input::Marked { rivals } => {
                let ends = rivals
                    .iter()
                    .map(|lease| self.gone_since(lease) + self.config.lease_duration);
                let until = ends.max().unwrap_or(now.moment);
                if let Role::Suspended(Term {
                    opening: Some(opening),
                    ..
                }) = &mut self.role
                {
                    // What was reported terminated meanwhile is no rival any more.
                    opening.clear = Some(opening.clear.map_or(until, |known| known.min(until)));
                    self.open(now, &mut actions);
                    self.judge(&mut actions);
                }
            }
            Input::ReadFailed => {
                self.reading = false;
                self.back_off(now.moment, now.chance);
            }
            Input::Written(attempt, lease) => {
                let sent = self.in_flight.remove(&attempt);
                self.see(lease.clone(), now, &mut actions);
                if let Some(sent) = sent {
                    self.failures = 0;
                    self.quarrels = false;
                    self.succeed(sent, lease, now, &mut actions);
                }
                self.judge(&mut actions);
            }
            Input::Refused(attempt) => {
                if self.in_flight.remove(&attempt).is_some() {
                    self.stale = true;
                    // One conflict is looked into at once, whatever failed before: it is an answer. Another one, although
                    // nothing has changed, is a quarrel.
                    if std::mem::replace(&mut self.quarrels, true) {
                        self.back_off(now.moment, now.chance);
                    } else {
                        self.failures = 0;
                        self.not_before = now.moment;
                    }
                    self.doubt(now, &mut actions);
                }
            }
            Input::Unanswered(attempt) => {
                if let Some(sent) = self.in_flight.remove(&attempt) {
                    // What took long to fail was a pause.
                    self.back_off(sent.moment, now.chance);
                    if self.in_flight.is_empty() {
                        self.doubt(now, &mut actions);
                    }
                }
            }
            Input::Leave => self.leave(now, &mut actions),
            Input::Drained => {
                if let Role::Draining(term) = &self.role {
                    let acquired = term.acquired;
                    actions.push(Action::Close);
                    self.release(acquired, now);
                }
            }
            Input::DrainTimedOut => {
                if matches!(self.role, Role::Draining(_)) {
                    actions.push(Action::Close);
                    self.exit(Exit::Unreleased, &mut actions);
                }
            }
        }
        // What is overdue comes by its weight, not by its moment: the end of the fence before any write.
        while let Some((_, due)) = self
            .agenda()
            .into_iter()
            .filter(|(at, _)| *at <= now.moment)
            .min_by_key(|(_, due)| *due)
        {
            self.perform(due, now, &mut actions);
        }
        actions
    }

    /// Draws the conclusions from how the Lease stands.
    fn follow(&mut self, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        self.see(lease, now, actions);
        self.reconsider(now, actions);
        self.judge(actions);
    }

    /// A take-over that is under way is given up as soon as the Lease is not free any more: the twin of a write that was sent
    /// on what was seen then must not be sent on what is seen by now.
    fn reconsider(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.free_at().is_none_or(|(free, _)| free > now.moment) {
            self.give_up(actions);
        }
    }

    /// Leaves a take-over alone, if one is under way. What comes of its writes is news and nothing more.
    fn give_up(&mut self, actions: &mut Vec<Action>) {
        let Role::Acquiring { leaving, .. } = self.role else {
            return;
        };
        self.role = Role::Following;
        self.in_flight.clear();
        if leaving.is_some() {
            self.exit(Exit::Clean, actions);
        }
    }

    /// When the next step is due, if no input comes before.
    #[must_use]
    pub fn wake(&self) -> Option<Moment> {
        self.agenda().into_iter().map(|(at, _)| at).min()
    }

    /// Everything that time alone will bring about, with its moment. A moment that has passed is due at once.
    fn agenda(&self) -> Vec<(Moment, Due)> {
        let mut agenda = Vec::new();
        if !self.reading && self.role != Role::Over {
            if self.stale {
                agenda.push((self.not_before, Due::Read));
            } else if self.role == Role::Following {
                let silence = self.heard + self.config.retry_period + SILENCE;
                agenda.push((silence.max(self.not_before), Due::Read));
            }
        }
        let write = match &self.role {
            Role::Over => None,
            Role::Following => self.free_at().map(|(free, _)| free),
            Role::Acquiring {
                leaving: Some(until),
                ..
            } => {
                agenda.push((*until, Due::GiveUp));
                None
            }
            Role::Acquiring { leaving: None, .. } => Some(Moment::default()),
            Role::Leading(term) | Role::Draining(term) => {
                agenda.push((self.hard_end(term), Due::FenceEnd));
                Some(term.due)
            }
            Role::Suspended(term) => {
                agenda.push((
                    term.renewed.moment + 2 * self.config.lease_duration,
                    Due::GiveUp,
                ));
                // The fence opens with a renewal: with the first one that can open it.
                let clear = term.opening.as_ref().and_then(|opening| opening.clear);
                let opens = clear.filter(|clear| term.renewed.moment < *clear);
                Some(opens.map_or(term.due, |clear| clear.min(term.due)))
            }
            Role::Releasing { until, .. } => {
                agenda.push((*until, Due::GiveUp));
                Some(Moment::default())
            }
        };
        if let Some(due) = write.filter(|_| !self.stale) {
            match self.in_flight.values().map(|sent| sent.moment).max() {
                None => agenda.push((due.max(self.not_before), Due::Write)),
                Some(newest) if self.in_flight.len() < MAX_IN_FLIGHT => {
                    agenda.push(((newest + HEDGE_AFTER).max(self.not_before), Due::Write));
                }
                Some(_) => {}
            }
        }
        agenda
    }

    fn perform(&mut self, due: Due, now: Now, actions: &mut Vec<Action>) {
        match due {
            Due::Read => {
                self.reading = true;
                actions.push(Action::Read);
            }
            Due::Write => self.write(now, actions),
            Due::FenceEnd => {
                actions.push(Action::Close);
                match std::mem::replace(&mut self.role, Role::Over) {
                    Role::Leading(term) => self.role = Role::Suspended(term),
                    _ => self.exit(Exit::Unreleased, actions),
                }
            }
            Due::GiveUp => {
                let exit = if matches!(self.role, Role::Suspended(_)) {
                    Exit::Lost
                } else {
                    Exit::Unreleased
                };
                self.exit(exit, actions);
            }
        }
    }

    /// When the Lease may be taken over, as far as is known, and in which way.
    fn free_at(&self) -> Option<(Moment, Way)> {
        let at_once = Moment::default();
        let (free, way) = match &self.sight {
            Sight::Unknown => return None,
            Sight::Gone { .. } => (at_once, Way::Creation),
            Sight::Present { lease, .. } if self.is_mine(lease) => (at_once, Way::Reclaim),
            // Whoever is named by the API server takes the Lease; nobody else does.
            Sight::Present { lease, .. } if lease.coordinated => {
                (lease.record.holder == self.config.identity).then_some((at_once, Way::Release))?
            }
            Sight::Present { lease, since } if lease.record.is_released() => match &lease.successor
            {
                Some(successor) if !successor.is_empty() && *successor != self.config.identity => {
                    (*since + HEAD_START, Way::Release)
                }
                _ => (at_once, Way::Release),
            },
            Sight::Present { .. } if self.has_holder_ended() => (at_once, Way::Termination),
            Sight::Present { lease, .. } => {
                let spread = Duration::from_millis(100).min(lease.record.duration / 60);
                (self.floor + self.chance.of(spread), Way::Expiry)
            }
        };
        Some((free.max(self.wary), way))
    }

    /// Whether the container that wrote the record in sight is known to have terminated.
    fn has_holder_ended(&self) -> bool {
        match &self.sight {
            Sight::Present { lease, .. } => {
                lease.instance.is_some() && lease.instance == self.ended
            }
            Sight::Unknown | Sight::Gone { .. } => false,
        }
    }

    /// Whether a record under this candidate's name was written by it, or by an earlier container of its Pod. Containers
    /// of one Pod run one after another, so nobody else can act on that record.
    fn is_mine(&self, lease: &Lease) -> bool {
        let same_pod = self.config.pod_uid.is_some() && lease.pod_uid == self.config.pod_uid;
        let claimed = self.claimed.is_some() && lease.record.acquired == self.claimed;
        lease.record.holder == self.config.identity && (same_pod || claimed)
    }

    /// Whether the Lease still says what this term wrote. One that somebody shortened is not ours either: others may
    /// take it over before the fence ends.
    fn is_of_term(&self, lease: &Lease, acquired: Option<Timestamp>) -> bool {
        lease.record.holder == self.config.identity
            && lease.record.acquired == acquired
            && lease.record.duration >= self.config.lease_duration
    }

    /// The Lease in sight, if it still says what a term wrote.
    fn lease_of(&self, acquired: Option<Timestamp>) -> Option<&Lease> {
        match &self.sight {
            Sight::Present { lease, .. } if self.is_of_term(lease, acquired) => Some(lease),
            _ => None,
        }
    }

    /// Whether somebody asks this holder to make room.
    fn is_unwanted(&self, lease: &Lease) -> bool {
        lease
            .successor
            .as_ref()
            .is_some_and(|successor| *successor != self.config.identity)
    }

    fn hard_end(&self, term: &Term) -> Moment {
        term.renewed.moment + self.config.reach()
    }

    /// Takes in how the Lease stands, unless something newer is known.
    fn see(&mut self, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        if self.sight.is_past(&lease) {
            return;
        }
        self.heard = now.moment;
        let is_known =
            matches!(&self.sight, Sight::Present { lease: known, .. } if known.uid == lease.uid);
        if !is_known {
            self.lose_sight(now);
            self.first_seen = now.moment;
        }
        let since = match &self.sight {
            // Only a change of the record proves that its holder lives: not a new label, not a new version.
            Sight::Present {
                lease: known,
                since,
            } if known.record == lease.record && is_known => *since,
            _ => {
                self.chance = now.chance;
                self.news = now.moment;
                self.failures = 0;
                self.quarrels = false;
                self.floor = match &lease.record {
                    record if record.is_released() => Moment::default(),
                    // A holder that was erased is waited out as it was last seen: if it never was, from this moment on.
                    record if record.holder.is_empty() && is_known => self.floor,
                    record => self.floor.max(now.moment + record.duration),
                };
                now.moment
            }
        };
        let term = |record: &Record| (record.holder.clone(), record.transitions);
        let before = self.sight.record().map(|(record, _)| term(record));
        if !lease.record.holder.is_empty() && before != Some(term(&lease.record)) {
            actions.push(Action::Announce(lease.record.holder.clone()));
        }
        self.stale = false;
        self.seen = now.moment;
        self.sight = Sight::Present { lease, since };
    }

    /// Since when a Lease that is not this one has certainly been gone.
    fn gone_since(&self, lease: &str) -> Moment {
        match &self.gone {
            Some((gone, since)) if gone == lease => *since,
            _ => self.first_seen,
        }
    }

    /// Notes that the Lease in sight, if there is one, is gone. Whoever was seen to hold it is waited out all the same.
    fn lose_sight(&mut self, now: Now) {
        self.wary = self.wary.max(self.floor);
        if let Sight::Present { lease, .. } = &self.sight {
            self.gone = Some((lease.uid.clone(), now.moment));
        }
    }

    /// What the Lease in sight means for the part that is played.
    fn judge(&mut self, actions: &mut Vec<Action>) {
        match &self.role {
            Role::Leading(term) | Role::Draining(term) | Role::Suspended(term) => {
                let leads = matches!(self.role, Role::Leading(_));
                match self.lease_of(term.acquired) {
                    None => {
                        actions.push(Action::Close);
                        self.exit(Exit::Lost, actions);
                    }
                    Some(lease) if leads && self.is_unwanted(lease) => {
                        self.drain(term.clone(), actions)
                    }
                    Some(_) => {}
                }
            }
            Role::Releasing { acquired, .. } => {
                if self.lease_of(*acquired).is_none() {
                    self.exit(Exit::Clean, actions);
                }
            }
            Role::Following | Role::Acquiring { .. } | Role::Over => {}
        }
    }

    /// Takes in that there is no Lease.
    fn miss(&mut self, as_of: &AsOf, now: Now, actions: &mut Vec<Action>) {
        self.heard = now.moment;
        if let Sight::Present { lease, .. } = &self.sight {
            match as_of {
                AsOf::Version(version) if version.precedes(&lease.version) => return,
                // The answer may be older than the Lease that was seen meanwhile: only another question can tell.
                AsOf::Asked(moment) if *moment <= self.seen => {
                    self.stale = true;
                    return;
                }
                AsOf::Version(_) | AsOf::Asked(_) => {}
            }
        }
        self.stale = false;
        if !matches!(self.sight, Sight::Gone { .. }) {
            self.news = now.moment;
            self.lose_sight(now);
            // What was to be replaced is gone; a write that had replaced it before is gone with it.
            self.give_up(actions);
        }
        let heard = match as_of {
            AsOf::Version(version) => version.clone(),
            AsOf::Asked(_) => Version::default(),
        };
        let known = match &self.sight {
            Sight::Unknown => Version::default(),
            Sight::Present { lease, .. } => lease.version.clone(),
            Sight::Gone { version, .. } => version.clone(),
        };
        let last = self
            .sight
            .record()
            .map(|(record, since)| (record.clone(), since));
        self.sight = Sight::Gone {
            version: if known.precedes(&heard) { heard } else { known },
            last,
        };
        match &self.role {
            // Others wait out the term that they saw, and so does this candidate: a Lease made anew is a new term.
            Role::Leading(_) | Role::Suspended(_) => {
                actions.push(Action::Close);
                self.role = Role::Following;
                self.in_flight.clear();
            }
            Role::Draining(_) | Role::Releasing { .. } => {
                actions.push(Action::Close);
                self.exit(Exit::Clean, actions);
            }
            Role::Following | Role::Acquiring { .. } | Role::Over => {}
        }
    }

    /// Takes in that a write sent at `sent` made the Lease stand like `lease`.
    fn succeed(&mut self, sent: Sent, lease: Lease, now: Now, actions: &mut Vec<Action>) {
        // All writes under way carry the version that this one has just replaced: none of them can succeed any more.
        self.in_flight.clear();
        let period = self.config.retry_period;
        let due = sent.moment + period * 9 / 10 + now.chance.of(period / 5);
        match &mut self.role {
            Role::Leading(term) | Role::Draining(term) | Role::Suspended(term) => {
                term.renewed = sent;
                term.due = due;
                let is_waited_for =
                    |opening: &Opening| opening.clear.is_some_and(|clear| clear > now.moment);
                if term.opening.as_ref().is_some_and(is_waited_for) {
                    actions.push(Action::Mark(term.epoch.lease_uid.clone()));
                }
            }
            Role::Acquiring {
                leaving, way, free, ..
            } => {
                let (leaving, acquired) = (*leaving, lease.record.acquired);
                let clear = (!self.config.marks).then_some(now.moment);
                let opening = Some(Opening {
                    way: *way,
                    free: *free,
                    clear,
                });
                self.claimed = None;
                self.role = match (self.lease_of(acquired).is_some(), leaving.is_some()) {
                    (false, false) => Role::Following,
                    (false, true) => return self.exit(Exit::Clean, actions),
                    (true, true) => return self.release(acquired, now),
                    (true, false) => {
                        let transitions = lease.record.transitions;
                        let epoch = Epoch {
                            lease_uid: lease.uid,
                            version: lease.version,
                            transitions,
                        };
                        if self.config.marks {
                            actions.push(Action::Mark(epoch.lease_uid.clone()));
                        }
                        Role::Suspended(Term {
                            epoch,
                            acquired,
                            renewed: sent,
                            due,
                            opening,
                        })
                    }
                };
            }
            // A follower has nothing under way, so what succeeded is the release.
            Role::Releasing { .. } | Role::Following | Role::Over => {
                return self.exit(Exit::Clean, actions);
            }
        }
        self.open(now, actions);
    }

    /// Opens the fence as far as the last renewal reaches. A reply that came too late opens nothing.
    fn open(&mut self, now: Now, actions: &mut Vec<Action>) {
        let reach = self.config.reach();
        let (Role::Leading(term) | Role::Draining(term) | Role::Suspended(term)) = &mut self.role
        else {
            return;
        };
        let hard_end = term.renewed.moment + reach;
        let wall_end = term
            .renewed
            .wall
            .checked_add(reach)
            .unwrap_or(Timestamp::MAX);
        let is_clear = |opening: &Opening| opening.clear.is_some_and(|clear| clear <= now.moment);
        if hard_end <= now.moment
            || term
                .opening
                .as_ref()
                .is_some_and(|opening| !is_clear(opening))
        {
            return;
        }
        if let Some(Opening { way, free, .. }) = term.opening.take() {
            actions.push(Action::Begin {
                way,
                waited: now.moment.since(free),
            });
        }
        let soft_end = term.renewed.moment + self.config.renew_deadline;
        actions.push(Action::Open {
            epoch: term.epoch.clone(),
            soft_end,
            hard_end,
            wall_end,
        });
        if let Role::Suspended(term) = &self.role {
            self.role = Role::Leading(term.clone());
        }
    }

    /// Takes in that a write was refused, or that every write under way came to nothing known.
    fn doubt(&mut self, now: Now, actions: &mut Vec<Action>) {
        match &mut self.role {
            Role::Acquiring { leaving, .. } => {
                let leaving = *leaving;
                self.role = Role::Following;
                self.in_flight.clear();
                self.stale = true;
                if leaving.is_some() {
                    self.exit(Exit::Unreleased, actions);
                }
            }
            Role::Leading(term) | Role::Draining(term) | Role::Suspended(term) => {
                term.due = now.moment
            }
            Role::Following | Role::Releasing { .. } | Role::Over => {}
        }
    }

    fn leave(&mut self, now: Now, actions: &mut Vec<Action>) {
        match &mut self.role {
            Role::Following => self.exit(Exit::Clean, actions),
            Role::Acquiring { leaving, .. } => *leaving = Some(now.moment + RELEASE_BUDGET),
            Role::Leading(term) => {
                let term = term.clone();
                self.drain(term, actions);
            }
            Role::Suspended(term) => {
                let acquired = term.acquired;
                self.release(acquired, now);
            }
            Role::Draining(_) | Role::Releasing { .. } | Role::Over => {}
        }
    }

    fn drain(&mut self, term: Term, actions: &mut Vec<Action>) {
        self.role = Role::Draining(term);
        actions.push(Action::Drain);
    }

    fn release(&mut self, acquired: Option<Timestamp>, now: Now) {
        self.in_flight.clear();
        self.not_before = now.moment;
        self.role = Role::Releasing {
            acquired,
            until: now.moment + RELEASE_BUDGET,
        };
    }

    fn exit(&mut self, exit: Exit, actions: &mut Vec<Action>) {
        self.in_flight.clear();
        self.role = Role::Over;
        actions.push(Action::Exit(exit));
    }

    fn back_off(&mut self, since: Moment, chance: Chance) {
        let ceiling = BACKOFF
            .0
            .saturating_mul(1 << self.failures.min(8))
            .min(BACKOFF.1);
        self.failures += 1;
        self.not_before = self.not_before.max(since + chance.of(ceiling));
    }

    /// Sends the write that the part asks for, on the version in sight.
    fn write(&mut self, now: Now, actions: &mut Vec<Action>) {
        let record = match &self.role {
            // The first of these writes was seen to succeed. Another one that said the same would tell nobody that this
            // candidate still lives, and yet count as a renewal.
            Role::Acquiring { record, .. } if self.lease_of(record.acquired).is_some() => {
                self.renewal(now)
            }
            Role::Acquiring { record, .. } => record.clone(),
            Role::Following => self.take_over(now),
            Role::Releasing { .. } => self.released(now),
            Role::Leading(_) | Role::Draining(_) | Role::Suspended(_) | Role::Over => {
                self.renewal(now)
            }
        };
        if let (Role::Following, Some((free, way))) = (&self.role, self.free_at()) {
            let free = free.max(self.news);
            self.claimed = record.acquired;
            self.role = Role::Acquiring {
                record: record.clone(),
                leaving: None,
                way,
                free,
            };
        }
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        self.in_flight.insert(
            attempt,
            Sent {
                moment: now.moment,
                wall: now.wall,
            },
        );
        actions.push(match &self.sight {
            Sight::Present { lease, .. } => Action::Replace(attempt, lease.version.clone(), record),
            Sight::Gone { .. } | Sight::Unknown => Action::Create(attempt, record),
        });
    }

    fn take_over(&self, now: Now) -> Record {
        let known = self.sight.record().map(|(record, _)| record);
        // A write of ours that was committed unseen began a term already: go on with that one.
        let claimed =
            known.filter(|record| record.acquired.is_some() && record.acquired == self.claimed);
        Record {
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

    fn renewal(&self, now: Now) -> Record {
        let known = self
            .sight
            .record()
            .map(|(record, _)| record.clone())
            .unwrap_or_default();
        // client-go compares whole seconds: a renewal within the second of the last one would be invisible to it.
        let renewed = known
            .renewed
            .and_then(|last| last.checked_add(Duration::from_secs(1)).ok());
        Record {
            duration: self.config.lease_duration,
            renewed: Some(renewed.map_or(now.wall, |earliest| earliest.max(now.wall))),
            ..known
        }
    }

    fn released(&self, now: Now) -> Record {
        let known = self
            .sight
            .record()
            .map(|(record, _)| record.clone())
            .unwrap_or_default();
        Record {
            holder: String::new(),
            duration: Record::RELEASED,
            acquired: Some(now.wall),
            renewed: Some(now.wall),
            ..known
        }
    }
}

#[cfg(test)]
mod tests;
