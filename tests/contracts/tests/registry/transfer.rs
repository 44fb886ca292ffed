//! Transfers: what a transfer removes and what it keeps.

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
async fn every_transfer_first_clears_the_wallet() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let (from, to) = (accounts.owner, accounts.stranger);
    let id = chain.agent(&accounts).await;
    let expected = |from, to| [wallet_set(id, None), transferred(from, to, id)];

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
        expected(from, to)
    );
    let back = registry::safeTransferFrom_0Call {
        from: to,
        to: from,
        tokenId: id,
    };
    assert_eq!(chain.send(to, back).await, expected(to, from));
    let again = registry::safeTransferFrom_1Call {
        from,
        to,
        tokenId: id,
        data: Bytes::from_static(b"any"),
    };
    assert_eq!(chain.send(from, again).await, expected(from, to));

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
async fn transfer_keeps_the_uri_and_other_metadata() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let value = Bytes::from_static(b"inference");
    let key = "service.type".to_owned();
    let set = registry::setMetadataCall {
        agentId: id,
        metadataKey: key.clone(),
        metadataValue: value.clone(),
    };
    chain.send(accounts.owner, set).await;
    let uri = chain
        .call(accounts.owner, registry::tokenURICall { tokenId: id })
        .await
        .unwrap();

    let transfer = registry::transferFromCall {
        from: accounts.owner,
        to: accounts.stranger,
        tokenId: id,
    };
    chain.send(accounts.owner, transfer).await;

    let read = registry::getMetadataCall {
        agentId: id,
        metadataKey: key,
    };
    assert_eq!(chain.call(accounts.stranger, read).await.unwrap(), value);
    assert_eq!(
        chain
            .call(accounts.stranger, registry::tokenURICall { tokenId: id })
            .await
            .unwrap(),
        uri
    );
}

#[tokio::test]
async fn transfer_revokes_the_former_owner_and_its_approvals() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let transfer = registry::transferFromCall {
        from: accounts.owner,
        to: accounts.stranger,
        tokenId: id,
    };
    chain.send(accounts.approved, transfer).await;
    let change = registry::setAgentURICall {
        agentId: id,
        newURI: String::new(),
    };
    for actor in [accounts.owner, accounts.operator, accounts.approved] {
        assert_eq!(
            chain.call(actor, change.clone()).await.err(),
            Some(message("Not authorized"))
        );
    }
    assert!(matches!(
        chain.send(accounts.stranger, change).await[..],
        [_, Event::URIUpdated(_)]
    ));
}

#[tokio::test]
async fn transfer_requires_approval_and_an_accepting_receiver() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let taken = registry::transferFromCall {
        from: accounts.owner,
        to: accounts.stranger,
        tokenId: id,
    };
    let refused = error(registry::ERC721InsufficientApproval {
        operator: accounts.stranger,
        tokenId: id,
    });
    assert_eq!(
        chain.call(accounts.stranger, taken).await.err(),
        Some(refused)
    );

    let contract = chain.create(Contract::Caller, &[]).await;
    let refused = error(registry::ERC721InvalidReceiver { receiver: contract });
    let lost = registry::safeTransferFrom_0Call {
        from: accounts.owner,
        to: contract,
        tokenId: id,
    }
    .abi_encode();
    let answer = chain
        .call_raw(accounts.owner, chain.registry, lost, Default::default())
        .await;
    assert_eq!(answer, Err(refused));
}
