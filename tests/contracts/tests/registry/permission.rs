//! Which accounts may change an agent, and how calls with unknown ids fail.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolCall,
};
use contracts::abi::IdentityRegistry as registry;

use crate::{
    chain::{Chain, error, message},
    wallet::consent,
};

/// Every call that changes an agent. The same accounts may make all of them.
async fn changes(chain: &Chain, id: U256) -> Vec<(&'static str, Vec<u8>)> {
    let deadline = chain.now().await + 60;
    let key = chain.key(6);
    let wallet = key.address();
    let signature = consent(chain, key, id, wallet, chain.accounts().owner, deadline);
    let wallet_set = registry::setAgentWalletCall {
        agentId: id,
        newWallet: wallet,
        deadline: U256::from(deadline),
        signature,
    };
    vec![
        (
            "setAgentURI",
            registry::setAgentURICall {
                agentId: id,
                newURI: "new".to_owned(),
            }
            .abi_encode(),
        ),
        (
            "setMetadata",
            registry::setMetadataCall {
                agentId: id,
                metadataKey: "key".to_owned(),
                metadataValue: Bytes::new(),
            }
            .abi_encode(),
        ),
        ("setAgentWallet", wallet_set.abi_encode()),
        (
            "unsetAgentWallet",
            registry::unsetAgentWalletCall { agentId: id }.abi_encode(),
        ),
    ]
}

async fn attempt(chain: &Chain, from: Address, input: Vec<u8>) -> Result<(), Bytes> {
    chain
        .call_raw(from, chain.registry, input, Default::default())
        .await
        .map(drop)
}

#[tokio::test]
async fn only_owner_operator_and_approved_change_an_agent() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let actors = [
        ("the owner", accounts.owner, true),
        ("an operator", accounts.operator, true),
        ("the approved", accounts.approved, true),
        ("a stranger", accounts.stranger, false),
        ("the registry's owner", accounts.deployer, false),
    ];
    for (who, actor, allowed) in actors {
        for (what, input) in changes(&chain, id).await {
            let expected = if allowed {
                Ok(())
            } else {
                Err(message("Not authorized"))
            };
            assert_eq!(
                attempt(&chain, actor, input).await,
                expected,
                "{what} by {who}"
            );
        }
        let query = registry::isAuthorizedOrOwnerCall {
            spender: actor,
            agentId: id,
        };
        assert_eq!(
            chain.call(accounts.stranger, query).await.unwrap(),
            allowed,
            "{who}"
        );
    }
}

#[tokio::test]
async fn approval_of_one_agent_does_not_cover_another() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    chain.agent(&accounts).await;
    let other = chain.register(accounts.owner, "other").await;
    for (what, input) in changes(&chain, other).await {
        let refused = Err(message("Not authorized"));
        assert_eq!(
            attempt(&chain, accounts.approved, input).await,
            refused,
            "{what}"
        );
    }
}

#[tokio::test]
async fn calls_with_an_unknown_agent_revert_with_its_id() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    chain.agent(&accounts).await;
    let id = U256::from(1);
    let mut calls = changes(&chain, id).await;
    calls.extend([
        (
            "ownerOf",
            registry::ownerOfCall { tokenId: id }.abi_encode(),
        ),
        (
            "tokenURI",
            registry::tokenURICall { tokenId: id }.abi_encode(),
        ),
        (
            "getApproved",
            registry::getApprovedCall { tokenId: id }.abi_encode(),
        ),
        (
            "isAuthorizedOrOwner",
            registry::isAuthorizedOrOwnerCall {
                spender: accounts.owner,
                agentId: id,
            }
            .abi_encode(),
        ),
        (
            "transferFrom",
            registry::transferFromCall {
                from: accounts.owner,
                to: accounts.stranger,
                tokenId: id,
            }
            .abi_encode(),
        ),
        (
            "approve",
            registry::approveCall {
                to: accounts.stranger,
                tokenId: id,
            }
            .abi_encode(),
        ),
    ]);
    for (what, input) in calls {
        let refused = Err(error(registry::ERC721NonexistentToken { tokenId: id }));
        assert_eq!(
            attempt(&chain, accounts.owner, input).await,
            refused,
            "{what}"
        );
    }
}

#[tokio::test]
async fn metadata_and_wallet_of_an_unknown_agent_are_empty() {
    let chain = Chain::start().await;
    let anyone = chain.accounts().stranger;
    let id = U256::from(1_u64 << 40);
    for key in ["agentWallet", "key", ""] {
        let call = registry::getMetadataCall {
            agentId: id,
            metadataKey: key.to_owned(),
        };
        assert_eq!(
            chain.call(anyone, call).await.unwrap(),
            Bytes::new(),
            "{key}"
        );
    }
    let wallet = chain
        .call(anyone, registry::getAgentWalletCall { agentId: id })
        .await
        .unwrap();
    assert_eq!(wallet, Address::ZERO);
}

#[tokio::test]
async fn approvals_are_readable() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let approved = chain
        .call(accounts.stranger, registry::getApprovedCall { tokenId: id })
        .await
        .unwrap();
    assert_eq!(approved, accounts.approved);
    for (operator, expected) in [
        (accounts.operator, true),
        (accounts.approved, false),
        (accounts.stranger, false),
    ] {
        let call = registry::isApprovedForAllCall {
            owner: accounts.owner,
            operator,
        };
        assert_eq!(chain.call(accounts.stranger, call).await.unwrap(), expected);
    }
}
