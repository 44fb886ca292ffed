//! Every transition of the protocol's state machine, and every way in which evidence can be
//! incomplete.

use std::sync::{Arc, LazyLock};

use super::*;
use crate::api::OfferRef;
use crate::chain::LogPage;
use crate::ledger::evidence::OwnerBalance;
use crate::ledger::fixtures::*;
use crate::ledger::foreign::Content;
use crate::ledger::index::OwnerIndex;
use crate::ledger::registrants::OtherIndex;

const LIMITS: Limits = Limits {
    max_fee_per_gas: None,
    per_registration: 1_000,
    per_day: 10_000,
    per_namespace_per_day: None,
};

static KNOWN: Premises = Premises {
    unknown: Vec::new(),
};
static NO_KEYS: BTreeSet<Key> = BTreeSet::new();
static NOBODY_ELSE: LazyLock<RegistrantIndexes> = LazyLock::new(|| alone(index(60, &[])));

/// The step of the entry of 'a' at nonce 5.
fn step_of(
    record: &AgentRegistrationSpec,
    account: AccountState,
    evidence: &Evidence,
) -> Result<EntryStep, Freeze> {
    let (ledger, index) = (ledger(), index(60, &[]));
    entry_step(
        LedgerSnapshot {
            ledger: &ledger,
            index: &index,
            account: &account,
        },
        Nonce(5),
        Some(record),
        evidence,
    )
}

mod moving {
    use super::*;

    const NEXT: Address = Address::repeat_byte(0x77);

    fn moved() -> AgentRegistrationSpec {
        AgentRegistrationSpec {
            signer: Some(NEXT),
            moved_from: Some(SIGNER),
            ..record('c')
        }
    }

    #[test]
    fn only_a_record_that_no_one_has_begun_can_be_moved() {
        assert_eq!(former_signer(&record('c'), NEXT), Some(SIGNER));
        assert_eq!(former_signer(&record('c'), SIGNER), None, "it is its own");
        assert_eq!(former_signer(&moved(), NEXT), Some(SIGNER));
        assert_eq!(former_signer(&moved(), SIGNER), Some(SIGNER), "and back");
        let watched = AgentRegistrationSpec {
            signer: None,
            ..record('c')
        };
        let adopting = AgentRegistrationSpec {
            adopt: Some("7".into()),
            ..record('c')
        };
        let registered = AgentRegistrationSpec {
            result: Some(result(7)),
            ..record('c')
        };
        for record in [watched, adopting, registered, sent()] {
            assert_eq!(former_signer(&record, NEXT), None, "{record:?}");
        }
    }

    #[test]
    fn record_that_was_begun_waits_for_its_signer_or_for_another_nonce() {
        assert_eq!(begun(&record('a'), false), None);
        assert_eq!(begun(&record('a'), true), Some(Begun::InFlight));
        assert_eq!(begun(&sent(), false), Some(Begun::InFlight));
        let displaced = displaced_at('a', 5);
        assert_eq!(begun(&displaced, false), Some(Begun::Displaced));
        assert_eq!(begun(&displaced, true), Some(Begun::InFlight));
    }

    #[test]
    fn record_is_marked_then_the_ledger_written_then_the_mark_removed() {
        let (ledger, pending) = (ledger(), record('c'));
        let MoveStep::Write(marked) = move_step(Some(&ledger), &pending, NEXT) else {
            panic!()
        };
        assert_eq!(*marked, moved());
        let MoveStep::Complete(done) = move_step(Some(&ledger), &marked, NEXT) else {
            panic!()
        };
        let expected = AgentRegistrationSpec {
            moved_from: None,
            ..moved()
        };
        assert_eq!(*done, expected);
        assert!(matches!(
            move_step(None, &moved(), NEXT),
            MoveStep::Complete(_)
        ));
    }

    #[test]
    fn key_that_the_former_ledger_registers_stays_with_it() {
        let ledger = ledger();
        assert_eq!(move_step(Some(&ledger), &record('a'), NEXT), MoveStep::Keep);
        let marked = AgentRegistrationSpec {
            signer: Some(NEXT),
            moved_from: Some(SIGNER),
            ..record('a')
        };
        let MoveStep::Write(back) = move_step(Some(&ledger), &marked, NEXT) else {
            panic!("an allocation was faster")
        };
        assert_eq!(*back, record('a'));
    }

    #[test]
    fn displaced_nonce_of_the_former_signer_says_nothing_after_the_move() {
        let displaced = AgentRegistrationSpec {
            attempts: vec![],
            ..displaced_at('a', 5)
        };
        let former = SignerLedgerSpec {
            entries: BTreeMap::new(),
            registering: BTreeMap::new(),
            ..ledger()
        };
        let MoveStep::Write(marked) = move_step(Some(&former), &displaced, NEXT) else {
            panic!()
        };
        let MoveStep::Write(back) = move_step(Some(&ledger()), &marked, NEXT) else {
            panic!("an allocation was faster")
        };
        assert_eq!(*back, displaced, "it is its signer's again");
        let MoveStep::Complete(moved) = move_step(Some(&former), &marked, NEXT) else {
            panic!()
        };
        assert_eq!((moved.signer, &moved.displaced), (Some(NEXT), &None));

        let registered = FinalRegistration {
            sender: Some(NEXT),
            ..final_registration('a', 5)
        };
        let sent = AgentRegistrationSpec {
            attempts: vec![attempt(5, 7)],
            ..*moved
        };
        let (ledger, index) = (
            SignerLedgerSpec {
                signer: NEXT,
                ..ledger()
            },
            index_of(NEXT, 60, &['a']),
        );
        let snapshot = LedgerSnapshot {
            ledger: &ledger,
            index: &index,
            account: &account(6, 6),
        };
        let step = entry_step(snapshot, Nonce(5), Some(&sent), &evidence(&[registered]));
        assert!(matches!(step, Ok(EntryStep::RecordResult(_))), "{step:?}");
    }

    #[test]
    fn record_that_is_being_moved_gets_no_nonce() {
        let ledger = SignerLedgerSpec {
            signer: NEXT,
            ..ledger()
        };
        let indexes = alone(index_of(NEXT, 60, &[]));
        let step = |record: &AgentRegistrationSpec| {
            pending_step(Some(&ledger), record, Some(&indexes), &[], None)
        };
        assert_eq!(step(&moved()), PendingStep::Wait);
        let done = AgentRegistrationSpec {
            moved_from: None,
            ..moved()
        };
        assert_eq!(step(&done), PendingStep::Allocate);
    }
}

mod whole_ledger {
    use super::*;

    fn step(
        ledger: Option<&SignerLedgerSpec>,
        history: &LedgerHistory,
        account: AccountState,
    ) -> Result<LedgerStep, Freeze> {
        ledger_step(
            &identity(),
            ledger.map(|ledger| (ledger, &*READ)),
            history,
            &account,
        )
    }

    static READ: LazyLock<LedgerMark> = LazyLock::new(|| mark("uid-1", 4, 7));

    fn mark(uid: &str, generation: i64, next: u64) -> LedgerMark {
        LedgerMark {
            uid: uid.into(),
            generation,
            next: Nonce(next),
            history_hash: hash(1),
        }
    }

    fn marked() -> LedgerHistory {
        LedgerHistory {
            marker: Some("uid-1".into()),
            ..LedgerHistory::default()
        }
    }

    #[test]
    fn ledger_without_history_is_created_in_quarantine() {
        let Ok(LedgerStep::Create(created)) = step(None, &LedgerHistory::default(), account(3, 3))
        else {
            panic!()
        };
        assert_eq!(
            (created.state, created.next, created.entries.len()),
            (LedgerState::Quarantine, Nonce(0), 0)
        );
        assert_eq!(
            created.quarantine,
            Some(Quarantine {
                reason: QuarantineReason::New,
                bound: Nonce(0)
            })
        );
        assert_eq!(
            (created.chain_id, created.genesis_hash, created.signer),
            (31337, GENESIS, SIGNER)
        );
        assert_ne!(created.history_hash, B256::ZERO);
    }

    #[test]
    fn missing_ledger_with_history_is_lost() {
        let histories = [
            (marked(), Some("uid-1".to_owned())),
            (
                LedgerHistory {
                    markers: ["uid-2".to_owned()].into(),
                    ..LedgerHistory::default()
                },
                Some("uid-2".to_owned()),
            ),
            (
                LedgerHistory {
                    has_attempts: true,
                    ..LedgerHistory::default()
                },
                None,
            ),
            (
                LedgerHistory {
                    remembered: vec![mark("uid-0", 1, 1)],
                    ..LedgerHistory::default()
                },
                None,
            ),
        ];
        for (history, uid) in histories {
            assert_eq!(
                step(None, &history, account(0, 0)),
                Err(Freeze::LedgerLost { uid })
            );
        }
    }

    #[test]
    fn marker_is_written_before_anything_else() {
        let new = new_ledger(&identity());
        assert_eq!(
            step(Some(&new), &LedgerHistory::default(), account(0, 0)),
            Ok(LedgerStep::WriteMarker)
        );
        assert_eq!(
            step(Some(&ledger()), &LedgerHistory::default(), account(5, 5)),
            Ok(LedgerStep::WriteMarker),
            "a restored registry has no marker"
        );
    }

    #[test]
    fn marker_of_another_ledger_means_that_ledger_is_lost() {
        let history = LedgerHistory {
            marker: Some("uid-0".into()),
            ..LedgerHistory::default()
        };
        let lost = Err(Freeze::LedgerLost {
            uid: Some("uid-0".into()),
        });
        assert_eq!(
            step(Some(&new_ledger(&identity())), &history, account(0, 0)),
            lost
        );
        assert_eq!(step(Some(&ledger()), &history, account(5, 5)), lost);
    }

    #[test]
    fn new_ledger_of_an_unused_wallet_activates_at_nonce_zero() {
        let new = new_ledger(&identity());
        let Ok(LedgerStep::Activate(active)) = step(Some(&new), &marked(), account(0, 0)) else {
            panic!()
        };
        assert_eq!(
            (active.state, active.quarantine),
            (LedgerState::Active, None)
        );
        assert_eq!(
            (active.next, active.finalized_nonce, active.finalized_block),
            (Nonce(0), Nonce(0), 60)
        );
        assert_ne!(active.history_hash, new.history_hash);
    }

    #[test]
    fn logs_of_an_unused_wallet_start_at_its_birth() {
        let new = new_ledger(&identity());
        let balance = OwnerBalance {
            registry: STRANGER,
            held: U256::from(3),
        };
        let unused = AccountState {
            balance_of_owner: Some(balance),
            ..account(0, 0)
        };
        let born = Some((60, AgentCount(U256::from(3)), Some(STRANGER)));
        let configured = LedgerHistory {
            bootstrap_from_block: Some(9),
            ..marked()
        };
        assert_eq!(logs_of(step(Some(&new), &marked(), unused)), born);
        assert_eq!(logs_of(step(Some(&new), &configured, unused)), born);
        assert_eq!(
            logs_of(step(Some(&new), &marked(), account(0, 0))),
            None,
            "its agents were not counted"
        );
    }

    #[test]
    fn logs_of_a_used_wallet_start_at_the_configured_block() {
        let new = new_ledger(&identity());
        let used = AccountState {
            balance_of_owner: Some(OwnerBalance {
                registry: STRANGER,
                held: U256::from(3),
            }),
            ..account(17, 17)
        };
        let history = |bootstrap_from_block| LedgerHistory {
            bootstrap_nonce: Some(Nonce(17)),
            bootstrap_from_block,
            ..marked()
        };
        let configured = Some((9, AgentCount::default(), None));
        assert_eq!(
            logs_of(step(Some(&new), &history(Some(9)), used)),
            configured
        );
        let counted = SignerLedgerSpec {
            from_registry: Some(STRANGER),
            ..new.clone()
        };
        assert_eq!(
            logs_of(step(Some(&counted), &history(Some(9)), used)),
            configured,
            "agents of the wallet are counted from none"
        );
        assert_eq!(
            logs_of(step(Some(&new), &history(None), used)),
            None,
            "never at its birth: it may have registered before"
        );
    }

    /// Where the logs of an activated ledger start.
    fn logs_of(
        step: Result<LedgerStep, Freeze>,
    ) -> Option<(u64, AgentCount, Option<alloy::primitives::Address>)> {
        let Ok(LedgerStep::Activate(active)) = step else {
            panic!("{step:?}")
        };
        Some((
            active.from_block?,
            active.from_balance?,
            active.from_registry,
        ))
    }

    #[test]
    fn earlier_configured_block_is_written_to_the_ledger() {
        let born = SignerLedgerSpec {
            from_block: Some(9),
            from_balance: Some(AgentCount(U256::from(3))),
            ..ledger()
        };
        let history = |block| LedgerHistory {
            bootstrap_from_block: Some(block),
            ..marked()
        };
        let Ok(LedgerStep::LowerFromBlock(lowered)) = step(Some(&born), &history(8), account(5, 5))
        else {
            panic!()
        };
        assert_eq!(
            (lowered.from_block, lowered.from_balance),
            (Some(8), Some(AgentCount::default()))
        );
        assert_eq!(lowered.from_registry, None);
        assert_ne!(lowered.history_hash, born.history_hash);
        let old = SignerLedgerSpec {
            from_block: None,
            ..born.clone()
        };
        for (ledger, block) in [(&born, 9), (&born, 10), (&old, 8)] {
            assert_eq!(
                step(Some(ledger), &history(block), account(5, 5)),
                Ok(LedgerStep::Ready)
            );
        }
    }

    #[test]
    fn no_ledger_is_born_beside_an_unreadable_record() {
        let unreadable = |history| LedgerHistory {
            unreadable_record: Some("r-x".into()),
            ..history
        };
        let await_record = Ok(LedgerStep::AwaitPremise(UnknownPremise::RecordUnreadable {
            name: "r-x".into(),
        }));
        let new = new_ledger(&identity());
        let missing = unreadable(LedgerHistory::default());
        assert_eq!(step(None, &missing, account(0, 0)), await_record);
        let marked = unreadable(marked());
        assert_eq!(step(Some(&new), &marked, account(0, 0)), await_record);
        assert_eq!(
            step(Some(&ledger()), &marked, account(5, 5)),
            Ok(LedgerStep::Ready),
            "it stops births only"
        );
    }

    #[test]
    fn new_ledger_of_a_used_wallet_requires_a_bootstrap_nonce() {
        let new = new_ledger(&identity());
        let used = Err(Freeze::WalletUsed { count: Nonce(17) });
        assert_eq!(step(Some(&new), &marked(), account(17, 17)), used);
        for at in [0, 16, 18] {
            let history = LedgerHistory {
                bootstrap_nonce: Some(Nonce(at)),
                ..marked()
            };
            assert_eq!(step(Some(&new), &history, account(17, 17)), used);
        }
        let history = LedgerHistory {
            bootstrap_nonce: Some(Nonce(17)),
            ..marked()
        };
        let Ok(LedgerStep::Activate(active)) = step(Some(&new), &history, account(17, 17)) else {
            panic!()
        };
        assert_eq!(
            (active.next, active.finalized_nonce),
            (Nonce(17), Nonce(17))
        );
    }

    #[test]
    fn new_ledger_waits_for_transactions_in_flight() {
        let new = new_ledger(&identity());
        let history = LedgerHistory {
            bootstrap_nonce: Some(Nonce(17)),
            ..marked()
        };
        assert_eq!(
            step(Some(&new), &history, account(17, 18)),
            Ok(LedgerStep::Wait)
        );
        let mut waiting = account(17, 17);
        waiting.counts.pending = Nonce(18);
        assert_eq!(step(Some(&new), &history, waiting), Ok(LedgerStep::Wait));
        let mut reorganized = account(17, 16);
        reorganized.counts.pending = Nonce(17);
        assert_eq!(
            step(Some(&new), &history, reorganized),
            Ok(LedgerStep::Wait)
        );
    }

    #[test]
    fn new_ledger_of_a_signer_with_attempts_means_a_lost_ledger() {
        let history = LedgerHistory {
            has_attempts: true,
            ..marked()
        };
        assert_eq!(
            step(Some(&new_ledger(&identity())), &history, account(0, 0)),
            Err(Freeze::LedgerLost { uid: None })
        );
        assert_eq!(
            step(Some(&ledger()), &history, account(5, 5)),
            Ok(LedgerStep::Ready),
            "an active ledger made these attempts"
        );
    }

    #[test]
    fn ledger_in_other_quarantine_freezes() {
        for reason in [
            QuarantineReason::Lost,
            QuarantineReason::Rollback,
            QuarantineReason::Clone,
        ] {
            let quarantine = Some(Quarantine {
                reason,
                bound: Nonce(9),
            });
            let ledger = SignerLedgerSpec {
                state: LedgerState::Quarantine,
                quarantine,
                ..ledger()
            };
            let remembering = LedgerHistory {
                remembered: vec![mark("uid-1", 9, 9)],
                ..marked()
            };
            for history in [marked(), remembering] {
                assert_eq!(
                    step(Some(&ledger), &history, account(5, 5)),
                    Err(Freeze::Quarantined { reason })
                );
            }
        }
    }

    #[test]
    fn ledger_of_another_cluster_or_chain_freezes() {
        let cloned = SignerLedgerSpec {
            cluster_uid: "other".into(),
            ..ledger()
        };
        assert_eq!(
            step(Some(&cloned), &marked(), account(5, 5)),
            Err(Freeze::LedgerCloned {
                owner: "other".into()
            })
        );
        let elsewhere = SignerLedgerSpec {
            genesis_hash: hash(9),
            ..ledger()
        };
        let other = Freeze::OtherChain {
            seen: GENESIS,
            recorded: hash(9),
        };
        assert_eq!(step(Some(&elsewhere), &marked(), account(5, 5)), Err(other));
    }

    #[test]
    fn ledger_behind_an_earlier_read_is_rolled_back() {
        let remembering = |marks: &[LedgerMark]| LedgerHistory {
            remembered: marks.to_vec(),
            ..marked()
        };
        let seen = mark("uid-1", 5, 8);
        let rolled_back = Freeze::LedgerRolledBack {
            read: Box::new(READ.clone()),
            seen: Box::new(seen.clone()),
        };
        let history = remembering(&[mark("uid-1", 4, 7), seen]);
        let unmarked = LedgerHistory {
            marker: None,
            ..history.clone()
        };
        for history in [&history, &unmarked] {
            let step = step(Some(&ledger()), history, account(5, 5));
            assert_eq!(step, Err(rolled_back.clone()));
        }
        for reached in [mark("uid-1", 4, 7), mark("uid-1", 3, 6)] {
            assert_eq!(
                step(Some(&ledger()), &remembering(&[reached]), account(5, 5)),
                Ok(LedgerStep::Ready)
            );
        }
    }

    #[test]
    fn ledger_that_replaces_a_used_one_means_that_one_is_lost() {
        let remembering = |mark| LedgerHistory {
            remembered: vec![mark],
            ..marked()
        };
        let lost = Freeze::LedgerLost {
            uid: Some("uid-0".into()),
        };
        let used = remembering(mark("uid-0", 9, 1));
        assert_eq!(step(Some(&ledger()), &used, account(5, 5)), Err(lost));
        let unused = remembering(mark("uid-0", 9, 0));
        assert_eq!(
            step(Some(&ledger()), &unused, account(5, 5)),
            Ok(LedgerStep::Ready)
        );
        assert!(matches!(
            step(
                None,
                &LedgerHistory {
                    marker: None,
                    ..unused
                },
                account(0, 0)
            ),
            Ok(LedgerStep::Create(_))
        ));
    }

    #[test]
    fn attempt_that_the_ledger_lacks_freezes() {
        let history = LedgerHistory {
            unaccounted: Some((key('c'), Nonce(4))),
            ..marked()
        };
        let missing = Freeze::EntryMissing {
            key: key('c'),
            nonce: Nonce(4),
        };
        assert_eq!(step(Some(&ledger()), &history, account(5, 5)), Err(missing));
    }

    #[test]
    fn ledger_behind_any_transaction_count_allocates_nothing() {
        let ahead = UnknownPremise::NonceAhead {
            count: Nonce(8),
            next: Nonce(7),
        };
        let (ledger, index) = (ledger(), index(60, &[]));
        let ahead_of = |account: &AccountState| {
            nonce_ahead(LedgerSnapshot {
                ledger: &ledger,
                index: &index,
                account,
            })
        };
        for (finalized, latest, pending) in [(8, 8, 8), (5, 8, 8), (5, 5, 8), (8, 5, 5), (5, 8, 5)]
        {
            let counts = TransactionCounts {
                finalized: Nonce(finalized),
                latest: Nonce(latest),
                pending: Nonce(pending),
            };
            let account = AccountState {
                counts,
                ..account(0, 0)
            };
            assert_eq!(ahead_of(&account).as_ref(), Some(&ahead));
            let ready = Ok(LedgerStep::Ready);
            let what = "its entries are finished";
            assert_eq!(step(Some(&ledger), &marked(), account), ready, "{what}");
        }
        assert_eq!(ahead_of(&account(7, 7)), None);
    }
}

mod entry {
    use super::*;

    #[test]
    fn entry_without_signed_bytes_is_signed() {
        assert_eq!(
            step_of(&record('a'), account(5, 5), &evidence(&[])),
            Ok(EntryStep::Sign)
        );
        let elsewhere = AgentRegistrationSpec {
            attempts: vec![attempt(4, 6)],
            ..record('a')
        };
        assert_eq!(
            step_of(&elsewhere, account(5, 5), &evidence(&[])),
            Ok(EntryStep::Sign),
            "an attempt for another nonce cannot be included"
        );
        let forgotten = AgentRegistrationSpec {
            attempts: vec![Attempt {
                raw: None,
                ..attempt(5, 7)
            }],
            ..record('a')
        };
        assert_eq!(
            step_of(&forgotten, account(5, 5), &evidence(&[])),
            Ok(EntryStep::Sign)
        );
    }

    #[test]
    fn unmined_entry_is_sent_until_a_block_includes_it() {
        assert_eq!(
            step_of(&sent(), account(5, 5), &evidence(&[])),
            Ok(EntryStep::Send(attempt(5, 7)))
        );
        let recently = Evidence {
            sent_recently: true,
            ..Evidence::default()
        };
        assert_eq!(
            step_of(&sent(), account(5, 5), &recently),
            Ok(EntryStep::Wait)
        );
        let bumped = AgentRegistrationSpec {
            attempts: vec![attempt(5, 7), attempt(5, 8)],
            ..sent()
        };
        assert_eq!(
            step_of(&bumped, account(5, 5), &evidence(&[])),
            Ok(EntryStep::Send(attempt(5, 8)))
        );
    }

    #[test]
    fn transaction_below_the_base_fee_is_replaced() {
        let risen = AccountState {
            base_fee: 11,
            ..account(5, 5)
        };
        let replace = |sent_recently| {
            Ok(EntryStep::Replace {
                attempt: attempt(5, 7),
                sent_recently,
            })
        };
        assert_eq!(step_of(&sent(), risen, &evidence(&[])), replace(false));
        let recently = Evidence {
            sent_recently: true,
            ..Evidence::default()
        };
        assert_eq!(step_of(&sent(), risen, &recently), replace(true));
        assert_eq!(
            step_of(&sent(), account(5, 5), &evidence(&[])),
            Ok(EntryStep::Send(attempt(5, 7))),
            "a fee equal to the base fee is enough"
        );
    }

    #[test]
    fn record_holds_as_many_attempts_as_its_schema_allows() {
        let mut record = sent();
        record.attempts = vec![attempt(5, 7); 255];
        assert_eq!(check_attempts(&record), Ok(()));
        record.attempts.push(attempt(5, 7));
        let limit = Shortage::AttemptLimitReached { attempts: 256 };
        assert_eq!(check_attempts(&record), Err(limit));
    }

    #[test]
    fn overdue_transaction_is_replaced_once_it_is_the_next_one() {
        let overdue = Evidence {
            is_overdue: true,
            ..Evidence::default()
        };
        let replace = EntryStep::Replace {
            attempt: attempt(5, 7),
            sent_recently: false,
        };
        assert_eq!(step_of(&sent(), account(5, 5), &overdue), Ok(replace));
        assert_eq!(
            step_of(&sent(), account(4, 4), &overdue),
            Ok(EntryStep::Send(attempt(5, 7))),
            "it waits for a lower nonce"
        );
    }

    #[test]
    fn inclusion_is_recorded_once_and_reverted_after_a_reorg() {
        let Ok(EntryStep::RecordPhase(recorded)) =
            step_of(&sent(), account(5, 6), &included(7, true))
        else {
            panic!()
        };
        assert_eq!(
            recorded,
            AgentRegistrationSpec {
                phase: Phase::Included,
                ..sent()
            }
        );
        assert_eq!(
            step_of(&recorded, account(5, 6), &included(7, true)),
            Ok(EntryStep::Wait)
        );

        assert_eq!(
            step_of(&recorded, account(5, 5), &evidence(&[])),
            Ok(EntryStep::RecordPhase(sent()))
        );
    }

    #[test]
    fn foreign_or_failed_inclusion_waits_for_finality() {
        assert_eq!(
            step_of(&sent(), account(5, 6), &evidence(&[])),
            Ok(EntryStep::Wait)
        );
        assert_eq!(
            step_of(&sent(), account(5, 6), &included(7, false)),
            Ok(EntryStep::Wait)
        );
    }

    #[test]
    fn final_entry_records_its_result_first() {
        let Ok(EntryStep::RecordResult(finished)) = step_of(
            &sent(),
            account(6, 6),
            &evidence(&[final_registration('a', 5)]),
        ) else {
            panic!()
        };
        assert_eq!(finished.result, Some(result(7)));
        assert_eq!(
            (finished.phase, finished.spent_wei),
            (Phase::Registered, Some(Wei(250)))
        );
        assert_eq!(finished.agent_uri, Some(registered_event('a').agent_uri));
    }

    #[test]
    fn result_keeps_the_signed_uri_and_adds_to_spending() {
        let spent = AgentRegistrationSpec {
            spent_wei: Some(Wei(50)),
            agent_uri: Some("signed".into()),
            ..sent()
        };
        let Ok(EntryStep::RecordResult(finished)) = step_of(
            &spent,
            account(6, 6),
            &evidence(&[final_registration('a', 5)]),
        ) else {
            panic!()
        };
        assert_eq!(
            (finished.agent_uri.as_deref(), finished.spent_wei),
            (Some("signed"), Some(Wei(300)))
        );
    }

    #[test]
    fn entry_of_a_tombstone_finishes_as_a_tombstone() {
        let gone = AgentRegistrationSpec {
            tombstone: Some(true),
            ..sent()
        };
        let Ok(EntryStep::RecordResult(finished)) = step_of(
            &gone,
            account(6, 6),
            &evidence(&[final_registration('a', 5)]),
        ) else {
            panic!()
        };
        assert_eq!(
            (finished.phase, finished.tombstone),
            (Phase::Tombstoned, Some(true))
        );
    }

    #[test]
    fn entry_with_a_result_is_pruned_once_its_nonce_is_final() {
        let done = AgentRegistrationSpec {
            result: Some(result(7)),
            ..sent()
        };
        assert_eq!(
            step_of(&done, account(6, 6), &evidence(&[])),
            Ok(EntryStep::Prune)
        );
        assert_eq!(
            step_of(&done, account(5, 6), &evidence(&[])),
            Ok(EntryStep::Wait),
            "this endpoint lags behind"
        );
        let adopted = AgentRegistrationSpec {
            result: Some(result(9)),
            ..sent()
        };
        let misplaced = Err(Freeze::RegistrationMisplaced {
            key: key('a'),
            nonce: Nonce(5),
        });
        assert_eq!(step_of(&adopted, account(5, 5), &evidence(&[])), misplaced);
        let by_an_earlier_nonce = AgentRegistrationSpec {
            result: Some(result(7)),
            attempts: vec![attempt(4, 7)],
            ..sent()
        };
        assert_eq!(
            step_of(&by_an_earlier_nonce, account(5, 5), &evidence(&[])),
            misplaced
        );
        assert_eq!(
            step_of(&adopted, account(6, 6), &evidence(&[])),
            Ok(EntryStep::Prune),
            "a final nonce can include nothing more"
        );
    }

    #[test]
    fn entry_finishes_only_on_a_confirmed_event_at_its_nonce() {
        let misplaced = Err(Freeze::RegistrationMisplaced {
            key: key('a'),
            nonce: Nonce(5),
        });
        for other in [
            FinalRegistration {
                nonce: Some(Nonce(4)),
                ..final_registration('a', 5)
            },
            FinalRegistration {
                sender: Some(STRANGER),
                ..final_registration('a', 5)
            },
            FinalRegistration {
                confirmed: false,
                ..final_registration('a', 5)
            },
        ] {
            assert_eq!(
                step_of(
                    &sent(),
                    account(6, 6),
                    &evidence(std::slice::from_ref(&other))
                ),
                misplaced
            );
            let both = [other, final_registration('a', 5)];
            assert!(matches!(
                step_of(&sent(), account(6, 6), &evidence(&both)),
                Ok(EntryStep::RecordResult(_))
            ));
        }
    }

    #[test]
    fn own_transaction_finishes_an_entry_without_its_receipt() {
        let unknown = FinalRegistration {
            sender: None,
            nonce: None,
            cost: None,
            ..final_registration('a', 5)
        };
        let Ok(EntryStep::RecordResult(finished)) = step_of(
            &sent(),
            account(6, 6),
            &evidence(std::slice::from_ref(&unknown)),
        ) else {
            panic!()
        };
        assert_eq!(finished.result, Some(result(7)));
        assert_eq!(
            finished.spent_wei,
            Some(Wei(300)),
            "the most that the attempt may cost"
        );
        let other_nonce = AgentRegistrationSpec {
            attempts: vec![attempt(4, 7), attempt(5, 8)],
            ..sent()
        };
        assert_eq!(
            step_of(
                &other_nonce,
                account(6, 6),
                &evidence(std::slice::from_ref(&unknown))
            ),
            Ok(EntryStep::Wait),
            "the nonce of the transaction is unknown"
        );
        let half = FinalRegistration {
            sender: Some(SIGNER),
            ..unknown
        };
        assert!(matches!(
            step_of(&sent(), account(6, 6), &evidence(&[half])),
            Ok(EntryStep::RecordResult(_))
        ));
    }

    #[test]
    fn final_log_finishes_an_entry_whose_record_was_lost() {
        let unknown = FinalRegistration {
            sender: None,
            nonce: None,
            cost: None,
            ..final_registration('a', 5)
        };
        let Ok(EntryStep::RecordResult(finished)) = step_of(
            &record('a'),
            account(6, 6),
            &evidence(std::slice::from_ref(&unknown)),
        ) else {
            panic!()
        };
        assert_eq!(finished.result, Some(result(7)));
        assert_eq!(finished.spent_wei, Some(Wei(0)), "its cost is unknown");
        let unconfirmed = FinalRegistration {
            confirmed: false,
            ..unknown
        };
        assert_eq!(
            step_of(&record('a'), account(6, 6), &evidence(&[unconfirmed])),
            Err(Freeze::RegistrationMisplaced {
                key: key('a'),
                nonce: Nonce(5)
            })
        );
    }

    #[test]
    fn reverted_registration_is_terminal_and_counted() {
        let spent = AgentRegistrationSpec {
            spent_wei: Some(Wei(50)),
            ..sent()
        };
        let Ok(EntryStep::RecordReverted(reverted)) =
            step_of(&spent, account(6, 6), &included(7, false))
        else {
            panic!()
        };
        let expected = AgentRegistrationSpec {
            phase: Phase::Reverted,
            reverted: Some(RevertedRegistration {
                transaction: hash(7),
                block: 60,
            }),
            spent_wei: Some(Wei(300)),
            ..sent()
        };
        assert_eq!(reverted, expected);
        assert_eq!(reverted.final_block(), Some(60));
        assert_eq!(
            step_of(&reverted, account(6, 6), &evidence(&[])),
            Ok(EntryStep::Prune)
        );
        for counts in [account(5, 6), account(5, 5)] {
            assert_eq!(
                step_of(&reverted, counts, &evidence(&[])),
                Ok(EntryStep::Wait),
                "this endpoint lags behind"
            );
        }
    }

    #[test]
    fn cost_of_a_reverted_registration_is_counted_once() {
        let dropped = AgentRegistrationSpec {
            phase: Phase::Reverted,
            spent_wei: Some(Wei(250)),
            ..sent()
        };
        let Ok(EntryStep::RecordReverted(again)) =
            step_of(&dropped, account(6, 6), &included(7, false))
        else {
            panic!()
        };
        assert_eq!(again.spent_wei, Some(Wei(250)));
        assert!(again.reverted.is_some(), "an older version dropped it");
        assert_eq!(
            step_of(&dropped, account(5, 5), &evidence(&[])),
            Ok(EntryStep::Wait),
            "it is never signed or sent again"
        );
    }

    #[test]
    fn record_reverted_at_another_nonce_is_not_sent() {
        let elsewhere = AgentRegistrationSpec {
            phase: Phase::Reverted,
            reverted: Some(RevertedRegistration {
                transaction: hash(7),
                block: 60,
            }),
            attempts: vec![attempt(4, 7)],
            ..record('a')
        };
        assert_eq!(
            step_of(&elsewhere, account(5, 5), &evidence(&[])),
            Err(Freeze::RegistrationMisplaced {
                key: key('a'),
                nonce: Nonce(5)
            })
        );
        assert!(matches!(
            step_of(
                &elsewhere,
                account(6, 6),
                &evidence(&[final_registration('a', 5)])
            ),
            Ok(EntryStep::RecordResult(_))
        ));
    }

    #[test]
    fn revert_counts_only_by_a_final_receipt_of_an_own_transaction() {
        let with = |change: fn(&mut Inclusion)| {
            let mut evidence = included(7, false);
            change(evidence.included.as_mut().unwrap());
            evidence
        };
        let wait = Ok(EntryStep::Wait);
        let foreign = with(|inclusion| inclusion.transaction = hash(9));
        assert_eq!(step_of(&sent(), account(6, 6), &foreign), wait);
        let not_final = with(|inclusion| inclusion.block = 61);
        assert_eq!(step_of(&sent(), account(6, 6), &not_final), wait);
        let other_nonce = AgentRegistrationSpec {
            attempts: vec![attempt(4, 7)],
            ..sent()
        };
        assert_eq!(
            step_of(&other_nonce, account(6, 6), &included(7, false)),
            wait
        );
        assert_eq!(
            step_of(&sent(), account(5, 6), &included(7, false)),
            wait,
            "its nonce is not final"
        );
    }

    fn used_by(content: Content) -> Evidence {
        Evidence {
            used_by: Some(NonceUse {
                transaction: hash(9),
                block: 58,
                content,
                cost: 0,
            }),
            ..Evidence::default()
        }
    }

    #[test]
    fn foreign_transaction_at_a_final_nonce_displaces_the_registration() {
        let Ok(EntryStep::RecordDisplaced(displaced)) =
            step_of(&sent(), account(6, 6), &used_by(Content::Foreign))
        else {
            panic!("the nonce is used for good");
        };
        let by = displaced.displaced.clone().unwrap();
        assert_eq!(
            (by.nonce, by.transaction, by.block),
            (Nonce(5), hash(9), 58)
        );
        assert_eq!(
            (displaced.phase, displaced.is_open()),
            (Phase::Pending, true)
        );
        assert_eq!(displaced.attempts, sent().attempts, "they are kept");
        assert_eq!(displaced.live_attempt(), None);
        let prune = Ok(EntryStep::Prune);
        assert_eq!(step_of(&displaced, account(6, 6), &evidence(&[])), prune);
        let behind = step_of(&displaced, account(5, 5), &evidence(&[]));
        assert_eq!(behind, Ok(EntryStep::Wait), "the endpoint lags");
    }

    #[test]
    fn filler_displaces_a_registration_and_costs_what_it_took() {
        let unsigned = AgentRegistrationSpec {
            attempts: Vec::new(),
            spent_wei: Some(Wei(4)),
            ..sent()
        };
        let mut filled = used_by(Content::Filler(key('a')));
        filled.used_by.as_mut().unwrap().cost = 3;
        let step = step_of(&unsigned, account(6, 6), &filled);
        let Ok(EntryStep::RecordDisplaced(displaced)) = step else {
            panic!("{step:?}");
        };
        assert!(displaced.is_displaced(Nonce(5)) && displaced.is_open());
        assert_eq!(displaced.spent_wei, Some(Wei(7)));
    }

    #[test]
    fn complete_logs_contradict_a_displaced_nonce() {
        let displaced = displaced_at('a', 5);
        let found = evidence(&[final_registration('a', 5)]);
        let step = step_of(&displaced, account(6, 6), &found);
        assert!(matches!(step, Ok(EntryStep::RecordResult(_))), "{step:?}");
        let ledger = ledger();
        for index in [index(59, &[]), index(60, &['a'])] {
            let snapshot = LedgerSnapshot {
                ledger: &ledger,
                index: &index,
                account: &account(6, 6),
            };
            let step = entry_step(snapshot, Nonce(5), Some(&displaced), &evidence(&[]));
            assert_eq!(step, Ok(EntryStep::Wait), "{index:?}");
        }
    }

    #[test]
    fn record_of_another_signer_neither_shows_nor_keeps_a_displaced_nonce() {
        let moved = AgentRegistrationSpec {
            signer: Some(STRANGER),
            ..displaced_at('a', 5)
        };
        let elsewhere = Err(Freeze::KeyUsedElsewhere {
            nonce: Nonce(5),
            key: key('a'),
        });
        for evidence in [evidence(&[]), used_by(Content::Foreign)] {
            assert_eq!(step_of(&moved, account(6, 6), &evidence), elsewhere);
        }
        let unmined = step_of(&moved, account(5, 5), &evidence(&[]));
        assert_eq!(unmined, Ok(EntryStep::Send(attempt(5, 7))), "not its nonce");
    }

    #[test]
    fn outcome_of_another_signer_at_the_same_nonce_freezes_the_entry() {
        let moved = AgentRegistrationSpec {
            signer: Some(STRANGER),
            ..sent()
        };
        let registered = AgentRegistrationSpec {
            result: Some(result(7)),
            ..moved.clone()
        };
        let reverted = AgentRegistrationSpec {
            phase: Phase::Reverted,
            reverted: Some(RevertedRegistration {
                transaction: hash(7),
                block: 60,
            }),
            ..moved
        };
        let misplaced = Err(Freeze::RegistrationMisplaced {
            nonce: Nonce(5),
            key: key('a'),
        });
        for record in [registered, reverted] {
            let step = step_of(&record, account(5, 5), &evidence(&[]));
            assert_eq!(step, misplaced, "{record:?}");
        }
    }

    #[test]
    fn nothing_but_a_foreign_transaction_displaces_a_registration() {
        let elsewhere = Err(Freeze::KeyUsedElsewhere {
            nonce: Nonce(5),
            key: key('a'),
        });
        let another = used_by(Content::Filler(key('b')));
        for evidence in [used_by(Content::Agent), another, evidence(&[])] {
            assert_eq!(step_of(&sent(), account(6, 6), &evidence), elsewhere);
        }
        let unmined = step_of(&sent(), account(5, 5), &used_by(Content::Foreign));
        assert_eq!(unmined, Ok(EntryStep::Send(attempt(5, 7))), "not final");
        let registered = Evidence {
            registrations: vec![final_registration('a', 5)],
            ..used_by(Content::Foreign)
        };
        let step = step_of(&sent(), account(6, 6), &registered);
        assert!(matches!(step, Ok(EntryStep::RecordResult(_))), "{step:?}");
    }

    #[test]
    fn key_in_the_index_is_neither_reverted_nor_displaced() {
        let (ledger, index, account) = (ledger(), index(60, &['a']), account(6, 6));
        let snapshot = LedgerSnapshot {
            ledger: &ledger,
            index: &index,
            account: &account,
        };
        for evidence in [included(7, false), included(7, true), evidence(&[])] {
            assert_eq!(
                entry_step(snapshot, Nonce(5), Some(&sent()), &evidence),
                Ok(EntryStep::Wait),
                "its registration could not be looked at"
            );
        }
    }

    #[test]
    fn used_nonce_freezes_only_on_a_complete_index() {
        let (ledger, account) = (ledger(), account(6, 6));
        let step = |index: &OwnerIndex, evidence: &Evidence| {
            entry_step(
                LedgerSnapshot {
                    ledger: &ledger,
                    index,
                    account: &account,
                },
                Nonce(5),
                Some(&sent()),
                evidence,
            )
        };
        let nothing = evidence(&[]);
        assert_eq!(
            step(&index(59, &[]), &nothing),
            Ok(EntryStep::Wait),
            "the index does not contain the finalized block"
        );
        assert_eq!(
            step(&OwnerIndex::new(SIGNER, 0, U256::ZERO), &nothing),
            Ok(EntryStep::Wait)
        );
        let foreign = Err(Freeze::KeyUsedElsewhere {
            nonce: Nonce(5),
            key: key('a'),
        });
        assert_eq!(step(&index(60, &[]), &nothing), foreign);
        assert_eq!(
            step(&index(60, &[]), &included(7, true)),
            foreign,
            "a success without an event is no registration"
        );
        assert_eq!(
            step(&index(59, &[]), &included(7, false)),
            Ok(EntryStep::Wait)
        );
    }

    #[test]
    fn entry_without_record_or_of_unknown_operation_freezes() {
        let (mut ledger, index, account) = (ledger(), index(60, &[]), account(5, 5));
        ledger.entries.insert(
            Nonce(8),
            Entry {
                key: Some(key('c')),
                operation: Operation::Update,
            },
        );
        ledger.entries.insert(
            Nonce(9),
            Entry {
                key: None,
                operation: Operation::Filler,
            },
        );
        let snapshot = LedgerSnapshot {
            ledger: &ledger,
            index: &index,
            account: &account,
        };
        let missing = Err(Freeze::RecordMissing {
            key: key('a'),
            nonce: Nonce(5),
        });
        assert_eq!(
            entry_step(snapshot, Nonce(5), None, &evidence(&[])),
            missing
        );
        for nonce in [Nonce(8), Nonce(9), Nonce(10)] {
            let unknown = Err(Freeze::UnknownOperation { nonce });
            assert_eq!(
                entry_step(snapshot, nonce, Some(&record('c')), &evidence(&[])),
                unknown
            );
        }
    }
}

mod record_without_entry {
    use super::*;

    fn step(
        record: &AgentRegistrationSpec,
        index: &OwnerIndex,
        registrations: &[FinalRegistration],
    ) -> PendingStep {
        let indexes = alone(index.clone());
        pending_step(Some(&ledger()), record, Some(&indexes), registrations, None)
    }

    #[test]
    fn record_gets_a_nonce_once_its_key_is_proven_absent() {
        assert_eq!(
            step(&record('c'), &index(50, &[]), &[]),
            PendingStep::Allocate
        );
        assert_eq!(
            step(&record('c'), &index(49, &[]), &[]),
            PendingStep::AwaitIndex
        );
        assert_eq!(
            step(&record('c'), &OwnerIndex::new(SIGNER, 0, U256::ZERO), &[]),
            PendingStep::AwaitIndex
        );
        assert_eq!(
            step(&record('c'), &index(50, &['c']), &[]),
            PendingStep::AwaitIndex,
            "a registered key is never minted again"
        );
        let mut others = OwnerIndex::new(STRANGER, 0, U256::ZERO);
        others
            .extend(LogPage {
                from: 0,
                to: 60,
                ..LogPage::default()
            })
            .unwrap();
        assert!(others.verify_balance(U256::ZERO));
        assert_eq!(step(&record('c'), &others, &[]), PendingStep::AwaitIndex);
    }

    #[test]
    fn registered_key_is_adopted_at_any_nonce() {
        let PendingStep::Adopt(adopted) = step(
            &record('c'),
            &index(60, &['c']),
            &[final_registration('c', 2)],
        ) else {
            panic!()
        };
        assert_eq!(adopted.result, Some(result(7)));
        assert_eq!(
            (adopted.phase, adopted.spent_wei),
            (Phase::Registered, Some(Wei(250)))
        );
        let unconfirmed = FinalRegistration {
            confirmed: false,
            ..final_registration('c', 2)
        };
        assert_eq!(
            step(&record('c'), &index(60, &['c']), &[unconfirmed]),
            PendingStep::AwaitIndex
        );
    }

    #[test]
    fn key_that_another_account_registered_is_adopted_for_that_account() {
        let by_stranger = FinalRegistration {
            registrant: STRANGER,
            ..final_registration('c', 2)
        };
        let adopted = |record: &AgentRegistrationSpec| {
            let registrations = std::slice::from_ref(&by_stranger);
            let PendingStep::Adopt(adopted) = step(record, &index(60, &[]), registrations) else {
                panic!()
            };
            (adopted.signer, adopted.result.is_some())
        };
        assert_eq!(adopted(&record('c')), (Some(STRANGER), true));
        let attempted = AgentRegistrationSpec {
            attempts: vec![attempt(4, 6)],
            ..record('c')
        };
        assert_eq!(
            adopted(&attempted),
            (Some(SIGNER), true),
            "its attempt is the signer's"
        );
    }

    #[test]
    fn key_is_not_absent_while_logs_of_another_registrant_are_unproven() {
        let other = |index: Option<OwnerIndex>| OtherIndex {
            account: STRANGER,
            required: 70,
            index: index.map(Arc::new),
        };
        let step_with = |other| {
            let own = Arc::new(index(60, &[]));
            let indexes = RegistrantIndexes::new(own, Some(vec![other]), Some(orphans(&[])));
            pending_step(Some(&ledger()), &record('c'), Some(&indexes), &[], None)
        };
        let proven = |keys| other(Some(index_of(STRANGER, 70, keys)));
        assert_eq!(step_with(proven(&[])), PendingStep::Allocate);
        assert_eq!(step_with(proven(&['c'])), PendingStep::AwaitIndex);
        assert_eq!(step_with(other(None)), PendingStep::AwaitIndex);
    }

    #[test]
    fn open_record_without_an_entry_asks_for_a_nonce_unless_it_adopts() {
        let asks = |record: AgentRegistrationSpec| asks_for_nonce(&ledger(), &record);
        assert!(asks(record('c')) && !asks(record('a')), "a has an entry");
        let adopt = Some("0".into());
        assert!(!asks(AgentRegistrationSpec {
            adopt,
            ..record('c')
        }));
        let result = Some(result(3));
        assert!(!asks(AgentRegistrationSpec {
            result,
            ..record('c')
        }));
    }

    #[test]
    fn orphan_holds_back_the_record_of_its_key_only() {
        let with =
            |orphans| RegistrantIndexes::new(Arc::new(index(60, &[])), Some(vec![]), orphans);
        let step_of = |record: &AgentRegistrationSpec, indexes: &RegistrantIndexes| {
            pending_step(Some(&ledger()), record, Some(indexes), &[], None)
        };
        let found = with(Some(orphans(&['c'])));
        let PendingStep::HoldBack(orphan) = step_of(&record('c'), &found) else {
            panic!("it must be held back");
        };
        assert_eq!(orphan.owner, STRANGER);
        assert_eq!(step_of(&record('d'), &found), PendingStep::Allocate);
        assert_eq!(step_of(&record('d'), &with(None)), PendingStep::AwaitIndex);

        let adopting = AgentRegistrationSpec {
            adopt: Some("0".into()),
            ..record('c')
        };
        assert_eq!(step_of(&adopting, &found), PendingStep::Wait);
        let retired = AgentRegistrationSpec {
            tombstone: Some(true),
            ..record('c')
        };
        assert_eq!(step_of(&retired, &found), PendingStep::Wait);
    }

    #[test]
    fn registered_key_is_adopted_without_its_transaction() {
        let unknown = FinalRegistration {
            sender: None,
            nonce: None,
            cost: None,
            ..final_registration('c', 2)
        };
        let PendingStep::Adopt(adopted) = step(
            &record('c'),
            &index(60, &['c']),
            std::slice::from_ref(&unknown),
        ) else {
            panic!()
        };
        assert_eq!(adopted.result, Some(result(7)));
        assert_eq!(adopted.spent_wei, Some(Wei(0)), "its cost is unknown");
    }

    #[test]
    fn record_with_an_attempt_and_no_entry_gets_no_nonce() {
        let restored = AgentRegistrationSpec {
            attempts: vec![attempt(4, 6)],
            ..record('c')
        };
        let freeze = Freeze::EntryMissing {
            key: key('c'),
            nonce: Nonce(4),
        };
        assert_eq!(
            step(&restored, &index(60, &[]), &[]),
            PendingStep::Refuse(freeze)
        );
        let found = step(&restored, &index(60, &['c']), &[final_registration('c', 4)]);
        assert!(matches!(found, PendingStep::Adopt(_)));
    }

    #[test]
    fn displaced_record_gets_another_nonce_once_it_is_proven_absent() {
        let displaced = displaced_at('c', 4);
        let step_on = |index: OwnerIndex| step(&displaced, &index, &[]);
        assert_eq!(step_on(index(60, &[])), PendingStep::Allocate);
        assert_eq!(step_on(index(9, &[])), PendingStep::AwaitIndex);
        let mut again = displaced.clone();
        again.attempts.push(attempt(5, 7));
        let missing = Freeze::EntryMissing {
            key: key('c'),
            nonce: Nonce(5),
        };
        let refused = PendingStep::Refuse(missing);
        assert_eq!(step(&again, &index(60, &[]), &[]), refused);
    }

    #[test]
    fn uri_that_the_schema_rejects_is_kept_as_a_hash() {
        let adopted = |agent_uri: &str| {
            let mut found = final_registration('c', 2);
            found.event.agent_uri = agent_uri.into();
            let PendingStep::Adopt(record) = step(&record('c'), &index(60, &['c']), &[found])
            else {
                panic!()
            };
            (record.agent_uri, record.agent_uri_hash)
        };
        let fits = "é".repeat(2048);
        assert_eq!(adopted(&fits), (Some(fits), None));
        for uri in ["x".repeat(2049), "data:\n".into(), "nul\0".into()] {
            assert_eq!(adopted(&uri), (None, Some(keccak256(&uri))));
        }
    }

    #[test]
    fn finished_tombstoned_or_entered_record_waits() {
        let done = AgentRegistrationSpec {
            result: Some(result(7)),
            ..record('c')
        };
        let dead = AgentRegistrationSpec {
            tombstone: Some(true),
            ..record('c')
        };
        let reverted = AgentRegistrationSpec {
            phase: Phase::Reverted,
            ..record('c')
        };
        for record in [done, dead, reverted, record('a')] {
            assert_eq!(step(&record, &index(60, &[]), &[]), PendingStep::Wait);
        }
        let alive = AgentRegistrationSpec {
            tombstone: Some(false),
            ..record('c')
        };
        assert_eq!(step(&alive, &index(60, &[]), &[]), PendingStep::Allocate);
    }

    #[test]
    fn watch_only_registry_allocates_no_nonce() {
        assert_eq!(
            pending_step(None, &record('c'), None, &[], None),
            PendingStep::Wait
        );
        assert_eq!(
            pending_step(Some(&ledger()), &record('c'), None, &[], None),
            PendingStep::Wait
        );
        assert_eq!(
            pending_step(None, &record('c'), Some(&NOBODY_ELSE), &[], None),
            PendingStep::Wait
        );
    }

    #[test]
    fn record_with_an_agent_id_adopts_and_never_mints() {
        let named = AgentRegistrationSpec {
            adopt: Some("12".into()),
            ..record('c')
        };
        let target = AdoptionTarget {
            exists_at: Some((60, hash(60))),
            owner: None,
            agent_uri: "ipfs://x".into(),
            taken_by: None,
        };
        let step = |target: Option<&AdoptionTarget>| {
            pending_step(Some(&ledger()), &named, Some(&NOBODY_ELSE), &[], target)
        };
        assert_eq!(step(None), PendingStep::Wait);
        let unknown = AdoptionTarget {
            exists_at: None,
            ..target.clone()
        };
        assert_eq!(
            step(Some(&unknown)),
            PendingStep::RefuseAdoption(AdoptionRefused::AgentNotFound { id: "12".into() })
        );
        let taken = AdoptionTarget {
            taken_by: Some(key('d')),
            ..target.clone()
        };
        assert_eq!(
            step(Some(&taken)),
            PendingStep::RefuseAdoption(AdoptionRefused::AgentTaken { by: key('d') })
        );

        let PendingStep::Adopt(adopted) = step(Some(&target)) else {
            panic!()
        };
        let result = RegistrationResult {
            agent_id: "12".into(),
            transaction: None,
            block: 60,
            block_hash: hash(60),
        };
        assert_eq!(adopted.result, Some(result));
        assert_eq!(
            (adopted.phase, adopted.agent_uri.as_deref()),
            (Phase::Registered, Some("ipfs://x"))
        );
        assert_eq!(adopted.spent_wei, None);
        let long = AdoptionTarget {
            agent_uri: "x".repeat(3_000),
            ..target.clone()
        };
        let PendingStep::Adopt(hashed) = step(Some(&long)) else {
            panic!()
        };
        assert_eq!(
            (hashed.agent_uri, hashed.agent_uri_hash),
            (None, Some(keccak256(&long.agent_uri)))
        );

        let gone = AgentRegistrationSpec {
            tombstone: Some(true),
            ..named.clone()
        };
        let adopted = pending_step(None, &gone, None, &[], Some(&target));
        assert!(matches!(adopted, PendingStep::Adopt(record) if record.phase == Phase::Tombstoned));
    }
}

mod allocation {
    use super::*;

    fn bounds(window: usize) -> AllocationBounds<'static> {
        AllocationBounds {
            window,
            spending: &LIMITS,
            budget: Budget {
                balance: 10_000,
                ..Budget::default()
            },
            premises: &KNOWN,
            registering_elsewhere: &NO_KEYS,
            indexes: &NOBODY_ELSE,
        }
    }

    fn allocate_to(
        ledger: &SignerLedgerSpec,
        account: AccountState,
        records: &[AgentRegistrationSpec],
        bounds: AllocationBounds<'_>,
    ) -> Allocation {
        let index = index(60, &[]);
        let requests: Vec<AllocationRequest<'_>> = records
            .iter()
            .map(|record| AllocationRequest {
                record,
                namespace: payer(record),
                cost: 100,
            })
            .collect();
        allocate(
            LedgerSnapshot {
                ledger,
                index: &index,
                account: &account,
            },
            &requests,
            bounds,
        )
    }

    #[test]
    fn allocation_gives_each_request_the_next_nonce() {
        let before = ledger();
        let allocation = allocate_to(
            &before,
            account(5, 5),
            &[record('c'), record('d')],
            bounds(16),
        );
        assert_eq!(
            allocation.allocated,
            [(Nonce(7), key('c')), (Nonce(8), key('d'))]
        );
        assert!(allocation.shortages.is_empty());
        let after = allocation.ledger.unwrap();
        assert_eq!((after.next, after.entries.len()), (Nonce(9), 4));
        assert_eq!(after.entries[&Nonce(8)], register('d'));
        assert_eq!(after.registering[&key('c')], Nonce(7));
        assert_ne!(after.history_hash, before.history_hash);
        assert_eq!(
            (after.finalized_nonce, after.finalized_block),
            (Nonce(5), 50)
        );
    }

    #[test]
    fn allocation_gives_a_key_one_nonce() {
        let twice = allocate_to(
            &ledger(),
            account(5, 5),
            &[record('c'), record('c'), record('a')],
            bounds(16),
        );
        assert_eq!(twice.allocated, [(Nonce(7), key('c'))]);
    }

    #[test]
    fn allocation_respects_the_window_of_unmined_nonces() {
        let all = [record('c'), record('d'), record('e')];
        for (window, latest, expected) in [
            (2, 5, 0),
            (3, 5, 1),
            (4, 5, 2),
            (2, 6, 1),
            (2, 7, 2),
            (0, 7, 0),
        ] {
            let allocation = allocate_to(&ledger(), account(5, latest), &all, bounds(window));
            assert_eq!(
                allocation.allocated.len(),
                expected,
                "window {window}, {latest} mined"
            );
            assert_eq!(allocation.ledger.is_some(), expected > 0);
        }
    }

    #[test]
    fn allocation_stays_within_the_recovery_bound() {
        let room = |next: u64| {
            let ledger = SignerLedgerSpec {
                next: Nonce(next),
                ..ledger()
            };
            allocate_to(
                &ledger,
                account(5, 5),
                &[record('c'), record('d')],
                bounds(1_000),
            )
            .allocated
            .len()
        };
        assert_eq!((room(5 + 254), room(5 + 255), room(5 + 256)), (2, 1, 0));
    }

    #[test]
    fn allocation_counts_finality_from_the_ledger_only() {
        let ledger = SignerLedgerSpec {
            next: Nonce(261),
            ..ledger()
        };
        assert!(
            allocate_to(&ledger, account(200, 200), &[record('c')], bounds(1_000))
                .allocated
                .is_empty()
        );
    }

    #[test]
    fn allocation_skips_records_of_other_ledgers_or_results() {
        let rotated = AgentRegistrationSpec {
            signer: Some(STRANGER),
            ..record('c')
        };
        let watched = AgentRegistrationSpec {
            signer: None,
            ..record('d')
        };
        let done = AgentRegistrationSpec {
            result: Some(result(7)),
            ..record('e')
        };
        let allocation = allocate_to(
            &ledger(),
            account(5, 5),
            &[rotated, watched, done, record('f')],
            bounds(16),
        );
        assert_eq!(allocation.allocated, [(Nonce(7), key('f'))]);
    }

    #[test]
    fn unknown_premise_stops_every_allocation() {
        for premise in [
            UnknownPremise::IndexNotProven,
            UnknownPremise::EntriesUnchecked { count: 1 },
            UnknownPremise::LedgerUnreadable { name: "x".into() },
        ] {
            let premises = Premises {
                unknown: vec![premise],
            };
            let bounds = AllocationBounds {
                premises: &premises,
                ..bounds(16)
            };
            assert_eq!(
                allocate_to(&ledger(), account(5, 5), &[record('c')], bounds),
                Allocation::default()
            );
        }
    }

    #[test]
    fn key_in_flight_in_another_ledger_gets_no_nonce() {
        let elsewhere = BTreeSet::from([key('c')]);
        let bounds = AllocationBounds {
            registering_elsewhere: &elsewhere,
            ..bounds(16)
        };
        let allocation = allocate_to(
            &ledger(),
            account(5, 5),
            &[record('c'), record('d')],
            bounds,
        );
        assert_eq!(allocation.allocated, [(Nonce(7), key('d'))]);
    }

    #[test]
    fn allocation_requires_an_active_ledger() {
        for ledger in [
            SignerLedgerSpec {
                state: LedgerState::Quarantine,
                ..ledger()
            },
            SignerLedgerSpec {
                draining: true,
                ..ledger()
            },
        ] {
            assert_eq!(
                allocate_to(&ledger, account(5, 5), &[record('c')], bounds(16)),
                Allocation::default()
            );
        }
    }

    #[test]
    fn allocation_reports_a_shortage_and_continues() {
        let limits = Limits {
            per_namespace_per_day: Some(100),
            ..LIMITS
        };
        let budget = Budget {
            balance: 250,
            ..Budget::default()
        };
        let elsewhere = AgentRegistrationSpec {
            identity: "other/e".into(),
            ..record('e')
        };
        let shared = AgentRegistrationSpec {
            identity: String::new(),
            ..record('f')
        };
        let all = [record('c'), record('d'), elsewhere, shared];
        let allocation = allocate_to(
            &ledger(),
            account(5, 5),
            &all,
            AllocationBounds {
                spending: &limits,
                budget,
                ..bounds(16)
            },
        );
        assert_eq!(
            allocation.allocated,
            [(Nonce(7), key('c')), (Nonce(8), key('e'))]
        );
        let short = [
            (
                key('d'),
                Shortage::NamespaceLimitReached {
                    used: 100,
                    limit: 100,
                    needed: 100,
                },
            ),
            (
                key('f'),
                Shortage::InsufficientFunds {
                    balance: 50,
                    needed: 100,
                },
            ),
        ];
        assert_eq!(allocation.shortages, short);
    }
}

mod writes {
    use super::*;

    #[test]
    fn prune_removes_entries_and_records_finality() {
        let before = ledger();
        let after = without_entries(
            &before,
            &BTreeSet::from([Nonce(5)]),
            &[40, 58, 57],
            &account(6, 6),
        );
        assert_eq!(
            after.entries.keys().copied().collect::<Vec<_>>(),
            [Nonce(6)]
        );
        assert_eq!(after.registering, BTreeMap::from([(key('b'), Nonce(6))]));
        assert_eq!(
            (after.finalized_nonce, after.finalized_block, after.next),
            (Nonce(6), 58, Nonce(7))
        );
        assert_ne!(after.history_hash, before.history_hash);
    }

    #[test]
    fn prune_never_lowers_finality_nor_exceeds_next() {
        let none = BTreeSet::new();
        let after = without_entries(&ledger(), &none, &[10], &account(3, 3));
        assert_eq!(
            (after.finalized_nonce, after.finalized_block),
            (Nonce(5), 50)
        );
        assert_eq!(
            without_entries(&ledger(), &none, &[], &account(99, 99)).finalized_nonce,
            Nonce(7)
        );
    }

    #[test]
    fn every_write_changes_the_history_hash() {
        let (once, again) = (
            advance_history(ledger()),
            advance_history(advance_history(ledger())),
        );
        assert_ne!(once.history_hash, again.history_hash);
        assert_eq!(
            SignerLedgerSpec {
                history_hash: B256::ZERO,
                ..once.clone()
            },
            SignerLedgerSpec {
                history_hash: B256::ZERO,
                ..again
            }
        );
        assert_eq!(
            once,
            advance_history(ledger()),
            "the hash depends only on the written content"
        );
    }

    #[test]
    fn attempt_is_stored_with_its_calldata_and_proof() {
        let after = with_attempt(&record('a'), attempt(5, 7), hash(3), "https://x", Some(60));
        let expected = AgentRegistrationSpec {
            phase: Phase::Sent,
            attempts: vec![attempt(5, 7)],
            agent_uri: Some("https://x".into()),
            calldata_hash: Some(hash(3)),
            proven_absent: Some(ProvenAbsent { block: 60 }),
            ..record('a')
        };
        assert_eq!(after, expected);
        let again = with_attempt(&after, attempt(5, 8), hash(3), "https://x", None);
        assert_eq!(again.proven_absent, Some(ProvenAbsent { block: 60 }));
    }

    #[test]
    fn last_eight_attempts_keep_their_bytes() {
        let mut after = record('a');
        for number in 0..10 {
            after = with_attempt(&after, attempt(5, number), hash(3), "https://x", None);
        }
        let kept: Vec<bool> = after
            .attempts
            .iter()
            .map(|attempt| attempt.raw.is_some())
            .collect();
        assert_eq!(
            kept,
            [false, false, true, true, true, true, true, true, true, true]
        );
    }

    #[test]
    fn reservation_is_the_worst_case_cost_of_an_entry() {
        let a = AgentRegistrationSpec {
            attempts: vec![
                attempt(5, 7),
                Attempt {
                    gas: 40,
                    ..attempt(5, 8)
                },
                Attempt {
                    gas: 900,
                    ..attempt(4, 9)
                },
            ],
            ..record('a')
        };
        let of = |wanted: Key| (wanted == key('a')).then(|| a.clone());
        let expected = |signed| {
            [
                Reservation {
                    nonce: Nonce(5),
                    amount: signed,
                    namespace: Some("shop".into()),
                },
                Reservation {
                    nonce: Nonce(6),
                    amount: 1_000,
                    namespace: None,
                },
            ]
        };
        let costs = |rollup_fee, unsigned| EntryCosts {
            rollup_fee,
            unsigned,
        };
        let of_ledger = |costs| reservations(&ledger(), of, costs);
        assert_eq!(of_ledger(costs(0, Some(1_000))), expected(400));
        assert_eq!(of_ledger(costs(0, None)), expected(400)[..1]);
        assert_eq!(of_ledger(costs(30, Some(1_000))), expected(430));
    }

    #[test]
    fn namespace_of_the_identity_or_of_the_first_offer_pays() {
        let of = |identity: &str, namespaces: &[&str]| {
            let offers = namespaces.iter().map(|namespace| OfferRef {
                namespace: (*namespace).to_owned(),
                name: "a".to_owned(),
                uid: String::new(),
            });
            AgentRegistrationSpec {
                identity: identity.to_owned(),
                offers: offers.collect(),
                ..record('a')
            }
        };
        for (record, namespace) in [
            (of("shop/a", &["other"]), Some("shop")),
            (of("shop", &[]), Some("shop")),
            (of("", &["first", "second"]), Some("first")),
            (of("", &[]), None),
        ] {
            assert_eq!(payer(&record), namespace);
        }
    }

    #[test]
    fn retired_agent_is_a_tombstone_and_revives_unchanged() {
        let done = AgentRegistrationSpec {
            result: Some(result(7)),
            phase: Phase::Registered,
            ..record('c')
        };
        for (alive, phase) in [(done, Phase::Registered), (record('c'), Phase::Pending)] {
            let dead = retired(Some(&ledger()), &alive).unwrap();
            assert_eq!(
                (dead.phase, dead.tombstone),
                (Phase::Tombstoned, Some(true))
            );
            assert_eq!(retired(Some(&ledger()), &dead), None);
            assert_eq!(
                revived(&dead),
                AgentRegistrationSpec {
                    phase,
                    ..alive.clone()
                }
            );
            assert!(retired(None, &alive).is_some());
        }
        assert_eq!(
            retired(Some(&ledger()), &record('a')),
            None,
            "a registration in flight finishes first"
        );
        let moving = AgentRegistrationSpec {
            moved_from: Some(STRANGER),
            ..record('c')
        };
        assert_eq!(
            retired(Some(&ledger()), &moving),
            None,
            "and so does a move"
        );
    }

    #[test]
    fn revived_agent_keeps_a_reverted_registration() {
        let reverted = AgentRegistrationSpec {
            phase: Phase::Reverted,
            ..record('c')
        };
        let dead = retired(Some(&ledger()), &reverted).unwrap();
        assert_eq!((dead.phase, dead.tombstone), (Phase::Reverted, Some(true)));
        assert_eq!(revived(&dead), reverted);
    }

    #[test]
    fn attempt_belongs_to_the_ledger_of_its_chain_and_signer() {
        let here = identity();
        assert!(here.has_attempt(&sent()));
        assert!(!here.has_attempt(&record('a')), "no attempt was signed");
        let elsewhere = AgentRegistrationSpec {
            chain_id: 1,
            ..sent()
        };
        assert!(
            !here.has_attempt(&elsewhere),
            "one wallet may serve several chains"
        );
        assert!(!here.has_attempt(&AgentRegistrationSpec {
            signer: Some(STRANGER),
            ..sent()
        }));
    }

    #[test]
    fn agent_ids_are_compared_as_numbers() {
        assert!(same_agent("0", U256::ZERO) && same_agent("12", U256::from(12)));
        assert!(!same_agent("12", U256::from(13)) && !same_agent("0x0c", U256::from(12)));
    }
}
