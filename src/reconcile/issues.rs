//! Why single offers are not registered: the registry loop finds an issue, the offer loop reports
//! it in a condition.
//!
//! Issues live in memory only: the next leader finds them again in its first pass. [`super`] lists
//! the other channels between the loops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use strum::IntoStaticStr;
use tokio::sync::broadcast;

use crate::ledger::money::Shortage;
use crate::ledger::protocol::AdoptionRefused;

/// Namespace and name of an offer.
pub(crate) type OfferName = (String, String);

/// Why an offer's agent is not registered yet. A variant's name is the condition's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum OfferIssue {
    /// The legacy controller may have registered the agent already.
    #[error(
        "{legacy}: registering could create a second agent. Set registration.agentId to adopt that agent, or registration.edition to 2 to ask for a new one"
    )]
    AdoptionRequired {
        /// What shows it.
        legacy: String,
    },
    /// The agent cannot be adopted.
    #[error(transparent)]
    AdoptionRefused(#[from] AdoptionRefused),
    /// The offer names another agent than the record of its identity.
    #[error(
        "registration.agentId is {wanted}, and record {name} of this identity {}: raise registration.edition to adopt agent {wanted} under another record, or delete the offer and create it without registration.agentId",
        .recorded.as_ref().map_or_else(|| "asks for a new agent".to_owned(), |id| format!("is for agent {id}"))
    )]
    OtherAgent {
        wanted: String,
        /// Name of the record.
        name: String,
        /// The agent of the record; `None` if it asks for a new one.
        recorded: Option<String>,
    },
    /// Balance, fees or limits do not allow it.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The registry contract would revert the transaction.
    #[error("the registry contract would revert the registration: {words}")]
    RegistrationWouldRevert {
        /// The endpoint's error message.
        words: String,
    },
    /// The record with the agent's key belongs to another agent.
    #[error("record {name} belongs to identity {other:?}: two identities share one key")]
    KeyTaken {
        /// Name of the record.
        name: String,
        /// Identity in the record.
        other: String,
    },
}

impl OfferIssue {
    /// Reason of the condition.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Shortage(shortage) => shortage.reason(),
            own => own.into(),
        }
    }

    /// Whether the offer's owner has to act before it can be registered.
    #[must_use]
    pub(crate) const fn needs_action(&self) -> bool {
        match self {
            Self::AdoptionRequired { .. }
            | Self::AdoptionRefused(_)
            | Self::OtherAgent { .. }
            | Self::KeyTaken { .. } => true,
            Self::Shortage(_) | Self::RegistrationWouldRevert { .. } => false,
        }
    }
}

/// Issues of all registries. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct OfferIssues {
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
    /// Replaces the issues of one registry, and notifies the offer loop of each offer whose issue
    /// changed.
    pub(crate) fn replace(&self, registry: &str, found: BTreeMap<OfferName, OfferIssue>) {
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
            // Without a receiver nothing is lost: the offer loop begins with every offer.
            let _ = self.changes.send(offer.clone());
        }
    }

    /// The issue that a registry found with an offer.
    #[must_use]
    pub(crate) fn get(&self, registry: &str, offer: &OfferName) -> Option<OfferIssue> {
        let all = self
            .by_registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.get(registry)?.get(offer).cloned()
    }

    /// Offers whose issue changes from now on.
    #[must_use]
    pub(crate) fn changes(&self) -> broadcast::Receiver<OfferName> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_issue_has_its_own_reason_and_a_remedy() {
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
        let reasons: std::collections::BTreeSet<&str> =
            all.iter().map(OfferIssue::reason).collect();
        assert_eq!(reasons.len(), all.len());
        assert!(all.iter().all(|issue| issue.to_string().contains(':')));
        assert!(
            reasons
                .iter()
                .all(|reason| reason.chars().all(char::is_alphabetic))
        );
    }

    #[test]
    fn only_offers_whose_issue_changes_are_notified() {
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
        let notified: Vec<OfferName> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        assert_eq!(notified, [offer("a"), offer("b"), offer("a")]);
    }
}
