//! An offer's status in every phase of its registration, and when it is written.

use serde_json::{Value, json};

use super::*;
use crate::api::AgentResolution;
use crate::gate::health::{UpstreamHealth, UpstreamState};
use crate::gate::report::OfferReport;
use crate::gate::table::tests::{sold, table};
use crate::ledger::money::Shortage;
use crate::ledger::protocol::AdoptionRefused;
use crate::registration::contract::Contract;
use crate::registration::fixtures::{merge, offer, record, registry, result};
use crate::registration::identity::Unresolved;
use crate::registration::view::OfferAgentView;

const URI: &str = "https://agents.example/agents/";

fn now() -> Timestamp {
    Timestamp::from_second(0).unwrap()
}

/// What is known of an offer.
struct Given {
    offer: ServiceOffer,
    registry: IdentityRegistry,
    /// Why it resolves to no registry.
    unresolved: Option<Unresolved>,
    eligibility: Eligibility,
    record: Option<AgentRegistrationSpec>,
    issue: Option<OfferIssue>,
    owner: Option<Address>,
    gate: Option<GateView>,
    upstream_exists: bool,
}

/// An offer without a record, on a registry that is ready.
fn observed(over: Value) -> Given {
    Given {
        offer: offer(over),
        registry: registry(json!({})),
        unresolved: None,
        eligibility: Eligibility::Eligible,
        record: None,
        issue: None,
        owner: None,
        gate: None,
        upstream_exists: true,
    }
}

impl Given {
    fn observed(self) -> ObservedOffer {
        let record = self.record.map(Arc::new);
        let agent = OfferAgentView {
            contract: Contract::of(&self.registry).unwrap(),
            registry: Arc::new(self.registry),
            identity: "shop/chat".into(),
            key: recorded(json!({})).unwrap().key,
            eligibility: self.eligibility,
            record: record.clone(),
        };
        let view = OfferView {
            name: ("shop".into(), "chat".into()),
            offer: Arc::new(self.offer),
            agent: self.unresolved.map_or(Ok(agent), Err),
            records: record.into_iter().collect(),
            upstream_exists: self.upstream_exists,
        };
        ObservedOffer {
            view,
            issue: self.issue,
            gate: self.gate,
            owner: self.owner,
        }
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

fn view(given: Given) -> OfferSnapshot {
    let object = ObjectReference::default();
    OfferSnapshot {
        object,
        generation: Some(4),
        now: now(),
        applied: None,
        other_gate: OtherGate::default(),
        subject: OfferSubject::Offer(Box::new(given.observed())),
    }
}

fn status_of(observed: Given) -> ServiceOfferStatus {
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
    let status = status_of(Given {
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
        owner: None,
        transaction: Some(format!("0x{}", "22".repeat(32))),
        block: Some(7),
        final_: Some(true),
    };
    assert_eq!(status.registration, Some(registration));
}

#[test]
fn every_phase_has_a_reason_and_a_message() {
    let suspended = || registry(json!({ "spec": { "suspend": "Spending" } }));
    let unready =
        json!([{ "type": "Ready", "status": "False", "reason": "X", "message": "no funds" }]);
    let unready = || registry(json!({ "status": { "conditions": unready } }));
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let ready = || registry(json!({ "status": { "conditions": ready } }));
    let sent = || recorded(json!({ "phase": "Sent", "attempts": [attempt()] }));
    let at = |registry, record| Given {
        registry,
        record,
        ..observed(json!({}))
    };
    let plain = || registry(json!({}));
    let secret = json!({ "name": "signer", "key": "key" });
    let signers = json!([{ "address": format!("0x{}", "11".repeat(20)), "secretRef": secret }]);
    let signing = || registry(json!({ "spec": { "signers": signers } }));
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
            "WatchOnly",
            "sepolia has no signers",
            "Reconciling",
        ),
        (
            at(signing(), recorded(json!({}))),
            "Pending",
            "waiting for a nonce",
            "Reconciling",
        ),
        (
            at(
                signing(),
                recorded(json!({ "signer": signers[0]["address"] })),
            ),
            "Pending",
            "of signer 0x1111",
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
    let refused = OfferIssue::AdoptionRefused(AdoptionRefused::AgentNotFound { id: "9".into() });
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
        (
            OfferIssue::SendRefused { words: "no".into() },
            "SendRefused",
            "Reconciling",
        ),
        (
            OfferIssue::SignerInUse {
                holder: "idr".into(),
            },
            "SignerInUse",
            "Stalled",
        ),
    ];
    for (issue, reason, kstatus) in cases {
        for record in [None, recorded(json!({}))] {
            let status = status_of(Given {
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
        let done = status_of(Given {
            issue: Some(issue.clone()),
            record: registered(),
            ..observed(json!({}))
        });
        let is_reported = condition(&done, "Registered") == Some((ConditionStatus::False, reason));
        assert_eq!(
            is_reported,
            issue.outlasts_registration(),
            "a registered offer reports only issues with its agent: {reason}"
        );
    }
}

#[test]
fn unresolved_offer_says_why() {
    let status = status_of(Given {
        unresolved: Some(Unresolved::NoRegistry),
        ..observed(json!({}))
    });
    assert_eq!(
        condition(&status, "Registered"),
        Some((ConditionStatus::False, "NoRegistry"))
    );
    assert_eq!((abnormal(&status), &status.url), (Some("Stalled"), &None));
}

#[test]
fn ineligible_offer_says_why_before_and_after_registration() {
    let status_if = |eligibility: Eligibility, record| {
        status_of(Given {
            eligibility,
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
    let disabled = |record| Given {
        eligibility: Eligibility::Disabled,
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
    let status = status_of(Given {
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
    assert_eq!(abnormal(&status), Some("Stalled"));
}

#[test]
fn missing_service_keeps_the_offer_reconciling() {
    let status = status_of(Given {
        upstream_exists: false,
        record: registered(),
        ..observed(json!({}))
    });
    assert_eq!(
        condition(&status, "Ready"),
        Some((ConditionStatus::False, "MissingService"))
    );
    assert!(message(&status, "Ready").starts_with("Service shop/backend does not exist"));
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
fn uri_mismatch_of_a_registered_agent_is_reported() {
    let elsewhere = json!({ "phase": "Registered", "result": result("3"), "agentUri": "https://old.example/a.json" });
    let status = status_of(Given {
        record: recorded(elsewhere),
        ..observed(json!({}))
    });
    let mismatch = message(&status, "Registered");
    assert!(mismatch.contains("its URI on chain is https://old.example/a.json but"));

    let status = status_of(Given {
        record: registered(),
        ..observed(json!({}))
    });
    assert!(!message(&status, "Registered").contains("URI"));
}

#[test]
fn adopted_agent_shows_its_owner_and_where_the_chain_points() {
    let key = recorded(json!({})).unwrap().key;
    let owner = Address::repeat_byte(0x0a);
    let says = |uri: Option<&str>, owner, signer: Option<Address>| {
        let mut record = recorded(json!({ "adopt": "3", "result": result("3") })).unwrap();
        record.agent_uri = uri.map(str::to_owned);
        let secret = json!({ "name": "s", "key": "k" });
        let signers: Vec<Value> = signer
            .iter()
            .map(|signer| json!({ "address": signer, "secretRef": secret }))
            .collect();
        let status = status_of(Given {
            record: Some(record),
            registry: registry(json!({ "spec": { "signers": signers } })),
            owner,
            ..observed(json!({}))
        });
        assert_eq!(
            status.registration.as_ref().unwrap().owner,
            owner.map(|owner| owner.to_string())
        );
        message(&status, "Registered").to_owned()
    };
    let here = format!("{URI}{key}.json");
    let stranger = says(
        Some("https://stranger.example/card.json"),
        Some(owner),
        None,
    );
    for text in [
        "adopted at block 7",
        &format!("owned by {owner}, which is no signer of IdentityRegistry sepolia"),
        "its URI on chain is https://stranger.example/card.json and not the document here",
        &here,
    ] {
        assert!(stranger.contains(text), "{stranger}");
    }
    let own = says(Some(&here), Some(owner), Some(owner));
    assert!(own.contains(&format!("owned by signer {owner}")), "{own}");
    assert!(
        own.ends_with("its URI on chain is the document here"),
        "{own}"
    );
    let unknown = says(None, None, None);
    assert!(unknown.contains("a block explorer shows"), "{unknown}");
    assert!(unknown.contains("is empty or too long"), "{unknown}");
    let long = says(Some(&format!("data:{}", "x".repeat(1000))), None, None);
    assert!(long.len() < 700 && long.contains("xx..."), "{long}");
}

#[test]
fn owner_of_an_adopted_agent_is_kept_in_the_status() {
    let key = recorded(json!({})).unwrap().key;
    let kept = |key: Value, spec: Value| {
        let registration = json!({ "key": key, "owner": "0x0a" });
        let status = status_of(Given {
            record: recorded(spec),
            ..observed(json!({ "status": { "registration": registration } }))
        });
        status.registration.unwrap().owner
    };
    let adopted = || json!({ "adopt": "3", "result": result("3") });
    assert_eq!(kept(json!(key), adopted()).as_deref(), Some("0x0a"));
    assert_eq!(kept(json!("aaaaaaaaaaaaaaaa"), adopted()), None);
    assert_eq!(kept(json!(key), json!({ "result": result("3") })), None);
    assert_eq!(kept(json!(key), json!({ "adopt": "3" })), None);
    let unknown = status_of(Given {
        record: recorded(adopted()),
        ..observed(json!({ "status": { "agentId": "3" } }))
    });
    assert_eq!(unknown.registration.unwrap().owner, None);
}

#[test]
fn registry_that_was_not_looked_at_yet_blocks_nothing() {
    for status in [json!(null), json!({ "conditions": [] })] {
        let registry = registry(json!({ "status": status }));
        assert!(registry_blocks(&registry).is_none(), "{status}");
    }
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
    let status = status_of(Given {
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
    let status = status_of(Given {
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
        status_of(Given {
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
    let token = json!({ "price": hourly, "asset": { "symbol": "USDC" } });
    assert_eq!(shown(token).as_deref(), Some("2 USDC/hour"));
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
    } = plan(&OfferSnapshot {
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
            record: record.map(Arc::new),
        };
        plan(&OfferSnapshot {
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
    let applied = status_of(Given {
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
fn status_changes_without_an_event_when_the_drain_begins_and_ends() {
    let next = |over: Value| view(observed(json!({ "spec": over }))).next_change();
    assert_eq!(next(json!({})), None);
    let draining = json!({ "drainAt": "1970-01-01T00:00:10Z", "drainGracePeriod": "20s" });
    assert_eq!(
        next(draining),
        Some(Duration::from_secs(11)),
        "one second after the drain begins"
    );
    let begun = json!({ "drainAt": "1969-12-31T23:59:50Z", "drainGracePeriod": "20s" });
    assert_eq!(
        next(begun),
        Some(Duration::from_secs(11)),
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
        OfferSnapshot {
            subject,
            ..view(observed(json!({})))
        }
        .next_change(),
        None
    );
}

#[test]
fn offer_of_a_registry_that_is_suspended_as_a_whole_is_left_alone() {
    let of = |suspend: &str| {
        let suspend = json!({ "spec": { "suspend": suspend } });
        view(Given {
            registry: registry(suspend),
            ..observed(json!({}))
        })
    };
    assert!(of("All").is_suspended());
    assert!(!of("Spending").is_suspended() && !of("None").is_suspended());
    let undecodable = OfferSnapshot {
        subject: OfferSubject::Undecodable {
            error: String::new(),
            record: None,
        },
        ..of("All")
    };
    assert!(!undecodable.is_suspended());
}

/// An offer that a gate sells, and has sold since this generation.
fn on_sale(generation: i64) -> Given {
    let offer = sold("shop", "chat", json!({}));
    let report = OfferReport {
        uid: "shop/chat".into(),
        generation,
        health: Some(UpstreamHealth {
            state: UpstreamState::Healthy,
            answer: "status 200".into(),
        }),
    };
    Given {
        gate: Some(GateView {
            table: Arc::new(table(vec![offer.clone()])),
            report: Some(report),
            is_reporting: true,
        }),
        offer,
        eligibility: Eligibility::Disabled,
        ..observed(json!({}))
    }
}

#[test]
fn offer_that_a_gate_sells_is_ready_once_the_gate_says_so() {
    let status = status_of(on_sale(4));
    let ready = condition(&status, "Ready");
    assert_eq!(ready, Some((ConditionStatus::True, "Reconciled")));
    assert_eq!(status.price.as_deref(), Some("0.002 USDC/request"));
    let older = status_of(on_sale(3));
    let ready = condition(&older, "Ready");
    assert_eq!(ready, Some((ConditionStatus::False, "WaitingForGate")));
    assert!(must_write(&older, Some(&older), &status));
    let mut other = status.clone();
    let mut conditions = other.conditions.iter_mut();
    let sold = conditions.find(|condition| condition.type_ == "PaymentGateReady");
    sold.unwrap().reason = Some("Other".into());
    assert!(must_write(&other, None, &status));
}

#[test]
fn conditions_about_selling_are_left_alone_without_a_gate() {
    for upstream_exists in [true, false] {
        let status = status_of(Given {
            upstream_exists,
            ..observed(json!({}))
        });
        let mut conditions = status.conditions.iter();
        assert!(!conditions.any(|own| sale::CONDITIONS.contains(&own.type_.as_str())));
    }
}

#[test]
fn offer_that_another_controller_sells_is_stalled() {
    let mut snapshot = view(on_sale(4));
    let closed = json!({
        "type": "Stalled", "status": "True", "reason": "OtherGate", "message": "why",
    });
    let closed = serde_json::from_value(json!({ "conditions": [closed] })).unwrap();
    snapshot.other_gate = OtherGate::default().seen(&closed, None, now());
    let status = plan(&snapshot).status;
    for type_ in ["PaymentGateReady", "Ready"] {
        let expected = Some((ConditionStatus::False, "OtherGate"));
        assert_eq!(condition(&status, type_), expected);
    }
    assert_eq!(abnormal(&status), Some("Stalled"));
    assert_eq!(snapshot.next_change(), Some(Duration::from_secs(601)));
}

mod writes {
    use super::*;

    fn ready() -> ServiceOfferStatus {
        status_of(Given {
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
    fn is_true_once_for_a_field_that_is_no_longer_planned() {
        for planned in [
            ServiceOfferStatus {
                endpoint: None,
                ..ready()
            },
            ServiceOfferStatus {
                url: None,
                ..ready()
            },
            ServiceOfferStatus {
                price: None,
                ..ready()
            },
            ServiceOfferStatus {
                agent_id: None,
                ..ready()
            },
        ] {
            assert!(must_write(&ready(), None, &planned));
            assert!(!must_write(&ready(), Some(&planned), &planned));
        }
    }

    #[test]
    fn ignores_what_other_controllers_own() {
        let foreign = Condition {
            type_: "RoutePublished".into(),
            ..ready().conditions[0].clone()
        };
        let mut current = ready();
        current.conditions.insert(0, foreign);
        current.agent_resolution = Some(AgentResolution::default());
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
        let mut late = view(Given {
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

    fn events_between(before: Given, after: Given) -> Vec<(bool, String)> {
        let after = OfferSnapshot {
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
        let done = || Given {
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
        let drained = || Given {
            eligibility: Eligibility::Drained,
            ..observed(json!({}))
        };
        let barred = || Given {
            eligibility: Eligibility::NamespaceNotAllowed,
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
