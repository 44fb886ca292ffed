//! Metadata and URIs after registration.

use alloy::primitives::{Bytes, U256};
use contracts::abi::IdentityRegistry::{self as registry, IdentityRegistryEvents as Event};

use crate::chain::{Chain, message, metadata_set, uri_written};

fn set(id: U256, key: &str, value: &[u8]) -> registry::setMetadataCall {
    registry::setMetadataCall {
        agentId: id,
        metadataKey: key.to_owned(),
        metadataValue: Bytes::copy_from_slice(value),
    }
}

#[tokio::test]
async fn every_write_of_a_value_emits_an_event() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let long = [7; 100];
    let steps: [(&str, &[u8]); 7] = [
        ("key", &[1]),
        ("key", &[1]),
        ("key", &[2]),
        ("key", &long),
        ("key", &[]),
        ("", b"the empty key is a key"),
        ("agentwallet", b"only one spelling is reserved"),
    ];
    for (key, value) in steps {
        assert_eq!(
            chain.send(accounts.owner, set(id, key, value)).await,
            [metadata_set(id, key, value)]
        );
        let read = registry::getMetadataCall {
            agentId: id,
            metadataKey: key.to_owned(),
        };
        assert_eq!(
            chain.call(accounts.stranger, read).await.unwrap(),
            *value,
            "{key}"
        );
    }
}

#[tokio::test]
async fn reserved_key_is_read_only() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    for value in [&[][..], accounts.stranger.as_slice()] {
        assert_eq!(
            chain
                .call(accounts.owner, set(id, "agentWallet", value))
                .await
                .err(),
            Some(message("reserved key"))
        );
    }
    let read = registry::getMetadataCall {
        agentId: id,
        metadataKey: "agentWallet".to_owned(),
    };
    assert_eq!(
        chain.call(accounts.stranger, read).await.unwrap(),
        *accounts.owner.as_slice()
    );
}

#[tokio::test]
async fn every_write_of_a_uri_emits_an_event() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let steps = [
        (accounts.owner, "https://example.org/2"),
        (accounts.operator, "https://example.org/2"),
        (accounts.approved, ""),
    ];
    for (actor, uri) in steps {
        let events = chain
            .send(
                actor,
                registry::setAgentURICall {
                    agentId: id,
                    newURI: uri.to_owned(),
                },
            )
            .await;
        let updated = registry::URIUpdated {
            agentId: id,
            newURI: uri.to_owned(),
            updatedBy: actor,
        };
        assert_eq!(events, [uri_written(id), Event::URIUpdated(updated)]);
        let read = chain
            .call(accounts.stranger, registry::tokenURICall { tokenId: id })
            .await
            .unwrap();
        assert_eq!(read, uri);
    }
}
