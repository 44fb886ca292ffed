//! Registration: which accounts may register, what is stored, and which events are emitted in which
//! order.

use alloy::primitives::{Address, Bytes, FixedBytes, U256, fixed_bytes};
use alloy::sol_types::SolCall;
use contracts::{
    abi::IdentityRegistry::{self as registry, MetadataEntry},
    artifact::Contract,
    registered_events,
};

use crate::chain::{
    self, Caller, Chain, message, metadata_set, registered, transferred, uri_written, wallet_set,
};

const URI: &str = "https://example.org/agents/1f3a.json";

fn entry(key: &str, value: &[u8]) -> MetadataEntry {
    MetadataEntry {
        metadataKey: key.to_owned(),
        metadataValue: Bytes::copy_from_slice(value),
    }
}

fn with_uri() -> registry::register_1Call {
    registry::register_1Call {
        agentURI: URI.to_owned(),
    }
}

fn with_metadata(metadata: Vec<MetadataEntry>) -> registry::register_2Call {
    registry::register_2Call {
        agentURI: URI.to_owned(),
        metadata,
    }
}

#[tokio::test]
async fn agent_ids_start_at_zero_and_increase() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    for (nth, owner) in [accounts.owner, accounts.stranger, accounts.owner]
        .into_iter()
        .enumerate()
    {
        assert_eq!(chain.register(owner, URI).await, U256::from(nth));
    }
}

#[tokio::test]
async fn anyone_registers_without_a_uri() {
    let chain = Chain::start().await;
    let owner = chain.accounts().stranger;
    let events = chain.send(owner, registry::register_0Call {}).await;
    let id = U256::ZERO;
    assert_eq!(
        events,
        [
            transferred(Address::ZERO, owner, id),
            registered(id, "", owner),
            wallet_set(id, Some(owner))
        ]
    );
    assert_eq!(
        chain
            .call(owner, registry::tokenURICall { tokenId: id })
            .await
            .unwrap(),
        ""
    );
}

#[tokio::test]
async fn anyone_registers_with_a_uri() {
    let chain = Chain::start().await;
    let owner = chain.accounts().stranger;
    let id = U256::ZERO;
    let events = chain.send(owner, with_uri()).await;
    let expected = [
        transferred(Address::ZERO, owner, id),
        uri_written(id),
        registered(id, URI, owner),
        wallet_set(id, Some(owner)),
    ];
    assert_eq!(events, expected);
    assert_eq!(
        chain
            .call(owner, registry::tokenURICall { tokenId: id })
            .await
            .unwrap(),
        URI
    );
    assert_eq!(
        chain
            .call(owner, registry::ownerOfCall { tokenId: id })
            .await
            .unwrap(),
        owner
    );
    assert_eq!(
        chain
            .call(owner, registry::getAgentWalletCall { agentId: id })
            .await
            .unwrap(),
        owner
    );
}

#[tokio::test]
async fn anyone_registers_with_metadata_emitted_last_in_order() {
    let chain = Chain::start().await;
    let owner = chain.accounts().stranger;
    let id = U256::ZERO;
    let metadata = vec![
        entry("x402.supported", &[1]),
        entry("service.type", b"inference"),
    ];
    let events = chain.send(owner, with_metadata(metadata)).await;
    let expected = [
        transferred(Address::ZERO, owner, id),
        uri_written(id),
        registered(id, URI, owner),
        wallet_set(id, Some(owner)),
        metadata_set(id, "x402.supported", [1]),
        metadata_set(id, "service.type", "inference"),
    ];
    assert_eq!(events, expected);
    for (key, value) in [
        ("x402.supported", &[1][..]),
        ("service.type", b"inference"),
        ("absent", b""),
    ] {
        let read = registry::getMetadataCall {
            agentId: id,
            metadataKey: key.to_owned(),
        };
        assert_eq!(chain.call(owner, read).await.unwrap(), *value, "{key}");
    }
}

#[tokio::test]
async fn owner_may_register_the_same_uri_repeatedly() {
    let chain = Chain::start().await;
    let owner = chain.accounts().owner;
    for nth in 0..20 {
        assert_eq!(chain.register(owner, URI).await, U256::from(nth));
    }
    assert_eq!(
        chain
            .call(owner, registry::balanceOfCall { owner })
            .await
            .unwrap(),
        U256::from(20)
    );
    let uris = registered_events(chain.anvil.provider(), chain.registry, None)
        .await
        .unwrap();
    assert!(
        uris.iter()
            .all(|event| event.uri == URI && event.owner == owner)
    );
}

#[tokio::test]
async fn registration_with_the_reserved_key_reverts() {
    let chain = Chain::start().await;
    let owner = chain.accounts().owner;
    for metadata in [
        vec![entry("agentWallet", owner.as_slice())],
        vec![entry("agentWallet", b"")],
        vec![entry("fine", b"1"), entry("agentWallet", owner.as_slice())],
    ] {
        assert_eq!(
            chain.call(owner, with_metadata(metadata)).await,
            Err(message("reserved key"))
        );
    }
    assert_eq!(chain.register(owner, URI).await, U256::ZERO);
}

#[tokio::test]
async fn contract_that_rejects_tokens_cannot_register() {
    let chain = Chain::start().await;
    let contract = chain.create(Contract::Caller, &[]).await;
    let refused = chain::error(registry::ERC721InvalidReceiver { receiver: contract });
    let calls = [
        registry::register_0Call {}.abi_encode(),
        with_uri().abi_encode(),
        with_metadata(vec![entry("key", b"value")]).abi_encode(),
    ];
    for data in calls {
        let call = Caller::forwardCall {
            target: chain.registry,
            data: data.into(),
        };
        let answer = chain
            .call_raw(
                chain.accounts().owner,
                contract,
                call.abi_encode(),
                Default::default(),
            )
            .await;
        assert_eq!(answer, Err(refused.clone()));
    }
}

#[tokio::test]
async fn contract_that_accepts_tokens_owns_its_agent() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let contract = chain.create(Contract::Receiver, &[]).await;
    let call = Caller::forwardCall {
        target: chain.registry,
        data: with_uri().abi_encode().into(),
    };
    let receipt = chain.send_to(accounts.owner, contract, call).await;
    let id = U256::ZERO;
    let expected = [
        transferred(Address::ZERO, contract, id),
        uri_written(id),
        registered(id, URI, contract),
        wallet_set(id, Some(contract)),
    ];
    assert_eq!(chain.events(&receipt), expected);
}

#[tokio::test]
async fn agents_are_not_enumerable() {
    let chain = Chain::start().await;
    let table: [(&str, FixedBytes<4>, bool); 6] = [
        ("ERC-165", fixed_bytes!("01ffc9a7"), true),
        ("ERC-721", fixed_bytes!("80ac58cd"), true),
        ("ERC-721 Metadata", fixed_bytes!("5b5e139f"), true),
        ("ERC-4906", fixed_bytes!("49064906"), true),
        ("ERC-721 Enumerable", fixed_bytes!("780e9d63"), false),
        ("no interface", fixed_bytes!("ffffffff"), false),
    ];
    for (name, id, supported) in table {
        let call = registry::supportsInterfaceCall { interfaceId: id };
        assert_eq!(
            chain.call(Address::ZERO, call).await.unwrap(),
            supported,
            "{name}"
        );
    }
}
