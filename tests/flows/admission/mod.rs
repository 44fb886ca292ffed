//! What the API server accepts and rejects, and with which messages, with only the generated CRDs
//! installed.
//!
//! Two kinds of tests complement each other. [`violation`] derives from the schemas an object that
//! violates each constraint, so that no constraint stays untested. Tables ([`offers`],
//! [`registries`], [`facilitators`], [`records`], [`ledgers`]) list what users may and may not write, and their cases
//! must trigger every CEL rule. [`legacy`] has manifests that the legacy controller accepted.

mod client;
mod crd;
mod diff;
mod facilitators;
mod ledgers;
mod legacy;
mod offers;
mod records;
mod registries;
mod table;
mod violation;

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
use serviceoffer::api::{
    AgentRegistration, IdentityRegistry, PaymentFacilitator, ServiceOffer, SignerLedger,
};

use crate::fixture::TestEnv;
use client::{AdmissionClient, Cause, Operation, Outcome};
use crd::{Crd, SchemaPath, defaulted, schema_of, walk};
use diff::diff;
use table::{Case, CaseTable};
use violation::Violation;

/// How many requests are in flight at once.
const CONCURRENCY: usize = 16;

/// Runs a test on a cluster with the chart's CRDs and nothing else of the chart.
fn admission(flow: impl AsyncFnOnce(AdmissionClient, Vec<Crd>) + Send) {
    TestEnv::run(async |env| {
        let crds = Crd::all(&env.cluster).await;
        for crd in &crds {
            apply_crd(&env, crd).await;
        }
        flow(AdmissionClient::new(env.cluster.client()), crds).await;
    });
}

async fn apply_crd(env: &TestEnv, crd: &Crd) {
    let api = Api::<CustomResourceDefinition>::all(env.cluster.client());
    let parameters = PatchParams::apply("admission");
    let document = Patch::Apply(&crd.document);
    let limit = Duration::from_secs(30);
    eventually("the CRD is applied", limit, async || {
        api.patch(&crd.name, &parameters, &document).await
    })
    .await;
    eventually(&format!("{} is established", crd.name), limit, async || {
        let stored = api
            .get(&crd.name)
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
    })
    .await;
}

fn tables() -> Vec<CaseTable> {
    let whole = complete_objects()
        .into_iter()
        .map(|complete| CaseTable::update(complete).accepts("every field", json!({})));
    let tables = [
        offers::tables(),
        registries::tables(),
        facilitators::tables(),
        records::tables(),
        ledgers::tables(),
    ];
    whole.chain(tables.into_iter().flatten()).collect()
}

fn complete_objects() -> Vec<Value> {
    vec![
        records::complete_object(),
        registries::complete_object(),
        facilitators::complete_object(),
        offers::complete_object(),
        ledgers::complete_object(),
    ]
}

/// The tables, reduced to the cases that satisfy a condition.
fn only(tables: Vec<CaseTable>, wanted: impl Fn(&Case) -> bool) -> Vec<CaseTable> {
    let only = |table: CaseTable| CaseTable {
        cases: table.cases.into_iter().filter(&wanted).collect(),
        ..table
    };
    tables
        .into_iter()
        .map(only)
        .filter(|table| !table.cases.is_empty())
        .collect()
}

/// Runs tables concurrently, and returns every case with the kind of its object and its outcome.
async fn run<'table>(
    tables: &'table [CaseTable],
    client: &AdmissionClient,
) -> Vec<(&'table str, &'table Case, Outcome)> {
    let played = join_all(
        tables
            .iter()
            .map(async |table| (table.kind(), table.run(client).await)),
    )
    .await;
    let cases = played
        .into_iter()
        .flat_map(|(kind, cases)| cases.into_iter().map(move |case| (kind, case)));
    cases
        .map(|(kind, (case, outcome))| (kind, case, outcome))
        .collect()
}

fn assert_none(mismatches: &[String], what: &str) {
    assert!(
        mismatches.is_empty(),
        "{} {what}:\n{}",
        mismatches.len(),
        mismatches.join("\n")
    );
}

#[test]
fn every_case_is_accepted_or_rejected_with_its_message() {
    admission(async |client, _| {
        let tables = tables();
        let outcomes = run(&tables, &client).await;
        let mismatches: Vec<String> = outcomes
            .iter()
            .filter_map(|(kind, case, outcome)| {
                Some(format!("{kind}: {}", case.mismatch(outcome)?))
            })
            .collect();
        assert_none(&mismatches, "cases have another outcome");
        println!("{} cases", outcomes.len());
    });
}

#[test]
fn every_cel_rule_rejects_a_case() {
    admission(async |client, crds| {
        let tables = only(tables(), Case::is_rejected);
        let outcomes = run(&tables, &client).await;
        let mut unreached = Vec::new();
        let mut count = 0;
        for crd in crds {
            let causes: Vec<&Cause> = causes_of(&crd.kind, &outcomes).collect();
            for rule in crd.rules() {
                count += 1;
                let says = |cause: &&Cause| {
                    cause.schema_path() == rule.field && cause.message.ends_with(&rule.message)
                };
                if !causes.iter().any(says) {
                    unreached.push(format!("{}, {}: {}", crd.kind, rule.field, rule.message));
                }
            }
        }
        assert_none(&unreached, "rules reject no case");
        println!("{count} rules");
    });
}

fn causes_of<'a>(
    kind: &str,
    outcomes: &'a [(&str, &Case, Outcome)],
) -> impl Iterator<Item = &'a Cause> {
    let outcomes = outcomes.iter().filter(move |(of, ..)| *of == kind);
    outcomes.flat_map(|(.., outcome)| match outcome {
        Outcome::Rejected(causes) => causes.as_slice(),
        Outcome::Accepted(_) => &[],
    })
}

#[test]
fn every_schema_constraint_rejects_a_violation() {
    admission(async |client, crds| {
        let mut violations = Vec::new();
        for complete in complete_objects() {
            let stored = stored_copy(&client, &complete).await;
            let crd = crds
                .iter()
                .find(|crd| complete["kind"] == crd.kind.as_str());
            violations.extend(Violation::all(
                crd.expect("a complete object has a known kind"),
                &complete,
                &stored,
            ));
        }
        let mismatches = stream::iter(&violations)
            .map(|violation| mismatch(&client, violation))
            .buffer_unordered(CONCURRENCY);
        let mismatches: Vec<String> = mismatches.filter_map(std::future::ready).collect().await;
        assert_none(&mismatches, "constraints do not reject their violation");
        println!("{} constraints", violations.len());
    });
}

/// A stored copy of a complete object whose status is a subresource, under another name, so that
/// the object's own name stays free.
async fn stored_copy(client: &AdmissionClient, complete: &Value) -> Value {
    let mut copy = complete.clone();
    if AdmissionClient::has_status_subresource(complete) {
        copy["metadata"]["name"] = json!("observed");
        copy = client.store(&copy).await;
    }
    copy
}

async fn mismatch(client: &AdmissionClient, violation: &Violation) -> Option<String> {
    let (field, message) = (&violation.field, &violation.message);
    match client.dry_run(violation.operation, &violation.object).await {
        Outcome::Rejected(causes) if causes.iter().any(|cause| violation.matches(cause)) => None,
        Outcome::Rejected(causes) => Some(format!(
            "{field}: expected {message:?}, rejected with {causes:#?}"
        )),
        Outcome::Accepted(_) => Some(format!("{field}: accepted, expected {message:?}")),
    }
}

/// The operator would ignore an object that the schema accepts and that its types cannot read.
#[test]
fn operator_types_read_every_accepted_object_completely() {
    admission(async |client, _| {
        let tables = only(tables(), |case| !case.is_rejected());
        let outcomes = run(&tables, &client).await;
        let mismatches: Vec<String> = outcomes
            .iter()
            .filter_map(|(.., outcome)| match outcome {
                Outcome::Accepted(object) => unread_fields(object),
                Outcome::Rejected(_) => None,
            })
            .collect();
        assert_none(&mismatches, "objects are not read completely");
        println!("{} objects", outcomes.len());
    });
}

/// The fields of an object that the operator's types lose or change.
fn unread_fields(object: &Value) -> Option<String> {
    match object["kind"].as_str() {
        Some("ServiceOffer") => unread_fields_as::<ServiceOffer>(object),
        Some("IdentityRegistry") => unread_fields_as::<IdentityRegistry>(object),
        Some("PaymentFacilitator") => unread_fields_as::<PaymentFacilitator>(object),
        Some("AgentRegistration") => unread_fields_as::<AgentRegistration>(object),
        _ => unread_fields_as::<SignerLedger>(object),
    }
}

fn unread_fields_as<T: Serialize + DeserializeOwned>(object: &Value) -> Option<String> {
    let read = match serde_json::from_value::<T>(object.clone()) {
        Ok(read) => serde_json::to_value(read).expect("an object is JSON"),
        Err(error) => return Some(format!("{}: {error}", object["metadata"]["name"])),
    };
    let differences = ["spec", "status"]
        .map(|part| diff(part, &object[part], &read[part]))
        .concat();
    if differences.is_empty() {
        return None;
    }
    Some(format!(
        "{}: {}",
        object["metadata"]["name"],
        differences.join(", ")
    ))
}

#[test]
fn stored_crds_equal_the_generated_ones() {
    admission(async |client, crds| {
        for crd in crds {
            let mut stored = client.read(&path_of(&crd)).await;
            let conditions = stored["status"]["conditions"]
                .as_array()
                .expect("a CRD has conditions");
            let complaint = conditions
                .iter()
                .find(|one| one["type"] == "NonStructuralSchema");
            assert_eq!(complaint, None, "{}", crd.name);
            let spec = stored["spec"].as_object_mut().expect("a CRD has a spec");
            assert_eq!(
                spec.remove("conversion"),
                Some(json!({ "strategy": "None" })),
                "{}",
                crd.name
            );
            let names = spec["names"].as_object_mut().expect("a CRD has names");
            assert_eq!(
                names.remove("listKind"),
                Some(json!(format!("{}List", crd.kind)))
            );
            let drift = diff("spec", &crd.document["spec"], &stored["spec"]);
            assert_none(
                &drift,
                &format!("fields of {} are stored differently", crd.name),
            );
        }
    });
}

#[test]
fn every_property_has_a_description() {
    admission(async |client, crds| {
        let mut bare = Vec::new();
        for crd in crds {
            let stored = client.read(&path_of(&crd)).await;
            walk(
                schema_of(&stored),
                &SchemaPath::default(),
                &mut |path, schema| {
                    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                        // Kubernetes describes these itself.
                        let own = !(path.0.is_empty()
                            && ["apiVersion", "kind", "metadata"].contains(&name.as_str()));
                        if own
                            && property["description"]
                                .as_str()
                                .is_none_or(|text| text.trim().is_empty())
                        {
                            bare.push(format!("{} {path}.{name}", crd.kind));
                        }
                    }
                },
            );
        }
        assert_none(&bare, "properties have no description");
    });
}

fn path_of(crd: &Crd) -> String {
    format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
        crd.name
    )
}

#[test]
fn manifests_of_the_legacy_controller_are_stored_completely() {
    admission(async |client, crds| {
        let offers = crds
            .iter()
            .find(|crd| crd.kind == "ServiceOffer")
            .expect("the chart has the ServiceOffer CRD");
        for mut manifest in legacy::manifests() {
            let accepted = client.dry_run(Operation::Create, &manifest).await;
            let Outcome::Accepted(accepted) = accepted else {
                panic!("{manifest} is rejected: {accepted:#?}")
            };
            for kept in ["finalizers", "annotations"] {
                assert_eq!(
                    accepted["metadata"].get(kept),
                    manifest["metadata"].get(kept),
                    "{manifest}"
                );
            }
            // No controller runs here to remove it, and the next flow would wait indefinitely.
            manifest["metadata"]
                .as_object_mut()
                .expect("metadata")
                .remove("finalizers");
            let stored = client.store(&manifest).await;
            let name = &manifest["metadata"]["name"];
            let expected = defaulted(&manifest, offers.schema());
            let changes = ["spec", "status"]
                .map(|part| diff(part, &expected[part], &stored[part]))
                .concat();
            assert_none(
                &changes,
                &format!("fields of {name} are stored differently"),
            );
            assert_eq!(unread_fields(&stored), None, "{name}");
        }
    });
}
