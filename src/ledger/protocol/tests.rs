//! Every row of the protocol's state machine, and every way in which evidence can fall short.

use super::*;
use crate::chain::LogPage;
use crate::ledger::fixtures::*;

const LIMITS: Limits = Limits {
    max_fee_per_gas: None,
    per_registration: 1_000,
    per_day: 10_000,
    per_namespace_per_day: None,
};

/// What the entry of 'a' at nonce 5 needs.
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

mod the_ledger_as_a_whole {
    use super::*;

    fn step(
        ledger: Option<&SignerLedgerSpec>,
        history: &LedgerHistory,
        account: AccountState,
    ) -> Result<LedgerStep, Freeze> {
        ledger_step(
            &identity(),
            ledger.map(|ledger| (ledger, "uid-1")),
            history,
            &account,
        )
    }

    fn marked() -> LedgerHistory {
        LedgerHistory {
            marker: Some("uid-1".into()),
            ..LedgerHistory::default()
        }
    }

    #[test]
    fn without_any_trace_of_another_it_is_created_in_quarantine() {
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
    fn a_missing_one_that_left_a_trace_is_lost() {
        let traces = [
            (marked(), Some("uid-1".to_owned())),
            (
                LedgerHistory {
                    has_attempts: true,
                    ..LedgerHistory::default()
                },
                None,
            ),
            (
                LedgerHistory {
                    highest_next: Nonce(1),
                    ..LedgerHistory::default()
                },
                None,
            ),
        ];
        for (history, uid) in traces {
            assert_eq!(
                step(None, &history, account(0, 0)),
                Err(Freeze::LedgerLost { uid })
            );
        }
    }

    #[test]
    fn a_new_one_gets_its_marker_before_anything_else() {
        let new = new_ledger(&identity());
        assert_eq!(
            step(Some(&new), &LedgerHistory::default(), account(0, 0)),
            Ok(LedgerStep::WriteMarker)
        );
        assert_eq!(
            step(Some(&ledger()), &LedgerHistory::default(), account(5, 5)),
            Ok(LedgerStep::WriteMarker),
            "a restored registry has none"
        );
    }

    #[test]
    fn a_marker_that_names_another_one_means_that_that_one_is_lost() {
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
    fn of_a_fresh_wallet_it_becomes_active_at_nonce_zero() {
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
    fn of_a_used_wallet_it_becomes_active_only_where_a_person_says_so() {
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
    fn a_wallet_with_something_under_way_settles_first() {
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
        let mut reorganised = account(17, 16);
        reorganised.counts.pending = Nonce(17);
        assert_eq!(
            step(Some(&new), &history, reorganised),
            Ok(LedgerStep::Wait)
        );
    }

    #[test]
    fn a_new_one_whose_signer_has_attempts_replaces_a_lost_one() {
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
            "an active one made them itself"
        );
    }

    #[test]
    fn in_quarantine_for_any_other_reason_it_is_left_to_people() {
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
            assert_eq!(
                step(Some(&ledger), &marked(), account(5, 5)),
                Err(Freeze::Quarantined { reason })
            );
        }
    }

    #[test]
    fn of_another_cluster_or_chain_it_is_not_used() {
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
    fn behind_what_this_process_has_seen_it_was_rolled_back() {
        let history = LedgerHistory {
            highest_next: Nonce(8),
            ..marked()
        };
        let rolled_back = Freeze::LedgerRolledBack {
            next: Nonce(7),
            seen: Nonce(8),
        };
        assert_eq!(
            step(Some(&ledger()), &history, account(5, 5)),
            Err(rolled_back)
        );
        let history = LedgerHistory {
            highest_next: Nonce(7),
            ..marked()
        };
        assert_eq!(
            step(Some(&ledger()), &history, account(5, 5)),
            Ok(LedgerStep::Ready)
        );
    }

    #[test]
    fn behind_what_the_account_has_sent_it_is_not_used_at_whatever_depth_that_shows() {
        let ahead = Err(Freeze::NonceAhead {
            count: Nonce(8),
            next: Nonce(7),
        });
        for (finalized, latest, pending) in [(8, 8, 8), (5, 8, 8), (5, 5, 8), (8, 5, 5), (5, 8, 5)]
        {
            let counts = TransactionCounts {
                finalized: Nonce(finalized),
                latest: Nonce(latest),
                pending: Nonce(pending),
            };
            assert_eq!(
                step(
                    Some(&ledger()),
                    &marked(),
                    AccountState {
                        counts,
                        ..account(0, 0)
                    }
                ),
                ahead
            );
        }
        assert_eq!(
            step(Some(&ledger()), &marked(), account(7, 7)),
            Ok(LedgerStep::Ready)
        );
    }
}

mod an_entry {
    use super::*;

    #[test]
    fn without_a_signed_transaction_is_signed() {
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
            "what was signed for another nonce is dead"
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
    fn is_sent_again_and_again_until_it_is_in_a_block() {
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
    fn signed_below_the_market_freezes_until_the_market_falls() {
        let risen = AccountState {
            base_fee: 11,
            ..account(5, 5)
        };
        let below = Freeze::FeeBelowMarket {
            key: key('a'),
            max_fee: 10,
            base_fee: 11,
        };
        assert_eq!(step_of(&sent(), risen, &evidence(&[])), Err(below));
        assert!(
            step_of(&sent(), account(5, 5), &evidence(&[])).is_ok(),
            "the same fee is enough"
        );
    }

    #[test]
    fn in_a_block_is_noted_once_and_noted_back_if_the_block_goes() {
        let Ok(EntryStep::RecordPhase(noted)) = step_of(&sent(), account(5, 6), &included(7, true))
        else {
            panic!()
        };
        assert_eq!(
            noted,
            AgentRegistrationSpec {
                phase: Phase::Included,
                ..sent()
            }
        );
        assert_eq!(
            step_of(&noted, account(5, 6), &included(7, true)),
            Ok(EntryStep::Wait)
        );

        assert_eq!(
            step_of(&noted, account(5, 5), &evidence(&[])),
            Ok(EntryStep::RecordPhase(sent()))
        );
    }

    #[test]
    fn in_a_block_by_whatever_is_not_ours_or_failed_waits_for_finality() {
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
    fn that_is_final_gets_its_result_first() {
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
    fn keeps_the_uri_that_was_signed_and_adds_to_what_was_spent() {
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
    fn of_an_agent_whose_offers_went_meanwhile_is_finished_as_a_tombstone() {
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
    fn whose_record_has_a_result_is_pruned_once_its_nonce_is_final() {
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
        let by_an_older = AgentRegistrationSpec {
            result: Some(result(7)),
            attempts: vec![attempt(4, 7)],
            ..sent()
        };
        assert_eq!(
            step_of(&by_an_older, account(5, 5), &evidence(&[])),
            misplaced
        );
        assert_eq!(
            step_of(&adopted, account(6, 6), &evidence(&[])),
            Ok(EntryStep::Prune),
            "a final nonce can do nothing more"
        );
    }

    #[test]
    fn is_finished_by_nothing_less_than_a_standing_registration_by_this_account_at_this_nonce() {
        let misplaced = Err(Freeze::RegistrationMisplaced {
            key: key('a'),
            nonce: Nonce(5),
        });
        for other in [
            FinalRegistration {
                nonce: Nonce(4),
                ..final_registration('a', 5)
            },
            FinalRegistration {
                sender: STRANGER,
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
    fn whose_nonce_went_to_something_else_freezes_only_on_positive_knowledge() {
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
            "the final block has not been looked at"
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
            "a success without a log is no registration"
        );
        let reverted = Err(Freeze::RegistrationReverted {
            key: key('a'),
            transaction: hash(7),
        });
        assert_eq!(step(&index(60, &[]), &included(7, false)), reverted);
    }

    #[test]
    fn without_a_record_or_of_an_unknown_kind_freezes() {
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

mod a_record_without_an_entry {
    use super::*;

    fn step(
        record: &AgentRegistrationSpec,
        index: &OwnerIndex,
        registrations: &[FinalRegistration],
    ) -> PendingStep {
        pending_step(Some(&ledger()), record, Some(index), registrations, None)
    }

    #[test]
    fn may_get_a_nonce_once_its_absence_is_proven_as_far_as_the_ledger_reaches() {
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
            "what is on chain is never minted again"
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
    fn that_stands_on_chain_is_adopted_whatever_its_nonce() {
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
        let fallen = FinalRegistration {
            confirmed: false,
            ..final_registration('c', 2)
        };
        assert_eq!(
            step(&record('c'), &index(60, &['c']), &[fallen]),
            PendingStep::AwaitIndex
        );
    }

    #[test]
    fn that_is_done_dead_or_under_way_is_left_alone() {
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
    fn of_a_registry_that_only_watches_gets_no_nonce() {
        assert_eq!(
            pending_step(None, &record('c'), None, &[], None),
            PendingStep::Wait
        );
        assert_eq!(
            pending_step(Some(&ledger()), &record('c'), None, &[], None),
            PendingStep::Wait
        );
        assert_eq!(
            pending_step(None, &record('c'), Some(&index(60, &[])), &[], None),
            PendingStep::Wait
        );
    }

    #[test]
    fn that_names_an_agent_adopts_it_or_waits_and_is_never_minted_for() {
        let named = AgentRegistrationSpec {
            adopt: Some("12".into()),
            ..record('c')
        };
        let target = AdoptionTarget {
            exists_at: Some((60, hash(60))),
            agent_uri: "ipfs://x".into(),
            taken_by: None,
        };
        let step = |target: Option<&AdoptionTarget>| {
            pending_step(Some(&ledger()), &named, Some(&index(60, &[])), &[], target)
        };
        assert_eq!(step(None), PendingStep::Wait);
        let unknown = AdoptionTarget {
            exists_at: None,
            ..target.clone()
        };
        assert_eq!(
            step(Some(&unknown)),
            PendingStep::RefuseAdoption(AdoptionRefused::AgentNotFound)
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

        let gone = AgentRegistrationSpec {
            tombstone: Some(true),
            ..named.clone()
        };
        let adopted = pending_step(None, &gone, None, &[], Some(&target));
        assert!(matches!(adopted, PendingStep::Adopt(record) if record.phase == Phase::Tombstoned));
    }
}

mod an_allocation {
    use super::*;

    fn bounds(window: usize) -> AllocationBounds<'static> {
        AllocationBounds {
            window,
            spending: &LIMITS,
            budget: Budget {
                balance: 10_000,
                ..Budget::default()
            },
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
                namespace: payer(&record.identity),
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
    fn gives_each_candidate_the_next_nonce_in_one_write() {
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
    fn gives_a_key_one_nonce_however_often_it_is_asked_for() {
        let twice = allocate_to(
            &ledger(),
            account(5, 5),
            &[record('c'), record('c'), record('a')],
            bounds(16),
        );
        assert_eq!(twice.allocated, [(Nonce(7), key('c'))]);
    }

    #[test]
    fn leaves_no_more_unmined_than_the_window_holds() {
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
    fn stays_within_the_bound_that_recovery_relies_on() {
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
    fn takes_no_account_of_what_only_the_chain_says_is_final() {
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
    fn passes_over_records_that_are_not_this_ledgers_or_need_none() {
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
    fn is_made_from_an_active_ledger_only() {
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
    fn that_money_does_not_reach_for_says_so_and_goes_on_with_the_next() {
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
                window: 16,
                spending: &limits,
                budget,
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

mod what_is_written {
    use super::*;

    #[test]
    fn pruning_removes_the_entries_and_remembers_that_they_are_final() {
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
    fn nothing_that_is_final_becomes_less_so_and_nothing_that_was_not_given_away_is_final() {
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
    fn every_write_changes_the_history_even_if_it_changes_nothing_else() {
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
            "and depends on nothing but what is written"
        );
    }

    #[test]
    fn an_attempt_is_stored_with_what_it_was_signed_for() {
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
    fn the_bytes_of_the_last_eight_attempts_are_kept() {
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
    fn reservations_are_the_worst_that_each_entry_may_still_cost() {
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
        let expected = [
            Reservation {
                nonce: Nonce(5),
                amount: 400,
                namespace: Some("shop".into()),
            },
            Reservation {
                nonce: Nonce(6),
                amount: 1_000,
                namespace: None,
            },
        ];
        assert_eq!(reservations(&ledger(), of, 1_000), expected);
    }

    #[test]
    fn an_identity_is_paid_for_by_its_namespace() {
        for (identity, namespace) in [("shop/a", Some("shop")), ("shop", Some("shop")), ("", None)]
        {
            assert_eq!(payer(identity), namespace);
        }
    }

    #[test]
    fn a_retired_agent_is_a_tombstone_and_a_revived_one_is_the_same_agent() {
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
            "what is under way is finished first"
        );
    }

    #[test]
    fn a_registration_that_reverted_is_not_tried_again_for_an_offer_that_is_made_anew() {
        let reverted = AgentRegistrationSpec {
            phase: Phase::Reverted,
            ..record('c')
        };
        let dead = retired(Some(&ledger()), &reverted).unwrap();
        assert_eq!((dead.phase, dead.tombstone), (Phase::Reverted, Some(true)));
        assert_eq!(revived(&dead), reverted);
    }

    #[test]
    fn an_attempt_is_a_trace_of_the_ledger_of_its_own_chain_and_signer() {
        let here = identity();
        assert!(here.has_attempt(&sent()));
        assert!(!here.has_attempt(&record('a')), "nothing was signed");
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
    fn agents_are_the_same_by_number() {
        assert!(same_agent("0", U256::ZERO) && same_agent("12", U256::from(12)));
        assert!(!same_agent("12", U256::from(13)) && !same_agent("0x0c", U256::from(12)));
    }
}
