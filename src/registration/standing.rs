//! Whether an offer may be listed, and why not.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::{Expression, Selector as LabelSelector, SelectorExt};

use crate::api::{
    AllowedNamespaces, IdentityRegistry, NamespacesFrom, OfferType, Operator, Requirement, ServiceOffer,
    ServiceOfferSpec,
};

/// How long an offer's route stays up after `drainAt`, unless it says otherwise.
const DRAIN_GRACE: SignedDuration = SignedDuration::from_hours(1);

/// What of the cluster an offer's standing depends on, besides the offer and its registry.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Labels of the offer's namespace; `None` if there is no such namespace.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// Whether the upstream's Service exists, if the offer names one.
    pub upstream_exists: bool,
    /// The time.
    pub now: Timestamp,
}

/// Why an offer cannot be acted on at all: its spec contradicts itself or names what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// An address is mistyped: its letters' case does not fit (EIP-55).
    #[error(
        "payment.payTo {address} is mistyped: the case of its letters does not match its checksum (EIP-55). Copy it again, or write it in lower case"
    )]
    PayToChecksum {
        /// The address.
        address: String,
    },
    /// There is nothing that could be sold.
    #[error("upstream is required when type is {type_}: name the Service that does the work")]
    NoUpstream {
        /// The type.
        type_: &'static str,
    },
    /// The Agent lives elsewhere.
    #[error("agent.ref.namespace must be {own}, the namespace of the offer")]
    ForeignAgent {
        /// Namespace of the offer.
        own: String,
    },
    /// A time cannot be read.
    #[error(
        "drainAt or drainGracePeriod cannot be read: write a time like 2030-01-31T12:00:00Z and a duration like 30m"
    )]
    Drain,
}

impl Unacceptable {
    /// One word for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::PayToChecksum { .. } => "InvalidPayTo",
            Self::NoUpstream { .. } => "MissingUpstream",
            Self::ForeignAgent { .. } => "AgentInOtherNamespace",
            Self::Drain => "InvalidDrain",
        }
    }
}

/// Whether an offer may be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Live,
    /// It does not ask to be.
    Disabled,
    /// Its object is being deleted.
    Deleted,
    /// It cannot be acted on.
    Unacceptable(Unacceptable),
    /// The registry does not admit its namespace.
    NamespaceNotAllowed,
    /// The upstream's Service does not exist.
    UpstreamMissing,
    /// It has been drained.
    Drained,
}

/// Whether an offer may be listed on a registry.
#[must_use]
pub fn standing(offer: &ServiceOffer, registry: &IdentityRegistry, around: Surroundings<'_>) -> Standing {
    if !offer.spec.registration.as_ref().is_some_and(|registration| registration.enabled) {
        return Standing::Disabled;
    }
    if offer.metadata.deletion_timestamp.is_some() {
        return Standing::Deleted;
    }
    let drained = match accept(offer) {
        Ok(ends) => ends.is_some_and(|end| end <= around.now),
        Err(unacceptable) => return Standing::Unacceptable(unacceptable),
    };
    if drained {
        Standing::Drained
    } else if !is_allowed(&registry.spec.allowed_namespaces, around.namespace_labels) {
        Standing::NamespaceNotAllowed
    } else if !around.upstream_exists {
        Standing::UpstreamMissing
    } else {
        Standing::Live
    }
}

/// Checks what admission cannot. Says when the offer will have been drained, if it is to be.
///
/// # Errors
/// Why the offer cannot be acted on.
pub fn accept(offer: &ServiceOffer) -> Result<Option<Timestamp>, Unacceptable> {
    let spec = &offer.spec;
    let payments = std::iter::once(&spec.payment).chain(&spec.payments);
    if let Some(address) = payments.filter_map(|payment| payment.pay_to.as_ref()).find(|text| is_mistyped(text)) {
        return Err(Unacceptable::PayToChecksum { address: address.clone() });
    }
    let own = offer.namespace().unwrap_or_default();
    let agent = spec.agent.as_ref().and_then(|agent| agent.ref_.as_ref());
    if agent.is_some_and(|agent| agent.namespace != own) {
        return Err(Unacceptable::ForeignAgent { own });
    }
    let has_service = matches!(spec.type_, OfferType::Inference | OfferType::FineTuning | OfferType::Http);
    if has_service && spec.upstream.is_none() {
        return Err(Unacceptable::NoUpstream { type_: spec.type_.as_str() });
    }
    drained_at(spec).ok_or(Unacceptable::Drain)
}

/// When an offer will have been drained; `None` if that cannot be read.
fn drained_at(spec: &ServiceOfferSpec) -> Option<Option<Timestamp>> {
    let Some(from) = &spec.drain_at else { return Some(None) };
    let grace = match spec.drain_grace_period.as_deref() {
        None => DRAIN_GRACE,
        Some("0") => SignedDuration::ZERO,
        Some(period) => period.parse().ok()?,
    };
    from.parse::<Timestamp>().ok()?.checked_add(grace).ok().map(Some)
}

/// An address in mixed case carries a checksum; one in a single case carries none and is taken at its word.
fn is_mistyped(address: &str) -> bool {
    let letters = || address.trim_start_matches("0x").chars().filter(char::is_ascii_alphabetic);
    let mixed =
        letters().any(|letter| letter.is_ascii_lowercase()) && letters().any(|letter| letter.is_ascii_uppercase());
    mixed && Address::parse_checksummed(address, None).is_err()
}

/// Whether a registry admits the offers of a namespace.
fn is_allowed(allowed: &AllowedNamespaces, labels: Option<&BTreeMap<String, String>>) -> bool {
    match (allowed.from, &allowed.selector, labels) {
        (_, _, None) => false,
        (NamespacesFrom::All, _, Some(_)) => true,
        // Admission requires a selector here; one that is missing must not mean all.
        (NamespacesFrom::Selector, None, Some(_)) => false,
        (NamespacesFrom::Selector, Some(selector), Some(labels)) => {
            let equal = selector.match_labels.clone().into_iter().map(|(key, value)| Expression::Equal(key, value));
            let others = selector.match_expressions.iter().map(expression);
            equal.chain(others).collect::<LabelSelector>().matches(labels)
        }
    }
}

fn expression(requirement: &Requirement) -> Expression {
    let Requirement { key, operator, values } = requirement.clone();
    match operator {
        Operator::In => Expression::In(key, values.into_iter().collect()),
        Operator::NotIn => Expression::NotIn(key, values.into_iter().collect()),
        Operator::Exists => Expression::Exists(key),
        Operator::DoesNotExist => Expression::DoesNotExist(key),
    }
}

/// Fields that this version keeps and does not act on.
#[must_use]
pub fn ignored_fields(spec: &ServiceOfferSpec) -> Vec<&'static str> {
    let fields = [
        ("agent", spec.agent.is_some() || spec.type_ == OfferType::Agent),
        ("payments", !spec.payments.is_empty()),
        ("routes", !spec.routes.is_empty()),
        ("hostname", spec.hostname.is_some()),
        ("branding", spec.branding.is_some()),
        ("listing", spec.listing.is_some()),
        ("async", spec.async_.is_some()),
        ("limits", spec.limits.is_some()),
        ("payment.card", spec.payment.card.is_some()),
        ("skill", spec.skill.is_some()),
        ("dataset", spec.dataset.is_some()),
    ];
    fields.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect()
}
