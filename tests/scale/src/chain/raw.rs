//! The program beside which the operator is measured: it signs everything beforehand, and then only
//! sends. It stores nothing, reads no log, and could not resume.

use std::time::Duration;

use alloy::eips::eip2718::Encodable2718;
use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::types::TransactionRequest;
use alloy::signers::local::PrivateKeySigner;
use anyhow::{Context, Result};
use contracts::abi::IdentityRegistry;
use futures::{StreamExt, TryStreamExt, stream};
use harness::bench::ProgressTrack;
use harness::chain::Chain;
use scale::offers::BASE_URL;
use tokio::time::{sleep, timeout};

/// Time between two questions whether there are new blocks.
const INTERVAL: Duration = Duration::from_millis(25);
/// Requests in flight.
const CONCURRENT: usize = 8;

/// Signed registrations of one account.
#[derive(Debug)]
pub struct RawSender {
    provider: RootProvider,
    account: PrivateKeySigner,
    first_nonce: u64,
    signed: Vec<Vec<u8>>,
}

impl RawSender {
    /// Signs registrations for an account.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn sign(chain: &Chain, account: PrivateKeySigner, count: usize) -> Result<Self> {
        let provider = chain.provider().clone();
        let owner = account.address();
        let first_nonce = provider.get_transaction_count(owner).await?;
        let fees = provider.estimate_eip1559_fees().await?;
        let contract = IdentityRegistry::new(chain.registry, &provider);
        let estimate = contract.register_1(uri(0)).from(owner);
        let gas = estimate.estimate_gas().await?;
        let wallet = EthereumWallet::from(account.clone());
        let mut signed = Vec::with_capacity(count);
        for (nonce, number) in (first_nonce..).zip(0..count) {
            let transaction: TransactionRequest =
                contract.register_1(uri(number)).into_transaction_request();
            let transaction = transaction
                .with_from(owner)
                .with_chain_id(chain.id)
                .with_nonce(nonce)
                .with_gas_limit(gas)
                .with_max_fee_per_gas(fees.max_fee_per_gas)
                .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas)
                .build(&wallet)
                .await?;
            signed.push(transaction.encoded_2718());
        }
        Ok(Self {
            provider,
            account,
            first_nonce,
            signed,
        })
    }

    /// Sends all of them right after a block, and waits until they are in blocks. At most `window`
    /// are in none at any time.
    ///
    /// # Errors
    /// If the node refuses one, or it takes longer than `limit`.
    pub async fn send(
        &self,
        window: Option<u16>,
        limit: Duration,
        track: &ProgressTrack,
    ) -> Result<()> {
        let sent = timeout(limit, self.send_all(window.map(usize::from), track)).await;
        sent.with_context(|| format!("sending takes longer than {limit:?}"))?
    }

    async fn send_all(&self, window: Option<usize>, track: &ProgressTrack) -> Result<()> {
        let before = self.provider.get_block_number().await?;
        while self.provider.get_block_number().await? == before {
            sleep(INTERVAL).await;
        }
        let (mut sent, count) = (0, self.signed.len());
        loop {
            let used = self.provider.get_transaction_count(self.account.address());
            let included = usize::try_from(used.await? - self.first_nonce)?;
            track.reach(included, "");
            if included == count {
                return Ok(());
            }
            let end = window.map_or(count, |window| count.min(included + window));
            stream::iter(&self.signed[sent..end])
                .map(|bytes| self.provider.send_raw_transaction(bytes))
                .buffered(CONCURRENT)
                .try_for_each(|_| std::future::ready(Ok(())))
                .await?;
            sent = end;
            sleep(INTERVAL).await;
        }
    }
}

/// As long as a URI of the operator: gas follows from its length.
fn uri(number: usize) -> String {
    format!("{BASE_URL}/agents/{number:016}.json")
}
