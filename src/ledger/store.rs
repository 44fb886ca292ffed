//! Ledgers and records in the API server: read at quorum, written by compare-and-swap.
//!
//! It owns the order of reads that the protocol's proof rests on (rule R1): a record counts only if
//! it was read *after* the ledger, so records are read with a [`ReadLedger`]. It decides nothing
//! and retries nothing: a conflict means that all reads are out of date, and the next reconcile
//! starts with a new one.
//!
//! It also remembers what each ledger has shown, since a replica that reads less later has found a
//! rollback ([`super::rollback`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::Address;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::rollback::{
    LedgerMark, LedgerMarks, Proof, ShownMarkers, Suspicion, quarantined, suspicions,
};
use super::sweep::FirstFinalized;
use super::unreadable::{OtherLedgers, UnreadableRecord, ledger_markers};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Entry, IdentityRegistry, Key, LedgerMarker, Nonce,
    Operation, SignerLedger, SignerLedgerSpec,
};
use crate::cluster::{Error, Lenient, QuarantineWriter, Reader, Writer};
use crate::leader::Leading;

/// A ledger as the API server stores it: returned by a quorum read or by a successful write of this
/// process.
#[derive(Clone, Debug)]
pub struct ReadLedger {
    ledger: SignerLedger,
    mark: LedgerMark,
}

impl From<SignerLedger> for ReadLedger {
    fn from(ledger: SignerLedger) -> Self {
        let mark = LedgerMark::of(&ledger);
        Self { ledger, mark }
    }
}

impl ReadLedger {
    #[must_use]
    pub fn spec(&self) -> &SignerLedgerSpec {
        &self.ledger.spec
    }

    #[must_use]
    pub fn uid(&self) -> &str {
        &self.mark.uid
    }

    /// The state that it shows.
    #[must_use]
    pub fn mark(&self) -> &LedgerMark {
        &self.mark
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
        SignerLedger { metadata, spec }.into()
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
    quarantine_writer: QuarantineWriter,
    marks: Arc<Mutex<LedgerMarks>>,
    shown_markers: Arc<Mutex<ShownMarkers>>,
    first_finalized: Arc<Mutex<FirstFinalized>>,
}

impl Store {
    /// A store that uses this reader and these writers.
    #[must_use]
    pub fn new(reader: Reader, writer: Writer, quarantine_writer: QuarantineWriter) -> Self {
        Self {
            reader,
            writer,
            quarantine_writer,
            marks: Arc::default(),
            shown_markers: Arc::default(),
            first_finalized: Arc::default(),
        }
    }

    fn marks(&self) -> MutexGuard<'_, LedgerMarks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown_markers(&self) -> MutexGuard<'_, ShownMarkers> {
        let shown = self.shown_markers.lock();
        shown.unwrap_or_else(PoisonError::into_inner)
    }

    fn first_finalized(&self) -> MutexGuard<'_, FirstFinalized> {
        let first = self.first_finalized.lock();
        first.unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, ledger: SignerLedger) -> ReadLedger {
        let read = ReadLedger::from(ledger);
        self.marks()
            .remember(&read.ledger.name_any(), read.mark.clone());
        read
    }

    /// What is remembered of the ledgers of an account on a chain. A ledger that is read *later*
    /// must show as much.
    #[must_use]
    pub fn remembered(&self, chain_id: u64, signer: Address) -> Vec<LedgerMark> {
        self.marks().of(&SignerLedger::name_of(chain_id, signer))
    }

    /// Reads the ledger of an account on a chain, at quorum. It may not be decodable.
    pub async fn read_ledger(
        &self,
        chain_id: u64,
        signer: Address,
    ) -> Result<Option<Lenient<ReadLedger>>, Error> {
        let name = SignerLedger::name_of(chain_id, signer);
        Ok(self.reader.ledger(&name).await?.map(|read| match read {
            Lenient::Decoded(ledger) => Lenient::Decoded(self.remember(ledger)),
            Lenient::Undecodable(ledger) => Lenient::Undecodable(ledger),
        }))
    }

    /// Reads what all other ledgers of a chain register, after the ledger: a key that is in flight
    /// there must not get a nonce here.
    pub async fn other_ledgers_after(&self, ledger: &ReadLedger) -> Result<OtherLedgers, Error> {
        let spec = ledger.spec();
        let own_name = SignerLedger::name_of(spec.chain_id, spec.signer);
        let ledgers = self.reader.ledgers().await?;
        self.note_finalized(ledgers.iter().filter_map(Lenient::decoded));
        Ok(OtherLedgers::of(spec.chain_id, &own_name, &ledgers))
    }

    /// Reads the ledger markers of all IdentityRegistries of a chain, after the ledger. `None` means
    /// that the ledger was read and does not exist.
    pub async fn markers_after(
        &self,
        _ledger: Option<&ReadLedger>,
        chain_id: u64,
    ) -> Result<Vec<LedgerMarker>, Error> {
        let registries = self.reader.registries().await?;
        Ok(ledger_markers(chain_id, &registries))
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
        Ok(self.remember(ledger))
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
        Ok(self.remember(ledger))
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

impl Store {
    /// Remembers what a watch shows of ledgers.
    pub fn remember_shown<'a>(&self, ledgers: impl IntoIterator<Item = &'a SignerLedger>) {
        let mut marks = self.marks();
        for ledger in ledgers {
            marks.remember(&ledger.name_any(), LedgerMark::of(ledger));
        }
    }

    /// Remembers the ledger markers that an IdentityRegistry shows.
    pub fn remember_markers(&self, registry: &IdentityRegistry) {
        self.shown_markers().remember(registry);
    }

    /// Takes note of what all ledgers knew of their chains, unless they were seen before.
    pub fn note_finalized<'a>(&self, ledgers: impl IntoIterator<Item = &'a SignerLedger>) {
        let specs = ledgers.into_iter().map(|ledger| &ledger.spec);
        self.first_finalized().note(specs);
    }

    /// The last final block that the ledgers of a chain knew when this process first saw them.
    #[must_use]
    pub fn first_finalized_of(&self, chain_id: u64) -> Option<u64> {
        self.first_finalized().of(chain_id)
    }

    /// The ledger markers that an IdentityRegistry of this name has ever shown.
    #[must_use]
    pub fn markers_of(&self, registry: &str) -> Vec<LedgerMarker> {
        self.shown_markers().of(registry)
    }

    /// What looks like a rollback among copies of ledgers and records.
    #[must_use]
    pub fn suspicions(
        &self,
        ledgers: &[&SignerLedger],
        records: &[&AgentRegistrationSpec],
    ) -> BTreeSet<Suspicion> {
        suspicions(&self.marks(), ledgers, records)
    }

    /// Reads every ledger, and finds those that show less than they have shown before.
    pub async fn read_all_ledgers(&self) -> Result<BTreeSet<Suspicion>, Error> {
        let before = self.marks().clone();
        let read = self.reader.ledgers().await?;
        let ledgers: Vec<&SignerLedger> = read.iter().filter_map(Lenient::decoded).collect();
        self.remember_shown(ledgers.iter().copied());
        Ok(suspicions(&before, &ledgers, &[]))
    }

    /// Puts a ledger in quarantine if the API server confirms that it was rolled back. It needs no
    /// leadership, because it can only stop: the replica that remembers may not lead.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the ledger was modified in between: then it has to be looked at again.
    pub async fn quarantine(&self, suspicion: &Suspicion) -> Result<Option<Proof>, Error> {
        let name = suspicion.ledger();
        let before = self.marks().clone();
        let record_before = self.suspected_record(suspicion).await?;
        let Some(Lenient::Decoded(read)) = self.reader.ledger(name).await? else {
            return Ok(None);
        };
        let record_after = self.suspected_record(suspicion).await?;
        let records = [record_before.as_ref(), record_after.as_ref()];
        let proof = Proof::of(suspicion, &before, &read, records);
        if let Some(proof) = &proof {
            let stopped = quarantined(&read.spec, proof);
            self.quarantine_writer.quarantine(&read, stopped).await?;
        }
        Ok(proof)
    }

    async fn suspected_record(
        &self,
        suspicion: &Suspicion,
    ) -> Result<Option<AgentRegistrationSpec>, Error> {
        let Suspicion::LacksAttempt { key, .. } = suspicion else {
            return Ok(None);
        };
        let record = self.reader.record(&key.record_name()).await?;
        Ok(match record {
            Some(Lenient::Decoded(record)) => Some(record.spec),
            _ => None,
        })
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
