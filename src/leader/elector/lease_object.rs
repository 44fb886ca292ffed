//! Maps the Lease object to the candidate's values and back, field by field as client-go reads and
//! writes them. Pure.
//!
//! What client-go has no field for is kept in annotations. client-go keeps unknown annotations when
//! it takes a Lease over, so ours name the term they belong to and are ignored in any other.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde::{Deserialize, Serialize};

use crate::leader::candidate::ElectionConfig;
use crate::leader::lease::{Lease, LeaseRecord, ResourceVersion};

/// JSON of the [`Holder`].
const HOLDER_ANNOTATION: &str = "obol.org/holder";
/// Asks the holder to step down in favor of the named candidate, or of any other if it is empty.
const STEP_DOWN_ANNOTATION: &str = "obol.org/step-down";

/// The holder's Pod and container, and the term they belong to, named by its acquire time.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    acquire_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

pub(super) fn resource_version(object: &LeaseObject) -> ResourceVersion {
    ResourceVersion(object.metadata.resource_version.clone().unwrap_or_default())
}

/// The Lease as a candidate sees it. Missing fields get the zero values that client-go gives them.
pub(super) fn parse(object: &LeaseObject) -> Lease {
    let spec = object.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .unwrap_or_default();
    let record = LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
    };
    let annotation = |name| {
        object
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(name))
    };
    let holder =
        annotation(HOLDER_ANNOTATION).and_then(|text| serde_json::from_str::<Holder>(text).ok());
    let holder = holder
        .filter(|holder| holder.acquire_time.is_some() && holder.acquire_time == record.acquired);
    let (pod_uid, instance) =
        holder.map_or((None, None), |holder| (holder.pod_uid, holder.instance));
    let preferred = spec
        .preferred_holder
        .filter(|preferred| !preferred.is_empty());
    Lease {
        record,
        pod_uid,
        instance,
        successor: annotation(STEP_DOWN_ANNOTATION).cloned().or(preferred),
        coordinated: spec.strategy.is_some_and(|strategy| !strategy.is_empty()),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        version: resource_version(object),
    }
}

/// The Lease to store. Fields that this elector does not own are kept from the latest object.
pub(super) fn build(
    config: &ElectionConfig,
    (namespace, name): (&str, &str),
    latest: Option<&LeaseObject>,
    record: LeaseRecord,
) -> LeaseObject {
    let mut lease = latest.cloned().unwrap_or_else(|| LeaseObject {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    // The API server keeps them; sending a stale copy only makes the request larger.
    lease.metadata.managed_fields = None;
    let kept = lease.spec.take().unwrap_or_default();
    let annotations = lease.metadata.annotations.get_or_insert_default();
    let begins_term = !record.holder.is_empty()
        && kept.acquire_time.as_ref().map(|time| time.0) != record.acquired;
    if begins_term {
        // The former holder has stepped down: the request is fulfilled.
        annotations.remove(STEP_DOWN_ANNOTATION);
    }
    let holder = Holder {
        acquire_time: record.acquired,
        pod_uid: config.pod_uid.clone(),
        instance: config.instance.clone(),
    };
    let has_details =
        !record.holder.is_empty() && (holder.pod_uid.is_some() || holder.instance.is_some());
    match serde_json::to_string(&holder) {
        Ok(json) if has_details => annotations.insert(HOLDER_ANNOTATION.into(), json),
        _ => annotations.remove(HOLDER_ANNOTATION),
    };
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder),
        lease_duration_seconds: Some(i32::try_from(record.duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..kept
    });
    lease
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: (&str, &str) = ("operators", "serviceoffer-controller");

    fn config() -> ElectionConfig {
        ElectionConfig {
            identity: "pod-a".into(),
            pod_uid: Some("uid-a".into()),
            instance: Some("token-a".into()),
            marks: false,
            lease_duration: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(20),
            retry_period: Duration::from_secs(5),
        }
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn held(holder: &str, acquired: i64) -> LeaseRecord {
        LeaseRecord {
            holder: holder.into(),
            duration: Duration::from_secs(30),
            acquired: Some(time(acquired)),
            renewed: Some(time(acquired + 5)),
            transitions: 3,
        }
    }

    fn object(value: serde_json::Value) -> LeaseObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn written_lease_parses_back_to_the_same_values() {
        let mut lease = build(&config(), KEY, None, held("pod-a", 0));
        lease.metadata.uid = Some("lease".into());
        lease.metadata.resource_version = Some("17".into());
        let expected = Lease {
            record: held("pod-a", 0),
            pod_uid: Some("uid-a".into()),
            instance: Some("token-a".into()),
            successor: None,
            coordinated: false,
            uid: "lease".into(),
            version: ResourceVersion("17".into()),
        };
        assert_eq!(parse(&lease), expected);
        assert_eq!(lease.metadata.namespace.as_deref(), Some("operators"));
    }

    #[test]
    fn client_go_records_parse_as_held_and_as_released() {
        let held = object(json!({
            "metadata": { "name": "x", "namespace": "y", "uid": "lease", "resourceVersion": "8" },
            "spec": {
                "holderIdentity": "go-1", "leaseDurationSeconds": 15, "leaseTransitions": 2,
                "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:01:00.000000Z",
            },
        }));
        let lease = parse(&held);
        assert_eq!(
            (lease.record.holder.as_str(), lease.record.transitions),
            ("go-1", 2)
        );
        assert_eq!(lease.record.duration, Duration::from_secs(15));
        assert_eq!(
            (
                lease.pod_uid,
                lease.instance,
                lease.successor,
                lease.coordinated
            ),
            (None, None, None, false)
        );

        let released = object(json!({
            "metadata": {},
            "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 2 },
        }));
        assert!(parse(&released).record.is_released());
        let erased = object(json!({ "metadata": {}, "spec": { "leaseDurationSeconds": 15 } }));
        assert!(
            !parse(&erased).record.is_released(),
            "erasing the holder is not a release"
        );
        assert_eq!(
            parse(&LeaseObject::default()).record,
            LeaseRecord::default()
        );
    }

    #[test]
    fn write_keeps_fields_it_does_not_own() {
        let before = object(json!({
            "metadata": {
                "name": "x", "resourceVersion": "8", "labels": { "team": "a" }, "annotations": { "note": "b" },
                "managedFields": [{ "manager": "m" }],
            },
            "spec": { "holderIdentity": "go-1", "preferredHolder": "go-2", "strategy": "OldestEmulationVersion" },
        }));
        let after = build(&config(), KEY, Some(&before), held("pod-a", 0));
        assert_eq!(after.metadata.labels, before.metadata.labels);
        assert_eq!(after.metadata.annotations.as_ref().unwrap()["note"], "b");
        assert_eq!(after.metadata.resource_version.as_deref(), Some("8"));
        assert_eq!(after.metadata.managed_fields, None);
        let lease = parse(&after);
        assert_eq!(
            (lease.successor.as_deref(), lease.coordinated),
            (Some("go-2"), true)
        );
    }

    #[test]
    fn annotations_of_one_holder_are_ignored_for_the_next() {
        let ours = build(&config(), KEY, None, held("pod-a", 0));
        // client-go replaces the spec and keeps the metadata when it takes the Lease over.
        let mut theirs = ours.clone();
        theirs.spec.as_mut().unwrap().holder_identity = Some("go-1".into());
        theirs.spec.as_mut().unwrap().acquire_time = Some(MicroTime(time(40)));
        let lease = parse(&theirs);
        assert_eq!((lease.pod_uid, lease.instance), (None, None));
        let mut nonsense = ours;
        nonsense
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert(HOLDER_ANNOTATION.into(), "{".into());
        assert_eq!(parse(&nonsense).instance, None);
    }

    #[test]
    fn step_down_request_lasts_until_the_next_term() {
        let mut lease = build(&config(), KEY, None, held("pod-a", 0));
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(STEP_DOWN_ANNOTATION.into(), "pod-b".into());
        assert_eq!(parse(&lease).successor.as_deref(), Some("pod-b"));

        let renewed = build(
            &config(),
            KEY,
            Some(&lease),
            LeaseRecord {
                renewed: Some(time(9)),
                ..held("pod-a", 0)
            },
        );
        assert_eq!(
            parse(&renewed).successor.as_deref(),
            Some("pod-b"),
            "a renewal keeps the request"
        );
        let released = LeaseRecord {
            holder: String::new(),
            duration: LeaseRecord::RELEASED,
            ..held("", 10)
        };
        let released = build(&config(), KEY, Some(&renewed), released);
        assert_eq!(
            parse(&released).successor.as_deref(),
            Some("pod-b"),
            "candidates must see in whose favor it was released"
        );
        assert_eq!(parse(&released).instance, None);
        let taken = build(&config(), KEY, Some(&released), held("pod-c", 20));
        assert_eq!(parse(&taken).successor, None);
    }

    #[test]
    fn candidate_outside_a_pod_writes_no_holder_annotation() {
        let config = ElectionConfig {
            pod_uid: None,
            instance: None,
            ..config()
        };
        let lease = build(&config, KEY, None, held("host_1", 0));
        assert_eq!(lease.metadata.annotations, Some(Default::default()));
    }
}
