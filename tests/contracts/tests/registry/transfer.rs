//! Transfers: what ends with one, and what goes along.

use alloy::{
    primitives::{Address, Bytes},
    sol_types::SolCall,
};
use contracts::{
    abi::IdentityRegistry::{self as registry, IdentityRegistryEvents as Event},
    artifact::Contract,
};

use crate::chain::{Chain, error, message, transferred, wallet_set};

#[tokio::test]
async fn every_kind_of_transfer_first_clears_the_wallet() {
    let chain = Chain::start().await;
    let people = chain.people();
    let (from, to) = (people.owner, people.stranger);
    let id = chain.agent(&people).await;
    let announced = |from, to| [wallet_set(id, None), transferred(from, to, id)];

    assert_eq!(
        chain
            .send(
                from,
                registry::transferFromCall {
                    from,
                    to,
                    tokenId: id
                }
            )
            .await,
        announced(from, to)
    );
    let back = registry::safeTransferFrom_0Call {
        from: to,
        to: from,
        tokenId: id,
    };
    assert_eq!(chain.send(to, back).await, announced(to, from));
    let again = registry::safeTransferFrom_1Call {
        from,
        to,
        tokenId: id,
        data: Bytes::from_static(b"any"),
    };
    assert_eq!(chain.send(from, again).await, announced(from, to));

    let wallet = chain
        .call(to, registry::getAgentWalletCall { agentId: id })
        .await
        .unwrap();
    assert_eq!(wallet, Address::ZERO);
    assert_eq!(
        chain
            .call(to, registry::ownerOfCall { tokenId: id })
            .await
            .unwrap(),
        to
    );
}

#[tokio::test]
async fn a_transfer_keeps_the_uri_and_all_other_metadata() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let value = Bytes::from_static(b"inference");
    let key = "service.type".to_owned();
    let set = registry::setMetadataCall {
        agentId: id,
        metadataKey: key.clone(),
        metadataValue: value.clone(),
    };
    chain.send(people.owner, set).await;
    let uri = chain
        .call(people.owner, registry::tokenURICall { tokenId: id })
        .await
        .unwrap();

    let transfer = registry::transferFromCall {
        from: people.owner,
        to: people.stranger,
        tokenId: id,
    };
    chain.send(people.owner, transfer).await;

    let read = registry::getMetadataCall {
        agentId: id,
        metadataKey: key,
    };
    assert_eq!(chain.call(people.stranger, read).await.unwrap(), value);
    assert_eq!(
        chain
            .call(people.stranger, registry::tokenURICall { tokenId: id })
            .await
            .unwrap(),
        uri
    );
}

#[tokio::test]
async fn a_transfer_ends_the_rights_of_the_owner_and_of_those_it_approved() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let transfer = registry::transferFromCall {
        from: people.owner,
        to: people.stranger,
        tokenId: id,
    };
    chain.send(people.approved, transfer).await;
    let change = registry::setAgentURICall {
        agentId: id,
        newURI: String::new(),
    };
    for actor in [people.owner, people.operator, people.approved] {
        assert_eq!(
            chain.call(actor, change.clone()).await.err(),
            Some(message("Not authorized"))
        );
    }
    assert!(matches!(
        chain.send(people.stranger, change).await[..],
        [_, Event::URIUpdated(_)]
    ));
}

#[tokio::test]
async fn nobody_transfers_an_agent_without_approval_or_to_a_contract_that_takes_no_tokens() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let taken = registry::transferFromCall {
        from: people.owner,
        to: people.stranger,
        tokenId: id,
    };
    let refused = error(registry::ERC721InsufficientApproval {
        operator: people.stranger,
        tokenId: id,
    });
    assert_eq!(
        chain.call(people.stranger, taken).await.err(),
        Some(refused)
    );

    let contract = chain.create(Contract::Caller, &[]).await;
    let refused = error(registry::ERC721InvalidReceiver { receiver: contract });
    let lost = registry::safeTransferFrom_0Call {
        from: people.owner,
        to: contract,
        tokenId: id,
    }
    .abi_encode();
    let answer = chain
        .call_raw(people.owner, chain.registry, lost, Default::default())
        .await;
    assert_eq!(answer, Err(refused));
}
