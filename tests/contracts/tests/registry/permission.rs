//! Who may change an agent, and what happens around ids that do not exist.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolCall,
};
use contracts::abi::IdentityRegistry as registry;

use crate::{
    chain::{Chain, error, message},
    wallet::consent,
};

/// Every call that changes an agent, all of them allowed to the same people.
async fn changes(chain: &Chain, id: U256) -> Vec<(&'static str, Vec<u8>)> {
    let deadline = chain.now().await + 60;
    let key = chain.key(6);
    let wallet = key.address();
    let signature = consent(chain, key, id, wallet, chain.people().owner, deadline);
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
async fn an_agent_is_changed_by_its_owner_an_operator_or_the_approved_and_by_nobody_else() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let actors = [
        ("the owner", people.owner, true),
        ("an operator", people.operator, true),
        ("the approved", people.approved, true),
        ("a stranger", people.stranger, false),
        ("the registry's owner", people.deployer, false),
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
        let question = registry::isAuthorizedOrOwnerCall {
            spender: actor,
            agentId: id,
        };
        assert_eq!(
            chain.call(people.stranger, question).await.unwrap(),
            allowed,
            "{who}"
        );
    }
}

#[tokio::test]
async fn the_approved_of_one_agent_has_no_say_over_another() {
    let chain = Chain::start().await;
    let people = chain.people();
    chain.agent(&people).await;
    let other = chain.register(people.owner, "other").await;
    for (what, input) in changes(&chain, other).await {
        let refused = Err(message("Not authorized"));
        assert_eq!(
            attempt(&chain, people.approved, input).await,
            refused,
            "{what}"
        );
    }
}

#[tokio::test]
async fn an_unknown_agent_is_refused_by_name() {
    let chain = Chain::start().await;
    let people = chain.people();
    chain.agent(&people).await;
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
                spender: people.owner,
                agentId: id,
            }
            .abi_encode(),
        ),
        (
            "transferFrom",
            registry::transferFromCall {
                from: people.owner,
                to: people.stranger,
                tokenId: id,
            }
            .abi_encode(),
        ),
        (
            "approve",
            registry::approveCall {
                to: people.stranger,
                tokenId: id,
            }
            .abi_encode(),
        ),
    ]);
    for (what, input) in calls {
        let refused = Err(error(registry::ERC721NonexistentToken { tokenId: id }));
        assert_eq!(
            attempt(&chain, people.owner, input).await,
            refused,
            "{what}"
        );
    }
}

#[tokio::test]
async fn metadata_and_wallet_of_an_unknown_agent_read_as_empty() {
    let chain = Chain::start().await;
    let anyone = chain.people().stranger;
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
async fn approvals_read_back_as_they_were_given() {
    let chain = Chain::start().await;
    let people = chain.people();
    let id = chain.agent(&people).await;
    let approved = chain
        .call(people.stranger, registry::getApprovedCall { tokenId: id })
        .await
        .unwrap();
    assert_eq!(approved, people.approved);
    for (operator, expected) in [
        (people.operator, true),
        (people.approved, false),
        (people.stranger, false),
    ] {
        let call = registry::isApprovedForAllCall {
            owner: people.owner,
            operator,
        };
        assert_eq!(chain.call(people.stranger, call).await.unwrap(), expected);
    }
}
