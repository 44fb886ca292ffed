//! What the registry loop reports about single offers: why one is not registered, and whose agent
//! it adopted. The offer loop shows it in a condition.
//!
//! Both live in memory only: the next leader finds them again in its first pass. [`super`] lists
//! the other channels between the loops.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::{Address, U256};
use strum::IntoStaticStr;
use tokio::sync::broadcast;

use crate::api::{Key, Nonce};
use crate::ledger::money::Shortage;
use crate::ledger::protocol::AdoptionRefused;
pub(crate) use crate::registration::view::OfferName;

/// Two claims on one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdoptionConflict {
    pub agent_id: String,
    /// The offer that may not adopt the agent.
    pub own: String,
    /// The offer that claims it too, or the namespace that an admin gave it to.
    pub other: String,
    /// Identity to share, if both are in one namespace.
    pub identity: Option<String>,
    /// Name of the IdentityRegistry.
    pub registry: String,
}

impl fmt::Display for AdoptionConflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            agent_id,
            own,
            other,
            identity,
            registry,
        } = self;
        let remedy = match identity {
            Some(identity) => {
                format!("to share it, set registration.identity of both offers to {identity}")
            }
            None => format!(
                "an admin decides with spec.adoptions of IdentityRegistry {registry}, which gives \
                 the agent to one namespace"
            ),
        };
        write!(
            formatter,
            "{own} asks for agent {agent_id}, which {other} claims: {remedy}"
        )
    }
}

/// Why an offer's agent is not registered yet, or not as the offer asks. A variant's name is the
/// condition's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum OfferIssue {
    /// The legacy controller may have registered the agent already.
    #[error(
        "{legacy}: registering could create a second agent. Set registration.agentId to adopt that agent, or registration.edition to 2 to ask for a new one; an offer that cannot set registration.agentId any more has to be created again with it"
    )]
    AdoptionRequired {
        /// What shows it.
        legacy: String,
    },
    /// Objects of the legacy controller may still arrive.
    #[error(
        "this cluster has CustomResourceDefinitions of the legacy controller: the operator waits until the offer is {seconds} seconds old, so that imported RegistrationRequests are seen first"
    )]
    AwaitingLegacy { seconds: u64 },
    /// The agent cannot be adopted.
    #[error(transparent)]
    AdoptionRefused(#[from] AdoptionRefused),
    /// Someone else claims the agent that the offer names.
    #[error("{0}")]
    AdoptionConflict(Box<AdoptionConflict>),
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
    /// The transaction was included and reverted.
    #[error(
        "the transaction was included and reverted: raise registration.edition to ask for a new registration"
    )]
    RegistrationReverted,
    /// The endpoint refused the transaction.
    #[error(
        "the endpoint refused the transaction: {words}. The operator sends it again; if this lasts, check the fees, or use another endpoint"
    )]
    SendRefused {
        /// The endpoint's error message.
        words: String,
    },
    /// The endpoint refused the transaction, because the signer cannot pay for it.
    #[error("the endpoint refused the transaction: {words}. Fund the signer")]
    InsufficientFunds {
        /// The endpoint's error message.
        words: String,
    },
    /// The endpoint did not answer when the transaction was sent.
    #[error(
        "the endpoint did not say whether it accepted the transaction: {words}. The operator sends it again; check the endpoint if this lasts"
    )]
    SendUnanswered {
        /// What happened.
        words: String,
    },
    /// The transaction was accepted and is in no block.
    #[error(
        "the transaction was sent {blocks} blocks ago and is in no block: the operator sends it again, and replaces it by one with higher fees as far as the limits allow; if this lasts, raise limits.perRegistration of the IdentityRegistry, or use another endpoint"
    )]
    NotIncluded { blocks: u64 },
    /// Nothing could be signed for a lower nonce: what is above it would not be included.
    #[error(
        "nonce {nonce} of agent {key} comes first, and no transaction could be signed for it: the condition Registered of that agent's offers says why"
    )]
    NonceUnsigned { nonce: Nonce, key: Key },
    /// A filler uses up the nonce of the agent.
    #[error(
        "no transaction could be signed for nonce {nonce} of this agent, so a filler uses it up, and others need not wait: {why}. The agent gets another nonce when that has passed, or in ten minutes"
    )]
    NonceFilled {
        nonce: Nonce,
        /// Why no transaction could be signed.
        why: String,
    },
    /// The API server rejects the record of the agent.
    #[error(
        "the API server rejected the record of the agent: {why}. Correct the offer, or the admission webhook or policy that rejects it"
    )]
    RecordRefused { why: String },
    /// The record of the agent cannot be decoded.
    #[error(
        "record {name} of the agent exists and cannot be decoded: upgrade the operator if a newer version wrote it, or restore it from a backup"
    )]
    RecordUndecodable {
        /// Name of the record.
        name: String,
    },
    /// The namespace has too many records that never got a nonce.
    #[error(
        "namespace {namespace} has {limit} agents that were never registered: wait until they are, or ask an admin to delete AgentRegistrations of the namespace with phase Tombstoned and no attempts"
    )]
    TooManyUnregistered { namespace: String, limit: usize },
    /// The signer belongs to another IdentityRegistry.
    #[error(
        "the signer of this IdentityRegistry is held by the older IdentityRegistry {holder}: give this one its own signer, or delete the other one"
    )]
    SignerInUse {
        /// Name of the IdentityRegistry that holds it.
        holder: String,
    },
    /// The registration was given to an account that the registry does not use any more.
    #[error(
        "record {record} waits for signer {signer}, which has begun the registration and is not in spec.signers of the IdentityRegistry: list it, after the first, until the registration is final"
    )]
    SignerChanged {
        /// Name of the record.
        record: String,
        signer: Address,
    },
    /// The ledger of another signer has a nonce for the agent, and the record of that is lost.
    #[error(
        "SignerLedger {ledger} has a nonce for this agent, and what was signed for it is not in the record any more: signer {signer} may have a registration in flight, so no other one registers the agent. Restore the AgentRegistration from a backup, or wait until the registration is final"
    )]
    OtherLedgerRegistering {
        /// Name of the ledger.
        ledger: String,
        signer: Address,
    },
    /// Something else has used the nonce of a transaction that another signer than the first has
    /// signed.
    #[error(
        "something else has used the nonce of record {record}, and its signer {signer} gives it another one only while it is the first: put it first in spec.signers of the IdentityRegistry until the registration is final"
    )]
    SignerNotFirst {
        /// Name of the record.
        record: String,
        signer: Address,
    },
    /// Another signer than the first has begun the registration and cannot be used.
    #[error(
        "the registration waits for signer {signer}, which has begun it and cannot be used: {why}"
    )]
    SignerUnusable { signer: Address, why: String },
    /// An account that nothing in the cluster names has registered an agent with the same URI.
    #[error(
        "account {account} has registered agent {agent_id} with the URI of this agent, and nothing in the cluster names that account: if it is yours, list it in spec.signers of the IdentityRegistry, after the first; to use only the agent, delete the offer and create it again with registration.agentId; if both are someone else's, list the agent in spec.bootstrap.ignoreAgents.ids of the IdentityRegistry"
    )]
    RegisteredByOtherAccount { agent_id: U256, account: Address },
    /// A question about this agent was not answered.
    #[error(
        "the endpoint did not answer a question about this agent: {why}. The operator asks again"
    )]
    RpcFailed { why: String },
    /// What is stored for a nonce contradicts the ledger or itself.
    #[error("nonce {nonce} of the agent: {why}. Restore the record from a backup")]
    StoredTransactionMismatch { nonce: Nonce, why: String },
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

    /// Whether a person has to act before the offer can be registered.
    #[must_use]
    pub(crate) const fn needs_action(&self) -> bool {
        match self {
            Self::AdoptionRequired { .. }
            | Self::AdoptionRefused(_)
            | Self::AdoptionConflict(_)
            | Self::OtherAgent { .. }
            | Self::RegistrationReverted
            | Self::RecordRefused { .. }
            | Self::RecordUndecodable { .. }
            | Self::SignerInUse { .. }
            | Self::SignerChanged { .. }
            | Self::OtherLedgerRegistering { .. }
            | Self::SignerNotFirst { .. }
            | Self::SignerUnusable { .. }
            | Self::RegisteredByOtherAccount { .. }
            | Self::StoredTransactionMismatch { .. }
            | Self::KeyTaken { .. } => true,
            Self::AwaitingLegacy { .. }
            | Self::Shortage(_)
            | Self::RegistrationWouldRevert { .. }
            | Self::SendRefused { .. }
            | Self::InsufficientFunds { .. }
            | Self::SendUnanswered { .. }
            | Self::NotIncluded { .. }
            | Self::NonceUnsigned { .. }
            | Self::NonceFilled { .. }
            | Self::TooManyUnregistered { .. }
            | Self::RpcFailed { .. } => false,
        }
    }

    /// Whether it keeps nothing but this agent's registration from being signed.
    #[must_use]
    pub(crate) const fn concerns_one_agent(&self) -> bool {
        match self {
            Self::Shortage(Shortage::AttemptLimitReached { .. }) => true,
            Self::Shortage(shortage) => !shortage.affects_every_namespace(),
            Self::RegistrationWouldRevert { .. } | Self::RecordRefused { .. } => true,
            _ => false,
        }
    }

    /// Whether it contradicts what the offer asks for even after its agent is registered.
    #[must_use]
    pub(crate) const fn outlasts_registration(&self) -> bool {
        matches!(
            self,
            Self::AdoptionRequired { .. }
                | Self::AdoptionRefused(_)
                | Self::AdoptionConflict(_)
                | Self::OtherAgent { .. }
                | Self::KeyTaken { .. }
        )
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

/// Owners of agents at the time when they were adopted, by key. The registry loop learns them, the
/// offer loop writes them to the status of the offers, which keep them. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdoptedOwners(Arc<Mutex<BTreeMap<Key, Address>>>);

impl AdoptedOwners {
    /// Keeps the owner of an agent that is about to be adopted.
    pub(crate) fn insert(&self, key: Key, owner: Address) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.insert(key, owner);
    }

    #[must_use]
    pub(crate) fn get(&self, key: Key) -> Option<Address> {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(identity: Option<&str>) -> AdoptionConflict {
        AdoptionConflict {
            agent_id: "7".into(),
            own: "offer shop/b".into(),
            other: "offer shop/a".into(),
            identity: identity.map(str::to_owned),
            registry: "idr".into(),
        }
    }

    #[test]
    fn conflict_names_both_offers_and_the_remedy() {
        let shared = conflict(Some("a")).to_string();
        let decided = conflict(None).to_string();
        for message in [&shared, &decided] {
            assert!(message.contains("offer shop/a") && message.contains("offer shop/b"));
        }
        assert!(
            shared.ends_with("set registration.identity of both offers to a"),
            "{shared}"
        );
        assert!(
            decided.contains("spec.adoptions of IdentityRegistry idr"),
            "{decided}"
        );
    }

    #[test]
    fn issue_that_outlasts_registration_needs_action() {
        let conflict = OfferIssue::AdoptionConflict(Box::new(conflict(None)));
        let refused = OfferIssue::SendRefused { words: "no".into() };
        for (issue, expected) in [(conflict, true), (refused, false)] {
            assert_eq!(issue.needs_action(), expected);
            assert_eq!(issue.outlasts_registration(), expected);
        }
    }

    #[test]
    fn owner_is_kept_by_key() {
        let owners = AdoptedOwners::default();
        let key = Key::derive("", 1, Address::ZERO, 1);
        assert_eq!(owners.get(key), None);
        owners.clone().insert(key, Address::repeat_byte(1));
        assert_eq!(owners.get(key), Some(Address::repeat_byte(1)));
    }

    #[test]
    fn every_issue_has_its_own_reason_and_a_remedy() {
        let (name, other) = (String::from("r-x"), String::from("shop/other"));
        let all = [
            OfferIssue::AdoptionRequired {
                legacy: "a request exists".into(),
            },
            AdoptionRefused::AgentNotFound { id: "9".into() }.into(),
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
            OfferIssue::AwaitingLegacy { seconds: 60 },
            OfferIssue::AdoptionConflict(Box::new(conflict(None))),
            OfferIssue::RegistrationReverted,
            OfferIssue::SendRefused { words: "no".into() },
            OfferIssue::SendUnanswered { words: "no".into() },
            OfferIssue::NotIncluded { blocks: 9 },
            OfferIssue::NonceUnsigned {
                nonce: Nonce(1),
                key: Key::derive("", 1, Address::ZERO, 1),
            },
            OfferIssue::NonceFilled {
                nonce: Nonce(1),
                why: "no".into(),
            },
            OfferIssue::RecordRefused { why: "no".into() },
            OfferIssue::RecordUndecodable { name: "r-x".into() },
            OfferIssue::TooManyUnregistered {
                namespace: "shop".into(),
                limit: 64,
            },
            OfferIssue::SignerInUse {
                holder: "idr".into(),
            },
            OfferIssue::SignerChanged {
                record: "r-a".into(),
                signer: Address::ZERO,
            },
            OfferIssue::OtherLedgerRegistering {
                ledger: "signer-a".into(),
                signer: Address::ZERO,
            },
            OfferIssue::SignerNotFirst {
                record: "r-a".into(),
                signer: Address::ZERO,
            },
            OfferIssue::SignerUnusable {
                signer: Address::ZERO,
                why: "no".into(),
            },
            OfferIssue::RegisteredByOtherAccount {
                agent_id: U256::ZERO,
                account: Address::ZERO,
            },
            OfferIssue::RpcFailed { why: "no".into() },
            OfferIssue::StoredTransactionMismatch {
                nonce: Nonce(1),
                why: "no".into(),
            },
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
    fn nonce_is_filled_only_for_what_concerns_one_agent() {
        let (used, limit, needed) = (1, 1, 1);
        let of_namespace = Shortage::NamespaceLimitReached {
            used,
            limit,
            needed,
        };
        let of_all = Shortage::DailyLimitReached {
            used,
            limit,
            needed,
        };
        let full = Shortage::AttemptLimitReached { attempts: 256 };
        for (issue, concerns_one) in [
            (OfferIssue::Shortage(of_namespace), true),
            (OfferIssue::Shortage(of_all), false),
            (OfferIssue::Shortage(full), true),
            (OfferIssue::RecordRefused { why: "no".into() }, true),
            (
                OfferIssue::RegistrationWouldRevert { words: "no".into() },
                true,
            ),
            (OfferIssue::SendRefused { words: "no".into() }, false),
        ] {
            assert_eq!(issue.concerns_one_agent(), concerns_one, "{issue}");
        }
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
