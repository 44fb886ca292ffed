//! Reads the chain for a pass, through the endpoint that was chosen for it, *before* any ledger is
//! read.
//!
//! It writes nothing and decides nothing about money: [`super::schedule`] says how much to read,
//! [`super::endpoints`] which endpoint to ask.

use std::time::Instant;

use alloy::primitives::B256;

use super::blocked::Unverified;
use super::endpoints::{VerifiedContract, failed};
use super::outcome::{Check, Checks};
use super::schedule::{self, Depth};
use super::state::RegistryState;
use super::target::RegistryTarget;
use crate::chain::{Block, Head, RpcEndpoint, TransactionSigner};
use crate::ledger::evidence::AccountState;

/// The chain, as one endpoint shows it in one pass.
#[derive(Clone, Debug)]
pub(super) struct ChainSnapshot {
    pub(super) endpoint: RpcEndpoint,
    pub(super) contract: VerifiedContract,
    pub(super) latest: Block,
    pub(super) finalized: Block,
    /// The signer's account; `None` if the registry has no signer.
    pub(super) account: Option<SignerAccount>,
}

/// The signer's account.
#[derive(Clone, Debug)]
pub(super) struct SignerAccount {
    pub(super) account_state: AccountState,
    /// In wei.
    pub(super) balance: u128,
}

impl ChainSnapshot {
    pub(super) fn genesis_hash(&self) -> B256 {
        self.contract.genesis_hash
    }
}

/// What was read of the chain.
#[derive(Debug, Default)]
pub(super) struct ChainAnswer {
    /// The contract, if it was ever verified.
    pub(super) contract: Option<VerifiedContract>,
    /// Everything that the ledger's part of a pass needs, if that was due.
    pub(super) snapshot: Option<Box<ChainSnapshot>>,
    /// Whether something was due and could not be read.
    pub(super) failed: bool,
}

impl ChainAnswer {
    fn failed(contract: Option<VerifiedContract>) -> Self {
        Self {
            contract,
            snapshot: None,
            failed: true,
        }
    }
}

/// Reads as much of the chain as is due.
pub(super) async fn read(
    target: &RegistryTarget,
    checks: Checks,
    state: &mut RegistryState,
    depth: Depth,
) -> (Checks, ChainAnswer) {
    let Some(endpoint) = state.endpoints.choose(target.contract).await else {
        return (checks, ChainAnswer::failed(None));
    };
    let refresh = state.generation != target.generation;
    let (checks, contract) = state
        .endpoints
        .verify(&endpoint, target.contract, refresh, checks)
        .await;
    let Some(contract) = contract else {
        // Records of offers need the contract's code hash, and not an endpoint that answers.
        let known = state.endpoints.last_verified(target.contract);
        return (checks, ChainAnswer::failed(known));
    };
    if depth == Depth::Nothing {
        let reading = ChainAnswer {
            contract: Some(contract),
            ..ChainAnswer::default()
        };
        return (checks, reading);
    }
    let head = match endpoint.head().await {
        Ok(head) => head,
        Err(error) => {
            state.retry_after = error.retry_after();
            let checks = failed(checks, &endpoint, error);
            return (checks, ChainAnswer::failed(Some(contract)));
        }
    };
    state.head_read(&head);
    state.endpoints.head_read(&endpoint, head.latest.number);
    let checks = Checks {
        rpc: answering(state, &endpoint),
        ..checks
    };
    let settled = |finalized: &Block| schedule::is_settled(state.activity, finalized.number);
    let Head { latest, finalized } = head;
    let Some(finalized) = finalized else {
        let checks = checks.failed(Unverified::NoFinality.into());
        return (checks, ChainAnswer::failed(Some(contract)));
    };
    if depth == Depth::Head && !settled(&finalized) {
        let reading = ChainAnswer {
            contract: Some(contract),
            ..ChainAnswer::default()
        };
        return (checks, reading);
    }
    let account = match &target.signer {
        None => None,
        Some(signer) => match account(&endpoint, signer, &latest, &finalized).await {
            Ok(account) => Some(account),
            Err(AccountFailure::Unverified(unverified)) => {
                let checks = checks.failed(unverified.into());
                return (checks, ChainAnswer::failed(Some(contract)));
            }
            Err(AccountFailure::Rpc(error)) => {
                state.retry_after = error.retry_after();
                let checks = failed(checks, &endpoint, error);
                return (checks, ChainAnswer::failed(Some(contract)));
            }
        },
    };
    state.full_read = Some(Instant::now());
    let snapshot = ChainSnapshot {
        endpoint,
        contract: contract.clone(),
        latest,
        finalized,
        account,
    };
    let reading = ChainAnswer {
        contract: Some(contract),
        snapshot: Some(Box::new(snapshot)),
        failed: false,
    };
    (checks, reading)
}

/// The check of an endpoint that has just answered. An endpoint that was unhealthy has to prove
/// itself first.
fn answering(state: &RegistryState, endpoint: &RpcEndpoint) -> Check {
    if !endpoint.health().is_healthy() {
        return Check::Skipped;
    }
    let mut message = format!("{endpoint} answers");
    if let Some(others) = state.endpoints.passed_over(endpoint) {
        message = format!("{message}; {others}");
    }
    if let Some(block) = state.still_head() {
        message = format!("{message}; its latest block has been {block} for a minute or more");
    }
    Check::Passed {
        reason: "Answering",
        message,
    }
}

/// Why an account could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccountFailure {
    #[error(transparent)]
    Unverified(Unverified),
    #[error(transparent)]
    Rpc(crate::chain::RpcError),
}

/// Reads a signer's account.
pub(super) async fn account(
    endpoint: &RpcEndpoint,
    signer: &TransactionSigner,
    latest: &Block,
    finalized: &Block,
) -> Result<SignerAccount, AccountFailure> {
    let address = signer.address();
    let reading = endpoint
        .account(address, finalized.number)
        .await
        .map_err(AccountFailure::Rpc)?;
    if reading.has_code {
        return Err(AccountFailure::Unverified(Unverified::SignerHasCode {
            address,
        }));
    }
    Ok(SignerAccount {
        account_state: AccountState {
            counts: reading.counts,
            finalized_block: finalized.number,
            base_fee: latest.base_fee.unwrap_or_default(),
            balance_of_owner: None,
        },
        balance: reading.balance,
    })
}
