//! Why a registry must not spend: evidence that this version reports and does not resolve by
//! itself.
//!
//! Each message says what was found and what an operator can do. [`super::protocol`] decides when a
//! freeze applies. The name of a variant is the reason of the condition that reports it.

use alloy::primitives::B256;

use super::rollback::{LedgerMark, Suspicion};
use crate::api::{Key, Nonce, QuarantineReason};

/// Why a registry must not spend.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum Freeze {
    /// The ledger that was in use is missing.
    #[error(
        "the SignerLedger {} was in use and is missing: transactions may be in flight that no \
         record shows. Restore etcd from a backup that is not older than the ledger's last use \
         (recreating the object is not enough); recovery without a backup needs \
         spec.recovery.approvedFor and is not supported by this version",
        .uid.as_deref().unwrap_or("of this signer")
    )]
    LedgerLost {
        /// Uid of the missing ledger, if it is known.
        uid: Option<String>,
    },
    /// The wallet was used before it had a ledger.
    #[error(
        "the signer has already sent {count} transactions and has no SignerLedger: if nothing \
         else uses this account, set spec.bootstrap.atNonce to {count} and \
         spec.bootstrap.fromBlock to a block before its first transaction, and \
         registration.agentId of each offer whose agent it has registered; otherwise give the \
         registry a dedicated signer"
    )]
    WalletUsed { count: Nonce },
    /// The ledger is in quarantine for another reason than being new.
    #[error(
        "the ledger is in quarantine: {}. Restore etcd from a backup that is not older than the ledger's last use, or restore without ledgers and records and set spec.bootstrap",
        cause_of(*reason)
    )]
    Quarantined { reason: QuarantineReason },
    /// The ledger was written in another cluster.
    #[error(
        "the ledger belongs to the cluster with uid {owner}: stop the operator there. This version \
         cannot take over a ledger: restore without ledgers and records, and set spec.bootstrap"
    )]
    LedgerCloned {
        /// Uid of the other cluster.
        owner: String,
    },
    /// The ledger belongs to another chain with the same id.
    #[error(
        "the chain's first block is {seen} and the ledger was created for {recorded}: the \
         endpoint serves another chain. Correct spec.rpc"
    )]
    OtherChain {
        /// First block that the endpoint shows.
        seen: B256,
        /// First block that the ledger names.
        recorded: B256,
    },
    /// This process has read a later state of the ledger.
    #[error(
        "the ledger is at {read} and was at {seen} before: it was restored from a state that is \
         older than its last use; restore the newest state"
    )]
    LedgerRolledBack {
        /// What the ledger shows.
        read: Box<LedgerMark>,
        /// What it has shown before.
        seen: Box<LedgerMark>,
    },
    /// Another transaction used a nonce that was allocated to a registration.
    #[error(
        "nonce {nonce} was allocated to agent {key} and another transaction used it: the signer's \
         key is used elsewhere"
    )]
    KeyUsedElsewhere { nonce: Nonce, key: Key },
    /// A key is registered by another transaction than its entry allows.
    #[error(
        "agent {key} is registered, but not at its allocated nonce {nonce}: \
         the ledger was restored from a backup; restore the newest state"
    )]
    RegistrationMisplaced {
        key: Key,
        /// Nonce that the ledger allocated to it.
        nonce: Nonce,
    },
    /// The record of an entry is missing.
    #[error(
        "agent {key} has nonce {nonce} in flight and no AgentRegistration: restore the record or \
         recreate its offer"
    )]
    RecordMissing { key: Key, nonce: Nonce },
    /// A record has a transaction that its ledger does not know.
    #[error(
        "agent {key} has a transaction that was signed for nonce {nonce}, and the ledger has no \
         entry for it: the ledger was restored from a backup; restore the newest state"
    )]
    EntryMissing { key: Key, nonce: Nonce },
    /// The ledger holds an operation that this version never writes.
    #[error(
        "nonce {nonce} is allocated to an operation that this version does not know: run the \
         version that allocated it"
    )]
    UnknownOperation { nonce: Nonce },
}

/// Why a ledger is in quarantine, and what lifts it.
const fn cause_of(reason: QuarantineReason) -> &'static str {
    match reason {
        QuarantineReason::New => "it is new, and becomes active by itself",
        QuarantineReason::Lost => {
            "an earlier ledger of the signer is missing; restore etcd from a backup that is not \
             older than its last use"
        }
        QuarantineReason::Rollback => {
            "it was restored from a state that is older than its last use, so transactions may be \
             in flight that it does not know; restore etcd from a backup that is not older than \
             that"
        }
        QuarantineReason::Clone => "it belongs to another cluster; stop the operator there",
    }
}

impl Freeze {
    /// What the API server has to confirm before the ledger of this name is put in quarantine.
    #[must_use]
    pub fn suspicion(&self, ledger: String) -> Option<Suspicion> {
        match self {
            Self::LedgerRolledBack { .. } => Some(Suspicion::ShowsLess { ledger }),
            Self::EntryMissing { key, .. } => Some(Suspicion::LacksAttempt { ledger, key: *key }),
            _ => None,
        }
    }

    /// Reason for conditions: the name of the variant.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_ledger_is_named_by_its_uid_if_known() {
        let known = Freeze::LedgerLost {
            uid: Some("0f1e".into()),
        }
        .to_string();
        assert!(
            known.starts_with("the SignerLedger 0f1e was in use and is missing"),
            "{known}"
        );
        let unknown = Freeze::LedgerLost { uid: None }.to_string();
        assert!(
            unknown.starts_with("the SignerLedger of this signer was in use and is missing"),
            "{unknown}"
        );
    }

    fn mark() -> LedgerMark {
        LedgerMark {
            uid: String::new(),
            generation: 4,
            next: Nonce(7),
            history_hash: B256::ZERO,
        }
    }

    #[test]
    fn only_signs_of_a_rollback_are_suspicions() {
        let key: Key = "aaaaaaaaaaaaaaaa".parse().unwrap();
        let ledger = || "1-0x51".to_owned();
        let rolled_back = Freeze::LedgerRolledBack {
            read: Box::new(mark()),
            seen: Box::new(mark()),
        };
        let missing = Freeze::EntryMissing {
            key,
            nonce: Nonce(1),
        };
        let lost = Freeze::LedgerLost { uid: None };
        let shows_less = Suspicion::ShowsLess { ledger: ledger() };
        let lacks_attempt = Suspicion::LacksAttempt {
            ledger: ledger(),
            key,
        };
        assert_eq!(rolled_back.suspicion(ledger()), Some(shows_less));
        assert_eq!(missing.suspicion(ledger()), Some(lacks_attempt));
        assert_eq!(lost.suspicion(ledger()), None);
    }

    #[test]
    fn every_quarantine_says_what_lifts_it() {
        for (reason, words) in [
            (QuarantineReason::New, "becomes active by itself"),
            (QuarantineReason::Lost, "is missing; restore etcd"),
            (QuarantineReason::Rollback, "it does not know; restore etcd"),
            (QuarantineReason::Clone, "stop the operator there"),
        ] {
            let message = Freeze::Quarantined { reason }.to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn every_freeze_has_its_own_reason() {
        let key: Key = "aaaaaaaaaaaaaaaa".parse().unwrap();
        let (nonce, hash) = (Nonce(1), B256::ZERO);
        let all = [
            Freeze::LedgerLost { uid: None },
            Freeze::WalletUsed { count: nonce },
            Freeze::Quarantined {
                reason: QuarantineReason::Lost,
            },
            Freeze::LedgerCloned {
                owner: String::new(),
            },
            Freeze::OtherChain {
                seen: hash,
                recorded: hash,
            },
            Freeze::LedgerRolledBack {
                read: Box::new(mark()),
                seen: Box::new(mark()),
            },
            Freeze::KeyUsedElsewhere { nonce, key },
            Freeze::RegistrationMisplaced { key, nonce },
            Freeze::RecordMissing { key, nonce },
            Freeze::EntryMissing { key, nonce },
            Freeze::UnknownOperation { nonce },
        ];
        let reasons: std::collections::BTreeSet<&str> = all.iter().map(Freeze::reason).collect();
        assert_eq!(reasons.len(), all.len());
        assert!(
            reasons
                .iter()
                .all(|reason| !reason.is_empty() && reason.chars().all(char::is_alphabetic))
        );
    }
}
