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
async fn a_value_is_written_and_announced_whether_it_is_new_equal_or_changed() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
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
            chain.send(people.owner, set(id, key, value)).await,
            [metadata_set(id, key, value)]
        );
        let read = registry::getMetadataCall {
            agentId: id,
            metadataKey: key.to_owned(),
        };
        assert_eq!(
            chain.call(people.stranger, read).await.unwrap(),
            *value,
            "{key}"
        );
    }
}

#[tokio::test]
async fn the_reserved_key_cannot_be_set_but_can_be_read() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    for value in [&[][..], people.stranger.as_slice()] {
        assert_eq!(
            chain
                .call(people.owner, set(id, "agentWallet", value))
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
        chain.call(people.stranger, read).await.unwrap(),
        *people.owner.as_slice()
    );
}

#[tokio::test]
async fn a_uri_is_written_and_announced_even_if_it_is_the_same() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let steps = [
        (people.owner, "https://example.org/2"),
        (people.operator, "https://example.org/2"),
        (people.approved, ""),
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
            .call(people.stranger, registry::tokenURICall { tokenId: id })
            .await
            .unwrap();
        assert_eq!(read, uri);
    }
}
