//! Ledgers and records in the API server: read at quorum, written by compare-and-swap.
//!
//! It owns the order of reads that the protocol's proof rests on (rule R1): a record counts only if
//! it was read *after* the ledger, so records are read with a [`ReadLedger`]. It decides nothing
//! and retries nothing: a conflict means that all reads are out of date, and the next reconcile
//! starts with a new one.

use alloy::primitives::Address;
use kube::api::ObjectMeta;

use super::unreadable::{OtherLedgers, UnreadableRecord, marked_accounts};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Entry, Key, Nonce, Operation, SignerLedger,
    SignerLedgerSpec,
};
use crate::cluster::{Error, Lenient, Reader, Writer};
use crate::leader::Leading;

/// A ledger as the API server stores it: returned by a quorum read or by a successful write of this
/// process.
#[derive(Clone, Debug)]
pub struct ReadLedger {
    ledger: SignerLedger,
}

impl ReadLedger {
    #[must_use]
    pub fn spec(&self) -> &SignerLedgerSpec {
        &self.ledger.spec
    }

    #[must_use]
    pub fn uid(&self) -> &str {
        self.ledger.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Proof that a nonce is allocated to the registration of a key; `None` if it is not.
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
    /// A ledger as if the API server had returned it.
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

/// Proof that a nonce is allocated to the registration of a key: the entry was read back from the
/// API server.
///
/// Nothing is signed without one (rule R2), and only a [`ReadLedger`] can create one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundNonce {
    nonce: Nonce,
    key: Key,
    chain_id: u64,
    signer: Address,
}

impl BoundNonce {
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    #[must_use]
    pub fn signer(&self) -> Address {
        self.signer
    }
}

/// All records, read after a ledger.
#[derive(Clone, Debug, Default)]
pub struct ReadRecords {
    pub records: Vec<AgentRegistration>,
    pub unreadable: Vec<UnreadableRecord>,
}

impl FromIterator<Lenient<AgentRegistration>> for ReadRecords {
    fn from_iter<T: IntoIterator<Item = Lenient<AgentRegistration>>>(records: T) -> Self {
        let mut all = Self::default();
        for record in records {
            match record {
                Lenient::Decoded(record) => all.records.push(record),
                Lenient::Undecodable(record) => all.unreadable.push((&*record).into()),
            }
        }
        all
    }
}

/// Reads and writes ledgers and records.
#[derive(Clone)]
pub struct Store {
    reader: Reader,
    writer: Writer,
}

impl Store {
    /// A store that uses this reader and writer.
    #[must_use]
    pub fn new(reader: Reader, writer: Writer) -> Self {
        Self { reader, writer }
    }

    /// Reads the ledger of an account on a chain, at quorum. It may not be decodable.
    pub async fn read_ledger(
        &self,
        chain_id: u64,
        signer: Address,
    ) -> Result<Option<Lenient<ReadLedger>>, Error> {
        let name = SignerLedger::name_of(chain_id, signer);
        Ok(self.reader.ledger(&name).await?.map(|read| match read {
            Lenient::Decoded(ledger) => Lenient::Decoded(ReadLedger { ledger }),
            Lenient::Undecodable(ledger) => Lenient::Undecodable(ledger),
        }))
    }

    /// Reads what all other ledgers of a chain register, after the ledger: a key that is in flight
    /// there must not get a nonce here.
    pub async fn other_ledgers_after(&self, ledger: &ReadLedger) -> Result<OtherLedgers, Error> {
        let spec = ledger.spec();
        let own_name = SignerLedger::name_of(spec.chain_id, spec.signer);
        let ledgers = self.reader.ledgers().await?;
        Ok(OtherLedgers::of(spec.chain_id, &own_name, &ledgers))
    }

    /// Reads which accounts of a chain have a ledger by the markers of any IdentityRegistry, after
    /// the ledger.
    pub async fn marked_accounts_after(&self, ledger: &ReadLedger) -> Result<Vec<Address>, Error> {
        let registries = self.reader.registries().await?;
        Ok(marked_accounts(ledger.spec().chain_id, &registries))
    }

    /// Reads the record of a key, after the ledger. It may not be decodable.
    pub async fn record_after(
        &self,
        _ledger: &ReadLedger,
        key: Key,
    ) -> Result<Option<Lenient<AgentRegistration>>, Error> {
        self.reader.record(&key.record_name()).await
    }

    /// Reads all records, after the ledger. `None` means that the ledger was read and does not
    /// exist.
    pub async fn records_after(&self, _ledger: Option<&ReadLedger>) -> Result<ReadRecords, Error> {
        Ok(self.reader.records().await?.into_iter().collect())
    }

    /// Creates a ledger.
    ///
    /// # Errors
    /// [`Error::Exists`] if the account already has one.
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

    /// Replaces a ledger, conditional on the version that was read. Consumes that version: whether
    /// the write succeeds or fails, it is out of date.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the ledger was modified since it was read.
    pub async fn replace_ledger(
        &self,
        leading: &Leading,
        read: ReadLedger,
        spec: SignerLedgerSpec,
    ) -> Result<ReadLedger, Error> {
        let ledger = self
            .writer
            .replace(
                leading,
                &SignerLedger {
                    spec,
                    ..read.ledger
                },
            )
            .await?;
        Ok(ReadLedger { ledger })
    }

    /// Creates a record, named by its key.
    ///
    /// # Errors
    /// [`Error::Exists`] if the key already has one.
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

    /// Replaces a record, conditional on the version that was read.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the record was modified since it was read.
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
    fn undecodable_record_does_not_fail_the_list() {
        let record = AgentRegistration::new("r-a", fixtures::record('a'));
        let mut changed = serde_json::to_value(&record).unwrap();
        changed["spec"]["phase"] = "Recovering".into();
        let stored = [serde_json::to_value(&record).unwrap(), changed];
        let read: ReadRecords = stored
            .into_iter()
            .map(|stored| serde_json::from_value(stored).unwrap())
            .collect();
        assert_eq!(read.records, [record]);
        assert_eq!(read.unreadable.len(), 1);
        assert_eq!(read.unreadable[0].name, "r-a");
    }

    #[test]
    fn only_a_register_entry_read_back_binds_a_nonce() {
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
        let ledger = ReadLedger::read(spec);
        let bound = ledger.bound_nonce(Nonce(1)).unwrap();
        assert_eq!(
            (bound.nonce(), bound.key(), bound.chain_id()),
            (Nonce(1), key, 31337)
        );
        assert_eq!((bound.signer(), ledger.uid()), (fixtures::SIGNER, "uid"));
        for nonce in [0, 2, 3, 4] {
            assert_eq!(ledger.bound_nonce(Nonce(nonce)), None);
        }
    }
}
