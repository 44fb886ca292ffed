//! A dollar coin at the address of USD Coin on Base Sepolia, so that clients take it for theirs.

use alloy::eips::eip2718::Encodable2718;
use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, U256, address};
use alloy::providers::Provider;
use alloy::rpc::types::{Filter, TransactionReceipt, TransactionRequest};
use alloy::signers::local::PrivateKeySigner;
use alloy::sol;
use alloy::sol_types::{SolCall, SolConstructor, SolEvent};
use anyhow::{Context, Result, ensure};
use contracts::artifact::Contract;
use serde_json::{Value, json};

/// Chain id of Base Sepolia.
pub const CHAIN_ID: u64 = 84532;
/// USD Coin on Base Sepolia.
pub const USD_COIN: Address = address!("036CbD53842c5426634e7929541eC2318f3dCF7e");

sol! {
    event Transfer(address indexed from, address indexed to, uint256 value);
    function mint(address account, uint256 amount) external;
    function transfer(address to, uint256 value) external returns (bool);
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes signature
    ) external;

    contract Coin {
        constructor(string memory domain, string memory revision);
    }
}

/// Money that was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Who paid.
    pub from: Address,
    /// Who was paid.
    pub to: Address,
    /// In atomic units.
    pub value: U256,
    /// Hash of the transaction.
    pub transaction: B256,
}

/// Puts the coin at [`USD_COIN`], and gives `amount` to an account. `minter` pays for the gas.
///
/// # Errors
/// If the node refuses a transaction.
pub async fn place(
    provider: &impl Provider,
    minter: &PrivateKeySigner,
    account: Address,
    amount: u64,
) -> Result<()> {
    let construct = Coin::constructorCall {
        domain: "USDC".to_owned(),
        revision: "2".to_owned(),
    };
    let mut code = Contract::Coin.artifact()?.bytecode.to_vec();
    code.extend(construct.abi_encode());
    let create = TransactionRequest::default().with_deploy_code(Bytes::from(code));
    let receipt = send(provider, minter, create).await?;
    let created = receipt
        .contract_address
        .context("the coin has no address")?;
    let code = provider.get_code_at(created).await?;
    let set = json!([USD_COIN, code]);
    let _: Value = provider.raw_request("anvil_setCode".into(), set).await?;
    mint(provider, minter, account, amount).await
}

/// Gives more of the coin to an account. `minter` pays for the gas.
///
/// # Errors
/// If the node refuses the transaction.
pub async fn mint(
    provider: &impl Provider,
    minter: &PrivateKeySigner,
    account: Address,
    amount: u64,
) -> Result<()> {
    let amount = U256::from(amount);
    let give = mintCall { account, amount }.abi_encode();
    let give = TransactionRequest::default()
        .with_to(USD_COIN)
        .with_input(give);
    send(provider, minter, give).await?;
    Ok(())
}

/// Moves the coin from the account of a key.
///
/// # Errors
/// If the node refuses the transaction.
pub async fn transfer(
    provider: &impl Provider,
    owner: &PrivateKeySigner,
    to: Address,
    amount: u64,
) -> Result<()> {
    let value = U256::from(amount);
    let input = transferCall { to, value }.abi_encode();
    let request = TransactionRequest::default()
        .with_to(USD_COIN)
        .with_input(input);
    send(provider, owner, request).await?;
    Ok(())
}

/// Submits the authorization of a payment, as anyone can who has seen it, and returns the hash of the
/// transaction.
///
/// # Errors
/// If the payment has another form, or the node refuses the transaction.
pub async fn submit(
    provider: &impl Provider,
    sender: &PrivateKeySigner,
    payment: &Value,
) -> Result<B256> {
    let payload = &payment["payload"];
    let field = |name: &str| payload["authorization"][name].as_str().unwrap_or_default();
    let signature = payload["signature"].as_str().unwrap_or_default();
    let call = transferWithAuthorizationCall {
        from: field("from").parse()?,
        to: field("to").parse()?,
        value: field("value").parse()?,
        validAfter: field("validAfter").parse()?,
        validBefore: field("validBefore").parse()?,
        nonce: field("nonce").parse()?,
        signature: signature.parse()?,
    };
    let request = TransactionRequest::default()
        .with_to(USD_COIN)
        .with_input(call.abi_encode());
    Ok(send(provider, sender, request).await?.transaction_hash)
}

async fn send(
    provider: &impl Provider,
    signer: &PrivateKeySigner,
    request: TransactionRequest,
) -> Result<TransactionReceipt> {
    let fees = provider.estimate_eip1559_fees().await?;
    let request = request
        .with_from(signer.address())
        .with_nonce(provider.get_transaction_count(signer.address()).await?)
        .with_chain_id(provider.get_chain_id().await?)
        .with_gas_limit(3_000_000)
        .with_max_fee_per_gas(fees.max_fee_per_gas)
        .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
    let wallet = EthereumWallet::from(signer.clone());
    let signed = request.build(&wallet).await?.encoded_2718();
    let receipt = provider
        .send_raw_transaction(&signed)
        .await?
        .get_receipt()
        .await?;
    ensure!(receipt.status(), "the transaction was reverted");
    Ok(receipt)
}

/// Every transfer of the coin to an account.
///
/// # Errors
/// If the node does not answer.
pub async fn transfers_to(provider: &impl Provider, to: Address) -> Result<Vec<Moved>> {
    let filter = Filter::new()
        .address(USD_COIN)
        .event_signature(Transfer::SIGNATURE_HASH)
        .topic2(to)
        .from_block(0);
    let logs = provider.get_logs(&filter).await?;
    let moved = logs.iter().map(|log| {
        let transfer = log.log_decode::<Transfer>()?.inner.data;
        Ok(Moved {
            from: transfer.from,
            to: transfer.to,
            value: transfer.value,
            transaction: log.transaction_hash.unwrap_or_default(),
        })
    });
    moved.collect()
}
