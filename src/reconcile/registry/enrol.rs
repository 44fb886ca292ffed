//! Which records the offers ask for. Pure.
//!
//! A record is made for an identity, not for an object: offers that share an identity share a record, and an offer that is
//! made anew finds the one it had. An offer that names an agent by its id never leads to another one: it joins a record that
//! stands for that agent, or none.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};

use crate::api::{
    AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, OfferRef, Phase,
    RegistryContract, ServiceOffer,
};
use crate::chain::abi;
use crate::cluster::MaybeDecoded;
use crate::ledger::protocol::{revived, same_agent};
use crate::reconcile::findings::{Finding, OfferName};
use crate::registration::identity::key_of;

/// Most offers that a record lists; the schema's limit.
const MOST_OFFERS: usize = 1024;

/// What all records of a registry have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Address of the registry contract.
    pub registry: Address,
    /// Keccak-256 of its code.
    pub code_hash: B256,
    /// Account that registers; none where the registry only watches.
    pub signer: Option<Address>,
}

/// An offer that leads to this registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// Its namespace and name.
    pub name: OfferName,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// Identity of its agent.
    pub identity: String,
    /// Key of its agent.
    pub key: Key,
    /// Edition of its agent.
    pub edition: u32,
    /// The agent that it wants to adopt.
    pub adopt: Option<String>,
    /// Agent id that another controller left in its status.
    pub relic: Option<String>,
    /// Whether it may be listed.
    pub live: bool,
    /// Whether its status names this agent. Only then is its choice of a registry made for good: a default that moves
    /// while copies lag behind can have the offer ask two registries.
    pub settled: bool,
}

impl Applicant {
    fn reference(&self) -> OfferRef {
        OfferRef {
            namespace: self.name.0.clone(),
            name: self.name.1.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// What the records need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roll {
    /// Records to create, each with the offers that ask for it.
    pub create: Vec<(AgentRegistrationSpec, Vec<Applicant>)>,
    /// Records to replace.
    pub amend: Vec<(AgentRegistration, AgentRegistrationSpec)>,
    /// Offers that cannot have a record.
    pub findings: BTreeMap<OfferName, Finding>,
}

/// Decides what the records need. `record_of` answers from a copy: a write that was decided on an old copy is refused.
pub fn roll<R: AsRef<AgentRegistration>>(
    ground: &Ground,
    applicants: &[Applicant],
    record_of: impl Fn(Key) -> Option<R>,
) -> Roll {
    let mut by_key: BTreeMap<Key, Vec<&Applicant>> = BTreeMap::new();
    for applicant in applicants.iter().filter(|applicant| applicant.live) {
        by_key.entry(applicant.key).or_default().push(applicant);
    }
    let mut roll = Roll::default();
    for (key, group) in by_key {
        match record_of(key) {
            None => roll.enter(ground, &group),
            Some(record) => roll.join(ground, record.as_ref(), &group),
        }
    }
    roll
}

impl Roll {
    /// Offers whose agent has no record.
    fn enter(&mut self, ground: &Ground, group: &[&Applicant]) {
        let adopt = group
            .iter()
            .find_map(|applicant| applicant.adopt.as_deref());
        let fitting = self.fitting(group, adopt);
        let Some(first) = fitting.first() else { return };
        let applicants = fitting
            .iter()
            .map(|applicant| (*applicant).clone())
            .collect();
        self.create
            .push((created(ground, first, adopt, &fitting), applicants));
    }

    /// Offers whose agent's key has a record.
    fn join(&mut self, ground: &Ground, record: &AgentRegistration, group: &[&Applicant]) {
        let spec = &record.spec;
        if group
            .iter()
            .any(|applicant| !is_record_of(spec, ground, applicant))
        {
            let finding = Finding::KeyTaken {
                name: spec.key.record_name(),
                other: spec.identity.clone(),
            };
            self.findings.extend(
                group
                    .iter()
                    .map(|applicant| (applicant.name.clone(), finding.clone())),
            );
            return;
        }
        let agent = spec
            .result
            .as_ref()
            .map(|result| result.agent_id.as_str())
            .or(spec.adopt.as_deref());
        let fitting = self.fitting(group, agent);
        if fitting.is_empty() {
            return;
        }
        let wanted = joined(ground, spec, &fitting);
        if wanted != *spec {
            self.amend.push((record.clone(), wanted));
        }
    }

    /// Those of a group that may share a record which stands for this agent, or for one that is to be registered.
    fn fitting<'a>(&mut self, group: &[&'a Applicant], agent: Option<&str>) -> Vec<&'a Applicant> {
        let mut fitting = Vec::new();
        for applicant in group {
            match &applicant.adopt {
                Some(wanted) if !agent.is_some_and(|agent| is_same(agent, wanted)) => {
                    let (name, recorded) = (applicant.key.record_name(), agent.map(str::to_owned));
                    let finding = Finding::OtherAgent {
                        wanted: wanted.clone(),
                        name,
                        recorded,
                    };
                    self.findings.insert(applicant.name.clone(), finding);
                }
                _ => fitting.push(*applicant),
            }
        }
        fitting
    }
}

/// Whether two ids name the same agent.
fn is_same(agent_id: &str, other: &str) -> bool {
    abi::agent_id(other).is_some_and(|other| same_agent(agent_id, other))
}

/// Keys that an offer wants registered, and who wants them. Offers that cannot have a record want nothing.
#[must_use]
pub fn wanted(
    applicants: &[Applicant],
    refused: &BTreeMap<OfferName, Finding>,
) -> BTreeMap<Key, Vec<OfferName>> {
    let mut wanted: BTreeMap<Key, Vec<OfferName>> = BTreeMap::new();
    for applicant in applicants
        .iter()
        .filter(|applicant| applicant.live && !refused.contains_key(&applicant.name))
    {
        wanted
            .entry(applicant.key)
            .or_default()
            .push(applicant.name.clone());
    }
    wanted
}

/// Keys of which an offer's status says that they are its agent's: they may get a nonce.
#[must_use]
pub fn settled(applicants: &[Applicant], wanted: &BTreeMap<Key, Vec<OfferName>>) -> BTreeSet<Key> {
    let settled = applicants.iter().filter(|applicant| applicant.settled);
    settled
        .map(|applicant| applicant.key)
        .filter(|key| wanted.contains_key(key))
        .collect()
}

/// Keys of the agents that an offer leads to on these registries.
pub fn keys_of(
    offer: &ServiceOffer,
    registries: &[impl AsRef<IdentityRegistry>],
) -> impl Iterator<Item = Key> {
    registries
        .iter()
        .filter_map(|registry| key_of(offer, registry.as_ref()))
}

/// Whether an offer that a record lists may still use its agent. What cannot be decoded is not judged: it keeps its agent.
#[must_use]
pub fn may_use(
    offer: &MaybeDecoded<ServiceOffer>,
    registries: &[impl AsRef<IdentityRegistry>],
    key: Key,
) -> bool {
    offer.0.as_ref().map_or(true, |offer| {
        keys_of(offer, registries).any(|led_to| led_to == key)
    })
}

/// Whether a record is that of the applicant's agent, and not of another one whose key happens to be the same.
fn is_record_of(record: &AgentRegistrationSpec, ground: &Ground, applicant: &Applicant) -> bool {
    record.identity == applicant.identity
        && record.edition == applicant.edition
        && record.chain_id == ground.chain_id
        && record.registry.address == ground.registry
}

fn created(
    ground: &Ground,
    first: &Applicant,
    adopt: Option<&str>,
    group: &[&Applicant],
) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        key: first.key,
        identity: first.identity.clone(),
        chain_id: ground.chain_id,
        registry: RegistryContract {
            address: ground.registry,
            code_hash: ground.code_hash,
        },
        edition: first.edition,
        signer: ground.signer,
        agent_uri: None,
        calldata_hash: None,
        adopt: adopt.map(str::to_owned),
        phase: Phase::Pending,
        offers: group
            .iter()
            .take(MOST_OFFERS)
            .map(|applicant| applicant.reference())
            .collect(),
        attempts: Vec::new(),
        update: None,
        result: None,
        proven_absent: None,
        tombstone: None,
        spent_wei: None,
    }
}

/// The record with every applicant on its list, alive. Offers that have gone stay on the list until the agent is retired.
fn joined(
    ground: &Ground,
    record: &AgentRegistrationSpec,
    group: &[&Applicant],
) -> AgentRegistrationSpec {
    let mut wanted = if record.tombstone.is_some() {
        revived(record)
    } else {
        record.clone()
    };
    // Made while the registry only watched. Another account than the first is a matter of rotation.
    if wanted.signer.is_none() && wanted.result.is_none() {
        wanted.signer = ground.signer;
    }
    for applicant in group {
        let reference = applicant.reference();
        let same = |listed: &OfferRef| {
            listed.namespace == reference.namespace && listed.name == reference.name
        };
        match wanted.offers.iter().position(same) {
            Some(at) => wanted.offers[at] = reference,
            None if wanted.offers.len() < MOST_OFFERS => wanted.offers.push(reference),
            None => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests;
