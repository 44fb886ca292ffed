//! Entries in every state side by side, and money that is spent, reserved and left.

use std::collections::BTreeSet;

use super::*;
use crate::api::{Entry, Operation, SignerLedgerSpec, Wei};
use crate::ledger::evidence::AccountState;
use crate::ledger::fixtures::*;
use crate::ledger::index::OwnerIndex;

/// Evidence, records and a ledger that gave nonces 5, 6 and so on to 'a', 'b' and so on.
struct PassFixture {
    ledger: SignerLedgerSpec,
    index: OwnerIndex,
    account: AccountState,
    records: BTreeMap<Key, AgentRegistration>,
    evidence: BTreeMap<Nonce, Evidence>,
}

impl PassFixture {
    fn new(account: AccountState, records: Vec<AgentRegistrationSpec>) -> Self {
        let entries = |record: (usize, &AgentRegistrationSpec)| {
            let entry = Entry {
                key: Some(record.1.key),
                operation: Operation::Register,
            };
            (Nonce(5 + record.0 as u64), entry)
        };
        let entries: BTreeMap<Nonce, Entry> = records.iter().enumerate().map(entries).collect();
        let registering = entries
            .iter()
            .filter_map(|(nonce, entry)| Some((entry.key?, *nonce)))
            .collect();
        let next = Nonce(5 + records.len() as u64);
        Self {
            ledger: SignerLedgerSpec {
                entries,
                registering,
                next,
                ..ledger()
            },
            index: index(60, &[]),
            account,
            records: records
                .into_iter()
                .map(|spec| (spec.key, stored(spec)))
                .collect(),
            evidence: BTreeMap::new(),
        }
    }

    fn showing(mut self, nonce: u64, evidence: Evidence) -> Self {
        self.evidence.insert(Nonce(nonce), evidence);
        self
    }

    fn snapshot(&self) -> LedgerSnapshot<'_> {
        LedgerSnapshot {
            ledger: &self.ledger,
            index: &self.index,
            account: &self.account,
        }
    }

    fn steps(&self, may_spend: bool) -> EntrySteps {
        entries(
            self.snapshot(),
            &self.records,
            &self.evidence,
            |_| true,
            may_spend,
        )
    }
}

fn stored(spec: AgentRegistrationSpec) -> AgentRegistration {
    AgentRegistration::new(&spec.key.record_name(), spec)
}

/// A record whose transaction was signed for a nonce, and carries that number as its hash.
fn sent_at(letter: char, nonce: u64) -> AgentRegistrationSpec {
    let attempts = vec![attempt(nonce, u8::try_from(nonce).unwrap())];
    AgentRegistrationSpec {
        phase: Phase::Sent,
        attempts,
        ..record(letter)
    }
}

fn done_at(letter: char, nonce: u64) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        result: Some(result(7)),
        phase: Phase::Registered,
        ..sent_at(letter, nonce)
    }
}

fn keys(noted: &[(Key, AgentRegistrationSpec)]) -> Vec<(Key, Phase)> {
    noted
        .iter()
        .map(|(key, record)| (*key, record.phase))
        .collect()
}

#[test]
fn every_entry_gets_its_own_step() {
    let records = vec![
        done_at('a', 5),
        sent_at('b', 6),
        sent_at('c', 7),
        sent_at('d', 8),
        record('e'),
    ];
    let fixture = PassFixture::new(account(7, 8), records)
        .showing(6, evidence(&[final_registration('b', 6)]))
        .showing(7, included(7, true));
    let steps = fixture.steps(true);
    assert_eq!(steps.prune, BTreeMap::from([(Nonce(5), Some(60))]));
    assert_eq!(keys(&steps.finish), [(key('b'), Phase::Registered)]);
    assert_eq!(keys(&steps.note), [(key('c'), Phase::Included)]);
    let spend = BTreeMap::from([
        (Nonce(8), SpendStep::Send(attempt(8, 8))),
        (Nonce(9), SpendStep::Sign),
    ]);
    assert_eq!((steps.spend, steps.freeze), (spend, None));
}

#[test]
fn a_freeze_keeps_what_would_spend_and_records_what_is_known() {
    let records = vec![
        sent_at('a', 5),
        sent_at('b', 6),
        sent_at('c', 7),
        record('d'),
    ];
    let fixture = PassFixture::new(account(7, 7), records)
        .showing(6, evidence(&[final_registration('b', 6)]));
    let steps = fixture.steps(true);
    assert_eq!(
        steps.freeze,
        Some(Freeze::KeyUsedElsewhere {
            nonce: Nonce(5),
            key: key('a')
        })
    );
    assert_eq!(keys(&steps.finish), [(key('b'), Phase::Registered)]);
    assert!(steps.spend.is_empty());
    assert_eq!(
        keys(&steps.note),
        [(key('d'), Phase::Bound)],
        "what was signed is not bound any more"
    );
}

#[test]
fn of_several_freezes_the_first_by_nonce_is_told() {
    let mut fixture = PassFixture::new(account(5, 5), vec![record('a'), record('b')]);
    fixture.records.clear();
    assert_eq!(
        fixture.steps(true).freeze,
        Some(Freeze::RecordMissing {
            key: key('a'),
            nonce: Nonce(5)
        })
    );
}

#[test]
fn a_suspension_keeps_what_would_spend_and_is_no_freeze() {
    let bound = AgentRegistrationSpec {
        phase: Phase::Bound,
        ..record('c')
    };
    let records = vec![sent_at('a', 5), record('b'), bound];
    let steps = PassFixture::new(account(5, 5), records).steps(false);
    assert!(steps.spend.is_empty() && steps.freeze.is_none());
    assert_eq!(
        keys(&steps.note),
        [(key('b'), Phase::Bound)],
        "once is enough"
    );
}

#[test]
fn entries_of_another_contract_are_only_sent_again() {
    let records = vec![
        sent_at('a', 5),
        sent_at('b', 6),
        sent_at('c', 7),
        record('d'),
    ];
    let fixture = PassFixture::new(account(6, 7), records)
        .showing(5, evidence(&[final_registration('a', 5)]));
    let steps = entries(
        fixture.snapshot(),
        &fixture.records,
        &fixture.evidence,
        |_| false,
        true,
    );
    let spend = BTreeMap::from([(Nonce(7), SpendStep::Send(attempt(7, 7)))]);
    assert_eq!(
        steps,
        EntrySteps {
            spend,
            ..EntrySteps::default()
        }
    );
}

#[test]
fn pruned_nonces_come_with_the_blocks_that_are_known() {
    let steps = EntrySteps {
        prune: BTreeMap::from([(Nonce(5), Some(60)), (Nonce(6), None)]),
        ..EntrySteps::default()
    };
    assert_eq!(
        pruned_nonces(&steps),
        (BTreeSet::from([Nonce(5), Nonce(6)]), vec![60])
    );
}

#[test]
fn what_was_spent_is_counted_by_account_chain_and_day() {
    let spent_by = |letter, wei| {
        stored(AgentRegistrationSpec {
            spent_wei: Some(Wei(wei)),
            ..done_at(letter, 5)
        })
    };
    let mut elsewhere = spent_by('b', 2);
    elsewhere.spec.chain_id = 1;
    let mut rotated = spent_by('c', 4);
    rotated.spec.signer = Some(STRANGER);
    let mut shared = spent_by('d', 8);
    shared.spec.identity = String::new();
    let mut adopted = spent_by('e', 16);
    adopted.spec.spent_wei = None;
    let pending = stored(sent_at('f', 6));
    let fixture = PassFixture::new(account(5, 5), vec![]);
    let records = [
        spent_by('a', 1),
        elsewhere,
        rotated,
        shared,
        adopted,
        pending,
    ];
    let counted = |from| spent(fixture.snapshot(), &records, from);
    assert_eq!(
        counted(60),
        [(Some("shop"), 1), (None, 8), (Some("shop"), 0)]
    );
    assert_eq!(counted(61), [], "its block is before the day");
}

#[test]
fn budget_subtracts_unmined_costs_and_the_day_what_is_reserved() {
    let fixture = PassFixture::new(
        account(5, 6),
        vec![sent_at('a', 5), sent_at('b', 6), record('c')],
    );
    let reservations = reservations(fixture.snapshot(), &fixture.records, 1_000);
    let amounts: Vec<u128> = reservations
        .iter()
        .map(|reservation| reservation.amount)
        .collect();
    assert_eq!(
        amounts,
        [300, 300, 1_000],
        "ten wei for each of thirty gas, and the most where nothing is signed"
    );
    let spent = [(Some("shop"), 50), (None, 7)];
    let budget_of = |balance| budget(fixture.snapshot(), balance, &spent, &reservations);
    let full = budget_of(5_000);
    assert_eq!(full.balance, 3_700, "what is mined has been paid");
    assert_eq!(full.used, 1_657);
    assert_eq!(
        full.used_by_namespace,
        BTreeMap::from([("shop".into(), 1_650)])
    );
    assert_eq!(budget_of(1_299).balance, 0);
}
