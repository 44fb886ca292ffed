//! An agent's wallet: it consents by a signature for this agent and this owner, valid for a few
//! minutes.

use alloy::{
    primitives::{Address, Bytes, U256, address, bytes},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::{Eip712Domain, SolStruct, SolValue},
};
use contracts::{
    abi::{AgentWalletSet, IdentityRegistry as registry},
    artifact::Contract,
};
use serde_json::json;

use crate::chain::{Chain, message, wallet_set};

/// The EIP-712 domain that a wallet signs under.
fn domain(chain: &Chain) -> Eip712Domain {
    Eip712Domain {
        name: Some("ERC8004IdentityRegistry".into()),
        version: Some("1".into()),
        chain_id: Some(U256::from(chain.anvil.chain_id())),
        verifying_contract: Some(chain.registry),
        salt: None,
    }
}

fn sign(key: &PrivateKeySigner, claim: &AgentWalletSet, domain: &Eip712Domain) -> Bytes {
    let signature = key
        .sign_hash_sync(&claim.eip712_signing_hash(domain))
        .unwrap();
    Bytes::copy_from_slice(&signature.as_bytes())
}

/// Signature by which `key` consents to be the wallet of an agent.
pub fn consent(
    chain: &Chain,
    key: &PrivateKeySigner,
    agent: U256,
    wallet: Address,
    owner: Address,
    deadline: u64,
) -> Bytes {
    let claim = AgentWalletSet {
        agentId: agent,
        newWallet: wallet,
        owner,
        deadline: U256::from(deadline),
    };
    sign(key, &claim, &domain(chain))
}

fn set(
    agent: U256,
    wallet: Address,
    deadline: u64,
    signature: Bytes,
) -> registry::setAgentWalletCall {
    registry::setAgentWalletCall {
        agentId: agent,
        newWallet: wallet,
        deadline: U256::from(deadline),
        signature,
    }
}

#[tokio::test]
async fn eip_712_domain_names_the_proxy() {
    let chain = Chain::start().await;
    let domain = chain
        .call(Address::ZERO, registry::eip712DomainCall {})
        .await
        .unwrap();
    assert_eq!(
        domain.fields,
        [0b0000_1111],
        "name, version, chain and contract, no salt"
    );
    assert_eq!(
        (domain.name.as_str(), domain.version.as_str()),
        ("ERC8004IdentityRegistry", "1")
    );
    assert_eq!(
        (domain.chainId, domain.verifyingContract),
        (U256::from(31337), chain.registry)
    );
    assert!(domain.salt.is_zero() && domain.extensions.is_empty());
}

#[tokio::test]
async fn wallet_with_consent_is_set_read_and_unset() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let key = chain.key(6);
    let deadline = chain.now().await + 120;
    let signature = consent(&chain, key, id, key.address(), accounts.owner, deadline);

    let wallet = async || {
        chain
            .call(
                accounts.stranger,
                registry::getAgentWalletCall { agentId: id },
            )
            .await
            .unwrap()
    };
    assert_eq!(wallet().await, accounts.owner);
    let events = chain
        .send(accounts.owner, set(id, key.address(), deadline, signature))
        .await;
    assert_eq!(events, [wallet_set(id, Some(key.address()))]);
    assert_eq!(wallet().await, key.address());
    let events = chain
        .send(
            accounts.operator,
            registry::unsetAgentWalletCall { agentId: id },
        )
        .await;
    assert_eq!(events, [wallet_set(id, None)]);
    assert_eq!(wallet().await, Address::ZERO);
}

#[tokio::test]
async fn contract_wallet_consents_by_erc_1271() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let key = chain.key(6);
    let wallet = chain
        .create(Contract::Wallet, &key.address().abi_encode())
        .await;
    let deadline = chain.now().await + 120;

    let refused = consent(&chain, chain.key(7), id, wallet, accounts.owner, deadline);
    let answer = chain
        .call(accounts.owner, set(id, wallet, deadline, refused))
        .await;
    assert_eq!(answer.err(), Some(message("invalid wallet sig")));

    let signature = consent(&chain, key, id, wallet, accounts.owner, deadline);
    let events = chain
        .send(accounts.owner, set(id, wallet, deadline, signature))
        .await;
    assert_eq!(events, [wallet_set(id, Some(wallet))]);
}

#[tokio::test]
async fn eip_7702_account_still_consents_by_its_key() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let key = chain.key(6);
    // An EIP-7702 delegation to a contract without ERC-1271.
    let delegate = chain.create(Contract::Receiver, &[]).await;
    let code = [&[0xef, 0x01, 0x00], delegate.as_slice()].concat();
    chain
        .anvil
        .rpc("anvil_setCode", json!([key.address(), Bytes::from(code)]))
        .await
        .unwrap();
    let deadline = chain.now().await + 120;
    let signature = consent(&chain, key, id, key.address(), accounts.owner, deadline);
    let events = chain
        .send(accounts.owner, set(id, key.address(), deadline, signature))
        .await;
    assert_eq!(events, [wallet_set(id, Some(key.address()))]);
}

#[tokio::test]
async fn wallet_cannot_be_the_zero_address() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let answer = chain
        .call(
            accounts.owner,
            set(id, Address::ZERO, u64::MAX, Bytes::new()),
        )
        .await;
    assert_eq!(answer.err(), Some(message("bad wallet")));
}

#[tokio::test]
async fn consent_is_valid_until_a_deadline_within_five_minutes() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    let id = chain.agent(&accounts).await;
    let key = chain.key(6);
    let deadline = chain.now().await + 1000;
    let signature = consent(&chain, key, id, key.address(), accounts.owner, deadline);
    let table = [
        (deadline - 301, Some(message("deadline too far"))),
        (deadline - 300, None),
        (deadline, None),
        (deadline + 1, Some(message("expired"))),
    ];
    for (time, refused) in table {
        let call = set(id, key.address(), deadline, signature.clone());
        let answer = chain.call_at(time, accounts.owner, call).await;
        assert_eq!(
            answer.err(),
            refused,
            "{} s before the deadline",
            deadline.abs_diff(time)
        );
    }
}

#[tokio::test]
async fn consent_is_valid_only_for_the_signed_values() {
    let chain = Chain::start().await;
    let accounts = chain.accounts();
    assert_eq!(chain.agent(&accounts).await, U256::ZERO);
    let id = chain.agent(&accounts).await;
    let key = chain.key(6);
    let wallet = key.address();
    let deadline = chain.now().await + 120;
    let claim = AgentWalletSet {
        agentId: id,
        newWallet: wallet,
        owner: accounts.owner,
        deadline: U256::from(deadline),
    };
    let domain = domain(&chain);
    let elsewhere = address!("00000000000000000000000000000000000000ff");

    let with = |change: fn(&mut AgentWalletSet)| {
        let mut other = claim.clone();
        change(&mut other);
        sign(key, &other, &domain)
    };
    let under = |change: fn(&mut Eip712Domain)| {
        let mut other = domain.clone();
        change(&mut other);
        sign(key, &claim, &other)
    };
    let good = sign(key, &claim, &domain);
    let table = [
        ("another key", sign(chain.key(7), &claim, &domain)),
        ("the owner's key", sign(chain.key(1), &claim, &domain)),
        ("another agent", with(|claim| claim.agentId = U256::ZERO)),
        (
            "another wallet",
            with(|claim| claim.newWallet = Address::ZERO),
        ),
        ("another owner", with(|claim| claim.owner = claim.newWallet)),
        (
            "another deadline",
            with(|claim| claim.deadline += U256::from(1)),
        ),
        (
            "another registry",
            sign(
                key,
                &claim,
                &Eip712Domain {
                    verifying_contract: Some(elsewhere),
                    ..domain.clone()
                },
            ),
        ),
        (
            "another chain",
            under(|domain| domain.chain_id = Some(U256::from(1))),
        ),
        (
            "another name",
            under(|domain| domain.name = Some("IdentityRegistry".into())),
        ),
        (
            "another version",
            under(|domain| domain.version = Some("2".into())),
        ),
        ("no signature", Bytes::new()),
        ("half a signature", good.slice(..32)),
        ("noise", bytes!("ff").repeat(65).into()),
    ];
    for (what, signature) in table {
        let answer = chain
            .call(accounts.owner, set(id, wallet, deadline, signature))
            .await;
        assert_eq!(answer.err(), Some(message("invalid wallet sig")), "{what}");
    }
    assert!(
        chain
            .call(accounts.owner, set(id, wallet, deadline, good))
            .await
            .is_ok()
    );
}
