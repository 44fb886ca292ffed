//! The main job: offers become agents, once each.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::ListParams;

use crate::chain::Chain;
use crate::objects::{offer, registry};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn an_offer_becomes_one_agent_and_everything_tells_the_same() {
    Stage::play(async |stage| {
        let chain = Chain::start(stage.cluster.node_ip(), Duration::from_secs(1)).await;
        let release = stage.install(&[]).await;
        let objects = &stage.objects;
        objects.signer_secret(&release, &chain).await;
        objects.create_registry(registry("local", &chain, "http://agents.example")).await;
        objects.shop("shop", &[]).await;
        objects.create_offer(offer("shop", "chat")).await;
        let agent = objects.registered("shop", "chat", LIMIT).await;
        assert_eq!(agent, "0", "the first id of a registry is zero, and zero is an id");

        let offer = objects.offers("shop").get("chat").await.unwrap();
        let status = offer.status.clone().unwrap();
        let registration = status.registration.unwrap();
        let agents = chain.agents().await;
        assert_eq!(agents.get(&registration.key.unwrap().to_string()), Some(&agent));
        let records = objects.records().list(&ListParams::default()).await.unwrap();
        assert_eq!(records.items.len(), 1);
        println!("{}", serde_json::to_string_pretty(&records.items[0]).unwrap());
        println!("{}", serde_json::to_string_pretty(&offer.status).unwrap());
        println!("{}", release.all_logs().await);
        println!("{:?}", release.pods().await.iter().map(|pod| pod.name_any()).collect::<Vec<_>>());
    });
}
