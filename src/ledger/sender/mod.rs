//! From an entry to a chain: signs what was bound, and sends what was stored (rules R2, R3 and R7).
//!
//! Nothing is signed without a [`BoundNonce`], and nothing is sent that does not say what the record and the ledger say, whoever
//! stored it. Sending again is always allowed, so an answer here decides nothing: evidence does, in [`super::protocol`].

use alloy::primitives::{B256, keccak256};

use super::store::BoundNonce;
use crate::api::{AgentRegistrationSpec, Attempt};
use crate::chain::rpc::SendOutcome;
use crate::chain::transaction::{
    self, ExpectedTransaction, TransactionMismatch, UnsignedTransaction,
};
use crate::chain::{Fees, RpcEndpoint, TransactionSigner, abi};
use crate::leader::{Leading, NotLeading};

/// Nothing was signed or sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This replica must not send.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// What is stored is not what may be sent.
    #[error(transparent)]
    Mismatch(#[from] TransactionMismatch),
    /// There is nothing stored.
    #[error("the attempt's signed bytes are not kept any more")]
    Forgotten,
    /// The key does not sign.
    #[error("the signer does not sign")]
    Signer(#[source] alloy::signers::Error),
    /// The record or the key belongs to another account, key or chain than the entry.
    #[error("the {0} is not the one that the nonce was given to")]
    OtherOwner(&'static str),
    /// The calldata would differ from what an earlier attempt froze.
    #[error("the calldata is frozen by an earlier attempt and would differ")]
    CalldataChanged,
}

/// A signed attempt, to be stored before it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedAttempt {
    /// The attempt.
    pub attempt: Attempt,
    /// Keccak-256 of its calldata.
    pub calldata_hash: B256,
}

/// Signs the registration that a nonce was given to.
///
/// # Errors
/// If record, key and entry do not belong together, or the key does not sign.
pub fn sign(
    signer: &TransactionSigner,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
    agent_uri: &str,
    gas: u64,
    fees: Fees,
) -> Result<SignedAttempt, Error> {
    check_owner(bound, record)?;
    if record.result.is_some() {
        return Err(Error::OtherOwner("record"));
    }
    if signer.address() != bound.signer() {
        return Err(Error::OtherOwner("signing key"));
    }
    let calldata = abi::register(agent_uri);
    let calldata_hash = keccak256(&calldata);
    if record
        .calldata_hash
        .is_some_and(|frozen| frozen != calldata_hash)
    {
        return Err(Error::CalldataChanged);
    }
    let order = UnsignedTransaction {
        chain_id: bound.chain_id(),
        nonce: bound.nonce(),
        to: record.registry.address,
        calldata,
        gas,
        fees,
    };
    let attempt = signer.sign(&order).map_err(Error::Signer)?;
    Ok(SignedAttempt {
        attempt,
        calldata_hash,
    })
}

fn check_owner(bound: &BoundNonce, record: &AgentRegistrationSpec) -> Result<(), Error> {
    let owner = (record.key, record.chain_id, record.signer);
    if owner == (bound.key(), bound.chain_id(), Some(bound.signer())) {
        Ok(())
    } else {
        Err(Error::OtherOwner("record"))
    }
}

/// Sends an attempt that is stored in the record.
///
/// # Errors
/// If it must not be sent. Whatever the endpoint answers is an outcome.
pub async fn send(
    endpoint: &RpcEndpoint,
    leading: &Leading,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
    attempt: &Attempt,
) -> Result<SendOutcome, Error> {
    check_owner(bound, record)?;
    let raw = attempt.raw.as_ref().ok_or(Error::Forgotten)?;
    let calldata_hash = record.calldata_hash.ok_or(Error::OtherOwner("record"))?;
    let expected = ExpectedTransaction {
        chain_id: bound.chain_id(),
        signer: bound.signer(),
        nonce: bound.nonce(),
        to: record.registry.address,
        calldata_hash,
    };
    transaction::check(raw, &expected)?;
    Ok(endpoint.send(leading, raw).await?)
}

#[cfg(test)]
mod tests;
