//! The proxy: where the implementation is, who may replace it, and what can be initialized.

use alloy::{
    primitives::{Address, B256, Bytes, U256, b256},
    providers::Provider,
    sol_types::{SolCall, SolConstructor},
};
use contracts::{
    abi::{
        Genesis,
        IdentityRegistry::{self as registry, IdentityRegistryEvents as Event},
        Proxy,
    },
    artifact::Contract,
};

use crate::chain::{Chain, error};

/// ERC-1967: keccak256("eip1967.proxy.implementation") - 1.
const IMPLEMENTATION: B256 =
    b256!("360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc");

async fn implementation(chain: &Chain) -> Address {
    let slot = chain
        .anvil
        .provider()
        .get_storage_at(chain.registry, IMPLEMENTATION.into())
        .await
        .unwrap();
    Address::from_word(slot.into())
}

fn upgrade(to: Address) -> registry::upgradeToAndCallCall {
    registry::upgradeToAndCallCall {
        newImplementation: to,
        data: Bytes::new(),
    }
}

#[tokio::test]
async fn the_registry_says_what_it_is() {
    let chain = Chain::start().await;
    let people = chain.people();
    let anyone = people.stranger;
    assert_eq!(
        chain
            .call(anyone, registry::getVersionCall {})
            .await
            .unwrap(),
        "2.0.0"
    );
    assert_eq!(
        chain.call(anyone, registry::nameCall {}).await.unwrap(),
        "AgentIdentity"
    );
    assert_eq!(
        chain.call(anyone, registry::symbolCall {}).await.unwrap(),
        "AGENT"
    );
    assert_eq!(
        chain.call(anyone, registry::ownerCall {}).await.unwrap(),
        people.deployer
    );
}

#[tokio::test]
async fn the_implementation_is_where_erc_1967_says_and_knows_it() {
    let chain = Chain::start().await;
    let implementation = implementation(&chain).await;
    assert!(
        !chain
            .anvil
            .provider()
            .get_code_at(implementation)
            .await
            .unwrap()
            .is_empty()
    );

    let question = registry::proxiableUUIDCall {}.abi_encode();
    let anyone = chain.people().stranger;
    let answer = chain
        .call_raw(anyone, implementation, question.clone(), Default::default())
        .await
        .unwrap();
    assert_eq!(answer, *IMPLEMENTATION.as_slice());
    let answer = chain
        .call_raw(anyone, chain.registry, question, Default::default())
        .await;
    assert_eq!(answer, Err(error(registry::UUPSUnauthorizedCallContext {})));
}

#[tokio::test]
async fn only_the_registrys_owner_upgrades_it_and_the_agents_stay() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let next = chain.create(Contract::IdentityRegistry, &[]).await;
    for actor in [people.owner, people.stranger] {
        let refused = error(registry::OwnableUnauthorizedAccount { account: actor });
        assert_eq!(chain.call(actor, upgrade(next)).await.err(), Some(refused));
    }
    assert_ne!(implementation(&chain).await, next);

    let events = chain.send(people.deployer, upgrade(next)).await;
    assert_eq!(
        events,
        [Event::Upgraded(registry::Upgraded {
            implementation: next
        })]
    );
    assert_eq!(implementation(&chain).await, next);
    assert_eq!(
        chain
            .call(people.owner, registry::ownerOfCall { tokenId: id })
            .await
            .unwrap(),
        people.owner
    );
    assert_eq!(
        chain.register(people.owner, "next").await,
        id + U256::from(1)
    );
}

#[tokio::test]
async fn the_registry_is_not_upgraded_to_what_is_no_uups_implementation() {
    let chain = Chain::start().await;
    let contract = chain.create(Contract::Caller, &[]).await;
    let refused = error(registry::ERC1967InvalidImplementation {
        implementation: contract,
    });
    assert_eq!(
        chain
            .call(chain.people().deployer, upgrade(contract))
            .await
            .err(),
        Some(refused)
    );
}

#[tokio::test]
async fn neither_the_registry_nor_its_implementation_is_initialized_again() {
    let chain = Chain::start().await;
    let again = registry::initializeCall {}.abi_encode();
    for target in [chain.registry, implementation(&chain).await] {
        let answer = chain
            .call_raw(
                chain.people().deployer,
                target,
                again.clone(),
                Default::default(),
            )
            .await;
        assert_eq!(answer, Err(error(registry::InvalidInitialization {})));
    }
}

#[tokio::test]
async fn only_the_owner_of_the_proxy_initializes_the_registry_behind_it() {
    let chain = Chain::start().await;
    let people = chain.people();
    let genesis = chain.create(Contract::Genesis, &[]).await;
    let own = Genesis::initializeCall {
        firstOwner: people.owner,
    }
    .abi_encode();
    let behind = Proxy::constructorCall {
        implementation: genesis,
        _data: own.into(),
    };
    let chain = Chain {
        registry: chain.create(Contract::Proxy, &behind.abi_encode()).await,
        ..chain
    };
    let next = chain.create(Contract::IdentityRegistry, &[]).await;
    let refused = error(registry::OwnableUnauthorizedAccount {
        account: people.deployer,
    });
    assert_eq!(
        chain.call(people.deployer, upgrade(next)).await.err(),
        Some(refused.clone())
    );
    chain.send(people.owner, upgrade(next)).await;

    assert_eq!(
        chain
            .call(people.deployer, registry::initializeCall {})
            .await
            .err(),
        Some(refused)
    );
    let events = chain.send(people.owner, registry::initializeCall {}).await;
    assert!(events.contains(&Event::Initialized(registry::Initialized { version: 2 })));
    assert_eq!(
        chain
            .call(people.owner, registry::symbolCall {})
            .await
            .unwrap(),
        "AGENT"
    );
}
