//! Deploys a registry as the real one was deployed: first the proxy, then an upgrade to the
//! registry.

use std::time::Duration;

use alloy::{
    eips::eip2718::Encodable2718,
    network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder},
    primitives::{Address, B256},
    providers::Provider,
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolConstructor},
};
use anyhow::{Context, Result, ensure};
use tokio::time;

use crate::{
    abi::{Genesis, IdentityRegistry, Proxy},
    artifact::Contract,
};

/// Time limit for the inclusion of a transaction.
const INCLUSION_TIMEOUT: Duration = Duration::from_secs(60);

/// Gas limit that suffices for the largest of the four transactions. They cannot be estimated: each
/// depends on an earlier one that is not in a block yet.
const GAS_LIMIT: u64 = 5_000_000;

/// Deploys a registry owned by `deployer` and returns the address of its proxy.
///
/// Sends all transactions at once, so that deployment takes one block instead of four. After a
/// failure, the transactions that were sent stay on the chain.
pub async fn deploy(provider: &impl Provider, deployer: &PrivateKeySigner) -> Result<Address> {
    let owner = deployer.address();
    let first = provider.get_transaction_count(owner).await?;
    let [genesis, proxy, registry] = [0, 1, 2].map(|nth| owner.create(first + nth));

    let initialize_genesis = Genesis::initializeCall { firstOwner: owner };
    let construct_proxy = Proxy::constructorCall {
        implementation: genesis,
        _data: initialize_genesis.abi_encode().into(),
    };
    let initialize = IdentityRegistry::initializeCall {};
    let upgrade = IdentityRegistry::upgradeToAndCallCall {
        newImplementation: registry,
        data: initialize.abi_encode().into(),
    };
    let steps = [
        creation(Contract::Genesis, &[])?,
        creation(Contract::Proxy, &construct_proxy.abi_encode())?,
        creation(Contract::IdentityRegistry, &[])?,
        TransactionRequest::default()
            .with_to(proxy)
            .with_input(upgrade.abi_encode()),
    ];

    let chain_id = provider.get_chain_id().await?;
    let fees = provider.estimate_eip1559_fees().await?;
    let wallet = EthereumWallet::from(deployer.clone());
    let mut sent = Vec::new();
    for (nonce, step) in (first..).zip(steps) {
        let transaction = step
            .with_from(owner)
            .with_chain_id(chain_id)
            .with_nonce(nonce)
            .with_gas_limit(GAS_LIMIT)
            .with_max_fee_per_gas(fees.max_fee_per_gas)
            .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas)
            .build(&wallet)
            .await?;
        sent.push(
            *provider
                .send_raw_transaction(&transaction.encoded_2718())
                .await?
                .tx_hash(),
        );
    }
    for transaction in sent {
        included(provider, transaction).await?;
    }
    Ok(proxy)
}

/// A transaction that deploys a contract.
fn creation(contract: Contract, constructor_arguments: &[u8]) -> Result<TransactionRequest> {
    let code = [&contract.artifact()?.bytecode, constructor_arguments].concat();
    Ok(TransactionRequest::default().with_deploy_code(code))
}

/// Waits until a transaction is in a block, and fails if it reverted.
///
/// Needed even if anvil mines a block per transaction: it answers before the block exists.
pub async fn included(provider: &impl Provider, transaction: B256) -> Result<TransactionReceipt> {
    let wait = async {
        loop {
            if let Some(receipt) = provider.get_transaction_receipt(transaction).await? {
                ensure!(receipt.status(), "transaction {transaction} reverted");
                return Ok(receipt);
            }
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(INCLUSION_TIMEOUT, wait)
        .await
        .with_context(|| {
            format!("transaction {transaction} was not included within {INCLUSION_TIMEOUT:?}")
        })?
}
