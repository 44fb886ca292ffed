//! Why a registry must not spend: evidence that this version reports and does not resolve by itself.
//!
//! Each message says what was seen and what a person can do. When a freeze applies is decided in [`super::protocol`].

use alloy::primitives::B256;

use crate::api::{Key, Nonce, QuarantineReason};

/// Why a registry must not spend.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum Freeze {
    /// An earlier ledger is missing.
    #[error(
        "the SignerLedger {} is missing although it has been in use: transactions that nobody remembers may be under way. \
         Restore etcd from a backup that is not older than its last use (an object that is made again does not count); \
         recovery without one needs spec.recovery.approvedFor and is not part of this version",
        .uid.as_deref().unwrap_or("of this signer")
    )]
    LedgerLost {
        /// Uid of the missing ledger, if it is known.
        uid: Option<String>,
    },
    /// The wallet has been used before.
    #[error(
        "the signer has already sent {count} transactions and has no SignerLedger: if it is not used anywhere else, \
         set spec.bootstrap.atNonce to {count}; otherwise give the registry a signer of its own"
    )]
    WalletUsed {
        /// Its transaction count.
        count: Nonce,
    },
    /// A ledger in quarantine for another reason than being new.
    #[error("the ledger is in quarantine ({reason:?}): recovery is not part of this version")]
    Quarantined {
        /// Why.
        reason: QuarantineReason,
    },
    /// The ledger was written in another cluster.
    #[error(
        "the ledger belongs to the cluster with uid {owner}: stop the operator there before this one may spend"
    )]
    LedgerCloned {
        /// Uid of the other cluster.
        owner: String,
    },
    /// The ledger belongs to another chain of the same id.
    #[error(
        "the chain's first block is {seen} and the ledger was made for {recorded}: this is another chain"
    )]
    OtherChain {
        /// First block that the endpoint shows.
        seen: B256,
        /// First block that the ledger names.
        recorded: B256,
    },
    /// This process has seen a later state of the ledger.
    #[error(
        "the ledger's next nonce is {next} and has been {seen} before: it was restored from a backup"
    )]
    LedgerRolledBack {
        /// What stands.
        next: Nonce,
        /// What stood.
        seen: Nonce,
    },
    /// The account has sent more than the ledger knows of.
    #[error(
        "the signer has sent {count} transactions and the ledger knows of {next}: its key is used elsewhere, or the ledger was restored from a backup"
    )]
    NonceAhead {
        /// Transaction count.
        count: Nonce,
        /// First nonce that the ledger has not given away.
        next: Nonce,
    },
    /// A nonce that the ledger gave to a registration was used for something else.
    #[error(
        "nonce {nonce} was given to agent {key} and used for something else: the signer's key is used elsewhere"
    )]
    KeyUsedElsewhere {
        /// The nonce.
        nonce: Nonce,
        /// Whom it was given to.
        key: Key,
    },
    /// A registration was included and failed.
    #[error(
        "the registration of agent {key} was included and reverted ({transaction}): raising registration.edition asks for a new one"
    )]
    RegistrationReverted {
        /// The agent.
        key: Key,
        /// The transaction.
        transaction: B256,
    },
    /// A key stands on chain by another transaction than its entry allows.
    #[error(
        "agent {key} is registered, but not at nonce {nonce} that it was given: the ledger was restored from a backup"
    )]
    RegistrationMisplaced {
        /// The agent.
        key: Key,
        /// Its nonce by the ledger.
        nonce: Nonce,
    },
    /// The market has risen above what was signed.
    #[error(
        "the registration of agent {key} was signed for {max_fee} wei per gas and the base fee is {base_fee}: it goes on when the market falls"
    )]
    FeeBelowMarket {
        /// The agent.
        key: Key,
        /// What was signed.
        max_fee: u128,
        /// What the market asks.
        base_fee: u128,
    },
    /// The record of an entry is gone.
    #[error(
        "agent {key} has nonce {nonce} under way and no AgentRegistration: restore the record, or recreate its offer"
    )]
    RecordMissing {
        /// The agent.
        key: Key,
        /// Its nonce.
        nonce: Nonce,
    },
    /// The ledger holds something that this version does not write.
    #[error(
        "nonce {nonce} is meant for an operation that this version does not know: run the version that allocated it"
    )]
    UnknownOperation {
        /// The nonce.
        nonce: Nonce,
    },
}

impl Freeze {
    /// One word for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_ledger_is_named_as_far_as_it_is_known() {
        let known = Freeze::LedgerLost {
            uid: Some("0f1e".into()),
        }
        .to_string();
        assert!(
            known.starts_with("the SignerLedger 0f1e is missing"),
            "{known}"
        );
        let unknown = Freeze::LedgerLost { uid: None }.to_string();
        assert!(
            unknown.starts_with("the SignerLedger of this signer is missing"),
            "{unknown}"
        );
    }

    #[test]
    fn every_freeze_has_a_word_of_its_own() {
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
                next: nonce,
                seen: nonce,
            },
            Freeze::NonceAhead {
                count: nonce,
                next: nonce,
            },
            Freeze::KeyUsedElsewhere { nonce, key },
            Freeze::RegistrationReverted {
                key,
                transaction: hash,
            },
            Freeze::RegistrationMisplaced { key, nonce },
            Freeze::FeeBelowMarket {
                key,
                max_fee: 0,
                base_fee: 1,
            },
            Freeze::RecordMissing { key, nonce },
            Freeze::UnknownOperation { nonce },
        ];
        let words: std::collections::BTreeSet<&str> = all.iter().map(Freeze::reason).collect();
        assert_eq!(words.len(), all.len());
        assert!(
            words
                .iter()
                .all(|word| !word.is_empty() && word.chars().all(char::is_alphabetic))
        );
    }
}
