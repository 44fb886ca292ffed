//! The isolation matrix: one bad item beside good ones, and what becomes of the good ones.
//!
//! In every row, entry 6 ('b') is registered in a final block, entry 7 ('c') is sent and in no
//! block, and record 'd' waits for a first nonce. The expected columns are written by hand: 'b' is
//! finished and 'c' is sent again whatever the bad item is; 'd' gets a nonce only if every premise
//! is known.

use super::super::*;
use crate::api::{Entry, Operation, SignerLedgerSpec};
use crate::ledger::evidence::{AccountState, FinalRegistration, Premises, UnknownPremise};
use crate::ledger::fixtures::{
    account, alone, attempt, evidence, final_registration, included, index, key, ledger, record,
    result,
};
use crate::ledger::index::OwnerIndex;
use crate::ledger::money::Limits;
use crate::ledger::protocol::{
    AllocationBounds, AllocationRequest, PendingStep, allocate, pending_step,
};

/// A pass with one item that differs from row to row: entry 5 ('a').
struct Row {
    ledger: SignerLedgerSpec,
    account: AccountState,
    index: OwnerIndex,
    records: BTreeMap<Key, AgentRegistration>,
    evidence: EvidenceByNonce,
    unknown: Vec<UnknownPremise>,
    elsewhere: BTreeSet<Key>,
    may_spend: bool,
    foreign: Option<Key>,
}

fn sent_at(letter: char, nonce: u64) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        phase: Phase::Sent,
        attempts: vec![attempt(nonce, u8::try_from(nonce).unwrap())],
        ..record(letter)
    }
}

fn unanswered() -> Result<Evidence, RpcError> {
    Err(RpcError::RpcUnreachable {
        call: "eth_getTransactionReceipt",
        cause: "timed out",
    })
}

impl Row {
    /// All items in order: 'a' is finished and final.
    fn good() -> Self {
        let entries: BTreeMap<Nonce, Entry> = [(5, 'a'), (6, 'b'), (7, 'c')]
            .map(|(nonce, letter)| {
                let entry = Entry {
                    key: Some(key(letter)),
                    operation: Operation::Register,
                };
                (Nonce(nonce), entry)
            })
            .into();
        let registering = entries
            .iter()
            .filter_map(|(nonce, entry)| Some((entry.key?, *nonce)))
            .collect();
        let done = AgentRegistrationSpec {
            phase: Phase::Registered,
            result: Some(result(5)),
            ..sent_at('a', 5)
        };
        let mut row = Self {
            ledger: SignerLedgerSpec {
                entries,
                registering,
                next: Nonce(8),
                ..ledger()
            },
            account: account(7, 7),
            index: index(60, &[]),
            records: BTreeMap::new(),
            evidence: EvidenceByNonce::new(),
            unknown: Vec::new(),
            elsewhere: BTreeSet::new(),
            may_spend: true,
            foreign: None,
        };
        for spec in [done, sent_at('b', 6), sent_at('c', 7), record('d')] {
            row = row.with(spec);
        }
        row.showing(6, Ok(evidence(&[final_registration('b', 6)])))
    }

    fn with(mut self, spec: AgentRegistrationSpec) -> Self {
        let name = spec.key.record_name();
        self.records
            .insert(spec.key, AgentRegistration::new(&name, spec));
        self
    }

    fn without(mut self, letter: char) -> Self {
        self.records.remove(&key(letter));
        self
    }

    fn showing(mut self, nonce: u64, shown: Result<Evidence, RpcError>) -> Self {
        self.evidence.insert(Nonce(nonce), shown);
        self
    }

    fn snapshot(&self) -> LedgerSnapshot<'_> {
        LedgerSnapshot {
            ledger: &self.ledger,
            index: &self.index,
            account: &self.account,
        }
    }

    fn steps(&self) -> EntrySteps {
        entries(
            self.snapshot(),
            &self.records,
            &self.evidence,
            |record| Some(record.key) != self.foreign,
            self.may_spend,
        )
    }

    /// Whether 'b' is finished, 'c' is sent again, and 'd' gets a nonce.
    fn outcome(&self) -> (bool, bool, bool) {
        let steps = self.steps();
        let finished = steps
            .finish
            .iter()
            .any(|(finished, _)| *finished == key('b'));
        let sent = matches!(steps.spend.get(&Nonce(7)), Some(SpendStep::Send(_)));
        (finished, sent, self.allocates(&steps))
    }

    fn allocates(&self, steps: &EntrySteps) -> bool {
        let unchecked = unchecked_finalized(self.snapshot(), steps);
        let mut unknown = self.unknown.clone();
        if unchecked > 0 {
            unknown.push(UnknownPremise::EntriesUnchecked { count: unchecked });
        }
        let may_allocate = self.may_spend && steps.freeze.is_none() && !steps.has_foreign_gap();
        let Some(record) = self.records.get(&key('d')).filter(|_| may_allocate) else {
            return false;
        };
        let limits = Limits {
            max_fee_per_gas: None,
            per_registration: 1_000,
            per_day: 10_000,
            per_namespace_per_day: None,
        };
        let bounds = AllocationBounds {
            window: 16,
            spending: &limits,
            budget: Budget {
                balance: 10_000,
                ..Budget::default()
            },
            premises: &Premises { unknown },
            registering_elsewhere: &self.elsewhere,
            indexes: &alone(self.index.clone()),
        };
        let request = AllocationRequest {
            record: &record.spec,
            namespace: Some("shop"),
            cost: 100,
        };
        !allocate(self.snapshot(), &[request], bounds)
            .allocated
            .is_empty()
    }
}

fn open(letter: char, nonce: u64) -> Row {
    Row::good().with(sent_at(letter, nonce))
}

#[test]
fn one_bad_item_never_stops_the_others() {
    let stranger = FinalRegistration {
        nonce: Some(Nonce(3)),
        ..final_registration('a', 5)
    };
    let cheap = |letter, nonce| {
        let mut spec = sent_at(letter, nonce);
        spec.attempts[0].max_fee_per_gas = crate::api::Wei(9);
        spec
    };
    let unmined = account(5, 5);
    let not_final = AccountState {
        counts: crate::chain::TransactionCounts {
            finalized: Nonce(5),
            ..account(7, 7).counts
        },
        ..account(7, 7)
    };
    let unreadable = UnknownPremise::LedgerUnreadable {
        name: "31337-0x99".into(),
    };
    let reverted = AgentRegistrationSpec {
        phase: Phase::Reverted,
        reverted: Some(crate::api::RevertedRegistration {
            transaction: attempt(5, 5).hash,
            block: 60,
        }),
        ..sent_at('a', 5)
    };
    // Bad item, row, and whether 'b' is finished, 'c' is sent again, 'd' gets a nonce.
    let rows: Vec<(&str, Row, (bool, bool, bool))> = vec![
        ("none", Row::good(), (true, true, true)),
        (
            "final entry, question unanswered",
            open('a', 5).showing(5, unanswered()),
            (true, true, false),
        ),
        (
            "final entry, reverted with proof",
            open('a', 5).showing(5, Ok(included(5, false))),
            (true, true, true),
        ),
        (
            "final entry, reverted before",
            Row::good().with(reverted),
            (true, true, true),
        ),
        (
            "final entry, used by another transaction",
            open('a', 5),
            (true, true, false),
        ),
        (
            "final entry, registered at another nonce",
            open('a', 5).showing(5, Ok(evidence(&[stranger]))),
            (true, true, false),
        ),
        (
            "final entry, record missing",
            Row::good().without('a'),
            (true, true, false),
        ),
        (
            "unmined entry, record missing",
            Row {
                account: unmined,
                ..Row::good().without('a')
            },
            (false, true, false),
        ),
        (
            "unmined entry, fee below the market",
            Row {
                account: unmined,
                ..Row::good().with(cheap('a', 5))
            },
            (false, true, true),
        ),
        (
            "unmined entry, nothing signed for another contract",
            Row {
                account: unmined,
                foreign: Some(key('a')),
                ..Row::good().with(record('a'))
            },
            (false, true, false),
        ),
        (
            "mined entry, question unanswered",
            Row {
                account: not_final,
                ..open('a', 5).showing(5, unanswered())
            },
            (false, true, true),
        ),
        (
            "other ledger, unreadable",
            Row {
                unknown: vec![unreadable],
                ..Row::good()
            },
            (true, true, false),
        ),
        (
            "other ledger, registering the same key",
            Row {
                elsewhere: [key('d')].into(),
                ..Row::good()
            },
            (true, true, false),
        ),
        (
            "other ledger, registering another key",
            Row {
                elsewhere: [key('e')].into(),
                ..Row::good()
            },
            (true, true, true),
        ),
        (
            "logs, not proven up to the ledger's last block",
            Row {
                index: index(49, &[]),
                ..Row::good()
            },
            (true, true, false),
        ),
        (
            "record of another offer, waiting to adopt",
            Row::good().with(AgentRegistrationSpec {
                adopt: Some("7".into()),
                ..record('e')
            }),
            (true, true, true),
        ),
        (
            "incident switch, on",
            Row {
                may_spend: false,
                ..Row::good()
            },
            (true, false, false),
        ),
    ];
    for (bad, row, expected) in rows {
        assert_eq!(row.outcome(), expected, "{bad}");
    }
}

#[test]
fn adoption_that_is_not_answered_waits_alone() {
    let row = Row::good();
    let adopting = AgentRegistrationSpec {
        adopt: Some("7".into()),
        ..record('e')
    };
    let step = |record: &AgentRegistrationSpec| {
        pending_step(
            Some(&row.ledger),
            record,
            Some(&alone(row.index.clone())),
            &[],
            None,
        )
    };
    assert_eq!(step(&adopting), PendingStep::Wait);
    assert_eq!(step(&record('d')), PendingStep::Allocate);
}
