//! The contract with people and with the API server: four kinds of group `obol.org`, version `v1alpha1`.
//!
//! Types derive the CRD schema (`crdgen` writes it into the chart), so a rule is stated once, here. A schema must be
//! at least as strict as what serde accepts: an object that passes admission and does not decode stalls nobody
//! (watches are guarded), but serves nobody either.
//!
//! This room depends on nothing else of the crate and decides nothing: it holds values.
//! What an offer means is decided in [`crate::registration`] and [`crate::reconcile`], what a ledger may do in
//! [`crate::ledger::protocol`].
#![allow(
    rustdoc::invalid_html_tags,
    reason = "`kubectl explain` shows descriptions as they are"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

mod agent_registration;
pub mod condition;
mod identity_registry;
pub mod key;
pub mod network;
mod reference;
pub mod scalar;
mod schema;
mod service_offer;
mod signer_ledger;

pub use agent_registration::*;
pub use condition::{Condition, ConditionStatus};
pub use identity_registry::*;
pub use key::Key;
pub use reference::{Reference, SecretKey};
pub use scalar::{Nonce, Wei};
pub use service_offer::*;
pub use signer_ledger::*;

/// API group of every kind here.
pub const GROUP: &str = "obol.org";
/// Version of every kind here.
pub const VERSION: &str = "v1alpha1";
/// Set to `"true"` on the IdentityRegistry that offers without `registryRef` use.
pub const DEFAULT_REGISTRY_ANNOTATION: &str = "obol.org/is-default-registry";
/// Finalizer of the controller that this one replaces; removed where met, never added.
pub const LEGACY_FINALIZER: &str = "monetize.obol.org/finalizer";

/// The definitions of all four kinds, in the order of their names.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 4] {
    [
        AgentRegistration::crd(),
        IdentityRegistry::crd(),
        ServiceOffer::crd(),
        SignerLedger::crd(),
    ]
}
