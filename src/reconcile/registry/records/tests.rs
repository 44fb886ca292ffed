//! Offers that are created, share an agent, are created again and contradict each other.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::AgentRegistration;
use crate::registration::fixtures::{REGISTRY, offer, record, registry, result};

const SIGNER: Address = Address::repeat_byte(0x51);

fn record_defaults() -> RecordDefaults {
    let (registry, code_hash) = (REGISTRY.parse().unwrap(), B256::repeat_byte(0x11));
    RecordDefaults {
        chain_id: 84532,
        registry,
        code_hash,
        signer: Some(SIGNER),
    }
}

/// An offer of the namespace `shop` that asks for the agent of an identity.
fn claim(name: &str, identity: &str) -> OfferClaim {
    OfferClaim {
        name: ("shop".into(), name.into()),
        uid: format!("uid-{name}"),
        generation: Some(1),
        created: None,
        identity: identity.into(),
        key: Key::derive(identity, 84532, REGISTRY.parse().unwrap(), 1),
        edition: 1,
        adopt: None,
        legacy_agent_id: None,
        eligible: true,
        key_in_status: true,
    }
}

fn adopting(name: &str, identity: &str, agent_id: &str) -> OfferClaim {
    OfferClaim {
        adopt: Some(agent_id.into()),
        ..claim(name, identity)
    }
}

fn attempt() -> Value {
    serde_json::to_value(crate::ledger::fixtures::attempt(5, 7)).unwrap()
}

/// The record of `shop/chat`, listing that offer, with fields of its spec laid over it.
fn chat(spec: Value) -> AgentRegistration {
    let mut record = record("shop/chat", 1, json!({ "spec": { "signer": SIGNER } }));
    let mut own = serde_json::to_value(&record.spec).unwrap();
    crate::registration::fixtures::merge(&mut own, spec);
    record.spec = serde_json::from_value(own).unwrap();
    record
}

fn plan_of(claims: &[OfferClaim], records: &[AgentRegistration]) -> RecordPlan {
    plan_with(&registry(json!({})), claims, records)
}

fn plan_with(
    registry: &IdentityRegistry,
    claims: &[OfferClaim],
    records: &[AgentRegistration],
) -> RecordPlan {
    plan_where(registry, claims, records, &[])
}

/// The plan where the records of some keys cannot be decoded.
fn plan_where(
    registry: &IdentityRegistry,
    claims: &[OfferClaim],
    records: &[AgentRegistration],
    undecodable: &[Key],
) -> RecordPlan {
    let records: Vec<_> = records
        .iter()
        .map(|record| Arc::new(record.spec.clone()))
        .collect();
    let adoptions = Adoptions {
        registry,
        reservations: Vec::new(),
    };
    let inputs = RecordInputs {
        defaults: record_defaults(),
        adoptions: &adoptions,
        records: &records,
    };
    plan(inputs, claims, |key| {
        if undecodable.contains(&key) {
            return KnownRecord::Undecodable;
        }
        let mut records = records.iter();
        let found = records.find(|record| record.key == key).cloned();
        found.map_or(KnownRecord::Missing, KnownRecord::Decoded)
    })
}

/// What the only record becomes that the plan updates.
fn updated_by(plan: &RecordPlan, record: &AgentRegistration) -> AgentRegistrationSpec {
    let [(key, claims)] = &plan.update[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(*key, record.spec.key);
    updated(&record_defaults(), &record.spec, claims).unwrap()
}

fn names<'a>(claims: impl IntoIterator<Item = &'a OfferClaim>) -> Vec<&'a str> {
    claims
        .into_iter()
        .map(|claim| claim.name.1.as_str())
        .collect()
}

fn listed(record: &AgentRegistrationSpec) -> Vec<(&str, &str)> {
    record
        .offers
        .iter()
        .map(|offer| (offer.name.as_str(), offer.uid.as_str()))
        .collect()
}

#[test]
fn a_first_offer_gets_a_record_that_waits_for_a_nonce() {
    let plan = plan_of(&[claim("chat", "shop/chat")], &[]);
    let [(created, claims)] = &plan.create[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(*created, chat(json!({})).spec);
    assert_eq!(names(claims), ["chat"]);
    assert!(plan.update.is_empty() && plan.issues.is_empty());
}

#[test]
fn offers_of_one_identity_share_a_record_and_a_legacy_check() {
    let offers = [claim("b", "shop"), claim("a", "shop"), claim("c", "shop/c")];
    let plan = plan_of(&offers, &[]);
    let shared = plan
        .create
        .iter()
        .find(|(record, _)| record.identity == "shop")
        .unwrap();
    assert_eq!(listed(&shared.0), [("b", "uid-b"), ("a", "uid-a")]);
    assert_eq!(names(&shared.1), ["b", "a"]);
    assert_eq!(plan.create.len(), 2);
}

#[test]
fn an_offer_that_may_not_be_listed_asks_for_nothing() {
    let idle = OfferClaim {
        eligible: false,
        ..claim("chat", "shop/chat")
    };
    assert_eq!(
        plan_of(std::slice::from_ref(&idle), &[]),
        RecordPlan::default()
    );
    assert!(wanted(&[idle], &BTreeMap::new()).is_empty());
}

#[test]
fn an_offer_whose_record_stands_changes_nothing() {
    let records = [chat(
        json!({ "result": result("3"), "phase": "Registered" }),
    )];
    assert_eq!(
        plan_of(&[claim("chat", "shop/chat")], &records),
        RecordPlan::default()
    );
}

#[test]
fn recreated_offer_replaces_itself_and_a_second_one_is_added() {
    let recreated = OfferClaim {
        uid: "uid-recreated".into(),
        ..claim("chat", "shop/chat")
    };
    let elsewhere = OfferClaim {
        name: ("other".into(), "chat".into()),
        ..claim("chat", "shop/chat")
    };
    let stored = chat(json!({}));
    let claims = [recreated, claim("bot", "shop/chat"), elsewhere];
    let plan = plan_of(&claims, std::slice::from_ref(&stored));
    let amended = updated_by(&plan, &stored);
    assert_eq!(
        listed(&amended),
        [
            ("chat", "uid-recreated"),
            ("bot", "uid-bot"),
            ("chat", "uid-chat")
        ]
    );
    assert_eq!(amended.offers[2].namespace, "other");
}

#[test]
fn a_record_lists_no_more_offers_than_the_schema_admits() {
    let many: Vec<OfferClaim> = (0..MOST_OFFERS + 2)
        .map(|number| claim(&number.to_string(), "shop/chat"))
        .collect();
    let created = plan_of(&many, &[]);
    assert_eq!(created.create[0].0.offers.len(), MOST_OFFERS);
    let stored = chat(json!({}));
    let plan = plan_of(&many, std::slice::from_ref(&stored));
    assert_eq!(updated_by(&plan, &stored).offers.len(), MOST_OFFERS);
}

#[test]
fn an_agent_that_was_retired_is_revived_as_the_same_agent() {
    let dead = chat(json!({ "result": result("3"), "phase": "Tombstoned", "tombstone": true }));
    let plan = plan_of(&[claim("chat", "shop/chat")], std::slice::from_ref(&dead));
    let revived = updated_by(&plan, &dead);
    assert_eq!(
        (revived.phase, revived.tombstone),
        (Phase::Registered, None)
    );
    assert_eq!(revived.result, dead.spec.result);
}

#[test]
fn record_created_while_watch_only_gets_the_signer() {
    let watched = AgentRegistration {
        spec: AgentRegistrationSpec {
            signer: None,
            ..chat(json!({})).spec
        },
        ..chat(json!({}))
    };
    let offers = [claim("chat", "shop/chat")];
    let plan = plan_of(&offers, std::slice::from_ref(&watched));
    assert_eq!(updated_by(&plan, &watched).signer, Some(SIGNER));

    let mut done = watched.clone();
    done.spec.result = chat(json!({ "result": result("3") })).spec.result;
    assert_eq!(
        plan_of(&offers, &[done]),
        RecordPlan::default(),
        "what has its agent needs no signer"
    );
    let rotated = chat(json!({ "signer": Address::repeat_byte(0x99) }));
    assert_eq!(
        plan_of(&offers, &[rotated]),
        RecordPlan::default(),
        "a signer is never changed for another"
    );
}

#[test]
fn a_record_of_another_agent_under_the_same_key_is_never_used() {
    let other_place =
        json!({ "address": format!("0x{}", "ab".repeat(20)), "codeHash": B256::ZERO });
    for differs in [
        json!({ "identity": "shop/other" }),
        json!({ "edition": 2 }),
        json!({ "chainId": 1 }),
        json!({ "registry": other_place }),
    ] {
        let taken = chat(differs);
        let offers = [claim("chat", "shop/chat"), claim("bot", "shop/chat")];
        let plan = plan_of(&offers, std::slice::from_ref(&taken));
        assert!(plan.create.is_empty() && plan.update.is_empty());
        let issue = OfferIssue::KeyTaken {
            name: taken.spec.key.record_name(),
            other: taken.spec.identity.clone(),
        };
        assert!(plan.issues.len() == 2 && plan.issues.values().all(|found| *found == issue));
        assert!(wanted(&offers, &plan.issues).is_empty());
    }
}

#[test]
fn named_agent_is_adopted_for_all_offers_that_share_it() {
    let plan = plan_of(&[claim("a", "shop"), adopting("b", "shop", "12")], &[]);
    let [(created, _)] = &plan.create[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(created.adopt.as_deref(), Some("12"));
    assert_eq!(listed(created).len(), 2);
}

#[test]
fn first_of_several_agent_ids_decides_and_others_get_an_issue() {
    let plan = plan_of(
        &[adopting("a", "shop", "12"), adopting("b", "shop", "13")],
        &[],
    );
    let [(created, claims)] = &plan.create[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        (created.adopt.as_deref(), names(claims)),
        (Some("12"), vec!["a"])
    );
    let issue = &plan.issues[&("shop".into(), "b".into())];
    assert_eq!((issue.reason(), issue.needs_action()), ("OtherAgent", true));
    assert!(issue.to_string().contains("is for agent 12"), "{issue}");
}

#[test]
fn untouched_record_adopts_the_agent_that_its_offer_names() {
    let named = |claim: OfferClaim| OfferClaim {
        key_in_status: true,
        ..claim
    };
    let offers = [
        named(claim("a", "shop/chat")),
        named(adopting("chat", "shop/chat", "12")),
    ];
    let stored = chat(json!({}));
    let plan = plan_of(&offers, std::slice::from_ref(&stored));
    assert!(plan.issues.is_empty(), "{plan:?}");
    let updated = updated_by(&plan, &stored);
    assert_eq!(updated.adopt.as_deref(), Some("12"));
    assert_eq!(listed(&updated).len(), 2);
    let wanted = wanted(&offers, &plan.issues);
    assert_eq!(allocatable(&offers[..1], &wanted).len(), 1);
    assert!(
        allocatable(&offers, &wanted).is_empty(),
        "the record may not say so yet"
    );
}

#[test]
fn an_offer_that_names_an_agent_is_never_minted_for() {
    let offers = [adopting("chat", "shop/chat", "12")];
    for stands in [
        json!({ "attempts": [attempt()] }),
        json!({ "adopt": "13" }),
        json!({ "result": result("3") }),
    ] {
        let plan = plan_of(&offers, &[chat(stands.clone())]);
        assert!(plan.update.is_empty() && plan.create.is_empty(), "{stands}");
        assert_eq!(
            plan.issues[&offers[0].name].reason(),
            "OtherAgent",
            "{stands}"
        );
        assert!(
            wanted(&offers, &plan.issues).is_empty(),
            "no one asks for a nonce: {stands}"
        );
    }
    for same in [
        json!({ "adopt": "12" }),
        json!({ "result": result("12") }),
        json!({ "result": result("012") }),
    ] {
        assert_eq!(plan_of(&offers, &[chat(same)]), RecordPlan::default());
    }
}

#[test]
fn shared_identity_is_still_wanted_when_one_offer_is_refused() {
    let offers = [claim("a", "shop/chat"), adopting("b", "shop/chat", "12")];
    let stored = chat(json!({ "attempts": [attempt()] }));
    let plan = plan_of(&offers, std::slice::from_ref(&stored));
    assert_eq!(
        wanted(&offers, &plan.issues),
        BTreeMap::from([(offers[0].key, vec![offers[0].name.clone()])])
    );
    assert_eq!(
        listed(&updated_by(&plan, &stored)),
        [("chat", "uid-chat"), ("a", "uid-a")]
    );
}

fn guarded(offer: Value) -> MaybeDecoded<ServiceOffer> {
    serde_json::from_value(offer).unwrap()
}

#[test]
fn undecodable_offer_keeps_its_agent_and_blocks_no_other() {
    let (registries, key) = ([Arc::new(registry(json!({})))], chat(json!({})).spec.key);
    let readable = serde_json::to_value(offer(json!({}))).unwrap();
    assert!(may_use(&guarded(readable.clone()), &registries, key));
    let renamed = serde_json::to_value(offer(
        json!({ "spec": { "registration": { "identity": "x" } } }),
    ))
    .unwrap();
    assert!(!may_use(&guarded(renamed), &registries, key));
    let mut unreadable = readable;
    unreadable["spec"]["payment"] = json!("free");
    assert!(may_use(&guarded(unreadable), &registries, key));
}

#[test]
fn agent_is_in_use_if_any_registry_of_its_contract_leads_to_it() {
    let scoped = |scope: &str| Arc::new(registry(json!({ "spec": { "identityScope": scope } })));
    let (by_offer, by_namespace) = (scoped("Offer"), scoped("Namespace"));
    let offer = guarded(serde_json::to_value(offer(json!({}))).unwrap());
    let shared = Key::derive("shop", 84532, REGISTRY.parse().unwrap(), 1);
    assert!(!may_use(&offer, std::slice::from_ref(&by_offer), shared));
    assert!(may_use(&offer, &[by_offer, by_namespace], shared));
}

#[test]
fn key_is_allocatable_once_the_status_of_its_offer_names_it() {
    let undecided = OfferClaim {
        key_in_status: false,
        ..claim("chat", "shop/chat")
    };
    let other = OfferClaim {
        key_in_status: false,
        ..claim("other", "shop/other")
    };
    let both = [undecided.clone(), claim("same", "shop/chat"), other.clone()];
    let wanted_by = |claims: &[OfferClaim]| allocatable(claims, &wanted(claims, &BTreeMap::new()));
    assert_eq!(
        wanted_by(&both),
        BTreeSet::from([undecided.key]),
        "one of those that share it is enough"
    );
    assert_eq!(wanted_by(&[undecided, other]), BTreeSet::new());
    let gone = OfferClaim {
        eligible: false,
        ..claim("chat", "shop/chat")
    };
    assert_eq!(wanted_by(&[gone]), BTreeSet::new(), "no one wants it");
}

#[test]
fn agent_id_beyond_256_bits_does_not_exist() {
    let huge = "9".repeat(78);
    for records in [vec![], vec![chat(json!({}))]] {
        let plan = plan_of(&[adopting("chat", "shop/chat", &huge)], &records);
        assert!(plan.create.is_empty() && plan.update.is_empty());
        let issue = &plan.issues[&("shop".into(), "chat".into())];
        let id = huge.clone();
        assert_eq!(*issue, AdoptionRefused::AgentNotFound { id }.into());
    }
}

#[test]
fn offer_that_asks_for_a_claimed_agent_gets_no_record() {
    let holder = chat(json!({ "adopt": "12", "result": result("12") }));
    let offers = [adopting("b", "shop/b", "12")];
    let plan = plan_of(&offers, std::slice::from_ref(&holder));
    assert!(plan.create.is_empty(), "its identity is not frozen");
    let issue = &plan.issues[&offers[0].name];
    assert_eq!(issue.reason(), "AdoptionConflict");
    assert!(
        issue.to_string().ends_with("both offers to chat"),
        "{issue}"
    );
    let untouched = record("shop/b", 1, json!({ "spec": { "signer": SIGNER } }));
    let plan = plan_of(&offers, &[holder.clone(), untouched]);
    assert!(plan.update.is_empty(), "nor does its record change");
    assert_eq!(plan.issues[&offers[0].name].reason(), "AdoptionConflict");
    let mut elsewhere = holder;
    elsewhere.spec.chain_id = 1;
    assert_eq!(plan_of(&offers, &[elsewhere]).create.len(), 1);
}

#[test]
fn agent_that_an_admin_gave_away_is_an_issue_of_its_offers() {
    let holder = chat(json!({ "adopt": "12", "result": result("12") }));
    let offers = [adopting("chat", "shop/chat", "12")];
    let found = |namespace: &str| {
        let adoptions = json!([{ "agentId": "12", "namespace": namespace }]);
        let registry = registry(json!({ "spec": { "adoptions": adoptions } }));
        plan_with(&registry, &offers, std::slice::from_ref(&holder)).issues
    };
    assert!(found("shop").is_empty());
    assert_eq!(found("bank")[&offers[0].name].reason(), "AdoptionConflict");
}

#[test]
fn record_that_cannot_be_decoded_is_an_issue_of_its_offers() {
    let offers = [claim("chat", "shop/chat")];
    let plan = plan_where(&registry(json!({})), &offers, &[], &[offers[0].key]);
    assert!(plan.create.is_empty() && plan.update.is_empty());
    assert_eq!(plan.issues[&offers[0].name].reason(), "RecordUndecodable");
}

#[test]
fn unregistered_records_of_a_namespace_are_bounded() {
    let unregistered = |namespace: &str, number: usize, spec: Value| {
        let identity = format!("{namespace}/gone-{number}");
        record(&identity, 1, json!({ "spec": spec }))
    };
    let gone = || json!({ "tombstone": true, "phase": "Tombstoned" });
    let mut records: Vec<_> = (1..MOST_UNREGISTERED)
        .map(|number| unregistered("shop", number, gone()))
        .collect();
    records.push(unregistered("bank", 0, gone()));
    records.push(unregistered("shop", 0, json!({ "result": result("3") })));
    records.push(unregistered("shop", 900, json!({ "chainId": 1 })));
    let offers = [claim("old", "shop/old"), claim("young", "shop/young")];
    let plan = plan_of(&offers, &records);
    assert_eq!(names(&plan.create[0].1), ["old"], "the oldest comes first");
    assert_eq!(plan.create.len(), 1);
    let issue = OfferIssue::TooManyUnregistered {
        namespace: "shop".into(),
        limit: MOST_UNREGISTERED,
    };
    assert_eq!(plan.issues, [(offers[1].name.clone(), issue)].into());
    let shared = claim("all", "");
    assert_eq!(
        plan_of(&[shared], &records).create.len(),
        1,
        "no namespace pays"
    );
}

#[test]
fn stored_record_of_another_agent_is_not_updated() {
    let other = chat(json!({ "identity": "shop/other" })).spec;
    let claims = [claim("chat", "shop/chat")];
    assert_eq!(updated(&record_defaults(), &other, &claims), None);
    let adopted = chat(json!({ "adopt": "12" })).spec;
    let elsewhere = [adopting("chat", "shop/chat", "13")];
    assert_eq!(updated(&record_defaults(), &adopted, &elsewhere), None);
    assert_eq!(
        updated(&record_defaults(), &chat(json!({})).spec, &claims),
        None
    );
}
