//! Reads of the state of this moment: every one reaches the quorum of the cluster's store, none is answered from a cache.
//!
//! Decisions that could spend money are made on these alone.

use std::collections::HashMap;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::Error;
use super::cache::MaybeDecoded;
use crate::api::{AgentRegistration, GROUP, SecretKey, ServiceOffer, SignerLedger, VERSION};
use crate::leader::record::Version;

/// Objects asked for at once.
const PAGE: u32 = 500;
/// Namespace and name of the old controller's one AgentIdentity.
const AGENT_IDENTITY: (&str, &str) = ("x402", "default");

/// Which objects of a kind exist, and in which versions.
#[derive(Debug, Default)]
pub struct ObjectVersions {
    /// As of which version of the cluster's store.
    pub version: Version,
    /// Version of each object by namespace and name.
    pub objects: HashMap<(Option<String>, String), Version>,
}

/// Reads, and cannot write.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    release_namespace: String,
}

impl Reader {
    /// Reads through a client; Secrets in the namespace of the release only.
    #[must_use]
    pub fn new(client: Client, release_namespace: String) -> Self {
        Self {
            client,
            release_namespace,
        }
    }

    /// An offer. One that cannot be decoded is an answer as well: it must not stall whoever asks.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn offer(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<MaybeDecoded<ServiceOffer>>, Error> {
        Ok(Api::namespaced(self.client.clone(), namespace)
            .get_opt(name)
            .await?)
    }

    /// A ledger.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn ledger(&self, name: &str) -> Result<Option<SignerLedger>, Error> {
        self.cluster_wide(name).await
    }

    /// A record.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn record(&self, name: &str) -> Result<Option<AgentRegistration>, Error> {
        self.cluster_wide(name).await
    }

    /// Any object that has no namespace.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn cluster_wide<K>(&self, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        Ok(Api::<K>::all(self.client.clone()).get_opt(name).await?)
    }

    /// Every object of a kind, without what it holds.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn object_versions<K>(&self) -> Result<ObjectVersions, Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = Api::<K>::all(self.client.clone());
        let (mut census, mut parameters) =
            (ObjectVersions::default(), ListParams::default().limit(PAGE));
        loop {
            let page = api.list_metadata(&parameters).await?;
            // All pages show the moment of the first one.
            census.version = Version(page.metadata.resource_version.unwrap_or_default());
            census.objects.extend(
                page.items
                    .iter()
                    .map(|object| (place(object), version(object))),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(census),
            }
        }
    }

    /// Every record, all of one moment.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn records(&self) -> Result<Vec<AgentRegistration>, Error> {
        let api = Api::<AgentRegistration>::all(self.client.clone());
        let (mut records, mut parameters) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let page = api.list(&parameters).await?;
            records.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(records),
            }
        }
    }

    /// The text under one key of a Secret; `None` if there is no such Secret or key.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn secret(&self, key: &SecretKey) -> Result<Option<String>, Error> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.release_namespace);
        let secret = api.get_opt(&key.name).await?;
        let bytes = secret.and_then(|secret| secret.data?.remove(&key.key));
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes.0).ok()))
    }

    /// What the old controller left of an offer's registration: its RegistrationRequest, if there is one.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn registration_request(
        &self,
        namespace: &str,
        offer: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        self.relic(
            "RegistrationRequest",
            "registrationrequests",
            namespace,
            &format!("so-{offer}-registration"),
        )
        .await
    }

    /// What the old controller left of its agents: its AgentIdentity, if there is one.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn agent_identity(&self) -> Result<Option<DynamicObject>, Error> {
        let (namespace, name) = AGENT_IDENTITY;
        self.relic("AgentIdentity", "agentidentities", namespace, name)
            .await
    }

    /// An object of a kind that need not exist in this cluster.
    async fn relic(
        &self,
        kind: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        match api.get(name).await {
            Ok(object) => Ok(Some(object)),
            // A kind that the cluster does not know is answered without a Status: only the code tells.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Namespace and name of an object.
pub(super) fn place(object: &impl ResourceExt) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

/// Version of an object.
pub(super) fn version(object: &impl ResourceExt) -> Version {
    Version(object.resource_version().unwrap_or_default())
}
