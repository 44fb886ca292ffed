//! The main job: an offer becomes one agent.

use std::time::Duration;

use crate::objects::offer;
use crate::stage::Stage;

#[test]
fn an_offer_becomes_one_agent_and_everything_tells_the_same() {
    Stage::play(async |stage| {
        let (chain, _release) = stage.open(&[]).await;
        stage.objects.shop("shop", &[]).await;
        stage.objects.create_offer(offer("shop", "chat")).await;
        let agents = stage
            .objects
            .all_registered(&chain, 1, Duration::from_secs(60))
            .await;
        let id = agents.values().next().map(String::as_str);
        assert_eq!(
            id,
            Some("0"),
            "the first id of a registry is zero, and zero is an id"
        );
    });
}
