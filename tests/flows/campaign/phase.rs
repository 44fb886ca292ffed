//! The leader's Pod is said to have failed, or is gone, while its process runs: neither proves that it has ended.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testbed::Signal;

use super::contender::{Guise, SHORT};
use super::ground::{Ground, Rights};

const ROUNDS: usize = 2;

#[test]
fn a_pod_that_is_said_to_have_failed_or_is_gone_is_waited_for_like_any_other() {
    let guise = Some(Guise {
        pod: true,
        ..Guise::default()
    });
    Ground::campaign_of(
        "holder's Pod patched to Failed, deleted",
        SHORT,
        Rights::All,
        guise,
        async |ground| {
            for round in 0..2 * ROUNDS {
                let leader = ground.leader().await;
                ground.moment(Duration::from_millis(1500)).await;
                let pods =
                    Api::<Pod>::namespaced(ground.stage.cluster.client(), ground.namespace());
                let pod = ground
                    .group
                    .with(&leader, |contender| contender.identity.clone())
                    .unwrap();
                let begun = ground.inject();
                if round % 2 == 0 {
                    let failed = json!({ "status": { "phase": "Failed", "reason": "Test" } });
                    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(failed))
                        .await
                        .unwrap();
                } else {
                    pods.delete(&pod, &DeleteParams::default().grace_period(0))
                        .await
                        .unwrap();
                }
                tokio::time::sleep(2 * SHORT.duration).await;
                let led: Vec<_> = ground.leaders_since(begun).into_iter().collect();
                assert_eq!(
                    led,
                    std::slice::from_ref(&leader),
                    "what is said of its Pod does not end a leader"
                );

                let stopped = ground.inject();
                ground.group.kill(&leader, Signal::Stop);
                let (_, taken) = ground.successor(&leader, stopped).await;
                let waited = ground.waited(&leader, taken);
                assert!(
                    waited >= 3.0,
                    "the lease was taken over {waited} s after it was renewed"
                );
                ground.group.kill(&leader, Signal::Cont);
                assert_eq!(ground.exit_code(&leader).await, Some(1));
            }
        },
    );
}
