//! What is asked about entries in every state, and how one unanswered question stays with its item.

use super::*;
use crate::api::{Entry, Operation, Phase, SignerLedgerSpec};
use crate::ledger::evidence::AccountState;
use crate::ledger::fixtures::{
    SIGNER, account, attempt, final_registration, hash, index, key, ledger, record,
    registered_event, result,
};
use crate::ledger::index::OwnerIndex;

/// A ledger that gave nonces 5, 6 and so on to these records.
struct Fixture {
    ledger: SignerLedgerSpec,
    index: OwnerIndex,
    account: AccountState,
    records: BTreeMap<Key, AgentRegistration>,
}

impl Fixture {
    fn new(
        account: AccountState,
        registered: &[char],
        records: Vec<AgentRegistrationSpec>,
    ) -> Self {
        let entries: BTreeMap<Nonce, Entry> = (5..)
            .map(Nonce)
            .zip(&records)
            .map(|(nonce, record)| {
                let entry = Entry {
                    key: Some(record.key),
                    operation: Operation::Register,
                };
                (nonce, entry)
            })
            .collect();
        let registering = entries
            .iter()
            .filter_map(|(nonce, entry)| Some((entry.key?, *nonce)))
            .collect();
        Self {
            ledger: SignerLedgerSpec {
                entries,
                registering,
                next: Nonce(5 + records.len() as u64),
                ..ledger()
            },
            index: index(60, registered),
            account,
            records: records
                .into_iter()
                .map(|spec| {
                    let name = spec.key.record_name();
                    (spec.key, AgentRegistration::new(&name, spec))
                })
                .collect(),
        }
    }

    fn snapshot(&self) -> LedgerSnapshot<'_> {
        LedgerSnapshot {
            ledger: &self.ledger,
            index: &self.index,
            account: &self.account,
        }
    }

    fn questions(&self) -> Questions {
        let mut questions = Questions::default();
        questions.about_entries(self.snapshot(), &self.records, |_| true);
        questions
    }

    fn evidence(&self, answers: &Answers) -> EvidenceByNonce {
        evidence(
            self.snapshot(),
            &self.records,
            |_| true,
            answers,
            |_| SendAge::default(),
        )
    }
}

fn sent_at(letter: char, nonce: u64) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        phase: Phase::Sent,
        attempts: vec![attempt(nonce, u8::try_from(nonce).unwrap())],
        ..record(letter)
    }
}

fn receipt(succeeded: bool, block: u64) -> Receipt {
    Receipt {
        succeeded,
        block,
        block_hash: None,
        cost: 250,
    }
}

fn agent() -> OnChainAgent {
    OnChainAgent {
        owner: SIGNER,
        uri: "https://stranger.example/card.json".into(),
        uri_hash: hash(3),
    }
}

fn unreachable() -> RpcError {
    RpcError::RpcUnreachable {
        call: "eth_getTransactionReceipt",
        cause: "timed out",
    }
}

/// Answers that prove the registration of 'a' (transaction 7).
fn proof() -> Answers {
    Answers {
        receipts: [(hash(7), Ok(Some(receipt(true, 60))))].into(),
        transactions: [(hash(7), Ok(Some((SIGNER, Nonce(5)))))].into(),
        agents: [(U256::ZERO, Ok(Some(agent())))].into(),
    }
}

#[test]
fn unmined_entry_asks_nothing() {
    let fixture = Fixture::new(account(5, 5), &[], vec![sent_at('a', 5)]);
    assert_eq!(fixture.questions(), Questions::default());
}

#[test]
fn included_entry_asks_for_its_receipt() {
    let fixture = Fixture::new(account(5, 6), &[], vec![sent_at('a', 5)]);
    let questions = fixture.questions();
    assert_eq!(questions.receipts, [hash(5)].into());
    assert!(questions.transactions.is_empty() && questions.agents.is_empty());
}

#[test]
fn final_entry_asks_about_the_registration_in_the_logs() {
    let fixture = Fixture::new(account(6, 6), &['a'], vec![sent_at('a', 5)]);
    let questions = fixture.questions();
    assert_eq!(questions.receipts, [hash(7)].into());
    assert_eq!(questions.transactions, [hash(7)].into());
    assert_eq!(questions.agents, [U256::ZERO].into());
}

#[test]
fn entry_that_is_not_final_is_not_judged_by_the_logs() {
    let fixture = Fixture::new(account(5, 6), &['a'], vec![sent_at('a', 5)]);
    assert_eq!(fixture.questions().transactions, BTreeSet::new());
    let shown = fixture.evidence(&proof());
    assert_eq!(shown[&Nonce(5)], Ok(Evidence::default()));
}

#[test]
fn entry_shows_how_long_ago_its_last_attempt_was_sent() {
    let mut twice = sent_at('a', 5);
    twice.attempts.push(attempt(5, 9));
    let fixture = Fixture::new(account(5, 5), &[], vec![twice]);
    let age_of = |recent: B256, overdue: B256| {
        let answers = Answers::default();
        let shown = evidence(
            fixture.snapshot(),
            &fixture.records,
            |_| true,
            &answers,
            |hash| SendAge {
                recent: hash == recent,
                overdue: hash == overdue,
            },
        );
        let evidence = shown[&Nonce(5)].as_ref().unwrap();
        (evidence.sent_recently, evidence.is_overdue)
    };
    assert_eq!(age_of(hash(9), hash(5)), (true, false));
    assert_eq!(age_of(hash(5), hash(9)), (false, true));
}

#[test]
fn finished_record_asks_nothing() {
    let done = AgentRegistrationSpec {
        result: Some(result(5)),
        ..sent_at('a', 5)
    };
    let fixture = Fixture::new(account(6, 6), &['a'], vec![done]);
    assert_eq!(fixture.questions(), Questions::default());
}

#[test]
fn entry_without_a_record_asks_nothing() {
    let records = vec![sent_at('a', 5), sent_at('b', 6)];
    let mut fixture = Fixture::new(account(7, 7), &[], records);
    fixture.records.remove(&key('a'));
    let filler = Entry {
        key: None,
        operation: Operation::Filler,
    };
    fixture.ledger.entries.insert(Nonce(6), filler);
    assert_eq!(fixture.questions(), Questions::default());
    assert_eq!(fixture.evidence(&proof()), EvidenceByNonce::new());
}

#[test]
fn final_entry_shows_the_registration_in_the_logs() {
    let records = vec![sent_at('a', 5), sent_at('b', 6), sent_at('c', 7)];
    let fixture = Fixture::new(account(6, 7), &['a'], records);
    let shown = fixture.evidence(&proof());
    let registrations = &shown[&Nonce(5)].as_ref().unwrap().registrations;
    assert_eq!(*registrations, [final_registration('a', 5)]);
    for nonce in [6, 7].map(Nonce) {
        assert_eq!(shown[&nonce], Ok(Evidence::default()), "nothing is known");
    }
    let unanswered = Answers {
        agents: [(U256::ZERO, Err(unreachable()))].into(),
        ..proof()
    };
    assert_eq!(fixture.evidence(&unanswered)[&Nonce(5)], Err(unreachable()));
}

fn found_of_a(answers: &Answers) -> Result<Vec<FinalRegistration>, RpcError> {
    let event = registered_event('a');
    final_registrations([(SIGNER, &event)], answers)
}

#[test]
fn registration_is_unknown_while_a_question_about_it_is_not_answered() {
    let failing: [fn(&mut Answers); 3] = [
        |answers| drop(answers.transactions.insert(hash(7), Err(unreachable()))),
        |answers| drop(answers.receipts.insert(hash(7), Err(unreachable()))),
        |answers| drop(answers.agents.insert(U256::ZERO, Err(unreachable()))),
    ];
    for fail in failing {
        let mut answers = proof();
        fail(&mut answers);
        let found = found_of_a(&answers);
        assert_eq!(found, Err(unreachable()));
    }
}

#[test]
fn unanswered_question_belongs_to_its_entry() {
    let records = vec![sent_at('a', 5), sent_at('b', 6)];
    let fixture = Fixture::new(account(5, 7), &[], records);
    let answers = Answers {
        receipts: [
            (hash(5), Err(unreachable())),
            (hash(6), Ok(Some(receipt(true, 61)))),
        ]
        .into(),
        ..Answers::default()
    };
    let evidence = fixture.evidence(&answers);
    assert_eq!(evidence[&Nonce(5)], Err(unreachable()));
    let included = evidence[&Nonce(6)].as_ref().unwrap().included.unwrap();
    assert_eq!((included.transaction, included.block), (hash(6), 61));
}

#[test]
fn registration_is_confirmed_by_owner_and_receipt() {
    let found = found_of_a(&proof()).unwrap();
    assert_eq!(
        (found[0].sender, found[0].nonce, found[0].confirmed),
        (Some(SIGNER), Some(Nonce(5)), true)
    );
    let unknown = Answers {
        agents: [(U256::ZERO, Ok(None))].into(),
        ..proof()
    };
    let found = found_of_a(&unknown).unwrap();
    assert!(!found[0].confirmed, "the registry does not know the agent");
}

#[test]
fn registration_older_than_the_transaction_index_is_confirmed_by_its_log() {
    let pruned = RpcError::RpcHistoryMissing {
        call: "eth_getTransactionByHash",
        message: "transaction indexing is in progress".into(),
    };
    for (transaction, receipt) in [(Ok(None), Ok(None)), (Err(pruned.clone()), Err(pruned))] {
        let answers = Answers {
            transactions: [(hash(7), transaction)].into(),
            receipts: [(hash(7), receipt)].into(),
            ..proof()
        };
        let found = found_of_a(&answers).unwrap();
        assert_eq!((found[0].sender, found[0].nonce), (None, None));
        assert!(found[0].confirmed);
        assert_eq!(found[0].cost, None);
    }
}

#[test]
fn adoption_of_an_unknown_agent_is_answered_beside_one_that_fails() {
    let adopting = |letter, id: &str| {
        let spec = AgentRegistrationSpec {
            adopt: Some(id.into()),
            ..record(letter)
        };
        AgentRegistration::new(&spec.key.record_name(), spec)
    };
    let records = [
        adopting('a', "7"),
        adopting('b', "8"),
        adopting('c', "9"),
        adopting('d', &"9".repeat(78)),
    ];
    let mut questions = Questions::default();
    questions.about_adoptions(&records);
    assert_eq!(questions.agents, [7, 8, 9].map(U256::from).into());
    let answers = Answers {
        agents: [
            (U256::from(7), Ok(Some(agent()))),
            (U256::from(8), Ok(None)),
            (U256::from(9), Err(unreachable())),
        ]
        .into(),
        ..Answers::default()
    };
    let finalized = Block {
        number: 60,
        ..Block::default()
    };
    let targets = adoption_targets(&records, &finalized, &answers);
    let owner = |letter| targets[&key(letter)].as_ref().map(|target| target.owner);
    assert_eq!(owner('a'), Ok(Some(SIGNER)));
    assert_eq!(owner('b'), Ok(None));
    assert_eq!(owner('c'), Err(&unreachable()));
    assert!(!targets.contains_key(&key('d')), "the id is no agent's");
}
