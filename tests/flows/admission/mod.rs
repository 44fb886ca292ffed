//! What the API server admits, and what it refuses in which words, by nothing but the generated definitions.
//!
//! Two kinds of proof meet here. [`breach`] derives from the schemas themselves an object that breaks each bound, so that no
//! bound goes untried. Tables ([`offers`], [`registries`], [`records`], [`ledgers`]) say what people may and may not
//! write, and their rows must reach every CEL rule.

mod breach;
mod definition;
mod difference;
mod eras;
mod ledgers;
mod offers;
mod records;
mod registries;
mod submission;
mod table;

use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serviceoffer::api::{AgentRegistration, IdentityRegistry, ServiceOffer, SignerLedger};

use crate::stage::Stage;
use breach::Breach;
use definition::{Definition, Place, defaulted, schema_of, walk};
use difference::differences;
use submission::{Answer, Cause, Door, Occasion};
use table::{Row, Scene};

/// How many requests are under way at once.
const CONCURRENCY: usize = 16;

/// Plays on a cluster that has the definitions of the chart and nothing else of it.
fn admission(flow: impl AsyncFnOnce(Door, Vec<Definition>) + Send) {
    Stage::play(async |stage| {
        let definitions = Definition::all(&stage.cluster).await;
        for definition in &definitions {
            define(&stage, definition).await;
        }
        flow(Door::of(stage.cluster.client()), definitions).await;
    });
}

async fn define(stage: &Stage, definition: &Definition) {
    let api = Api::<CustomResourceDefinition>::all(stage.cluster.client());
    let parameters = PatchParams::apply("admission");
    let document = Patch::Apply(&definition.document);
    let limit = Duration::from_secs(30);
    eventually("a definition is stored", limit, async || {
        api.patch(&definition.name, &parameters, &document).await
    })
    .await;
    eventually(
        &format!("{} is established", definition.name),
        limit,
        async || {
            let stored = api
                .get(&definition.name)
                .await
                .map_err(|error| error.to_string())?;
            let conditions = stored
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let established = conditions
                .iter()
                .any(|one| one.type_ == "Established" && one.status == "True");
            if established {
                Ok(())
            } else {
                Err(format!("{conditions:?}"))
            }
        },
    )
    .await;
}

fn scenes() -> Vec<Scene> {
    let whole = specimens()
        .into_iter()
        .map(|specimen| Scene::update(specimen).admits("every field at once", json!({})));
    let tables = [
        offers::scenes(),
        registries::scenes(),
        records::scenes(),
        ledgers::scenes(),
    ];
    whole.chain(tables.into_iter().flatten()).collect()
}

fn specimens() -> Vec<Value> {
    vec![
        records::specimen(),
        registries::specimen(),
        offers::specimen(),
        ledgers::specimen(),
    ]
}

/// Scenes with those of their rows that a test is about.
fn only(scenes: Vec<Scene>, wanted: impl Fn(&Row) -> bool) -> Vec<Scene> {
    let only = |scene: Scene| Scene {
        rows: scene.rows.into_iter().filter(&wanted).collect(),
        ..scene
    };
    scenes
        .into_iter()
        .map(only)
        .filter(|scene| !scene.rows.is_empty())
        .collect()
}

/// Plays scenes side by side, and answers with every row, under the kind of its object.
async fn play<'scene>(
    scenes: &'scene [Scene],
    door: &Door,
) -> Vec<(&'scene str, &'scene Row, Answer)> {
    let played = join_all(
        scenes
            .iter()
            .map(async |scene| (scene.kind(), scene.play(door).await)),
    )
    .await;
    let rows = played
        .into_iter()
        .flat_map(|(kind, rows)| rows.into_iter().map(move |row| (kind, row)));
    rows.map(|(kind, (row, answer))| (kind, row, answer))
        .collect()
}

fn assert_none(objections: &[String], what: &str) {
    assert!(
        objections.is_empty(),
        "{} {what}:\n{}",
        objections.len(),
        objections.join("\n")
    );
}

#[test]
fn every_row_is_admitted_or_refused_in_words_that_help() {
    admission(async |door, _| {
        let scenes = scenes();
        let answers = play(&scenes, &door).await;
        let objections: Vec<String> = answers
            .iter()
            .filter_map(|(kind, row, answer)| Some(format!("{kind}: {}", row.objection(answer)?)))
            .collect();
        assert_none(&objections, "rows are answered otherwise");
        println!("{} rows", answers.len());
    });
}

#[test]
fn every_cel_rule_refuses_a_row() {
    admission(async |door, definitions| {
        let scenes = only(scenes(), Row::is_refused);
        let answers = play(&scenes, &door).await;
        let mut unreached = Vec::new();
        let mut count = 0;
        for definition in definitions {
            let causes: Vec<&Cause> = causes_of(&definition.kind, &answers).collect();
            for rule in definition.rules() {
                count += 1;
                let says = |cause: &&Cause| {
                    cause.place() == rule.field && cause.message.ends_with(&rule.message)
                };
                if !causes.iter().any(says) {
                    unreached.push(format!(
                        "{}, {}: {}",
                        definition.kind, rule.field, rule.message
                    ));
                }
            }
        }
        assert_none(&unreached, "rules refuse no row");
        println!("{count} rules");
    });
}

fn causes_of<'a>(
    kind: &str,
    answers: &'a [(&str, &Row, Answer)],
) -> impl Iterator<Item = &'a Cause> {
    let answers = answers.iter().filter(move |(of, ..)| *of == kind);
    answers.flat_map(|(.., answer)| match answer {
        Answer::Refused(causes) => causes.as_slice(),
        Answer::Admitted(_) => &[],
    })
}

#[test]
fn every_bound_refuses_a_value_that_breaks_it() {
    admission(async |door, definitions| {
        let mut breaches = Vec::new();
        for specimen in specimens() {
            let observed = observed(&door, &specimen).await;
            let definition = definitions
                .iter()
                .find(|definition| specimen["kind"] == definition.kind.as_str());
            breaches.extend(Breach::all(
                definition.expect("a specimen is of a kind"),
                &specimen,
                &observed,
            ));
        }
        let objections = stream::iter(&breaches)
            .map(|breach| objection(&door, breach))
            .buffer_unordered(CONCURRENCY);
        let objections: Vec<String> = objections.filter_map(std::future::ready).collect().await;
        assert_none(&objections, "bounds do not refuse");
        println!("{} bounds", breaches.len());
    });
}

/// A stored copy of a specimen, where its status is written apart; the specimen's own name stays free.
async fn observed(door: &Door, specimen: &Value) -> Value {
    let mut copy = specimen.clone();
    if Door::has_status_subresource(specimen) {
        copy["metadata"]["name"] = json!("observed");
        copy = door.store(&copy).await;
    }
    copy
}

async fn objection(door: &Door, breach: &Breach) -> Option<String> {
    let answer = door.ask(breach.occasion, &breach.object).await;
    let told = matches!(&answer, Answer::Refused(causes) if causes.iter().any(|cause| breach.is_told_by(cause)));
    (!told).then(|| match answer {
        Answer::Admitted(_) => format!("{}: admitted, should say {:?}", breach.field, breach.words),
        Answer::Refused(causes) => format!(
            "{}: should say {:?}, says {causes:#?}",
            breach.field, breach.words
        ),
    })
}

/// A schema that takes what the operator cannot read would stall nobody and serve nobody.
#[test]
fn whatever_is_admitted_is_read_whole_by_the_operator() {
    admission(async |door, _| {
        let scenes = only(scenes(), |row| !row.is_refused());
        let answers = play(&scenes, &door).await;
        let objections: Vec<String> = answers
            .iter()
            .filter_map(|(.., answer)| match answer {
                Answer::Admitted(object) => unread(object),
                Answer::Refused(_) => None,
            })
            .collect();
        assert_none(&objections, "objects are not read whole");
        println!("{} objects", answers.len());
    });
}

/// What the operator's types make of an object that they do not read whole.
fn unread(object: &Value) -> Option<String> {
    match object["kind"].as_str() {
        Some("ServiceOffer") => unread_as::<ServiceOffer>(object),
        Some("IdentityRegistry") => unread_as::<IdentityRegistry>(object),
        Some("AgentRegistration") => unread_as::<AgentRegistration>(object),
        _ => unread_as::<SignerLedger>(object),
    }
}

fn unread_as<T: Serialize + DeserializeOwned>(object: &Value) -> Option<String> {
    let read = match serde_json::from_value::<T>(object.clone()) {
        Ok(read) => serde_json::to_value(read).expect("an object is JSON"),
        Err(error) => return Some(format!("{}: {error}", object["metadata"]["name"])),
    };
    let differences = ["spec", "status"]
        .map(|part| differences(part, &object[part], &read[part]))
        .concat();
    (!differences.is_empty())
        .then(|| format!("{}: {}", object["metadata"]["name"], differences.join(", ")))
}

#[test]
fn stored_definitions_are_the_generated_ones() {
    admission(async |door, definitions| {
        for definition in definitions {
            let mut stored = door.read(&path_of(&definition)).await;
            let conditions = stored["status"]["conditions"]
                .as_array()
                .expect("a definition has conditions");
            let complaint = conditions
                .iter()
                .find(|one| one["type"] == "NonStructuralSchema");
            assert_eq!(complaint, None, "{}", definition.name);
            let spec = stored["spec"]
                .as_object_mut()
                .expect("a definition has a spec");
            assert_eq!(
                spec.remove("conversion"),
                Some(json!({ "strategy": "None" })),
                "{}",
                definition.name
            );
            let names = spec["names"]
                .as_object_mut()
                .expect("a definition has names");
            assert_eq!(
                names.remove("listKind"),
                Some(json!(format!("{}List", definition.kind)))
            );
            let drift = differences("spec", &definition.document["spec"], &stored["spec"]);
            assert_none(
                &drift,
                &format!("places of {} are stored otherwise", definition.name),
            );
        }
    });
}

#[test]
fn every_property_is_explained() {
    admission(async |door, definitions| {
        let mut bare = Vec::new();
        for definition in definitions {
            let stored = door.read(&path_of(&definition)).await;
            walk(
                schema_of(&stored),
                &Place::default(),
                &mut |place, schema| {
                    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                        // Those of Kubernetes explain themselves.
                        let own = !(place.0.is_empty()
                            && ["apiVersion", "kind", "metadata"].contains(&name.as_str()));
                        if own
                            && property["description"]
                                .as_str()
                                .is_none_or(|text| text.trim().is_empty())
                        {
                            bare.push(format!("{} {place}.{name}", definition.kind));
                        }
                    }
                },
            );
        }
        assert_none(&bare, "properties have no description");
    });
}

fn path_of(definition: &Definition) -> String {
    format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
        definition.name
    )
}

#[test]
fn manifests_of_every_era_are_stored_whole() {
    admission(async |door, definitions| {
        let offers = definitions
            .iter()
            .find(|definition| definition.kind == "ServiceOffer")
            .expect("offers are defined");
        for mut manifest in eras::manifests() {
            let admitted = door.ask(Occasion::Creation, &manifest).await;
            let Answer::Admitted(admitted) = admitted else {
                panic!("{manifest} is refused: {admitted:#?}")
            };
            for kept in ["finalizers", "annotations"] {
                assert_eq!(
                    admitted["metadata"].get(kept),
                    manifest["metadata"].get(kept),
                    "{manifest}"
                );
            }
            // Nobody here would remove it, and the next flow would wait for ever.
            manifest["metadata"]
                .as_object_mut()
                .expect("metadata")
                .remove("finalizers");
            let stored = door.store(&manifest).await;
            let name = &manifest["metadata"]["name"];
            let expected = defaulted(&manifest, offers.schema());
            let changes = ["spec", "status"]
                .map(|part| differences(part, &expected[part], &stored[part]))
                .concat();
            assert_none(&changes, &format!("places of {name} are stored otherwise"));
            assert_eq!(unread(&stored), None, "{name}");
        }
    });
}
