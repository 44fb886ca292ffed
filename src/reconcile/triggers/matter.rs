//! What of a change matters to whom. Pure.
//!
//! Most changes matter to few objects: a registry whose status the operator wrote itself changes
//! nothing for its offers, and an offer that has its agent needs no pass of its registry.

use kube::ResourceExt;

use crate::api::{ConditionStatus, IdentityRegistry, ServiceOffer, condition};
use crate::cluster::MaybeDecoded;
use crate::registration::contract::is_default;
use crate::registration::eligibility::Eligibility;
use crate::registration::view::OfferView;

/// What of a registry other objects depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RegistryDigest {
    exists: bool,
    generation: Option<i64>,
    is_default: bool,
    is_deleted: bool,
    /// Status and message of the condition `Ready`, which offers repeat.
    ready: Option<(ConditionStatus, Option<String>)>,
}

/// How a registry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistryChange {
    /// Not in what others depend on.
    Nothing,
    /// Whether it is ready, or why not.
    Ready,
    /// What it configures.
    Spec,
}

impl RegistryDigest {
    /// The digest of a registry; of one that does not exist or cannot be decoded, the default.
    pub(super) fn of(registry: Option<&MaybeDecoded<IdentityRegistry>>) -> Self {
        let Some(registry) = registry.and_then(MaybeDecoded::decoded) else {
            return Self::default();
        };
        let status = registry.status.as_ref();
        let ready = status.and_then(|status| condition::find(&status.conditions, "Ready"));
        Self {
            exists: true,
            generation: registry.metadata.generation,
            is_default: is_default(registry),
            is_deleted: registry.metadata.deletion_timestamp.is_some(),
            ready: ready.map(|ready| (ready.status, ready.message.clone())),
        }
    }

    /// How the registry changed since this digest.
    pub(super) fn change_to(&self, after: &Self) -> RegistryChange {
        if self == after {
            return RegistryChange::Nothing;
        }
        let ready = after.ready.clone();
        if *after
            == (Self {
                ready,
                ..self.clone()
            })
        {
            RegistryChange::Ready
        } else {
            RegistryChange::Spec
        }
    }
}

/// Whether the status of an offer may repeat whether its registry is ready: it asks for a
/// registration, and is not registered.
pub(super) fn awaits_registry(offer: &ServiceOffer) -> bool {
    let registration = offer.spec.registration.as_ref();
    let conditions = offer.status.as_ref().map(|status| &status.conditions);
    let registered = conditions.and_then(|all| condition::find(all, "Registered"));
    registration.is_some_and(|registration| registration.enabled)
        && !registered.is_some_and(|registered| registered.is_true())
}

/// Whether a registry has anything to do for an offer.
pub(super) fn needs_pass(view: &OfferView) -> bool {
    let offer = &view.offer;
    let agent = match &view.agent {
        Ok(agent) if offer.metadata.deletion_timestamp.is_none() => agent,
        // It may leave an agent that no offer uses.
        _ => return !view.records.is_empty(),
    };
    let Some(record) = &agent.record else {
        return agent.eligibility == Eligibility::Eligible || !view.records.is_empty();
    };
    let status = offer.status.as_ref();
    let is_in_status = status.is_some_and(|status| {
        let registration = status.registration.as_ref();
        registration.is_some_and(|own| own.key == Some(agent.key))
    });
    let mut listed = record.offers.iter();
    let is_listed = listed.any(|listed| {
        (&listed.namespace, &listed.name) == (&view.name.0, &view.name.1)
            && Some(&listed.uid) == offer.metadata.uid.as_ref()
    });
    let registration = offer.spec.registration.as_ref();
    let wanted = registration.and_then(|own| own.agent_id.as_ref());
    let result = record.result.as_ref();
    let is_wanted = result.is_some_and(|result| wanted.is_none_or(|id| *id == result.agent_id));
    let has_others = view.records.iter().any(|other| other.key != agent.key);
    !(is_wanted && is_listed && is_in_status && record.tombstone.is_none()) || has_others
}

/// Whether the upstream of an offer is this Service.
pub(super) fn has_upstream(offer: &ServiceOffer, namespace: &str, name: &str) -> bool {
    let upstream = offer.spec.upstream.as_ref();
    upstream.is_some_and(|upstream| upstream.namespace == namespace && upstream.service == name)
}

/// Whether an offer is in this namespace.
pub(super) fn is_in_namespace(offer: &ServiceOffer, namespace: &str) -> bool {
    offer.namespace().as_deref() == Some(namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::{self, offer, record, registry, result};
    use crate::registration::identity::Unresolved;

    fn digest(over: Value) -> RegistryDigest {
        let registry = serde_json::to_value(registry(over)).unwrap();
        RegistryDigest::of(Some(&serde_json::from_value(registry).unwrap()))
    }

    #[test]
    fn status_of_a_registry_matters_only_through_ready() {
        let ready = |status: &str| json!([{ "type": "Ready", "status": status, "message": "m" }]);
        let with = |conditions: Value| json!({ "status": { "conditions": conditions } });
        let before = digest(with(ready("True")));
        let mut other = ready("True");
        other[0]["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        let changes = [
            (digest(with(other)), RegistryChange::Nothing),
            (digest(with(ready("False"))), RegistryChange::Ready),
            (digest(json!({})), RegistryChange::Ready),
            (
                digest(json!({ "metadata": { "generation": 2 } })),
                RegistryChange::Spec,
            ),
            (RegistryDigest::of(None), RegistryChange::Spec),
        ];
        for (after, expected) in changes {
            assert_eq!(before.change_to(&after), expected, "{after:?}");
        }
        let annotation = json!({ "obol.org/is-default-registry": "false" });
        let moved = digest(json!({ "metadata": { "annotations": annotation } }));
        assert_eq!(digest(json!({})).change_to(&moved), RegistryChange::Spec);
    }

    #[test]
    fn offer_awaits_its_registry_until_it_is_registered() {
        let condition = |status: &str| json!([{ "type": "Registered", "status": status }]);
        let with = |status: &str| offer(json!({ "status": { "conditions": condition(status) } }));
        assert!(awaits_registry(&offer(json!({}))));
        assert!(awaits_registry(&with("False")));
        assert!(!awaits_registry(&with("True")));
        let disabled = json!({ "spec": { "registration": { "enabled": false } } });
        assert!(!awaits_registry(&offer(disabled)));
    }

    fn view(over: Value, eligibility: Eligibility, record: Option<Value>) -> OfferView {
        let record = record.map(|spec| self::record("shop/chat", 1, json!({ "spec": spec })).spec);
        fixtures::view(over, eligibility, record)
    }

    #[test]
    fn offer_that_has_its_agent_needs_no_pass() {
        let key = record("shop/chat", 1, json!({})).spec.key;
        let keyed = || json!({ "status": { "registration": { "key": key } } });
        let done = || Some(json!({ "result": result("3") }));
        let needs = |over: Value, record| needs_pass(&view(over, Eligibility::Eligible, record));
        assert!(!needs(keyed(), done()));
        assert!(needs(json!({}), done()), "its status does not name the key");
        assert!(needs(keyed(), Some(json!({}))), "it waits for a nonce");
        assert!(needs(json!({}), None), "it has no record");
        let retired = json!({ "result": result("3"), "tombstone": true });
        assert!(needs(keyed(), Some(retired)));
        let mut other = keyed();
        other["metadata"] = json!({ "uid": "another" });
        assert!(needs(other, done()), "it was created again");
        let mut deleted = keyed();
        deleted["metadata"] = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert!(needs(deleted, done()));
        let mut adopting = keyed();
        adopting["spec"] = json!({ "registration": { "agentId": "4" } });
        assert!(needs(adopting, done()));
    }

    #[test]
    fn offer_without_registration_needs_no_pass() {
        assert!(!needs_pass(&view(json!({}), Eligibility::Disabled, None)));
        let waiting = view(json!({}), Eligibility::Disabled, Some(json!({})));
        assert!(needs_pass(&waiting), "its record must not get a nonce");
        let mut unresolved = view(json!({}), Eligibility::Eligible, None);
        unresolved.agent = Err(Unresolved::NoRegistry);
        assert!(!needs_pass(&unresolved));
    }

    #[test]
    fn service_and_namespace_are_compared_by_name() {
        let offer = offer(json!({}));
        assert!(has_upstream(&offer, "shop", "backend"));
        assert!(!has_upstream(&offer, "shop", "other") && !has_upstream(&offer, "b", "backend"));
        assert!(is_in_namespace(&offer, "shop") && !is_in_namespace(&offer, "bank"));
    }
}
