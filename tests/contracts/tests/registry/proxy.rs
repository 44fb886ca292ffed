//! The proxy: where the implementation is stored, and who may upgrade or initialize it.

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
async fn registry_reports_its_version_name_and_owner() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let anyone = accounts.stranger;
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
        accounts.deployer
    );
}

#[tokio::test]
async fn implementation_is_in_the_erc_1967_slot() {
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

    let query = registry::proxiableUUIDCall {}.abi_encode();
    let anyone = chain.accounts().stranger;
    let answer = chain
        .call_raw(anyone, implementation, query.clone(), Default::default())
        .await
        .unwrap();
    assert_eq!(answer, *IMPLEMENTATION.as_slice());
    let answer = chain
        .call_raw(anyone, chain.registry, query, Default::default())
        .await;
    assert_eq!(answer, Err(error(registry::UUPSUnauthorizedCallContext {})));
}

#[tokio::test]
async fn only_the_owner_upgrades_and_agents_survive() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let next = chain.create(Contract::IdentityRegistry, &[]).await;
    for actor in [accounts.owner, accounts.stranger] {
        let refused = error(registry::OwnableUnauthorizedAccount { account: actor });
        assert_eq!(chain.call(actor, upgrade(next)).await.err(), Some(refused));
    }
    assert_ne!(implementation(&chain).await, next);

    let events = chain.send(accounts.deployer, upgrade(next)).await;
    assert_eq!(
        events,
        [Event::Upgraded(registry::Upgraded {
            implementation: next
        })]
    );
    assert_eq!(implementation(&chain).await, next);
    assert_eq!(
        chain
            .call(accounts.owner, registry::ownerOfCall { tokenId: id })
            .await
            .unwrap(),
        accounts.owner
    );
    assert_eq!(
        chain.register(accounts.owner, "next").await,
        id + U256::from(1)
    );
}

#[tokio::test]
async fn upgrade_rejects_a_contract_that_is_not_uups() {
    let chain = Chain::start().await;
    let contract = chain.create(Contract::Caller, &[]).await;
    let refused = error(registry::ERC1967InvalidImplementation {
        implementation: contract,
    });
    assert_eq!(
        chain
            .call(chain.accounts().deployer, upgrade(contract))
            .await
            .err(),
        Some(refused)
    );
}

#[tokio::test]
async fn proxy_and_implementation_cannot_be_reinitialized() {
    let chain = Chain::start().await;
    let again = registry::initializeCall {}.abi_encode();
    for target in [chain.registry, implementation(&chain).await] {
        let answer = chain
            .call_raw(
                chain.accounts().deployer,
                target,
                again.clone(),
                Default::default(),
            )
            .await;
        assert_eq!(answer, Err(error(registry::InvalidInitialization {})));
    }
}

#[tokio::test]
async fn only_the_owner_of_the_proxy_initializes_the_registry() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let genesis = chain.create(Contract::Genesis, &[]).await;
    let initialize_genesis = Genesis::initializeCall {
        firstOwner: accounts.owner,
    }
    .abi_encode();
    let construct_proxy = Proxy::constructorCall {
        implementation: genesis,
        _data: initialize_genesis.into(),
    };
    let chain = Chain {
        registry: chain
            .create(Contract::Proxy, &construct_proxy.abi_encode())
            .await,
        ..chain
    };
    let next = chain.create(Contract::IdentityRegistry, &[]).await;
    let refused = error(registry::OwnableUnauthorizedAccount {
        account: accounts.deployer,
    });
    assert_eq!(
        chain.call(accounts.deployer, upgrade(next)).await.err(),
        Some(refused.clone())
    );
    chain.send(accounts.owner, upgrade(next)).await;

    assert_eq!(
        chain
            .call(accounts.deployer, registry::initializeCall {})
            .await
            .err(),
        Some(refused)
    );
    let events = chain
        .send(accounts.owner, registry::initializeCall {})
        .await;
    assert!(events.contains(&Event::Initialized(registry::Initialized { version: 2 })));
    assert_eq!(
        chain
            .call(accounts.owner, registry::symbolCall {})
            .await
            .unwrap(),
        "AGENT"
    );
}
