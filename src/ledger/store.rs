//! Ledgers and records in the API server: read at quorum, written by compare-and-swap.
//!
//! It owns the order of reads that the protocol's proof rests on (rule R1): a record counts only if it was read *after* the
//! ledger, so a record is read through the [`ReadLedger`]. It decides nothing, and retries nothing: a conflict means that
//! everything known is out of date, and the next turn starts with a read.

use alloy::primitives::Address;
use kube::api::ObjectMeta;

use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Entry, Key, Nonce, Operation, SignerLedger,
    SignerLedgerSpec,
};
use crate::cluster::{Error, Reader, Writer};
use crate::leader::Leading;

/// A ledger as the API server had it: answered by a quorum read, or by a write of ours that succeeded.
#[derive(Clone, Debug)]
pub struct ReadLedger {
    ledger: SignerLedger,
}

impl ReadLedger {
    /// What it says.
    #[must_use]
    pub fn spec(&self) -> &SignerLedgerSpec {
        &self.ledger.spec
    }

    /// Uid of the object.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.ledger.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Proof that a nonce belongs to the registration of a key.
    #[must_use]
    pub fn bound_nonce(&self, nonce: Nonce) -> Option<BoundNonce> {
        match self.spec().entries.get(&nonce) {
            Some(Entry {
                key: Some(key),
                operation: Operation::Register,
            }) => Some(BoundNonce {
                nonce,
                key: *key,
                chain_id: self.spec().chain_id,
                signer: self.spec().signer,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
impl ReadLedger {
    /// A ledger as if it had been read.
    pub(super) fn read(spec: SignerLedgerSpec) -> Self {
        let metadata = ObjectMeta {
            uid: Some("uid".into()),
            ..ObjectMeta::default()
        };
        Self {
            ledger: SignerLedger { metadata, spec },
        }
    }
}

/// Proof that a nonce of an account belongs to the registration of a key: the entry was read back from the API server.
///
/// Nothing is signed without one (rule R2), and nothing but a [`ReadLedger`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundNonce {
    nonce: Nonce,
    key: Key,
    chain_id: u64,
    signer: Address,
}

impl BoundNonce {
    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// The chain.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The account.
    #[must_use]
    pub fn signer(&self) -> Address {
        self.signer
    }
}

/// Ledgers and records.
#[derive(Clone)]
pub struct Store {
    reader: Reader,
    writer: Writer,
}

impl Store {
    /// Reads and writes through these.
    #[must_use]
    pub fn new(reader: Reader, writer: Writer) -> Self {
        Self { reader, writer }
    }

    /// The ledger of an account on a chain, as it is at this moment.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn read_ledger(
        &self,
        chain_id: u64,
        signer: Address,
    ) -> Result<Option<ReadLedger>, Error> {
        let ledger = self
            .reader
            .ledger(&SignerLedger::name_of(chain_id, signer))
            .await?;
        Ok(ledger.map(|ledger| ReadLedger { ledger }))
    }

    /// The record of a key, read after the ledger.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn record_after(
        &self,
        _held: &ReadLedger,
        key: Key,
    ) -> Result<Option<AgentRegistration>, Error> {
        self.reader.record(&key.record_name()).await
    }

    /// Every record, read after the ledger. `None` stands for a ledger that was looked for and does not exist.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn records_after(
        &self,
        _held: Option<&ReadLedger>,
    ) -> Result<Vec<AgentRegistration>, Error> {
        self.reader.records().await
    }

    /// Creates a ledger.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one.
    pub async fn create_ledger(
        &self,
        leading: &Leading,
        spec: SignerLedgerSpec,
    ) -> Result<ReadLedger, Error> {
        let metadata = ObjectMeta {
            name: Some(SignerLedger::name_of(spec.chain_id, spec.signer)),
            ..ObjectMeta::default()
        };
        let ledger = self
            .writer
            .create(leading, &SignerLedger { metadata, spec })
            .await?;
        Ok(ReadLedger { ledger })
    }

    /// Replaces a ledger, if nobody has since it was read. What was held is used up, whatever comes of it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody has.
    pub async fn replace_ledger(
        &self,
        leading: &Leading,
        held: ReadLedger,
        spec: SignerLedgerSpec,
    ) -> Result<ReadLedger, Error> {
        let ledger = self
            .writer
            .replace(
                leading,
                &SignerLedger {
                    spec,
                    ..held.ledger
                },
            )
            .await?;
        Ok(ReadLedger { ledger })
    }

    /// Creates a record. Its name is taken from its key.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one.
    pub async fn create_record(
        &self,
        leading: &Leading,
        spec: AgentRegistrationSpec,
    ) -> Result<AgentRegistration, Error> {
        let metadata = ObjectMeta {
            name: Some(spec.key.record_name()),
            ..ObjectMeta::default()
        };
        self.writer
            .create(leading, &AgentRegistration { metadata, spec })
            .await
    }

    /// Replaces a record, if nobody has since it was read.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody has.
    pub async fn replace_record(
        &self,
        leading: &Leading,
        record: &AgentRegistration,
        spec: AgentRegistrationSpec,
    ) -> Result<AgentRegistration, Error> {
        let metadata = record.metadata.clone();
        self.writer
            .replace(leading, &AgentRegistration { metadata, spec })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fixtures;

    #[test]
    fn only_a_registers_entry_that_was_read_back_binds_a_nonce() {
        let key: Key = "aaaaaaaaaaaaaaaa".parse().unwrap();
        let entry = |operation, key| Entry { key, operation };
        let spec = SignerLedgerSpec {
            entries: [
                (Nonce(1), entry(Operation::Register, Some(key))),
                (Nonce(2), entry(Operation::Update, Some(key))),
                (Nonce(3), entry(Operation::Register, None)),
            ]
            .into(),
            ..fixtures::ledger()
        };
        let held = ReadLedger::read(spec);
        let bound = held.bound_nonce(Nonce(1)).unwrap();
        assert_eq!(
            (bound.nonce(), bound.key(), bound.chain_id()),
            (Nonce(1), key, 31337)
        );
        assert_eq!((bound.signer(), held.uid()), (fixtures::SIGNER, "uid"));
        for nonce in [0, 2, 3, 4] {
            assert_eq!(held.bound_nonce(Nonce(nonce)), None);
        }
    }
}
