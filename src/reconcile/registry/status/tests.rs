//! The status after each kind of pass, and the rule of truth over random passes.

use alloy::primitives::{Address, B256};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{AgentCount, IndexPosition, Key, LedgerMarker, Nonce};
use crate::chain::RpcError;
use crate::chain::key::KeyError;
use crate::ledger::Freeze;
use crate::ledger::evidence::UnknownPremise;
use crate::ledger::fixtures::orphans;
use crate::reconcile::registry::blocked::{Blocked, Unverified};
use crate::registration::address::MistypedAddress;
use crate::registration::fixtures::registry;

const SIGNER: Address = Address::repeat_byte(0x51);

fn passed(reason: &'static str) -> Check {
    Check::Passed {
        reason,
        message: format!("{reason}, as of this pass"),
    }
}

fn in_order() -> Checks {
    Checks {
        signers: passed("KeysMatch"),
        rpc: passed("Answering"),
        contract: passed("Verified"),
    }
}

/// A pass that found everything in order.
fn healthy() -> Findings {
    Findings {
        checks: in_order(),
        ledger: LedgerOutcome::Reached(None),
        numbers: Numbers {
            balance: Some((SIGNER, 5)),
            agents: Some(3),
            pending: Some(1),
            left: Some(9),
            spent: Some(7),
            ..Numbers::default()
        },
    }
}

/// A pass that ended because one side failed.
fn blocked_by(blocked: impl Into<Blocked>) -> Findings {
    Findings {
        checks: Checks::default().failed(blocked.into()),
        ..Findings::default()
    }
}

/// A pass that reached the ledger and found an obstacle.
fn hindered_by(obstacle: impl Into<Obstacle>) -> Findings {
    Findings {
        ledger: LedgerOutcome::Reached(Some(obstacle.into())),
        ..healthy()
    }
}

fn with_signer(over: Value) -> Value {
    let mut registry = json!({ "spec": { "signers": [
        { "address": SIGNER.to_string(), "secretRef": { "name": "signer", "key": "key" } },
    ] } });
    merge(&mut registry, over);
    registry
}

fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over,
    }
}

fn status_at(generation: i64, over: Value, findings: &Findings) -> IdentityRegistryStatus {
    let registry = registry(with_signer(over));
    let before = registry.status.clone().unwrap_or_default();
    let observation = Observation {
        generation: Some(generation),
        before: &before.conditions,
        now: Timestamp::from_second(0).unwrap(),
    };
    status(&registry, findings, &observation)
}

fn status_of(findings: &Findings) -> IdentityRegistryStatus {
    status_at(4, json!({}), findings)
}

/// The status after a second pass, at another generation.
fn status_after(before: &IdentityRegistryStatus, findings: &Findings) -> IdentityRegistryStatus {
    status_at(5, json!({ "status": before }), findings)
}

fn condition<'a>(status: &'a IdentityRegistryStatus, type_: &str) -> &'a Condition {
    condition::find(&status.conditions, type_).unwrap_or_else(|| panic!("{type_} is missing"))
}

fn reason<'a>(status: &'a IdentityRegistryStatus, type_: &str) -> (ConditionStatus, &'a str) {
    let found = condition(status, type_);
    (found.status, found.reason.as_deref().unwrap())
}

fn abnormal(status: &IdentityRegistryStatus) -> Vec<&str> {
    status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .filter(|type_| ["Reconciling", "Stalled"].contains(type_))
        .collect()
}

fn rpc(error: RpcError) -> Blocked {
    Blocked::Rpc {
        endpoint: "https://rpc.example".into(),
        error,
    }
}

fn unreachable() -> Blocked {
    rpc(RpcError::RpcUnreachable {
        call: "eth_chainId",
        cause: "could not connect",
    })
}

use ConditionStatus::{False, True, Unknown};

#[test]
fn registry_in_order_is_ready() {
    let status = status_of(&healthy());
    let reasons = [
        "SignersReady",
        "RpcHealthy",
        "RegistryVerified",
        "Funded",
        "Ready",
    ]
    .map(|type_| reason(&status, type_));
    let expected =
        ["KeysMatch", "Answering", "Verified", "Funded", "Reconciled"].map(|reason| (True, reason));
    assert_eq!(reasons, expected);
    assert_eq!(reason(&status, "Suspended"), (False, "Running"));
    assert!(abnormal(&status).is_empty());
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn registry_without_signers_is_watch_only() {
    let over =
        json!({ "spec": { "signers": [] }, "status": { "signers": [{ "address": "0x1" }] } });
    let findings = Findings {
        checks: Checks {
            signers: passed("WatchOnly"),
            ..in_order()
        },
        numbers: Numbers::default(),
        ..healthy()
    };
    let status = status_at(4, over, &findings);
    assert_eq!(
        condition(&status, "Ready").message.as_deref(),
        Some("watching: agents are adopted by id")
    );
    assert_eq!(reason(&status, "Funded"), (True, "WatchOnly"));
    assert_eq!(status.signers, []);
}

#[test]
fn failed_side_is_false_and_so_is_ready() {
    let address = Address::ZERO;
    let limit = crate::ledger::money::Limits::read(&crate::api::SpendingLimits {
        per_day: "x".into(),
        ..Default::default()
    })
    .unwrap_err();
    let secret = Blocked::SecretMissing {
        secret: "s".into(),
        key: "k".into(),
    };
    let mismatch = Blocked::KeyMismatch {
        address: "0x1".into(),
        error: KeyError::OtherAccount {
            expected: address,
            actual: Address::repeat_byte(1),
        },
    };
    let unreadable = Blocked::KeyUnreadable {
        address: "0x1".into(),
        secret: "s".into(),
        key: "k".into(),
        error: KeyError::Malformed,
    };
    let in_use = Blocked::SignerInUse {
        address,
        holder: "older".into(),
    };
    let mistyped = MistypedAddress {
        field: "spec.address".into(),
        address: "0x1".into(),
    };
    let other_chain = Unverified::WrongChain {
        expected: 1,
        actual: 2,
    };
    let no_contract = Unverified::NoContract {
        address,
        chain_id: 1,
    };
    let incomplete = rpc(RpcError::RpcIncomplete {
        call: "x",
        missing: "y",
    });
    let cases: [(Blocked, &str, &str, &str); 17] = [
        (unreachable(), "RpcHealthy", "RpcUnreachable", "Reconciling"),
        (incomplete, "RpcHealthy", "RpcIncomplete", "Reconciling"),
        (
            Blocked::EndpointUnknown("no URL: set one".into()),
            "RpcHealthy",
            "EndpointUnknown",
            "Stalled",
        ),
        (
            Blocked::InvalidAddress(mistyped.clone()),
            "RegistryVerified",
            "InvalidAddress",
            "Stalled",
        ),
        (
            Blocked::InvalidSignerAddress(mistyped),
            "SignersReady",
            "InvalidSignerAddress",
            "Stalled",
        ),
        (
            other_chain.into(),
            "RegistryVerified",
            "WrongChain",
            "Stalled",
        ),
        (
            no_contract.into(),
            "RegistryVerified",
            "NoContract",
            "Stalled",
        ),
        (
            Unverified::NotARegistry { address }.into(),
            "RegistryVerified",
            "NotARegistry",
            "Stalled",
        ),
        (
            Unverified::NoFinality.into(),
            "RegistryVerified",
            "NoFinality",
            "Reconciling",
        ),
        (
            Unverified::NoGenesis.into(),
            "RegistryVerified",
            "NoGenesis",
            "Stalled",
        ),
        (
            Unverified::SignerHasCode { address }.into(),
            "SignersReady",
            "SignerHasCode",
            "Stalled",
        ),
        (secret, "SignersReady", "SecretMissing", "Stalled"),
        (mismatch, "SignersReady", "KeyMismatch", "Stalled"),
        (unreadable, "SignersReady", "KeyUnreadable", "Stalled"),
        (in_use, "SignersReady", "SignerInUse", "Stalled"),
        (limit.into(), "RegistryVerified", "InvalidLimit", "Stalled"),
        (
            Blocked::QuorumNotSupported { quorum: 2 },
            "RegistryVerified",
            "QuorumNotSupported",
            "Stalled",
        ),
    ];
    for (blocked, type_, expected, kstatus) in cases {
        let status = status_of(&blocked_by(blocked.clone()));
        for type_ in [type_, "Ready"] {
            assert_eq!(reason(&status, type_), (False, expected));
            assert_eq!(condition(&status, type_).message, Some(blocked.to_string()));
        }
        assert_eq!(abnormal(&status), [kstatus], "{expected}");
    }
}

#[test]
fn side_that_was_never_checked_is_unknown() {
    let status = status_of(&blocked_by(Blocked::QuorumNotSupported { quorum: 2 }));
    assert_eq!(reason(&status, "SignersReady"), (Unknown, "NotChecked"));
    assert_eq!(reason(&status, "RpcHealthy"), (Unknown, "NotChecked"));
}

#[test]
fn failed_side_is_read_from_the_stored_status() {
    let failed = |status: &IdentityRegistryStatus| {
        has_failed_side(&registry(with_signer(json!({ "status": status }))))
    };
    assert!(!has_failed_side(&registry(json!({}))));
    let short = Freeze::LedgerLost { uid: None };
    assert!(!failed(&status_of(&hindered_by(short))), "no side");
    let away = status_of(&blocked_by(unreachable()));
    assert!(failed(&away));
    let unchecked = Findings {
        checks: Checks {
            contract: Check::Skipped,
            ..in_order()
        },
        ..healthy()
    };
    assert!(failed(&status_of(&unchecked)), "unknown is not in order");
}

#[test]
fn suspension_of_spending_is_shown_and_says_nothing_about_ready() {
    for (suspend, expected) in [
        ("None", [(False, "Running"), (True, "Reconciled")]),
        ("Spending", [(True, "Spending"), (True, "Reconciled")]),
    ] {
        let status = status_at(4, json!({ "spec": { "suspend": suspend } }), &healthy());
        let shown = ["Suspended", "Ready"].map(|type_| reason(&status, type_));
        assert_eq!(shown, expected);
    }
}

#[test]
fn suspension_of_all_is_written_once_and_nothing_else_is() {
    let all = json!({ "suspend": "All" });
    let before = status_of(&healthy());
    let after = |before: &IdentityRegistryStatus, findings: &Findings| {
        status_at(5, json!({ "spec": all, "status": before }), findings)
    };
    let suspended = after(&before, &healthy());
    assert_eq!(reason(&suspended, "Suspended"), (True, "All"));
    assert_eq!(suspended.observed_generation, Some(5));
    assert!(abnormal(&suspended).is_empty());
    for type_ in ["Ready", "SignersReady", "RpcHealthy", "Funded"] {
        assert_eq!(condition(&suspended, type_), condition(&before, type_));
    }
    assert!(must_write(&before, &suspended, None));
    let unreachable = blocked_by(unreachable());
    let later = after(&suspended, &unreachable);
    assert!(!must_write(&suspended, &later, Some(NUMBERS_EVERY)));
}

#[test]
fn start_that_was_accepted_without_proof_is_said() {
    let mut findings = healthy();
    let says = |findings: &Findings| condition(&status_of(findings), "Ready").message.clone();
    assert_eq!(says(&findings).as_deref(), Some("offers are registered"));
    findings.numbers.is_start_unverified = true;
    assert!(says(&findings).unwrap().contains("without proof"));
}

#[test]
fn foreign_use_of_the_key_is_said() {
    let mut findings = healthy();
    findings.numbers.foreign_use = Some(B256::repeat_byte(7));
    let message = condition(&status_of(&findings), "Ready").message.clone();
    assert!(message.unwrap().contains("0x0707"));
}

#[test]
fn agents_that_others_transferred_are_said() {
    let mut findings = healthy();
    findings.numbers.holds_transferred = true;
    let message = condition(&status_of(&findings), "Ready").message.clone();
    assert!(message.unwrap().contains("transferred to it"));
}

#[test]
fn side_that_was_not_reached_keeps_its_condition() {
    let before = status_of(&healthy());
    let after = status_after(&before, &blocked_by(unreachable()));
    for type_ in ["SignersReady", "RegistryVerified"] {
        assert_eq!(condition(&after, type_), condition(&before, type_));
    }
    assert_eq!(condition(&after, "RpcHealthy").observed_generation, Some(5));
}

#[test]
fn check_that_could_not_be_made_is_unknown() {
    let findings = Findings {
        checks: Checks {
            contract: Check::Unmade {
                reason: "RpcUnreachable",
                why: "not known while the endpoint does not answer".into(),
            },
            ..in_order()
        },
        ..healthy()
    };
    let status = status_of(&findings);
    assert_eq!(
        reason(&status, "RegistryVerified"),
        (Unknown, "RpcUnreachable")
    );
    assert_eq!(reason(&status, "Ready"), (Unknown, "RpcUnreachable"));
}

#[test]
fn pass_that_did_not_reach_the_ledger_keeps_ready() {
    let idle = Findings {
        ledger: LedgerOutcome::NotReached,
        ..healthy()
    };
    for first in [healthy(), hindered_by(Freeze::LedgerLost { uid: None })] {
        let before = status_of(&first);
        let after = status_after(&before, &idle);
        assert_eq!(condition(&after, "Ready"), condition(&before, "Ready"));
        assert_eq!(abnormal(&after), abnormal(&before));
        assert_eq!(after.observed_generation, Some(4));
    }
    assert_eq!(reason(&status_of(&idle), "Ready"), (Unknown, "NotChecked"));
}

#[test]
fn api_server_that_does_not_answer_makes_ready_unknown() {
    let findings = Findings {
        ledger: LedgerOutcome::Unmade {
            why: "forbidden".into(),
        },
        ..healthy()
    };
    let status = status_after(&status_of(&healthy()), &findings);
    assert_eq!(
        reason(&status, "Ready"),
        (Unknown, "KubernetesRequestFailed")
    );
}

#[test]
fn obstacles_are_reported_by_urgency() {
    let short = Shortage::DailyLimitReached {
        used: 1,
        limit: 1,
        needed: 1,
    };
    let suspended = json!({ "spec": { "suspend": "Spending" } });
    let frozen = || hindered_by(Freeze::LedgerLost { uid: None });
    let settling = || hindered_by(Obstacle::Settling("logs are being read".into()));
    let premise = || hindered_by(UnknownPremise::IndexNotProven);
    let cases = [
        (
            suspended.clone(),
            blocked_by(unreachable()),
            "RpcUnreachable",
            "Reconciling",
        ),
        (suspended.clone(), frozen(), "LedgerLost", "Stalled"),
        (
            suspended,
            hindered_by(short),
            "DailyLimitReached",
            "Stalled",
        ),
        (
            json!({}),
            hindered_by(short),
            "DailyLimitReached",
            "Stalled",
        ),
        (json!({}), premise(), "IndexNotProven", "Reconciling"),
        (json!({}), settling(), "Settling", "Reconciling"),
    ];
    for (over, findings, expected, kstatus) in cases {
        let status = status_at(4, over, &findings);
        assert_eq!(reason(&status, "Ready"), (False, expected));
        assert_eq!(abnormal(&status), [kstatus], "{expected}");
    }
}

#[test]
fn most_urgent_obstacle_wins() {
    use crate::reconcile::registry::outcome::most_urgent;
    let settling = Obstacle::Settling("x".into());
    let freeze = Obstacle::Freeze(Freeze::LedgerLost { uid: None });
    let refused = Obstacle::SendRefused {
        endpoint: "https://rpc.example".into(),
        key: Key::derive("", 1, Address::ZERO, 1),
        nonce: Nonce(5),
        message: "underpriced".into(),
    };
    let all = [settling.clone(), refused.clone(), freeze.clone()];
    assert_eq!(most_urgent(all), Some(freeze));
    assert_eq!(most_urgent([settling, refused.clone()]), Some(refused));
    assert_eq!(most_urgent([]), None);
}

#[test]
fn signer_is_funded_unless_its_balance_is_too_low() {
    let funded = |findings: &Findings| reason(&status_of(findings), "Funded").0;
    let with_balance = |wei| Findings {
        numbers: Numbers {
            balance: Some((SIGNER, wei)),
            ..Numbers::default()
        },
        ..healthy()
    };
    assert_eq!(funded(&with_balance(1)), True);
    assert_eq!(funded(&with_balance(0)), False);
    let short = Shortage::InsufficientFunds {
        balance: 4,
        needed: 9,
    };
    assert_eq!(funded(&hindered_by(short)), False);
    let refused = Obstacle::InsufficientFunds {
        endpoint: "https://rpc.example".into(),
        key: Key::derive("", 1, Address::ZERO, 1),
        nonce: Nonce(5),
        message: "tx cost 1010".into(),
    };
    assert_eq!(funded(&hindered_by(refused)), False);
    let expensive = Shortage::FeeAboveLimit {
        market: 2,
        cap: 1,
        rollup_fee: 0,
    };
    assert_eq!(funded(&hindered_by(expensive)), True);
    assert_eq!(funded(&Findings::default()), Unknown);
}

#[test]
fn numbers_that_were_not_counted_stay() {
    let before = json!({ "status": {
        "ledgers": [{ "signer": "0x1", "uid": "u" }],
        "signers": [{ "address": "0x1", "balance": "0.5" }],
        "agents": 8, "pending": 2, "registrationsLeft": 4, "spentLast24h": "0.1",
    } });
    let kept = status_at(4, before.clone(), &blocked_by(unreachable()));
    let stored = registry(before.clone()).status.unwrap();
    assert_eq!(
        IdentityRegistryStatus {
            conditions: vec![],
            observed_generation: None,
            ..kept
        },
        stored
    );
    let counted = status_at(4, before, &healthy());
    assert_eq!(
        (counted.agents, counted.pending, counted.registrations_left),
        (Some(3), Some(1), Some(9))
    );
    assert_eq!(
        counted.spent_last_24h.as_deref(),
        Some("0.000000000000000007")
    );
    let marker = LedgerMarker {
        signer: "0x1".into(),
        uid: "u".into(),
    };
    assert_eq!(counted.ledgers, [marker], "markers are never removed");
}

#[test]
fn count_beyond_the_schema_is_reported_as_its_maximum() {
    let findings = Findings {
        numbers: Numbers {
            agents: Some(usize::MAX),
            ..Numbers::default()
        },
        ..healthy()
    };
    assert_eq!(status_of(&findings).agents, Some(i32::MAX as u32));
}

#[test]
fn conditions_are_written_at_once_and_numbers_once_a_minute() {
    let stored = status_of(&healthy());
    let numbers = IdentityRegistryStatus {
        agents: Some(4),
        ..stored.clone()
    };
    let condition = status_of(&blocked_by(unreachable()));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (wanted, age, expected) in [
        (&stored, None, false),
        (&stored, seconds(600), false),
        (&numbers, seconds(59), false),
        (&numbers, seconds(60), true),
        (&numbers, None, true),
        (&condition, seconds(0), true),
    ] {
        assert_eq!(must_write(&stored, wanted, age), expected, "{age:?}");
    }
    let unknown = IdentityRegistryStatus {
        agents: None,
        ..stored.clone()
    };
    assert!(
        must_write(&unknown, &stored, seconds(0)),
        "a number that becomes known does not wait"
    );
}

#[test]
fn position_is_written_once_it_is_worth_it() {
    let at = |block: u64| {
        let position = IndexPosition {
            signer: format!("{:#x}", Address::ZERO),
            from_block: 0,
            block,
            held: AgentCount::default(),
            keys: 0,
            keys_hash: B256::ZERO,
            without_key: Some(vec![]),
        };
        let numbers = Numbers {
            indexes: vec![position],
            ..Numbers::default()
        };
        status_of(&Findings {
            numbers,
            ..healthy()
        })
    };
    let late = Some(NUMBERS_EVERY);
    assert!(!must_write(&at(10), &at(11), late));
    assert!(must_write(&at(10), &at(100_000), late));
    assert!(must_write(&status_of(&healthy()), &at(10), late));
}

#[test]
fn block_of_the_first_orphan_is_written_at_once_and_kept() {
    let status_with = |orphans, before: Option<&IdentityRegistryStatus>| {
        let numbers = Numbers {
            orphans,
            ..healthy().numbers
        };
        let findings = Findings {
            numbers,
            ..healthy()
        };
        match before {
            Some(before) => status_after(before, &findings),
            None => status_of(&findings),
        }
    };
    let none = status_with(Some(orphans(&[])), None);
    let found = status_with(Some(orphans(&['c'])), Some(&none));
    assert_eq!((none.orphans_from, found.orphans_from), (None, Some(60)));
    assert!(must_write(&none, &found, Some(Duration::ZERO)));
    let unread = status_with(None, Some(&found));
    assert_eq!(unread.orphans_from, Some(60));
    let ended = status_with(Some(orphans(&[])), Some(&found));
    assert_eq!(ended.orphans_from, None);
}

#[test]
fn event_is_published_once_per_change_of_ready() {
    let (ready, away) = (status_of(&healthy()), status_of(&blocked_by(unreachable())));
    let frozen = status_of(&hindered_by(Freeze::LedgerLost { uid: None }));
    let published = |before: &IdentityRegistryStatus, after: &IdentityRegistryStatus| {
        events(before, after)
            .into_iter()
            .map(|event| (event.warning, event.reason))
            .collect::<Vec<_>>()
    };
    let none = IdentityRegistryStatus::default();
    assert_eq!(published(&none, &ready), [(false, "Reconciled".into())]);
    assert_eq!(published(&ready, &away), [(true, "RpcUnreachable".into())]);
    assert_eq!(published(&away, &frozen), [(true, "LedgerLost".into())]);
    assert_eq!(published(&away, &away), []);
    assert_eq!(published(&ready, &none), [], "Ready is not known any more");
}

/// Deterministic choices (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn check(&mut self, reason: &'static str, blocked: Blocked) -> Check {
        match self.below(4) {
            0 => Check::Skipped,
            1 => passed(reason),
            2 => Check::Failed(blocked),
            _ => Check::Unmade {
                reason: "RpcUnreachable",
                why: "not known".into(),
            },
        }
    }

    fn findings(&mut self) -> Findings {
        let checks = Checks {
            signers: self.check(
                "KeysMatch",
                Blocked::SecretMissing {
                    secret: "s".into(),
                    key: "k".into(),
                },
            ),
            rpc: self.check("Answering", unreachable()),
            contract: self.check("Verified", Unverified::NoFinality.into()),
        };
        let ledger = match self.below(5) {
            0 | 1 => LedgerOutcome::NotReached,
            2 => LedgerOutcome::Unmade { why: "503".into() },
            3 => LedgerOutcome::Reached(None),
            _ => LedgerOutcome::Reached(Some(Freeze::LedgerLost { uid: None }.into())),
        };
        Findings {
            checks,
            ledger,
            numbers: Numbers::default(),
        }
    }
}

#[test]
fn condition_is_true_only_from_an_answer() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut before = IdentityRegistryStatus::default();
    let mut ready = 0;
    for generation in 1..=20_000_i64 {
        let findings = dice.findings();
        let after = status_at(generation, json!({ "status": before }), &findings);
        let sides = [
            ("SignersReady", &findings.checks.signers),
            ("RpcHealthy", &findings.checks.rpc),
            ("RegistryVerified", &findings.checks.contract),
        ];
        for (type_, check) in sides {
            let found = condition(&after, type_);
            match check {
                Check::Skipped => {
                    let stored = condition::find(&before.conditions, type_);
                    assert!(stored.is_none_or(|stored| stored == found), "{type_}");
                }
                check => {
                    assert_eq!(found.observed_generation, Some(generation));
                    assert_eq!(found.is_true(), matches!(check, Check::Passed { .. }));
                }
            }
        }
        let found = condition(&after, "Ready");
        let stored = condition::find(&before.conditions, "Ready");
        if found.is_true() {
            ready += 1;
            let reached = findings.ledger == LedgerOutcome::Reached(None);
            assert!(reached || stored == Some(found), "Ready without an answer");
            assert!(
                !sides
                    .iter()
                    .any(|(type_, _)| reason(&after, type_).0 == False),
                "Ready although a side is False"
            );
        }
        let was_frozen = stored.and_then(|stored| stored.reason.as_deref()) == Some("LedgerLost");
        if was_frozen && findings.ledger == LedgerOutcome::NotReached {
            assert!(!found.is_true(), "a freeze was lifted without a look");
        }
        before = after;
    }
    assert!(ready > 100, "{ready}");
}
