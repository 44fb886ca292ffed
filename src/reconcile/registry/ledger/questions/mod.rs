//! What has to be asked of the chain about entries, pending records and adoptions, and what the
//! answers show. Pure.
//!
//! An answer belongs to the item that asked: an error about one entry is that entry's outcome, and
//! the others are decided. [`super::read`] asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy::primitives::{Address, B256, U256};

use super::plan::EvidenceByNonce;
use crate::api::{AgentRegistration, AgentRegistrationSpec, Key, Nonce};
use crate::chain::{Block, OnChainAgent, Receipt, RegisteredEvent, RpcError, abi};
use crate::ledger::evidence::{
    AdoptionTarget, Evidence, FinalRegistration, Inclusion, LedgerSnapshot,
};
use crate::reconcile::registry::adoption::taken_by;

/// Questions about transactions and agents, without repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    pub receipts: BTreeSet<B256>,
    pub transactions: BTreeSet<B256>,
    pub agents: BTreeSet<U256>,
}

/// Answers of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    pub receipts: HashMap<B256, Result<Option<Receipt>, RpcError>>,
    /// Sender and nonce.
    pub transactions: HashMap<B256, Result<Option<(Address, Nonce)>, RpcError>>,
    pub agents: HashMap<U256, Result<Option<OnChainAgent>, RpcError>>,
}

impl Answers {
    /// An answer, or `None` if the endpoint does not have that transaction any more: nodes drop
    /// their index of old transactions, and keep the logs.
    fn kept<T: Clone>(answer: Option<&Result<Option<T>, RpcError>>) -> Result<Option<T>, RpcError> {
        match answer {
            Some(Err(RpcError::RpcHistoryMissing { .. })) | None => Ok(None),
            Some(answer) => answer.clone(),
        }
    }
}

/// Attempts of a record at a nonce.
fn attempts_at(record: &AgentRegistrationSpec, nonce: Nonce) -> impl Iterator<Item = B256> {
    record
        .attempts
        .iter()
        .filter(move |attempt| attempt.nonce == nonce)
        .map(|attempt| attempt.hash)
}

/// Records of a ledger's entries that have no outcome yet.
fn open_entries<'a>(
    snapshot: LedgerSnapshot<'a>,
    records: &'a BTreeMap<Key, AgentRegistration>,
    is_ours: impl Fn(&AgentRegistrationSpec) -> bool,
) -> impl Iterator<Item = (Nonce, &'a AgentRegistrationSpec)> {
    snapshot
        .ledger
        .entries
        .iter()
        .filter_map(move |(nonce, entry)| {
            let record = &records.get(&entry.key?)?.spec;
            (record.is_open() && is_ours(record)).then_some((*nonce, record))
        })
}

impl Questions {
    /// Asks what shows how the transactions of entries ended.
    pub fn about_entries(
        &mut self,
        snapshot: LedgerSnapshot<'_>,
        records: &BTreeMap<Key, AgentRegistration>,
        is_ours: impl Fn(&AgentRegistrationSpec) -> bool,
    ) {
        let counts = snapshot.account.counts;
        for (nonce, record) in open_entries(snapshot, records, is_ours) {
            let registrations = if nonce < counts.finalized {
                snapshot.index.registrations(record.key)
            } else {
                &[]
            };
            self.about_registrations(registrations);
            if nonce < counts.latest && registrations.is_empty() {
                self.receipts.extend(attempts_at(record, nonce));
            }
        }
    }

    /// Asks what proves whose registrations these are.
    pub fn about_registrations<'a>(
        &mut self,
        registrations: impl IntoIterator<Item = &'a RegisteredEvent>,
    ) {
        for event in registrations {
            self.receipts.insert(event.transaction);
            self.transactions.insert(event.transaction);
            self.agents.insert(event.agent_id);
        }
    }

    /// Asks for the agents that records want to adopt.
    pub fn about_adoptions<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a AgentRegistration>,
    ) {
        self.agents
            .extend(records.into_iter().filter_map(adoption_of));
    }
}

/// Agent that a record wants to adopt and has not adopted yet.
fn adoption_of(record: &AgentRegistration) -> Option<U256> {
    let wanted = record.spec.adopt.as_deref();
    wanted
        .filter(|_| record.spec.result.is_none())
        .and_then(abi::agent_id)
}

/// How long ago a transaction was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendAge {
    /// So recently that it need not be sent again.
    pub recent: bool,
    /// So long ago that its fee is probably too low.
    pub overdue: bool,
}

/// What the answers show of each entry.
pub fn evidence(
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    is_ours: impl Fn(&AgentRegistrationSpec) -> bool,
    answers: &Answers,
    send_age: impl Fn(B256) -> SendAge,
) -> EvidenceByNonce {
    open_entries(snapshot, records, is_ours)
        .map(|(nonce, record)| {
            let shown = entry_evidence(snapshot, nonce, record, answers).map(|evidence| {
                let last = attempts_at(record, nonce).last();
                let age = last.map(&send_age).unwrap_or_default();
                Evidence {
                    sent_recently: age.recent,
                    is_overdue: age.overdue,
                    ..evidence
                }
            });
            (nonce, shown)
        })
        .collect()
}

fn entry_evidence(
    snapshot: LedgerSnapshot<'_>,
    nonce: Nonce,
    record: &AgentRegistrationSpec,
    answers: &Answers,
) -> Result<Evidence, RpcError> {
    let counts = snapshot.account.counts;
    let mut evidence = Evidence::default();
    if nonce < counts.finalized {
        let index = snapshot.index;
        let registrations = index.registrations(record.key).iter();
        let of_owner = registrations.map(|event| (index.owner(), event));
        evidence.registrations = final_registrations(of_owner, answers)?;
    }
    if nonce < counts.latest && evidence.registrations.is_empty() {
        for transaction in attempts_at(record, nonce) {
            if let Some(receipt) = answers
                .receipts
                .get(&transaction)
                .cloned()
                .transpose()?
                .flatten()
            {
                evidence.included = Some(Inclusion {
                    transaction,
                    succeeded: receipt.succeeded,
                    block: receipt.block,
                    cost: receipt.cost,
                });
            }
        }
    }
    Ok(evidence)
}

/// Everything that proves whose these final registrations are. Each comes with the account whose
/// logs show it.
pub fn final_registrations<'a>(
    registrations: impl IntoIterator<Item = (Address, &'a RegisteredEvent)>,
    answers: &Answers,
) -> Result<Vec<FinalRegistration>, RpcError> {
    registrations
        .into_iter()
        .map(|(registrant, event)| {
            let transaction = Answers::kept(answers.transactions.get(&event.transaction))?;
            let receipt = Answers::kept(answers.receipts.get(&event.transaction))?;
            let agent = answers
                .agents
                .get(&event.agent_id)
                .cloned()
                .transpose()?
                .flatten();
            Ok(FinalRegistration {
                registrant,
                event: event.clone(),
                sender: transaction.map(|(sender, _)| sender),
                nonce: transaction.map(|(_, nonce)| nonce),
                // A log proves that its transaction succeeded, even if its receipt is gone.
                confirmed: agent.is_some() && receipt.is_none_or(|receipt| receipt.succeeded),
                cost: receipt.map(|receipt| receipt.cost),
            })
        })
        .collect()
}

/// What the answers show of the agents that records want to adopt.
pub fn adoption_targets<'a>(
    records: impl IntoIterator<Item = &'a AgentRegistration> + Clone,
    finalized: &Block,
    answers: &Answers,
) -> BTreeMap<Key, Result<AdoptionTarget, RpcError>> {
    let adopting = records
        .clone()
        .into_iter()
        .filter_map(|record| Some((record, adoption_of(record)?)));
    adopting
        .map(|(record, agent_id)| {
            let target = answers
                .agents
                .get(&agent_id)
                .cloned()
                .unwrap_or(Ok(None))
                .map(|agent| {
                    let (owner, agent_uri) = match agent {
                        Some(OnChainAgent { owner, uri, .. }) => (Some(owner), uri),
                        None => (None, String::new()),
                    };
                    AdoptionTarget {
                        exists_at: owner.map(|_| (finalized.number, finalized.hash)),
                        taken_by: taken_by(
                            record,
                            agent_id,
                            &agent_uri,
                            records.clone().into_iter(),
                        ),
                        owner,
                        agent_uri,
                    }
                });
            (record.spec.key, target)
        })
        .collect()
}

#[cfg(test)]
mod tests;
