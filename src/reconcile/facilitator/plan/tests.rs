//! What people read about a facilitator, and what is asked when.

use alloy::primitives::B256;
use serde_json::{Value, json};

use super::*;
use crate::registration::fixtures::{merge, offer};

const USDC: &str = "0x036cbd53842c5426634e7929541ec2318f3dcf7e";

/// A facilitator on Base Sepolia; `over` overrides its fields.
fn facilitator(over: Value) -> Arc<PaymentFacilitator> {
    let mut facilitator = json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "PaymentFacilitator",
        "metadata": { "name": "base", "generation": 3 },
        "spec": {
            "networks": ["eip155:84532"],
            "remote": { "url": "https://x402.example" },
            "allowedNamespaces": { "from": "All" },
        },
    });
    merge(&mut facilitator, over);
    Arc::new(serde_json::from_value(facilitator).unwrap())
}

fn kind(version: u8, scheme: &str, network: &str) -> SupportedKind {
    SupportedKind {
        x402_version: version,
        scheme: scheme.into(),
        network: network.into(),
    }
}

fn exact() -> SupportedKind {
    kind(2, "exact", "eip155:84532")
}

fn usdc() -> TokenAddress {
    TokenAddress {
        chain_id: 84532,
        address: USDC.into(),
    }
}

fn reading() -> TokenReading {
    TokenReading {
        chain_id: 84532,
        name: Some("USDC".into()),
        version: Some("2".into()),
        decimals: Some(6),
        domain_separator: Some(B256::ZERO),
    }
}

fn snapshot(
    facilitator: Arc<PaymentFacilitator>,
    answer: Result<Vec<SupportedKind>, FacilitatorError>,
) -> FacilitatorSnapshot {
    FacilitatorSnapshot {
        facilitator,
        object: ObjectReference::default(),
        now: Timestamp::UNIX_EPOCH,
        host: Some("x402.example".into()),
        answer,
        tokens: Vec::new(),
        learned: Vec::new(),
    }
}

fn down() -> FacilitatorError {
    FacilitatorError::FacilitatorUnreachable {
        why: "no connection can be opened",
        may_have_it: false,
    }
}

/// Type, status, reason and message of each condition.
fn conditions(status: &PaymentFacilitatorStatus) -> Vec<(&str, ConditionStatus, &str, &str)> {
    let conditions = status.conditions.iter();
    conditions
        .map(|condition| {
            (
                &*condition.type_,
                condition.status,
                condition.reason.as_deref().unwrap(),
                condition.message.as_deref().unwrap(),
            )
        })
        .collect()
}

/// The same facilitator with this status.
fn after(
    facilitator: &PaymentFacilitator,
    status: PaymentFacilitatorStatus,
) -> Arc<PaymentFacilitator> {
    let mut facilitator = facilitator.clone();
    facilitator.status = Some(status);
    Arc::new(facilitator)
}

#[test]
fn facilitator_that_supports_its_networks_is_ready() {
    let planned = plan(&snapshot(facilitator(json!({})), Ok(vec![exact()])));
    let status = &planned.status;
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.host.as_deref(), Some("x402.example"));
    assert_eq!(status.kinds, [exact()]);
    let ready = "verifies and settles payments on eip155:84532";
    assert_eq!(
        conditions(status),
        [
            ("Ready", ConditionStatus::True, "Reconciled", ready),
            (
                "Suspended",
                ConditionStatus::False,
                "Running",
                "spec.suspend is None"
            ),
        ]
    );
    let event = EventDraft {
        warning: false,
        reason: "Reconciled".into(),
        message: ready.into(),
        action: "Reconcile",
    };
    assert_eq!(planned.events, [event]);
}

#[test]
fn unchanged_answer_changes_nothing() {
    let first = facilitator(json!({}));
    let planned = plan(&snapshot(first.clone(), Ok(vec![exact()])));
    let again = after(&first, planned.status.clone());
    let later = FacilitatorSnapshot {
        now: Timestamp::from_second(600).unwrap(),
        ..snapshot(again, Ok(vec![exact()]))
    };
    let again = plan(&later);
    assert_eq!((again.status, again.events.len()), (planned.status, 0));
}

#[test]
fn network_that_is_not_supported_is_named() {
    let networks = json!({ "spec": { "networks": ["eip155:84532", "eip155:1"] } });
    let partly = plan(&snapshot(facilitator(networks.clone()), Ok(vec![exact()])));
    let found = conditions(&partly.status)[0];
    assert_eq!((found.0, found.1), ("Ready", ConditionStatus::True));
    assert!(
        found
            .3
            .ends_with("; it does not support eip155:1, which is not used")
    );

    let others = vec![
        kind(1, "exact", "eip155:84532"),
        kind(2, "upto", "eip155:84532"),
    ];
    let none = plan(&snapshot(facilitator(networks), Ok(others)));
    let found = conditions(&none.status);
    let types: Vec<_> = found.iter().map(|found| (found.0, found.1)).collect();
    let expected = [
        ("Ready", ConditionStatus::False),
        ("Stalled", ConditionStatus::True),
        ("Suspended", ConditionStatus::False),
    ];
    assert_eq!(types, expected);
    assert_eq!(found[0].2, "NetworkNotSupported");
    assert!(
        found[0].3.contains("eip155:84532, eip155:1"),
        "{}",
        found[0].3
    );
    assert!(none.events[0].warning);
}

#[test]
fn last_answer_is_kept_while_the_same_facilitator_is_down() {
    let first = facilitator(json!({}));
    let planned = plan(&snapshot(first.clone(), Ok(vec![exact()])));
    let known = after(&first, planned.status);
    let unusable = FacilitatorError::AnswerNotUsable("it answers with status 502".into());
    for error in [down(), unusable] {
        let reason = error.reason();
        let kept = plan(&snapshot(known.clone(), Err(error)));
        assert_eq!(kept.status.kinds, [exact()], "{reason}");
        let found = conditions(&kept.status);
        assert_eq!((found[0].1, found[0].2), (ConditionStatus::False, reason));
        assert_eq!(found[1].0, "Reconciling");
        assert_eq!(kept.events.len(), 1);
    }

    let moved = FacilitatorSnapshot {
        host: Some("other.example".into()),
        ..snapshot(known.clone(), Err(down()))
    };
    assert!(plan(&moved).status.kinds.is_empty());

    let mut elsewhere = (*known).clone();
    elsewhere.spec.networks = vec!["eip155:1".into()];
    let elsewhere = plan(&snapshot(Arc::new(elsewhere), Err(down())));
    assert!(elsewhere.status.kinds.is_empty());

    let missing = FacilitatorError::CredentialMissing("base".into());
    let without = plan(&snapshot(known, Err(missing)));
    assert!(without.status.kinds.is_empty());
    let found = conditions(&without.status);
    assert_eq!((found[0].2, found[1].0), ("CredentialMissing", "Stalled"));
    assert!(found[0].3.contains("no key base: add it"));
}

#[test]
fn another_message_with_the_same_reason_is_no_event() {
    let first = facilitator(json!({}));
    let planned = plan(&snapshot(first.clone(), Err(down())));
    let other = FacilitatorError::FacilitatorUnreachable {
        why: "the connection was lost",
        may_have_it: true,
    };
    let again = plan(&snapshot(after(&first, planned.status), Err(other)));
    assert!(again.events.is_empty());
    assert_eq!(conditions(&again.status)[0].3, "the connection was lost");
}

#[test]
fn suspended_facilitator_says_so_beside_ready() {
    let suspended = facilitator(json!({ "spec": { "suspend": "Settling" } }));
    let planned = plan(&snapshot(suspended, Ok(vec![exact()])));
    let found = conditions(&planned.status);
    assert_eq!((found[0].0, found[0].1), ("Ready", ConditionStatus::True));
    let message = "nothing is verified or settled; free routes continue";
    let expected = ("Suspended", ConditionStatus::True, "Settling", message);
    assert_eq!(found[1], expected);
}

#[test]
fn assets_are_those_that_offers_name() {
    let facts = |address: &str| {
        let token = TokenAddress {
            address: address.into(),
            ..usdc()
        };
        super::facts(&token, reading()).unwrap()
    };
    let (gone, new) = ("0x0000000000000000000000000000000000000001", USDC);
    let status = PaymentFacilitatorStatus {
        assets: vec![facts(gone)],
        ..PaymentFacilitatorStatus::default()
    };
    let known = after(&facilitator(json!({})), status);
    let snapshot = FacilitatorSnapshot {
        tokens: vec![usdc()],
        learned: vec![facts(new)],
        ..snapshot(known, Ok(vec![exact()]))
    };
    assert_eq!(plan(&snapshot).status.assets, [facts(new)]);
}

#[test]
fn tokens_are_those_of_crypto_payments_on_the_networks() {
    let payment = |network: &str, address: Option<&str>, method: &str| {
        json!({
            "network": network, "method": method, "price": {},
            "asset": address.map(|address| json!({ "address": address })),
        })
    };
    let checksummed = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
    let payments = json!([
        payment("eip155:84532", Some(USDC), "crypto"),
        payment(
            "base-sepolia",
            Some("0x0000000000000000000000000000000000000002"),
            "card"
        ),
        payment(
            "base",
            Some("0x0000000000000000000000000000000000000003"),
            "crypto"
        ),
        payment("base-sepolia", None, "crypto"),
        payment("unknown", Some(USDC), "crypto"),
        { "network": "base-sepolia", "price": {}, "asset": { "symbol": "USDC" } },
    ]);
    let over = json!({
        "payment": payment("base-sepolia", Some(checksummed), "crypto"), "payments": payments,
    });
    let named = offer(json!({ "spec": over }));
    let other = offer(json!({}));
    let networks = ["eip155:84532", "eip155:1"].map(str::to_owned);
    assert_eq!(tokens([&named, &other].into_iter(), &networks), [usdc()]);
    let mut card = named.clone();
    card.spec.payment.network = None;
    card.spec.payments.clear();
    assert!(tokens_of(&card).is_empty());
}

#[test]
fn facilitator_lacks_a_token_of_its_networks_until_it_is_in_the_status() {
    let bare = facilitator(json!({}));
    let mainnet = TokenAddress {
        chain_id: 1,
        ..usdc()
    };
    assert!(lacks(&bare, &usdc()) && !lacks(&bare, &mainnet));
    let status = PaymentFacilitatorStatus {
        assets: vec![facts(&usdc(), reading()).unwrap()],
        ..PaymentFacilitatorStatus::default()
    };
    let known = after(&bare, status);
    let other = TokenAddress {
        address: "0x0000000000000000000000000000000000000004".into(),
        ..usdc()
    };
    assert!(!lacks(&known, &usdc()) && lacks(&known, &other));
}

#[test]
fn facts_need_a_name_decimals_and_the_right_chain() {
    let found = facts(&usdc(), reading()).unwrap();
    assert_eq!((&*found.network, &*found.address), ("eip155:84532", USDC));
    assert_eq!((&*found.name, found.decimals), ("USDC", 6));
    let bare = TokenReading {
        version: Some("x".repeat(33)),
        domain_separator: None,
        ..reading()
    };
    let found = facts(&usdc(), bare).unwrap();
    assert_eq!((found.version, found.domain_separator), (None, None));
    for useless in [
        TokenReading {
            name: None,
            ..reading()
        },
        TokenReading {
            name: Some("x".repeat(129)),
            ..reading()
        },
        TokenReading {
            decimals: None,
            ..reading()
        },
        TokenReading {
            chain_id: 8453,
            ..reading()
        },
    ] {
        assert_eq!(facts(&usdc(), useless.clone()), None, "{useless:?}");
    }
}

#[test]
fn facilitator_that_is_down_is_asked_less_and_less_often() {
    let seconds = |failures: u32, jitter: f64| delay(failures, jitter).as_secs_f64();
    for (failures, jitter, expected) in [
        (0, 0.0, 540.0),
        (0, 1.0, 660.0),
        (1, 0.0, 2.5),
        (1, 1.0, 5.0),
        (2, 1.0, 10.0),
        (4, 1.0, 40.0),
        (5, 1.0, 60.0),
        (u32::MAX, 1.0, 60.0),
    ] {
        let found = seconds(failures, jitter);
        assert!(
            (found - expected).abs() < 1e-6,
            "{failures} {jitter}: {found}"
        );
    }
}
