//! Putting a registry on a chain, and counting what it registered.

use std::time::Duration;

use alloy::{primitives::U256, providers::Provider};
use contracts::{abi::IdentityRegistry, deploy, registered_events};
use testbed::anvil::{Anvil, AnvilConfig};

use crate::chain::Chain;

#[tokio::test]
async fn registry_is_deployed_within_one_block() {
    let config = AnvilConfig {
        block_time: Some(Duration::from_millis(500)),
        chain_id: 84532,
        ..Default::default()
    };
    let anvil = Anvil::start(config).await.unwrap();
    let deployer = &anvil.keys()[9];
    let registry = deploy(anvil.provider(), deployer).await.unwrap();

    let contract = IdentityRegistry::new(registry, anvil.provider());
    assert_eq!(contract.owner().call().await.unwrap(), deployer.address());
    assert_eq!(contract.getVersion().call().await.unwrap(), "2.0.0");
    assert_eq!(
        contract.eip712Domain().call().await.unwrap().chainId,
        U256::from(84532)
    );
    let mut used = Vec::new();
    for number in 1..=anvil.block_number().await.unwrap() {
        let block = anvil
            .provider()
            .get_block_by_number(number.into())
            .await
            .unwrap()
            .unwrap();
        used.extend((!block.transactions.is_empty()).then_some(number));
    }
    assert!(
        used.len() <= 2,
        "the four transactions are in blocks {used:?}: they were not sent together"
    );
}

#[tokio::test]
async fn two_registries_of_one_deployer_share_no_state() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let other = deploy(chain.anvil.provider(), chain.key(0)).await.unwrap();
    chain.register(accounts.owner, "one").await;
    let events = registered_events(chain.anvil.provider(), other, None)
        .await
        .unwrap();
    assert!(events.is_empty());
}

#[tokio::test]
async fn registrations_are_listed_in_chain_order() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    for (owner, uri) in [
        (accounts.owner, "a"),
        (accounts.stranger, "b"),
        (accounts.owner, "a"),
    ] {
        chain.register(owner, uri).await;
    }
    let provider = chain.anvil.provider();
    let all = registered_events(provider, chain.registry, None)
        .await
        .unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|event| (event.agent_id.to::<u64>(), event.uri.as_str(), event.owner))
        .collect();
    assert_eq!(
        seen,
        [
            (0, "a", accounts.owner),
            (1, "b", accounts.stranger),
            (2, "a", accounts.owner)
        ]
    );
    for event in &all {
        let receipt = provider
            .get_transaction_receipt(event.transaction)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (receipt.block_number, receipt.from),
            (Some(event.block), event.owner)
        );
    }
    let own = registered_events(provider, chain.registry, Some(accounts.owner))
        .await
        .unwrap();
    assert_eq!(own, [all[0].clone(), all[2].clone()]);
}
