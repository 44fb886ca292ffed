//! The CRDs of a cluster, and objects that they do not admit.

use std::time::Duration;

use harness::objects::create;
use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

/// How long the API server may take to use a CRD that changed.
const LIMIT: Duration = Duration::from_secs(60);

/// Creates the CRD of a kind in namespaces, with a schema that admits anything.
pub async fn create_lax(client: &Client, kind: &ApiResource) {
    let manifest = json!({
        "metadata": {
            "name": format!("{}.{}", kind.plural, kind.group),
            // The API server requires it of groups that end in k8s.io.
            "annotations": { "api-approved.kubernetes.io": "unapproved, for a test" },
        },
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind, "plural": kind.plural, "singular": kind.kind.to_lowercase(),
            },
            "versions": [{
                "name": kind.version,
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                } },
            }],
        },
    });
    let definition: CustomResourceDefinition = serde_json::from_value(manifest).unwrap();
    create(&Api::all(client.clone()), &definition)
        .await
        .unwrap();
}

/// Changes the CRD of a kind and returns it as it was. The API server writes to it as well, so that
/// a conflict is retried.
pub async fn change<K: Resource<DynamicType = ()>>(
    client: &Client,
    change: impl Fn(&mut CustomResourceDefinition),
) -> CustomResourceDefinition {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let name = format!("{}.obol.org", K::plural(&()));
    eventually("the CRD is replaced", LIMIT, async || {
        let before = definitions.get(&name).await?;
        let mut after = before.clone();
        change(&mut after);
        let parameters = PostParams::default();
        definitions.replace(&name, &parameters, &after).await?;
        Ok::<_, kube::Error>(before)
    })
    .await
}

/// Replaces the schema of a kind by one that admits anything, and returns the CRD as it was.
pub async fn relax<K: Resource<DynamicType = ()>>(client: &Client) -> CustomResourceDefinition {
    let anything = JSONSchemaProps {
        type_: Some("object".into()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    change::<K>(client, |lax| {
        for version in &mut lax.spec.versions {
            version.schema.as_mut().unwrap().open_api_v3_schema = Some(anything.clone());
        }
    })
    .await
}

/// Undoes [`relax`].
pub async fn restore<K: Resource<DynamicType = ()>>(
    client: &Client,
    strict: CustomResourceDefinition,
) {
    change::<K>(client, |definition| definition.spec = strict.spec.clone()).await;
}

/// Objects of a kind as any JSON.
pub fn dynamic<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Creates an object as soon as the laxer schema admits it.
pub async fn create_any<K: Resource<DynamicType = ()>>(client: &Client, manifest: Value) {
    let object: DynamicObject = serde_json::from_value(manifest).unwrap();
    let objects = dynamic::<K>(client, object.metadata.namespace.as_deref());
    eventually("the laxer schema admits the object", LIMIT, async || {
        let created = objects.create(&PostParams::default(), &object).await;
        created.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
