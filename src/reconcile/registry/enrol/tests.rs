//! Offers that come, share, come again and contradict each other.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::registration::fixtures::{REGISTRY, offer, record, registry, result};

const SIGNER: Address = Address::repeat_byte(0x51);

fn ground() -> Ground {
    let (registry, code_hash) = (REGISTRY.parse().unwrap(), B256::repeat_byte(0x11));
    Ground {
        chain_id: 84532,
        registry,
        code_hash,
        signer: Some(SIGNER),
    }
}

/// An offer of the namespace `shop` that asks for the agent of an identity.
fn applicant(name: &str, identity: &str) -> Applicant {
    Applicant {
        name: ("shop".into(), name.into()),
        uid: format!("uid-{name}"),
        generation: Some(1),
        identity: identity.into(),
        key: Key::derive(identity, 84532, REGISTRY.parse().unwrap(), 1),
        edition: 1,
        adopt: None,
        relic: None,
        live: true,
        settled: true,
    }
}

fn adopting(name: &str, identity: &str, agent_id: &str) -> Applicant {
    Applicant {
        adopt: Some(agent_id.into()),
        ..applicant(name, identity)
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

fn roll_of(applicants: &[Applicant], records: &[AgentRegistration]) -> Roll {
    let record_of = |key| {
        records
            .iter()
            .find(|record| record.spec.key == key)
            .cloned()
            .map(Arc::new)
    };
    roll(&ground(), applicants, record_of)
}

fn names<'a>(applicants: impl IntoIterator<Item = &'a Applicant>) -> Vec<&'a str> {
    applicants
        .into_iter()
        .map(|applicant| applicant.name.1.as_str())
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
    let roll = roll_of(&[applicant("chat", "shop/chat")], &[]);
    let [(created, applicants)] = &roll.create[..] else {
        panic!("{roll:?}")
    };
    assert_eq!(*created, chat(json!({})).spec);
    assert_eq!(names(applicants), ["chat"]);
    assert!(roll.amend.is_empty() && roll.findings.is_empty());
}

#[test]
fn offers_that_share_an_identity_share_a_record_and_are_all_asked_about_traces() {
    let offers = [
        applicant("b", "shop"),
        applicant("a", "shop"),
        applicant("c", "shop/c"),
    ];
    let roll = roll_of(&offers, &[]);
    let shared = roll
        .create
        .iter()
        .find(|(record, _)| record.identity == "shop")
        .unwrap();
    assert_eq!(listed(&shared.0), [("b", "uid-b"), ("a", "uid-a")]);
    assert_eq!(names(&shared.1), ["b", "a"]);
    assert_eq!(roll.create.len(), 2);
}

#[test]
fn an_offer_that_may_not_be_listed_asks_for_nothing() {
    let idle = Applicant {
        live: false,
        ..applicant("chat", "shop/chat")
    };
    assert_eq!(roll_of(std::slice::from_ref(&idle), &[]), Roll::default());
    assert!(wanted(&[idle], &BTreeMap::new()).is_empty());
}

#[test]
fn an_offer_whose_record_stands_changes_nothing() {
    let records = [chat(
        json!({ "result": result("3"), "phase": "Registered" }),
    )];
    assert_eq!(
        roll_of(&[applicant("chat", "shop/chat")], &records),
        Roll::default()
    );
}

#[test]
fn an_offer_that_is_made_anew_takes_its_place_on_the_list_and_another_is_added_to_it() {
    let anew = Applicant {
        uid: "uid-anew".into(),
        ..applicant("chat", "shop/chat")
    };
    let elsewhere = Applicant {
        name: ("other".into(), "chat".into()),
        ..applicant("chat", "shop/chat")
    };
    let roll = roll_of(
        &[anew, applicant("bot", "shop/chat"), elsewhere],
        &[chat(json!({}))],
    );
    let [(_, amended)] = &roll.amend[..] else {
        panic!("{roll:?}")
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
    let many: Vec<Applicant> = (0..MOST_OFFERS + 2)
        .map(|number| applicant(&number.to_string(), "shop/chat"))
        .collect();
    let created = roll_of(&many, &[]);
    assert_eq!(created.create[0].0.offers.len(), MOST_OFFERS);
    let amended = roll_of(&many, &[chat(json!({}))]);
    assert_eq!(amended.amend[0].1.offers.len(), MOST_OFFERS);
}

#[test]
fn an_agent_that_was_retired_is_revived_as_the_same_agent() {
    let dead = chat(json!({ "result": result("3"), "phase": "Tombstoned", "tombstone": true }));
    let roll = roll_of(
        &[applicant("chat", "shop/chat")],
        std::slice::from_ref(&dead),
    );
    let [(before, revived)] = &roll.amend[..] else {
        panic!("{roll:?}")
    };
    assert_eq!(*before, dead);
    assert_eq!(
        (revived.phase, revived.tombstone),
        (Phase::Registered, None)
    );
    assert_eq!(revived.result, dead.spec.result);
}

#[test]
fn a_record_that_was_made_while_the_registry_only_watched_gets_the_signer() {
    let watched = AgentRegistration {
        spec: AgentRegistrationSpec {
            signer: None,
            ..chat(json!({})).spec
        },
        ..chat(json!({}))
    };
    let offers = [applicant("chat", "shop/chat")];
    assert_eq!(
        roll_of(&offers, std::slice::from_ref(&watched)).amend[0]
            .1
            .signer,
        Some(SIGNER)
    );

    let mut done = watched.clone();
    done.spec.result = chat(json!({ "result": result("3") })).spec.result;
    assert_eq!(
        roll_of(&offers, &[done]),
        Roll::default(),
        "what has its agent needs no signer"
    );
    let rotated = chat(json!({ "signer": Address::repeat_byte(0x99) }));
    assert_eq!(
        roll_of(&offers, &[rotated]),
        Roll::default(),
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
        let offers = [
            applicant("chat", "shop/chat"),
            applicant("bot", "shop/chat"),
        ];
        let roll = roll_of(&offers, std::slice::from_ref(&taken));
        assert!(roll.create.is_empty() && roll.amend.is_empty());
        let finding = Finding::KeyTaken {
            name: taken.spec.key.record_name(),
            other: taken.spec.identity.clone(),
        };
        assert!(roll.findings.len() == 2 && roll.findings.values().all(|found| *found == finding));
        assert!(wanted(&offers, &roll.findings).is_empty());
    }
}

#[test]
fn an_offer_that_names_an_agent_gets_a_record_that_adopts_it_for_all_who_share_it() {
    let roll = roll_of(&[applicant("a", "shop"), adopting("b", "shop", "12")], &[]);
    let [(created, _)] = &roll.create[..] else {
        panic!("{roll:?}")
    };
    assert_eq!(created.adopt.as_deref(), Some("12"));
    assert_eq!(listed(created).len(), 2);
}

#[test]
fn of_offers_that_name_different_agents_the_first_decides_and_the_others_are_told() {
    let roll = roll_of(
        &[adopting("a", "shop", "12"), adopting("b", "shop", "13")],
        &[],
    );
    let [(created, applicants)] = &roll.create[..] else {
        panic!("{roll:?}")
    };
    assert_eq!(
        (created.adopt.as_deref(), names(applicants)),
        (Some("12"), vec!["a"])
    );
    let told = &roll.findings[&("shop".into(), "b".into())];
    assert_eq!((told.reason(), told.needs_a_person()), ("OtherAgent", true));
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
        let roll = roll_of(&offers, &[chat(stands.clone())]);
        assert!(roll.amend.is_empty() && roll.create.is_empty(), "{stands}");
        assert_eq!(
            roll.findings[&offers[0].name].reason(),
            "OtherAgent",
            "{stands}"
        );
        assert!(
            wanted(&offers, &roll.findings).is_empty(),
            "nobody asks for a nonce: {stands}"
        );
    }
    for same in [
        json!({ "adopt": "12" }),
        json!({ "result": result("12") }),
        json!({ "result": result("012") }),
    ] {
        assert_eq!(roll_of(&offers, &[chat(same)]), Roll::default());
    }
}

#[test]
fn whoever_shares_an_identity_still_wants_it_when_another_is_refused() {
    let offers = [
        applicant("a", "shop/chat"),
        adopting("b", "shop/chat", "12"),
    ];
    let roll = roll_of(&offers, &[chat(json!({}))]);
    assert_eq!(
        wanted(&offers, &roll.findings),
        BTreeMap::from([(offers[0].key, vec![offers[0].name.clone()])])
    );
    assert_eq!(
        listed(&roll.amend[0].1),
        [("chat", "uid-chat"), ("a", "uid-a")]
    );
}

fn guarded(offer: Value) -> MaybeDecoded<ServiceOffer> {
    serde_json::from_value(offer).unwrap()
}

#[test]
fn an_offer_that_cannot_be_read_keeps_its_agent_and_stalls_nobody() {
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
fn an_agent_is_in_use_if_any_registry_object_for_its_contract_leads_to_it() {
    let scoped = |scope: &str| Arc::new(registry(json!({ "spec": { "identityScope": scope } })));
    let (by_offer, by_namespace) = (scoped("Offer"), scoped("Namespace"));
    let offer = guarded(serde_json::to_value(offer(json!({}))).unwrap());
    let shared = Key::derive("shop", 84532, REGISTRY.parse().unwrap(), 1);
    assert!(!may_use(&offer, std::slice::from_ref(&by_offer), shared));
    assert!(may_use(&offer, &[by_offer, by_namespace], shared));
}

#[test]
fn a_key_may_get_a_nonce_once_the_status_of_an_offer_that_wants_it_names_it() {
    let undecided = Applicant {
        settled: false,
        ..applicant("chat", "shop/chat")
    };
    let other = Applicant {
        settled: false,
        ..applicant("other", "shop/other")
    };
    let both = [
        undecided.clone(),
        applicant("same", "shop/chat"),
        other.clone(),
    ];
    let wanted_by =
        |applicants: &[Applicant]| settled(applicants, &wanted(applicants, &BTreeMap::new()));
    assert_eq!(
        wanted_by(&both),
        BTreeSet::from([undecided.key]),
        "one of those that share it is enough"
    );
    assert_eq!(wanted_by(&[undecided, other]), BTreeSet::new());
    let gone = Applicant {
        live: false,
        ..applicant("chat", "shop/chat")
    };
    assert_eq!(wanted_by(&[gone]), BTreeSet::new(), "nobody wants it");
}
