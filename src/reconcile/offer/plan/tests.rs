//! An offer's status in every phase of its registration, and when it is written.

use serde_json::{Value, json};

use super::*;
use crate::ledger::money::Shortage;
use crate::ledger::protocol::AdoptionRefused;
use crate::registration::fixtures::{merge, offer, record, registry, result};

const URI: &str = "https://agents.example/agents/";

fn now() -> Timestamp {
    Timestamp::from_second(0).unwrap()
}

/// An offer without a record, on a registry that is ready.
fn observed(over: Value) -> ObservedOffer {
    ObservedOffer {
        offer: offer(over),
        registry: Some(registry(json!({}))),
        unresolved: None,
        eligibility: Some(Eligibility::Eligible),
        record: None,
        issue: None,
        upstream_exists: true,
    }
}

fn recorded(spec: Value) -> Option<AgentRegistrationSpec> {
    Some(record("shop/chat", 1, json!({ "spec": spec })).spec)
}

/// The record of agent 3, registered under the expected URI.
fn registered() -> Option<AgentRegistrationSpec> {
    let key = recorded(json!({})).unwrap().key;
    recorded(
        json!({ "phase": "Registered", "result": result("3"), "agentUri": format!("{URI}{key}.json") }),
    )
}

fn attempt() -> Value {
    json!({
        "nonce": 5, "kind": "Register", "maxFeePerGas": "10", "maxPriorityFeePerGas": "1", "gas": 30,
        "hash": format!("0x{}", "33".repeat(32)),
    })
}

fn view(observed: ObservedOffer) -> OfferView {
    let object = ObjectReference::default();
    OfferView {
        object,
        generation: Some(4),
        now: now(),
        applied: None,
        subject: OfferSubject::Offer(Box::new(observed)),
    }
}

fn status_of(observed: ObservedOffer) -> ServiceOfferStatus {
    plan(&view(observed)).status
}

/// A condition's status and reason.
fn condition<'a>(
    status: &'a ServiceOfferStatus,
    type_: &str,
) -> Option<(ConditionStatus, &'a str)> {
    condition::find(&status.conditions, type_)
        .map(|found| (found.status, found.reason.as_deref().unwrap()))
}

fn message<'a>(status: &'a ServiceOfferStatus, type_: &str) -> &'a str {
    condition::find(&status.conditions, type_)
        .and_then(|found| found.message.as_deref())
        .unwrap()
}

/// The kstatus condition that is present, if any.
fn abnormal(status: &ServiceOfferStatus) -> Option<&str> {
    let types = status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str());
    let mut found = types.filter(|type_| ["Reconciling", "Stalled"].contains(type_));
    let first = found.next();
    assert_eq!(
        found.next(),
        None,
        "Reconciling and Stalled exclude each other"
    );
    first
}

#[test]
fn registered_offer_is_ready_and_shows_its_agent() {
    let status = status_of(ObservedOffer {
        record: registered(),
        ..observed(json!({}))
    });
    let conditions =
        ["Accepted", "Registered", "Ready"].map(|type_| condition(&status, type_).unwrap());
    use ConditionStatus::True;
    assert_eq!(
        conditions,
        [
            (True, "Accepted"),
            (True, "Registered"),
            (True, "Reconciled")
        ]
    );
    assert_eq!(
        (abnormal(&status), condition(&status, "UpstreamHealthy")),
        (None, None)
    );
    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(status.agent_id.as_deref(), Some("3"));
    assert_eq!(
        status.registration_tx_hash,
        Some(format!("0x{}", "22".repeat(32)))
    );
    assert_eq!(status.endpoint.as_deref(), Some("/services/chat"));
    assert_eq!(
        status.url.as_deref(),
        Some("https://agents.example/services/chat")
    );
    let record = registered().unwrap();
    let registration = RegistrationStatus {
        registry: Some("sepolia".into()),
        key: Some(record.key),
        agent_id: Some("3".into()),
        agent_uri: record.agent_uri,
        transaction: Some(format!("0x{}", "22".repeat(32))),
        block: Some(7),
        final_: Some(true),
    };
    assert_eq!(status.registration, Some(registration));
}

#[test]
fn every_phase_has_a_reason_and_a_message() {
    let suspended = || Some(registry(json!({ "spec": { "suspend": "Spending" } })));
    let unready =
        json!([{ "type": "Ready", "status": "False", "reason": "X", "message": "no funds" }]);
    let unready = || Some(registry(json!({ "status": { "conditions": unready } })));
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let ready = || Some(registry(json!({ "status": { "conditions": ready } })));
    let sent = || recorded(json!({ "phase": "Sent", "attempts": [attempt()] }));
    let at = |registry, record| ObservedOffer {
        registry,
        record,
        ..observed(json!({}))
    };
    let plain = || Some(registry(json!({})));
    let cases = [
        (
            at(plain(), None),
            "Pending",
            "waiting for the operator",
            "Reconciling",
        ),
        (
            at(ready(), None),
            "Pending",
            "waiting for the operator",
            "Reconciling",
        ),
        (
            at(suspended(), None),
            "Suspended",
            "sepolia is suspended",
            "Reconciling",
        ),
        (
            at(unready(), None),
            "RegistryNotReady",
            "is not ready: no funds",
            "Reconciling",
        ),
        (
            at(plain(), recorded(json!({}))),
            "Pending",
            "waiting for a nonce",
            "Reconciling",
        ),
        (
            at(unready(), recorded(json!({ "phase": "Bound" }))),
            "RegistryNotReady",
            "no funds",
            "Reconciling",
        ),
        (at(plain(), sent()), "Registering", "0x3333", "Reconciling"),
        (
            at(suspended(), sent()),
            "Suspended",
            "sepolia is suspended",
            "Reconciling",
        ),
        (
            at(
                suspended(),
                recorded(json!({ "phase": "Included", "attempts": [attempt()] })),
            ),
            "AwaitingFinality",
            "0x3333",
            "Reconciling",
        ),
        (
            at(plain(), recorded(json!({ "phase": "Reverted" }))),
            "RegistrationReverted",
            "edition",
            "Stalled",
        ),
    ];
    for (observed, reason, text, kstatus) in cases {
        let status = status_of(observed);
        for type_ in ["Registered", "Ready"] {
            assert_eq!(
                condition(&status, type_),
                Some((ConditionStatus::False, reason))
            );
        }
        assert!(
            message(&status, "Registered").contains(text),
            "{}",
            message(&status, "Registered")
        );
        assert_eq!(abnormal(&status), Some(kstatus), "{reason}");
        assert_eq!(
            condition(&status, "Accepted"),
            Some((ConditionStatus::True, "Accepted"))
        );
    }
}

#[test]
fn issues_are_reported_with_who_has_to_act() {
    let refused = OfferIssue::AdoptionRefused(AdoptionRefused::AgentNotFound);
    let other = OfferIssue::OtherAgent {
        wanted: "12".into(),
        name: "r-x".into(),
        recorded: None,
    };
    let taken = OfferIssue::KeyTaken {
        name: "r-x".into(),
        other: "shop/other".into(),
    };
    let cases = [
        (
            OfferIssue::AdoptionRequired {
                legacy: "a request".into(),
            },
            "AdoptionRequired",
            "Stalled",
        ),
        (refused, "AdoptionRefused", "Stalled"),
        (other, "OtherAgent", "Stalled"),
        (taken, "KeyTaken", "Stalled"),
        (
            OfferIssue::Shortage(Shortage::InsufficientFunds {
                balance: 0,
                needed: 1,
            }),
            "InsufficientFunds",
            "Reconciling",
        ),
        (
            OfferIssue::RegistrationWouldRevert { words: "no".into() },
            "RegistrationWouldRevert",
            "Reconciling",
        ),
    ];
    for (issue, reason, kstatus) in cases {
        for record in [None, recorded(json!({}))] {
            let status = status_of(ObservedOffer {
                issue: Some(issue.clone()),
                record,
                ..observed(json!({}))
            });
            assert_eq!(
                condition(&status, "Registered"),
                Some((ConditionStatus::False, reason))
            );
            assert_eq!(
                (message(&status, "Ready"), abnormal(&status)),
                (&*issue.to_string(), Some(kstatus))
            );
        }
        let done = status_of(ObservedOffer {
            issue: Some(issue.clone()),
            record: registered(),
            ..observed(json!({}))
        });
        let is_reported = condition(&done, "Registered") == Some((ConditionStatus::False, reason));
        assert_eq!(
            is_reported,
            issue.needs_action(),
            "a registered offer reports only issues that need action: {reason}"
        );
    }
}

#[test]
fn unresolved_offer_says_why() {
    let unresolved_offer = |unresolved| ObservedOffer {
        registry: None,
        eligibility: None,
        unresolved,
        ..observed(json!({}))
    };
    let status = status_of(unresolved_offer(Some(Unresolved::NoRegistry)));
    assert_eq!(
        condition(&status, "Registered"),
        Some((ConditionStatus::False, "NoRegistry"))
    );
    assert_eq!((abnormal(&status), &status.url), (Some("Stalled"), &None));
    let status = status_of(unresolved_offer(None));
    assert_eq!(
        condition(&status, "Registered"),
        Some((ConditionStatus::False, "Pending"))
    );
    assert_eq!(abnormal(&status), Some("Reconciling"));
}

#[test]
fn ineligible_offer_says_why_before_and_after_registration() {
    let status_if = |eligibility: Eligibility, record| {
        status_of(ObservedOffer {
            eligibility: Some(eligibility),
            record,
            ..observed(json!({}))
        })
    };
    let unacceptable = Eligibility::Unacceptable(Unacceptable::InvalidDrain);
    for (eligibility, reason, kstatus) in [
        (unacceptable, "InvalidDrain", "Stalled"),
        (
            Eligibility::NamespaceNotAllowed,
            "NamespaceNotAllowed",
            "Stalled",
        ),
        (
            Eligibility::UpstreamMissing,
            "WaitingForUpstream",
            "Reconciling",
        ),
        (Eligibility::Drained, "Drained", "Stalled"),
        (Eligibility::Deleted, "Pending", "Reconciling"),
    ] {
        let status = status_if(eligibility, recorded(json!({})));
        assert_eq!(
            condition(&status, "Registered"),
            Some((ConditionStatus::False, reason))
        );
        assert_eq!(abnormal(&status), Some(kstatus), "{reason}");
    }
    for (eligibility, reason) in [
        (Eligibility::NamespaceNotAllowed, "NamespaceNotAllowed"),
        (Eligibility::Drained, "Drained"),
    ] {
        let status = status_if(eligibility, registered());
        assert_eq!(
            condition(&status, "Registered"),
            Some((ConditionStatus::True, "Registered"))
        );
        assert_eq!(
            condition(&status, "Ready"),
            Some((ConditionStatus::False, reason))
        );
        assert_eq!(abnormal(&status), Some("Stalled"));
    }
}

#[test]
fn offer_with_registration_disabled_is_ready() {
    let off = || json!({ "spec": { "registration": { "enabled": false } } });
    let disabled = |record| ObservedOffer {
        eligibility: Some(Eligibility::Disabled),
        record,
        ..observed(off())
    };
    let status = status_of(disabled(None));
    assert_eq!(
        condition(&status, "Registered"),
        Some((ConditionStatus::True, "Disabled"))
    );
    assert_eq!(
        condition(&status, "Ready"),
        Some((ConditionStatus::True, "Reconciled"))
    );
    assert_eq!(message(&status, "Registered"), "registration is disabled");
    let kept = status_of(disabled(registered()));
    assert!(message(&kept, "Registered").contains("agent 3 keeps its id"));
    assert_eq!(kept.agent_id.as_deref(), Some("3"));
}

#[test]
fn unacceptable_offer_is_not_accepted_whatever_else_is_missing() {
    let over = json!({ "spec": { "drainAt": "soon" } });
    let status = status_of(ObservedOffer {
        upstream_exists: false,
        record: registered(),
        ..observed(over)
    });
    for type_ in ["Accepted", "Ready"] {
        assert_eq!(
            condition(&status, type_),
            Some((ConditionStatus::False, "InvalidDrain"))
        );
    }
    assert_eq!(
        condition(&status, "UpstreamHealthy"),
        Some((ConditionStatus::False, "MissingService"))
    );
    assert_eq!(abnormal(&status), Some("Stalled"));
}

#[test]
fn missing_service_keeps_the_offer_reconciling() {
    let status = status_of(ObservedOffer {
        upstream_exists: false,
        record: registered(),
        ..observed(json!({}))
    });
    for type_ in ["UpstreamHealthy", "Ready"] {
        assert_eq!(
            condition(&status, type_),
            Some((ConditionStatus::False, "MissingService"))
        );
        assert!(message(&status, type_).starts_with("Service shop/backend does not exist"));
    }
    assert_eq!(abnormal(&status), Some("Reconciling"));
}

#[test]
fn fields_without_effect_are_listed() {
    let status = status_of(observed(
        json!({ "spec": { "hostname": "chat.example.org" } }),
    ));
    assert_eq!(
        condition(&status, "Accepted"),
        Some((ConditionStatus::True, "PartlySupported"))
    );
    assert!(message(&status, "Accepted").ends_with(": hostname"));
}

#[test]
fn uri_mismatch_is_reported_unless_the_agent_was_adopted() {
    let elsewhere = json!({ "phase": "Registered", "result": result("3"), "agentUri": "https://old.example/a.json" });
    let mut adopted = elsewhere.clone();
    merge(&mut adopted, json!({ "adopt": "3" }));
    let is_reported = |spec| {
        let status = status_of(ObservedOffer {
            record: recorded(spec),
            ..observed(json!({}))
        });
        message(&status, "Registered").contains("its URI on chain is https://old.example/a.json")
    };
    assert!(is_reported(elsewhere) && !is_reported(adopted));
}

#[test]
fn registration_status_is_never_removed() {
    let key = recorded(json!({})).unwrap().key;
    let said = json!({ "status": { "registration": { "registry": "sepolia", "key": key } } });
    let lost = status_of(observed(said.clone())).registration.unwrap();
    assert_eq!(
        (lost.key, lost.registry.as_deref()),
        (Some(key), Some("sepolia")),
        "the record was deleted"
    );
    let unresolved = Some(Unresolved::NoRegistry);
    let status = status_of(ObservedOffer {
        registry: None,
        unresolved,
        record: recorded(json!({})),
        ..observed(said)
    });
    assert_eq!(
        status.registration.unwrap().registry.as_deref(),
        Some("sepolia")
    );
    assert_eq!(
        status_of(observed(json!({}))).registration,
        None,
        "without a record no key is written"
    );
}

#[test]
fn registration_in_flight_shows_its_last_transaction() {
    let spec = json!({ "phase": "Sent", "attempts": [attempt()], "agentUri": "https://x" });
    let status = status_of(ObservedOffer {
        record: recorded(spec),
        ..observed(json!({}))
    });
    let shown = status.registration.unwrap();
    assert_eq!(
        (shown.transaction, shown.final_),
        (Some(format!("0x{}", "33".repeat(32))), Some(false))
    );
    assert_eq!(
        (shown.agent_uri, shown.agent_id, shown.block),
        (None, None, None)
    );
    assert_eq!(
        status.registration_tx_hash, None,
        "only the final transaction"
    );
}

#[test]
fn price_shows_amount_token_and_unit() {
    let shown = |payment: Value| {
        let mut over = observed(json!({})).offer;
        over.spec.payment = serde_json::from_value({
            let mut base = json!({ "network": "base-sepolia", "price": {} });
            merge(&mut base, payment);
            base
        })
        .unwrap();
        status_of(ObservedOffer {
            offer: over,
            ..observed(json!({}))
        })
        .price
    };
    for (price, text) in [
        (
            json!({ "perRequest": "0.002", "perHour": "9" }),
            "0.002/request",
        ),
        (json!({ "perMTok": "1" }), "1/MTok"),
        (json!({ "perHour": "2" }), "2/hour"),
        (json!({ "perEpoch": "3" }), "3/epoch"),
        (json!({ "perMB": "4" }), "4/MB"),
    ] {
        assert_eq!(shown(json!({ "price": price })).as_deref(), Some(text));
    }
    let hourly = json!({ "perHour": "2" });
    assert_eq!(
        shown(json!({ "price": hourly, "card": { "currency": "EUR" } })).as_deref(),
        Some("2 EUR/hour")
    );
    assert_eq!(shown(json!({})), None);
}

#[test]
fn undecodable_offer_reports_only_that() {
    let subject = OfferSubject::Undecodable {
        error: "missing field `payment`".into(),
        record: None,
    };
    let OfferPlan {
        status,
        strip_finalizer,
        events,
    } = plan(&OfferView {
        subject,
        ..view(observed(json!({})))
    });
    let types: Vec<&str> = status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    assert_eq!(types, ["Accepted", "Ready", "Stalled"]);
    assert!(message(&status, "Ready").contains("missing field `payment`"));
    assert_eq!(
        condition(&status, "Ready"),
        Some((ConditionStatus::False, "Undecodable"))
    );
    assert_eq!(
        (status.observed_generation, strip_finalizer),
        (Some(4), false)
    );
    let said = ServiceOfferStatus {
        conditions: vec![],
        observed_generation: None,
        ..status
    };
    assert_eq!(said, ServiceOfferStatus::default());
    assert_eq!(events.len(), 1);
}

#[test]
fn undecodable_offer_keeps_its_key() {
    let unreadable = |record: Option<AgentRegistrationSpec>, applied| {
        let subject = OfferSubject::Undecodable {
            error: String::new(),
            record: record.map(Box::new),
        };
        plan(&OfferView {
            subject,
            applied,
            ..view(observed(json!({})))
        })
        .status
        .registration
    };
    let key = registered().unwrap().key;
    let by_its_record = unreadable(registered(), None).unwrap();
    assert_eq!(
        (by_its_record.key, by_its_record.registry),
        (Some(key), None)
    );
    let applied = status_of(ObservedOffer {
        record: registered(),
        ..observed(json!({}))
    });
    assert_eq!(
        unreadable(None, Some(applied.clone())),
        applied.registration
    );
    let both = unreadable(registered(), Some(applied)).unwrap();
    assert_eq!(
        (both.key, both.registry.as_deref()),
        (Some(key), Some("sepolia"))
    );
}

#[test]
fn only_the_legacy_finalizer_is_removed() {
    let strip = |finalizers: Value| {
        plan(&view(observed(
            json!({ "metadata": { "finalizers": finalizers } }),
        )))
        .strip_finalizer
    };
    assert!(strip(json!([
        "other.example/x",
        "monetize.obol.org/finalizer"
    ])));
    assert!(!strip(json!(["other.example/x"])) && !strip(json!([])));
}

#[test]
fn status_changes_without_an_event_when_the_drain_ends() {
    let next = |over: Value| view(observed(json!({ "spec": over }))).next_change();
    assert_eq!(next(json!({})), None);
    let draining = json!({ "drainAt": "1970-01-01T00:00:10Z", "drainGracePeriod": "20s" });
    assert_eq!(
        next(draining),
        Some(Duration::from_secs(31)),
        "one second after the drain ends"
    );
    assert_eq!(
        next(json!({ "drainAt": "1970-01-01T00:00:00Z", "drainGracePeriod": "0" })),
        None
    );
    assert_eq!(next(json!({ "drainAt": "soon" })), None);
    let subject = OfferSubject::Undecodable {
        error: String::new(),
        record: None,
    };
    assert_eq!(
        OfferView {
            subject,
            ..view(observed(json!({})))
        }
        .next_change(),
        None
    );
}

mod writes {
    use super::*;

    fn ready() -> ServiceOfferStatus {
        status_of(ObservedOffer {
            record: registered(),
            ..observed(json!({}))
        })
    }

    #[test]
    fn is_true_for_every_field_that_differs() {
        let (planned, none) = (ready(), ServiceOfferStatus::default());
        assert!(must_write(&none, None, &planned));
        assert!(!must_write(&planned, None, &planned));
        assert!(!must_write(&planned, Some(&planned), &planned));
        assert!(
            must_write(&none, Some(&planned), &planned),
            "another client removed it"
        );
        for changed in [
            ServiceOfferStatus {
                observed_generation: Some(5),
                ..ready()
            },
            ServiceOfferStatus {
                endpoint: Some("/x".into()),
                ..ready()
            },
            ServiceOfferStatus {
                url: Some("https://x".into()),
                ..ready()
            },
            ServiceOfferStatus {
                price: Some("1/hour".into()),
                ..ready()
            },
            ServiceOfferStatus {
                agent_id: Some("4".into()),
                ..ready()
            },
            ServiceOfferStatus {
                registration_tx_hash: Some("0x1".into()),
                ..ready()
            },
            ServiceOfferStatus {
                registration: Some(RegistrationStatus::default()),
                ..ready()
            },
            status_of(observed(json!({}))),
        ] {
            assert!(must_write(&planned, Some(&planned), &changed));
        }
    }

    #[test]
    fn ignores_conditions_of_other_controllers() {
        let foreign = Condition {
            type_: "RoutePublished".into(),
            ..ready().conditions[0].clone()
        };
        let mut current = ready();
        current.conditions.insert(0, foreign);
        assert!(!must_write(&current, None, &ready()));
    }

    #[test]
    fn removes_an_own_condition_once_and_then_leaves_it() {
        let mut current = ready();
        let stalled = Condition {
            type_: "Stalled".into(),
            ..current.conditions[0].clone()
        };
        current.conditions.push(stalled);
        assert!(must_write(&current, None, &ready()));
        assert!(
            !must_write(&current, Some(&ready()), &ready()),
            "the field stays whatever is applied"
        );
    }

    #[test]
    fn keeps_the_transition_time_while_the_cache_lags() {
        let mut late = view(ObservedOffer {
            record: registered(),
            ..observed(json!({}))
        });
        late.applied = Some(ready());
        late.now = Timestamp::from_second(60).unwrap();
        assert_eq!(plan(&late).status, ready());
    }
}

mod events {
    use super::*;

    fn events_between(before: ObservedOffer, after: ObservedOffer) -> Vec<(bool, String)> {
        let after = OfferView {
            applied: Some(status_of(before)),
            ..view(after)
        };
        plan(&after)
            .events
            .into_iter()
            .map(|event| (event.warning, event.reason))
            .collect()
    }

    #[test]
    fn report_a_registration_once() {
        let done = || ObservedOffer {
            record: registered(),
            ..observed(json!({}))
        };
        assert_eq!(
            events_between(observed(json!({})), done()),
            [(false, "Registered".into())]
        );
        assert_eq!(events_between(done(), done()), []);
        let event = &plan(&view(done())).events[0];
        assert!(
            event.message.contains("agent 3 of registry"),
            "{}",
            event.message
        );
    }

    #[test]
    fn report_each_new_stall_and_not_its_end() {
        let waiting = || observed(json!({}));
        let drained = || ObservedOffer {
            eligibility: Some(Eligibility::Drained),
            ..observed(json!({}))
        };
        let barred = || ObservedOffer {
            eligibility: Some(Eligibility::NamespaceNotAllowed),
            ..observed(json!({}))
        };
        assert_eq!(
            events_between(waiting(), drained()),
            [(true, "Drained".into())]
        );
        assert_eq!(
            events_between(drained(), barred()),
            [(true, "NamespaceNotAllowed".into())]
        );
        assert_eq!(events_between(drained(), drained()), []);
        assert_eq!(events_between(drained(), waiting()), []);
    }
}
