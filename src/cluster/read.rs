//! Reads from the API server. Every one is a quorum read of etcd; none is answered from a cache.
//!
//! Only these decide what could spend money. For everything else there is the
//! [cache](super::cache).

use std::collections::HashMap;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use super::{Error, Lenient, MaybeDecoded};
use crate::api::{
    AgentRegistration, GROUP, IdentityRegistry, SecretKey, ServiceOffer, SignerLedger, VERSION,
};
use crate::leader::lease::ResourceVersion;

/// Objects per page of a list.
const PAGE: u32 = 500;
/// Namespace and name of the only AgentIdentity of the legacy controller.
const AGENT_IDENTITY: (&str, &str) = ("x402", "default");

/// Namespace and name of an object.
pub(super) type ObjectKey = (Option<String>, String);

/// Which objects of a kind exist, and in which versions.
#[derive(Debug, Default)]
pub(super) struct ObjectVersions {
    /// Version of the list itself.
    pub(super) version: ResourceVersion,
    pub(super) objects: HashMap<ObjectKey, ResourceVersion>,
}

/// A Secret, if it changed.
#[derive(PartialEq, Eq)]
pub enum SecretRead {
    /// It has the resource version that the caller knows.
    Unchanged,
    Read {
        /// `None` if the Secret does not exist.
        version: Option<String>,
        /// `None` if the Secret or its key does not exist.
        bytes: Option<Zeroizing<Vec<u8>>>,
    },
}

/// Reads objects; it cannot write.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    release_namespace: String,
}

impl Reader {
    /// A reader that uses this client. Secrets are read in the namespace of the release only.
    #[must_use]
    pub fn new(client: Client, release_namespace: String) -> Self {
        Self {
            client,
            release_namespace,
        }
    }

    /// An offer, which may not be decodable: that must not fail the caller.
    pub async fn offer(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<MaybeDecoded<ServiceOffer>>, Error> {
        Ok(Api::namespaced(self.client.clone(), namespace)
            .get_opt(name)
            .await?)
    }

    /// A SignerLedger.
    pub async fn ledger(&self, name: &str) -> Result<Option<Lenient<SignerLedger>>, Error> {
        self.cluster_wide(name).await
    }

    /// An AgentRegistration.
    pub async fn record(&self, name: &str) -> Result<Option<Lenient<AgentRegistration>>, Error> {
        self.cluster_wide(name).await
    }

    /// A cluster-scoped object.
    pub async fn cluster_wide<K>(&self, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        Ok(Api::<K>::all(self.client.clone()).get_opt(name).await?)
    }

    /// The versions of all objects of a kind, from one consistent list.
    pub(super) async fn object_versions<K>(&self) -> Result<ObjectVersions, Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = Api::<K>::all(self.client.clone());
        let (mut versions, mut parameters) =
            (ObjectVersions::default(), ListParams::default().limit(PAGE));
        loop {
            let page = api.list_metadata(&parameters).await?;
            // All pages are of the version of the first one.
            versions.version = ResourceVersion(page.metadata.resource_version.unwrap_or_default());
            versions.objects.extend(
                page.items
                    .iter()
                    .map(|object| (object_key(object), object_version(object))),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(versions),
            }
        }
    }

    /// Every AgentRegistration, from one consistent list.
    pub async fn records(&self) -> Result<Vec<Lenient<AgentRegistration>>, Error> {
        self.all().await
    }

    /// Every SignerLedger, from one consistent list.
    pub async fn ledgers(&self) -> Result<Vec<Lenient<SignerLedger>>, Error> {
        self.all().await
    }

    /// Every IdentityRegistry, from one consistent list.
    pub async fn registries(&self) -> Result<Vec<Lenient<IdentityRegistry>>, Error> {
        self.all().await
    }

    /// Every object of a cluster-scoped kind. One that cannot be decoded does not fail the list.
    async fn all<K>(&self) -> Result<Vec<Lenient<K>>, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api = Api::<Lenient<K>>::all(self.client.clone());
        let (mut objects, mut parameters) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let mut page = api.list(&parameters).await?;
            for object in &mut page.items {
                // The largest part of a small object. An update without them changes none.
                object.meta_mut().managed_fields = None;
            }
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }

    /// The bytes under one key of a Secret. Only the metadata is read if the Secret still has the
    /// resource version that the caller knows.
    pub async fn secret(&self, key: &SecretKey, known: Option<&str>) -> Result<SecretRead, Error> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.release_namespace);
        if let Some(known) = known {
            let metadata = api.get_metadata_opt(&key.name).await?;
            let version = metadata.and_then(|secret| secret.metadata.resource_version);
            if version.as_deref() == Some(known) {
                return Ok(SecretRead::Unchanged);
            }
        }
        let Some(mut secret) = api.get_opt(&key.name).await? else {
            return Ok(SecretRead::Read {
                version: None,
                bytes: None,
            });
        };
        let mut data = secret.data.take().unwrap_or_default();
        let bytes = data.remove(&key.key).map(|bytes| Zeroizing::new(bytes.0));
        data.values_mut().for_each(|other| other.0.zeroize());
        Ok(SecretRead::Read {
            version: secret.metadata.resource_version,
            bytes,
        })
    }

    /// The RegistrationRequest that the legacy controller left for an offer.
    pub async fn registration_request(
        &self,
        namespace: &str,
        offer: &str,
    ) -> Result<LegacyRead, Error> {
        self.legacy(
            "RegistrationRequest",
            "registrationrequests",
            namespace,
            &format!("so-{offer}-registration"),
        )
        .await
    }

    /// The AgentIdentity that the legacy controller left.
    pub async fn agent_identity(&self) -> Result<LegacyRead, Error> {
        let (namespace, name) = AGENT_IDENTITY;
        self.legacy("AgentIdentity", "agentidentities", namespace, name)
            .await
    }

    /// An object of a kind of the legacy controller, whose CRD may not be installed.
    async fn legacy(
        &self,
        kind: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<LegacyRead, Error> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        match api.get(name).await {
            Ok(object) => Ok(LegacyRead::Found(Box::new(object))),
            // The response for an unknown kind has no Status body, only the code.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Ok(if status.reason == "NotFound" {
                    LegacyRead::Missing
                } else {
                    LegacyRead::NotServed
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What the API server answers about an object of the legacy controller.
#[derive(Clone, Debug)]
pub enum LegacyRead {
    Found(Box<DynamicObject>),
    /// There is no such object.
    Missing,
    /// There is no such kind.
    NotServed,
}

impl LegacyRead {
    /// The object, if it exists.
    #[must_use]
    pub fn object(&self) -> Option<&DynamicObject> {
        match self {
            Self::Found(object) => Some(object),
            Self::Missing | Self::NotServed => None,
        }
    }

    /// Whether the API server serves the kind.
    #[must_use]
    pub fn is_served(&self) -> bool {
        !matches!(self, Self::NotServed)
    }
}

pub(super) fn object_key(object: &impl ResourceExt) -> ObjectKey {
    (object.namespace(), object.name_any())
}

pub(super) fn object_version(object: &impl ResourceExt) -> ResourceVersion {
    ResourceVersion(object.resource_version().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::registration::fixtures::record;

    async fn serve(_: Request<Body>) -> Result<Response<Body>, BoxError> {
        let fields = json!([{ "manager": "operator", "fieldsV1": { "f:spec": {} } }]);
        let own = record(
            "shop/chat",
            1,
            json!({ "metadata": { "managedFields": fields } }),
        );
        let unknown = json!({
            "apiVersion": "obol.org/v1alpha1", "kind": "AgentRegistration",
            "metadata": { "name": "r-unknown", "managedFields": fields }, "spec": "unknown",
        });
        let list = json!({
            "apiVersion": "obol.org/v1alpha1", "kind": "AgentRegistrationList",
            "metadata": { "resourceVersion": "9" }, "items": [own, unknown],
        });
        Ok(Response::new(Body::from(serde_json::to_vec(&list)?)))
    }

    #[tokio::test]
    async fn listed_records_come_without_managed_fields() {
        let client = Client::new(service_fn(serve), "default");
        let records = Reader::new(client, "operator".into()).records().await;
        let records = records.unwrap();
        assert_eq!(records.len(), 2);
        for record in records {
            assert_eq!(record.meta().managed_fields, None, "{}", record.name_any());
        }
    }
}
