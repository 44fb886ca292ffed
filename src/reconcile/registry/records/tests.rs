//! Offers that come, share, come again and contradict each other.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
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

/// The record of `shop/chat`, listing that offer, with fields of its spec laid over it.
fn chat(spec: Value) -> AgentRegistration {
    let mut record = record("shop/chat", 1, json!({ "spec": { "signer": SIGNER } }));
    let mut own = serde_json::to_value(&record.spec).unwrap();
    crate::registration::fixtures::merge(&mut own, spec);
    record.spec = serde_json::from_value(own).unwrap();
    record
}

fn plan_of(claims: &[OfferClaim], records: &[AgentRegistration]) -> RecordPlan {
    let record_of = |key| {
        records
            .iter()
            .find(|record| record.spec.key == key)
            .cloned()
            .map(Arc::new)
    };
    plan(&record_defaults(), claims, record_of)
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
    let anew = OfferClaim {
        uid: "uid-anew".into(),
        ..claim("chat", "shop/chat")
    };
    let elsewhere = OfferClaim {
        name: ("other".into(), "chat".into()),
        ..claim("chat", "shop/chat")
    };
    let plan = plan_of(
        &[anew, claim("bot", "shop/chat"), elsewhere],
        &[chat(json!({}))],
    );
    let [(_, amended)] = &plan.update[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        listed(amended),
        [
            ("chat", "uid-anew"),
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
    let amended = plan_of(&many, &[chat(json!({}))]);
    assert_eq!(amended.update[0].1.offers.len(), MOST_OFFERS);
}

#[test]
fn an_agent_that_was_retired_is_revived_as_the_same_agent() {
    let dead = chat(json!({ "result": result("3"), "phase": "Tombstoned", "tombstone": true }));
    let plan = plan_of(&[claim("chat", "shop/chat")], std::slice::from_ref(&dead));
    let [(before, revived)] = &plan.update[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(*before, dead);
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
    assert_eq!(
        plan_of(&offers, std::slice::from_ref(&watched)).update[0]
            .1
            .signer,
        Some(SIGNER)
    );

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
    let told = &plan.issues[&("shop".into(), "b".into())];
    assert_eq!((told.reason(), told.needs_action()), ("OtherAgent", true));
    assert!(told.to_string().contains("is for agent 12"), "{told}");
}

#[test]
fn an_offer_that_names_an_agent_is_never_minted_for() {
    let offers = [adopting("chat", "shop/chat", "12")];
    for stands in [
        json!({}),
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
            "nobody asks for a nonce: {stands}"
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
    let plan = plan_of(&offers, &[chat(json!({}))]);
    assert_eq!(
        wanted(&offers, &plan.issues),
        BTreeMap::from([(offers[0].key, vec![offers[0].name.clone()])])
    );
    assert_eq!(
        listed(&plan.update[0].1),
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
    assert_eq!(wanted_by(&[gone]), BTreeSet::new(), "nobody wants it");
}
