//! The API: five kinds of group `obol.org`, version `v1alpha1`. It is a contract with users and
//! with the API server.
//!
//! The CRD schemas are derived from these types (`crdgen` writes them into the chart), so each rule
//! is stated once, here. A schema must be at least as strict as serde: an object that passes
//! admission but does not decode blocks no other object (watches skip it), but nothing is done for
//! it either.
//!
//! This room holds values. It must not depend on another room, and it decides nothing:
//! [`crate::registration`] and [`crate::reconcile`] decide what an offer means,
//! [`crate::ledger::protocol`] what a ledger may do.
#![allow(
    rustdoc::invalid_html_tags,
    reason = "`kubectl explain` prints descriptions verbatim"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

mod agent_registration;
pub mod condition;
mod identity_registry;
mod key;
pub(crate) mod network;
mod payment_facilitator;
mod reference;
mod scalar;
mod schema;
mod service_offer;
mod signer_ledger;

pub use agent_registration::*;
pub use condition::{Condition, ConditionStatus};
pub use identity_registry::*;
pub use key::Key;
pub use payment_facilitator::*;
pub use reference::{Reference, SecretKey};
pub use scalar::{AgentCount, Nonce, Wei};
pub use service_offer::*;
pub use signer_ledger::*;

/// API group of all kinds.
pub(crate) const GROUP: &str = "obol.org";
/// Version of all kinds.
pub(crate) const VERSION: &str = "v1alpha1";
/// Set to `"true"` on the IdentityRegistry that offers without a `registryRef` use.
pub(crate) const DEFAULT_REGISTRY_ANNOTATION: &str = "obol.org/is-default-registry";
/// Finalizer of the legacy controller. The operator removes it and never adds it.
pub const LEGACY_FINALIZER: &str = "monetize.obol.org/finalizer";
/// Set on a ServiceOffer that sells nothing for the time being.
pub(crate) const PAUSED_ANNOTATION: &str = "obol.org/paused";

/// Reason of an offer that another controller sells as well.
pub(crate) const OTHER_GATE: &str = "OtherGate";
/// Types of the conditions about selling an offer.
pub(crate) const SALE_CONDITIONS: [&str; 4] = [
    "PaymentGateReady",
    "UpstreamHealthy",
    "RoutePublished",
    "Draining",
];

/// The CRDs of all five kinds, sorted by name.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 5] {
    [
        AgentRegistration::crd(),
        IdentityRegistry::crd(),
        PaymentFacilitator::crd(),
        ServiceOffer::crd(),
        SignerLedger::crd(),
    ]
}
