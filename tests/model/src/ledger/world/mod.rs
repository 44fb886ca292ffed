//! A world: replicas that all believe to lead, the API server, the chain, and an adversary.
//!
//! - [`state`] is one moment of it, and [`pool`] what its numbers stand for
//! - [`chain`] answers what a replica asks of the chain
//! - [`replica`] carries out a pass, one request at a time
//! - [`adversary`] does everything else: blocks, offers, edits, faults
//! - [`invariants`] says what must hold
//!
//! A step is one request to the API server or to an endpoint, or one event outside. Reading and
//! writing the same version of one object is one step: a write that is refused changes nothing.

pub mod adversary;
pub mod chain;
mod describe;
pub mod invariants;
pub mod pool;
pub mod replica;
pub mod state;

use std::cell::RefCell;

use serviceoffer::api::AgentRegistrationSpec;

use self::chain::Logs;
use self::invariants::Invariant;
use self::pool::Pool;
use self::state::{Block, Chain, LedgerRef, Markers, Offer, Replica, State};
use super::bounds::{Bounds, Fault};
use super::cast::{Cast, KEYS};
use super::cores::Core;
use super::flaws::Flaw;

/// One step of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica reads the chain, for a pass over an account of an IdentityRegistry.
    Begin {
        replica: u8,
        registry: u8,
        account: u8,
    },
    /// It reads the ledger.
    ReadLedger {
        replica: u8,
    },
    /// It reads IdentityRegistry and records.
    ReadRecords {
        replica: u8,
        logs: Logs,
    },
    /// It reads the other ledgers, and asks the chain about what it has read.
    Ask {
        replica: u8,
        logs: Logs,
    },
    /// It carries out its next request.
    Request {
        replica: u8,
    },
    /// It stops, and forgets everything. It may also have paused for good.
    Crash {
        replica: u8,
    },
    /// It reads the ledger of an agent that no offer uses.
    BeginRetiring {
        replica: u8,
        key: u8,
    },
    /// It retires the agent's record.
    Retire {
        replica: u8,
    },
    /// A record is created for an offer.
    CreateRecord {
        key: u8,
        account: u8,
    },
    /// A retired record is revived for an offer.
    Revive {
        key: u8,
    },
    /// A transaction that was sent is included.
    Include {
        transaction: u8,
        reverted: bool,
    },
    /// A replica sees that a record has an attempt that its ledger lacks, and puts the ledger in
    /// quarantine.
    Monitor {
        account: u8,
    },
    /// The next block becomes final.
    Finalize,
    Reorg,
    Gift {
        account: u8,
    },
    ForeignUse {
        account: u8,
    },
    DeleteOffer {
        offer: u8,
    },
    CreateOffer {
        offer: u8,
    },
    RaiseEdition,
    Rotate,
    MoveOffer {
        offer: u8,
    },
    RaiseFee,
    Refuse {
        key: u8,
    },
    Backup,
    RestoreLedger {
        account: u8,
        new_uid: bool,
    },
    RestoreRecord {
        key: u8,
    },
    DropStatus {
        registry: u8,
    },
}

impl Step {
    /// Whether only the adversary makes it: recovery does without.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Begin { .. }
            | Self::ReadLedger { .. }
            | Self::Request { .. }
            | Self::BeginRetiring { .. }
            | Self::Retire { .. }
            | Self::CreateRecord { .. }
            | Self::Revive { .. }
            | Self::Monitor { .. }
            | Self::Finalize => false,
            Self::ReadRecords { logs, .. } | Self::Ask { logs, .. } => !matches!(logs, Logs::All),
            Self::Include { reverted, .. } => reverted,
            _ => true,
        }
    }
}

/// What a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecisionKey {
    replica: Replica,
    ledgers: [LedgerRef; super::cast::ACCOUNTS],
    markers: Markers,
    chain: Chain,
    sent: u64,
    fee: u8,
    refused: u8,
    logs: Logs,
}

/// A world within bounds, with one core.
pub struct World {
    pub bounds: Bounds,
    core: Core,
    flaw: Option<Flaw>,
    cast: Cast,
    pool: RefCell<Pool>,
}

impl World {
    /// A world; `None` if the cast cannot be made.
    #[must_use]
    pub fn new(core: Core, flaw: Option<Flaw>, bounds: Bounds) -> Option<Self> {
        Some(Self {
            core,
            flaw,
            cast: Cast::new()?,
            pool: RefCell::new(Pool::new(bounds.remembers)),
            bounds,
        })
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// The first state.
    #[must_use]
    pub fn begin(&self) -> State {
        let mut state = State {
            left: self.bounds.limits,
            ..State::default()
        };
        for offer in 0..usize::from(self.bounds.offers) {
            state.offers[offer] = Offer {
                registry: Some(0),
                edition: 1,
            };
        }
        if self.bounds.legacy {
            state.chain.push(Block::Legacy(0));
            state.chain.finalized = 1;
        }
        if self.bounds.born {
            for (registry, account) in self.births() {
                state = self.after_birth(state, registry, account);
            }
            state.backup = state.objects;
        }
        state
    }

    /// The accounts that register, each with its IdentityRegistry.
    fn births(&self) -> Vec<(u8, u8)> {
        let mut births = vec![(0, 0)];
        if self.bounds.limits[Fault::Rotate as usize] > 0 {
            births.push((0, 1));
        }
        if self.bounds.two_registries {
            births.push((1, 2));
        }
        births
    }

    /// The state after one replica has made a ledger active: created, marked, activated.
    fn after_birth(&self, mut state: State, registry: u8, account: u8) -> State {
        let stage = state.stage;
        // An account is born while it is the first.
        state.stage = account % 2;
        for _ in 0..3 {
            let mut next = Some(Step::Begin {
                replica: 0,
                registry,
                account,
            });
            while let Some(step) = next {
                state = self.after(&state, step);
                let steps = self
                    .replicas()
                    .flat_map(|replica| self.replica_steps(&state, replica));
                next = steps.into_iter().find(|step| {
                    !step.is_fault()
                        && !matches!(step, Step::Begin { .. } | Step::BeginRetiring { .. })
                });
            }
        }
        state.stage = stage;
        state
    }

    /// Accounts in `spec.signers` of an IdentityRegistry, at a version of its spec.
    fn signers(registry: u8, stage: u8) -> &'static [u8] {
        match (registry, stage) {
            (1, _) => &[2],
            (_, 0) => &[0],
            (_, 1) => &[1, 0],
            _ => &[0, 1],
        }
    }

    /// Keys that offers of an IdentityRegistry want, as bits.
    fn wanted(state: &State, registry: u8) -> u8 {
        let mut wanted = 0;
        for (at, offer) in state.offers.iter().enumerate() {
            if offer.registry == Some(registry) {
                wanted |= 1 << Self::key_of(at, *offer);
            }
        }
        wanted
    }

    /// Keys that any offer wants, as bits.
    fn all_wanted(state: &State) -> u8 {
        Self::wanted(state, 0) | Self::wanted(state, 1)
    }

    const fn key_of(offer: usize, of: Offer) -> usize {
        if offer == 0 {
            of.edition as usize - 1
        } else {
            2
        }
    }

    fn replicas(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.bounds.replicas
    }

    fn record(&self, number: u16) -> Option<AgentRegistrationSpec> {
        self.pool.borrow().record(number).cloned()
    }

    /// Everything that may happen next.
    pub fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken != 0 {
            return;
        }
        for replica in self.replicas() {
            steps.extend(self.replica_steps(state, replica));
        }
        steps.extend(self.monitor_steps(state));
        self.outside_steps(state, steps);
    }

    /// The state after a step.
    #[must_use]
    pub fn after(&self, state: &State, step: Step) -> State {
        let mut next = *state;
        match step {
            Step::Begin {
                replica,
                registry,
                account,
            } => {
                self.begin_pass(&mut next, replica, registry, account);
            }
            Step::ReadLedger { replica } => self.read_ledger(&mut next, replica),
            Step::ReadRecords { replica, logs } => self.read_records(&mut next, replica, logs),
            Step::Ask { replica, logs } => self.ask(&mut next, replica, logs),
            Step::Request { replica } => self.request(&mut next, replica),
            Step::Crash { replica } => next.replicas[usize::from(replica)] = Replica::default(),
            Step::BeginRetiring { replica, key } => self.begin_retiring(&mut next, replica, key),
            Step::Retire { replica } => self.retire(&mut next, replica),
            Step::Monitor { account } => self.monitor(&mut next, account),
            _ => self.act(&mut next, step),
        }
        self.settle(&mut next);
        next
    }

    /// Brings a state into the form that all states have which nothing can tell apart.
    fn settle(&self, state: &mut State) {
        let pool = self.pool.borrow();
        let finalized: Vec<u8> = (0..super::cast::ACCOUNTS as u8)
            .map(|account| state.chain.count(&pool, account, state.chain.finalized))
            .collect();
        for transaction in 1..=pool.signed_count() {
            let is_dead = pool
                .signed(transaction)
                .is_some_and(|signed| signed.nonce < finalized[usize::from(signed.account)]);
            if is_dead {
                state.sent &= !(1 << transaction);
            }
        }
        let restores = [Fault::RestoreLedger, Fault::RestoreRecord];
        if restores
            .iter()
            .all(|fault| state.left[*fault as usize] == 0)
        {
            state.backup = Default::default();
        }
        if !self.bounds.remembers {
            state.replicas[..usize::from(self.bounds.replicas)].sort_unstable();
        }
        if state.broken == 0
            && let Some(broken) = self.broken(&pool, state)
        {
            state.broken = broken as u8;
        }
    }

    fn break_with(state: &mut State, invariant: Invariant) {
        if state.broken == 0 {
            state.broken = invariant as u8;
        }
    }

    /// Records of a state.
    fn records(&self, numbers: [u16; KEYS]) -> Vec<AgentRegistrationSpec> {
        numbers
            .iter()
            .filter_map(|number| self.record(*number))
            .collect()
    }
}
