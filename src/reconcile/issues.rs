//! What the registry loop finds out about single offers, for the offer loop to tell.
//!
//! A issue lives in memory: it is found again within a turn by whoever leads next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use strum::IntoStaticStr;
use tokio::sync::broadcast;

use crate::ledger::money::Shortage;
use crate::ledger::protocol::AdoptionRefused;

/// Namespace and name of an offer.
pub type OfferName = (String, String);

/// Why an offer's agent is not registered yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub enum OfferIssue {
    /// The legacy controller may have registered the agent.
    #[error(
        "{legacy}: a registration could be a second one. Set registration.agentId to adopt that agent, or registration.edition to 2 to ask for a new one"
    )]
    AdoptionRequired {
        /// What was found.
        legacy: String,
    },
    /// The agent that is to be adopted is not.
    #[error(transparent)]
    AdoptionRefused(#[from] AdoptionRefused),
    /// The record of the agent's identity stands for another agent than the offer names.
    #[error(
        "registration.agentId is {wanted}, and record {name} of this identity {}: raise registration.edition to adopt agent {wanted} under a record of its own, or make the offer anew without registration.agentId",
        .recorded.as_ref().map_or_else(|| "is for a new agent".to_owned(), |id| format!("is for agent {id}"))
    )]
    OtherAgent {
        /// The agent that the offer names.
        wanted: String,
        /// Name of the record.
        name: String,
        /// The agent of the record, unless a new one is to be registered.
        recorded: Option<String>,
    },
    /// There is no money for it.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The registry would refuse it.
    #[error("the registry would refuse the registration: {words}")]
    RegistrationWouldRevert {
        /// Its own words.
        words: String,
    },
    /// The record under the agent's key is another agent's.
    #[error("record {name} belongs to identity {other:?}: two identities share one key")]
    KeyTaken {
        /// Name of the record.
        name: String,
        /// Its identity.
        other: String,
    },
}

impl OfferIssue {
    /// One word for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Shortage(shortage) => shortage.reason(),
            own => own.into(),
        }
    }

    /// Whether a person has to act on the offer before anything can go on.
    #[must_use]
    pub const fn needs_a_person(&self) -> bool {
        match self {
            Self::AdoptionRequired { .. }
            | Self::AdoptionRefused(_)
            | Self::OtherAgent { .. }
            | Self::KeyTaken { .. } => true,
            Self::Shortage(_) | Self::RegistrationWouldRevert { .. } => false,
        }
    }
}

/// OfferIssues of all registries. All clones are the same.
#[derive(Clone, Debug)]
pub struct OfferIssues {
    by_registry: Arc<Mutex<BTreeMap<String, BTreeMap<OfferName, OfferIssue>>>>,
    changes: broadcast::Sender<OfferName>,
}

impl Default for OfferIssues {
    fn default() -> Self {
        Self {
            by_registry: Arc::default(),
            changes: broadcast::Sender::new(4096),
        }
    }
}

impl OfferIssues {
    /// Replaces what one registry found, and tells which offers that concerns.
    pub fn replace(&self, registry: &str, found: BTreeMap<OfferName, OfferIssue>) {
        let mut all = self
            .by_registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = all
            .insert(registry.to_owned(), found.clone())
            .unwrap_or_default();
        drop(all);
        let changed = |offer: &&OfferName| before.get(*offer) != found.get(*offer);
        for offer in before.keys().chain(found.keys()).filter(changed) {
            // Nobody listening is no loss: the offer loop begins by looking at every offer.
            let _ = self.changes.send(offer.clone());
        }
    }

    /// What a registry found out about an offer.
    #[must_use]
    pub fn get(&self, registry: &str, offer: &OfferName) -> Option<OfferIssue> {
        let all = self
            .by_registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.get(registry)?.get(offer).cloned()
    }

    /// Offers whose issue changes, from this moment on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<OfferName> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_a_word_and_says_what_to_do() {
        let (name, other) = (String::from("r-x"), String::from("shop/other"));
        let all = [
            OfferIssue::AdoptionRequired {
                legacy: "a request exists".into(),
            },
            AdoptionRefused::AgentNotFound.into(),
            OfferIssue::OtherAgent {
                wanted: "1".into(),
                name: name.clone(),
                recorded: None,
            },
            Shortage::InsufficientFunds {
                balance: 0,
                needed: 1,
            }
            .into(),
            OfferIssue::RegistrationWouldRevert { words: "no".into() },
            OfferIssue::KeyTaken { name, other },
        ];
        let words: std::collections::BTreeSet<&str> = all.iter().map(OfferIssue::reason).collect();
        assert_eq!(words.len(), all.len());
        assert!(all.iter().all(|issue| issue.to_string().contains(':')));
        assert!(
            words
                .iter()
                .all(|word| word.chars().all(char::is_alphabetic))
        );
    }

    #[test]
    fn only_offers_whose_finding_changes_are_told() {
        let issues = OfferIssues::default();
        let mut changes = issues.changes();
        let offer = |name: &str| ("shop".to_owned(), name.to_owned());
        let short = OfferIssue::Shortage(Shortage::InsufficientFunds {
            balance: 0,
            needed: 1,
        });
        issues.replace(
            "idr",
            [(offer("a"), short.clone()), (offer("b"), short.clone())].into(),
        );
        issues.replace("idr", [(offer("b"), short.clone())].into());
        assert_eq!(issues.get("idr", &offer("a")), None);
        assert_eq!(issues.get("idr", &offer("b")), Some(short));
        assert_eq!(issues.get("other", &offer("b")), None);
        let told: Vec<OfferName> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        assert_eq!(told, [offer("a"), offer("b"), offer("a")]);
    }
}
