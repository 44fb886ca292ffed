//! A replica: reads in the order of the operator's pass, lets the core decide, and carries out one
//! request at a time. Anything may happen between two of them.

use serviceoffer::api::{AgentRegistration, AgentRegistrationSpec, LedgerMarker, SignerLedger};
use serviceoffer::api::{Nonce, SignerLedgerSpec};
use serviceoffer::decisions::rollback::{
    LedgerMark, Proof, Suspicion, is_stopped, quarantined, unaccounted_nonce,
};
use serviceoffer::decisions::{FeeMarket, Lenient};

use super::adversary::{may, spend};
use super::chain::{Answering, BASE, BASE_FEES, Logs};
use super::invariants::Invariant;
use super::pool::{Op, Script, Signed};
use super::state::{LedgerRef, Progress, Replica, Snapshot, State};
use super::{DecisionKey, Step, World};
use crate::ledger::admission::{ledger_refusal, record_refusal};
use crate::ledger::bounds::Fault;
use crate::ledger::cast::{ACCOUNTS, BASE_URLS, CHAIN_ID, KEYS, REGISTRIES};
use crate::ledger::flaws::Flaw;
use crate::ledger::view::{Decision, Request, View};

impl World {
    /// What one replica may do next.
    pub(super) fn replica_steps(&self, state: &State, replica: u8) -> Vec<Step> {
        let own = &state.replicas[usize::from(replica)];
        let mut steps = Vec::new();
        match own.progress {
            Progress::Idle => {
                let registries = 0..if self.bounds.two_registries { 2 } else { 1 };
                for registry in registries {
                    for account in Self::signers(registry, state.stage) {
                        steps.push(Step::Begin {
                            replica,
                            registry,
                            account: *account,
                        });
                    }
                }
                let unused = (0..KEYS).filter(|key| {
                    let facts = self.pool.borrow().facts(state.objects.records[*key]);
                    Self::all_wanted(state) & (1 << key) == 0
                        && facts.is_some_and(|facts| !facts.is_retired)
                });
                steps.extend(unused.map(|key| Step::BeginRetiring {
                    replica,
                    key: key as u8,
                }));
                return steps;
            }
            Progress::HasChain => steps.push(Step::ReadLedger { replica }),
            Progress::HasLedger => {
                let omits = !self.asks_later(own) && may(state, Fault::OmitLogs);
                steps.extend(logs(omits).map(|logs| Step::ReadRecords { replica, logs }));
            }
            Progress::HasRecords => {
                let omits = may(state, Fault::OmitLogs);
                steps.extend(logs(omits).map(|logs| Step::Ask { replica, logs }));
            }
            Progress::Requests => steps.push(Step::Request { replica }),
            Progress::Retiring => steps.push(Step::Retire { replica }),
        }
        if self.may_crash(state, own) {
            steps.push(Step::Crash { replica });
        }
        steps
    }

    /// Where a replica remembers, it crashes only after it has noticed a rollback: until then
    /// nothing but its memory may show it.
    fn may_crash(&self, state: &State, replica: &Replica) -> bool {
        !self.bounds.remembers || state.noticed && replica.progress == Progress::HasChain
    }

    pub(super) fn begin_pass(&self, state: &mut State, replica: u8, registry: u8, account: u8) {
        let snapshot = self.snapshot(state, account);
        let stage = state.stage;
        let wanted = Self::wanted(state, registry);
        let own = &mut state.replicas[usize::from(replica)];
        *own = Replica {
            progress: Progress::HasChain,
            registry,
            account,
            stage,
            wanted,
            snapshot,
            ..own.idle()
        };
    }

    fn snapshot(&self, state: &State, account: u8) -> Snapshot {
        let (pool, chain) = (self.pool.borrow(), &state.chain);
        Snapshot {
            finalized: chain.finalized,
            counts: (
                chain.count(&pool, account, chain.finalized),
                chain.count(&pool, account, chain.height),
            ),
            fee: state.fee,
        }
    }

    pub(super) fn read_ledger(&self, state: &mut State, replica: u8) {
        let own = &mut state.replicas[usize::from(replica)];
        own.progress = Progress::HasLedger;
        if self.has(Flaw::RecordsBeforeLedger) {
            hold_records(own, state.objects.records, state.markers);
        } else {
            let account = usize::from(own.account);
            own.ledger = state.objects.ledgers[account];
            own.set_ledger(account, true);
        }
    }

    /// Whether something can happen between the records and the rest that matters: other ledgers
    /// are written, or a ledger is born on what the chain shows then.
    fn asks_later(&self, own: &Replica) -> bool {
        let pool = self.pool.borrow();
        let is_born = pool
            .ledger(own.ledger.spec)
            .is_some_and(|ledger| ledger.quarantine.is_none());
        !is_born || self.bounds.two_registries || self.bounds.limits[Fault::Rotate as usize] > 0
    }

    pub(super) fn read_records(&self, state: &mut State, replica: u8, logs: Logs) {
        let at = usize::from(replica);
        let own = &mut state.replicas[at];
        // The pass began with another version of the spec.
        if own.registry == 0 && own.stage != state.stage {
            *own = own.idle();
            return;
        }
        if self.has(Flaw::RecordsBeforeLedger) {
            let account = usize::from(own.account);
            own.ledger = state.objects.ledgers[account];
            own.set_ledger(account, true);
        } else {
            hold_records(own, state.objects.records, state.markers);
        }
        own.progress = Progress::HasRecords;
        if !self.asks_later(&state.replicas[at]) {
            self.ask(state, replica, logs);
        }
    }

    pub(super) fn ask(&self, state: &mut State, replica: u8, logs: Logs) {
        if logs != Logs::All {
            spend(state, Fault::OmitLogs);
        }
        let at = usize::from(replica);
        if self.has(Flaw::ChainAfterLedger) {
            state.replicas[at].snapshot = self.snapshot(state, state.replicas[at].account);
        }
        let script = self.decide(state, &state.replicas[at], logs);
        if self.bounds.remembers {
            let pool = self.pool.borrow();
            let stopped = pool.script(script).and_then(|script| script.stopped);
            state.noticed |= stopped == Some("LedgerRolledBack");
        }
        if self.bounds.limits[Fault::ForeignUse as usize] > 0 {
            self.note_agreement(&mut state.replicas[at]);
        }
        let own = &mut state.replicas[at];
        if self.bounds.remembers && own.ledger.generation >= own.remembered.generation {
            own.remembered = own.ledger;
        }
        self.start(own, script);
    }

    fn note_agreement(&self, replica: &mut Replica) {
        let pool = self.pool.borrow();
        let next = pool.ledger(replica.ledger.spec).map(|ledger| ledger.next);
        let (finalized, latest) = replica.snapshot.counts;
        if next.is_some_and(|next| u64::from(finalized.max(latest)) <= next.0) {
            replica.agreed |= 1 << replica.account;
        }
    }

    /// What a replica does, for which the core is asked once per distinct view.
    fn decide(&self, state: &State, replica: &Replica, logs: Logs) -> u16 {
        let key = DecisionKey {
            replica: Replica {
                current: 0,
                ..*replica
            },
            ledgers: state.objects.ledgers,
            markers: state.markers,
            chain: state.chain,
            sent: state.sent,
            fee: state.fee,
            refused: state.refused,
            logs,
        };
        if let Some(known) = self.pool.borrow().decisions.get(&key) {
            return *known;
        }
        let decision = self.decision(&key);
        let script = self.script(replica, decision);
        let mut pool = self.pool.borrow_mut();
        let number = pool.script_number(script);
        pool.decisions.insert(key, number);
        number
    }

    fn decision(&self, key: &DecisionKey) -> Decision {
        let (pool, replica) = (self.pool.borrow(), &key.replica);
        let account = usize::from(replica.account);
        let answering = |finalized| Answering {
            pool: &pool,
            cast: &self.cast,
            chain: key.chain,
            sent: key.sent,
            finalized,
            logs: key.logs,
            flaw: self.flaw,
        };
        let Snapshot {
            finalized,
            counts,
            fee,
        } = replica.snapshot;
        let chain = answering(finalized);
        let signers = Self::signers(replica.registry, replica.stage);
        // Of every account that the IdentityRegistry uses or has used.
        let own_markers = replica.markers[usize::from(replica.registry)];
        let others = (0..ACCOUNTS as u8).filter(|other| {
            let is_used = signers.contains(other) || own_markers[usize::from(*other)] != 0;
            is_used && *other != replica.account
        });
        let all_markers = key
            .markers
            .iter()
            .flat_map(|markers| self.markers(*markers));
        let held = |account: usize, ledger: LedgerRef| self.ledger_object(account, ledger);
        let ledgers = (0..ACCOUNTS).filter_map(|account| held(account, key.ledgers[account]));
        let wanted = (0..KEYS).filter(|key| replica.wanted & (1 << key) != 0);
        let remembered = replica.remembered;
        let view = View {
            signers: signers
                .iter()
                .map(|account| self.cast.address((*account).into()))
                .collect(),
            markers: self.markers(own_markers),
            all_markers: all_markers.collect(),
            base_url: BASE_URLS[usize::from(replica.registry)],
            signer: &self.cast.signers[account],
            is_first: signers.first() == Some(&replica.account),
            ledger: held(account, replica.ledger),
            records: replica
                .records
                .iter()
                .filter_map(|number| pool.record(*number))
                .map(|spec| AgentRegistration::new(&spec.key.record_name(), spec.clone()))
                .collect(),
            ledgers: ledgers.map(Lenient::Decoded).collect(),
            account: chain.account(account, fee, Some(counts)),
            birth: answering(key.chain.finalized).account(account, fee, None),
            other_counts: others
                .map(|other| {
                    let address = self.cast.address(other.into());
                    (address, chain.latest_count(other))
                })
                .collect(),
            has_agreed: replica.agreed & (1 << account) != 0,
            market: FeeMarket::Dynamic {
                base_fee: BASE_FEES[usize::from(fee)],
                tip: 1,
            },
            bootstrap: self.bounds.legacy.then_some((Nonce(1), BASE)),
            allocatable: wanted.map(|key| self.cast.keys[key]).collect(),
            refused: (0..KEYS)
                .filter(|of| key.refused & (1 << of) != 0)
                .map(|of| self.cast.keys[of])
                .collect(),
            remembered: held(0, remembered)
                .filter(|_| account == 0 && !self.has(Flaw::MemoryUnread))
                .iter()
                .map(LedgerMark::of)
                .collect(),
            chain: &chain,
        };
        (self.core.decide)(&view, self.flaw)
    }

    fn markers(&self, markers: [u8; ACCOUNTS]) -> Vec<LedgerMarker> {
        let marked = (0..ACCOUNTS).filter(|account| markers[*account] != 0);
        marked
            .map(|account| LedgerMarker {
                signer: format!("{:#x}", self.cast.address(account)),
                uid: markers[account].to_string(),
            })
            .collect()
    }

    fn ledger_object(&self, account: usize, ledger: LedgerRef) -> Option<SignerLedger> {
        let pool = self.pool.borrow();
        let spec = pool.ledger(ledger.spec)?.clone();
        let name = SignerLedger::name_of(CHAIN_ID, self.cast.address(account));
        let mut object = SignerLedger::new(&name, spec);
        object.metadata.uid = Some(ledger.uid.to_string());
        object.metadata.generation = Some(ledger.generation.into());
        Some(object)
    }

    fn script(&self, replica: &Replica, decision: Decision) -> Script {
        let ops = self.ops(replica, decision.requests);
        Script {
            ops,
            stopped: decision.stopped,
        }
    }

    /// Requests in numbers.
    fn ops(&self, replica: &Replica, requests: Vec<Request>) -> Vec<Op> {
        let mut pool = self.pool.borrow_mut();
        let account_of =
            |spec: &SignerLedgerSpec| self.cast.account(spec.signer).unwrap_or(0) as u8;
        let key_of = |key| self.cast.key(key).unwrap_or(0) as u8;
        let mut ops = Vec::new();
        for request in requests {
            let op = match request {
                Request::Record(spec) => Op::Record {
                    key: key_of(spec.key),
                    to: pool.record_number(&self.cast, spec),
                },
                Request::Store(spec, attempt) => {
                    let transaction = pool.signed_number(Signed {
                        account: replica.account,
                        nonce: u8::try_from(attempt.nonce.0).unwrap_or(u8::MAX),
                        key: key_of(spec.key),
                        uri: Some(spec.agent_uri.clone().unwrap_or_default()),
                        attempt,
                    });
                    let key = key_of(spec.key);
                    Op::Store {
                        key,
                        to: pool.record_number(&self.cast, spec),
                        transaction,
                    }
                }
                Request::Send(key, attempt) => {
                    let transaction = pool.signed_number(Signed {
                        account: replica.account,
                        nonce: u8::try_from(attempt.nonce.0).unwrap_or(u8::MAX),
                        key: key_of(key),
                        uri: Some(format!(
                            "{}/agents/{key}.json",
                            BASE_URLS[usize::from(replica.registry)]
                        )),
                        attempt,
                    });
                    Op::Send { transaction }
                }
                Request::Fill(key, attempt) => {
                    let transaction = pool.signed_number(Signed {
                        account: replica.account,
                        nonce: u8::try_from(attempt.nonce.0).unwrap_or(u8::MAX),
                        key: key_of(key),
                        uri: None,
                        attempt,
                    });
                    Op::Send { transaction }
                }
                Request::Ledger(spec) => Op::Ledger {
                    account: account_of(&spec),
                    to: pool.ledger_number(spec),
                },
                Request::Create(spec) => Op::Create {
                    to: pool.ledger_number(spec),
                },
                Request::WriteMarker => Op::WriteMarker,
                Request::TakeOver(former, keys) => {
                    let mut records = [0; KEYS];
                    for key in keys.into_iter().filter_map(|key| self.cast.key(key)) {
                        records[key] = replica.records[key];
                    }
                    let former = self.cast.account(former).unwrap_or(0) as u8;
                    Op::TakeOver { former, records }
                }
                Request::Quarantine(suspicion) => Op::Quarantine {
                    key: match suspicion {
                        Suspicion::LacksAttempt { key, .. } => Some(key_of(key)),
                        Suspicion::ShowsLess { .. } => None,
                    },
                },
            };
            ops.push(op);
        }
        ops
    }

    fn start(&self, replica: &mut Replica, script: u16) {
        let is_empty = self
            .pool
            .borrow()
            .script(script)
            .is_none_or(|script| script.ops.is_empty());
        *replica = if is_empty {
            replica.idle()
        } else {
            Replica {
                progress: Progress::Requests,
                registry: replica.registry,
                account: replica.account,
                ledger: LedgerRef {
                    spec: 0,
                    ..replica.ledger
                },
                current: replica.current,
                former_is_current: replica.former_is_current,
                retiring: replica.retiring,
                script,
                ..replica.idle()
            }
        };
    }

    /// Carries out the next request of a replica.
    pub(super) fn request(&self, state: &mut State, replica: u8) {
        let at = usize::from(replica);
        let own = state.replicas[at];
        let script = self.pool.borrow().script(own.script).cloned();
        let Some(script) = script else { return };
        let Some(op) = script.ops.get(usize::from(own.at)).copied() else {
            return;
        };
        let mut taken = 1;
        let mut ends = false;
        match op {
            Op::Record { key, to } => {
                if own.holds_record(key.into()) || self.writes_blindly(state, key) {
                    self.write_record_number(state, key, to);
                }
            }
            Op::Store {
                key,
                to,
                transaction,
            } => {
                if own.holds_record(key.into()) || self.writes_blindly(state, key) {
                    self.write_record_number(state, key, to);
                } else if script.ops.get(usize::from(own.at) + 1) == Some(&Op::Send { transaction })
                {
                    taken = 2;
                }
            }
            Op::Send { transaction } => state.sent |= 1 << transaction,
            Op::Ledger { account, to } => {
                let exists = state.objects.ledgers[usize::from(account)].spec != 0;
                if own.holds_ledger(account.into()) || exists && self.has(Flaw::ConflictRetried) {
                    self.write_ledger(state, account, to);
                    state.replicas[at].set_ledger(account.into(), true);
                    if let Some(key) = own.retiring.checked_sub(1) {
                        state.closed |= 1 << key;
                    }
                } else {
                    ends = !self.has(Flaw::SignWithoutEntry);
                }
            }
            Op::Touch { account, to } => {
                if own.former_is_current {
                    self.write_ledger(state, account, to);
                } else {
                    ends = true;
                }
            }
            Op::Create { to } => self.create_ledger(state, own.account, to),
            Op::WriteMarker => {
                let markers = &mut state.markers[usize::from(own.registry)];
                let marker = &mut markers[usize::from(own.account)];
                if *marker == 0 {
                    *marker = own.ledger.uid;
                }
            }
            Op::TakeOver { former, records } => {
                let ledger = state.objects.ledgers[usize::from(former)];
                let spec = self.pool.borrow().ledger(ledger.spec).cloned();
                let to = self.cast.address(own.account.into());
                let held = self.records(records);
                let requests = (self.core.take_over)(spec.as_ref(), &held, to, self.flaw);
                let mut ops = self.ops(&own, requests);
                for op in &mut ops {
                    if let Op::Ledger { account, to } = *op {
                        *op = Op::Touch { account, to };
                    }
                }
                ops.extend_from_slice(&script.ops[usize::from(own.at) + 1..]);
                state.replicas[at].former_is_current = true;
                let rest = Script { ops, stopped: None };
                let number = self.pool.borrow_mut().script_number(rest);
                self.start(&mut state.replicas[at], number);
                return;
            }
            Op::Quarantine { key } => self.quarantine(state, &own, key),
        }
        let own = &mut state.replicas[at];
        own.at += taken;
        if ends || usize::from(own.at) >= script.ops.len() {
            *own = own.idle();
        }
    }

    fn writes_blindly(&self, state: &State, key: u8) -> bool {
        self.has(Flaw::RecordUnconditional) && state.objects.records[usize::from(key)] != 0
    }

    pub(super) fn begin_retiring(&self, state: &mut State, replica: u8, key: u8) {
        let number = state.objects.records[usize::from(key)];
        let Some(facts) = self.pool.borrow().facts(number) else {
            return;
        };
        let account = facts.account;
        let own = &mut state.replicas[usize::from(replica)];
        *own = Replica {
            progress: Progress::Retiring,
            account,
            wanted: key,
            ledger: state.objects.ledgers[usize::from(account)],
            ..own.idle()
        };
        own.set_ledger(account.into(), true);
    }

    pub(super) fn retire(&self, state: &mut State, replica: u8) {
        let at = usize::from(replica);
        let own = state.replicas[at];
        let key = own.wanted;
        state.replicas[at] = own.idle();
        let number = state.objects.records[usize::from(key)];
        let facts = self.pool.borrow().facts(number);
        if facts.is_none_or(|facts| facts.account != own.account || facts.is_retired) {
            return;
        }
        let Some(record) = self.record(number) else {
            return;
        };
        let ledger = self.pool.borrow().ledger(own.ledger.spec).cloned();
        let requests = (self.core.retire)(ledger.as_ref(), &record, self.flaw);
        let mut ops = self.ops(&own, requests).into_iter();
        if let Some(Op::Record { key, to }) = ops.next() {
            self.write_record_number(state, key, to);
            let rest = Script {
                ops: ops.collect(),
                stopped: None,
            };
            let number = self.pool.borrow_mut().script_number(rest);
            state.replicas[at] = Replica {
                retiring: key + 1,
                ..own
            };
            self.start(&mut state.replicas[at], number);
            if state.replicas[at].progress == Progress::Idle {
                state.closed |= 1 << key;
            }
        }
    }

    /// Replaces a record.
    pub(super) fn write_record(&self, state: &mut State, key: u8, spec: AgentRegistrationSpec) {
        let number = self.pool.borrow_mut().record_number(&self.cast, spec);
        self.write_record_number(state, key, number);
    }

    fn write_record_number(&self, state: &mut State, key: u8, to: u16) {
        let pool = self.pool.borrow();
        let from = state.objects.records[usize::from(key)];
        let (Some(old), Some(new)) = (pool.record(from), pool.record(to)) else {
            return;
        };
        if record_refusal(old, new).is_some() {
            Self::break_with(state, Invariant::Admitted);
            return;
        }
        let (Some(before), Some(after)) = (pool.facts(from), pool.facts(to)) else {
            return;
        };
        // A retired key is judged by its allocation: a replica that has read its entry may still
        // store an attempt at that nonce.
        if before.is_reverted && after.attempts > before.attempts {
            Self::break_with(state, Invariant::Ended);
        }
        drop(pool);
        self.put_record(state, key, to);
    }

    /// Stores a record, whatever was there.
    pub(super) fn put_record(&self, state: &mut State, key: u8, to: u16) {
        state.objects.records[usize::from(key)] = to;
        let facts = self.pool.borrow().facts(to);
        if facts.is_none_or(|facts| !facts.is_retired) {
            state.closed &= !(1 << key);
        }
        for replica in &mut state.replicas {
            replica.set_record(key.into(), false);
            if replica.retiring == key + 1 {
                replica.retiring = 0;
            }
        }
    }

    fn write_ledger(&self, state: &mut State, account: u8, to: u16) {
        let pool = self.pool.borrow();
        let from = state.objects.ledgers[usize::from(account)];
        let (Some(old), Some(new)) = (pool.ledger(from.spec), pool.ledger(to)) else {
            return;
        };
        if ledger_refusal(Some(old), new).is_some() {
            Self::break_with(state, Invariant::Admitted);
            return;
        }
        let mut entered = new
            .registering
            .keys()
            .filter(|key| !old.registering.contains_key(*key));
        let is_ended = |key: usize| {
            let facts = pool.facts(state.objects.records[key]);
            let is_closed = self.bounds.strict || state.closed & (1 << key) != 0;
            facts.is_some_and(|facts| facts.is_reverted || facts.is_retired && is_closed)
        };
        if entered.any(|key| self.cast.key(*key).is_some_and(is_ended)) {
            Self::break_with(state, Invariant::Ended);
        }
        drop(pool);
        self.put_ledger(state, account, LedgerRef { spec: to, ..from });
    }

    fn put_ledger(&self, state: &mut State, account: u8, mut to: LedgerRef) {
        if self.bounds.remembers {
            to.generation += 1;
            // Its only replica writes.
            state.replicas[0].remembered = to;
        }
        state.objects.ledgers[usize::from(account)] = to;
        for replica in &mut state.replicas {
            replica.set_ledger(account.into(), false);
            // At most one former ledger is held, and which one decides nothing but this flag.
            replica.former_is_current &= !self.holds_former(replica, account);
        }
    }

    fn create_ledger(&self, state: &mut State, account: u8, to: u16) {
        if state.objects.ledgers[usize::from(account)].spec != 0 {
            return;
        }
        let is_refused = self
            .pool
            .borrow()
            .ledger(to)
            .and_then(|new| ledger_refusal(None, new));
        if is_refused.is_some() {
            Self::break_with(state, Invariant::Admitted);
        }
        state.uid += 1;
        let uid = state.uid;
        self.put_ledger(
            state,
            account,
            LedgerRef {
                spec: to,
                uid,
                generation: 0,
            },
        );
    }

    /// Whether the rest of a replica's script writes the ledger of this account as a former one.
    fn holds_former(&self, replica: &Replica, account: u8) -> bool {
        let pool = self.pool.borrow();
        let script = pool.script(replica.script);
        let mut rest = script
            .into_iter()
            .flat_map(|script| &script.ops[usize::from(replica.at)..]);
        rest.any(|op| matches!(op, Op::Touch { account: of, .. } if *of == account))
    }

    /// Ledgers that lack an attempt of a record.
    pub(super) fn monitor_steps(&self, state: &State) -> Vec<Step> {
        let pool = self.pool.borrow();
        let lacks = |account: &u8| {
            let ledger = pool.ledger(state.objects.ledgers[usize::from(*account)].spec);
            let Some(ledger) = ledger.filter(|ledger| !is_stopped(ledger)) else {
                return false;
            };
            let records = state
                .objects
                .records
                .iter()
                .filter_map(|number| pool.record(*number));
            let mut nonces = records.filter_map(|record| unaccounted_nonce(ledger, record));
            nonces.next().is_some() && !self.has(Flaw::AttemptsUnread)
        };
        let accounts = (0..ACCOUNTS as u8).filter(lacks);
        accounts.map(|account| Step::Monitor { account }).collect()
    }

    /// Puts a ledger in quarantine that lacks an attempt.
    pub(super) fn monitor(&self, state: &mut State, account: u8) {
        let own = Replica {
            account,
            ..Replica::default()
        };
        for key in 0..KEYS as u8 {
            self.quarantine(state, &own, Some(key));
        }
    }

    fn quarantine(&self, state: &mut State, own: &Replica, key: Option<u8>) {
        let account = usize::from(own.account);
        let ledger = state.objects.ledgers[account];
        let pool = self.pool.borrow();
        let Some(spec) = pool.ledger(ledger.spec).filter(|spec| !is_stopped(spec)) else {
            return;
        };
        let proof = match key {
            Some(key) => {
                let record = pool.record(state.objects.records[usize::from(key)]);
                let found =
                    record.and_then(|record| Some((record.key, unaccounted_nonce(spec, record)?)));
                found.map(|(key, nonce)| Proof::LacksAttempt { key, nonce })
            }
            None => {
                let marks =
                    [ledger, own.remembered].map(|ledger| self.ledger_object(account, ledger));
                let [Some(read), Some(seen)] = marks else {
                    return;
                };
                let (read, seen) = (LedgerMark::of(&read), LedgerMark::of(&seen));
                seen.is_ahead_of(&read)
                    .then_some(Proof::ShowsLess { read, seen })
            }
        };
        let Some(proof) = proof else { return };
        let stopped = quarantined(spec, &proof);
        drop(pool);
        let number = self.pool.borrow_mut().ledger_number(stopped);
        self.write_ledger(state, own.account, number);
    }

    /// The condition that a fresh pass over the first account of an IdentityRegistry would report.
    #[must_use]
    pub fn is_stopped(&self, state: &State) -> bool {
        let registries = 0..if self.bounds.two_registries { 2 } else { 1 };
        registries.into_iter().any(|registry: u8| {
            Self::signers(registry, state.stage).iter().any(|account| {
                let mut pass = Replica {
                    progress: Progress::HasRecords,
                    registry,
                    account: *account,
                    stage: state.stage,
                    wanted: Self::wanted(state, registry),
                    snapshot: self.snapshot(state, *account),
                    ledger: state.objects.ledgers[usize::from(*account)],
                    remembered: state.replicas[0].remembered,
                    ..Replica::default()
                };
                hold_records(&mut pass, state.objects.records, state.markers);
                let script = self.decide(state, &pass, Logs::All);
                let pool = self.pool.borrow();
                pool.script(script)
                    .is_some_and(|script| script.stopped.is_some())
            })
        })
    }
}

/// Which kinds of answers an endpoint may give.
fn logs(omits: bool) -> impl Iterator<Item = Logs> {
    let all = [Logs::All, Logs::WithoutRegistrations, Logs::None];
    all.into_iter().take(if omits { 3 } else { 1 })
}

fn hold_records(
    replica: &mut Replica,
    records: [u16; KEYS],
    markers: [[u8; ACCOUNTS]; REGISTRIES],
) {
    replica.records = records;
    replica.markers = markers;
    for (key, number) in records.iter().enumerate() {
        replica.set_record(key, *number != 0);
    }
}
