//! Signs transactions, and checks signed bytes before each send. Pure.
//!
//! It is the only file that signs with a private key, which [`super::key`] reads. A key never appears in output: neither in `Debug`
//! nor in an error.

use std::fmt;

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{
    SignableTransaction, Transaction, TxEip1559, TxEnvelope, TxLegacy, TypedTransaction,
};
use alloy::eips::eip2718::{Decodable2718, Encodable2718};
use alloy::network::TxSignerSync;
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use alloy::signers::local::PrivateKeySigner;

use super::Fees;
use super::key::{KeyBytes, KeyError};
use crate::api::{Attempt, Nonce, Operation, Wei};

/// Signs transactions for one account.
#[derive(Clone)]
pub struct TransactionSigner(PrivateKeySigner);

impl TransactionSigner {
    /// A signer with this private key.
    ///
    /// # Errors
    /// If it is no private key, or not the key of the expected account.
    pub fn new(key: &KeyBytes, expected: Address) -> Result<Self, KeyError> {
        let signer = PrivateKeySigner::from_slice(&**key).map_err(|_| KeyError::OutOfRange)?;
        let actual = signer.address();
        if actual == expected {
            Ok(Self(signer))
        } else {
            Err(KeyError::OtherAccount { expected, actual })
        }
    }

    /// Address of the account.
    #[must_use]
    pub fn address(&self) -> Address {
        self.0.address()
    }

    /// Signs a transaction and returns the attempt to store.
    pub fn sign(
        &self,
        transaction: &UnsignedTransaction,
    ) -> Result<Attempt, alloy::signers::Error> {
        let mut typed = transaction.typed();
        let signature = self.0.sign_transaction_sync(&mut typed)?;
        let envelope = typed.into_envelope(signature);
        Ok(Attempt {
            nonce: transaction.nonce,
            kind: Operation::Register,
            max_fee_per_gas: Wei(transaction.fees.max_fee()),
            max_priority_fee_per_gas: Wei(transaction.fees.tip()),
            gas: transaction.gas,
            hash: *envelope.tx_hash(),
            signed_at: None,
            raw: Some(envelope.encoded_2718().into()),
        })
    }
}

impl fmt::Debug for TransactionSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransactionSigner")
            .field(&self.address())
            .finish()
    }
}

/// A transaction to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedTransaction {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    pub nonce: Nonce,
    /// Contract to call.
    pub to: Address,
    pub calldata: Bytes,
    /// Gas limit.
    pub gas: u64,
    pub fees: Fees,
}

impl UnsignedTransaction {
    /// The bytes whose hash is signed.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        self.typed().encoded_for_signing()
    }

    fn typed(&self) -> TypedTransaction {
        let (chain_id, nonce, gas_limit) = (self.chain_id, self.nonce.0, self.gas);
        let (to, value, input) = (self.to.into(), U256::ZERO, self.calldata.clone());
        match self.fees {
            Fees::Dynamic { max_fee, tip } => TypedTransaction::Eip1559(TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: max_fee,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list: Default::default(),
                input,
            }),
            Fees::Legacy { gas_price } => TypedTransaction::Legacy(TxLegacy {
                // Without its chain id, the transaction could be repeated on another one (EIP-155).
                chain_id: Some(chain_id),
                nonce,
                gas_price,
                gas_limit,
                to,
                value,
                input,
            }),
        }
    }
}

/// What stored bytes must contain to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedTransaction {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Account that signed.
    pub signer: Address,
    pub nonce: Nonce,
    /// Contract to call.
    pub to: Address,
    /// Keccak-256 of the calldata.
    pub calldata_hash: B256,
}

/// The stored bytes contain something else: they must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the stored transaction does not match its record")]
pub struct TransactionMismatch(&'static str);

/// Checks that stored bytes match the record and the ledger, whichever replica wrote them.
///
/// # Errors
/// The first part that differs.
pub fn check(raw: &Bytes, expected: &ExpectedTransaction) -> Result<(), TransactionMismatch> {
    let envelope =
        TxEnvelope::decode_2718_exact(raw).map_err(|_| TransactionMismatch("encoding"))?;
    let signer = envelope
        .recover_signer()
        .map_err(|_| TransactionMismatch("signature"))?;
    let checks = [
        ("chain id", envelope.chain_id() == Some(expected.chain_id)),
        ("signer", signer == expected.signer),
        ("nonce", envelope.nonce() == expected.nonce.0),
        ("contract", envelope.to() == Some(expected.to)),
        ("value", envelope.value().is_zero()),
        (
            "calldata",
            keccak256(envelope.input()) == expected.calldata_hash,
        ),
    ];
    match checks.into_iter().find(|(_, equal)| !equal) {
        Some((what, _)) => Err(TransactionMismatch(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::abi;
    use crate::chain::key::read_key;

    const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
    const ADDRESS: Address =
        alloy::primitives::address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");

    fn transaction() -> UnsignedTransaction {
        UnsignedTransaction {
            chain_id: 31337,
            nonce: Nonce(5),
            to: Address::repeat_byte(4),
            calldata: abi::register("https://x/agents/a.json"),
            gas: 200_000,
            fees: Fees::Dynamic {
                max_fee: 30,
                tip: 2,
            },
        }
    }

    fn expected() -> ExpectedTransaction {
        let UnsignedTransaction {
            chain_id,
            nonce,
            to,
            calldata,
            ..
        } = transaction();
        ExpectedTransaction {
            chain_id,
            signer: ADDRESS,
            nonce,
            to,
            calldata_hash: keccak256(calldata),
        }
    }

    fn key(text: &str) -> KeyBytes {
        read_key(text.as_bytes(), None).unwrap()
    }

    #[test]
    fn key_signs_only_for_its_account() {
        let signer = TransactionSigner::new(&key(KEY), ADDRESS).unwrap();
        assert_eq!(signer.address(), ADDRESS);
        assert!(!format!("{signer:?}").contains(&KEY[2..]));
        let other = KeyError::OtherAccount {
            expected: Address::ZERO,
            actual: ADDRESS,
        };
        let refused = TransactionSigner::new(&key(KEY), Address::ZERO);
        assert_eq!(refused.unwrap_err(), other);
        for number in ["0", "f"] {
            let refused = TransactionSigner::new(&key(&number.repeat(64)), ADDRESS);
            assert_eq!(refused.unwrap_err(), KeyError::OutOfRange);
        }
    }

    #[test]
    fn signed_bytes_pass_the_check_and_are_deterministic() {
        let signer = TransactionSigner::new(&key(KEY), ADDRESS).unwrap();
        let attempt = signer.sign(&transaction()).unwrap();
        let raw = attempt.raw.clone().unwrap();
        assert_eq!(check(&raw, &expected()), Ok(()));
        assert_eq!(attempt.hash, keccak256(&raw));
        assert_eq!(
            (attempt.nonce, attempt.gas, attempt.kind),
            (Nonce(5), 200_000, Operation::Register)
        );
        assert_eq!(
            (attempt.max_fee_per_gas, attempt.max_priority_fee_per_gas),
            (Wei(30), Wei(2))
        );
        assert_eq!(signer.sign(&transaction()).unwrap(), attempt);
    }

    #[test]
    fn legacy_transaction_is_signed_for_its_chain() {
        let signer = TransactionSigner::new(&key(KEY), ADDRESS).unwrap();
        let legacy = UnsignedTransaction {
            fees: Fees::Legacy { gas_price: 9 },
            ..transaction()
        };
        let attempt = signer.sign(&legacy).unwrap();
        let raw = attempt.raw.unwrap();
        assert_eq!(check(&raw, &expected()), Ok(()));
        let envelope = TxEnvelope::decode_2718_exact(&raw).unwrap();
        assert!(envelope.is_legacy() && envelope.is_replay_protected());
        assert_eq!(envelope.gas_price(), Some(9));
        assert_eq!(
            (attempt.max_fee_per_gas, attempt.max_priority_fee_per_gas),
            (Wei(9), Wei(9))
        );
        let longer = raw.len() - legacy.encoded().len();
        assert!((64..=68).contains(&longer), "the signature: {longer}");
    }

    #[test]
    fn mismatch_names_the_part_that_differs() {
        let signer = TransactionSigner::new(&key(KEY), ADDRESS).unwrap();
        let raw = signer.sign(&transaction()).unwrap().raw.unwrap();
        let wrong = [
            (
                "chain id",
                ExpectedTransaction {
                    chain_id: 1,
                    ..expected()
                },
            ),
            (
                "signer",
                ExpectedTransaction {
                    signer: Address::ZERO,
                    ..expected()
                },
            ),
            (
                "nonce",
                ExpectedTransaction {
                    nonce: Nonce(6),
                    ..expected()
                },
            ),
            (
                "contract",
                ExpectedTransaction {
                    to: Address::ZERO,
                    ..expected()
                },
            ),
            (
                "calldata",
                ExpectedTransaction {
                    calldata_hash: B256::ZERO,
                    ..expected()
                },
            ),
        ];
        for (what, expected) in wrong {
            assert_eq!(check(&raw, &expected), Err(TransactionMismatch(what)));
        }
        assert_eq!(
            check(&Bytes::from_static(b"\x02\xde\xad"), &expected()),
            Err(TransactionMismatch("encoding"))
        );
        let longer: Bytes = [raw.as_ref(), &[0]].concat().into();
        assert_eq!(
            check(&longer, &expected()),
            Err(TransactionMismatch("encoding"))
        );
    }
}
