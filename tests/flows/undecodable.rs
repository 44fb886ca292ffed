//! An object that admission would refuse exists nevertheless: it was stored under an older, laxer
//! schema.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use harness::wait::eventually;
use serde_json::json;
use serviceoffer::api::ServiceOffer;

use crate::definitions::{create_any, dynamic, relax, restore};
use crate::fixture::TestEnv;
use crate::objects::offer;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn undecodable_offer_is_reported_and_blocks_no_other() {
    TestEnv::run(async |env| {
        let objects = &env.objects;
        let (chain, release) = env.deploy(&[]).await;
        objects.create_namespace("shop", &[]).await;
        let strict = relax::<ServiceOffer>(&objects.client).await;
        let mut broken = offer("shop", "broken");
        broken["spec"]["upstream"]["port"] = json!("eighty");
        create_any::<ServiceOffer>(&objects.client, broken).await;
        objects.create_offers(&["shop"], 3).await;
        for name in ["offer-0", "offer-1", "offer-2"] {
            objects.wait_registered("shop", name, LIMIT).await;
        }

        let offers = dynamic::<ServiceOffer>(&objects.client, Some("shop"));
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

        restore::<ServiceOffer>(&objects.client, strict).await;
        let repair = json!({ "spec": { "upstream": { "port": 80 } } });
        objects.patch_offer("shop", "broken", repair).await;
        objects.assert_all_registered(&chain, 4, LIMIT).await;
    });
}
