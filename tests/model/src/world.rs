//! The world around the candidates: one Lease, a network, processes, clocks, and an adversary who has hold of all of them.
//!
//! It owns what may happen next in a state and what comes of it, and it must not know how schedules are chosen: the
//! checker tries all of them ([`crate::check`]), the simulation some at random ([`crate::simulation`]).
//!
//! What the adversary does not touch happens at once and in a fixed order: a message arrives, a timer goes off. Only races
//! for the Lease, and for the attention of one process, are left open. Whatever departs from that is a fault, and faults
//! are counted ([`Bounds::limits`]). Time goes from event to event, exactly: clocks run at rates of their own, and no
//! moment is rounded to a grid.
//!
//! What is assumed of effects: a process may write at every instant at which its fence is open, and a write that was
//! checked may leave [`Bounds::straggle`] later than that, because the process was stopped in between. That is what the
//! guard is for. A write of a killed process has left or never will, and the terms of one process wait for one another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::bounds::{Bounds, CANDIDATES, FAULTS, Fault, SECOND, Start, TRUE_RATE, Tally};
use crate::core::{
    Action, AsOf, Core, Exit, Input, Jitter, Lease, LeaseRecord, Make, Moment, Now,
    ResourceVersion, WriteId,
};

/// Revision of the object store at first: the next one has a digit more.
const FIRST_REVISION: u64 = 8;
/// How long the shell waits for a read.
const READ_BUDGET: Duration = Duration::from_secs(3);
/// How long it takes to start a process again while the adversary rests.
const RESTART: u64 = SECOND / 10;
/// How long the shell waits for the work to come to rest.
const DRAIN_BUDGET: Duration = Duration::from_secs(4);
/// What right wall clocks say at first, in seconds of Unix time.
const EPOCH: i64 = 1_700_000_000;
/// A world that does so much at one instant goes round in circles.
const STEPS_PER_INSTANT: usize = 200;

/// A candidate's mind, shared between states until it changes.
#[derive(Clone, Debug)]
pub struct Mind {
    digest: u64,
    wake: Option<Moment>,
    core: Arc<dyn Core>,
}

impl Mind {
    fn new(core: Box<dyn Core>) -> Self {
        Self {
            digest: core.digest(),
            wake: core.next_wake(),
            core: core.into(),
        }
    }
}

impl PartialEq for Mind {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl std::hash::Hash for Mind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// A fence, as the last [`Action::OpenFence`] left it.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Fence {
    epoch: u64,
    end: Moment,
}

/// How the Lease stood as of a version.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Sighting {
    lease: Option<Arc<Lease>>,
    version: u64,
}

/// What is held back between a candidate and the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gap {
    /// Its requests do not arrive, and nothing comes to it.
    Everything,
    /// Its requests arrive, and nothing comes back.
    Inbound,
    /// The watch says nothing.
    Watch,
}

/// How a gap ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Healing {
    /// What was held back arrives.
    Late,
    /// What was held back is lost, the connections are reset, and the watch begins anew.
    Reset,
}

/// One process, or the place for one.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct Process {
    /// The candidate, while the process runs.
    mind: Option<Mind>,
    /// How often a process was started here.
    incarnation: u8,
    /// When it was started: the origin of its moments.
    started: u64,
    paused: bool,
    gap: Option<Gap>,
    /// What the watch has yet to say, the oldest first.
    watch: Vec<Sighting>,
    fence: Option<Fence>,
    /// The work is to come to rest; from then on the patience with it is over. A work that lingers does not.
    draining: Option<(u64, bool)>,
    /// An effect of a term that is over may leave until then.
    straggler: Option<(u64, u64)>,
    /// End of the last fence, by its own clock: tells how old the last renewal is.
    last_end: Moment,
}

impl Process {
    fn runs(&self) -> bool {
        self.mind.is_some() && !self.paused
    }

    fn hears(&self) -> bool {
        self.runs() && !matches!(self.gap, Some(Gap::Everything | Gap::Inbound))
    }

    fn watches(&self) -> bool {
        self.runs() && self.gap.is_none()
    }
}

/// What a candidate asks of the API server.
#[derive(Clone, Debug, PartialEq, Hash)]
enum Request {
    Read,
    Create(WriteId, Arc<LeaseRecord>),
    Update(WriteId, ResourceVersion, Arc<LeaseRecord>),
    /// Mark the Pod as that of the leader of a Lease, and look for others. The shell asks again and again until there is an
    /// answer: it is late at worst.
    Mark(String),
}

impl Request {
    fn write(&self) -> Option<WriteId> {
        match self {
            Self::Read | Self::Mark(_) => None,
            Self::Create(write, _) | Self::Update(write, ..) => Some(*write),
        }
    }
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Hash)]
enum Reply {
    /// How the Lease stands, and since when that is asked for.
    Read(Arc<Lease>, Moment),
    /// There is none, and since when that is asked for.
    Absent(Moment),
    /// The Pod is marked, and others are for these other Leases.
    Marked(BTreeSet<String>),
    /// The kubelet says that this container has terminated.
    Terminated(String),
    Written(Arc<Lease>),
    Refused,
    /// The connection broke.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
enum Body {
    Request(Request),
    Reply(Option<WriteId>, Reply),
}

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Message {
    process: usize,
    incarnation: u8,
    /// When the request was sent.
    sent: u64,
    /// The adversary holds it back.
    delayed: bool,
    /// Nobody waits for the answer any more.
    orphan: bool,
    body: Body,
}

impl Message {
    fn write(&self) -> Option<WriteId> {
        match &self.body {
            Body::Request(request) => request.write(),
            Body::Reply(write, _) => *write,
        }
    }

    fn is_request(&self) -> bool {
        matches!(self.body, Body::Request(_))
    }

    fn is_of_mark(&self) -> bool {
        matches!(
            self.body,
            Body::Request(Request::Mark(_)) | Body::Reply(_, Reply::Marked(_))
        )
    }

    fn is_beyond_loss(&self) -> bool {
        self.is_of_mark()
            || matches!(
                self.body,
                Body::Reply(_, Reply::Broken | Reply::Terminated(_))
            )
    }
}

/// Everything that is so at one instant.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct State {
    /// Time that has passed, in microseconds.
    pub now: u64,
    /// Share of chance for the steps to come.
    pub jitter: Jitter,
    /// Seconds by which all wall clocks have jumped.
    pub jump: i64,
    lease: Option<Arc<Lease>>,
    revision: u64,
    /// How the Lease stood before the last write.
    previous: Option<Sighting>,
    /// Who wrote the record of the Lease: a place and an incarnation.
    writer: (usize, u8),
    processes: [Process; CANDIDATES],
    wire: Vec<Message>,
    /// Uids of the Leases as whose leaders' the Pods are marked.
    marks: [Option<String>; CANDIDATES],
    spent: Tally,
    /// The highest epoch that ever opened a fence, and whose it is.
    top: (u64, usize, u8),
    /// Properties that a step has broken, as bits of [`Property`].
    broken: u8,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// I1: at no instant are two fences open.
    OneOpenFence,
    /// I2: epochs grow, and none is used twice.
    EpochsGrow,
    /// I3: once the adversary rests, somebody leads within a bound.
    LedAgain,
    /// I4: no write of an earlier term lands after one of a later term.
    NoLateWrite,
    /// I5: the same, while an outsider changes labels all the time.
    LabelsProlongNothing,
    /// I6: nobody ends as if the Lease were lost while it is his.
    NothingGivenUp,
}

impl Property {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::OneOpenFence,
        Self::EpochsGrow,
        Self::LedAgain,
        Self::NoLateWrite,
        Self::LabelsProlongNothing,
        Self::NothingGivenUp,
    ];

    /// Its short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneOpenFence => "I1",
            Self::EpochsGrow => "I2",
            Self::LedAgain => "I3",
            Self::NoLateWrite => "I4",
            Self::LabelsProlongNothing => "I5",
            Self::NothingGivenUp => "I6",
        }
    }
}

/// What is known to have happened in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fence opened for a term of its own.
    Term,
    /// A released Lease was taken.
    Handover,
    /// A Lease that was not released was taken from its holder.
    Expiry,
    /// A process took over what an earlier process in its place held.
    Reclaim,
    /// A fence that was closed, or had run out, opened for the same term again.
    Resumption,
    /// A write was committed and its reply lost, or held back until nobody waited for it.
    Ambiguity,
    /// A write was refused.
    Conflict,
    /// A candidate sent a twin of an unanswered write.
    Hedge,
    /// A candidate was told of something older than what it knew.
    Stale,
    /// A Lease was deleted while a fence was open.
    DeletedUnderALeader,
    /// A candidate ended because the Lease was lost.
    Loss,
    /// A drain ran out of patience.
    DrainTimedOut,
    /// A candidate was told that a container had terminated.
    Evidence,
}

/// How many kinds of event there are.
pub const EVENTS: usize = 13;

impl Event {
    /// All of them.
    pub const ALL: [Self; EVENTS] = [
        Self::Term,
        Self::Handover,
        Self::Expiry,
        Self::Reclaim,
        Self::Resumption,
        Self::Ambiguity,
        Self::Conflict,
        Self::Hedge,
        Self::Stale,
        Self::DeletedUnderALeader,
        Self::Loss,
        Self::DrainTimedOut,
        Self::Evidence,
    ];
}

/// One thing that happens. Indices of messages are places on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A request arrives at the API server.
    Arrive(usize),
    /// A reply arrives at its process.
    Answer(usize),
    /// The oldest word of the watch arrives.
    Watch(usize),
    /// A timer of the candidate goes off.
    Tick(usize),
    /// The shell of a candidate waits no longer for a reply.
    Expire(usize),
    /// The work has come to rest.
    Drained(usize),
    /// It has not, and the patience is over.
    DrainTimedOut(usize),
    /// A stopped process goes on.
    Resume(usize),
    /// A gap is closed.
    Heal(usize, Healing),
    /// A fault that strikes a message.
    Strike(Fault, usize),
    /// A fault that strikes a process.
    Harm(Fault, usize),
    /// A gap opens.
    Cut(usize, Gap),
    /// A fault that strikes the Lease.
    Meddle(Fault),
    /// Time passes, up to then.
    Advance(u64),
}

impl Step {
    /// Whether it is the adversary's doing, and more than the end of one.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        match self {
            Self::Harm(fault, _) => !matches!(fault, Fault::Restart),
            Self::Strike(..) | Self::Cut(..) | Self::Meddle(_) => true,
            _ => false,
        }
    }
}

impl State {
    /// Gives the adversary all of its faults back.
    pub const fn refill(&mut self) {
        self.spent = [0; FAULTS];
    }

    fn sighting(&self) -> Sighting {
        Sighting {
            lease: self.lease.clone(),
            version: self.revision,
        }
    }
}

/// A world and its bounds.
#[derive(Debug)]
pub struct World {
    /// What the candidates are made of.
    pub make: Make,
    /// What may happen.
    pub bounds: Bounds,
    /// How often each [`Event`] occurred, in all states together.
    pub events: Arc<[AtomicU64; EVENTS]>,
}

impl World {
    /// A world of these candidates.
    #[must_use]
    pub fn new(make: Make, bounds: Bounds) -> Self {
        Self {
            make,
            bounds,
            events: Arc::default(),
        }
    }

    /// How the world stands at first.
    #[must_use]
    pub fn begin(&self, start: Start) -> State {
        let mut state = State {
            now: 0,
            jitter: Jitter(0),
            jump: 0,
            lease: None,
            revision: FIRST_REVISION,
            previous: None,
            writer: (0, 0),
            processes: Default::default(),
            wire: Vec::new(),
            marks: [const { None }; CANDIDATES],
            spent: [0; FAULTS],
            top: (0, 0, 0),
            broken: 0,
        };
        match start {
            Start::Cold => (0..CANDIDATES).for_each(|place| self.start(&mut state, place)),
            Start::Led(first) => {
                self.start(&mut state, first);
                self.settle(&mut state);
                (0..CANDIDATES)
                    .filter(|place| *place != first)
                    .for_each(|place| self.start(&mut state, place));
                self.settle(&mut state);
            }
        }
        state
    }

    /// Everything that may happen next.
    pub fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken != 0 || self.is_split(state) {
            return;
        }
        if !self.due(state, steps) {
            self.choices(state, steps);
        }
    }

    /// What is due at this instant, with what may come between. Whether anything is.
    fn due(&self, state: &State, steps: &mut Vec<Step>) -> bool {
        for (place, process) in state
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| process.runs())
        {
            let before = steps.len();
            for (index, message) in state
                .wire
                .iter()
                .enumerate()
                .filter(|(_, message)| message.process == place)
            {
                if !message.is_request() && !message.delayed && process.hears() {
                    steps.push(Step::Answer(index));
                    self.strike(state, index, steps);
                }
                if self.has_expired(state, message) {
                    steps.push(Step::Expire(index));
                }
            }
            if process.watches() && !process.watch.is_empty() {
                steps.push(Step::Watch(place));
            }
            match process.draining {
                Some((_, false)) => {
                    steps.push(Step::Drained(place));
                    if self.allows(state, Fault::Linger) {
                        steps.push(Step::Harm(Fault::Linger, place));
                    }
                }
                Some((until, true)) if until <= state.now => steps.push(Step::DrainTimedOut(place)),
                Some(_) | None => {}
            }
            if self
                .wake(place, process)
                .is_some_and(|wake| wake <= state.now)
            {
                steps.push(Step::Tick(place));
            }
            if steps.len() > before {
                return true;
            }
        }
        // Only now, so that requests that are sent at one instant meet at the server.
        for (index, message) in state.wire.iter().enumerate() {
            let held = state.processes[message.process].gap == Some(Gap::Everything);
            if message.is_request() && !message.delayed && !held {
                steps.push(Step::Arrive(index));
                self.strike(state, index, steps);
            }
        }
        !steps.is_empty()
    }

    /// What may be done to a message that is about to arrive.
    fn strike(&self, state: &State, index: usize, steps: &mut Vec<Step>) {
        let message = &state.wire[index];
        if self.allows(state, Fault::Delay) {
            steps.push(Step::Strike(Fault::Delay, index));
        }
        if self.allows(state, Fault::Lose) && !message.is_beyond_loss() {
            steps.push(Step::Strike(Fault::Lose, index));
        }
        let crash = Step::Harm(Fault::Crash, message.process);
        if !message.orphan && self.allows(state, Fault::Crash) && !steps.contains(&crash) {
            steps.push(crash);
        }
    }

    /// What may happen when nothing is due.
    fn choices(&self, state: &State, steps: &mut Vec<Step>) {
        for (index, message) in state
            .wire
            .iter()
            .enumerate()
            .filter(|(_, message)| message.delayed)
        {
            let process = &state.processes[message.process];
            if message.is_request() && process.gap != Some(Gap::Everything) {
                steps.push(Step::Arrive(index));
            } else if !message.is_request() && process.hears() {
                steps.push(Step::Answer(index));
            }
        }
        for (place, process) in state.processes.iter().enumerate() {
            match process.gap {
                None if self.allows(state, Fault::Cut) => {
                    steps.extend(
                        [Gap::Everything, Gap::Inbound, Gap::Watch]
                            .map(|gap| Step::Cut(place, gap)),
                    );
                }
                None => {}
                Some(_) => steps.extend(
                    [Healing::Late, Healing::Reset].map(|healing| Step::Heal(place, healing)),
                ),
            }
            if process.mind.is_none() {
                if self.allows(state, Fault::Restart) {
                    steps.push(Step::Harm(Fault::Restart, place));
                }
                continue;
            }
            let awake = if process.paused {
                steps.push(Step::Resume(place));
                [Fault::Crash].as_slice()
            } else {
                &[Fault::Pause, Fault::Crash, Fault::Leave]
            };
            steps.extend(
                awake
                    .iter()
                    .filter(|fault| self.allows(state, **fault))
                    .map(|fault| Step::Harm(*fault, place)),
            );
            if process.watches() && state.previous.is_some() && self.allows(state, Fault::Stale) {
                steps.push(Step::Harm(Fault::Stale, place));
            }
        }
        if state.lease.is_some() {
            let meddling = [Fault::Delete, Fault::Label, Fault::Ask, Fault::Erase]
                .into_iter()
                .filter(|fault| self.allows(state, *fault));
            steps.extend(meddling.map(Step::Meddle));
        }
        let next = self.next_instant(state);
        if next <= self.bounds.horizon {
            steps.push(Step::Advance(next));
        }
    }

    /// What comes of a step.
    #[must_use]
    pub fn after(&self, state: &State, step: &Step) -> State {
        let mut state = state.clone();
        self.take(&mut state, step);
        state
    }

    /// Takes a step.
    pub fn take(&self, state: &mut State, step: &Step) {
        match *step {
            Step::Arrive(index) => self.arrive(state, index),
            Step::Answer(index) => {
                let message = state.wire.remove(index);
                if let Body::Reply(write, reply) = message.body {
                    if let Reply::Terminated(_) = reply {
                        self.note(Event::Evidence);
                    }
                    self.feed(state, message.process, input(write, reply));
                }
            }
            Step::Watch(place) => {
                let sighting = state.processes[place].watch.remove(0);
                self.show(state, place, sighting);
            }
            Step::Tick(place) => self.feed(state, place, Input::Tick),
            Step::Expire(index) => {
                let (write, place) = (state.wire[index].write(), state.wire[index].process);
                if state.wire[index].is_request() {
                    state.wire[index].orphan = true;
                } else {
                    self.note_ambiguity(&state.wire[index]);
                    state.wire.remove(index);
                }
                self.feed(state, place, input(write, Reply::Broken));
            }
            Step::Drained(place) => {
                state.processes[place].draining = None;
                // Nothing is under way: what is checked has left.
                let straggler = state.processes[place].straggler.take();
                self.feed(state, place, Input::Drained);
                state.processes[place].straggler = straggler;
            }
            Step::DrainTimedOut(place) => {
                self.note(Event::DrainTimedOut);
                state.processes[place].draining = None;
                self.feed(state, place, Input::DrainTimedOut);
            }
            Step::Resume(place) => state.processes[place].paused = false,
            Step::Heal(place, healing) => self.heal(state, place, healing),
            Step::Strike(fault, index) => {
                state.spent[fault as usize] += 1;
                if fault == Fault::Delay {
                    state.wire[index].delayed = true;
                } else {
                    self.lose(state, index);
                }
            }
            Step::Harm(fault, place) => {
                state.spent[fault as usize] += 1;
                self.harm(state, fault, place);
            }
            Step::Cut(place, gap) => {
                state.spent[Fault::Cut as usize] += 1;
                state.processes[place].gap = Some(gap);
            }
            Step::Meddle(fault) => {
                state.spent[fault as usize] += 1;
                self.meddle(state, fault);
            }
            Step::Advance(to) => state.now = to,
        }
    }

    fn harm(&self, state: &mut State, fault: Fault, place: usize) {
        match fault {
            Fault::Pause => state.processes[place].paused = true,
            Fault::Crash => self.end(state, place),
            Fault::Restart => self.start(state, place),
            Fault::Leave => self.feed(state, place, Input::Stop),
            Fault::Linger => {
                if let Some((_, lingers)) = &mut state.processes[place].draining {
                    *lingers = true;
                }
            }
            Fault::Stale => {
                if let Some(previous) = state.previous.clone() {
                    self.note(Event::Stale);
                    self.show(state, place, previous);
                }
            }
            Fault::Delay
            | Fault::Lose
            | Fault::Cut
            | Fault::Delete
            | Fault::Label
            | Fault::Ask
            | Fault::Erase => {}
        }
    }

    /// What an outsider does to the Lease.
    pub fn meddle(&self, state: &mut State, fault: Fault) {
        let Some(lease) = state.lease.clone() else {
            return;
        };
        if fault == Fault::Delete {
            if (0..CANDIDATES).any(|place| self.is_open(state, place)) {
                self.note(Event::DeletedUnderALeader);
            }
            self.commit(state, None);
            return;
        }
        let mut lease = Lease::clone(&lease);
        match fault {
            Fault::Ask => lease.successor = Some(String::new()),
            Fault::Erase => {
                lease.record.holder.clear();
                state.writer = (CANDIDATES, 0);
            }
            _ => {}
        }
        self.commit(state, Some(lease));
    }

    /// Name of the container that runs at a place.
    fn token(&self, place: usize, incarnation: u8) -> String {
        format!("{}-{incarnation}", self.bounds.seats[place].pod)
    }

    /// Shows a candidate how the Lease stands, or stood.
    fn show(&self, state: &mut State, place: usize, sighting: Sighting) {
        let input = match sighting.lease {
            Some(lease) => Input::Watched(Lease::clone(&lease)),
            None => Input::Absent(AsOf::Version(ResourceVersion(sighting.version.to_string()))),
        };
        self.feed(state, place, input);
    }

    /// The other Leases for which other Pods are marked, whose containers are not known to have ended.
    fn rivals(state: &State, place: usize, lease: &str) -> BTreeSet<String> {
        let others = (0..CANDIDATES)
            .filter(|other| *other != place && state.processes[*other].mind.is_some());
        others
            .filter_map(|other| state.marks[other].clone())
            .filter(|mark| mark != lease)
            .collect()
    }

    fn start(&self, state: &mut State, place: usize) {
        let sighting = state.sighting();
        let process = &mut state.processes[place];
        process.incarnation += 1;
        process.started = state.now;
        process.watch = vec![sighting];
        let config =
            self.bounds.seats[place].config(&self.token(place, state.processes[place].incarnation));
        let (core, actions) = (self.make.begin)(config, self.now(state, place));
        state.processes[place].mind = Some(Mind::new(core));
        state.marks[place] = None;
        self.carry_out(state, place, actions);
        // The kubelet remembers the last container of each Pod.
        for other in 0..CANDIDATES {
            let process = &state.processes[other];
            let last =
                process.incarnation - u8::from(process.mind.is_some() && process.incarnation > 0);
            if last > 0 && other != place {
                self.report(state, place, self.token(other, last));
            }
        }
    }

    /// The process is gone: its connections are closed, and what it had sent may yet arrive.
    fn end(&self, state: &mut State, place: usize) {
        let process = &mut state.processes[place];
        let (incarnation, started, gap) = (process.incarnation, process.started, process.gap);
        *process = Process {
            incarnation,
            started,
            gap,
            ..Process::default()
        };
        for message in state
            .wire
            .iter_mut()
            .filter(|message| message.process == place)
        {
            message.orphan = true;
        }
        state
            .wire
            .retain(|message| message.is_request() || !message.orphan);
        for other in (0..CANDIDATES).filter(|other| *other != place) {
            if state.processes[other].mind.is_some() {
                self.report(state, other, self.token(place, incarnation));
            }
        }
    }

    /// The kubelet's word that a container has terminated is on its way, for as long as it likes.
    fn report(&self, state: &mut State, to: usize, token: String) {
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

    fn heal(&self, state: &mut State, place: usize, healing: Healing) {
        let gap = state.processes[place].gap.take();
        if healing == Healing::Late {
            return;
        }
        state.processes[place].watch = vec![state.sighting()];
        while let Some(index) = state.wire.iter().position(|message| {
            let held = match gap {
                Some(Gap::Everything) => true,
                Some(Gap::Inbound) => !message.is_request(),
                Some(Gap::Watch) | None => false,
            };
            message.process == place && held && !message.is_beyond_loss()
        }) {
            self.lose(state, index);
        }
    }

    /// Breaks the connection that carries a message.
    fn lose(&self, state: &mut State, index: usize) {
        self.note_ambiguity(&state.wire[index]);
        let message = state.wire.remove(index);
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

    fn note_ambiguity(&self, message: &Message) {
        if matches!(message.body, Body::Reply(_, Reply::Written(_))) {
            self.note(Event::Ambiguity);
        }
    }

    /// The API server takes in a request.
    fn arrive(&self, state: &mut State, index: usize) {
        let mut message = state.wire.remove(index);
        let Body::Request(request) = &message.body else {
            return;
        };
        if let Request::Mark(lease) = request {
            state.marks[message.process] = Some(lease.clone());
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
                pod_uid: is_held.then(|| self.bounds.seats[message.process].pod.to_owned()),
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
                self.note(Event::Conflict);
                Reply::Refused
            }
            (Some(_), Some(lease), _) => {
                self.note_acquisition(state.lease.as_deref(), &lease);
                state.writer = (message.process, message.incarnation);
                let stored = self.commit(state, Some(lease));
                stored.map_or(Reply::Refused, Reply::Written)
            }
        };
        if message.orphan {
            if matches!(reply, Reply::Written(_)) {
                self.note(Event::Ambiguity);
            }
            return;
        }
        message.delayed = false;
        message.body = Body::Reply(write, reply);
        self.post(state, message);
    }

    fn note_acquisition(&self, before: Option<&Lease>, after: &Lease) {
        let Some(before) = before.filter(|before| before.record.acquired != after.record.acquired)
        else {
            return;
        };
        if before.record.holder.is_empty() {
            self.note(Event::Handover);
        } else if !after.record.holder.is_empty() {
            self.note(if before.pod_uid == after.pod_uid {
                Event::Reclaim
            } else {
                Event::Expiry
            });
        }
    }

    /// Stores the Lease and tells all who watch.
    fn commit(&self, state: &mut State, lease: Option<Lease>) -> Option<Arc<Lease>> {
        state.revision += 1;
        let version = ResourceVersion(state.revision.to_string());
        let stored = lease.map(|lease| Arc::new(Lease { version, ..lease }));
        let previous = Sighting {
            lease: std::mem::replace(&mut state.lease, stored.clone()),
            version: state.revision - 1,
        };
        let may_be_shown =
            state.spent[Fault::Stale as usize] < self.bounds.limits[Fault::Stale as usize];
        state.previous = may_be_shown.then_some(previous);
        let sighting = state.sighting();
        for process in state
            .processes
            .iter_mut()
            .filter(|process| process.mind.is_some())
        {
            process.watch.push(sighting.clone());
        }
        stored
    }

    /// Puts a message on the wire, in an order that does not tell how the state was reached.
    fn post(&self, state: &mut State, message: Message) {
        let key = |message: &Message| {
            (
                message.process,
                message.incarnation,
                message.write(),
                message.sent,
            )
        };
        let place = state
            .wire
            .partition_point(|other| key(other) <= key(&message));
        state.wire.insert(place, message);
    }

    /// Tells a candidate something, and carries out what it wants done.
    fn feed(&self, state: &mut State, place: usize, input: Input) {
        let now = self.now(state, place);
        let drained = input == Input::Drained;
        let Some(mind) = &state.processes[place].mind else {
            return;
        };
        let mut core = mind.core.copy();
        let actions = core.step(input, now);
        state.processes[place].mind = Some(Mind::new(core));
        self.carry_out(state, place, actions);
        if drained {
            state.processes[place].straggler = None;
        }
    }

    fn carry_out(&self, state: &mut State, place: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Read => self.send(state, place, Request::Read),
                Action::Create(write, record) => {
                    self.send(state, place, Request::Create(write, Arc::new(record)));
                }
                Action::Update(write, version, record) => {
                    self.send(
                        state,
                        place,
                        Request::Update(write, version, Arc::new(record)),
                    );
                }
                Action::OpenFence {
                    epoch, hard_end, ..
                } => {
                    let epoch = epoch.version.0.parse().unwrap_or_default();
                    self.open(
                        state,
                        place,
                        Fence {
                            epoch,
                            end: hard_end,
                        },
                    );
                }
                Action::CloseFence => self.close(state, place),
                Action::Drain => {
                    let budget = u64::try_from(DRAIN_BUDGET.as_micros()).unwrap_or(u64::MAX);
                    state.processes[place].draining = Some((state.now + budget, false));
                }
                Action::AnnounceLeader(_) => {}
                Action::MarkPod(lease) => {
                    let earlier =
                        |message: &Message| message.process == place && message.is_of_mark();
                    state
                        .wire
                        .retain(|message| message.is_request() || !earlier(message));
                    state
                        .wire
                        .iter_mut()
                        .filter(|message| earlier(message))
                        .for_each(|message| message.orphan = true);
                    self.send(state, place, Request::Mark(lease));
                }
                Action::BeginTerm { .. } => {
                    (0..CANDIDATES)
                        .filter(|other| *other != place)
                        .for_each(|other| state.marks[other] = None);
                }
                Action::Exit(exit) => {
                    self.exit(state, place, exit);
                    return;
                }
            }
        }
    }

    fn send(&self, state: &mut State, place: usize, request: Request) {
        let incarnation = state.processes[place].incarnation;
        let is_twin = |other: &Message| {
            other.process == place
                && other.incarnation == incarnation
                && !other.orphan
                && other.write().is_some()
        };
        if request.write().is_some() && state.wire.iter().any(is_twin) {
            self.note(Event::Hedge);
        }
        let message = Message {
            process: place,
            incarnation,
            sent: state.now,
            delayed: false,
            orphan: false,
            body: Body::Request(request),
        };
        self.post(state, message);
    }

    fn open(&self, state: &mut State, place: usize, fence: Fence) {
        let owner = (place, state.processes[place].incarnation);
        let (top, top_place, top_incarnation) = state.top;
        if fence.epoch < top || (fence.epoch == top && owner != (top_place, top_incarnation)) {
            state.broken |= 1 << Property::EpochsGrow as u8;
        }
        if (0..CANDIDATES).any(|other| {
            other != place
                && self
                    .last_effect(state, other)
                    .is_some_and(|(epoch, until)| epoch < fence.epoch && state.now < until)
        }) {
            state.broken |= 1 << Property::NoLateWrite as u8;
        }
        if fence.epoch > top {
            self.note(Event::Term);
            state.top = (fence.epoch, owner.0, owner.1);
        } else if !self.is_open(state, place) {
            self.note(Event::Resumption);
        }
        let process = &mut state.processes[place];
        process.last_end = fence.end;
        process.fence = Some(fence);
    }

    /// The epoch of a candidate's last effects, if they are not over yet for certain, and the instant at which they are.
    fn last_effect(&self, state: &State, place: usize) -> Option<(u64, u64)> {
        let process = &state.processes[place];
        let fence = process
            .fence
            .as_ref()
            .map(|fence| (fence.epoch, self.instant(place, process, fence.end)));
        fence
            .map(|(epoch, end)| (epoch, end + self.bounds.straggle))
            .or(process.straggler)
    }

    fn close(&self, state: &mut State, place: usize) {
        if let Some(fence) = state.processes[place].fence.take() {
            let end = self
                .instant(place, &state.processes[place], fence.end)
                .min(state.now);
            state.processes[place].straggler =
                (self.bounds.straggle > 0).then_some((fence.epoch, end + self.bounds.straggle));
        }
    }

    fn exit(&self, state: &mut State, place: usize, exit: Exit) {
        if exit == Exit::Lost {
            self.note(Event::Loss);
            let process = &state.processes[place];
            let mine = state.writer == (place, process.incarnation)
                && state
                    .lease
                    .as_ref()
                    .is_some_and(|lease| !lease.record.holder.is_empty());
            let config = self.bounds.seats[place].config("");
            let patience = process.last_end + config.guard() + config.lease_duration;
            if mine && self.local(state, place) < patience {
                state.broken |= 1 << Property::NothingGivenUp as u8;
            }
        }
        self.end(state, place);
    }

    /// Whether a fence is open at this instant, by the clock of its process.
    fn is_open(&self, state: &State, place: usize) -> bool {
        let fence = state.processes[place].fence.as_ref();
        fence.is_some_and(|fence| self.local(state, place) < fence.end)
    }

    /// Whether two fences are open at this instant.
    fn is_split(&self, state: &State) -> bool {
        (0..CANDIDATES)
            .filter(|place| self.is_open(state, *place))
            .count()
            > 1
    }

    /// Whether a property holds in a state, as far as the state itself can tell.
    #[must_use]
    pub fn holds(&self, state: &State, property: Property) -> bool {
        match property {
            Property::OneOpenFence => !self.is_split(state),
            _ => state.broken & (1 << property as u8) == 0,
        }
    }

    /// Whether anybody's fence is open.
    #[must_use]
    pub fn is_led(&self, state: &State) -> bool {
        (0..CANDIDATES).any(|place| self.is_open(state, place))
    }

    /// Whether the adversary's time is over, with nothing left that is due.
    #[must_use]
    pub fn is_at_end(&self, state: &State) -> bool {
        self.is_quiet(state) && self.next_instant(state) > self.bounds.horizon
    }

    /// Whether nothing is due.
    #[must_use]
    pub fn is_quiet(&self, state: &State) -> bool {
        !self.due(state, &mut Vec::new())
    }

    /// Whether somebody leads once the adversary has rested for as long as it takes a Lease to expire and to be taken. An
    /// outsider may go on changing labels meanwhile.
    #[must_use]
    pub fn is_led_after_a_calm(&self, state: &State, patience: u64, labels: bool) -> bool {
        let mut state = state.clone();
        let end = state.now + patience;
        for place in 0..CANDIDATES {
            if state.processes[place].gap.is_some() {
                self.heal(&mut state, place, Healing::Late);
            }
            state.processes[place].paused = false;
            if let Some((_, lingers)) = &mut state.processes[place].draining {
                *lingers = false;
            }
        }
        // Who is dead stays dead, so that a dead leader is really waited out, but somebody there must be.
        if state.processes.iter().all(|process| process.mind.is_none()) {
            (0..CANDIDATES).for_each(|place| self.start(&mut state, place));
        }
        let dead: Vec<usize> = (0..CANDIDATES)
            .filter(|place| state.processes[*place].mind.is_none())
            .collect();
        state
            .wire
            .iter_mut()
            .for_each(|message| message.delayed = false);
        let mut next_label = state.now + SECOND;
        while state.now < end {
            self.settle(&mut state);
            // Whoever ends meanwhile is started again: the adversary rests.
            let ended: Vec<usize> = (0..CANDIDATES)
                .filter(|place| !dead.contains(place) && state.processes[*place].mind.is_none())
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
                    self.meddle(&mut state, Fault::Label);
                }
            }
            ended
                .into_iter()
                .for_each(|place| self.start(&mut state, place));
        }
        self.settle(&mut state);
        self.is_led(&state)
    }

    /// Lets happen what is due, and nothing else.
    pub fn settle(&self, state: &mut State) {
        let mut steps = Vec::new();
        for _ in 0..STEPS_PER_INSTANT {
            steps.clear();
            self.due(state, &mut steps);
            let undisturbed = steps
                .iter()
                .find(|step| !matches!(step, Step::Strike(..) | Step::Harm(..)));
            let Some(step) = undisturbed else { return };
            self.take(state, &step.clone());
        }
    }

    /// The next instant at which anything can become due.
    #[must_use]
    pub fn next_instant(&self, state: &State) -> u64 {
        let running = state
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| process.runs());
        let wakes = running
            .clone()
            .filter_map(|(place, process)| self.wake(place, process));
        let drains = running
            .filter_map(|(_, process)| process.draining)
            .map(|(until, _)| until);
        let expiries = state
            .wire
            .iter()
            .filter_map(|message| self.expiry(state, message));
        let strides = (self.bounds.stride > 0)
            .then(|| (state.now / self.bounds.stride + 1) * self.bounds.stride);
        let next = wakes
            .chain(drains)
            .chain(expiries)
            .filter(|at| *at > state.now)
            .chain(strides)
            .min();
        next.unwrap_or(self.bounds.horizon).max(state.now + 1)
    }

    /// When the shell of a running process gives up waiting for a message.
    fn expiry(&self, state: &State, message: &Message) -> Option<u64> {
        let process = &state.processes[message.process];
        if message.orphan || !process.runs() {
            return None;
        }
        let config = self.bounds.seats[message.process].config("");
        let budget = match &message.body {
            _ if message.is_of_mark() => return None,
            Body::Reply(_, Reply::Terminated(_)) => return None,
            _ if message.write().is_some() => config.renew_deadline,
            _ => READ_BUDGET,
        };
        let sent = self.reading(message.process, message.sent - process.started);
        Some(self.instant(message.process, process, sent + budget))
    }

    fn has_expired(&self, state: &State, message: &Message) -> bool {
        self.expiry(state, message)
            .is_some_and(|at| at <= state.now)
    }

    /// When a timer of a candidate goes off.
    fn wake(&self, place: usize, process: &Process) -> Option<u64> {
        process
            .mind
            .as_ref()?
            .wake
            .map(|wake| self.instant(place, process, wake))
    }

    fn allows(&self, state: &State, fault: Fault) -> bool {
        let within = state.spent[fault as usize] < self.bounds.limits[fault as usize];
        let faults: u8 = state.spent.iter().sum::<u8>() - state.spent[Fault::Restart as usize];
        within && (fault == Fault::Restart || faults < self.bounds.faults)
    }

    /// What the clock of a process says so long after its start.
    fn reading(&self, place: usize, elapsed: u64) -> Moment {
        Moment(Duration::from_nanos(
            elapsed * 1000 * self.bounds.seats[place].rate / TRUE_RATE,
        ))
    }

    fn local(&self, state: &State, place: usize) -> Moment {
        self.reading(place, state.now - state.processes[place].started)
    }

    /// The first instant at which the clock of a process says so much.
    fn instant(&self, place: usize, process: &Process, moment: Moment) -> u64 {
        let nanos = moment.0.as_nanos();
        let rate = u128::from(self.bounds.seats[place].rate);
        let elapsed = (nanos * u128::from(TRUE_RATE)).div_ceil(rate * 1000);
        process.started + u64::try_from(elapsed).unwrap_or(u64::MAX / 2)
    }

    fn now(&self, state: &State, place: usize) -> Now {
        let seconds = self.bounds.seats[place].wall_offset + state.jump;
        let since = SignedDuration::from_micros(i64::try_from(state.now).unwrap_or(i64::MAX));
        let epoch = Timestamp::constant(EPOCH, 0);
        let wall = epoch
            .checked_add(since + SignedDuration::from_secs(seconds))
            .unwrap_or(epoch);
        Now {
            moment: self.local(state, place),
            wall,
            jitter: state.jitter,
        }
    }

    /// A step in words, as it is taken in a state.
    #[must_use]
    pub fn describe(&self, state: &State, step: &Step) -> String {
        let letter = |place: usize| char::from(b'A' + u8::try_from(place).unwrap_or_default());
        let what = match step {
            Step::Arrive(index) => format!(
                "arrives at the server: {}",
                self.describe_message(&state.wire[*index])
            ),
            Step::Answer(index) => {
                format!("arrives: {}", self.describe_message(&state.wire[*index]))
            }
            Step::Watch(place) => {
                let word = state.processes[*place]
                    .watch
                    .first()
                    .and_then(|sighting| sighting.lease.as_deref());
                format!(
                    "{} is told by the watch: {}",
                    letter(*place),
                    word.map_or("no Lease".into(), describe_lease)
                )
            }
            Step::Expire(index) => format!(
                "is waited for no longer: {}",
                self.describe_message(&state.wire[*index])
            ),
            Step::Strike(fault, index) => format!(
                "{fault:?} of {}",
                self.describe_message(&state.wire[*index])
            ),
            Step::Tick(place) => format!("{} is woken", letter(*place)),
            Step::Drained(place) => format!("the work of {} has come to rest", letter(*place)),
            Step::DrainTimedOut(place) => format!(
                "the work of {} has not come to rest in time",
                letter(*place)
            ),
            Step::Resume(place) => format!("{} goes on", letter(*place)),
            Step::Heal(place, healing) => {
                format!(
                    "the gap of {} is healed, what was held back is {healing:?}",
                    letter(*place)
                )
            }
            Step::Harm(fault, place) => format!("{fault:?} of {}", letter(*place)),
            Step::Cut(place, gap) => format!("{} is cut off: {gap:?}", letter(*place)),
            Step::Meddle(fault) => format!("{fault:?} of the Lease by an outsider"),
            Step::Advance(to) => format!("time passes until {:.3} s", *to as f64 / SECOND as f64),
        };
        let open: String = (0..CANDIDATES)
            .filter(|place| self.is_open(state, *place))
            .map(letter)
            .collect();
        format!(
            "{:8.3} s  [{open:1}]  {what}",
            state.now as f64 / SECOND as f64
        )
    }

    /// Who has an open fence, and what is broken.
    #[must_use]
    pub fn summary(&self, state: &State) -> String {
        let fences = (0..CANDIDATES).filter_map(|place| {
            let process = &state.processes[place];
            let fence = process
                .fence
                .as_ref()
                .filter(|_| self.is_open(state, place))?;
            let end = self.instant(place, process, fence.end) as f64 / SECOND as f64;
            Some(format!(
                "fence of {place} open for epoch {} until {end:.3} s",
                fence.epoch
            ))
        });
        format!(
            "{:?}, broken {:b}",
            fences.collect::<Vec<_>>(),
            state.broken
        )
    }

    fn describe_message(&self, message: &Message) -> String {
        let sent = message.sent as f64 / SECOND as f64;
        let what = match &message.body {
            Body::Request(Request::Read) => "read".to_owned(),
            Body::Request(Request::Create(write, record)) => {
                format!("write {} creates {}", write.0, describe_record(record))
            }
            Body::Request(Request::Update(write, version, record)) => {
                format!(
                    "write {} replaces version {} by {}",
                    write.0,
                    version.0,
                    describe_record(record)
                )
            }
            Body::Reply(None, Reply::Read(lease, _)) => {
                format!("reply to a read: {}", describe_lease(lease))
            }
            Body::Reply(None, reply) => format!("reply: {reply:?}"),
            Body::Request(Request::Mark(lease)) => format!("marks its Pod for {lease}"),
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

    /// How often something occurred.
    #[must_use]
    pub fn count(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    fn note(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn describe_lease(lease: &Lease) -> String {
    format!(
        "version {} {}",
        lease.version.0,
        describe_record(&lease.record)
    )
}

fn describe_record(record: &LeaseRecord) -> String {
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

/// What the shell makes of a reply.
fn input(write: Option<WriteId>, reply: Reply) -> Input {
    match (reply, write) {
        (Reply::Read(lease, asked), _) => Input::Read(Lease::clone(&lease), asked),
        (Reply::Absent(asked), _) => Input::Absent(AsOf::Asked(asked)),
        (Reply::Marked(rivals), _) => Input::Marked { rivals },
        (Reply::Terminated(token), _) => Input::ContainerTerminated(token),
        (Reply::Written(lease), Some(write)) => Input::Written(write, Lease::clone(&lease)),
        (Reply::Refused, Some(write)) => Input::Conflict(write),
        (Reply::Broken, Some(write)) => Input::OutcomeUnknown(write),
        (Reply::Written(_) | Reply::Refused | Reply::Broken, None) => Input::ReadFailed,
    }
}
