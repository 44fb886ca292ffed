//! Decides whether an offer may be listed as an active agent, and why not.
//!
//! It also checks what admission cannot ([`accept`]), and names the fields that have no effect in
//! this version.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::{Expression, Selector as LabelSelector, SelectorExt};
use strum::IntoStaticStr;

use super::address::{self, MistypedAddress};
use crate::api::{
    AllowedNamespaces, IdentityRegistry, NamespacesFrom, OfferType, Operator, Requirement,
    ServiceOffer, ServiceOfferSpec,
};

/// How long an offer's route stays up after `drainAt`, unless `drainGracePeriod` is set.
const DRAIN_GRACE: SignedDuration = SignedDuration::from_hours(1);

/// What an offer's eligibility depends on, besides the offer and its registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EligibilityContext<'a> {
    /// Labels of the offer's namespace; `None` if the namespace does not exist.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// Whether the upstream's Service exists; true if the offer names none.
    pub upstream_exists: bool,
    pub now: Timestamp,
}

/// Why an offer cannot be accepted: its spec contradicts itself or asks for something impossible. A
/// variant's name is the condition's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum Unacceptable {
    /// The address fails its checksum (EIP-55).
    #[error(transparent)]
    InvalidPayTo(#[from] MistypedAddress),
    /// A type that is served over HTTP needs a Service.
    #[error(
        "upstream is required when type is {type_}: set spec.upstream to the Service that serves the offer"
    )]
    MissingUpstream { type_: &'static str },
    /// An offer may only sell an Agent of its own namespace.
    #[error("agent.ref.namespace must be {own}, the namespace of the offer")]
    AgentInOtherNamespace {
        /// Namespace of the offer.
        own: String,
    },
    /// A time or duration does not parse.
    #[error(
        "drainAt or drainGracePeriod is invalid: use a time like 2030-01-31T12:00:00Z and a duration like 30m"
    )]
    InvalidDrain,
}

impl Unacceptable {
    /// Reason of the condition.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        self.into()
    }
}

/// Whether an offer may be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Eligibility {
    Eligible,
    /// It has no registration, or registration.enabled is false.
    Disabled,
    /// Its object is being deleted.
    Deleted,
    /// Its spec cannot be accepted.
    Unacceptable(Unacceptable),
    /// The registry does not admit its namespace.
    NamespaceNotAllowed,
    /// The upstream's Service does not exist.
    UpstreamMissing,
    /// Its drain has ended.
    Drained,
}

/// Whether an offer may be listed on a registry.
#[must_use]
pub(crate) fn eligibility(
    offer: &ServiceOffer,
    registry: &IdentityRegistry,
    context: EligibilityContext<'_>,
) -> Eligibility {
    if !offer
        .spec
        .registration
        .as_ref()
        .is_some_and(|registration| registration.enabled)
    {
        return Eligibility::Disabled;
    }
    if offer.metadata.deletion_timestamp.is_some() {
        return Eligibility::Deleted;
    }
    let drained = match accept(offer) {
        Ok(end) => end.is_some_and(|end| end <= context.now),
        Err(unacceptable) => return Eligibility::Unacceptable(unacceptable),
    };
    if drained {
        Eligibility::Drained
    } else if !is_allowed(&registry.spec.allowed_namespaces, context.namespace_labels) {
        Eligibility::NamespaceNotAllowed
    } else if !context.upstream_exists {
        Eligibility::UpstreamMissing
    } else {
        Eligibility::Eligible
    }
}

/// Checks what admission cannot. Returns the time at which the offer is drained, if it sets one.
pub(crate) fn accept(offer: &ServiceOffer) -> Result<Option<Timestamp>, Unacceptable> {
    let spec = &offer.spec;
    let payments = std::iter::once(&spec.payment).chain(&spec.payments);
    for wallet in payments.filter_map(|payment| payment.pay_to.as_ref()) {
        address::check("payment.payTo", wallet)?;
    }
    let own = offer.namespace().unwrap_or_default();
    let agent = spec.agent.as_ref().and_then(|agent| agent.ref_.as_ref());
    if agent.is_some_and(|agent| agent.namespace != own) {
        return Err(Unacceptable::AgentInOtherNamespace { own });
    }
    let has_service = matches!(
        spec.type_,
        OfferType::Inference | OfferType::FineTuning | OfferType::Http
    );
    if has_service && spec.upstream.is_none() {
        return Err(Unacceptable::MissingUpstream {
            type_: spec.type_.as_str(),
        });
    }
    drained_at(spec).ok_or(Unacceptable::InvalidDrain)
}

/// When an offer is drained, if it sets a time; the outer `None` means that it does not parse.
fn drained_at(spec: &ServiceOfferSpec) -> Option<Option<Timestamp>> {
    let Some(from) = &spec.drain_at else {
        return Some(None);
    };
    let grace = match spec.drain_grace_period.as_deref() {
        None => DRAIN_GRACE,
        Some("0") => SignedDuration::ZERO,
        Some(period) => period.parse().ok()?,
    };
    from.parse::<Timestamp>()
        .ok()?
        .checked_add(grace)
        .ok()
        .map(Some)
}

/// Whether a registry admits the offers of a namespace.
pub(crate) fn is_allowed(
    allowed: &AllowedNamespaces,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    match (allowed.from, &allowed.selector, labels) {
        (_, _, None) => false,
        (NamespacesFrom::All, _, Some(_)) => true,
        // Admission requires a selector here. If it is missing, it must not mean all namespaces.
        (NamespacesFrom::Selector, None, Some(_)) => false,
        (NamespacesFrom::Selector, Some(selector), Some(labels)) => {
            let equal = selector
                .match_labels
                .clone()
                .into_iter()
                .map(|(key, value)| Expression::Equal(key, value));
            let others = selector.match_expressions.iter().map(expression);
            equal
                .chain(others)
                .collect::<LabelSelector>()
                .matches(labels)
        }
    }
}

fn expression(requirement: &Requirement) -> Expression {
    let Requirement {
        key,
        operator,
        values,
    } = requirement.clone();
    match operator {
        Operator::In => Expression::In(key, values.into_iter().collect()),
        Operator::NotIn => Expression::NotIn(key, values.into_iter().collect()),
        Operator::Exists => Expression::Exists(key),
        Operator::DoesNotExist => Expression::DoesNotExist(key),
    }
}

/// Fields that are set but have no effect in this version; those about selling have one where there is a
/// gate.
#[must_use]
pub(crate) fn ignored_fields(spec: &ServiceOfferSpec, has_gate: bool) -> Vec<&'static str> {
    let mut quotas = spec.routes.iter().filter_map(|route| route.free_quota);
    let fields = [
        (
            "agent",
            spec.agent.is_some() || spec.type_ == OfferType::Agent,
        ),
        ("payments", !has_gate && !spec.payments.is_empty()),
        ("routes", !has_gate && !spec.routes.is_empty()),
        ("routes.freeQuota", has_gate && quotas.any(|free| free > 0)),
        ("hostname", !has_gate && spec.hostname.is_some()),
        ("branding", spec.branding.is_some()),
        ("listing", spec.listing.is_some()),
        ("async", spec.async_.is_some()),
        ("limits", !has_gate && spec.limits.is_some()),
        ("payment.card", spec.payment.card.is_some()),
        ("skill", spec.skill.is_some()),
        ("dataset", spec.dataset.is_some()),
    ];
    fields
        .into_iter()
        .filter(|(_, used)| *used)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::{merge, offer, registry};

    const CHECKSUMMED: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    fn labels() -> BTreeMap<String, String> {
        BTreeMap::from([
            ("team".into(), "red".into()),
            ("tier".into(), "gold".into()),
        ])
    }

    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn of(over: Value) -> Eligibility {
        let labels = labels();
        let context = EligibilityContext {
            namespace_labels: Some(&labels),
            upstream_exists: true,
            now: now(),
        };
        eligibility(&offer(over), &registry(json!({})), context)
    }

    fn spec(over: Value) -> Value {
        json!({ "spec": over })
    }

    #[test]
    fn offer_is_eligible_unless_disabled_or_deleted() {
        assert_eq!(of(json!({})), Eligibility::Eligible);
        assert_eq!(
            of(spec(json!({ "registration": { "enabled": false } }))),
            Eligibility::Disabled
        );
        assert_eq!(
            of(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
            Eligibility::Deleted
        );
        let mut none = serde_json::to_value(offer(json!({}))).unwrap();
        none["spec"].as_object_mut().unwrap().remove("registration");
        let context = EligibilityContext {
            namespace_labels: None,
            upstream_exists: true,
            now: now(),
        };
        assert_eq!(
            eligibility(
                &serde_json::from_value(none).unwrap(),
                &registry(json!({})),
                context
            ),
            Eligibility::Disabled
        );
    }

    #[test]
    fn mistyped_wallet_is_rejected_and_unchecksummed_one_accepted() {
        for address in [CHECKSUMMED, &CHECKSUMMED.to_lowercase()] {
            assert_eq!(
                of(spec(json!({ "payment": { "payTo": address } }))),
                Eligibility::Eligible,
                "{address}"
            );
        }
        let mistyped = CHECKSUMMED.replace("c79C8", "c79c8");
        let expected = MistypedAddress {
            field: "payment.payTo".into(),
            address: mistyped.clone(),
        };
        let expected = Eligibility::Unacceptable(expected.into());
        assert_eq!(
            of(spec(json!({ "payment": { "payTo": mistyped } }))),
            expected
        );
        let second = json!({ "network": "base", "payTo": mistyped, "price": { "perHour": "1" } });
        assert_eq!(of(spec(json!({ "payments": [second] }))), expected);
    }

    #[test]
    fn types_served_over_http_require_an_upstream() {
        let without = |type_: &str| {
            let mut offer = serde_json::to_value(offer(json!({}))).unwrap();
            offer["spec"].as_object_mut().unwrap().remove("upstream");
            merge(&mut offer, spec(json!({ "type": type_ })));
            accept(&serde_json::from_value(offer).unwrap())
        };
        for type_ in ["http", "inference", "fine-tuning"] {
            assert_eq!(
                without(type_),
                Err(Unacceptable::MissingUpstream { type_ }),
                "{type_}"
            );
        }
        for type_ in ["agent", "skill", "dataset"] {
            assert_eq!(without(type_), Ok(None), "{type_}");
        }
    }

    #[test]
    fn agent_of_another_namespace_is_rejected() {
        let of = |namespace: &str| {
            of(spec(
                json!({ "agent": { "ref": { "name": "a", "namespace": namespace } } }),
            ))
        };
        assert_eq!(of("shop"), Eligibility::Eligible);
        assert_eq!(
            of("bank"),
            Eligibility::Unacceptable(Unacceptable::AgentInOtherNamespace { own: "shop".into() })
        );
    }

    #[test]
    fn offer_is_drained_after_its_grace_period() {
        let drained = |at: &str, period: Option<&str>| {
            let mut over = json!({ "drainAt": at });
            if let Some(period) = period {
                over["drainGracePeriod"] = json!(period);
            }
            of(spec(over))
        };
        assert_eq!(
            drained("2026-06-01T11:00:00Z", None),
            Eligibility::Drained,
            "one hour, to the second"
        );
        assert_eq!(drained("2026-06-01T11:00:01Z", None), Eligibility::Eligible);
        assert_eq!(
            drained("2026-06-01T12:00:00Z", Some("0")),
            Eligibility::Drained
        );
        assert_eq!(
            drained("2026-06-01T12:00:00Z", Some("0s")),
            Eligibility::Drained
        );
        assert_eq!(
            drained("2026-06-01T10:30:00Z", Some("1h30m")),
            Eligibility::Drained
        );
        assert_eq!(
            drained("2026-06-01T10:30:01Z", Some("1h30m")),
            Eligibility::Eligible
        );
        assert_eq!(
            drained("2026-06-01T11:59:00Z", Some("1.5h")),
            Eligibility::Eligible
        );
        for (at, period) in [
            ("tomorrow", None),
            ("2026-06-01T12:00:00Z", Some("a while")),
        ] {
            assert_eq!(
                drained(at, period),
                Eligibility::Unacceptable(Unacceptable::InvalidDrain)
            );
        }
    }

    #[test]
    fn namespace_is_admitted_by_its_labels() {
        let admitted = |allowed: Value, labels: Option<&BTreeMap<String, String>>| {
            let registry = registry(spec(json!({ "allowedNamespaces": allowed })));
            let context = EligibilityContext {
                namespace_labels: labels,
                upstream_exists: true,
                now: now(),
            };
            eligibility(&offer(json!({})), &registry, context) == Eligibility::Eligible
        };
        let labels = labels();
        let selects = |selector: Value| {
            admitted(
                json!({ "from": "Selector", "selector": selector }),
                Some(&labels),
            )
        };
        let expression = |key: &str, operator: &str, values: &[&str]| {
            selects(
                json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }),
            )
        };
        assert!(admitted(json!({ "from": "All" }), Some(&labels)));
        assert!(
            !admitted(json!({ "from": "All" }), None),
            "a namespace that does not exist"
        );
        assert!(
            !admitted(json!({ "from": "Selector" }), Some(&labels)),
            "no selector does not mean all"
        );
        assert!(selects(
            json!({ "matchLabels": { "team": "red", "tier": "gold" } })
        ));
        assert!(!selects(
            json!({ "matchLabels": { "team": "red", "tier": "lead" } })
        ));
        assert!(expression("team", "In", &["blue", "red"]) && !expression("team", "In", &["blue"]));
        assert!(expression("team", "NotIn", &["blue"]) && !expression("team", "NotIn", &["red"]));
        assert!(expression("absent", "NotIn", &["x"]) && !expression("absent", "In", &["x"]));
        assert!(expression("team", "Exists", &[]) && !expression("absent", "Exists", &[]));
        assert!(
            expression("absent", "DoesNotExist", &[]) && !expression("team", "DoesNotExist", &[])
        );
        let both = json!({ "matchLabels": { "team": "red" }, "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] });
        assert!(!selects(both), "all parts must hold");
    }

    #[test]
    fn first_obstacle_is_reported() {
        let none = BTreeMap::new();
        let closed = registry(spec(json!({
            "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "team": "red" } } },
        })));
        let of = |labels: &BTreeMap<String, String>, upstream_exists| {
            let context = EligibilityContext {
                namespace_labels: Some(labels),
                upstream_exists,
                now: now(),
            };
            eligibility(&offer(json!({})), &closed, context)
        };
        assert_eq!(of(&none, false), Eligibility::NamespaceNotAllowed);
        assert_eq!(of(&labels(), false), Eligibility::UpstreamMissing);
        assert_eq!(of(&labels(), true), Eligibility::Eligible);
    }

    #[test]
    fn fields_without_effect_are_listed() {
        assert!(ignored_fields(&offer(json!({})).spec, false).is_empty());
        let all = offer(spec(json!({
            "type": "agent",
            "payments": [{ "network": "base", "price": { "perHour": "1" } }],
            "routes": [{ "path": "/v1", "freeQuota": 1 }],
            "hostname": "chat.example.org",
            "branding": {},
            "listing": {},
            "async": {},
            "limits": {},
            "payment": { "card": {} },
            "skill": { "name": "s", "version": "1", "sha256": "x", "bundleConfigMap": "m" },
            "dataset": {},
        })));
        let listed = [
            "agent",
            "payments",
            "routes",
            "hostname",
            "branding",
            "listing",
            "async",
            "limits",
            "payment.card",
            "skill",
            "dataset",
        ];
        assert_eq!(ignored_fields(&all.spec, false), listed);
        let sold = [
            "agent",
            "routes.freeQuota",
            "branding",
            "listing",
            "async",
            "payment.card",
            "skill",
            "dataset",
        ];
        assert_eq!(ignored_fields(&all.spec, true), sold);
        let referenced = offer(spec(
            json!({ "agent": { "ref": { "name": "a", "namespace": "shop" } } }),
        ));
        assert_eq!(ignored_fields(&referenced.spec, true), ["agent"]);
    }

    #[test]
    fn every_unacceptable_reason_is_one_word() {
        for unacceptable in [
            Unacceptable::InvalidPayTo(MistypedAddress {
                field: String::new(),
                address: String::new(),
            }),
            Unacceptable::MissingUpstream { type_: "http" },
            Unacceptable::AgentInOtherNamespace { own: String::new() },
            Unacceptable::InvalidDrain,
        ] {
            assert!(unacceptable.reason().chars().all(char::is_alphabetic));
        }
    }
}
