//! Writing Kubernetes objects, and reading the status of offers.
//!
//! Writes wait for an API server that is starting or busy, or does not serve a new kind yet. A
//! refusal is final.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Result;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serviceoffer::api::{Condition, Key, ServiceOffer, condition};

use crate::wait::until;

/// How long the API server may take to do what it is asked.
const SOON: Duration = Duration::from_secs(30);

/// Creates an object.
///
/// # Errors
/// If the API server refuses, or does not answer in time.
pub async fn create<K>(api: &Api<K>, object: &K) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let mut sent = false;
    until(&format!("{name} is created"), SOON, async || {
        let created = match api.create(&PostParams::default(), object).await {
            // An earlier request was carried out, and its answer was lost.
            Err(kube::Error::Api(status)) if status.is_already_exists() && sent => {
                api.get(&name).await
            }
            created => created,
        };
        sent = true;
        match created {
            Err(error) if is_not_served(&error) => Err(error),
            created => unless_transient(created),
        }
    })
    .await?
    .map_err(Into::into)
}

/// Changes fields of an object; the rest stays.
///
/// # Errors
/// If the API server refuses, or does not answer in time.
pub async fn patch<K>(api: &Api<K>, name: &str, change: Value) -> Result<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    let change = Patch::Merge(change);
    until(&format!("{name} is changed"), SOON, async || {
        unless_transient(api.patch(name, &PatchParams::default(), &change).await)
    })
    .await?
    .map_err(Into::into)
}

/// Deletes an object. It may still be there when this returns.
///
/// # Errors
/// If there is none, or the API server refuses or does not answer in time.
pub async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    delete_unless(false, api, name).await
}

/// Deletes an object if there is one. It may still be there when this returns.
///
/// # Errors
/// If the API server refuses, or does not answer in time.
pub async fn delete_if_exists<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    delete_unless(true, api, name).await
}

async fn delete_unless<K>(mut may_be_gone: bool, api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    until(&format!("{name} is deleted"), SOON, async || {
        let deleted = match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() && may_be_gone => Ok(()),
            deleted => deleted.map(drop),
        };
        // An earlier request may have been carried out, and its answer lost.
        may_be_gone = true;
        unless_transient(deleted)
    })
    .await?
    .map_err(Into::into)
}

/// An answer that is final, or an error that may be gone a moment later.
fn unless_transient<T>(answer: kube::Result<T>) -> Result<kube::Result<T>, kube::Error> {
    match answer {
        Err(error) if is_transient(&error) => Err(error),
        answer => Ok(answer),
    }
}

/// Whether the API server may answer otherwise a moment later: it is starting or busy.
pub fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            matches!(status.code, 429 | 500..)
                || status.message.contains("not yet ready to handle request")
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// Whether the API server answered that it does not serve the kind, as it does until a new CRD is
/// established.
pub fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Namespace and name of an offer.
pub fn name_of(offer: &ServiceOffer) -> (String, String) {
    (offer.namespace().unwrap_or_default(), offer.name_any())
}

/// Key of an offer's agent, as its status names it.
pub fn key_of(offer: &ServiceOffer) -> Option<Key> {
    offer.status.as_ref()?.registration.as_ref()?.key
}

/// Agent id of an offer whose registration is final.
pub fn agent_of(offer: &ServiceOffer) -> Option<String> {
    let (status, reason, _) = condition_of(offer, "Registered");
    if status == "True" && reason == "Registered" {
        offer.status.as_ref()?.agent_id.clone()
    } else {
        None
    }
}

/// Status, reason and message of a condition of an offer; empty if it is absent.
pub fn condition_of(offer: &ServiceOffer, type_: &str) -> (String, String, String) {
    let conditions = offer.status.as_ref().map(|status| &status.conditions[..]);
    read_condition(conditions.unwrap_or_default(), type_)
}

/// Status, reason and message of a condition; empty if it is absent.
pub fn read_condition(conditions: &[Condition], type_: &str) -> (String, String, String) {
    let Some(found) = condition::find(conditions, type_) else {
        return Default::default();
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (
        found.status.to_string(),
        text(&found.reason),
        text(&found.message),
    )
}
