//! An object that admission would refuse exists nevertheless: it was stored under an older, laxer
//! schema.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::json;
use serviceoffer::api::ServiceOffer;

use crate::fixture::TestEnv;
use crate::objects::offer;

const LIMIT: Duration = Duration::from_secs(60);
const DEFINITION: &str = "serviceoffers.obol.org";

#[test]
fn undecodable_offer_is_reported_and_blocks_no_other() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        let strict = relax(&env).await;
        let mut broken = offer("shop", "broken");
        broken["spec"]["upstream"]["port"] = json!("eighty");
        create_any(&env, broken).await;
        objects.create_offers(&["shop"], 3).await;
        for name in ["offer-0", "offer-1", "offer-2"] {
            objects.wait_registered("shop", name, LIMIT).await;
        }

        let resource = kube::api::ApiResource::erase::<ServiceOffer>(&());
        let offers = Api::<DynamicObject>::namespaced_with(env.cluster.client(), "shop", &resource);
        let accepted = eventually("the broken offer is reported", LIMIT, async || {
            let offer = offers.get("broken").await?;
            let conditions = offer.data.pointer("/status/conditions").cloned();
            let conditions = conditions.unwrap_or_default();
            let mut all = conditions.as_array().into_iter().flatten();
            let accepted = all.find(|condition| condition["type"] == "Accepted");
            match accepted {
                Some(accepted) if accepted["reason"] == "Undecodable" => Ok(accepted.clone()),
                _ => Err(anyhow!("{conditions}")),
            }
        })
        .await;
        assert_eq!(accepted["status"], "False");
        assert!(
            accepted["message"].as_str().unwrap().contains("eighty"),
            "the message must show what is wrong: {accepted}"
        );
        let series = r#"serviceoffer_invalid_objects{kind="ServiceOffer"}"#;
        let invalid = eventually("the invalid offer is counted", LIMIT, async || {
            let invalid = release.sum(series).await?;
            ensure!(invalid > 0.0, "none is counted");
            Ok(invalid)
        })
        .await;
        assert_eq!(invalid, 1.0);

        restore(&env, strict).await;
        let repair = json!({ "spec": { "upstream": { "port": 80 } } });
        objects.patch_offer("shop", "broken", repair).await;
        objects.assert_all_registered(&chain, 4, LIMIT).await;
    });
}

/// Replaces the schema of ServiceOffers by one that admits anything, and returns the CRD as it was.
async fn relax(env: &TestEnv) -> CustomResourceDefinition {
    let anything = JSONSchemaProps {
        type_: Some("object".into()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    replace(env, |lax| {
        for version in &mut lax.spec.versions {
            version.schema.as_mut().unwrap().open_api_v3_schema = Some(anything.clone());
        }
    })
    .await
}

async fn restore(env: &TestEnv, strict: CustomResourceDefinition) {
    replace(env, |definition| definition.spec = strict.spec.clone()).await;
}

/// Changes the CRD of offers and returns it as it was. The API server writes to it as well, so that
/// a conflict is retried.
async fn replace(
    env: &TestEnv,
    change: impl Fn(&mut CustomResourceDefinition),
) -> CustomResourceDefinition {
    let definitions = Api::<CustomResourceDefinition>::all(env.cluster.client());
    eventually("the CRD is replaced", LIMIT, async || {
        let before = definitions.get(DEFINITION).await?;
        let mut after = before.clone();
        change(&mut after);
        definitions
            .replace(DEFINITION, &PostParams::default(), &after)
            .await?;
        Ok::<_, kube::Error>(before)
    })
    .await
}

/// Creates an object as soon as the laxer schema admits it.
async fn create_any(env: &TestEnv, manifest: serde_json::Value) {
    let object: DynamicObject = serde_json::from_value(manifest).unwrap();
    let resource = kube::api::ApiResource::erase::<ServiceOffer>(&());
    let namespace = object.metadata.namespace.clone().unwrap();
    let offers = Api::<DynamicObject>::namespaced_with(env.cluster.client(), &namespace, &resource);
    eventually("the laxer schema admits the offer", LIMIT, async || {
        offers
            .create(&PostParams::default(), &object)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
}
