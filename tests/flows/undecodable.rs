//! An object that admission would refuse is there all the same: it was stored under an older, laxer schema.

use std::time::Duration;

use harness::wait::eventually;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::json;
use serviceoffer::api::ServiceOffer;

use crate::objects::offer;
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
const DEFINITION: &str = "serviceoffers.obol.org";

#[test]
fn an_offer_that_cannot_be_read_is_told_of_and_holds_up_no_other() {
    Stage::play(async |stage| {
        let objects = &stage.objects;
        let (chain, release) = stage.open(&[]).await;
        objects.shop("shop", &[]).await;
        let strict = relax(&stage).await;
        let mut broken = offer("shop", "broken");
        broken["spec"]["upstream"]["port"] = json!("eighty");
        create_any(&stage, broken).await;
        objects.create_offers(&["shop"], 3).await;
        for name in ["offer-0", "offer-1", "offer-2"] {
            objects.registered("shop", name, LIMIT).await;
        }

        let resource = kube::api::ApiResource::erase::<ServiceOffer>(&());
        let offers =
            Api::<DynamicObject>::namespaced_with(stage.cluster.client(), "shop", &resource);
        let told = eventually("the broken offer is told of", LIMIT, async || {
            let offer = offers
                .get("broken")
                .await
                .map_err(|error| error.to_string())?;
            let conditions = offer
                .data
                .pointer("/status/conditions")
                .cloned()
                .unwrap_or_default();
            let accepted = conditions
                .as_array()
                .into_iter()
                .flatten()
                .find(|one| one["type"] == "Accepted")
                .cloned();
            accepted
                .filter(|accepted| accepted["reason"] == "Undecodable")
                .ok_or(format!("{conditions}"))
        })
        .await;
        assert_eq!(told["status"], "False");
        assert!(
            told["message"].as_str().unwrap().contains("eighty"),
            "the message shows what is wrong: {told}"
        );
        let series = r#"serviceoffer_invalid_objects{kind="ServiceOffer"}"#;
        eventually(
            "one invalid offer is counted",
            LIMIT,
            async || match release.sum(series).await? {
                1.0 => Ok(()),
                invalid => Err(anyhow::anyhow!("{invalid} are counted")),
            },
        )
        .await;

        restore(&stage, strict).await;
        objects
            .change_offer(
                "shop",
                "broken",
                json!({ "spec": { "upstream": { "port": 80 } } }),
            )
            .await;
        objects.all_registered(&chain, 4, LIMIT).await;
    });
}

/// Lets the API server store any ServiceOffer, and answers with what stood before.
async fn relax(stage: &Stage) -> CustomResourceDefinition {
    let anything = JSONSchemaProps {
        type_: Some("object".into()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    replace(stage, |lax| {
        for version in &mut lax.spec.versions {
            version.schema.as_mut().unwrap().open_api_v3_schema = Some(anything.clone());
        }
    })
    .await
}

async fn restore(stage: &Stage, strict: CustomResourceDefinition) {
    replace(stage, |definition| definition.spec = strict.spec.clone()).await;
}

/// Changes the definition of offers, and answers with the one before. The API server writes to it too, and whoever comes
/// second tries again.
async fn replace(
    stage: &Stage,
    change: impl Fn(&mut CustomResourceDefinition),
) -> CustomResourceDefinition {
    let definitions = Api::<CustomResourceDefinition>::all(stage.cluster.client());
    eventually("the definition is replaced", LIMIT, async || {
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

/// Creates an offer that need not fit the schema, as soon as the API server takes it.
async fn create_any(stage: &Stage, manifest: serde_json::Value) {
    let object: DynamicObject = serde_json::from_value(manifest).unwrap();
    let resource = kube::api::ApiResource::erase::<ServiceOffer>(&());
    let namespace = object.metadata.namespace.clone().unwrap();
    let offers =
        Api::<DynamicObject>::namespaced_with(stage.cluster.client(), &namespace, &resource);
    eventually("the laxer schema is in force", LIMIT, async || {
        offers
            .create(&PostParams::default(), &object)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
}
