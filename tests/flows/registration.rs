//! The main job: an offer becomes one agent.

use std::time::Duration;

use crate::fixture::TestEnv;
use crate::objects::offer;

#[test]
fn offer_becomes_one_agent_in_chain_record_and_status() {
    TestEnv::run(async |env| {
        let (chain, _release) = env.deploy(&[]).await;
        env.objects.create_namespace("shop", &[]).await;
        env.objects.create_offer(offer("shop", "chat")).await;
        let agents = env
            .objects
            .assert_all_registered(&chain, 1, Duration::from_secs(60))
            .await;
        let id = agents.values().next().map(String::as_str);
        assert_eq!(
            id,
            Some("0"),
            "the first id of a registry is zero, and zero is a valid id"
        );
    });
}
