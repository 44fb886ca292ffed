//! Everything that happens outside the replicas: blocks, offers, edits of the spec, faults.

use super::state::{Block, LedgerRef, Markers, Offer, Replica, State};
use super::{Step, World};
use crate::ledger::bounds::Fault;
use crate::ledger::cast::{ACCOUNTS, KEYS, REGISTRIES};

impl World {
    /// What may happen outside the replicas.
    pub(super) fn outside_steps(&self, state: &State, steps: &mut Vec<Step>) {
        self.offer_steps(state, steps);
        self.chain_steps(state, steps);
        self.edit_steps(state, steps);
    }

    fn offer_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (at, offer) in state.offers.iter().enumerate() {
            let at = at as u8;
            let Some(registry) = offer.registry else {
                if at < self.bounds.offers && may(state, Fault::CreateOffer) {
                    steps.push(Step::CreateOffer { offer: at });
                }
                continue;
            };
            let key = Self::key_of(at.into(), *offer) as u8;
            let number = state.objects.records[usize::from(key)];
            if number == 0 {
                // A cache may still show the signer of before.
                let before = Self::signers(registry, state.stage.saturating_sub(1));
                let current = Self::signers(registry, state.stage);
                steps.push(Step::CreateRecord {
                    key,
                    account: current[0],
                });
                if before[0] != current[0] {
                    steps.push(Step::CreateRecord {
                        key,
                        account: before[0],
                    });
                }
            } else if self
                .pool
                .borrow()
                .facts(number)
                .is_some_and(|facts| facts.is_retired)
            {
                steps.push(Step::Revive { key });
            }
            if may(state, Fault::DeleteOffer) {
                steps.push(Step::DeleteOffer { offer: at });
            }
            if may(state, Fault::MoveOffer) {
                steps.push(Step::MoveOffer { offer: at });
            }
        }
    }

    fn chain_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let (pool, chain) = (self.pool.borrow(), &state.chain);
        if chain.finalized < chain.height {
            steps.push(Step::Finalize);
            if may(state, Fault::Reorg) {
                steps.push(Step::Reorg);
            }
        }
        if !chain.has_room() {
            return;
        }
        for transaction in 1..=pool.signed_count() {
            let Some(signed) = pool.signed(transaction) else {
                continue;
            };
            let next = chain.count(&pool, signed.account, chain.height);
            if state.sent & (1 << transaction) == 0 || signed.nonce != next {
                continue;
            }
            steps.push(Step::Include {
                transaction,
                reverted: false,
            });
            if may(state, Fault::Revert) && signed.uri.is_some() {
                steps.push(Step::Include {
                    transaction,
                    reverted: true,
                });
            }
        }
        if may(state, Fault::Gift) {
            steps.push(Step::Gift { account: 0 });
        }
        if may(state, Fault::ForeignUse) {
            steps.push(Step::ForeignUse { account: 0 });
        }
    }

    fn edit_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if may(state, Fault::RaiseEdition) && state.offers[0].registry.is_some() {
            steps.push(Step::RaiseEdition);
        }
        if may(state, Fault::Rotate) {
            steps.push(Step::Rotate);
        }
        if may(state, Fault::RaiseFee) {
            steps.push(Step::RaiseFee);
        }
        if may(state, Fault::Refuse) {
            steps.push(Step::Refuse { key: 0 });
        }
        if may(state, Fault::Backup) {
            steps.push(Step::Backup);
        }
        let objects = &state.objects;
        for account in 0..ACCOUNTS {
            let (held, saved) = (objects.ledgers[account], state.backup.ledgers[account]);
            let is_shown = !self.bounds.counted || self.is_counted(state, account as u8);
            if may(state, Fault::RestoreLedger) && held != saved && held.spec != 0 && is_shown {
                let account = account as u8;
                steps.push(Step::RestoreLedger {
                    account,
                    new_uid: false,
                });
                if saved.spec != 0 {
                    steps.push(Step::RestoreLedger {
                        account,
                        new_uid: true,
                    });
                }
            }
        }
        for key in 0..KEYS {
            let (held, saved) = (objects.records[key], state.backup.records[key]);
            if may(state, Fault::RestoreRecord) && held != saved && held != 0 {
                steps.push(Step::RestoreRecord { key: key as u8 });
            }
        }
        for registry in 0..REGISTRIES {
            if may(state, Fault::DropStatus) && state.markers[registry] != [0; ACCOUNTS] {
                steps.push(Step::DropStatus {
                    registry: registry as u8,
                });
            }
        }
    }

    /// Whether an account has sent more than its ledger of the backup has allocated.
    fn is_counted(&self, state: &State, account: u8) -> bool {
        let pool = self.pool.borrow();
        let count = state.chain.count(&pool, account, state.chain.height);
        let saved = state.backup.ledgers[usize::from(account)];
        pool.ledger(saved.spec)
            .is_none_or(|saved| u64::from(count) > saved.next.0)
    }

    /// Does what happens outside the replicas.
    pub(super) fn act(&self, state: &mut State, step: Step) {
        match step {
            Step::CreateRecord { key, account } => {
                let spec = self.cast.new_record(key.into(), account.into());
                let number = self.pool.borrow_mut().record_number(&self.cast, spec);
                self.put_record(state, key, number);
            }
            Step::Revive { key } => {
                let Some(spec) = self.record(state.objects.records[usize::from(key)]) else {
                    return;
                };
                self.write_record(state, key, (self.core.revive)(&spec));
            }
            Step::Include {
                transaction,
                reverted,
            } => {
                if reverted {
                    spend(state, Fault::Revert);
                }
                let pool = self.pool.borrow();
                let signed = pool.signed(transaction);
                state
                    .chain
                    .push(match signed.and_then(|signed| signed.uri.as_ref()) {
                        Some(_) => Block::Registration {
                            transaction,
                            reverted,
                        },
                        None => Block::Filler(transaction),
                    });
            }
            Step::Finalize => state.chain.finalized += 1,
            Step::Reorg => {
                spend(state, Fault::Reorg);
                state.chain.pop();
            }
            Step::Gift { account } => {
                spend(state, Fault::Gift);
                state.chain.push(Block::Gift(account));
            }
            Step::ForeignUse { account } => {
                spend(state, Fault::ForeignUse);
                state.chain.push(Block::Foreign(account));
            }
            Step::RaiseFee => {
                spend(state, Fault::RaiseFee);
                state.fee = 1;
            }
            Step::Refuse { key } => {
                spend(state, Fault::Refuse);
                state.refused ^= 1 << key;
            }
            Step::Rotate => {
                spend(state, Fault::Rotate);
                state.stage += 1;
            }
            _ => self.act_on_objects(state, step),
        }
    }

    fn act_on_objects(&self, state: &mut State, step: Step) {
        match step {
            Step::DeleteOffer { offer } => {
                spend(state, Fault::DeleteOffer);
                state.offers[usize::from(offer)].registry = None;
            }
            Step::CreateOffer { offer } => {
                spend(state, Fault::CreateOffer);
                state.offers[usize::from(offer)].registry = Some(0);
            }
            Step::RaiseEdition => {
                spend(state, Fault::RaiseEdition);
                state.offers[0].edition = 2;
            }
            Step::MoveOffer { offer } => {
                spend(state, Fault::MoveOffer);
                let offer: &mut Offer = &mut state.offers[usize::from(offer)];
                offer.registry = offer.registry.map(|registry| 1 - registry);
            }
            Step::Backup => {
                spend(state, Fault::Backup);
                state.backup = state.objects;
            }
            Step::RestoreLedger { account, new_uid } => {
                spend(state, Fault::RestoreLedger);
                let mut restored = state.backup.ledgers[usize::from(account)];
                if new_uid {
                    state.uid += 1;
                    restored = LedgerRef {
                        uid: state.uid,
                        ..restored
                    };
                }
                state.objects.ledgers[usize::from(account)] = restored;
                self.interrupt(state, |replica| replica.set_ledger(account.into(), false));
            }
            Step::RestoreRecord { key } => {
                spend(state, Fault::RestoreRecord);
                let restored = state.backup.records[usize::from(key)];
                self.put_record(state, key, restored);
            }
            Step::DropStatus { registry } => {
                spend(state, Fault::DropStatus);
                let markers: &mut Markers = &mut state.markers;
                markers[usize::from(registry)] = [0; ACCOUNTS];
            }
            _ => {}
        }
    }

    /// What a restore of ledgers does to the replicas: all are restarted, or run on.
    fn interrupt(&self, state: &mut State, change: impl Fn(&mut Replica)) {
        for replica in &mut state.replicas {
            // What it has seen to agree would show the rollback: `memory` models that.
            replica.agreed = 0;
            if self.bounds.online || self.bounds.remembers {
                change(replica);
            } else {
                *replica = Replica::default();
            }
        }
    }
}

pub(super) fn may(state: &State, fault: Fault) -> bool {
    state.left[fault as usize] > 0
}

pub(super) fn spend(state: &mut State, fault: Fault) {
    state.left[fault as usize] -= 1;
}
