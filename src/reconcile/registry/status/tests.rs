//! The status for each way to be blocked, for several at once, and for none.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{Key, LedgerMarker, Nonce};
use crate::chain::RpcError;
use crate::chain::refusal::Refusal;
use crate::chain::transaction::KeyError;
use crate::reconcile::registry::blocked::Unverified;
use crate::registration::fixtures::registry;

const SIGNER: Address = Address::repeat_byte(0x51);
const ALL: [&str; 5] = [
    "SignersReady",
    "RpcHealthy",
    "RegistryVerified",
    "Funded",
    "Suspended",
];

/// A pass in which everything was found in order.
fn healthy() -> Report {
    Report {
        endpoint: Some("https://rpc.example".into()),
        version: Some("2.0.0".into()),
        signer: Some((SIGNER, 5)),
        agents: Some((3, 1)),
        left: Some(9),
        spent: Some(7),
        ..Report::default()
    }
}

/// A pass that ended before anything but this was found.
fn blocked_report(blocked: impl Into<Blocked>) -> Report {
    Report {
        blocked: Some(blocked.into()),
        ..Report::default()
    }
}

fn status_of(over: Value, report: &Report) -> IdentityRegistryStatus {
    let registry = registry(over);
    let before = registry.status.clone().unwrap_or_default();
    let now = Timestamp::from_second(0).unwrap();
    status(
        &registry,
        report,
        &Observation {
            generation: Some(4),
            before: &before.conditions,
            now,
        },
    )
}

fn told(report: &Report) -> IdentityRegistryStatus {
    status_of(json!({}), report)
}

/// A condition's status, reason and message.
fn condition<'a>(
    status: &'a IdentityRegistryStatus,
    type_: &str,
) -> (ConditionStatus, &'a str, &'a str) {
    let found =
        condition::find(&status.conditions, type_).unwrap_or_else(|| panic!("{type_} is not told"));
    (
        found.status,
        found.reason.as_deref().unwrap(),
        found.message.as_deref().unwrap(),
    )
}

/// Which of the two kstatus conditions stands, if any.
fn abnormal(status: &IdentityRegistryStatus) -> Vec<&str> {
    let types = status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str());
    types
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

#[test]
fn a_registry_in_order_is_ready_and_says_of_each_side_why() {
    let status = told(&healthy());
    assert_eq!(
        condition(&status, "Ready"),
        (ConditionStatus::True, "Reconciled", "offers are registered")
    );
    assert_eq!(
        condition(&status, "RpcHealthy").2,
        "https://rpc.example answers"
    );
    assert_eq!(
        condition(&status, "RegistryVerified").2,
        "contract version 2.0.0"
    );
    let reasons = ALL.map(|type_| condition(&status, type_).1);
    assert_eq!(
        reasons,
        ["KeysMatch", "Answering", "Verified", "Funded", "Running"]
    );
    assert!(abnormal(&status).is_empty());
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(4))
    );
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn a_registry_without_signers_watches() {
    let report = Report {
        watch_only: true,
        signer: None,
        ..healthy()
    };
    let before = json!({ "status": { "signers": [{ "address": "0x1" }] } });
    let status = status_of(before, &report);
    assert_eq!(
        condition(&status, "Ready").2,
        "watching: agents are adopted by id"
    );
    assert_eq!(
        (
            condition(&status, "SignersReady").1,
            condition(&status, "Funded").1
        ),
        ("WatchOnly", "WatchOnly")
    );
    assert_eq!(status.signers, []);
}

#[test]
fn every_blocked_reason_has_a_condition_and_may_be_transient() {
    let address = Address::ZERO;
    let limit = Blocked::InvalidLimit(
        crate::ledger::money::Limits::read(&crate::api::SpendingLimits {
            per_day: "x".into(),
            ..Default::default()
        })
        .unwrap_err(),
    );
    let key = Key::derive("", 1, address, 1);
    let cases: [(Blocked, &str, &str, &str); 14] = [
        (unreachable(), "RpcHealthy", "RpcUnreachable", "Reconciling"),
        (
            rpc(RpcError::RpcRefused {
                refusal: Refusal::Other,
                call: "x",
                message: "y".into(),
            }),
            "RpcHealthy",
            "RpcRefused",
            "Reconciling",
        ),
        (
            rpc(RpcError::RpcIncomplete {
                call: "x",
                missing: "y",
            }),
            "RpcHealthy",
            "RpcIncomplete",
            "Reconciling",
        ),
        (
            Blocked::EndpointUnknown("no URL".into()),
            "RpcHealthy",
            "EndpointUnknown",
            "Stalled",
        ),
        (
            Unverified::WrongChain {
                expected: 1,
                actual: 2,
            }
            .into(),
            "RegistryVerified",
            "WrongChain",
            "Stalled",
        ),
        (
            Unverified::NoContract {
                address,
                chain_id: 1,
            }
            .into(),
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
            Unverified::SignerHasCode { address }.into(),
            "SignersReady",
            "SignerHasCode",
            "Stalled",
        ),
        (
            Blocked::SecretMissing {
                secret: "s".into(),
                key: "k".into(),
            },
            "SignersReady",
            "SecretMissing",
            "Stalled",
        ),
        (
            Blocked::KeyMismatch {
                address: "0x1".into(),
                error: KeyError::Malformed,
            },
            "SignersReady",
            "KeyMismatch",
            "Stalled",
        ),
        (
            Blocked::StoredTransactionMismatch {
                key,
                nonce: Nonce(5),
                why: "y".into(),
            },
            "SignersReady",
            "StoredTransactionMismatch",
            "Stalled",
        ),
        (limit, "RegistryVerified", "InvalidLimit", "Stalled"),
        (
            Blocked::QuorumNotSupported { quorum: 2 },
            "RegistryVerified",
            "QuorumNotSupported",
            "Stalled",
        ),
    ];
    for (blocked, side, reason, abnormally) in cases {
        let status = told(&blocked_report(blocked.clone()));
        let message = blocked.to_string();
        assert_eq!(
            condition(&status, side),
            (ConditionStatus::False, reason, &*message)
        );
        assert_eq!(
            condition(&status, "Ready"),
            (ConditionStatus::False, reason, &*message)
        );
        assert_eq!(
            condition(&status, abnormally),
            (ConditionStatus::True, reason, &*message)
        );
        assert_eq!(abnormal(&status), [abnormally]);
    }
}

#[test]
fn conditions_not_checked_while_blocked_are_unknown() {
    let statuses = |blocked: Blocked| {
        let status = told(&Report {
            blocked: Some(blocked),
            ..healthy()
        });
        ["SignersReady", "RpcHealthy", "RegistryVerified"].map(|side| condition(&status, side).0)
    };
    use ConditionStatus::{False, True, Unknown};
    assert_eq!(
        statuses(Blocked::SecretMissing {
            secret: "s".into(),
            key: "k".into()
        }),
        [False, Unknown, Unknown]
    );
    assert_eq!(statuses(unreachable()), [True, False, Unknown]);
    assert_eq!(statuses(Unverified::NoFinality.into()), [True, True, False]);
    let status = told(&blocked_report(unreachable()));
    let message = "not known while RpcHealthy is False";
    assert_eq!(
        condition(&status, "RegistryVerified"),
        (Unknown, "RpcUnreachable", message)
    );
}

#[test]
fn most_urgent_obstacle_of_a_registry_is_reported() {
    let full = Report {
        blocked: Some(unreachable()),
        frozen: Some(Freeze::LedgerLost { uid: None }),
        shortage: Some(Shortage::DailyLimitReached {
            used: 1,
            limit: 1,
            needed: 1,
        }),
        waiting: Some("logs are being read"),
        ..healthy()
    };
    let unfrozen = Report {
        blocked: None,
        frozen: None,
        ..full.clone()
    };
    let suspended = json!({ "spec": { "suspend": "Spending" } });
    let cases = [
        (
            suspended.clone(),
            full.clone(),
            "RpcUnreachable",
            "Reconciling",
        ),
        (
            suspended.clone(),
            Report {
                blocked: None,
                ..full
            },
            "LedgerLost",
            "Stalled",
        ),
        (suspended, unfrozen.clone(), "Suspended", "Stalled"),
        (json!({}), unfrozen.clone(), "DailyLimitReached", "Stalled"),
        (
            json!({}),
            Report {
                shortage: None,
                ..unfrozen
            },
            "Settling",
            "Reconciling",
        ),
    ];
    for (over, report, reason, abnormally) in cases {
        let status = status_of(over, &report);
        assert_eq!(condition(&status, "Ready").1, reason);
        assert_eq!(abnormal(&status), [abnormally], "{reason}");
    }
}

#[test]
fn the_incident_switch_is_told_whatever_else_is() {
    for (suspend, status, reason) in [
        ("None", ConditionStatus::False, "Running"),
        ("Spending", ConditionStatus::True, "Spending"),
        ("All", ConditionStatus::True, "All"),
    ] {
        let told = status_of(
            json!({ "spec": { "suspend": suspend } }),
            &blocked_report(unreachable()),
        );
        assert_eq!(
            (
                condition(&told, "Suspended").0,
                condition(&told, "Suspended").1
            ),
            (status, reason)
        );
    }
}

#[test]
fn a_signer_is_funded_unless_it_holds_too_little() {
    let with = |shortage, signer| {
        condition(
            &told(&Report {
                shortage,
                signer,
                ..healthy()
            }),
            "Funded",
        )
        .0
    };
    let poor = Some(Shortage::InsufficientFunds {
        balance: 4,
        needed: 9,
    });
    assert_eq!(with(poor, Some((SIGNER, 4))), ConditionStatus::False);
    assert_eq!(with(None, Some((SIGNER, 0))), ConditionStatus::False);
    assert_eq!(with(None, Some((SIGNER, 1))), ConditionStatus::True);
    let dear = Some(Shortage::FeeAboveLimit { market: 2, cap: 1 });
    assert_eq!(
        with(dear, Some((SIGNER, 4))),
        ConditionStatus::True,
        "what is dear is not the wallet's fault"
    );
    assert_eq!(with(None, None), ConditionStatus::Unknown);
}

#[test]
fn numbers_that_a_turn_did_not_find_out_stay_as_they_were() {
    let before = json!({ "status": {
        "ledgers": [{ "signer": "0x1", "uid": "u" }],
        "signers": [{ "address": "0x1", "balance": "0.5" }],
        "agents": 8, "pending": 2, "registrationsLeft": 4, "spentLast24h": "0.1",
    } });
    let kept = status_of(before.clone(), &blocked_report(unreachable()));
    let stood = registry(before.clone()).status.unwrap();
    assert_eq!(
        IdentityRegistryStatus {
            conditions: vec![],
            observed_generation: None,
            ..kept
        },
        stood
    );

    let fresh = status_of(before, &healthy());
    assert_eq!(
        (fresh.agents, fresh.pending, fresh.registrations_left),
        (Some(3), Some(1), Some(9))
    );
    assert_eq!(
        fresh.spent_last_24h.as_deref(),
        Some("0.000000000000000007")
    );
    let balance = Some("0.000000000000000005".to_owned());
    assert_eq!(
        fresh.signers,
        [SignerStatus {
            address: SIGNER.to_string(),
            balance
        }]
    );
    assert_eq!(
        fresh.ledgers,
        [LedgerMarker {
            signer: "0x1".into(),
            uid: "u".into()
        }],
        "markers are never taken back"
    );
}

#[test]
fn count_beyond_the_schema_is_reported_as_its_maximum() {
    let status = told(&Report {
        agents: Some((usize::MAX, i32::MAX as usize + 1)),
        ..healthy()
    });
    assert_eq!(
        (status.agents, status.pending),
        (Some(i32::MAX as u32), Some(i32::MAX as u32))
    );
}

#[test]
fn conditions_are_written_at_once_and_numbers_once_a_minute() {
    let stands = told(&healthy());
    let numbers = IdentityRegistryStatus {
        agents: Some(4),
        ..stands.clone()
    };
    let words = told(&blocked_report(unreachable()));
    let seen = IdentityRegistryStatus {
        observed_generation: Some(5),
        ..stands.clone()
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (wanted, age, expected) in [
        (&stands, None, false),
        (&stands, seconds(600), false),
        (&numbers, seconds(59), false),
        (&numbers, seconds(60), true),
        (&numbers, None, true),
        (&words, seconds(0), true),
        (&seen, seconds(0), true),
    ] {
        assert_eq!(must_write(&stands, wanted, age), expected, "{age:?}");
    }
}

#[test]
fn a_number_that_becomes_known_does_not_wait() {
    let stands = told(&healthy());
    let unknown = IdentityRegistryStatus {
        agents: None,
        ..stands.clone()
    };
    assert!(must_write(&unknown, &stands, Some(Duration::ZERO)));
}

#[test]
fn becoming_ready_and_ceasing_to_be_is_told_once() {
    let (ready, away) = (told(&healthy()), told(&blocked_report(unreachable())));
    let refused = told(&blocked_report(rpc(RpcError::RpcRefused {
        refusal: Refusal::Other,
        call: "x",
        message: "y".into(),
    })));
    let reasons = |before: &IdentityRegistryStatus, after: &IdentityRegistryStatus| {
        notes(before, after)
            .into_iter()
            .map(|note| (note.warning, note.reason))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(&IdentityRegistryStatus::default(), &ready),
        [(false, "Reconciled".into())]
    );
    assert_eq!(reasons(&ready, &away), [(true, "RpcUnreachable".into())]);
    assert_eq!(
        reasons(&away, &refused),
        [(true, "RpcRefused".into())],
        "another reason is news"
    );
    assert_eq!(reasons(&away, &away), []);
    let numbers = IdentityRegistryStatus {
        agents: Some(4),
        ..ready.clone()
    };
    assert_eq!(reasons(&ready, &numbers), []);
    assert_eq!(notes(&ready, &away)[0].message, unreachable().to_string());
}
