//! Entries in every state side by side, and money that is spent, reserved and left.

mod isolation;

use std::collections::BTreeSet;

use alloy::primitives::Address;

use super::*;
use crate::api::{Entry, Operation, RevertedRegistration, SignerLedgerSpec, Wei};
use crate::ledger::evidence::AccountState;
use crate::ledger::fixtures::*;
use crate::ledger::foreign::{Content, NonceUse};
use crate::ledger::index::OwnerIndex;

/// Evidence, records and a ledger that gave nonces 5, 6 and so on to 'a', 'b' and so on.
struct PassFixture {
    ledger: SignerLedgerSpec,
    index: OwnerIndex,
    account: AccountState,
    records: BTreeMap<Key, AgentRegistration>,
    evidence: EvidenceByNonce,
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
        self.evidence.insert(Nonce(nonce), Ok(evidence));
        self
    }

    fn unanswered(mut self, nonce: u64) -> Self {
        self.evidence.insert(Nonce(nonce), Err(failure()));
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
        self.steps_where(|_| true, may_spend)
    }

    fn steps_where(
        &self,
        is_ours: fn(&AgentRegistrationSpec) -> bool,
        may_spend: bool,
    ) -> EntrySteps {
        entries(
            self.snapshot(),
            &self.records,
            &self.evidence,
            is_ours,
            may_spend,
        )
    }
}

fn failure() -> RpcError {
    RpcError::RpcUnreachable {
        call: "eth_getTransactionReceipt",
        cause: "timed out",
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
fn only_notes_of_inclusion_are_left_out() {
    let noted = [
        (key('a'), Phase::Bound),
        (key('b'), Phase::Included),
        (key('c'), Phase::Sent),
    ];
    let note = |(key, phase): (Key, Phase)| {
        (
            key,
            AgentRegistrationSpec {
                phase,
                ..record('a')
            },
        )
    };
    let steps = EntrySteps {
        note: noted.map(note).into(),
        finish: vec![(key('d'), done_at('d', 8))],
        ..EntrySteps::default()
    };
    let left = steps.clone().without_inclusions();
    assert_eq!(keys(&left.note), [noted[0], noted[2]]);
    assert_eq!(left.finish, steps.finish);
}

#[test]
fn reverted_entry_is_finished_and_a_mined_one_waits_for_finality() {
    let records = vec![sent_at('a', 5), sent_at('b', 6)];
    let fixture = PassFixture::new(account(6, 7), records).showing(5, included(5, false));
    let steps = fixture.steps(true);
    assert_eq!(keys(&steps.finish), [(key('a'), Phase::Reverted)]);
    let others = EntrySteps {
        finish: vec![],
        ..steps
    };
    assert_eq!(others, EntrySteps::default());
}

#[test]
fn unanswered_entry_delays_only_itself() {
    let records = vec![sent_at('a', 5), sent_at('b', 6), sent_at('c', 7)];
    let fixture = PassFixture::new(account(7, 7), records)
        .unanswered(5)
        .showing(6, evidence(&[final_registration('b', 6)]));
    let steps = fixture.steps(true);
    assert_eq!(
        steps.unanswered,
        BTreeMap::from([(Nonce(5), (key('a'), failure()))])
    );
    assert_eq!(keys(&steps.finish), [(key('b'), Phase::Registered)]);
    assert!(steps.spend.contains_key(&Nonce(7)));
    assert_eq!(unchecked_finalized(fixture.snapshot(), &steps), 1);
}

#[test]
fn unanswered_entry_above_the_finalized_count_is_no_premise() {
    let fixture = PassFixture::new(account(5, 6), vec![sent_at('a', 5)]).unanswered(5);
    let steps = fixture.steps(true);
    assert_eq!(unchecked_finalized(fixture.snapshot(), &steps), 0);
}

#[test]
fn freeze_holds_back_signing_and_records_what_is_known() {
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
    assert_eq!(
        steps.spend,
        BTreeMap::from([(Nonce(7), SpendStep::Send(attempt(7, 7)))]),
        "stored bytes are sent again"
    );
    assert_eq!(keys(&steps.note), [(key('d'), Phase::Bound)]);
}

#[test]
fn first_freeze_by_nonce_is_reported() {
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
fn suspension_holds_back_all_spending_and_is_no_freeze() {
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
fn entries_of_another_contract_are_only_resent() {
    let records = vec![
        sent_at('a', 5),
        sent_at('b', 6),
        sent_at('c', 7),
        record('d'),
    ];
    let fixture = PassFixture::new(account(6, 7), records)
        .showing(5, evidence(&[final_registration('a', 5)]));
    let steps = fixture.steps_where(|_| false, true);
    let spend = BTreeMap::from([(Nonce(7), SpendStep::Send(attempt(7, 7)))]);
    assert_eq!(
        steps,
        EntrySteps {
            spend,
            foreign_unsigned: Some((Nonce(8), key('d'))),
            ..EntrySteps::default()
        }
    );
}

#[test]
fn oldest_signature_is_found_among_the_entries() {
    let signed_at = |letter, nonce, time: Option<&str>| {
        let mut record = sent_at(letter, nonce);
        record.attempts[0].signed_at = time.map(str::to_owned);
        record
    };
    let records = vec![
        signed_at('a', 5, Some("2026-01-03T00:00:00Z")),
        signed_at('b', 6, Some("2026-01-02T00:00:00Z")),
        signed_at('c', 7, None),
        signed_at('d', 0, Some("2026-01-01T00:00:00Z")),
        signed_at('e', 9, Some("2026-01-01T00:00:00Z")),
        signed_at('f', 10, Some("2026-01-01T00:00:00Z")),
    ];
    let mut fixture = PassFixture::new(account(5, 5), records);
    fixture.records.remove(&key('e'));
    let filler = Entry {
        key: None,
        operation: Operation::Filler,
    };
    fixture.ledger.entries.insert(Nonce(10), filler);
    assert_eq!(
        oldest_signed(fixture.snapshot(), &fixture.records),
        Some("2026-01-02T00:00:00Z".parse().unwrap()),
        "what is missing, or of another nonce, is not counted"
    );
    let none = PassFixture::new(account(5, 5), vec![]);
    assert_eq!(oldest_signed(none.snapshot(), &none.records), None);
}

#[test]
fn spending_is_summed_from_blocks_of_final_transactions_of_the_account() {
    let done_in = |letter, block| {
        let mut record = done_at(letter, 5);
        record.result.as_mut().unwrap().block = block;
        record
    };
    let elsewhere = AgentRegistrationSpec {
        chain_id: 1,
        ..done_in('d', 50)
    };
    let records = [
        done_in('a', 70),
        done_in('b', 60),
        done_in('c', 70),
        elsewhere,
        sent_at('e', 6),
    ];
    let fixture = PassFixture::new(account(5, 5), vec![]);
    assert_eq!(
        spending_blocks(fixture.snapshot(), &BTreeSet::new(), &records),
        [60, 70].into()
    );
}

#[test]
fn signers_of_a_registry_share_the_limits_of_a_day() {
    let by = |signer, mut record: AgentRegistrationSpec| {
        record.signer = Some(signer);
        record
    };
    let final_one = |letter| AgentRegistrationSpec {
        spent_wei: Some(Wei(40)),
        ..done_at(letter, 5)
    };
    let records = [
        by(STRANGER, final_one('a')),
        by(STRANGER, sent_at('b', 6)),
        by(STRANGER, record('c')),
        by(Address::repeat_byte(0x77), final_one('d')),
        sent_at('e', 6),
    ];
    let fixture = PassFixture::new(account(5, 5), vec![]);
    let shared = BTreeSet::from([STRANGER]);
    let snapshot = fixture.snapshot();
    let amounts = |spent: Vec<(Option<String>, u128)>| -> Vec<u128> {
        spent.into_iter().map(|(_, amount)| amount).collect()
    };
    assert_eq!(amounts(spent(snapshot, &shared, &records, 0)), [40]);
    let reserved = reserved_by_others(snapshot, &shared, &records);
    assert_eq!(amounts(reserved), [300], "what is signed and not final");
    assert_eq!(spending_blocks(snapshot, &shared, &records).len(), 1);
    assert!(reserved_by_others(snapshot, &BTreeSet::new(), &records).is_empty());
}

#[test]
fn displaced_registration_is_recorded_before_its_entry_is_removed() {
    let used_by = Some(NonceUse {
        transaction: hash(9),
        block: 58,
        content: Content::Foreign,
        cost: 0,
    });
    let evidence = Evidence {
        used_by,
        ..Evidence::default()
    };
    let sent = vec![sent_at('a', 5)];
    let steps = PassFixture::new(account(6, 6), sent).showing(5, evidence);
    let steps = steps.steps(true);
    let [(_, displaced)] = steps.finish.as_slice() else {
        panic!("{steps:?}");
    };
    assert!(displaced.is_displaced(Nonce(5)) && steps.prune.is_empty());

    let recorded = PassFixture::new(account(6, 6), vec![displaced.clone()]);
    let steps = recorded.steps(true);
    assert_eq!(steps.prune, BTreeMap::from([(Nonce(5), Some(58))]));
    assert!(steps.finish.is_empty());
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
fn spending_is_counted_by_account_chain_and_day() {
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
    let reverted = stored(AgentRegistrationSpec {
        phase: Phase::Reverted,
        reverted: Some(RevertedRegistration {
            transaction: hash(6),
            block: 60,
        }),
        spent_wei: Some(Wei(32)),
        ..sent_at('g', 6)
    });
    let fixture = PassFixture::new(account(5, 5), vec![]);
    let records = [
        spent_by('a', 1),
        elsewhere,
        rotated,
        shared,
        adopted,
        pending,
        reverted,
    ];
    let counted = |from| {
        spent(
            fixture.snapshot(),
            &BTreeSet::new(),
            records.iter().map(|record| &record.spec),
            from,
        )
    };
    assert_eq!(
        counted(60),
        [
            (Some("shop".into()), 1),
            (Some("shop".into()), 8),
            (Some("shop".into()), 0),
            (Some("shop".into()), 32)
        ]
    );
    assert_eq!(counted(61), [], "its block is before the day");
}

#[test]
fn budget_subtracts_unmined_costs_and_the_day_what_is_reserved() {
    let fixture = PassFixture::new(
        account(5, 6),
        vec![sent_at('a', 5), sent_at('b', 6), record('c')],
    );
    let spent = [(Some("shop".to_owned()), 50), (None, 7)];
    let of = |balance, unsigned| {
        let account = (Nonce(6), balance);
        let costs = EntryCosts {
            rollup_fee: 0,
            unsigned,
        };
        let spent = spent.to_vec();
        Commitments::new(&fixture.ledger, account, spent, &fixture.records, costs)
    };
    let reserved = of(5_000, Some(1_000)).reserved;
    let amounts: Vec<u128> = reserved
        .values()
        .map(|reservation| reservation.amount)
        .collect();
    assert_eq!(
        amounts,
        [300, 300, 1_000],
        "ten wei for each of thirty gas, and the maximum if nothing is signed"
    );
    let full = of(5_000, Some(1_000)).budget();
    assert_eq!(
        full.balance, 3_700,
        "the cost of a mined transaction is in the balance already"
    );
    assert_eq!(full.used, 1_657);
    assert_eq!(
        full.used_by_namespace,
        BTreeMap::from([("shop".into(), 1_650)])
    );
    assert_eq!(of(1_299, Some(1_000)).budget().balance, 0);

    let signed = of(5_000, None);
    assert_eq!(signed.budget().used, 657, "what is signed");
    let own = signed.budget_of(Nonce(6));
    assert_eq!(
        (own.balance, own.used),
        (5_000, 357),
        "and of another entry"
    );
}

#[test]
fn replacement_is_not_signed_while_nothing_may_be_signed() {
    let risen = AccountState {
        base_fee: 11,
        ..account(5, 5)
    };
    let sent = vec![sent_at('a', 5), sent_at('b', 6)];
    let recently = Evidence {
        sent_recently: true,
        ..Evidence::default()
    };
    let fixture = PassFixture::new(risen, sent).showing(6, recently);
    let replace = |nonce, number, sent_recently| SpendStep::Replace {
        attempt: attempt(nonce, number),
        sent_recently,
    };
    let both = [
        (Nonce(5), replace(5, 5, false)),
        (Nonce(6), replace(6, 6, true)),
    ];
    assert_eq!(fixture.steps(true).spend, both.into());
    assert!(fixture.steps(true).spend.values().all(SpendStep::signs));
    assert_eq!(fixture.steps(false).spend, BTreeMap::new());
    let again = BTreeMap::from([(Nonce(5), SpendStep::Send(attempt(5, 5)))]);
    let foreign = fixture.steps_where(|_| false, true);
    assert_eq!(foreign.spend, again, "its own registry replaces it");
    assert!(!SpendStep::Send(attempt(5, 5)).signs());

    let mut frozen = fixture;
    frozen.records.remove(&key('b'));
    let frozen = frozen.steps(true);
    assert!(frozen.freeze.is_some());
    assert_eq!(frozen.spend, again);
}

#[test]
fn day_starts_at_the_first_spending_block_within_it() {
    let blocks: BTreeSet<u64> = [10, 20, 30, 40].into();
    let times: BTreeMap<u64, u64> = [(10, 100), (20, 200), (30, 300), (40, 400)].into();
    for (since, expected) in [(0, 10), (100, 10), (101, 20), (400, 40), (401, u64::MAX)] {
        assert_eq!(day_start(&blocks, &times, since), DayStart::From(expected));
    }
    assert_eq!(
        day_start(&BTreeSet::new(), &times, 0),
        DayStart::From(u64::MAX)
    );
}

#[test]
fn day_start_asks_only_for_times_that_decide() {
    let blocks: BTreeSet<u64> = (1..=1_000).collect();
    let mut times = BTreeMap::new();
    let mut asked = 0;
    let from = loop {
        match day_start(&blocks, &times, 7_000) {
            DayStart::From(block) => break block,
            DayStart::AskTimeOf(block) => {
                times.insert(block, block * 10);
                asked += 1;
            }
        }
    };
    assert_eq!(from, 700);
    assert!(asked <= 10, "{asked}");
}
