//! Writes to the API server. Each takes proof of leadership, and each is conditional: a create on
//! an unused name, an update on the resource version that was read. Only Events are unconditional,
//! because they change no object.
//!
//! Without the proof, nothing compiles:
//! ```compile_fail
//! async fn sneak(writer: serviceoffer::cluster::Writer, record: &serviceoffer::api::AgentRegistration) {
//!     writer.create(record).await;
//! }
//! ```

use std::fmt::Debug;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Error;
use crate::api::{
    GROUP, IdentityRegistry, LEGACY_FINALIZER, PaymentFacilitator, PaymentFacilitatorStatus,
    ServiceOffer, ServiceOfferStatus, VERSION,
};
use crate::leader::Leading;
use crate::leader::fence::Effect;

/// Owner of the fields that this operator applies.
pub(super) const FIELD_MANAGER: &str = "serviceoffer-controller";

/// A Kubernetes Event that has not been published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// Whether its type is Warning instead of Normal.
    pub warning: bool,
    /// CamelCase word that says why the Event is published.
    pub reason: String,
    /// Text for `kubectl describe`.
    pub message: String,
    /// CamelCase word for what the operator was doing.
    pub action: &'static str,
}

/// Writes objects and publishes Events.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
}

impl Writer {
    /// A writer that uses this client. Events name `replica` as their reporting instance.
    #[must_use]
    pub fn new(client: Client, replica: String) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: Some(replica),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
        }
    }

    /// Creates a cluster-scoped object. Its name acts as a test-and-set.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken.
    pub async fn create<K>(&self, leading: &Leading, object: &K) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let api = Api::<K>::all(self.client.clone());
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        Ok(leading
            .guard(Effect::Kubernetes, api.create(&parameters, object))
            .await??)
    }

    /// Replaces a cluster-scoped object, if its resource version is still the one that was read.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not.
    pub async fn replace<K>(&self, leading: &Leading, object: &K) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        debug_assert!(
            object.meta().resource_version.is_some(),
            "a replace without a resource version is unconditional"
        );
        let api = Api::<K>::all(self.client.clone());
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let name = object.name_any();
        Ok(leading
            .guard(Effect::Kubernetes, api.replace(&name, &parameters, object))
            .await??)
    }

    /// Replaces the status of a registry, if its resource version is still the one that was read.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not.
    pub async fn replace_registry_status(
        &self,
        leading: &Leading,
        registry: &IdentityRegistry,
    ) -> Result<IdentityRegistry, Error> {
        debug_assert!(
            registry.metadata.resource_version.is_some(),
            "a replace without a resource version is unconditional"
        );
        let api = Api::<IdentityRegistry>::all(self.client.clone());
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let name = registry.name_any();
        Ok(leading
            .guard(
                Effect::Kubernetes,
                api.replace_status(&name, &parameters, registry),
            )
            .await??)
    }

    /// Applies the fields of an offer's status that this operator owns; those of other field
    /// managers stay. `object` names the offer, which need not be decodable, and the resource
    /// version that the status describes: a request that a suspended process sends late must not
    /// overwrite a newer status.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the offer has another resource version.
    pub async fn apply_offer_status(
        &self,
        leading: &Leading,
        object: &ObjectReference,
        status: &ServiceOfferStatus,
    ) -> Result<(), Error> {
        debug_assert!(
            object.resource_version.is_some(),
            "an apply without a resource version is unconditional"
        );
        let (namespace, name) = object_key(object);
        let api = Api::<kube::api::PartialObjectMeta<ServiceOffer>>::namespaced(
            self.client.clone(),
            namespace,
        );
        // The uid makes the API server reject the status if the offer was deleted and created again
        // under the same name.
        let metadata = ObjectMeta {
            name: object.name.clone(),
            namespace: object.namespace.clone(),
            uid: object.uid.clone(),
            resource_version: object.resource_version.clone(),
            ..ObjectMeta::default()
        };
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": ServiceOffer::kind(&()),
            "metadata": metadata,
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        leading
            .guard(
                Effect::Kubernetes,
                api.patch_status(name, &parameters, &Patch::Apply(&body)),
            )
            .await??;
        Ok(())
    }

    /// Applies the status of a facilitator. `object` names it and the resource version that the
    /// status describes, as in [`Self::apply_offer_status`].
    ///
    /// # Errors
    /// [`Error::Conflict`] if the facilitator has another resource version.
    pub async fn apply_facilitator_status(
        &self,
        leading: &Leading,
        object: &ObjectReference,
        status: &PaymentFacilitatorStatus,
    ) -> Result<(), Error> {
        debug_assert!(
            object.resource_version.is_some(),
            "an apply without a resource version is unconditional"
        );
        let (_, name) = object_key(object);
        let api = Api::<kube::api::PartialObjectMeta<PaymentFacilitator>>::all(self.client.clone());
        let metadata = ObjectMeta {
            name: object.name.clone(),
            uid: object.uid.clone(),
            resource_version: object.resource_version.clone(),
            ..ObjectMeta::default()
        };
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": PaymentFacilitator::kind(&()),
            "metadata": metadata,
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        leading
            .guard(
                Effect::Kubernetes,
                api.patch_status(name, &parameters, &Patch::Apply(&body)),
            )
            .await??;
        Ok(())
    }

    /// Removes the finalizer of the legacy controller, which blocks the deletion of the offer.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the offer has another resource version.
    pub async fn strip_finalizer(
        &self,
        leading: &Leading,
        offer: &ServiceOffer,
    ) -> Result<(), Error> {
        let finalizers: Vec<&String> = offer
            .finalizers()
            .iter()
            .filter(|own| *own != LEGACY_FINALIZER)
            .collect();
        let api = Api::<ServiceOffer>::namespaced(
            self.client.clone(),
            &offer.namespace().unwrap_or_default(),
        );
        let body = json!({
            "metadata": { "finalizers": finalizers, "resourceVersion": offer.resource_version() },
        });
        let (name, parameters) = (offer.name_any(), PatchParams::default());
        leading
            .guard(
                Effect::Kubernetes,
                api.patch(&name, &parameters, &Patch::Merge(&body)),
            )
            .await??;
        Ok(())
    }

    /// Publishes an Event about an object.
    pub async fn publish(
        &self,
        leading: &Leading,
        object: &ObjectReference,
        draft: &EventDraft,
    ) -> Result<(), Error> {
        let event = Event {
            type_: if draft.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: draft.reason.clone(),
            note: Some(draft.message.clone()),
            action: draft.action.into(),
            secondary: None,
        };
        Ok(leading
            .guard(Effect::Kubernetes, self.recorder.publish(&event, object))
            .await??)
    }
}

fn object_key(object: &ObjectReference) -> (&str, &str) {
    (
        object.namespace.as_deref().unwrap_or_default(),
        object.name.as_deref().unwrap_or_default(),
    )
}
