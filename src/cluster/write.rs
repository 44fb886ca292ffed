//! Writes to the API server. Each takes proof of leadership, and each is conditional: on a name that must be free, or on the
//! version that was read. Events alone are not: they only add.
//!
//! Without proof nothing compiles:
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
    GROUP, IdentityRegistry, LEGACY_FINALIZER, ServiceOffer, ServiceOfferStatus, VERSION,
};
use crate::leader::Leading;
use crate::leader::fence::Effect;

/// Name under which the API server knows what is ours of an object.
const FIELD_MANAGER: &str = "serviceoffer-controller";

/// Something that happened to an object, told to whoever describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// Whether a person should look.
    pub warning: bool,
    /// What happened, in one word.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// What was being done.
    pub action: &'static str,
}

/// Writes, for whoever leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
}

impl Writer {
    /// Writes through a client; events name this replica.
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

    /// Creates an object without a namespace. Its name is a test-and-set.
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

    /// Replaces an object without a namespace, if it still has the version that this one was read with.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has not.
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
            "a replacement without a version is unconditional"
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

    /// Replaces the status of a registry, if it still has the version that this one was read with.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has not.
    pub async fn replace_registry_status(
        &self,
        leading: &Leading,
        registry: &IdentityRegistry,
    ) -> Result<IdentityRegistry, Error> {
        debug_assert!(
            registry.metadata.resource_version.is_some(),
            "a replacement without a version is unconditional"
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

    /// Applies what is ours of an offer's status. What others wrote stays as it is. `object` names the offer, which need not
    /// be decodable, and the version that was looked at: what a stopped process sends late must not hide what is newer.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has another version.
    pub async fn apply_offer_status(
        &self,
        leading: &Leading,
        object: &ObjectReference,
        status: &ServiceOfferStatus,
    ) -> Result<(), Error> {
        debug_assert!(
            object.resource_version.is_some(),
            "an application without a version is unconditional"
        );
        let (namespace, name) = place(object);
        let api = Api::<kube::api::PartialObjectMeta<ServiceOffer>>::namespaced(
            self.client.clone(),
            namespace,
        );
        // Bound to the very object that was looked at: one that was made anew under its name has a status of its own.
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

    /// Removes the finalizer of the old controller, so that the offer can go when it is deleted.
    ///
    /// # Errors
    /// If the API server does not do as asked.
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

    /// Tells what happened to an object.
    ///
    /// # Errors
    /// If the API server does not do as asked.
    pub async fn publish(
        &self,
        leading: &Leading,
        object: &ObjectReference,
        note: &EventDraft,
    ) -> Result<(), Error> {
        let event = Event {
            type_: if note.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: note.reason.clone(),
            note: Some(note.message.clone()),
            action: note.action.into(),
            secondary: None,
        };
        Ok(leading
            .guard(Effect::Kubernetes, self.recorder.publish(&event, object))
            .await??)
    }
}

fn place(object: &ObjectReference) -> (&str, &str) {
    (
        object.namespace.as_deref().unwrap_or_default(),
        object.name.as_deref().unwrap_or_default(),
    )
}
