//! What proves that a ledger was rolled back: it shows less than it has shown before, or less than
//! a record knows. Pure.
//!
//! Transactions may be in flight that a ledger of the past does not know, and each nonce that it
//! allocated again could register an agent twice. Two things survive a rollback: what replicas
//! remember ([`LedgerMark`]), and records that were not restored, or were restored from a later
//! backup ([`unaccounted_nonce`]). What a watch shows is only ever a [`Suspicion`], since it may lag.
//! [`super::store`] reads again and decides with [`Proof`], [`super::monitor`] looks on every
//! replica.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use alloy::primitives::{Address, B256};
use kube::ResourceExt;

use super::protocol::{MAX_UNFINAL, advance_history};
use crate::api::{
    AgentRegistrationSpec, IdentityRegistry, Key, LedgerMarker, LedgerState, Nonce, Quarantine,
    QuarantineReason, SignerLedger, SignerLedgerSpec,
};

/// A state of a ledger that the API server has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerMark {
    pub uid: String,
    /// `metadata.generation`, which every change of a ledger increments.
    pub generation: i64,
    pub next: Nonce,
    pub history_hash: B256,
}

impl LedgerMark {
    #[must_use]
    pub fn of(ledger: &SignerLedger) -> Self {
        Self {
            uid: ledger.metadata.uid.clone().unwrap_or_default(),
            generation: ledger.metadata.generation.unwrap_or_default(),
            next: ledger.spec.next,
            history_hash: ledger.spec.history_hash,
        }
    }

    /// Whether a state of the same ledger is an earlier one, or another one at the same point. If it
    /// was read after this one had been shown, the ledger was rolled back.
    #[must_use]
    pub fn is_ahead_of(&self, other: &Self) -> bool {
        let is_less = other.generation < self.generation || other.next < self.next;
        let differs =
            other.generation == self.generation && other.history_hash != self.history_hash;
        self.uid == other.uid && (is_less || differs)
    }
}

impl fmt::Display for LedgerMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation, next, ..
        } = self;
        write!(f, "generation {generation} with next nonce {next}")
    }
}

/// The latest state that was shown of each ledger, by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerMarks(BTreeMap<String, BTreeMap<String, LedgerMark>>);

impl LedgerMarks {
    /// Remembers a state, unless a later one is known.
    pub fn remember(&mut self, name: &str, mark: LedgerMark) {
        let by_uid = self.0.entry(name.to_owned()).or_default();
        match by_uid.get(&mark.uid) {
            Some(known) if known.is_ahead_of(&mark) => {}
            _ => {
                by_uid.insert(mark.uid.clone(), mark);
            }
        }
    }

    /// What is remembered of the ledgers that had this name.
    #[must_use]
    pub fn of(&self, name: &str) -> Vec<LedgerMark> {
        let by_uid = self.0.get(name).into_iter().flatten();
        by_uid.map(|(_, mark)| mark.clone()).collect()
    }

    /// The remembered state that a ledger does not reach, if there is one.
    #[must_use]
    pub fn ahead_of(&self, name: &str, mark: &LedgerMark) -> Option<&LedgerMark> {
        let known = self.0.get(name)?.get(&mark.uid)?;
        known.is_ahead_of(mark).then_some(known)
    }
}

/// The ledger markers that each IdentityRegistry has shown, by its name. A rollback takes back the
/// marker of a signer together with its ledger, and then neither shows that there was one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownMarkers(BTreeMap<String, BTreeMap<String, LedgerMarker>>);

impl ShownMarkers {
    /// Remembers what an IdentityRegistry shows.
    pub fn remember(&mut self, registry: &IdentityRegistry) {
        let Some(status) = &registry.status else {
            return;
        };
        let shown = self.0.entry(registry.name_any()).or_default();
        for marker in &status.ledgers {
            shown.insert(marker.signer.clone(), marker.clone());
        }
    }

    /// The last marker of each signer that an IdentityRegistry of this name has ever shown.
    #[must_use]
    pub fn of(&self, registry: &str) -> Vec<LedgerMarker> {
        let shown = self.0.get(registry).into_iter().flatten();
        shown.map(|(_, marker)| marker.clone()).collect()
    }
}

/// The nonce of an attempt that a ledger should know and does not: a record with an attempt and
/// without a final outcome has an entry at its nonce, and no attempt is at or above `next`. The record must have
/// been read before the ledger *and* after it: its entry is written before the first attempt and
/// removed after the outcome, which may also be that something else used the nonce.
#[must_use]
pub fn unaccounted_nonce(
    ledger: &SignerLedgerSpec,
    record: &AgentRegistrationSpec,
) -> Option<Nonce> {
    if !record.is_of(ledger.chain_id, ledger.signer) {
        return None;
    }
    let mut nonces = record.attempts.iter().map(|attempt| attempt.nonce);
    let beyond = nonces.find(|nonce| *nonce >= ledger.next);
    let live = record.live_attempt().filter(|_| record.is_open());
    let allocated = ledger.registering.get(&record.key);
    // An entry at another nonce does not know the attempt either.
    let unknown = live.filter(|attempt| allocated != Some(&attempt.nonce));
    beyond.or_else(|| unknown.map(|attempt| attempt.nonce))
}

/// What a lagging copy shows, and what may therefore be a rollback.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    /// The ledger shows less than it has shown before.
    ShowsLess { ledger: String },
    /// A record has an attempt that the ledger does not know.
    LacksAttempt { ledger: String, key: Key },
}

impl Suspicion {
    /// Name of the ledger.
    #[must_use]
    pub fn ledger(&self) -> &str {
        match self {
            Self::ShowsLess { ledger } | Self::LacksAttempt { ledger, .. } => ledger,
        }
    }
}

/// Everything that looks like a rollback among copies of ledgers and records.
#[must_use]
pub fn suspicions(
    marks: &LedgerMarks,
    ledgers: &[&SignerLedger],
    records: &[&AgentRegistrationSpec],
) -> BTreeSet<Suspicion> {
    let mut found = BTreeSet::new();
    let mut by_account: BTreeMap<(u64, Address), &SignerLedgerSpec> = BTreeMap::new();
    for ledger in ledgers.iter().filter(|ledger| !is_stopped(&ledger.spec)) {
        let spec = &ledger.spec;
        let name = SignerLedger::name_of(spec.chain_id, spec.signer);
        by_account.insert((spec.chain_id, spec.signer), spec);
        if marks.ahead_of(&name, &LedgerMark::of(ledger)).is_some() {
            found.insert(Suspicion::ShowsLess { ledger: name });
        }
    }
    for record in records {
        let Some(signer) = record.signer.filter(|_| !record.attempts.is_empty()) else {
            continue;
        };
        let ledger = by_account.get(&(record.chain_id, signer));
        if ledger.is_some_and(|ledger| unaccounted_nonce(ledger, record).is_some()) {
            found.insert(Suspicion::LacksAttempt {
                ledger: SignerLedger::name_of(record.chain_id, signer),
                key: record.key,
            });
        }
    }
    found
}

/// Whether a ledger is in quarantine already, for another reason than that it is new.
#[must_use]
pub fn is_stopped(ledger: &SignerLedgerSpec) -> bool {
    let reason = ledger.quarantine.as_ref().map(|found| found.reason);
    reason.is_some_and(|reason| reason != QuarantineReason::New)
}

/// Why a ledger was certainly rolled back, from what the API server answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Proof {
    #[error("it is at {read} and was at {seen} before")]
    ShowsLess { read: LedgerMark, seen: LedgerMark },
    #[error("agent {key} has a transaction that was signed for nonce {nonce}, which it lacks")]
    LacksAttempt { key: Key, nonce: Nonce },
}

impl Proof {
    /// What the API server's answers prove: `ledger`, and the suspected record before and after it was
    /// read. `seen` is what was remembered before that.
    #[must_use]
    pub fn of(
        suspicion: &Suspicion,
        seen: &LedgerMarks,
        ledger: &SignerLedger,
        records: [Option<&AgentRegistrationSpec>; 2],
    ) -> Option<Self> {
        if is_stopped(&ledger.spec) {
            return None;
        }
        match suspicion {
            Suspicion::ShowsLess { ledger: name } => {
                let read = LedgerMark::of(ledger);
                let seen = seen.ahead_of(name, &read)?.clone();
                Some(Self::ShowsLess { read, seen })
            }
            Suspicion::LacksAttempt { key, .. } => {
                let lacked = |record| unaccounted_nonce(&ledger.spec, record?);
                let [before, after] = records;
                let nonce = lacked(before).and(lacked(after))?;
                Some(Self::LacksAttempt { key: *key, nonce })
            }
        }
    }

    /// The nonces that are known to have been allocated are all below this one.
    #[must_use]
    fn allocated_below(&self) -> Nonce {
        match self {
            Self::ShowsLess { seen, .. } => seen.next,
            Self::LacksAttempt { nonce, .. } => nonce.next(),
        }
    }
}

/// The ledger in quarantine, because it was rolled back. What it allocated since the state that was
/// restored is below the bound: a ledger never has more nonces in flight.
#[must_use]
pub fn quarantined(ledger: &SignerLedgerSpec, proof: &Proof) -> SignerLedgerSpec {
    let in_flight = Nonce(ledger.finalized_nonce.0.saturating_add(MAX_UNFINAL));
    advance_history(SignerLedgerSpec {
        state: LedgerState::Quarantine,
        quarantine: Some(Quarantine {
            reason: QuarantineReason::Rollback,
            bound: in_flight.max(proof.allocated_below()),
        }),
        ..ledger.clone()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{Phase, RevertedRegistration};
    use crate::ledger::fixtures::{self, SIGNER, STRANGER, attempt, key, ledger, record};

    fn mark(generation: i64, next: u64, hash: u8) -> LedgerMark {
        LedgerMark {
            uid: "uid".into(),
            generation,
            next: Nonce(next),
            history_hash: fixtures::hash(hash),
        }
    }

    #[test]
    fn earlier_or_other_state_of_the_same_ledger_is_behind() {
        let seen = mark(5, 9, 1);
        let of_another = LedgerMark {
            uid: "other".into(),
            ..mark(1, 1, 1)
        };
        for (read, is_behind) in [
            (mark(5, 9, 1), false),
            (mark(6, 9, 2), false),
            (mark(6, 10, 2), false),
            (mark(4, 9, 1), true),
            (mark(4, 10, 2), true),
            (mark(6, 8, 2), true),
            (mark(5, 9, 2), true),
            (of_another, false),
        ] {
            assert_eq!(seen.is_ahead_of(&read), is_behind, "{read:?}");
        }
        assert_eq!(seen.to_string(), "generation 5 with next nonce 9");
    }

    #[test]
    fn latest_state_of_each_ledger_is_remembered() {
        let mut marks = LedgerMarks::default();
        let other = LedgerMark {
            uid: "other".into(),
            ..mark(1, 3, 1)
        };
        for mark in [mark(5, 9, 1), mark(4, 8, 2), other.clone(), mark(5, 9, 1)] {
            marks.remember("a", mark);
        }
        assert_eq!(marks.of("a"), [other.clone(), mark(5, 9, 1)]);
        assert_eq!(marks.of("b"), []);
        assert_eq!(marks.ahead_of("a", &mark(4, 9, 1)), Some(&mark(5, 9, 1)));
        let unknown = LedgerMark {
            uid: "unknown".into(),
            ..mark(1, 1, 1)
        };
        let reached = [
            ("a", mark(5, 9, 1)),
            ("a", other),
            ("a", unknown),
            ("b", mark(1, 1, 1)),
        ];
        for (name, read) in reached {
            assert_eq!(marks.ahead_of(name, &read), None);
        }
        marks.remember("a", mark(6, 9, 3));
        assert_eq!(marks.of("a")[1], mark(6, 9, 3));
    }

    #[test]
    fn markers_are_remembered_after_they_are_gone() {
        let with_markers = |markers: &[(&str, &str)]| {
            let markers = markers.iter();
            let markers = markers.map(|(signer, uid)| json!({ "signer": signer, "uid": uid }));
            let registry = json!({
                "apiVersion": "obol.org/v1alpha1",
                "kind": "IdentityRegistry",
                "metadata": { "name": "base" },
                "spec": {
                    "chainId": 1, "rpc": [], "baseUrl": "", "allowedNamespaces": { "from": "All" },
                },
                "status": { "ledgers": markers.collect::<Vec<_>>() },
            });
            serde_json::from_value::<IdentityRegistry>(registry).unwrap()
        };
        let mut shown = ShownMarkers::default();
        let without_status = IdentityRegistry {
            status: None,
            ..with_markers(&[])
        };
        shown.remember(&without_status);
        assert_eq!(shown.of("base"), []);
        for markers in [&[("0xa", "1"), ("0xb", "2")][..], &[("0xa", "3")], &[]] {
            shown.remember(&with_markers(markers));
        }
        let marker = |signer: &str, uid: &str| LedgerMarker {
            signer: signer.into(),
            uid: uid.into(),
        };
        assert_eq!(shown.of("base"), [marker("0xa", "3"), marker("0xb", "2")]);
        assert_eq!(shown.of("other"), []);
    }

    /// A record of 'c', which the ledger of the fixtures does not register, with these attempts.
    fn with_attempts(nonces: &[u64]) -> AgentRegistrationSpec {
        AgentRegistrationSpec {
            attempts: nonces.iter().map(|nonce| attempt(*nonce, 0)).collect(),
            ..record('c')
        }
    }

    #[test]
    fn attempt_without_entry_or_beyond_next_is_unaccounted() {
        let nonce_of = |record: &AgentRegistrationSpec| unaccounted_nonce(&ledger(), record);
        assert_eq!(ledger().next, Nonce(7));
        assert_eq!(nonce_of(&with_attempts(&[])), None, "nothing was signed");
        assert_eq!(nonce_of(&with_attempts(&[3, 4])), Some(Nonce(4)));
        assert_eq!(nonce_of(&with_attempts(&[7, 4])), Some(Nonce(7)));
        let in_flight = AgentRegistrationSpec {
            attempts: vec![attempt(5, 0)],
            ..record('a')
        };
        assert_eq!(nonce_of(&in_flight), None, "it has an entry");
        let elsewhere = AgentRegistrationSpec {
            attempts: vec![attempt(4, 0)],
            ..in_flight.clone()
        };
        assert_eq!(nonce_of(&elsewhere), Some(Nonce(4)), "its entry is at 5");
        let beyond = AgentRegistrationSpec {
            attempts: vec![attempt(8, 0)],
            ..in_flight
        };
        assert_eq!(nonce_of(&beyond), Some(Nonce(8)));
    }

    #[test]
    fn finished_record_needs_no_entry() {
        let finished = |nonce| AgentRegistrationSpec {
            phase: Phase::Reverted,
            ..with_attempts(&[nonce])
        };
        let with_reverted = AgentRegistrationSpec {
            reverted: Some(RevertedRegistration {
                transaction: fixtures::hash(0),
                block: 9,
            }),
            ..with_attempts(&[4])
        };
        let displaced = fixtures::displaced_at('c', 4);
        assert_eq!(unaccounted_nonce(&ledger(), &displaced), None);
        assert_eq!(unaccounted_nonce(&ledger(), &finished(4)), None);
        assert_eq!(unaccounted_nonce(&ledger(), &with_reverted), None);
        assert_eq!(
            unaccounted_nonce(&ledger(), &finished(7)),
            Some(Nonce(7)),
            "the ledger cannot have allocated it"
        );
    }

    #[test]
    fn record_of_another_account_or_chain_says_nothing_about_the_ledger() {
        let of_another = AgentRegistrationSpec {
            signer: Some(STRANGER),
            ..with_attempts(&[4])
        };
        let elsewhere = AgentRegistrationSpec {
            chain_id: 1,
            ..with_attempts(&[4])
        };
        for record in [of_another, elsewhere] {
            assert_eq!(unaccounted_nonce(&ledger(), &record), None);
        }
    }

    fn shown(generation: i64, change: impl FnOnce(&mut SignerLedgerSpec)) -> SignerLedger {
        let mut spec = ledger();
        change(&mut spec);
        let mut shown = SignerLedger::new(&SignerLedger::name_of(31337, SIGNER), spec);
        shown.metadata.uid = Some("uid".into());
        shown.metadata.generation = Some(generation);
        shown
    }

    #[test]
    fn copies_that_contradict_each_other_are_suspicious() {
        let name = SignerLedger::name_of(31337, SIGNER);
        let shows_less = Suspicion::ShowsLess {
            ledger: name.clone(),
        };
        let lacks_attempt = Suspicion::LacksAttempt {
            ledger: name.clone(),
            key: key('c'),
        };
        assert_eq!(
            (shows_less.ledger(), lacks_attempt.ledger()),
            (&*name, &*name)
        );
        let mut marks = LedgerMarks::default();
        marks.remember(&name, LedgerMark::of(&shown(5, |_| {})));

        let watched = AgentRegistrationSpec {
            signer: None,
            ..with_attempts(&[4])
        };
        let unknown_ledger = AgentRegistrationSpec {
            signer: Some(STRANGER),
            ..with_attempts(&[4])
        };
        let fine = [&with_attempts(&[]), &watched, &unknown_ledger];
        assert_eq!(suspicions(&marks, &[&shown(5, |_| {})], &fine), [].into());
        let lacking = with_attempts(&[4]);
        let both = suspicions(&marks, &[&shown(4, |_| {})], &[&lacking]);
        assert_eq!(both, [shows_less, lacks_attempt].into());
    }

    #[test]
    fn ledger_in_quarantine_raises_no_suspicion() {
        let mut marks = LedgerMarks::default();
        let name = SignerLedger::name_of(31337, SIGNER);
        marks.remember(&name, LedgerMark::of(&shown(5, |_| {})));
        let with_reason = |reason| {
            let bound = Nonce(0);
            shown(4, |spec| {
                spec.quarantine = Some(Quarantine { reason, bound })
            })
        };
        let (stopped, new) = (
            with_reason(QuarantineReason::Rollback),
            with_reason(QuarantineReason::New),
        );
        assert_eq!(
            suspicions(&marks, &[&stopped], &[&with_attempts(&[4])]),
            [].into()
        );
        assert_eq!(
            suspicions(&marks, &[&new], &[]).len(),
            1,
            "it would become active"
        );
    }

    #[test]
    fn rollback_is_proven_only_by_what_the_api_server_answers() {
        let name = SignerLedger::name_of(31337, SIGNER);
        let mut seen = LedgerMarks::default();
        seen.remember(&name, LedgerMark::of(&shown(5, |_| {})));
        let shows_less = Suspicion::ShowsLess {
            ledger: name.clone(),
        };
        let of = |suspicion: &Suspicion, ledger: &SignerLedger, records| {
            Proof::of(suspicion, &seen, ledger, records)
        };
        let older = shown(4, |_| {});
        let proof = of(&shows_less, &older, [None, None]).unwrap();
        let said = proof.to_string();
        assert!(
            said.starts_with("it is at") && said.contains("and was at"),
            "{said}"
        );
        assert_eq!(of(&shows_less, &shown(5, |_| {}), [None, None]), None);

        let key = key('c');
        let lacks = Suspicion::LacksAttempt { ledger: name, key };
        let (open, settled) = (with_attempts(&[4]), with_attempts(&[]));
        let nonce = Nonce(4);
        let proven = Proof::LacksAttempt { key, nonce };
        for (records, proof) in [
            ([Some(&open), Some(&open)], Some(proven)),
            ([Some(&open), Some(&settled)], None),
            ([Some(&settled), Some(&open)], None),
            ([Some(&open), None], None),
        ] {
            assert_eq!(of(&lacks, &shown(5, |_| {}), records), proof);
        }
        let stopped = shown(4, |spec| {
            let reason = QuarantineReason::Lost;
            let bound = Nonce(0);
            spec.quarantine = Some(Quarantine { reason, bound });
        });
        assert_eq!(of(&shows_less, &stopped, [None, None]), None);
    }

    #[test]
    fn quarantine_reaches_beyond_all_that_may_have_been_allocated() {
        let shows_less = |next| Proof::ShowsLess {
            read: mark(4, 7, 1),
            seen: mark(5, next, 2),
        };
        let lacks = |nonce| Proof::LacksAttempt {
            key: key('c'),
            nonce: Nonce(nonce),
        };
        let finalized = ledger().finalized_nonce.0;
        for (proof, bound) in [
            (shows_less(9), finalized + MAX_UNFINAL),
            (shows_less(1_000), 1_000),
            (lacks(9), finalized + MAX_UNFINAL),
            (lacks(1_000), 1_001),
        ] {
            let after = quarantined(&ledger(), &proof);
            let quarantine = Quarantine {
                reason: QuarantineReason::Rollback,
                bound: Nonce(bound),
            };
            assert_eq!(after.quarantine, Some(quarantine), "{proof}");
            assert_eq!(after.state, LedgerState::Quarantine);
            assert_ne!(after.history_hash, ledger().history_hash);
            assert!(is_stopped(&after) && !is_stopped(&ledger()));
        }
    }
}
