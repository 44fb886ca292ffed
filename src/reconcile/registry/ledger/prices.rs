//! Asks what a registration takes and what gas costs, once per pass. It writes nothing.
//!
//! Which fees follow, and whether they are within the limits, is decided in
//! [`crate::ledger::money`].

use std::collections::BTreeMap;

use alloy::primitives::{Address, Bytes};

use super::LedgerInput;
use crate::api::{Attempt, Key, Nonce};
use crate::chain::refusal::Refusal;
use crate::chain::transaction::UnsignedTransaction;
use crate::chain::{FeeMarket, Fees, RpcError, TransactionSigner, abi};
use crate::ledger::filler;
use crate::ledger::money::{Consumption, Shortage, fees_for, worst_rollup_fee};
use crate::reconcile::issues::OfferIssue;

/// Prices of one pass by the length of the URI in bytes: what a registration takes follows from it.
#[derive(Debug, Default)]
pub(super) struct Prices(BTreeMap<usize, Price>);

#[derive(Clone, Copy, Debug)]
struct Price {
    takes: Consumption,
    market: FeeMarket,
}

/// What one transaction takes within the limits.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile::registry) struct Quote {
    pub(super) takes: Consumption,
    pub(super) fees: Fees,
}

/// Why there is no quote.
#[derive(Debug)]
pub(super) enum NoQuote {
    /// It concerns the offers that ask.
    Issue(OfferIssue),
    /// The endpoint did not answer.
    Rpc(RpcError),
}

impl Prices {
    /// What a registration takes, or the replacement of a transaction that was signed; `None` if that
    /// one is good enough.
    pub(super) async fn quote(
        &mut self,
        input: &LedgerInput<'_>,
        uri: &str,
        replaced: Option<&Attempt>,
    ) -> Result<Option<Quote>, NoQuote> {
        let price = match self.0.get(&uri.len()) {
            Some(price) => *price,
            None => {
                let call = (input.target.contract.address, abi::register(uri));
                let price = ask_price(input, call).await?;
                *self.0.entry(uri.len()).or_insert(price)
            }
        };
        price.quote(input, replaced)
    }
}

/// What the filler for the nonce of a key takes, or the replacement of one that was sent; `None` if
/// that one is good enough.
pub(super) async fn quote_filler(
    input: &LedgerInput<'_>,
    (account, key): (Address, Key),
    replaced: Option<&Attempt>,
) -> Result<Option<Quote>, NoQuote> {
    let price = ask_price(input, (account, filler::calldata(key))).await?;
    price.quote(input, replaced)
}

impl Price {
    fn quote(
        self,
        input: &LedgerInput<'_>,
        replaced: Option<&Attempt>,
    ) -> Result<Option<Quote>, NoQuote> {
        let Self { takes, market } = self;
        let takes = takes.for_replacement_of(replaced.map(|attempt| attempt.gas));
        let before = replaced.map(|attempt| Fees::Dynamic {
            max_fee: attempt.max_fee_per_gas.0,
            tip: attempt.max_priority_fee_per_gas.0,
        });
        match fees_for(before, market, &input.target.limits, takes) {
            Ok(fees) => Ok(fees.map(|fees| Quote { takes, fees })),
            Err(shortage) => Err(NoQuote::Issue(shortage.into())),
        }
    }
}

/// Asks what a transaction with this receiver and calldata takes.
async fn ask_price(
    input: &LedgerInput<'_>,
    (to, calldata): (Address, Bytes),
) -> Result<Price, NoQuote> {
    let (chain, target) = (input.chain, input.target);
    let signer = target.signer.as_ref().map(TransactionSigner::address);
    let estimate = chain
        .endpoint
        .estimate_gas(signer.unwrap_or_default(), to, calldata.clone())
        .await;
    let gas = match estimate {
        // Room for what changes between the estimate and the block: a transaction that runs out of
        // gas costs all of it.
        Ok(gas) => gas.saturating_add(gas / 5),
        Err(RpcError::RpcRefused {
            refusal: Refusal::Reverted,
            message,
            ..
        }) => {
            let issue = OfferIssue::RegistrationWouldRevert { words: message };
            return Err(NoQuote::Issue(issue));
        }
        Err(RpcError::RpcRefused {
            refusal: Refusal::InsufficientFunds,
            ..
        }) => {
            let balance = chain.account.as_ref().map_or(0, |account| account.balance);
            let shortage = Shortage::InsufficientFunds {
                balance,
                needed: target.limits.per_registration,
            };
            return Err(NoQuote::Issue(shortage.into()));
        }
        Err(error) => return Err(NoQuote::Rpc(error)),
    };
    let market = chain.endpoint.fee_market(&chain.latest).await;
    let rollup_fee = match chain.contract.fee_oracle {
        None => 0,
        Some(oracle) => {
            let unsigned = longest(target.contract.chain_id, to, calldata).encoded();
            let fee = chain.endpoint.rollup_fee(oracle, &unsigned, gas).await;
            worst_rollup_fee(fee.map_err(NoQuote::Rpc)?)
        }
    };
    Ok(Price {
        takes: Consumption { gas, rollup_fee },
        market: market.map_err(NoQuote::Rpc)?,
    })
}

/// A transaction whose encoding is at least as long as that of any with this calldata.
fn longest(chain_id: u64, to: Address, calldata: Bytes) -> UnsignedTransaction {
    UnsignedTransaction {
        chain_id,
        nonce: Nonce(u64::MAX),
        to,
        calldata,
        gas: u64::MAX,
        fees: Fees::Dynamic {
            max_fee: u128::MAX,
            tip: u128::MAX,
        },
    }
}
