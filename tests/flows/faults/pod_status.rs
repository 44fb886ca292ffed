//! The leader's Pod is reported as Failed, or is deleted, while its process runs: neither proves
//! that the process has exited.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testbed::Signal;

use super::campaign::{Campaign, LeasePermissions};
use super::candidate::{CandidateOptions, SHORT_LEASE};

const ROUNDS: usize = 2;

#[test]
fn pod_reported_failed_or_deleted_does_not_shorten_the_wait() {
    let options = Some(CandidateOptions {
        pod: true,
        ..CandidateOptions::default()
    });
    Campaign::run_with(
        "leader's Pod patched to Failed, deleted",
        SHORT_LEASE,
        LeasePermissions::Full,
        options,
        async |campaign| {
            for round in 0..2 * ROUNDS {
                let leader = campaign.wait_for_renewing_leader().await;
                campaign.sleep_up_to(Duration::from_millis(1500)).await;
                let pods =
                    Api::<Pod>::namespaced(campaign.env.cluster.client(), campaign.namespace());
                let pod = campaign
                    .group
                    .with(&leader, |candidate| candidate.identity.clone())
                    .unwrap();
                let begun = campaign.record_fault();
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
                tokio::time::sleep(2 * SHORT_LEASE.duration).await;
                let led: Vec<_> = campaign.leaders_since(begun).into_iter().collect();
                assert_eq!(
                    led,
                    std::slice::from_ref(&leader),
                    "the status of its Pod does not end a leader's term"
                );

                let stopped = campaign.record_fault();
                campaign.group.kill(&leader, Signal::Stop);
                let (_, taken) = campaign.wait_for_successor(&leader, stopped).await;
                let waited = campaign.since_last_renewal(&leader, taken);
                assert!(
                    waited >= 3.0,
                    "the lease was taken over {waited} s after its last renewal"
                );
                campaign.group.kill(&leader, Signal::Cont);
                assert_eq!(campaign.wait_for_exit(&leader).await, Some(1));
            }
        },
    );
}
