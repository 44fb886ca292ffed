//! Takes an entry to the chain: signs for a bound nonce, and sends what the record stores, or a filler
//! (rules R2, R3, R7 and R8).
//!
//! Nothing is signed without a [`BoundNonce`], and stored bytes are sent only if they match the
//! record and the ledger, whichever replica stored them. Sending again is always safe, so the
//! outcome of a send decides nothing: evidence does, in [`super::protocol`].

use alloy::primitives::{Address, B256, keccak256};

use super::filler;
use super::store::BoundNonce;
use crate::api::{AgentRegistrationSpec, Attempt, Operation, Phase};
use crate::chain::rpc::SendOutcome;
use crate::chain::transaction::{
    self, ExpectedTransaction, TransactionMismatch, UnsignedTransaction,
};
use crate::chain::{Fees, RpcEndpoint, TransactionSigner, abi};
use crate::leader::{Leading, NotLeading};

/// Why nothing was signed or sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This replica is not the leader.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The stored bytes do not match the record and the ledger.
    #[error(transparent)]
    Mismatch(#[from] TransactionMismatch),
    /// The record no longer keeps the bytes of this attempt.
    #[error("the attempt's signed bytes are no longer stored")]
    BytesDropped,
    /// The key cannot sign.
    #[error("signing failed")]
    Signer(#[source] alloy::signers::Error),
    /// The record or the signing key is not the one of the entry.
    #[error("the {0} is not the one that the nonce was allocated to")]
    OtherOwner(&'static str),
    /// An earlier attempt was signed for other calldata.
    #[error("the calldata differs from that of an earlier attempt, and must not change")]
    CalldataChanged,
}

/// A signed attempt, to be stored before it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedAttempt {
    /// The attempt with its signed bytes.
    pub attempt: Attempt,
    /// Keccak-256 of its calldata.
    pub calldata_hash: B256,
}

/// Signs the registration that a nonce is allocated to.
///
/// # Errors
/// If record, key and entry do not belong together, the calldata changed, or signing fails.
pub fn sign(
    signer: &TransactionSigner,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
    agent_uri: &str,
    gas: u64,
    fees: Fees,
) -> Result<SignedAttempt, Error> {
    check_owner(bound, record)?;
    if record.result.is_some() || record.phase == Phase::Reverted {
        return Err(Error::OtherOwner("record"));
    }
    check_key(signer, bound)?;
    let calldata = abi::register(agent_uri);
    let calldata_hash = keccak256(&calldata);
    if record
        .calldata_hash
        .is_some_and(|frozen| frozen != calldata_hash)
    {
        return Err(Error::CalldataChanged);
    }
    let transaction = UnsignedTransaction {
        chain_id: bound.chain_id(),
        nonce: bound.nonce(),
        to: record.registry.address,
        calldata,
        gas,
        fees,
    };
    let attempt = signer.sign(&transaction).map_err(Error::Signer)?;
    Ok(SignedAttempt {
        attempt,
        calldata_hash,
    })
}

/// Signs the filler for a nonce (rule R8). Nothing is stored: see [`filler`].
///
/// # Errors
/// If key and entry do not belong together, or signing fails.
pub fn sign_filler(
    signer: &TransactionSigner,
    bound: &BoundNonce,
    gas: u64,
    fees: Fees,
) -> Result<Attempt, Error> {
    check_key(signer, bound)?;
    let transaction = UnsignedTransaction {
        chain_id: bound.chain_id(),
        nonce: bound.nonce(),
        to: bound.signer(),
        calldata: filler::calldata(bound.key()),
        gas,
        fees,
    };
    let attempt = signer.sign(&transaction).map_err(Error::Signer)?;
    Ok(Attempt {
        kind: Operation::Filler,
        ..attempt
    })
}

fn check_key(signer: &TransactionSigner, bound: &BoundNonce) -> Result<(), Error> {
    if signer.address() == bound.signer() {
        Ok(())
    } else {
        Err(Error::OtherOwner("signing key"))
    }
}

fn check_owner(bound: &BoundNonce, record: &AgentRegistrationSpec) -> Result<(), Error> {
    let owner = (record.key, record.chain_id, record.signer);
    if owner == (bound.key(), bound.chain_id(), Some(bound.signer())) {
        Ok(())
    } else {
        Err(Error::OtherOwner("record"))
    }
}

/// Sends an attempt that the record stores.
///
/// # Errors
/// If it must not be sent. Any answer of the endpoint is an outcome, not an error.
pub async fn send(
    endpoint: &RpcEndpoint,
    leading: &Leading,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
    attempt: &Attempt,
) -> Result<SendOutcome, Error> {
    check_owner(bound, record)?;
    let calldata_hash = record.calldata_hash.ok_or(Error::OtherOwner("record"))?;
    let call = (record.registry.address, calldata_hash);
    send_checked(endpoint, leading, bound, call, attempt).await
}

/// Sends a filler.
///
/// # Errors
/// If it must not be sent. Any answer of the endpoint is an outcome, not an error.
pub async fn send_filler(
    endpoint: &RpcEndpoint,
    leading: &Leading,
    bound: &BoundNonce,
    filler: &Attempt,
) -> Result<SendOutcome, Error> {
    let call = (bound.signer(), keccak256(filler::calldata(bound.key())));
    send_checked(endpoint, leading, bound, call, filler).await
}

async fn send_checked(
    endpoint: &RpcEndpoint,
    leading: &Leading,
    bound: &BoundNonce,
    (to, calldata_hash): (Address, B256),
    attempt: &Attempt,
) -> Result<SendOutcome, Error> {
    let raw = attempt.raw.as_ref().ok_or(Error::BytesDropped)?;
    let expected = ExpectedTransaction {
        chain_id: bound.chain_id(),
        signer: bound.signer(),
        nonce: bound.nonce(),
        to,
        calldata_hash,
    };
    transaction::check(raw, &expected)?;
    Ok(endpoint.send(leading, raw).await?)
}

#[cfg(test)]
mod tests;
