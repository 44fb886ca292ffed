use super::*;

const HOLDER: HolderToken = HolderToken(1);
const PRINT: Fingerprint = Fingerprint(B256::ZERO);

fn claim() -> Claim {
    Claim::new(PRINT, HOLDER, 1000)
}

fn success() -> Event {
    Event::Success {
        transaction: "0xa".into(),
    }
}

fn refuse() -> Event {
    Event::Refuse {
        reason: "funds".into(),
        transaction: None,
    }
}

fn lose_track(transaction: Option<&str>) -> Event {
    let transaction = transaction.map(str::to_owned);
    Event::LoseTrack { transaction }
}

/// The claim after events that its holder reports. Who is free is taken over by the next one.
fn after(events: &[Event]) -> Claim {
    events.iter().fold(claim(), |mut claim, event| {
        claim.holder.get_or_insert(HOLDER);
        match claim.clone().advance(HOLDER, event.clone()) {
            Ok(Moved::To(claim)) => claim,
            other => panic!("{claim:?} {event:?} {other:?}"),
        }
    })
}

#[test]
fn authorization_is_settled_after_the_work() {
    use Event::{Complete, Deliver, Execute, Settle};
    let claim = after(&[Execute, Settle, success(), Deliver, Complete]);
    let transaction = "0xa".to_owned();
    assert_eq!(claim.state, State::Delivered { transaction });
    assert_eq!((claim.holder, claim.executions), (None, 1));
}

#[test]
fn upfront_payment_is_settled_before_the_work() {
    use Event::{Complete, Deliver, Execute, Settle};
    let claim = after(&[Settle, success(), Execute, Deliver, Complete]);
    assert!(matches!(claim.state, State::Delivered { .. }));
}

#[test]
fn nothing_is_delivered_before_it_is_settled() {
    use Event::{Deliver, Execute, Settle};
    for events in [&[][..], &[Execute], &[Execute, Settle], &[Settle, refuse()]] {
        let mut claim = after(events);
        claim.holder = Some(HOLDER);
        assert_eq!(
            claim.advance(HOLDER, Deliver),
            Err(NotAllowed),
            "{events:?}"
        );
    }
}

#[test]
fn claim_is_released_only_if_settle_was_not_sent() {
    use Event::{CutOff, Execute, NotSent, Settle};
    for (events, last) in [
        (&[][..], CutOff),
        (&[Execute], CutOff),
        (&[Settle], NotSent),
        (&[Execute, Settle], NotSent),
    ] {
        let released = after(events).advance(HOLDER, last);
        assert_eq!(released, Ok(Moved::Released), "{events:?}");
    }
    for (events, last) in [
        (&[Settle][..], CutOff),
        (&[Settle, lose_track(None)], NotSent),
        (&[Settle, success()], NotSent),
    ] {
        let mut claim = after(events);
        claim.holder = Some(HOLDER);
        assert_eq!(claim.advance(HOLDER, last), Err(NotAllowed), "{events:?}");
    }
}

#[test]
fn only_its_holder_moves_a_claim() {
    let other = HolderToken(2);
    assert_eq!(claim().advance(other, Event::Execute), Err(NotAllowed));
}

#[test]
fn transaction_that_was_known_stays_known() {
    let events = [Event::Settle, lose_track(Some("0xb")), lose_track(None)];
    assert_eq!(after(&events).transaction().as_deref(), Some("0xb"));
    assert_eq!(after(&[Event::Settle, refuse()]).transaction(), None);
    assert_eq!(claim().transaction(), None);
    let delivering = after(&[Event::Settle, success(), Event::Deliver]);
    assert_eq!(delivering.transaction().as_deref(), Some("0xa"));
    for end in [Event::CutOff, Event::Complete] {
        let ended = after(&[Event::Settle, success(), Event::Deliver, end]);
        assert_eq!(ended.transaction().as_deref(), Some("0xa"));
    }
}

#[test]
fn answer_that_was_cut_off_is_produced_three_times_more() {
    use Event::{CutOff, Deliver, Execute, Settle};
    let mut events = vec![Execute, Settle, success(), Deliver, CutOff];
    for _ in 0..3 {
        let transaction = "0xa".to_owned();
        assert_eq!(
            present(&after(&events), PRINT),
            Presented::Execute { transaction }
        );
        events.extend([Execute, Deliver, CutOff]);
    }
    let transaction = "0xa".to_owned();
    assert_eq!(
        present(&after(&events), PRINT),
        Presented::Used { transaction }
    );
}

#[test]
fn payment_that_is_presented_again_gets_what_became_of_it() {
    use Event::{Complete, CutOff, Deliver, Execute, Settle};
    let transaction = "0xa".to_owned();
    let used = Presented::Used { transaction };
    let refused = Presented::Refused {
        reason: "funds".into(),
        transaction: None,
    };
    for (events, expected) in [
        (&[][..], Presented::InProgress),
        (&[Execute], Presented::InProgress),
        (&[Execute, Settle], Presented::InProgress),
        (&[Settle, success()], Presented::InProgress),
        (
            &[Settle, lose_track(None)],
            Presented::Join { transaction: None },
        ),
        (&[Settle, refuse()], refused),
        (&[Settle, success(), Deliver, Complete], used),
    ] {
        let presented = present(&after(events), PRINT);
        assert_eq!(presented, expected, "{events:?}");
        let is_joined = matches!(expected, Presented::Join { .. });
        assert_eq!(presented.is_held(), is_joined);
    }
    let cut = after(&[Settle, success(), CutOff]);
    assert!(present(&cut, PRINT).is_held());
    let free = Claim {
        holder: None,
        ..claim()
    };
    assert_eq!(present(&free, PRINT), Presented::InProgress);
    let transaction = "0xa".to_owned();
    let abandoned = Claim {
        state: State::Delivering { transaction },
        ..free
    };
    let transaction = "0xa".to_owned();
    assert_eq!(present(&abandoned, PRINT), Presented::Used { transaction });
}

#[test]
fn payment_that_was_presented_for_another_request_buys_nothing() {
    let other = Fingerprint(B256::repeat_byte(1));
    let settled = after(&[Event::Settle, success(), Event::CutOff]);
    let transaction = Some("0xa".to_owned());
    assert_eq!(
        present(&settled, other),
        Presented::OtherRequest { transaction }
    );
}

/// The claim of the first payment for an identified request, after these events.
fn identified(events: &[Event]) -> Claim {
    Claim {
        identified: Some(IDENTIFIED),
        ..after(events)
    }
}

const IDENTIFIED: IdentifiedRequest = IdentifiedRequest {
    key: B256::ZERO,
    request: B256::ZERO,
};

#[test]
fn another_payment_for_an_identified_request_gets_what_the_first_one_bought() {
    let transaction = || "0xa".to_owned();
    let settling = [Event::Execute, Event::Settle];
    let settled = [Event::Execute, Event::Settle, success()];
    let delivered = [&settled[..], &[Event::Deliver, Event::Complete]].concat();
    let cut = [&settled[..], &[Event::CutOff]].concat();
    let lost = [&settling[..], &[lose_track(Some("0xa"))]].concat();
    let refused = |reason: &str| {
        let refuse = Event::Refuse {
            reason: reason.to_owned(),
            transaction: Some(transaction()),
        };
        [&settling[..], &[refuse]].concat()
    };
    for (events, expected) in [
        (settling.to_vec(), Some(Presented::InProgress)),
        (
            cut,
            Some(Presented::Execute {
                transaction: transaction(),
            }),
        ),
        (
            delivered,
            Some(Presented::Used {
                transaction: transaction(),
            }),
        ),
        (
            lost,
            Some(Presented::Open {
                transaction: Some(transaction()),
            }),
        ),
        (
            refused("nonce_already_used"),
            Some(Presented::Open {
                transaction: Some(transaction()),
            }),
        ),
        (refused("insufficient_funds"), None),
    ] {
        let claim = identified(&events);
        assert_eq!(present_another(&claim, IDENTIFIED), expected, "{events:?}");
        assert_eq!(
            present_another(&after(&events), IDENTIFIED),
            None,
            "no identifier"
        );
    }
}

#[test]
fn identifier_buys_only_the_request_that_it_was_given_to() {
    let claim = identified(&[Event::Execute, Event::Settle, success()]);
    let other = IdentifiedRequest {
        request: B256::repeat_byte(1),
        ..IDENTIFIED
    };
    assert_eq!(
        present_another(&claim, other),
        Some(Presented::OtherRequest {
            transaction: Some("0xa".into())
        })
    );
    let elsewhere = IdentifiedRequest {
        key: B256::repeat_byte(1),
        ..IDENTIFIED
    };
    assert_eq!(present_another(&claim, elsewhere), None);
}

#[test]
fn fingerprint_tells_signatures_and_identifiers_apart() {
    let (one, other) = (B256::ZERO, B256::repeat_byte(1));
    let own = Fingerprint::of(one, b"signature", Some("identifier"));
    assert_eq!(own, Fingerprint::of(one, b"signature", Some("identifier")));
    for different in [
        Fingerprint::of(other, b"signature", Some("identifier")),
        Fingerprint::of(one, b"signaturf", Some("identifier")),
        Fingerprint::of(one, b"signature", Some("identifies")),
        Fingerprint::of(one, b"signature", None),
    ] {
        assert_ne!(own, different);
    }
    let payer = Address::ZERO;
    let identified = |offer, payer, identifier, request, token| {
        IdentifiedRequest::new(offer, payer, identifier, request, token)
    };
    let token = (1, Address::ZERO);
    let key = |offer, payer, identifier| identified(offer, payer, identifier, one, token).key;
    let own = key("uid", payer, "identifier");
    assert_ne!(own, key("uie", payer, "identifier"));
    assert_ne!(own, key("uid", Address::repeat_byte(1), "identifier"));
    assert_ne!(own, key("uid", payer, "identifies"));
    let request = |request, token| identified("uid", payer, "identifier", request, token).request;
    let own = request(one, token);
    assert_ne!(own, request(other, token));
    assert_ne!(own, request(one, (2, Address::ZERO)));
    assert_ne!(own, request(one, (1, Address::repeat_byte(1))));
}

#[test]
fn open_claims_are_kept_longer() {
    use Event::{Complete, CutOff, Deliver, Settle};
    assert_eq!(claim().expiry(), 1060);
    for events in [
        &[Settle, lose_track(None)][..],
        &[Settle, success(), CutOff],
        &[Settle, success(), Deliver],
    ] {
        assert_eq!(after(events).expiry(), 4600, "{events:?}");
    }
    let events = [Settle, success(), Deliver, Complete];
    assert_eq!(after(&events).expiry(), 1060);
    assert_eq!(identified(&events).expiry(), 4600);
}

#[test]
fn refusals_that_may_mean_used_are_recognized() {
    for reason in [
        "invalid_exact_evm_nonce_already_used",
        "duplicate_settlement",
        "invalid_exact_evm_transaction_simulation_failed",
        "unexpected_error",
    ] {
        assert!(may_mean_used(reason), "{reason}");
    }
    assert!(!may_mean_used("invalid_exact_evm_insufficient_balance"));
    assert!(is_used("nonce_already_used") && is_used("duplicate_settlement"));
    assert!(is_used("FiatTokenV2: authorization is used or canceled"));
    assert!(is_used("AuthorizationAlreadyUsed()") && is_used("AuthorizationUsed"));
    for reason in [
        "invalid_exact_evm_transaction_simulation_failed",
        "connect ECONNREFUSED 10.0.0.9:8545",
        "Pausable: paused",
        "unused",
    ] {
        assert!(!is_used(reason), "{reason}");
    }
    assert!(!may_mean_used("payment_refused"));
}

#[test]
fn refusals_that_may_follow_a_charge_are_recognized() {
    for reason in [
        "nonce_already_used",
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_authorization_valid_before",
        "payment_expired",
    ] {
        assert!(may_follow_charge(reason), "{reason}");
    }
    for reason in ["invalid_exact_evm_payload_signature", "invalid_network"] {
        assert!(!may_follow_charge(reason), "{reason}");
    }
}

fn refused(reason: &str) -> Settlement {
    Settlement::Refused {
        reason: reason.into(),
        transaction: None,
    }
}

const ATTEMPTS: [SettleAttempt; 3] = [
    SettleAttempt::First,
    SettleAttempt::Repeated,
    SettleAttempt::Learning,
];

#[test]
fn success_counts_at_every_attempt() {
    let settled = Settlement::Settled {
        transaction: "0xa".into(),
        payer: None,
    };
    for attempt in ATTEMPTS {
        let outcome = Outcome::of(settled.clone(), attempt);
        assert_eq!(outcome.event(), success());
    }
}

#[test]
fn refusal_is_definite_only_while_the_payment_cannot_have_been_charged() {
    for (attempt, reason, is_definite) in [
        (SettleAttempt::First, "funds", true),
        (SettleAttempt::First, "nonce_already_used", true),
        (SettleAttempt::Repeated, "funds", false),
        (SettleAttempt::Repeated, "nonce_already_used", false),
        (SettleAttempt::Learning, "funds", false),
        (SettleAttempt::Learning, "nonce_already_used", true),
    ] {
        let expected = match is_definite {
            true => Event::Refuse {
                reason: reason.to_owned(),
                transaction: None,
            },
            false => lose_track(None),
        };
        let outcome = Outcome::of(refused(reason), attempt);
        assert_eq!(outcome.event(), expected, "{attempt:?} {reason}");
    }
}

#[test]
fn settlement_without_a_definite_answer_is_unknown() {
    let transaction = Some("0xb".to_owned());
    let pending = Settlement::Pending {
        transaction: transaction.clone(),
    };
    let unknown = Settlement::Unknown {
        why: "timeout".into(),
        transaction,
    };
    for settlement in [pending, unknown] {
        for attempt in ATTEMPTS {
            let outcome = Outcome::of(settlement.clone(), attempt);
            assert_eq!(outcome.event(), lose_track(Some("0xb")));
        }
    }
}

#[test]
fn unused_authorization_is_expired_once_every_endpoint_shows_a_block_long_after_its_end() {
    let end = 1000;
    let unused = |as_of| AuthorizationReading::Unused { as_of };
    let late = unused(Some(end + FINAL_AFTER));
    let early = unused(Some(end + FINAL_AFTER - 1));
    for (readings, expected) in [
        (vec![], None),
        (vec![late.clone()], Some(OnChain::Expired)),
        (vec![late.clone(), late.clone()], Some(OnChain::Expired)),
        (vec![early.clone()], Some(OnChain::Unused)),
        (vec![unused(None)], Some(OnChain::Unused)),
        (vec![late.clone(), early.clone()], Some(OnChain::Unused)),
        (vec![early, late.clone()], Some(OnChain::Unused)),
        (vec![unused(None), late], Some(OnChain::Unused)),
    ] {
        assert_eq!(OnChain::of(&readings, end), expected, "{readings:?}");
    }
    let never = unused(Some(u64::MAX - 1));
    assert_eq!(OnChain::of(&[never], u64::MAX), Some(OnChain::Unused));
}

#[test]
fn authorization_that_one_endpoint_shows_as_used_is_used() {
    let used = |transaction: Option<&str>| AuthorizationReading::Used {
        transaction: transaction.map(str::to_owned),
    };
    let expired = AuthorizationReading::Unused {
        as_of: Some(u64::MAX),
    };
    let charged = OnChain::Charged {
        transaction: "0x1".into(),
    };
    for (readings, expected) in [
        (vec![used(None)], OnChain::Used),
        (vec![expired.clone(), used(None)], OnChain::Used),
        (vec![used(None), used(Some("0x1"))], charged.clone()),
        (vec![used(Some("0x1")), expired], charged),
    ] {
        assert_eq!(OnChain::of(&readings, 1000), Some(expected), "{readings:?}");
    }
}

#[test]
fn chain_decides_what_a_facilitator_leaves_open() {
    let unknown = || Outcome::Unknown {
        transaction: Some("0xb".into()),
    };
    let charged = OnChain::Charged {
        transaction: "0xa".into(),
    };
    assert_eq!(
        unknown().or_on_chain(Some(charged.clone())).event(),
        success()
    );
    let Outcome::Refused {
        reason,
        transaction,
    } = unknown().or_on_chain(Some(OnChain::Expired))
    else {
        panic!("the token does not accept it any more");
    };
    assert_eq!(transaction.as_deref(), Some("0xb"));
    assert!(!may_mean_used(&reason), "another payment is asked for");
    for shown in [None, Some(OnChain::Unused), Some(OnChain::Used)] {
        assert_eq!(unknown().or_on_chain(shown), unknown());
    }
    let refused = Outcome::of(refused("funds"), SettleAttempt::First);
    assert_eq!(refused.clone().or_on_chain(Some(charged)), refused);
}

#[test]
fn question_that_was_not_sent_leaves_everything_as_it_was() {
    for (attempt, event) in [
        (SettleAttempt::First, Event::NotSent),
        (SettleAttempt::Learning, Event::NotSent),
        (SettleAttempt::Repeated, lose_track(None)),
    ] {
        let not_sent = Settlement::NotSent { why: "down".into() };
        assert_eq!(Outcome::of(not_sent, attempt).event(), event);
    }
}

#[test]
fn payment_that_is_only_asked_for_buys_nothing() {
    use Event::{CutOff, Learn};
    let transaction = "0xa".to_owned();
    let used = Presented::Used { transaction };
    let learned = after(&[Learn, success()]);
    assert_eq!(
        (learned.holder, present(&learned, PRINT)),
        (None, used.clone())
    );
    let later = after(&[Learn, lose_track(None), success()]);
    assert_eq!(present(&later, PRINT), used);
    let learning = after(&[Learn]);
    assert_eq!(learning.clone().advance(HOLDER, CutOff), Err(NotAllowed));
    let unsent = learning.advance(HOLDER, Event::NotSent);
    assert_eq!(unsent, Ok(Moved::Released));
    assert_eq!(
        after(&[Event::Execute]).advance(HOLDER, Learn),
        Err(NotAllowed)
    );
}

#[test]
fn refusal_that_may_mean_used_is_kept_as_an_open_claim() {
    let refused = |reason: &str| {
        let refuse = Event::Refuse {
            reason: reason.to_owned(),
            transaction: None,
        };
        after(&[Event::Settle, refuse]).expiry()
    };
    assert_eq!(refused("funds"), 1000 + KEPT);
    assert_eq!(refused("nonce_already_used"), 1000 + KEPT_OPEN);
}
